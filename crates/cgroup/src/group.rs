//! The directories of one container.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use errdefs::ErrorKind;
use oci::runtime::{DeviceRule, Resources};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::devices::program;
use crate::events::wait_for;
use crate::facts::{Controller, Hierarchies, Version};
use crate::freeze;
use crate::plan::{PlanError, Write, plan};

/// The cgroup of one container: a directory in each hierarchy that it needs.
#[derive(Clone, Debug)]
pub struct Cgroup {
    /// The version of all its directories.
    pub version: Version,
    /// Its path below each hierarchy's mount.
    pub path: PathBuf,
    /// The directories with their controllers; one with version 2.
    pub directories: Vec<(Vec<Controller>, PathBuf)>,
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

/// Why an operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The limits contradict themselves.
    #[error("plan cgroup limits")]
    Plan {
        /// Why.
        source: PlanError,
    },
    /// A limit asks for a controller that this host has not mounted.
    #[error("cgroup controller {controller} is not available, and a limit asks for it")]
    NoController {
        /// Which.
        controller: Controller,
    },
    /// The path could leave the hierarchy.
    #[error("cgroup path {} is not absolute or has dots", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// No hierarchy is mounted at all.
    #[error("no cgroup hierarchy is mounted")]
    NoHierarchy,
    /// A file or directory could not be used.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The limit was refused by the kernel.
    #[error("write {value:?} to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Processes did not go away, freeze or thaw in time.
    #[error("{action} {} within {} ms", path.display(), timeout.as_millis())]
    Timeout {
        /// What was tried.
        action: &'static str,
        /// With which directory.
        path: PathBuf,
        /// How long was waited.
        timeout: Duration,
    },
}

impl CgroupError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CgroupError::Plan { source } => source.kind(),
            CgroupError::NoController { .. } | CgroupError::Path { .. } | CgroupError::Write { .. } => {
                ErrorKind::InvalidArgument
            }
            CgroupError::NoHierarchy | CgroupError::Io { .. } | CgroupError::Timeout { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
        let path = path.to_owned();
        move |source| CgroupError::Io { action, path, source }
    }
}

impl Cgroup {
    /// Makes the directories and writes the limits; on failure nothing is left.
    ///
    /// An existing directory is taken over: it may be left from a container that was killed with its shim.
    pub fn create(hierarchies: &Hierarchies, path: &Path, resources: &Resources) -> Result<Cgroup, CgroupError> {
        let version = hierarchies.version();
        let writes = plan(resources, version).map_err(|source| CgroupError::Plan { source })?;
        let wanted = wanted(hierarchies, &writes)?;
        let group = Cgroup { version, path: path.to_owned(), directories: directories(hierarchies, path, &wanted)? };
        let made = group.make_directories(hierarchies, &wanted).and_then(|()| group.write(&writes));
        if let Err(err) = made.and_then(|()| group.attach_devices(&resources.devices)) {
            // The first error is the one to report; directories that stay are taken over by the next create.
            let _ = group.remove_directories();
            return Err(err);
        }
        Ok(group)
    }

    /// The cgroup at `path` as an earlier [`Cgroup::create`] left it, in whichever hierarchies have it.
    pub fn open(hierarchies: &Hierarchies, path: &Path) -> Result<Cgroup, CgroupError> {
        let mut all = directories(hierarchies, path, &CONTROLLERS_DEFAULT)?;
        all.extend(directories(hierarchies, path, &[Controller::Cpuset])?);
        all.retain(|(_, directory)| directory.is_dir());
        all.dedup_by(|a, b| a.1 == b.1);
        Ok(Cgroup { version: hierarchies.version(), path: path.to_owned(), directories: all })
    }

