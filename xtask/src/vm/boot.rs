//! How the machine comes up: who is its first process, and which version of cgroups that one mounts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A way to come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Boot {
    /// A shell, and version 2 of cgroups alone.
    Bare,
    /// systemd, and version 2 of cgroups alone.
    Systemd,
    /// systemd with its hybrid: controllers on version 1, and version 2 for itself. With SELinux instead of AppArmor, without
    /// a policy: labels are taken then, and only the kernel's own are known.
    Hybrid,
    /// A shell, and version 1 of cgroups alone: not even an empty hierarchy of version 2.
    Legacy,
}

/// The hierarchies of version 1 that a shell mounts, each with its controllers.
pub(super) const HIERARCHIES: [&str; 11] = [
    "cpuset",
    "cpu,cpuacct",
    "blkio",
    "memory",
    "devices",
    "freezer",
    "net_cls,net_prio",
    "perf_event",
    "hugetlb",
    "pids",
    "rdma",
];

/// Hierarchies that a hybrid has, among others.
const OF_A_HYBRID: [&str; 4] = [
    "cgroup2 /sys/fs/cgroup/unified",
    "cgroup /sys/fs/cgroup/systemd",
    "cgroup /sys/fs/cgroup/memory",
    "cgroup /sys/fs/cgroup/pids",
];

impl Boot {
    pub(super) const ALL: [Boot; 4] = [Boot::Bare, Boot::Systemd, Boot::Hybrid, Boot::Legacy];

    /// The one of this name.
    pub(super) fn parse(name: &str) -> Option<Boot> {
        Boot::ALL.into_iter().find(|boot| boot.to_string() == name)
    }

    /// Whether systemd is the first process.
    pub(super) fn has_systemd(self) -> bool {
        matches!(self, Boot::Systemd | Boot::Hybrid)
    }

    /// What the kernel, and systemd, are told of it.
    pub(super) fn options(self) -> &'static str {
        match self {
            Boot::Bare => "cgroup_no_v1=all",
            Boot::Legacy => "",
            Boot::Systemd => "systemd.unified_cgroup_hierarchy=1 systemd.unit=longshore-tests.service",
            Boot::Hybrid => {
                "systemd.unified_cgroup_hierarchy=0 systemd.unit=longshore-tests.service security=selinux selinux=1 enforcing=0"
            }
        }
    }

    /// Whether these are the mounts of cgroups that it should have.
    pub(super) fn expects(self, cgroups: &[String]) -> bool {
        match self {
            Boot::Bare | Boot::Systemd => cgroups == ["cgroup2 /sys/fs/cgroup"],
            Boot::Hybrid => OF_A_HYBRID.iter().all(|wanted| cgroups.iter().any(|mount| mount == wanted)),
            Boot::Legacy => cgroups == HIERARCHIES.map(|controllers| format!("cgroup /sys/fs/cgroup/{controllers}")),
        }
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Boot::Bare => "bare",
            Boot::Systemd => "systemd",
            Boot::Hybrid => "hybrid",
            Boot::Legacy => "legacy",
        })
    }
}
