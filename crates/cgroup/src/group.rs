//! The directories of one container.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci::runtime::{DeviceRule, Resources};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::apply::{apply, check_usage, extend};
use crate::devices::program;
use crate::directories;
use crate::error::CgroupError;
use crate::events::wait_for;
use crate::facts::{Controller, Hierarchies, Version};
use crate::freeze;
use crate::plan::{plan, taken_back};
use crate::tree::{collect_procs, remove_tree, thaw};
use crate::undo::Before;

/// The cgroup of one container: a directory in each hierarchy that it needs.
#[derive(Clone, Debug)]
pub struct Cgroup {
    /// The version of all its directories.
    pub version: Version,
    /// Its path below each hierarchy's mount.
    pub path: PathBuf,
    /// The directories with their controllers; one with version 2.
    pub directories: Vec<(Vec<Controller>, PathBuf)>,
    /// What [`Cgroup::create`] had to make above them.
    pub(crate) above: Vec<PathBuf>,
}

/// How a process comes into a [`Cgroup`].
#[derive(Debug)]
pub enum Entrance {
    /// `tasks` of every hierarchy: the single-threaded process writes itself into each ([`Entrance::enter`]).
    Tasks(Vec<OwnedFd>),
    /// The directory into which the process is cloned (CLONE_INTO_CGROUP).
    Directory(OwnedFd),
}

impl Entrance {
    /// The directory to clone into; `None` where the child enters by itself.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Entrance::Tasks(_) => None,
            Entrance::Directory(directory) => Some(directory.as_fd()),
        }
    }

    /// Puts the calling, single-threaded process in, where cloning has not done so. Allocates nothing.
    pub fn enter(&self) -> io::Result<()> {
        if let Entrance::Tasks(tasks) = self {
            for task in tasks {
                // Never `cgroup.procs`: that waits for an RCU grace period of milliseconds (cgroup_threadgroup_rwsem).
                rustix::io::write(task, b"0")?;
            }
        }
        Ok(())
    }
}

impl Cgroup {
    /// Makes the directories and writes the limits; on failure nothing is left.
    ///
    /// An existing directory is taken over: it may be left from a container that was killed with its shim.
    pub fn create(hierarchies: &Hierarchies, path: &Path, resources: &Resources) -> Result<Cgroup, CgroupError> {
        let version = hierarchies.version();
        let writes = plan(resources, hierarchies).map_err(|source| CgroupError::Plan { source })?;
        let wanted = directories::wanted(hierarchies, &writes)?;
        let mut directories = directories::directories(hierarchies, path, &wanted)?;
        directories.extend(directories::followed(hierarchies, path, &directories, true)?);
        let mut group = Cgroup { version, path: path.to_owned(), directories, above: Vec::new() };
        let mut above = Vec::new();
        let made = directories::make(&group, hierarchies, &writes, &mut above).and_then(|()| apply(&group, &writes));
        group.above = above;
        if let Err(err) = made.and_then(|()| group.attach_devices(&resources.devices)) {
            // The first error is the one to report; directories that stay are taken over by the next create.
            let _ = group.remove_directories();
            directories::remove_above(&group.above);
            return Err(err);
        }
        Ok(group)
    }

    /// A cgroup that is not there: for those who may not make one. Nothing is limited, counted or frozen.
    pub fn none(hierarchies: &Hierarchies, path: &Path) -> Cgroup {
        Cgroup { version: hierarchies.version(), path: path.to_owned(), directories: Vec::new(), above: Vec::new() }
    }

    /// The cgroup at `path` as an earlier [`Cgroup::create`] left it, in whichever hierarchies have it.
    pub fn open(hierarchies: &Hierarchies, path: &Path) -> Result<Cgroup, CgroupError> {
        let version = hierarchies.version();
        let all = match version {
            Version::V1 => &Controller::ALL[..],
            Version::V2 => &hierarchies.unified_controllers,
        };
        let mut directories = directories::directories(hierarchies, path, all)?;
        directories.extend(directories::followed(hierarchies, path, &directories, false)?);
        directories.retain(|(_, directory)| directory.is_dir());
        Ok(Cgroup { version, path: path.to_owned(), directories, above: Vec::new() })
    }

