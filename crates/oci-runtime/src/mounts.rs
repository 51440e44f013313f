//! Mounts: built detached in the parent, attached in the child.
//!
//! The parent holds the host's credentials and sees the host's paths; what it makes is in nobody's mount table. The child,
//! in its own mount namespace, moves each one to its place. Only file systems that show the child's own namespaces (proc,
//! sysfs, mqueue, cgroup2) are made there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::{Cgroup, Controller, Hierarchies, Version};
use oci::runtime::{Mount, Root};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::process::Pid;
use sys::mount::{Attributes, set_attributes};
use sys::open::openat2;

use crate::channel::{At, Failure, Reason};
use crate::error::{CreateError, PlanError, Step};
use crate::fault::Part;
use crate::field::FieldError;
use crate::file_system::{file_system, new_file_system};
use crate::id_map::{self, IdMap};
use crate::mount_options::{self, MountOptions};
use crate::overlay_options;
use crate::process::is_proc;
use crate::remount;
use crate::supply::Wanted;
use crate::target::{self, Missing};
use crate::tmpfs;

/// One mount of the specification, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountPlan {
    /// Its name in the specification: `mounts[3]`.
    pub(crate) field: String,
    pub(crate) destination: PathBuf,
    pub(crate) kind: MountKind,
    pub(crate) source: PathBuf,
    pub(crate) subpath: Option<PathBuf>,
    pub(crate) options: MountOptions,
    pub(crate) id_map: Option<IdMap>,
    /// The source is a detached mount's descriptor: that mount itself.
    pub(crate) prepared: bool,
    /// SELinux's label for its root, once it is mounted.
    pub(crate) root_label: Option<String>,
}

/// Where a mount is made, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// A clone of part of the host's tree, in the parent.
    Bind,
    /// A new file system, in the parent.
    FileSystem(String),
    /// A new file system of the child's namespaces, in the child.
    InChild(String),
    /// The container's own cgroup directories.
    Cgroup,
    /// A change of what is mounted, in the child; of the file system, too, if that is the container's.
    Remount { file_system: bool },
}

/// What the kernel knows of either version (kernel/cgroup/cgroup.c `cgroup2_fs_parameters`, cgroup-v1.c
/// `cgroup1_fs_parameters`): the container's own cgroups are the ones that there are, so that they change nothing; what is
/// none of them is a mistake. Controllers of version 1 are options, too.
const CGROUP_OPTIONS: [&str; 14] = [
    "all",
    "clone_children",
    "cpuset_v2_mode",
    "favordynmods",
    "memory_hugetlb_accounting",
    "memory_localevents",
    "memory_recursiveprot",
    "name",
    "none",
    "noprefix",
    "nsdelegate",
    "pids_localevents",
    "release_agent",
    "xattr",
];

/// File systems whose content depends on who mounts them.
const IN_CHILD: [&str; 3] = ["proc", "sysfs", "mqueue"];

impl MountPlan {
    pub(crate) fn new(field: String, mount: &Mount) -> Result<MountPlan, PlanError> {
        let destination = mount.destination.clone();
        let options = mount_options::parse(&mount.options);
        let id_map = IdMap::plan(&field, mount, options.id_map)?;
        let kind = match mount.kind.as_str() {
            _ if options.remount => MountKind::Remount { file_system: false },
            "" | "bind" => MountKind::Bind,
            _ if options.bind => MountKind::Bind,
            "cgroup" | "cgroup2" => MountKind::Cgroup,
            kind if IN_CHILD.contains(&kind) => MountKind::InChild(kind.to_owned()),
            kind => MountKind::FileSystem(kind.to_owned()),
        };
        let (source, subpath) = (mount.source.clone(), mount.subpath.clone());
        let prepared = mount.prepared;
        let plan = MountPlan { field, destination, kind, source, subpath, options, id_map, prepared, root_label: None };
        plan.check_options(&mount.kind)?;
        Ok(plan)
    }