    /// Changes the limits of the living cgroup.
    pub fn update(&self, resources: &Resources) -> Result<(), CgroupError> {
        self.write(&plan(resources, self.version).map_err(|source| CgroupError::Plan { source })?)
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
                let tasks = self.directories.iter().map(|(_, directory)| opened(directory.join("tasks"), true));
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

    /// Thaws the directory: a frozen process of version 1 does not even die.
    fn let_die(&self) {
        if let (Version::V1, Ok(directory)) = (self.version, self.directory(Controller::Freezer)) {
            // If it stays frozen the deadline tells.
            let _ = fs::write(directory.join("freezer.state"), "THAWED");
        }
    }

    /// The directory with this controller's files, or an error that names the controller.
    pub(crate) fn directory(&self, controller: Controller) -> Result<&Path, CgroupError> {
        let found = self.directories.iter().find(|(controllers, _)| controllers.contains(&controller));
        found.map(|(_, path)| path.as_path()).ok_or(CgroupError::NoController { controller })
    }

    fn make_directories(&self, hierarchies: &Hierarchies, wanted: &[Controller]) -> Result<(), CgroupError> {
        for (controllers, directory) in &self.directories {
            if let Some(unified) = hierarchies.unified.as_ref().filter(|_| self.version == Version::V2) {
                delegate(unified, &self.path, wanted)?;
            }
            make_directory(directory)?;
            if controllers.contains(&Controller::Cpuset) && self.version == Version::V1 {
                let mount = hierarchies.v1_mount(Controller::Cpuset).ok_or(CgroupError::NoHierarchy)?;
                inherit_cpuset(mount, &self.path)?;
            }
        }
        Ok(())
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

    fn write(&self, writes: &[Write]) -> Result<(), CgroupError> {
        let (mut again, mut last) = (None, None);
        for write in writes {
            match self.write_one(write, &mut last) {
                // A limit raised above the old sum of memory and swap is refused until the sum is raised.
                Err(CgroupError::Write { .. }) if write.file == "memory.limit_in_bytes" => again = Some(write),
                other => other?,
            }
        }
        again.map_or(Ok(()), |write| self.write_one(write, &mut None))
    }

    /// `last` is the file of the write before: device rules are many writes to one.
    fn write_one(&self, write: &Write, last: &mut Option<(&'static str, File)>) -> Result<(), CgroupError> {
        let path = || Ok(self.directory(write.controller)?.join(write.file));
        if last.as_ref().is_none_or(|(name, _)| *name != write.file) {
            let file = File::options().write(true).open(path()?);
            let file =
                file.or_else(|source| Err(CgroupError::Write { path: path()?, value: write.value.clone(), source }));
            *last = Some((write.file, file?));
        }
        let written = last.as_mut().map_or(Ok(()), |(_, file)| file.write_all(write.value.as_bytes()));
        written.or_else(|source| Err(CgroupError::Write { path: path()?, value: write.value.clone(), source }))
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

/// What every container is put under where it is mounted: what can limit it later, count it or freeze it.
///
/// Not cpuset: a new directory must be filled first, and nothing is counted there.
const CONTROLLERS_DEFAULT: [Controller; 7] = [
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Memory,
    Controller::Devices,
    Controller::Freezer,
    Controller::Blkio,
    Controller::Pids,
];

/// The controllers to use: those that are there, and cpuset if asked for. One that is asked for must be there.
fn wanted(hierarchies: &Hierarchies, writes: &[Write]) -> Result<Vec<Controller>, CgroupError> {
    let available = |controller: &Controller| match hierarchies.version() {
        Version::V1 => hierarchies.v1_mount(*controller).is_some(),
        Version::V2 => hierarchies.unified_controllers.contains(controller),
    };
    let mut wanted: Vec<_> = CONTROLLERS_DEFAULT.into_iter().filter(available).collect();
    for write in writes {
        if !available(&write.controller) {
            return Err(CgroupError::NoController { controller: write.controller });
        }
        if !wanted.contains(&write.controller) {
            wanted.push(write.controller);
        }
    }
    Ok(wanted)
}

fn directories(
    hierarchies: &Hierarchies,
    path: &Path,
    wanted: &[Controller],
) -> Result<Vec<(Vec<Controller>, PathBuf)>, CgroupError> {
    let normal = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    let below = path.strip_prefix("/").ok().filter(|below| below.components().all(normal));
    let below = below.filter(|below| !below.as_os_str().is_empty());
    let below = below.ok_or_else(|| CgroupError::Path { path: path.to_owned() })?;
    if let (Version::V2, Some(unified)) = (hierarchies.version(), &hierarchies.unified) {
        return Ok(vec![(wanted.to_vec(), unified.join(below))]);
    }
    let used = hierarchies.v1.iter().filter(|hierarchy| hierarchy.controllers.iter().any(|c| wanted.contains(c)));
    Ok(used.map(|hierarchy| (hierarchy.controllers.clone(), hierarchy.mount.join(below))).collect())
}

fn make_directory(directory: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(directory) {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // The usual parent exists: trying the leaf first saves a stat for each hierarchy.
        Err(_) => fs::create_dir_all(directory).map_err(CgroupError::io("create", directory)),
    }
}

/// Gives the controllers to every directory on the way down (cgroup-v2.rst, "Top-down Constraint").
fn delegate(unified: &Path, path: &Path, wanted: &[Controller]) -> Result<(), CgroupError> {
    let names: Vec<_> = wanted.iter().filter_map(|c| c.unified_name()).map(|name| format!("+{name}")).collect();
    let parents = path.parent().into_iter().flat_map(Path::components).skip(1);
    let mut directory = unified.to_owned();
    let enable = |directory: &Path| {
        let file = directory.join("cgroup.subtree_control");
        fs::write(&file, names.join(" ")).map_err(CgroupError::io("write", &file))
    };
    enable(&directory)?;
    for parent in parents {
        directory.push(parent);
        make_directory(&directory)?;
        enable(&directory)?;
    }
    Ok(())
}

/// A new directory of version 1's cpuset is empty, and takes no process until it has processors and memory nodes.
fn inherit_cpuset(mount: &Path, path: &Path) -> Result<(), CgroupError> {
    let mut directory = mount.to_owned();
    for part in path.components().skip(1) {
        let child = directory.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (directory.join(file), child.join(file));
            let own = fs::read_to_string(&to).map_err(CgroupError::io("read", &to))?;
            if own.trim().is_empty() {
                let value = fs::read_to_string(&from).map_err(CgroupError::io("read", &from))?;
                fs::write(&to, value.trim()).map_err(CgroupError::io("write", &to))?;
            }
        }
        directory = child;
    }
    Ok(())
}

/// Removes a cgroup directory, and those that the container made below it.
fn remove_tree(directory: &Path) -> Result<(), (PathBuf, io::Error)> {
    let gone = |err: &io::Error| err.kind() == io::ErrorKind::NotFound;
    let failed = |err| (directory.to_owned(), err);
    // rmdir first: nearly always there is nothing below, and listing costs as much again.
    match fs::remove_dir(directory) {
        Err(err) if !gone(&err) => {}
        _ => return Ok(()),
    }
    let entries = match fs::read_dir(directory) {
        Err(err) if gone(&err) => return Ok(()),
        other => other.map_err(failed)?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path())?;
    }
    match fs::remove_dir(directory) {
        Err(err) if !gone(&err) => Err(failed(err)),
        _ => Ok(()),
    }
}

/// The processes of a directory and those below.
fn collect_procs(directory: &Path, found: &mut BTreeSet<i32>) {
    // One that cannot be read has gone meanwhile.
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.for_each(|entry| collect_procs(&entry.path(), found));
}

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
