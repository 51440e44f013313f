//! What a cgroup has used, and when its memory ran out.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, PollFlags, eventfd};

use crate::error::CgroupError;
use crate::facts::{Controller, Version};
use crate::group::Cgroup;

/// What a cgroup uses now, and has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in use, caches included.
    pub memory_bytes: u64,
    /// Processor time of all its processes, ended ones too, in nanoseconds.
    pub cpu_ns: u64,
    /// Number of tasks.
    pub tasks: u64,
}

/// How many tasks the cgroup may have, if it has as many; `None` where there is room, or it is not known.
pub fn full_of_tasks(group: &Cgroup) -> Option<u64> {
    let directory = group.directory(Controller::Pids).ok()?;
    let number = |file: &str| fs::read_to_string(directory.join(file)).ok()?.trim().parse::<u64>().ok();
    let limit = number("pids.max")?;
    (number("pids.current")? >= limit).then_some(limit)
}

/// Tells when the kernel killed a process for memory.
#[derive(Debug)]
pub struct OomEvents {
    /// v1: an eventfd; v2: `memory.events` itself.
    fd: OwnedFd,
    version: Version,
    /// The file with the count.
    counts: PathBuf,
    /// How many kills were taken, one that is yet to be counted included.
    taken: u64,
}

impl Cgroup {
    /// Reads the counters. A controller that is not there counts 0.
    pub fn usage(&self) -> Result<Usage, CgroupError> {
        let cpu_ns = match self.version {
            Version::V1 => self.number(Controller::Cpuacct, "cpuacct.usage")?,
            Version::V2 => 1000 * self.field(Controller::Cpu, "cpu.stat", "usage_usec")?,
        };
        let memory_file = match self.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        let memory_bytes = self.number(Controller::Memory, memory_file)?;
        Ok(Usage { memory_bytes, cpu_ns, tasks: self.number(Controller::Pids, "pids.current")? })
    }

    /// Begins to watch for kills for want of memory.
    pub fn oom_events(&self) -> Result<OomEvents, CgroupError> {
        let directory = self.directory(Controller::Memory)?;
        let (version, counts) = match self.version {
            Version::V1 => (Version::V1, directory.join("memory.oom_control")),
            Version::V2 => (Version::V2, directory.join("memory.events")),
        };
        let file = File::open(&counts).map_err(CgroupError::io("open", &counts))?;
        if version == Version::V2 {
            return Ok(OomEvents { fd: file.into(), version, counts, taken: 0 });
        }
        let control = directory.join("cgroup.event_control");
        let register = || -> io::Result<OwnedFd> {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let mut control = File::options().write(true).open(&control)?;
            // memcg_test.rst, "OOM control": the eventfd's number and the file's, in the writer's own table.
            control.write_all(format!("{} {}", event.as_raw_fd(), file.as_raw_fd()).as_bytes())?;
            Ok(event)
        };
        let fd = register().map_err(CgroupError::io("register for memory events with", &control))?;
        Ok(OomEvents { fd, version, counts, taken: 0 })
    }

    fn number(&self, controller: Controller, file: &str) -> Result<u64, CgroupError> {
        let Ok(directory) = self.directory(controller) else { return Ok(0) };
        let path = directory.join(file);
        let text = fs::read_to_string(&path).map_err(CgroupError::io("read", &path))?;
        Ok(text.trim().parse().unwrap_or(0))
    }

    fn field(&self, controller: Controller, file: &str, name: &str) -> Result<u64, CgroupError> {
        let Ok(directory) = self.directory(controller) else { return Ok(0) };
        let path = directory.join(file);
        let text = fs::read_to_string(&path).map_err(CgroupError::io("read", &path))?;
        Ok(field(&text, name))
    }
}

/// What becomes ready (POLLPRI) when the last process ends; nothing with version 1, whose [`OomEvents`] become ready when
/// the cgroup is removed.
pub fn end_events(group: &Cgroup) -> Result<Option<OwnedFd>, CgroupError> {
    let (Version::V2, Some((_, directory))) = (group.version, group.directories.first()) else { return Ok(None) };
    let path = directory.join("cgroup.events");
    let file = File::open(&path).map_err(CgroupError::io("open", &path))?;
    Ok(Some(file.into()))
}

/// Whether it is gone, or with version 2 empty.
pub fn has_ended(group: &Cgroup) -> bool {
    let Some((_, directory)) = group.directories.first() else { return true };
    match group.version {
        // They go one after the other.
        Version::V1 => group.directories.iter().any(|(_, directory)| !directory.exists()),
        Version::V2 => fs::read_to_string(directory.join("cgroup.events"))
            .map_or(true, |text| text.lines().any(|line| line == "populated 0")),
    }
}

/// Whether the kernel has killed a process inside for memory. What cannot be read has not.
pub fn had_oom_kill(group: &Cgroup) -> bool {
    let file = match group.version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    };
    group.field(Controller::Memory, file, "oom_kill").is_ok_and(|kills| kills > 0)
}

impl OomEvents {
    /// What to poll the descriptor for.
    pub fn poll_flags(&self) -> PollFlags {
        match self.version {
            Version::V1 => PollFlags::IN,
            Version::V2 => PollFlags::PRI,
        }
    }

    /// Whether memory ran out since the last call, or ever before the first; clears the readiness of the descriptor.
    ///
    /// Version 1 sends its event before it chooses whom to kill, and counts afterwards: an event stands for a kill that is
    /// not counted yet. It also sends one when the cgroup goes away; then the answer is an error.
    pub fn take(&mut self) -> io::Result<bool> {
        let (event, kills) = match self.version {
            Version::V2 => {
                // Through the polled descriptor: reading another one leaves it ready (kernfs_generic_poll).
                let mut text = [0; COUNTS_BYTES];
                let length = rustix::io::pread(&self.fd, &mut text, 0)?;
                (false, field(&String::from_utf8_lossy(&text[..length]), "oom_kill"))
            }
            Version::V1 => {
                let event = match rustix::io::read(&self.fd, &mut [0_u8; 8]) {
                    Err(rustix::io::Errno::AGAIN) => false,
                    other => other? > 0,
                };
                (event, field(&fs::read_to_string(&self.counts)?, "oom_kill"))
            }
        };
        Ok(take_kills(&mut self.taken, event, kills))
    }
}

/// Several events may come for one kill: what was taken is never more than one ahead of what is counted.
fn take_kills(taken: &mut u64, event: bool, kills: u64) -> bool {
    let known = match event {
        true if kills == *taken => kills + 1,
        _ => kills.max(*taken),
    };
    known > std::mem::replace(taken, known)
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// More than `memory.events` ever is: six lines.
const COUNTS_BYTES: usize = 512;

/// The number after `name` in a file of `name number` lines; 0 if there is none, as on kernels without the counter.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::take_kills;

    #[test]
    fn every_kill_is_taken_once_whether_its_event_or_its_count_is_first() {
        for calls in [
            &[
                (false, 0, false),
                (true, 0, true),
                (true, 0, false),
                (false, 1, false),
                (true, 1, true),
                (true, 2, true),
            ][..],
            &[(false, 3, true), (false, 3, false), (false, 4, true)],
            &[(true, 1, true), (true, 1, true), (true, 1, false), (true, 2, true)],
        ] {
            let mut taken = 0;
            for (event, kills, news) in calls {
                assert_eq!(take_kills(&mut taken, *event, *kills), *news, "{event} {kills} of {calls:?}");
            }
        }
    }
}