    /// Refuses options that no mount of its kind has.
    fn check_options(&self, kind: &str) -> Result<(), PlanError> {
        let refused = |option: String, of| Err(FieldError::Option { option, of }.at(Part::Options.of(self)));
        if self.options.copy_up && kind != "tmpfs" {
            return refused("tmpcopyup".into(), "a mount that is not of type tmpfs");
        }
        if matches!(&self.kind, MountKind::FileSystem(kind) if kind == "overlay") {
            overlay_options::check(&self.options).map_err(|err| err.at(Part::Options.of(self)))?;
        }
        let of_cgroups =
            |key: &str| CGROUP_OPTIONS.contains(&key) || Controller::ALL.iter().any(|known| known.name() == key);
        // The kernel would ignore them, and with them what they were to limit.
        let (of, ignored) = match self.kind {
            MountKind::Cgroup => ("a cgroup mount", self.options.data.iter().find(|(key, _)| !of_cgroups(key))),
            MountKind::Bind if self.source.as_os_str().is_empty() => {
                return Err(FieldError::Empty.at(Part::Source.of(self)));
            }
            MountKind::Bind => ("a bind mount", self.options.data.first()),
            _ => return Ok(()),
        };
        match ignored {
            Some((key, None)) => refused(key.clone(), of),
            Some((key, Some(value))) => refused(format!("{key}={value}"), of),
            None => Ok(()),
        }
    }

    /// A mount of the specification's list: like any, but it needs a place.
    pub(crate) fn below_root(field: String, mount: &Mount) -> Result<MountPlan, PlanError> {
        // A relative one begins at the root (runtime-spec config.md, "Mounts").
        let destination = Path::new("/").join(&mount.destination);
        let plan = MountPlan { destination, ..MountPlan::new(field, mount)? };
        plan.refuse_inside_proc()?;
        Ok(plan)
    }

    /// Whether it becomes read-only when the root is complete, not before: other mounts may need places in it, and `/dev` its
    /// nodes (runc's `finalizeRootfs`).
    pub(crate) fn read_only_last(&self) -> bool {
        let (MountKind::FileSystem(kind) | MountKind::InChild(kind)) = &self.kind else { return false };
        let has_places = kind == "tmpfs" || self.destination == Path::new("/dev");
        has_places && self.options.attributes.set & Attributes::READ_ONLY != 0
    }

    /// Where it is, with the field's full name: `mounts[3].destination: /place`.
    pub(crate) fn place(&self) -> String {
        format!("{}.destination: {}", self.field, self.destination.display())
    }

    /// What is a directory and what is none, where both must be one or none; see [`Reason::Sides`].
    fn sides(&self, is_directory: bool) -> String {
        let (what, mounted) = match &self.kind {
            MountKind::Bind => {
                let source = self.source.display().to_string();
                (format!("{}.source {source}", self.field), source)
            }
            MountKind::FileSystem(kind) | MountKind::InChild(kind) => ("what is mounted".to_owned(), kind.clone()),
            _ => ("what is mounted".to_owned(), "cgroup".to_owned()),
        };
        let text = match is_directory {
            true => format!("{} is no directory, and {what} is one", self.place()),
            false => format!("{} is a directory, and {what} is none", self.place()),
        };
        format!("{text}\0{mounted}\0{}", self.destination.display())
    }

    /// Whether it is a /proc of the container's own.
    pub(crate) fn is_proc(&self) -> bool {
        matches!(&self.kind, MountKind::InChild(kind) if kind == "proc")
    }

    /// Files that look like /proc but answer otherwise have led runtimes astray (CVE-2019-16884): only the ones that lxcfs
    /// replaces may be covered.
    fn refuse_inside_proc(&self) -> Result<(), PlanError> {
        const ALLOWED: [&str; 10] = [
            "cpuinfo",
            "diskstats",
            "loadavg",
            "meminfo",
            "slabinfo",
            "stat",
            "swaps",
            "uptime",
            "sys/kernel/ns_last_pid",
            "sys/crypto/fips_enabled",
        ];
        let Ok(below) = self.destination.strip_prefix("/proc") else { return Ok(()) };
        let path = self.destination.display().to_string();
        if below == Path::new("")
            && matches!(self.kind, MountKind::FileSystem(_) | MountKind::InChild(_))
            && !self.is_proc()
        {
            return Err(FieldError::NotProc { path }.at(Part::Type.of(self)));
        }
        let allowed = match below.to_str() {
            // What is there stays what it is with other flags.
            Some("") => self.is_proc() || matches!(self.kind, MountKind::Bind | MountKind::Remount { .. }),
            Some(file) => ALLOWED.contains(&file),
            None => false,
        };
        if allowed { Ok(()) } else { Err(FieldError::InsideProc { path }.at(format!("{}.destination", self.field))) }
    }
}

