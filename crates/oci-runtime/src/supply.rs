//! What a container with a user namespace gets of the host's tree: clones made for it, in an order that both sides know.
//!
//! Before anything is detached from the host, and before the root: so trees that shall follow the host's mounts still do,
//! and the kernel still sees a whole /proc, without which it lets no user namespace have one (mount_too_revealing).

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cgroup::{Cgroup, Hierarchies, Version};
use oci::runtime::Spec;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen, open_tree,
};
use rustix::process::{Pid, getpid};
use rustix::thread::ThreadNameSpaceType;
use sys::mount::{Attributes, set_attributes};

use crate::channel::{At, Channel, Failure, Reason};
use crate::child::{Birth, DEVICES, Node};
use crate::error::{CreateError, Step};
use crate::fault::{Fault, Part};
use crate::file_system::new_file_system;
use crate::mounts::{Built, MountKind, MountPlan, bind, build, build_root, clone_tree, unified};
use crate::plan::{Plan, is_node};
use crate::target::PATH_FLAGS;
use crate::user_namespace::UserNamespace;

/// Everything from which the trees are known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    pub(crate) user: &'a UserNamespace,
    pub(crate) plan: &'a Plan,
    pub(crate) spec: &'a Spec,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) hierarchies: &'a Hierarchies,
    /// A root that is no tree of the host's.
    pub(crate) root: Option<BorrowedFd<'a>>,
    /// Whether hooks look at the root at its own place.
    pub(crate) place: bool,
    /// Whether the parent makes the clones: the child does what a parent without privilege cannot.
    pub(crate) by_parent: bool,
}

/// One tree, or one place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// The root of the container.
    Root,
    /// A directory, itself and not a clone.
    Place(&'a Path),
    /// A device node of the host's, with its place in the specification's list.
    Node(Option<usize>, &'a Path),
    /// What is bound for a mount.
    Bind(&'a MountPlan),
    /// The container's directory in a hierarchy of version 1.
    Directory(&'a Path),
}

/// Trees on their way, in their order.
pub(crate) type Trees = VecDeque<OwnedFd>;

impl<'a> Order<'a> {
    /// The order.
    pub(crate) fn list(&self) -> Vec<Wanted<'a>> {
        let mut list = vec![Wanted::Root];
        list.extend(self.place.then_some(Wanted::Place(&self.spec.root.path)));
        list.extend(nodes(self.plan).map(|(index, path)| Wanted::Node(index, path)));
        for mount in &self.plan.mounts {
            match mount.kind {
                MountKind::Bind => list.push(Wanted::Bind(mount)),
                MountKind::Cgroup if self.cgroup.version == Version::V1 => {
                    list.extend(self.cgroup.directories.iter().map(|(_, path)| Wanted::Directory(path)));
                }
                MountKind::Cgroup if !self.own_cgroup_namespace() => list.push(Wanted::Bind(mount)),
                _ => {}
            }
        }
        list
    }

    pub(crate) fn own_cgroup_namespace(&self) -> bool {
        self.plan.namespaces.all.contains(ThreadNameSpaceType::CONTROL_GROUP)
    }

    /// Makes the clones in the child's mount namespace, and sends them.
    pub(crate) fn deliver(&self, channel: &Channel, child: Pid) -> Result<(), CreateError> {
        if !self.by_parent {
            return Ok(());
        }
        let failed = |action| move |source| CreateError::Clone { action, source };
        let list = self.list();
        let made = sys::namespace::in_mount_namespace(child, || {
            list.iter().map(|wanted| self.make(wanted, child)).collect::<Result<Vec<_>, _>>()
        });
        for tree in made.map_err(failed("enter the container's mount namespace"))?? {
            channel.send_tree(tree.as_fd()).map_err(failed("hand a mount to the container's process"))?;
        }
        Ok(())
    }

    /// The child's side of it.
    pub(crate) fn take(&self, channel: &Channel) -> Result<Trees, Failure> {
        let list = self.list();
        match self.by_parent {
            true => list.iter().map(|_| channel.receive_tree()).collect(),
            false => list.iter().map(|wanted| self.make(wanted, getpid()).map_err(failure)).collect(),
        }
    }

    fn make(&self, wanted: &Wanted<'_>, child: Pid) -> Result<OwnedFd, CreateError> {
        match (wanted, self.root) {
            (Wanted::Root, None) => build_root(&self.spec.root, self.plan.root_propagation),
            (Wanted::Root, Some(root)) => root.try_clone_to_owned().map_err(failed("open", &self.spec.root.path)),
            (Wanted::Bind(plan), _) if plan.kind == MountKind::Cgroup => {
                bind(&MountPlan { source: unified(self.hierarchies).to_owned(), ..(*plan).clone() }, None)
            }
            (Wanted::Bind(plan), _) => bind(plan, Some(child)),
            (wanted, _) => wanted.open(),
        }
    }
}

impl Wanted<'_> {
    /// Opens or clones it, with the eyes and credentials of whoever calls.
    pub(crate) fn open(&self) -> Result<OwnedFd, CreateError> {
        match self {
            Wanted::Root => Err(failed("open", Path::new("/"))(Errno::INVAL.into())),
            Wanted::Place(path) => {
                let place = openat(CWD, *path, PATH_FLAGS | OFlags::DIRECTORY, Mode::empty());
                place.map_err(|err| failed("root.path: open", path)(err.into()))
            }
            Wanted::Node(None, path) => clone_node(path).map_err(failed("bind device", path)),
            Wanted::Node(Some(index), path) => {
                let field = format!("linux.devices[{index}].path");
                let what = format!("bind the host's {}", path.display());
                clone_node(path).map_err(|source| CreateError::Refused { field, what, source })
            }
            Wanted::Bind(plan) => bind(plan, None),
            Wanted::Directory(path) => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                open_tree(CWD, *path, flags).map_err(|err| failed("bind cgroup", path)(err.into()))
            }
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CreateError {
    let path = path.to_owned();
    move |source| CreateError::Host { action, path, source }
}

/// The devices that a process without CAP_MKNOD in the first user namespace has to borrow. FIFOs are no devices.
pub(crate) fn nodes(plan: &Plan) -> impl Iterator<Item = (Option<usize>, &Path)> {
    let default = DEVICES.iter().map(|(path, ..)| (None, Path::new(*path)));
    let own = plan.devices.iter().filter(|(_, device)| is_node(device));
    let own = own.map(|(index, device)| (Some(*index), device.path.as_path()));
    default.chain(own).filter(|_| plan.set_up_dev)
}

/// Device nodes of the host's, for a container that cannot make its own.
pub(crate) fn clone_nodes(plan: &Plan) -> Result<Vec<Node>, CreateError> {
    let one = |(index, path): (_, &Path)| Ok((index, path.to_owned(), Wanted::Node(index, path).open()?));
    nodes(plan).map(one).collect()
}

/// Whether this process may make device nodes, and with it the container's first one. Otherwise it borrows the host's.
pub(crate) fn makes_nodes() -> bool {
    let made = || -> rustix::io::Result<()> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(context.as_fd())?;
        let scratch = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let (kind, number) = (rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        rustix::fs::mknodat(&scratch, "null", kind, Mode::empty(), number)
    };
    made() != Err(Errno::PERM)
}

fn clone_node(path: &Path) -> std::io::Result<OwnedFd> {
    let node = openat(CWD, path, PATH_FLAGS, Mode::empty())?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&node)?.st_mode);
    if !matches!(kind, rustix::fs::FileType::CharacterDevice | rustix::fs::FileType::BlockDevice) {
        return Err(Errno::NODEV.into());
    }
    let clone = clone_tree(node.as_fd(), false)?;
    set_attributes(clone.as_fd(), Attributes { propagation: Attributes::PRIVATE, ..Attributes::default() }, false)?;
    Ok(clone)
}

/// What a container with a user namespace has before it goes on as any other: everything of it made.
#[derive(Debug)]
pub(crate) struct Supplied {
    pub(crate) root: OwnedFd,
    pub(crate) place: Option<OwnedFd>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) mounts: Vec<Built>,
}

