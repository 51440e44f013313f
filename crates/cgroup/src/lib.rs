//! Control groups, versions 1 and 2: what limits, counts, freezes and kills the processes of a container.
//!
//! [`Hierarchies::detect`] finds what is mounted, once; [`plan`] turns limits into the files to write, without effects;
//! [`Cgroup`] makes the directories, applies the plan, changes it later, and takes everything away again. [`stats`] reads
//! what was used. With [`systemd`] it is systemd that makes the directory, as a transient scope, and we take it over.
//!
//! ```text
//! v1      /sys/fs/cgroup/<controller>/<path>/         one directory in each hierarchy that has a controller of ours
//! v2      /sys/fs/cgroup/<path>/                      one directory
//! hybrid  as v1; in /sys/fs/cgroup/unified/<path>/ only what asks for a controller that is there alone (hugetlb, mostly)
//! ```
//!
//! With version 1 below systemd there are also directories without a controller of ours, in the hierarchies in which systemd
//! follows processes: /sys/fs/cgroup/systemd/<path>/, and in a hybrid /sys/fs/cgroup/unified/<path>/.
//!
//! A process comes in by itself ([`Entrance`]): on v1 by writing `0` to every `tasks` file, which costs 25 us each, where
//! moving it from outside through `cgroup.procs` waits milliseconds for an RCU grace period; on v2 it is cloned into the
//! directory. A controller that is not mounted is an error only if a limit asks for it.
//!
//! Whoever made a [`Cgroup`] removes it with [`Cgroup::destroy`]; dropping it removes nothing, because containers outlive
//! the value. Deliberately not here: cgroups of the host, and any watching thread.

mod apply;
mod counters;
mod delegation;
mod devices;
mod directories;
mod error;
mod events;
mod facts;
mod field;
mod freeze;
mod group;
mod plan;
mod rules;
mod stats;
pub mod systemd;
mod tree;
mod undo;

pub use counters::{OomEvents, Usage, end_events, full_of_tasks, had_oom_kill, has_ended};
pub use delegation::delegate;
pub use error::CgroupError;
pub use facts::{Controller, Hierarchies, Hierarchy, Version};
pub use field::Field;
pub use group::{Cgroup, Entrance, below, change, is_frozen, signal_all};
pub use plan::{Absent, PlanError, Write, cpu_weight, plan};
pub use stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, CpusetStats, HugetlbStats, MemoryEntry, MemoryStats, PidsStats,
    Pressure, PressureShare, Stats, Throttling, stats,
};
pub use undo::Before;
