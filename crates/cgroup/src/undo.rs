//! What a cgroup's limits were before a change, to be put back where the change fails half-way.

use std::fs;
use std::path::PathBuf;

use crate::apply::directory;
use crate::group::Cgroup;
use crate::plan::{Absent, Write};

/// What the files of a change said before it.
#[derive(Debug)]
pub struct Before(Vec<Old>);

/// One limit in one file.
#[derive(Debug, PartialEq, Eq)]
struct Old {
    path: PathBuf,
    /// What has to be written to have it again.
    value: String,
}

impl Before {
    /// Reads what `writes` are about to change. What cannot be read cannot be put back: files that only take orders.
    pub(crate) fn read(group: &Cgroup, writes: &[Write]) -> Before {
        let mut all: Vec<Old> = Vec::new();
        for write in writes {
            let Ok(directory) = directory(group, write) else { continue };
            let instead = match &write.absent {
                Absent::Instead { file, value } => Some((*file, value)),
                Absent::Fail | Absent::Skip => None,
            };
            for (file, new) in [(&*write.file, &write.value)].into_iter().chain(instead) {
                let path = directory.join(file);
                let Ok(text) = fs::read_to_string(&path) else { continue };
                let old = Old { value: value_before(file, &text, new), path };
                if !all.contains(&old) {
                    all.push(old);
                }
            }
        }
        Before(all)
    }

    /// Puts back what is another one now, as far as the kernel takes it: the last change first, and once more what could not
    /// be before others were.
    pub fn put_back(&self) {
        for _ in 0..2 {
            for Old { path, value } in self.0.iter().rev() {
                let now = fs::read_to_string(path).unwrap_or_default();
                if !now.lines().any(|line| line == value) {
                    // The first error is the one to tell: this one comes after it.
                    let _ = fs::write(path, value);
                }
            }
        }
    }
}

/// What has to be written to a file with this text to undo the write of `new`.
fn value_before(file: &str, text: &str, new: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let key = new.split(' ').next().unwrap_or_default();
    if !is_table(file, key) {
        // `oom_kill_disable 0` is read, and `0` written.
        return first.strip_prefix("oom_kill_disable ").unwrap_or(first).to_owned();
    }
    let own = text.lines().find(|line| line.split(' ').next() == Some(key));
    own.map_or_else(|| format!("{key} {}", nothing(file)), str::to_owned)
}

/// Whether a file has a line for each device, of which a write changes one.
fn is_table(file: &str, key: &str) -> bool {
    let is_device = || key.split_once(':').is_some_and(|(major, _)| major.parse::<u32>().is_ok());
    matches!(file, "rdma.max" | "net_prio.ifpriomap") || is_device()
}

/// What takes a device's line away.
fn nothing(file: &str) -> &'static str {
    match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.weight" | "io.bfq.weight" => "default",
        "rdma.max" => "hca_handle=max hca_object=max",
        _ => "0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_what_is_written_to_have_it_again() {
        for (file, text, new, old) in [
            ("pids.max", "max\n", "5", "max"),
            ("memory.limit_in_bytes", "9223372036854771712\n", "4096", "9223372036854771712"),
            ("cpu.max", "max 100000\n", "5000 100000", "max 100000"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "1", "0"),
            ("io.weight", "default 100\n8:0 50\n", "200", "default 100"),
            ("io.weight", "default 100\n8:0 50\n", "8:16 200", "8:16 default"),
            (
                "io.max",
                "8:0 rbps=9 wbps=max riops=max wiops=max\n",
                "8:0 rbps=1",
                "8:0 rbps=9 wbps=max riops=max wiops=max",
            ),
            ("io.max", "", "8:0 rbps=1", "8:0 rbps=max wbps=max riops=max wiops=max"),
            ("blkio.throttle.read_bps_device", "8:1 7\n8:0 9\n", "8:0 1", "8:0 9"),
            ("blkio.throttle.read_bps_device", "8:10 7\n", "8:1 1", "8:1 0"),
            ("net_prio.ifpriomap", "lo 0\neth0 3\n", "eth0 5", "eth0 3"),
            ("rdma.max", "", "mlx hca_handle=3", "mlx hca_handle=max hca_object=max"),
            ("cpuset.cpus", "\n", "0", ""),
        ] {
            assert_eq!(value_before(file, text, new), old, "{file}: {new}");
        }
    }
}