    /// Whether any of its directories was there when it was opened: they go with the container.
    pub fn exists(&self) -> bool {
        !self.directories.is_empty()
    }

    /// Changes the limits of the living cgroup: all, or none. Device rules stay as they are.
    ///
    /// With version 1 a limit whose hierarchy the container is not in moves its processes there.
    pub fn update(&mut self, hierarchies: &Hierarchies, resources: &Resources) -> Result<(), CgroupError> {
        change(self, hierarchies, resources).map(drop)
    }

    /// Opens what a new process needs to come in.
    pub fn entrance(&self) -> Result<Entrance, CgroupError> {
        let opened = |path: PathBuf, write: bool| {
            let file = File::options().read(!write).write(write).open(&path);
            file.map(OwnedFd::from).map_err(CgroupError::io("open", &path))
        };
        match self.version {
            Version::V2 => {
                let (_, directory) = self.directories.first().ok_or(CgroupError::NoHierarchy)?;
                opened(directory.clone(), false).map(Entrance::Directory)
            }
            Version::V1 => {
                let entry = |directory: &Path| match opened(directory.join("tasks"), true) {
                    // The one of a hybrid's version 2.
                    Err(CgroupError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                        opened(directory.join("cgroup.procs"), true)
                    }
                    other => other,
                };
                // Those that systemd follows are the last and come first: as long as the process is still one of a service's
                // there, it may be taken out of the others again.
                let tasks = self.directories.iter().rev().map(|(_, directory)| entry(directory));
                tasks.collect::<Result<_, _>>().map(Entrance::Tasks)
            }
        }
    }

    /// The same for a process that is to come beside `process`, which may have moved to a cgroup below.
    ///
    /// With version 2 a cgroup that hands controllers down takes no processes (cgroup-v2.rst, "No Internal Process
    /// Constraint"): systemd and engines in containers do that with theirs, and clone3 fails with EBUSY then.
    pub fn entrance_beside(&self, process: Pid) -> Result<Entrance, CgroupError> {
        let (Version::V2, Some((_, own))) = (self.version, self.directories.first()) else { return self.entrance() };
        let file = PathBuf::from(format!("/proc/{}/cgroup", process.as_raw_nonzero()));
        let text = fs::read_to_string(&file).map_err(CgroupError::io("read", &file))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        let below = Path::new(path).strip_prefix(&self.path).unwrap_or(Path::new(""));
        let directory = own.join(below);
        let opened = File::open(&directory).map_err(CgroupError::io("open", &directory))?;
        Ok(Entrance::Directory(opened.into()))
    }

    /// The processes inside, in our PID namespace's numbers.
    pub fn procs(&self) -> Result<Vec<i32>, CgroupError> {
        let Some((_, directory)) = self.directories.first() else { return Ok(Vec::new()) };
        let path = directory.join("cgroup.procs");
        let text = fs::read_to_string(&path).map_err(CgroupError::io("read", &path))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Sends SIGKILL to every process inside. Does not wait for their end.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if self.version == Version::V2 {
            let Some((_, directory)) = self.directories.first() else { return Ok(()) };
            let path = directory.join("cgroup.kill");
            return fs::write(&path, "1").map_err(CgroupError::io("write", &path));
        }
        for process in self.members()? {
            // Whatever ended since the list was read is what we want.
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
        Ok(())
    }

    /// Stops all processes, and waits until they stand still.
    pub fn freeze(&self, timeout: Duration) -> Result<(), CgroupError> {
        self.set_frozen(true, timeout)
    }

    /// Lets all processes go on.
    pub fn thaw(&self, timeout: Duration) -> Result<(), CgroupError> {
        self.set_frozen(false, timeout)
    }

    /// Kills what is left inside, waits for its end, and removes the directories. Absent directories are success.
    ///
    /// Does not return before `timeout` if a process cannot die.
    pub fn destroy(&self, timeout: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.remove_directories() {
                Err(CgroupError::Io { source, .. }) if source.raw_os_error() == Some(EBUSY) => {}
                other => return other,
            }
            if !self.end_processes(deadline)? {
                let path = self.path.clone();
                return Err(CgroupError::Timeout { action: "empty and remove cgroup", path, timeout });
            }
        }
    }

