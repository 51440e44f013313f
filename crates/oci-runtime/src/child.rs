//! The first process of a container, between clone and the half that it shares with exec.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::Entrance;
use oci::runtime::{Device, Hooks, State};
use rustix::fs::{CWD, FileType, Gid, Mode, Uid, chownat, fstat, mknodat, openat, statat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::{DumpableBehavior, chdir, chroot, fchdir, pivot_root, set_dumpable_behavior, umask};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};
use sys::mount::{Attributes, set_attributes};

use crate::Stdio;
use crate::channel::{At, Channel, Failure, Reason};
use crate::error::Step;
use crate::file_system::empty_directory;
use crate::hooks::run_all;
use crate::mounts::{Built, MountPlan, attach, clone_tree, move_to};
use crate::plan::{Joined, Plan, device_type, is_node, is_root};
use crate::process::{ProcessPlan, Streams, is_null, write_proc};
use crate::supply::Order;
use crate::sysctl::{self, Parameter};
use crate::target::{self, Missing};

/// A device node of the host's, with its path, and its place in the specification's list if it is not one of every
/// container's.
pub(crate) type Node = (Option<usize>, PathBuf, OwnedFd);

/// What is tried with such a node.
pub(crate) fn borrowed(index: usize, path: &Path) -> String {
    format!("linux.devices[{index}].path: bind the host's {}", path.display())
}

/// What the parent hands to the child: plans, and descriptors opened with the host's eyes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) process: &'a ProcessPlan,
    pub(crate) stdio: &'a Stdio,
    pub(crate) entrance: &'a Entrance,
    /// Detached.
    pub(crate) root: BorrowedFd<'a>,
    /// One for each of the plan's mounts.
    pub(crate) mounts: &'a [Built],
    /// The host's device nodes, where the container may not make its own.
    pub(crate) nodes: &'a [Node],
    /// The directory where hooks expect the root, if it was opened for us.
    pub(crate) place: Option<BorrowedFd<'a>>,
    /// What it gets of the host once it is in its user namespace, if it has one.
    pub(crate) order: Option<Order<'a>>,
    /// The namespace in which the usher bears the first process.
    pub(crate) joined_pid: Option<BorrowedFd<'a>>,
    /// One for each of the plan's joined namespaces.
    pub(crate) joined: &'a [OwnedFd],
    /// The host's /proc.
    pub(crate) proc: BorrowedFd<'a>,
    /// Whether the root is moved over the host's, where that cannot be exchanged: an initramfs.
    pub(crate) no_pivot: bool,
    /// The FIFO where it waits, instead of the channel.
    pub(crate) gate: Option<BorrowedFd<'a>>,
    /// What is run when everything is mounted.
    pub(crate) hooks: Option<MadeHooks<'a>>,
}

/// Hooks that look at the container's mounts from outside: for them the root is at its own place first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MadeHooks<'a> {
    pub(crate) hooks: &'a Hooks,
    pub(crate) state: &'a State,
    pub(crate) place: &'a Path,
}

