//! Kernel parameters of a container: only those of namespaces that are its own (runc's list). Pure.

use oci::runtime::Linux;
use rustix::thread::ThreadNameSpaceType;

use crate::error::PlanError;
use crate::field::FieldError;
use crate::plan::Namespaces;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// As the specification has it.
    pub(crate) name: String,
    /// Below /proc/sys.
    pub(crate) path: String,
    pub(crate) value: String,
}

/// All of them.
pub(crate) fn plan(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<Parameter>, PlanError> {
    let one = |(name, value): (&String, &String)| {
        Ok(Parameter { name: name.clone(), path: path(name, namespaces)?, value: value.clone() })
    };
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
        return Err(FieldError::Contradicts { with: "hostname" }.at(field(name)));
    }
    let clean = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    let kind = kind(&dotted).filter(|_| clean);
    match kind {
        Some(kind) if namespaces.all.contains(kind) => Ok(path),
        kind => Err(not_separate(name, kind)),
    }
}

/// The full name of a parameter's field, whose own name has dots.
pub(crate) fn field(name: &str) -> String {
    format!("linux.sysctl[{name:?}]")
}

/// A parameter that is the host's; with the namespace that would make it the container's.
pub(crate) fn not_separate(name: &str, kind: Option<ThreadNameSpaceType>) -> PlanError {
    let needs = kind.map(crate::plan::word);
    FieldError::NotSeparate { name: name.to_owned(), needs }.at(field(name))
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