    /// [`Cgroup::destroy`] for what should never have been made: takes away, too, what had to be made above it, unless
    /// somebody else has come there.
    pub fn abandon(&self, timeout: Duration) -> Result<(), CgroupError> {
        let destroyed = self.destroy(timeout);
        directories::remove_above(&self.above);
        destroyed
    }

    /// Kills what is inside and waits for its end; false at the deadline.
    fn end_processes(&self, deadline: Instant) -> Result<bool, CgroupError> {
        if let (Version::V2, Some((_, directory))) = (self.version, self.directories.first()) {
            match self.kill() {
                // It went away by itself.
                Err(CgroupError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(true),
                other => other?,
            }
            let ended = wait_for(directory, "populated 0", deadline).map_err(CgroupError::io("wait for", directory))?;
            // Empty and still not to be removed: what is left of the last process will be gone in a moment.
            return Ok(ended && pause(deadline));
        }
        self.let_die();
        let waited = self.members()?.iter().filter(|process| end(process, deadline)).count();
        Ok(waited > 0 || pause(deadline))
    }

    /// The processes inside. By descriptor: a number from a list may be another process's by the time that it is used. One
    /// that is listed again after its descriptor was opened was inside then, or has ended since.
    fn members(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        // 0 is a process of a PID namespace above ours.
        let open = |pid: i32| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?));
        let opened: Vec<_> = self.procs_with_below().into_iter().filter_map(open).collect();
        let listed = if opened.is_empty() { BTreeSet::new() } else { self.procs_with_below() };
        Ok(opened.into_iter().filter(|(pid, _)| listed.contains(pid)).map(|(_, process)| process).collect())
    }

    /// The processes inside and in the cgroups below, of every hierarchy: a container that may write them can have moved
    /// its processes differently in each.
    pub fn procs_with_below(&self) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        self.directories.iter().for_each(|(_, directory)| collect_procs(directory, &mut found));
        found
    }

    /// Thaws the directory, and those that the container has made below and may have frozen: a frozen process of version 1
    /// does not even die.
    fn let_die(&self) {
        if let (Version::V1, Ok(directory)) = (self.version, self.directory(Controller::Freezer)) {
            thaw(directory);
        }
    }

    /// The directory with this controller's files, or an error that names the controller.
    pub(crate) fn directory(&self, controller: Controller) -> Result<&Path, CgroupError> {
        let found = self.directories.iter().find(|(controllers, _)| controllers.contains(&controller));
        found.map(|(_, path)| path.as_path()).ok_or(CgroupError::NoController { controller })
    }

    /// Version 1 has files for the rules, which the plan writes.
    fn attach_devices(&self, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        let [(_, directory)] = self.directories.as_slice() else { return Ok(()) };
        if self.version == Version::V1 || rules.is_empty() {
            return Ok(());
        }
        let attach = |cgroup: File| sys::bpf::attach_device_program(cgroup.as_fd(), &program(rules));
        File::open(directory).and_then(attach).map_err(CgroupError::io("attach a device program to", directory))
    }

    fn set_frozen(&self, frozen: bool, timeout: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + timeout;
        let reached = match self.version {
            Version::V1 => freeze::set_v1(self.directory(Controller::Freezer)?, frozen, deadline)?,
            Version::V2 => {
                let (_, directory) = self.directories.first().ok_or(CgroupError::NoHierarchy)?;
                freeze::set_v2(directory, frozen, deadline)?
            }
        };
        if reached {
            return Ok(());
        }
        let action = if frozen { "freeze cgroup" } else { "thaw cgroup" };
        Err(CgroupError::Timeout { action, path: self.path.clone(), timeout })
    }

    /// Removes children before parents; the first error is returned, after all were tried.
    fn remove_directories(&self) -> Result<(), CgroupError> {
        let results = self.directories.iter().map(|(_, directory)| remove_tree(directory));
        let first = results.fold(Ok(()), Result::and);
        first.map_err(|(path, source)| CgroupError::Io { action: "remove", path, source })
    }
}

