//! From a specification to everything that is known before the first system call. Pure.

use std::path::{Path, PathBuf};

use oci::runtime::{Device, Linux, NamespaceKind, Spec};
use rustix::fs::FileType;
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};
use sys::fork::NewNamespaces;
use sys::mount::Attributes;

use crate::error::PlanError;
use crate::mounts::{MountKind, MountPlan};
use crate::scheduling::Machine;
use crate::user_namespace::UserNamespace;

/// What is done before the process itself is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    /// Whose root it is that does everything, if not the host's.
    pub(crate) user: Option<UserNamespace>,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) devices: Vec<Device>,
    /// Whether /dev is the container's own: not where the host's is bound there.
    pub(crate) set_up_dev: bool,
    pub(crate) root_readonly: bool,
    /// Propagation of the root, and whether for everything below.
    pub(crate) root_propagation: Option<(u64, bool)>,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    /// Paths below /proc/sys, and values.
    pub(crate) sysctl: Vec<(String, String)>,
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) read_only: Vec<PathBuf>,
    pub(crate) machine: Machine,
}

/// New and joined ones.
#[derive(Clone, Debug)]
pub(crate) struct Namespaces {
    /// For clone3.
    pub(crate) new: NewNamespaces,
    /// Made by the child once it is in its cgroup, which becomes the root of what it sees.
    pub(crate) new_cgroup: bool,
    pub(crate) new_network: bool,
    /// In the order in which they are joined: user last.
    pub(crate) joined: Vec<(ThreadNameSpaceType, PathBuf)>,
    /// The one into which the child is born.
    pub(crate) joined_pid: Option<PathBuf>,
    /// All that differ from the host's, for exec.
    pub(crate) all: ThreadNameSpaceType,
}

impl Plan {
    pub(crate) fn new(spec: &Spec) -> Result<Plan, PlanError> {
        let linux = &spec.linux;
        let namespaces = Namespaces::new(linux)?;
        let user = UserNamespace::plan(linux)?;
        let needs_uts = |setting, value: &str| match value {
            "" => Ok(()),
            _ if namespaces.all.contains(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME) => Ok(()),
            _ => Err(PlanError::NeedsNamespace { setting, namespace: "uts" }),
        };
        needs_uts("hostname", &spec.hostname)?;
        needs_uts("domainname", &spec.domainname)?;
        let mounts = spec.mounts.iter().map(MountPlan::below_root).collect::<Result<Vec<_>, _>>()?;
        let host_dev = |mount: &MountPlan| mount.destination == Path::new("/dev") && mount.kind == MountKind::Bind;
        linux.devices.iter().try_for_each(check_device)?;
        spec.hooks.iter().try_for_each(crate::hooks::check)?;
        Ok(Plan {
            set_up_dev: !mounts.iter().any(host_dev),
            mounts,
            devices: linux.devices.clone(),
            root_readonly: spec.root.readonly,
            root_propagation: propagation(&linux.rootfs_propagation)?,
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            sysctl: sysctls(linux, &namespaces)?,
            masked: linux.masked_paths.iter().map(PathBuf::from).collect(),
            read_only: linux.readonly_paths.iter().map(PathBuf::from).collect(),
            machine: Machine::plan(linux)?,
            namespaces,
            user,
        })
    }
}

impl Namespaces {
    fn new(linux: &Linux) -> Result<Namespaces, PlanError> {
        let mut namespaces = Namespaces {
            new: NewNamespaces::default(),
            new_cgroup: false,
            new_network: false,
            joined: Vec::new(),
            joined_pid: None,
            all: ThreadNameSpaceType::empty(),
        };
        for namespace in &linux.namespaces {
            let (flag, _) = flags(namespace.kind);
            namespaces.all |= flag;
            match (namespace.kind, &namespace.path) {
                (NamespaceKind::Mount, Some(_)) => {
                    return Err(PlanError::Unsupported { what: "joining a mount namespace".into() });
                }
                (NamespaceKind::Pid, Some(path)) => namespaces.joined_pid = Some(path.clone()),
                (_, Some(path)) => namespaces.joined.push((flag, path.clone())),
                (NamespaceKind::Cgroup, None) => namespaces.new_cgroup = true,
                (kind, None) => {
                    namespaces.new_network |= kind == NamespaceKind::Network;
                    namespaces.new.0 |= u64::from(flags(kind).1.bits());
                }
            }
        }
        // Join every namespace except user first: after setns(CLONE_NEWUSER) we may lack the privilege to join the rest.
        // runc libcontainer/nsenter/nsexec.c, join_namespaces().
        namespaces.joined.sort_by_key(|(flag, _)| *flag == ThreadNameSpaceType::USER);
        if !namespaces.all.contains(ThreadNameSpaceType::MOUNT) {
            return Err(PlanError::NoMountNamespace);
        }
        Ok(namespaces)
    }
}

