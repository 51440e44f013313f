//! Records in the shim's directory, and numbers that go into them.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use shim_api::{ExecState, ExitFile, ExitRecord, RunState};
use stdx::fs::{Durability, write_atomic};

/// Nanoseconds since 1970.
pub(crate) fn now_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Writes `state.json`.
pub(crate) fn write_state(dir: &Path, state: &RunState) -> io::Result<()> {
    write_record(&shim_api::paths::state(dir), state)
}

/// Writes `exit.json`.
pub(crate) fn write_exit(dir: &Path, exit: ExitRecord, execs: Vec<ExecState>) -> io::Result<()> {
    write_record(&shim_api::paths::exit(dir), &ExitFile { exit, execs })
}

/// Field 22 of /proc/PID/stat, 0 if the process is gone.
pub(crate) fn start_ticks(pid: i32) -> u64 {
    let text = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse_start_ticks(&String::from_utf8_lossy(&text)).unwrap_or(0)
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses, which may contain both of them and spaces.
    let rest = &stat[stat.rfind(')')? + 1..];
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

fn write_record(path: &Path, record: &impl Serialize) -> io::Result<()> {
    // The directory is a tmpfs: a power cut takes the container with it.
    write_atomic(path, &serde_json::to_vec(record)?, Durability::ProcessDeath)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "42 (a) (b c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        assert_eq!(super::parse_start_ticks(stat), Some(987_654));
        assert_eq!(super::parse_start_ticks(""), None);
    }
}
