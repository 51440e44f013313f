//! From a specification to everything that is known before the first system call. Pure.

use std::path::{Component, Path, PathBuf};

use oci::runtime::{Device, Linux, Mount, NamespaceKind, Spec};
use rustix::fs::FileType;
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};
use sys::fork::NewNamespaces;

use crate::child::{DEVICES, LINKS};
use crate::error::PlanError;
use crate::field::FieldError;
use crate::id_map;
use crate::mounts::{MountKind, MountPlan};
use crate::net_devices::NetDevice;
use crate::remount;
use crate::scheduling::Machine;
use crate::sysctl::Parameter;
use crate::user_namespace::UserNamespace;
use crate::{labels, mount_options, net_devices, sysctl, time};

/// What is done before the process itself is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    /// Whose root it is that does everything, if not the host's.
    pub(crate) user: Option<UserNamespace>,
    pub(crate) mounts: Vec<MountPlan>,
    /// With their places in the specification's list.
    pub(crate) devices: Vec<(usize, Device)>,
    /// Whether /dev is the container's own: not where the host's is bound there.
    pub(crate) set_up_dev: bool,
    pub(crate) root_readonly: bool,
    /// Propagation of the root, and whether for everything below.
    pub(crate) root_propagation: Option<(u64, bool)>,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) sysctl: Vec<Parameter>,
    /// `/etc/mtab` leads to the mounts.
    pub(crate) mount_table: bool,
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) read_only: Vec<PathBuf>,
    pub(crate) machine: Machine,
    /// Of new file systems; empty for none.
    pub(crate) mount_label: String,
    pub(crate) net_devices: Vec<NetDevice>,
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
    pub(crate) joined: Vec<Joined>,
    /// The one into which the child is born.
    pub(crate) joined_pid: Option<Joined>,
    /// All that differ from the host's, for exec.
    pub(crate) all: ThreadNameSpaceType,
    /// What is written to timens_offsets of the new time namespace, which is not `new` then; empty for nothing.
    pub(crate) time_offsets: String,
}

/// One that is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The full name of its path's field.
    pub(crate) field: String,
    pub(crate) kind: ThreadNameSpaceType,
    pub(crate) path: PathBuf,
}

impl Plan {
    pub(crate) fn new(spec: &Spec) -> Result<Plan, PlanError> {
        let linux = &spec.linux;
        let namespaces = Namespaces::new(linux)?;
        let user = UserNamespace::plan(linux)?;
        let needs_uts = |field: &str, value: &str| match value {
            "" => Ok(()),
            _ if namespaces.all.contains(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME) => Ok(()),
            _ => Err(FieldError::Needs { with: "a uts namespace in linux.namespaces" }.at(field)),
        };
        for (field, name) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
            needs_uts(field, name)?;
            if name.len() > UTS_NAME_MAX {
                return Err(FieldError::TooLong { length: name.len(), most: UTS_NAME_MAX }.at(field));
            }
        }
        let below_root = |(index, mount): (usize, &Mount)| MountPlan::below_root(format!("mounts[{index}]"), mount);
        let mut mounts = spec.mounts.iter().enumerate().map(below_root).collect::<Result<Vec<_>, _>>()?;
        mounts.iter().zip(&spec.mounts).try_for_each(|(plan, mount)| check_place(plan, mount))?;
        labels::label_mounts(&mut mounts, &linux.mount_label);
        made_in_order(&mut mounts);
        remount::plan(&mut mounts);
        id_map::check(&mounts, user.as_ref())?;
        let read_only = paths("linux.readonlyPaths", &linux.readonly_paths)?;
        let host_dev = |mount: &MountPlan| mount.destination == Path::new("/dev") && mount.kind == MountKind::Bind;
        spec.hooks.iter().try_for_each(crate::hooks::check)?;
        Ok(Plan {
            set_up_dev: !mounts.iter().any(host_dev),
            mounts,
            devices: devices(&linux.devices)?,
            root_readonly: spec.root.readonly || read_only.iter().any(|path| is_root(path)),
            root_propagation: root_propagation(&linux.rootfs_propagation)?,
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            sysctl: sysctl::plan(linux, &namespaces)?,
            mount_table: linux.mount_table,
            masked: masked(&linux.masked_paths)?,
            read_only,
            machine: Machine::plan(linux)?,
            mount_label: linux.mount_label.clone(),
            net_devices: net_devices::plan(linux, namespaces.all)?,
            namespaces,
            user,
        })
    }
}