/// [`Cgroup::update`] for those who may have to take it back: what the files said before is the answer.
pub fn change(group: &mut Cgroup, hierarchies: &Hierarchies, resources: &Resources) -> Result<Before, CgroupError> {
    let resources = Resources { devices: Vec::new(), ..resources.clone() };
    let mut writes = plan(&resources, hierarchies).map_err(|source| CgroupError::Plan { source })?;
    if let (Version::V2, Some(memory)) = (group.version, &resources.memory) {
        check_usage(group, memory)?;
    }
    extend(group, hierarchies, &writes)?;
    writes.extend(taken_back(&resources, group.version).filter(|_| group.directory(Controller::Memory).is_ok()));
    let before = Before::read(group, &writes);
    apply(group, &writes).inspect_err(|_| before.put_back())?;
    Ok(before)
}

/// Cgroups below `parent`, as `--cgroup` of exec names them: a path, with version 1 for each controller that differs.
pub fn below(parent: &Cgroup, paths: &[(String, PathBuf)]) -> Result<Cgroup, CgroupError> {
    let mut group = parent.clone();
    for (name, path) in paths {
        let missing = || CgroupError::NoSubgroup { name: subgroup(name, path), version: parent.version };
        let relative = path.strip_prefix("/").unwrap_or(path);
        let normal = |part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir);
        let mut has = group.directories.iter_mut().filter(|(controllers, _)| {
            name.is_empty() == (parent.version == Version::V2)
                && (name.is_empty() || controllers.iter().any(|controller| controller.name() == name))
        });
        let (_, directory) = has.next().filter(|_| relative.components().all(normal)).ok_or_else(missing)?;
        // Two names of one hierarchy are two words on one directory: the last counts.
        let own = &parent.directories.iter().find(|(_, own)| directory.starts_with(own)).ok_or_else(missing)?.1;
        *directory = own.join(relative);
        if !directory.is_dir() {
            return Err(missing());
        }
        if parent.version == Version::V2 {
            group.path = parent.path.join(relative);
        }
    }
    Ok(group)
}

/// As it was given: `CONTROLLER:PATH` or `PATH`.
fn subgroup(controller: &str, path: &Path) -> String {
    let colon = if controller.is_empty() { "" } else { ":" };
    format!("{controller}{colon}{}", path.display())
}

/// Sends a signal to every process inside and below. Those that end meanwhile need none.
pub fn signal_all(group: &Cgroup, signal: i32) -> Result<(), CgroupError> {
    for process in group.members()? {
        let _ = sys::signal::send(process.as_fd(), signal);
    }
    Ok(())
}

/// Whether the processes inside have been stopped by [`Cgroup::freeze`], or are about to be.
pub fn is_frozen(group: &Cgroup) -> bool {
    let read = |directory: &Path, file| fs::read_to_string(directory.join(file)).unwrap_or_default();
    match (group.version, group.directories.first()) {
        (Version::V1, _) => group
            .directory(Controller::Freezer)
            .is_ok_and(|directory| matches!(read(directory, "freezer.state").trim(), "FROZEN" | "FREEZING")),
        (Version::V2, Some((_, directory))) => read(directory, "cgroup.freeze").trim() == "1",
        (Version::V2, None) => false,
    }
}

const EBUSY: i32 = rustix::io::Errno::BUSY.raw_os_error();

/// Kills a process and waits for its end; whether anything happened.
fn end(process: &OwnedFd, deadline: Instant) -> bool {
    pidfd_send_signal(process, Signal::KILL).is_ok() && sys::wait::readable(process.as_fd(), deadline).unwrap_or(false)
}

/// Lets a millisecond pass; false once the deadline has passed.
///
/// For two states that the kernel announces nowhere: a freezing of version 1 that is complete, and a directory whose last
/// process is past its exit notification but not yet past its exit.
pub(crate) fn pause(deadline: Instant) -> bool {
    std::thread::sleep(Duration::from_millis(1));
    Instant::now() < deadline
}

#[cfg(test)]
mod tests;