impl Birth<'_> {
    /// Never returns but with a failure.
    pub(crate) fn run(&self, channel: &Channel) -> Result<Infallible, Failure> {
        // First of all: what follows is done on the container's account.
        self.entrance.enter().at(Step::EnterCgroup, "")?;
        self.process.scheduling.settle_processors(true)?;
        // A process that shares the PID namespace must not look into this one, which is still ours (CVE-2016-9962).
        set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Clean, "")?;
        umask(Mode::empty());
        self.await_devices(channel)?;
        self.settle_namespaces()?;
        self.finish(channel)
    }

    /// Waits for its network devices, which kernel parameters may be about.
    pub(crate) fn await_devices(&self, channel: &Channel) -> Result<(), Failure> {
        if self.plan.net_devices.is_empty() { Ok(()) } else { channel.wait_for_go() }
    }

    /// From the mounts on.
    pub(crate) fn finish(&self, channel: &Channel) -> Result<Infallible, Failure> {
        if self.has_own_mounts() {
            self.detach_host()?;
            // Over `/`: no directory is needed for it, and no path is walked.
            self.attach_root(self.hooks.map_or(Path::new("/"), |made| made.place))?;
        }
        // While the host's tree is there: without a /proc to be seen whole, root of a user namespace gets none of its own
        // (mount_too_revealing in the kernel's fs/namespace.c).
        let writable = self.furnish(|_| true)?;
        if let Some(made) = &self.hooks {
            made.run(channel)?;
        }
        match (self.has_own_mounts(), self.no_pivot) {
            (true, false) => self.change_root()?,
            (true, true) => self.move_root()?,
            // The host's mounts are everybody's.
            (false, _) => enter_root(self.root).at(Step::ChangeRoot, "")?,
        }
        make_read_only(&writable)?;
        self.hide()?;
        self.finish_root()?;
        // After the hooks, which are not the container's.
        self.process.labels.apply(self.proc)?;
        self.process.run(Streams::First(self.stdio), channel, self.gate)
    }

    fn has_own_mounts(&self) -> bool {
        self.plan.namespaces.all.contains(ThreadNameSpaceType::MOUNT)
    }

    /// Makes the root with those mounts that are `wanted`, and leaves the host's.
    pub(crate) fn enter_own_root(&self, wanted: impl Fn(&MountPlan) -> bool) -> Result<(), Failure> {
        self.detach_host()?;
        self.attach_root(Path::new("/"))?;
        let writable = self.furnish(wanted)?;
        self.change_root()?;
        make_read_only(&writable)
    }

    /// What is in the root: the mounts that are `wanted`. Answers those that become read-only when nothing needs a place
    /// in them any more, with the names of their fields.
    fn furnish(&self, wanted: impl Fn(&MountPlan) -> bool) -> Result<Vec<(&str, OwnedFd)>, Failure> {
        let mut writable = Vec::new();
        for (plan, built) in self.plan.mounts.iter().zip(self.mounts).filter(|(plan, _)| wanted(plan)) {
            let mount = attach(self.root, plan, built, self.has_own_mounts())?;
            writable.extend(mount.map(|mount| (plan.field.as_str(), mount)));
        }
        if self.plan.set_up_dev {
            self.make_devices()?;
        }
        if self.plan.mount_table {
            self.link_mount_table();
        }
        let cwd = &self.process.cwd;
        target::open(self.root, Path::new(cwd), Missing::Directory).at(Step::MakeCwd, cwd)?;
        Ok(writable)
    }

    pub(crate) fn settle_namespaces(&self) -> Result<(), Failure> {
        let namespaces = &self.plan.namespaces;
        if self.plan.user.is_none() {
            for (Joined { field, kind, path }, fd) in namespaces.joined.iter().zip(self.joined) {
                // With its kind: behind the path of another one could be the host's mounts, which we are about to drop.
                let joined = move_into_thread_name_spaces(fd.as_fd(), *kind);
                joined.asked(field, format_args!("join {}", path.display()))?;
            }
        }
        if namespaces.new_cgroup {
            sys::namespace::unshare(UnshareFlags::NEWCGROUP).at(Step::NewCgroupNamespace, "")?;
        }
        if namespaces.new_network {
            sys::network::loopback_up().at(Step::Loopback, "")?;
        }
        if !self.plan.hostname.is_empty() {
            let name = &self.plan.hostname;
            rustix::system::sethostname(name.as_bytes()).asked("hostname", format_args!("set {name:?}"))?;
        }
        if !self.plan.domainname.is_empty() {
            let name = &self.plan.domainname;
            rustix::system::setdomainname(name.as_bytes()).asked("domainname", format_args!("set {name:?}"))?;
        }
        // Parameters of namespaces show those of whoever opens the file, so the host's /proc is the right one and the safe.
        for Parameter { name, path, value } in &self.plan.sysctl {
            let written = write_proc(self.proc, &format!("sys/{path}"), value);
            written.asked(&sysctl::field(name), format_args!("write {value:?} to /proc/sys/{path}"))?;
        }
        if self.plan.user.is_none() { self.set_oom_score() } else { Ok(()) }
    }

    pub(crate) fn set_oom_score(&self) -> Result<(), Failure> {
        let Some(value) = self.process.oom_score_adj else { return Ok(()) };
        let path = "self/oom_score_adj";
        let written = write_proc(self.proc, path, &value.to_string());
        written.asked("process.oomScoreAdj", format_args!("write {value} to /proc/self/oom_score_adj"))
    }

    fn detach_host(&self) -> Result<(), Failure> {
        let detach = || -> io::Result<()> {
            let host = openat(CWD, "/", target::PATH_FLAGS, Mode::empty())?;
            let private = Attributes { propagation: Attributes::PRIVATE, ..Attributes::default() };
            set_attributes(host.as_fd(), private, true)
        };
        detach().at(Step::DetachHostMounts, "")
    }

    fn attach_root(&self, place: &Path) -> Result<(), Failure> {
        let moved = match self.place {
            Some(place) => move_to(self.root, place),
            None => move_mount(self.root, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(Into::into),
        };
        moved.at(Step::ChangeRoot, &place.to_string_lossy())
    }

    /// Turns root and `/` around, and drops the host's tree.
    fn change_root(&self) -> Result<(), Failure> {
        let change = || -> io::Result<()> {
            fchdir(self.root)?;
            // Both arguments the same: the old root ends up on top of the new one, and goes next (pivot_root(2), NOTES).
            pivot_root(".", ".")?;
            unmount(".", UnmountFlags::DETACH)?;
            Ok(chdir("/")?)
        };
        change().at(Step::ChangeRoot, "")
    }

    /// The root over `/`, and everything of this process there. The host's tree stays beneath, without its /proc and /sys:
    /// with them whoever came there could undo what is masked (runc's msMoveRoot).
    fn move_root(&self) -> Result<(), Failure> {
        let moved = || -> io::Result<()> {
            // Our own root is the host's still.
            for path in ["/proc", "/sys"] {
                let host = match unmount(path, UnmountFlags::DETACH) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    // Not mounted there, or locked against root of a user namespace: then it is covered.
                    Err(Errno::INVAL) => openat(CWD, path, target::PATH_FLAGS, Mode::empty())?,
                    Err(err) => return Err(err.into()),
                };
                move_to(empty_directory(&self.plan.mount_label)?.as_fd(), host.as_fd())?;
            }
            if self.hooks.is_some() {
                move_mount(self.root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            }
            enter_root(self.root)
        };
        moved().at(Step::ChangeRoot, "without pivot_root")
    }

    fn make_devices(&self) -> Result<(), Failure> {
        let dev = target::open(self.root, Path::new("/dev"), Missing::Directory).at(Step::MakeNode, "/dev")?;
        // The specification's first: its modes and owners count for the default ones, too.
        for (index, device) in &self.plan.devices {
            if self.nodes.is_empty() || !is_node(device) {
                let named = || format!("linux.devices[{index}].path: make {}", device.path.display());
                self.make_device(device).or_else(|err| Err(err).at(Step::MakeDevice, &named()))?;
            }
        }
        for (path, major, minor) in DEVICES.iter().filter(|_| self.nodes.is_empty()) {
            let name = path.trim_start_matches("/dev/");
            let (mode, number) = (Mode::from_raw_mode(0o666), rustix::fs::makedev(*major, *minor));
            let made = mknodat(&dev, name, FileType::CharacterDevice, mode, number);
            unless_there(made).at(Step::MakeNode, name)?;
        }
        for (index, path, node) in self.nodes {
            let place = || target::open(self.root, path, Missing::File);
            let moved = place().and_then(|file| move_to(node.as_fd(), file.as_fd()));
            moved.or_else(|err| match index {
                Some(index) => Err(err).at(Step::MakeDevice, &borrowed(*index, path)),
                None => Err(err).at(Step::MakeNode, &path.to_string_lossy()),
            })?;
        }
        for (name, link) in LINKS {
            unless_there(symlinkat(link, &dev, name)).at(Step::MakeNode, name)?;
        }
        // As runc: only where the kernel is built with it.
        if statat(self.proc, "kcore", rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            unless_there(symlinkat("/proc/kcore", &dev, "core")).at(Step::MakeNode, "core")?;
        }
        if matches!(self.stdio, Stdio::Terminal) {
            target::open(self.root, Path::new("/dev/console"), Missing::File).at(Step::MakeNode, "/dev/console")?;
        }
        Ok(())
    }

    /// What reads the old table of mounts finds the kernel's. A root that has one keeps it, and one that takes none goes
    /// without.
    fn link_mount_table(&self) {
        if let Ok((parent, name)) = target::parent(self.root, Path::new("/etc/mtab")) {
            let _ = symlinkat("/proc/mounts", &parent, name);
        }
    }

    fn make_device(&self, device: &Device) -> io::Result<()> {
        let kind = device_type(device).ok_or(io::ErrorKind::InvalidInput)?;
        let (parent, name) = target::parent(self.root, &device.path)?;
        let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
        let number = rustix::fs::makedev(device.major, device.minor);
        if let Err(err) = mknodat(&parent, name, kind, mode, number) {
            // What the image or a mount has there stays as it is, which may be the host's node, if it is the same
            // (runtime-spec config-linux.md, "Devices").
            let there = statat(&parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).map_err(|_| err)?;
            let same =
                FileType::from_raw_mode(there.st_mode) == kind && (kind == FileType::Fifo || there.st_rdev == number);
            return if err == Errno::EXIST && same { Ok(()) } else { Err(err.into()) };
        }
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        Ok(chownat(&parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Masked and read-only paths. What the root does not have needs no hiding.
    pub(crate) fn hide(&self) -> Result<(), Failure> {
        // The root is no place below itself that something could be put over.
        for (index, path) in self.plan.read_only.iter().enumerate().filter(|(_, path)| !is_root(path)) {
            let cover = || -> io::Result<()> {
                let Some(target) = self.existing(path)? else { return Ok(()) };
                let clone = clone_tree(target.as_fd(), true)?;
                set_attributes(clone.as_fd(), READ_ONLY, false)?;
                move_to(clone.as_fd(), target.as_fd())
            };
            cover().or_else(|err| {
                let what = format_args!("make {} read-only", path.display());
                Err(err).asked(&format!("linux.readonlyPaths[{index}]"), what)
            })?;
        }
        let mut empty = None;
        let mut null = None;
        for (index, path) in self.plan.masked.iter().enumerate() {
            let mut cover = || match self.existing(path)? {
                Some(target) => self.mask(&target, &mut empty, &mut null),
                None => Ok(()),
            };
            cover().or_else(|err| {
                let is_null = err.raw_os_error() == Some(Errno::NODEV.raw_os_error());
                let with = if is_null { " with /dev/null, which is another device in the container" } else { "" };
                let what = format_args!("mask {}{with}", path.display());
                Err(err).asked(&format!("linux.maskedPaths[{index}]"), what)
            })?;
        }
        Ok(())
    }

    /// One empty directory and one null device serve all masks: a clone costs a third of a new file system.
    fn mask(&self, target: &OwnedFd, empty: &mut Option<OwnedFd>, null: &mut Option<OwnedFd>) -> io::Result<()> {
        if FileType::from_raw_mode(fstat(target)?.st_mode) != FileType::Directory {
            let null = match null {
                Some(null) => null,
                None => null.insert(self.null()?),
            };
            return move_to(clone_tree(null.as_fd(), false)?.as_fd(), target.as_fd());
        }
        match empty {
            Some(empty) => move_to(clone_tree(empty.as_fd(), false)?.as_fd(), target.as_fd()),
            // Attached first, cloned later: only newer kernels clone what is not attached.
            None => move_to(empty.insert(empty_directory(&self.plan.mount_label)?).as_fd(), target.as_fd()),
        }
    }

    /// The container's own null device: a mask with the host's would let the container change the host's node. Checked,
    /// because an image could have something else there (CVE-2025-31133).
    fn null(&self) -> io::Result<OwnedFd> {
        let null = target::open(self.root, Path::new("/dev/null"), Missing::Refuse)?;
        if is_null(&fstat(&null)?) { Ok(null) } else { Err(Errno::NODEV.into()) }
    }

    fn existing(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        match target::open(self.root, path, Missing::Refuse) {
            Ok(fd) => Ok(Some(fd)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    pub(crate) fn finish_root(&self) -> Result<(), Failure> {
        if self.plan.root_readonly {
            set_attributes(self.root, READ_ONLY, false).asked("root.readonly", "set the root's flags")?;
        }
        if let Some((propagation, recursive)) = self.plan.root_propagation {
            let attributes = Attributes { propagation, ..Attributes::default() };
            let set = set_attributes(self.root, attributes, recursive);
            set.asked("linux.rootfsPropagation", "set the root's propagation")?;
        }
        Ok(())
    }
}

impl MadeHooks<'_> {
    fn run(&self, channel: &Channel) -> Result<(), Failure> {
        channel.send_made()?;
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let state = State { status: "creating".into(), pid, ..self.state.clone() };
        let failure = |err| Failure { reason: Reason::Hook, errno: 0, subject: errdefs::chain(&err) };
        run_all("createContainer", &self.hooks.create_container, &state).map_err(failure)
    }
}

/// For a container with the mount namespace of its maker: its tree stays detached, so that the host's changes nowhere and
/// nothing is left when its last process ends. runc attaches the tree to the host's and leaves it there.
pub(crate) fn enter_root(root: BorrowedFd<'_>) -> io::Result<()> {
    fchdir(root)?;
    chroot(".")?;
    Ok(chdir("/")?)
}

fn make_read_only(mounts: &[(&str, OwnedFd)]) -> Result<(), Failure> {
    let one = |(field, mount): &(&str, OwnedFd)| {
        set_attributes(mount.as_fd(), READ_ONLY, false).asked(field, "make it read-only")
    };
    mounts.iter().try_for_each(one)
}

const READ_ONLY: Attributes = Attributes { set: Attributes::READ_ONLY, clear: 0, propagation: 0 };

/// Path, major, minor (runtime-spec config-linux.md, "Default Devices").
pub(crate) const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Name in /dev and target (runtime-spec config-linux.md, "Dev symbolic links").
pub(crate) const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// An image's own /dev may have the node already.
fn unless_there(made: Result<(), Errno>) -> Result<(), Errno> {
    match made {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}