/// The longest name of a host in bytes (linux/utsname.h, `__NEW_UTS_LEN`).
const UTS_NAME_MAX: usize = 64;

/// Where the words alone tell that a mount has no place of its own; links are followed in [`crate::place`].
fn check_place(plan: &MountPlan, mount: &Mount) -> Result<(), PlanError> {
    let field = || format!("{}.destination", plan.field);
    match &plan.kind {
        _ if mount.destination.as_os_str().is_empty() => Err(FieldError::Empty.at(field())),
        // The root's own flags.
        MountKind::Remount { .. } => Ok(()),
        _ if is_root(&plan.destination) => Err(FieldError::Root.at(field())),
        _ => Ok(()),
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
            time_offsets: time::offsets(linux)?,
        };
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            let (flag, _) = flags(namespace.kind);
            if namespaces.all.contains(flag) {
                let word = namespace.kind.word().to_owned();
                return Err(FieldError::Duplicate { word }.at(format!("linux.namespaces[{index}].type")));
            }
            namespaces.all |= flag;
            let path = namespace.path.as_ref();
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                let path = path.display().to_string();
                return Err(FieldError::Relative { path }.at(format!("linux.namespaces[{index}].path")));
            }
            let field = || format!("linux.namespaces[{index}].path");
            let joined = path.map(|path| Joined { field: field(), kind: flag, path: path.clone() });
            match (namespace.kind, joined) {
                (NamespaceKind::Pid, Some(joined)) => namespaces.joined_pid = Some(joined),
                (_, Some(joined)) => namespaces.joined.push(joined),
                (NamespaceKind::Cgroup, None) => namespaces.new_cgroup = true,
                (NamespaceKind::Time, None) if !namespaces.time_offsets.is_empty() => {}
                (kind, None) => {
                    namespaces.new_network |= kind == NamespaceKind::Network;
                    namespaces.new.0 |= u64::from(flags(kind).1.bits());
                }
            }
        }
        // Join every namespace except user first: after setns(CLONE_NEWUSER) we may lack the privilege to join the rest.
        // runc libcontainer/nsenter/nsexec.c, join_namespaces().
        namespaces.joined.sort_by_key(|joined| joined.kind == ThreadNameSpaceType::USER);
        if !namespaces.all.contains(ThreadNameSpaceType::MOUNT) && namespaces.all.contains(ThreadNameSpaceType::USER) {
            return Err(PlanError::NoMountNamespace);
        }
        Ok(namespaces)
    }
}

