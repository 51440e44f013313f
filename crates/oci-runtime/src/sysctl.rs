//! Kernel parameters of a container: only those of namespaces that are its own (runc's list). Pure.

use oci::runtime::Linux;
use rustix::thread::ThreadNameSpaceType;

use crate::error::PlanError;
use crate::field::FieldError;
use crate::plan::Namespaces;

/// Their paths below /proc/sys, and values.
pub(crate) fn plan(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(String, String)>, PlanError> {
    let one = |(name, value): (&String, &String)| Ok((path(name, namespaces)?, value.clone()));
    linux.sysctl.iter().map(one).collect()
}

fn path(name: &str, namespaces: &Namespaces) -> Result<String, PlanError> {
    // sysctl(8): with the first separator a slash, dots are part of names, as in `net/ipv4/conf/eth0.1/forwarding`.
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        letter => letter,
    };
    let (dotted, path) = match slashes {
        true => (name.chars().map(swap).collect(), name.to_owned()),
        false => (name.to_owned(), name.chars().map(swap).collect::<String>()),
    };
    if dotted == "kernel.hostname" {
        return Err(FieldError::Contradicts { with: "hostname" }.at("linux.sysctl.kernel.hostname"));
    }
    let clean = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    let own = kind(&dotted).is_some_and(|kind| namespaces.all.contains(kind));
    if clean && own { Ok(path) } else { Err(PlanError::Sysctl { name: name.to_owned() }) }
}

/// The kind of namespace that has such a parameter of its own.
fn kind(dotted: &str) -> Option<ThreadNameSpaceType> {
    if oci::names::IPC_SYSCTLS.contains(&dotted) || dotted.starts_with("fs.mqueue.") {
        Some(ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION)
    } else if is_network(dotted) {
        Some(ThreadNameSpaceType::NETWORK)
    } else if dotted == "kernel.domainname" {
        Some(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME)
    } else if dotted.starts_with("user.") {
        Some(ThreadNameSpaceType::USER)
    } else {
        None
    }
}

/// Whether a parameter, however it is written, is one of the network.
pub(crate) fn is_network(name: &str) -> bool {
    name.starts_with("net.") || name.starts_with("net/")
}