/// A mount on its way from parent to child.
#[derive(Debug)]
pub(crate) enum Built {
    /// Made; the child attaches it.
    Detached { mount: OwnedFd, is_directory: bool },
    /// The child makes it.
    InChild(String),
    /// The child changes what is there.
    Remount { file_system: bool },
    /// cgroup v1: a tmpfs with a bind mount for every hierarchy.
    Hierarchies { tmpfs: OwnedFd, binds: Vec<(String, OwnedFd)>, links: Vec<(String, String)> },
}

/// Makes the root of a container that somebody else makes, attached nowhere.
pub fn detached_root(root: &Root) -> Result<OwnedFd, CreateError> {
    build_root(root, None)
}

/// What is at `part` of a directory of the host's and does not leave it, with all that is mounted there, attached nowhere.
pub fn clone_part(base: &Path, part: &Path) -> io::Result<OwnedFd> {
    // Containers that have the source may be putting links in the way (CVE-2021-30465).
    let base = openat(CWD, base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let part = openat2(&base, part, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    clone_tree(part.as_fd(), true)
}

/// Makes the root, detached. Only a slave hears of mounts of the host's: it must be one before it is private.
pub(crate) fn build_root(root: &Root, propagation: Option<(u64, bool)>) -> Result<OwnedFd, CreateError> {
    let slave = propagation.filter(|(kind, _)| *kind == Attributes::SLAVE);
    let (propagation, propagation_recursive) = slave.unwrap_or_default();
    let plan = match root.mounts.as_slice() {
        [] => MountPlan {
            field: "root".into(),
            destination: PathBuf::new(),
            kind: MountKind::Bind,
            source: root.path.clone(),
            subpath: None,
            options: MountOptions {
                bind: true,
                bind_recursive: true,
                propagation,
                propagation_recursive,
                ..MountOptions::default()
            },
            id_map: None,
            prepared: false,
            root_label: None,
        },
        [mount] => MountPlan::new("root.mounts[0]".into(), mount)?,
        _ => return Err(PlanError::Unsupported { what: "a root of several mounts".into() }.into()),
    };
    match &plan.kind {
        MountKind::Bind => bind(&plan, None),
        MountKind::FileSystem(kind) => Ok(file_system(&plan, kind)?),
        MountKind::InChild(_) | MountKind::Cgroup | MountKind::Remount { .. } => {
            Err(PlanError::Unsupported { what: "a root of kernel objects".into() }.into())
        }
    }
}

/// The parent's half of one mount; `host` clones what is the host's.
pub(crate) fn build(
    plan: &MountPlan,
    cgroup: &Cgroup,
    hierarchies: &Hierarchies,
    own_cgroup_namespace: bool,
    mut host: impl FnMut(Wanted<'_>) -> Result<OwnedFd, CreateError>,
) -> Result<Built, CreateError> {
    match &plan.kind {
        MountKind::Bind => {
            let mount = host(Wanted::Bind(plan))?;
            let looked = || Part::Source.fault::<io::Error>(plan, format!("look at {}", plan.source.display()));
            if plan.destination == Path::new("/proc") && !is_proc(mount.as_fd()).map_err(looked())? {
                let path = plan.destination.display().to_string();
                return Err(FieldError::NotProc { path }.at(Part::Source.of(plan)).into());
            }
            let is_directory = is_directory(mount.as_fd()).map_err(looked())?;
            Ok(Built::Detached { mount, is_directory })
        }
        MountKind::FileSystem(kind) => {
            let mount = new_file_system(plan, kind)?;
            Ok(Built::Detached { mount, is_directory: true })
        }
        MountKind::InChild(kind) => Ok(Built::InChild(kind.clone())),
        MountKind::Remount { file_system } => Ok(Built::Remount { file_system: *file_system }),
        MountKind::Cgroup if cgroup.version == Version::V1 => hierarchies_v1(plan, cgroup, host),
        MountKind::Cgroup if own_cgroup_namespace => Ok(Built::InChild("cgroup2".into())),
        MountKind::Cgroup => {
            let bind_plan = MountPlan { source: unified(hierarchies).to_owned(), ..plan.clone() };
            Ok(Built::Detached { mount: host(Wanted::Bind(&bind_plan))?, is_directory: true })
        }
    }
}

/// What a container without a cgroup namespace of its own sees of version 2: the host's.
pub(crate) fn unified(hierarchies: &Hierarchies) -> &Path {
    // Where it is by convention if nobody has looked.
    hierarchies.unified.as_deref().unwrap_or(Path::new("/sys/fs/cgroup"))
}

fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

/// A part of the host's tree, as a detached mount; `container` is a process of the container's user namespace.
pub(crate) fn bind(plan: &MountPlan, container: Option<Pid>) -> Result<OwnedFd, CreateError> {
    let named = match &plan.subpath {
        None => plan.source.display().to_string(),
        Some(subpath) => format!("{} below {}", subpath.display(), plan.source.display()),
    };
    let mount = bound_tree(plan).map_err(Part::Source.fault(plan, named))?;
    id_map::apply(mount.as_fd(), plan, container)?;
    let built = || -> io::Result<OwnedFd> {
        let options = &plan.options;
        if !options.attributes.is_empty() {
            set_attributes(mount.as_fd(), options.attributes, false)?;
        }
        if !options.attributes_recursive.is_empty() {
            set_attributes(mount.as_fd(), options.attributes_recursive, true)?;
        }
        // A clone of a shared mount is shared: without a word it becomes private, or what the container mounts there
        // would appear on the host.
        let (propagation, recursive) = match options.propagation {
            0 => (Attributes::PRIVATE, true),
            propagation => (propagation, options.propagation_recursive),
        };
        set_attributes(mount.as_fd(), Attributes { propagation, ..Attributes::default() }, recursive)?;
        Ok(mount)
    };
    let what = format!("set flags of {}", plan.source.display());
    Ok(built().map_err(Part::Options.fault(plan, what))?)
}

fn bound_tree(plan: &MountPlan) -> io::Result<OwnedFd> {
    let recursive = plan.options.bind_recursive;
    if plan.prepared {
        // Before Linux 6.15 nobody clones what is attached nowhere, but whoever has it open may attach it.
        return Ok(openat(CWD, &plan.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    }
    let Some(subpath) = &plan.subpath else {
        let recursive = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive;
        return Ok(open_tree(CWD, &plan.source, flags)?);
    };
    // Containers that have the source may be putting links in the way (CVE-2021-30465).
    let base = openat(CWD, &plan.source, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let part = openat2(&base, subpath, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    clone_tree(part.as_fd(), recursive)
}

/// What runc shows of version 1: a tmpfs, and in it the container's own directory of each hierarchy.
fn hierarchies_v1(
    plan: &MountPlan,
    cgroup: &Cgroup,
    mut host: impl FnMut(Wanted<'_>) -> Result<OwnedFd, CreateError>,
) -> Result<Built, CreateError> {
    let failed = || Part::Whole.fault::<io::Error>(plan, "mount the container's cgroups");
    let plain = MountOptions { data: vec![("mode".into(), Some("755".into()))], ..plan.options.clone() };
    // Read-only only when everything is in it.
    let mut writable = MountPlan { options: plain, source: "tmpfs".into(), ..plan.clone() };
    writable.options.attributes.set &= !Attributes::READ_ONLY;
    writable.options.attributes_recursive = Attributes::default();
    let tmpfs = file_system(&writable, "tmpfs")?;
    let (mut binds, mut links) = (Vec::new(), Vec::new());
    for ((controllers, _), (name, directory)) in cgroup.directories.iter().zip(v1_mounts(cgroup)) {
        let mount = host(Wanted::Directory(directory))?;
        let attributes = Attributes { propagation: Attributes::PRIVATE, ..plan.options.attributes };
        set_attributes(mount.as_fd(), attributes, false).map_err(failed())?;
        mkdirat(&tmpfs, name.as_str(), Mode::from_raw_mode(0o755)).map_err(|err| failed()(err.into()))?;
        let aliases = controllers.iter().filter(|controller| controller.name() != name);
        links.extend(aliases.map(|controller| (name.clone(), controller.name().to_owned())));
        binds.push((name, mount));
    }
    Ok(Built::Hierarchies { tmpfs, binds, links })
}

/// What of a version 1 cgroup is shown in the container: names of hierarchies, and the directories in them.
pub(crate) fn v1_mounts(cgroup: &Cgroup) -> impl Iterator<Item = (String, &Path)> {
    let depth = cgroup.path.components().count() - 1;
    cgroup.directories.iter().map(move |(_, directory)| {
        let name = directory.ancestors().nth(depth).and_then(Path::file_name);
        (name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(), directory.as_path())
    })
}

/// The child's half of one mount: makes it if that is left to do, and puts it at its place below `root`.
///
/// Answers the mount if it is to become read-only when the root is complete.
pub(crate) fn attach(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    built: &Built,
    root_is_attached: bool,
) -> Result<Option<OwnedFd>, Failure> {
    let mut writable = None;
    match built {
        Built::Remount { file_system } => remount::apply(root, plan, *file_system)?,
        Built::Detached { mount, is_directory } => {
            put(root, plan, mount.as_fd(), *is_directory, root_is_attached)?;
            if root_is_attached && plan.read_only_last() {
                writable = Some(mount.try_clone().because(Reason::Mount(Step::AttachMount), &plan.place())?);
            }
        }
        Built::InChild(kind) => {
            let mount = new_file_system(plan, kind)?;
            put(root, plan, mount.as_fd(), true, root_is_attached)?;
            writable = Some(mount).filter(|_| root_is_attached && plan.read_only_last());
        }
        Built::Hierarchies { tmpfs, binds, links } => {
            let fill = || -> io::Result<()> {
                for (name, mount) in binds {
                    let target = target::open(tmpfs.as_fd(), Path::new(name), Missing::Refuse)?;
                    move_to(mount.as_fd(), target.as_fd())?;
                }
                for (target, link) in links {
                    symlinkat(target, tmpfs, link)?;
                }
                set_attributes(tmpfs.as_fd(), plan.options.attributes, false)?;
                plan.options.apply_rest(tmpfs.as_fd())
            };
            let fill = || fill().because(Reason::Mount(Step::AttachMount), &plan.place());
            let put = || put(root, plan, tmpfs.as_fd(), true, root_is_attached);
            // Older kernels attach nothing below what is detached, and none changes what is below it.
            if root_is_attached { put().and_then(|()| fill()) } else { fill().and_then(|()| put()) }?;
        }
    }
    Ok(writable)
}

fn put(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    mount: BorrowedFd<'_>,
    is_directory: bool,
    root_is_attached: bool,
) -> Result<(), Failure> {
    let is_tmpfs = matches!(&plan.kind, MountKind::FileSystem(kind) | MountKind::InChild(kind) if kind == "tmpfs");
    if is_tmpfs && (plan.options.copy_up || !plan.options.has("mode")) {
        tmpfs::settle(root, plan, mount).because(Reason::Mount(Step::CopyUp), &plan.place())?;
    }
    if !root_is_attached && plan.read_only_last() {
        // The kernel changes nothing below the root of a detached tree: what has no place in it yet gets none.
        let read_only = Attributes { set: Attributes::READ_ONLY, ..Attributes::default() };
        set_attributes(mount, read_only, false).map_err(Part::Options.fault(plan, "make it read-only"))?;
    }
    let missing = if is_directory { Missing::Directory } else { Missing::File };
    let target = crate::place::open(root, plan, missing)?;
    move_to(mount, target.as_fd()).or_else(|err| match self::is_directory(target.as_fd()) {
        // mount(2) said so when a directory and something else were to go over one another; move_mount(2) only that it is
        // invalid. Engines look for the words.
        Ok(target_is) if target_is != is_directory => {
            Err(Errno::NOTDIR).because(Reason::Sides, &plan.sides(is_directory))
        }
        _ => Err(err).because(Reason::Mount(Step::AttachMount), &plan.place()),
    })
}

/// Attaches a detached mount.
pub(crate) fn move_to(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// A detached clone of what `fd` is open on.
pub(crate) fn clone_tree(fd: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let recursive = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(fd, "", flags | recursive)?)
}