/// The kernel's bit, once for setns and once for clone.
fn flags(kind: NamespaceKind) -> (ThreadNameSpaceType, UnshareFlags) {
    match kind {
        NamespaceKind::Pid => (ThreadNameSpaceType::PROCESS_ID, UnshareFlags::NEWPID),
        NamespaceKind::Network => (ThreadNameSpaceType::NETWORK, UnshareFlags::NEWNET),
        NamespaceKind::Mount => (ThreadNameSpaceType::MOUNT, UnshareFlags::NEWNS),
        NamespaceKind::Ipc => (ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION, UnshareFlags::NEWIPC),
        NamespaceKind::Uts => (ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME, UnshareFlags::NEWUTS),
        NamespaceKind::User => (ThreadNameSpaceType::USER, UnshareFlags::NEWUSER),
        NamespaceKind::Cgroup => (ThreadNameSpaceType::CONTROL_GROUP, UnshareFlags::NEWCGROUP),
        NamespaceKind::Time => (ThreadNameSpaceType::TIME, UnshareFlags::NEWTIME),
    }
}

fn propagation(word: &str) -> Result<Option<(u64, bool)>, PlanError> {
    let (recursive, plain) = word.strip_prefix('r').map_or((false, word), |plain| (true, plain));
    let bit = match plain {
        "" => return Ok(None),
        "private" => Attributes::PRIVATE,
        "slave" => Attributes::SLAVE,
        "shared" => Attributes::SHARED,
        "unbindable" => Attributes::UNBINDABLE,
        _ => return Err(PlanError::Unsupported { what: format!("root propagation {word:?}") }),
    };
    Ok(Some((bit, recursive)))
}

/// Whether a device is one of the host's, and no FIFO.
pub(crate) fn is_node(device: &Device) -> bool {
    device_type(device) != Some(FileType::Fifo)
}

/// The type of node that a device is.
pub(crate) fn device_type(device: &Device) -> Option<FileType> {
    match device.kind.as_str() {
        "c" | "u" => Some(FileType::CharacterDevice),
        "b" => Some(FileType::BlockDevice),
        "p" => Some(FileType::Fifo),
        _ => None,
    }
}

fn check_device(device: &Device) -> Result<(), PlanError> {
    if !device.path.is_absolute() {
        return Err(PlanError::RelativePath { path: device.path.clone() });
    }
    let kind = || PlanError::DeviceKind { path: device.path.clone(), kind: device.kind.clone() };
    device_type(device).map(drop).ok_or_else(kind)
}

/// Kernel parameters, each in a namespace that is the container's (runc's list).
fn sysctls(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(String, String)>, PlanError> {
    let has = |flag| namespaces.all.contains(flag);
    let allowed = |name: &str| {
        if oci::names::IPC_SYSCTLS.contains(&name) || name.starts_with("fs.mqueue.") {
            has(ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION)
        } else if name.starts_with("net.") {
            has(ThreadNameSpaceType::NETWORK)
        } else {
            name == "kernel.domainname" && has(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME)
        }
    };
    let one = |(name, value): (&String, &String)| {
        // sysctl(8): with the first separator a slash, dots are part of names, as in `net/ipv4/conf/eth0.1/forwarding`.
        let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
        let swap = |letter| match letter {
            '.' => '/',
            '/' => '.',
            letter => letter,
        };
        let (dotted, path) = match slashes {
            true => (name.chars().map(swap).collect(), name.clone()),
            false => (name.clone(), name.chars().map(swap).collect::<String>()),
        };
        let clean = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        match clean && allowed(&dotted) {
            true => Ok((path, value.clone())),
            false => Err(PlanError::Sysctl { name: name.clone() }),
        }
    };
    linux.sysctl.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
