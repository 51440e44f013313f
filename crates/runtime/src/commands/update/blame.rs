//! Which flag a refused limit belongs to: whoever gives flags may never have seen config.json. Pure.

use crate::error::CommandError;

/// Limits, and the flags that set them.
const FLAGS: [(&str, &str); 14] = [
    ("linux.resources.memory.limit", "memory"),
    ("linux.resources.memory.swap", "memory-swap"),
    ("linux.resources.memory.reservation", "memory-reservation"),
    ("linux.resources.cpu.shares", "cpu-share"),
    ("linux.resources.cpu.quota", "cpu-quota"),
    ("linux.resources.cpu.period", "cpu-period"),
    ("linux.resources.cpu.burst", "cpu-burst"),
    ("linux.resources.cpu.realtimeRuntime", "cpu-rt-runtime"),
    ("linux.resources.cpu.realtimePeriod", "cpu-rt-period"),
    ("linux.resources.cpu.cpus", "cpuset-cpus"),
    ("linux.resources.cpu.mems", "cpuset-mems"),
    ("linux.resources.cpu.idle", "cpu-idle"),
    ("linux.resources.pids.limit", "pids-limit"),
    ("linux.resources.blockIO.weight", "blkio-weight"),
];

/// The error with the flag in front, where a flag was refused.
pub(super) fn blame(err: CommandError) -> CommandError {
    let CommandError::Cgroup(source) = err else { return err };
    let name = source.limit();
    let found = FLAGS.iter().find(|(limit, _)| Some(*limit) == name);
    match found {
        Some((_, flag)) => CommandError::Limit { flag, source },
        None => CommandError::Cgroup(source),
    }
}

#[cfg(test)]
mod tests {
    use cgroup::{CgroupError, PlanError};

    use super::*;

    fn said(field: &'static str) -> String {
        let source = PlanError::OutOfRange { field: field.into(), value: 5, range: "between 10 and 1000" };
        errdefs::chain(&blame(CgroupError::Plan { source }.into()))
    }

    #[test]
    fn a_flag_stands_before_the_limit_that_it_sets() {
        let shares = "linux.resources.cpu.shares: 5 is not between 10 and 1000";
        assert_eq!(said("linux.resources.cpu.shares"), format!("--cpu-share: {shares}"));
        let other = "linux.resources.memory.swappiness";
        assert_eq!(said(other), format!("{other}: 5 is not between 10 and 1000"));
    }
}