/// After the first file system that the child makes it makes the plain ones, too: newer kernels list mounts in the order in
/// which they were made (6.8, mnt_id_unique), and that shall be the one that is asked for.
fn made_in_order(mounts: &mut [MountPlan]) {
    let first = mounts.iter().position(|mount| matches!(mount.kind, MountKind::InChild(_)));
    for mount in mounts.iter_mut().skip(first.unwrap_or(usize::MAX)) {
        if let MountKind::FileSystem(kind) = &mount.kind
            && matches!(kind.as_str(), "tmpfs" | "devpts")
        {
            mount.kind = MountKind::InChild(kind.clone());
        }
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

/// The specification's word.
pub(crate) fn word(kind: ThreadNameSpaceType) -> &'static str {
    use NamespaceKind::{Cgroup, Ipc, Mount, Network, Pid, Time, User, Uts};
    let kinds = [Pid, Network, Mount, Ipc, Uts, User, Cgroup, Time];
    kinds.into_iter().find(|known| flags(*known).0 == kind).map_or("unknown", NamespaceKind::word)
}

fn root_propagation(word: &str) -> Result<Option<(u64, bool)>, PlanError> {
    match mount_options::propagation(word) {
        None if word.is_empty() => Ok(None),
        None => {
            let known = &mount_options::PROPAGATIONS;
            Err(FieldError::Unknown { word: word.to_owned(), known }.at("linux.rootfsPropagation"))
        }
        known => Ok(known),
    }
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

/// All words of [`device_type`].
const DEVICE_TYPES: [&str; 4] = ["c", "b", "u", "p"];

/// mknod(2) takes 12 bits of the one and 20 of the other (linux/kdev_t.h), and makes another device of what is more.
const MAJOR_MAX: i128 = (1 << 12) - 1;
const MINOR_MAX: i128 = (1 << 20) - 1;

/// Whether a device or a link of every container's is there.
fn is_default_device(path: &Path) -> bool {
    DEVICES.iter().any(|(device, ..)| Path::new(device) == path)
        || path.parent() == Some(Path::new("/dev")) && LINKS.iter().any(|(link, _)| path.ends_with(link))
}

fn devices(devices: &[Device]) -> Result<Vec<(usize, Device)>, PlanError> {
    for (index, device) in devices.iter().enumerate() {
        let failed = |err: FieldError, part: &str| err.at(format!("linux.devices[{index}].{part}"));
        let path = || device.path.display().to_string();
        if !device.path.is_absolute() {
            return Err(failed(FieldError::Relative { path: path() }, "path"));
        }
        if is_root(&device.path) {
            return Err(failed(FieldError::RootDirectory { path: path() }, "path"));
        }
        if let Some(above) = device.path.ancestors().skip(1).find(|above| is_default_device(above)) {
            // It would be made as a directory first, and be missing as what it is.
            let above = above.display().to_string();
            return Err(failed(FieldError::Below { path: path(), above }, "path"));
        }
        let is_null = device_type(device) == Some(FileType::CharacterDevice) && (device.major, device.minor) == (1, 3);
        if device.path == Path::new("/dev/null") && !is_null {
            // Masks and standard streams rest on it.
            return Err(failed(FieldError::NullDevice { path: path() }, "path"));
        }
        FieldError::is_id(device.uid).map_err(|err| failed(err, "uid"))?;
        FieldError::is_id(device.gid).map_err(|err| failed(err, "gid"))?;
        if device_type(device).is_none() {
            return Err(failed(FieldError::Unknown { word: device.kind.clone(), known: &DEVICE_TYPES }, "type"));
        }
        if is_node(device) {
            FieldError::in_range(device.major, 0, MAJOR_MAX).map_err(|err| failed(err, "major"))?;
            FieldError::in_range(device.minor, 0, MINOR_MAX).map_err(|err| failed(err, "minor"))?;
        }
    }
    // As under runc: that one is a link to the container's own.
    let own = devices.iter().cloned().enumerate().filter(|(_, device)| device.path != Path::new("/dev/ptmx"));
    Ok(own.collect())
}

/// Nothing would be left of a container whose root is masked.
fn masked(masked: &[String]) -> Result<Vec<PathBuf>, PlanError> {
    let planned = paths("linux.maskedPaths", masked)?;
    match planned.iter().position(|path| is_root(path)) {
        None => Ok(planned),
        Some(index) => {
            let path = masked[index].clone();
            Err(FieldError::RootDirectory { path }.at(format!("linux.maskedPaths[{index}]")))
        }
    }
}

/// Whether the words alone tell that it is the root.
pub(crate) fn is_root(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::RootDir | Component::CurDir))
}

fn paths(field: &str, paths: &[String]) -> Result<Vec<PathBuf>, PlanError> {
    let path = |(index, path): (usize, &String)| match path.starts_with('/') {
        true => Ok(PathBuf::from(path)),
        false => Err(FieldError::Relative { path: path.clone() }.at(format!("{field}[{index}]"))),
    };
    paths.iter().enumerate().map(path).collect()
}

#[cfg(test)]
mod fields;
#[cfg(test)]
mod tests;