impl Supplied {
    /// Distributes `trees`, and makes the file systems, which belong to the child's namespaces.
    pub(crate) fn make(birth: &Birth<'_>, mut trees: Trees) -> Result<Supplied, Failure> {
        let Some(order) = &birth.order else { return Err(Errno::INVAL).at(Step::BuildMount, "") };
        let mut next = || trees.pop_front().ok_or(Errno::BADF).at(Step::BuildMount, "");
        let root = next()?;
        let place = order.place.then(&mut next).transpose()?;
        let mut node = |(index, path): (_, &Path)| Ok((index, path.to_owned(), next()?));
        let nodes = nodes(order.plan).map(&mut node).collect::<Result<_, Failure>>()?;
        let mut mounts = Vec::new();
        for plan in &order.plan.mounts {
            let host = |wanted: Wanted<'_>| trees.pop_front().ok_or_else(|| lost(&wanted));
            let built = build(plan, order.cgroup, order.hierarchies, order.own_cgroup_namespace(), host);
            mounts.push(own(plan, built.map_err(failure)?)?);
        }
        Ok(Supplied { root, place, nodes, mounts })
    }
}

/// Makes what other children make later: here the host's /proc and /sys must still be there.
fn own(plan: &MountPlan, built: Built) -> Result<Built, Failure> {
    let Built::InChild(kind) = built else { return Ok(built) };
    let denied = |fault: &Fault| fault.source.raw_os_error() == Some(Errno::PERM.raw_os_error());
    let mount = match new_file_system(plan, &kind) {
        // Another one's network namespace, whose devices it shows: then the host's view of it, as far as it goes.
        Err(fault) if kind == "sysfs" && denied(&fault) => {
            host_sys(plan).map_err(Part::Whole.fault(plan, "bind the host's /sys"))
        }
        other => other,
    };
    let mount = mount?;
    Ok(Built::Detached { mount, is_directory: true })
}

fn host_sys(plan: &MountPlan) -> std::io::Result<OwnedFd> {
    let sys = openat(CWD, "/sys", PATH_FLAGS | OFlags::DIRECTORY, Mode::empty())?;
    // With everything below: the kernel does not show a user namespace what the host has covered.
    let clone = clone_tree(sys.as_fd(), true)?;
    let attributes = Attributes { propagation: Attributes::PRIVATE, ..plan.options.attributes };
    set_attributes(clone.as_fd(), attributes, true)?;
    Ok(clone)
}

fn lost(wanted: &Wanted<'_>) -> CreateError {
    let path = if let Wanted::Bind(plan) = wanted { plan.source.as_path() } else { Path::new("") };
    failed("take", path)(Errno::BADF.into())
}

/// In the form in which the child tells it.
fn failure(err: CreateError) -> Failure {
    match err {
        CreateError::Refused { field, what, source } => Fault { field, what, source }.into(),
        CreateError::Host { action, path, source } => {
            let errno = source.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
            Failure { reason: Reason::Refused, errno, subject: format!("{action} {}", path.display()) }
        }
        other => Failure { reason: Reason::Hook, errno: 0, subject: errdefs::chain(&other) },
    }
}
