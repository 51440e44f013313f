//! How a container's processes are scheduled, and what of the kernel they see otherwise: clocks, machine, memory nodes,
//! network devices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A word of the specification, which the kernel knows as a number.
macro_rules! words {
    ($(#[$doc:meta])+ $name:ident { $($(#[$variant_doc:meta])+ $variant:ident = $word:literal $number:literal,)+ }) => {
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$variant,)+];

            /// As the specification writes it.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            /// The kernel's number, or bit.
            pub fn number(self) -> u32 {
                match self { $($name::$variant => $number,)+ }
            }
        }
    };
}

words! {
    /// A scheduling policy (sched(7)).
    SchedulerPolicy {
        /// The usual one.
        Other = "SCHED_OTHER" 0,
        /// Real time, first in first out.
        Fifo = "SCHED_FIFO" 1,
        /// Real time, by turns.
        RoundRobin = "SCHED_RR" 2,
        /// For work that computes.
        Batch = "SCHED_BATCH" 3,
        /// Reserved; no kernel has it.
        Iso = "SCHED_ISO" 4,
        /// For what nobody waits for.
        Idle = "SCHED_IDLE" 5,
        /// Earliest deadline first.
        Deadline = "SCHED_DEADLINE" 6,
    }
}

words! {
    /// A flag of sched_setattr(2).
    SchedulerFlag {
        /// Children begin with the usual policy.
        ResetOnFork = "SCHED_FLAG_RESET_ON_FORK" 0x01,
        /// What other deadline tasks leave may be used.
        Reclaim = "SCHED_FLAG_RECLAIM" 0x02,
        /// SIGXCPU at an overrun.
        DeadlineOverrun = "SCHED_FLAG_DL_OVERRUN" 0x04,
        /// The policy stays.
        KeepPolicy = "SCHED_FLAG_KEEP_POLICY" 0x08,
        /// Priority and nice value stay.
        KeepParameters = "SCHED_FLAG_KEEP_PARAMS" 0x10,
        /// A least utilization is given.
        UtilClampMin = "SCHED_FLAG_UTIL_CLAMP_MIN" 0x20,
        /// A greatest utilization is given.
        UtilClampMax = "SCHED_FLAG_UTIL_CLAMP_MAX" 0x40,
    }
}

words! {
    /// A class of I/O priorities (ioprio_set(2)).
    IoPriorityClass {
        /// Before all others.
        RealTime = "IOPRIO_CLASS_RT" 1,
        /// The usual one.
        BestEffort = "IOPRIO_CLASS_BE" 2,
        /// When the disk is idle.
        Idle = "IOPRIO_CLASS_IDLE" 3,
    }
}

words! {
    /// How memory is spread over nodes (set_mempolicy(2)).
    MemoryPolicyMode {
        /// The system's.
        Default = "MPOL_DEFAULT" 0,
        /// From one node if it has some.
        Preferred = "MPOL_PREFERRED" 1,
        /// From these nodes alone.
        Bind = "MPOL_BIND" 2,
        /// From each node in turn.
        Interleave = "MPOL_INTERLEAVE" 3,
        /// From the node of the processor.
        Local = "MPOL_LOCAL" 4,
        /// From these nodes if they have some.
        PreferredMany = "MPOL_PREFERRED_MANY" 5,
        /// From each node in turn, as much as its weight says.
        WeightedInterleave = "MPOL_WEIGHTED_INTERLEAVE" 6,
    }
}

words! {
    /// A flag beside the mode (set_mempolicy(2)).
    MemoryPolicyFlag {
        /// Pages move to where they are used.
        NumaBalancing = "MPOL_F_NUMA_BALANCING" 0x2000,
        /// Nodes are counted among the allowed ones.
        RelativeNodes = "MPOL_F_RELATIVE_NODES" 0x4000,
        /// Nodes stay what they are when the allowed ones change.
        StaticNodes = "MPOL_F_STATIC_NODES" 0x8000,
    }
}

words! {
    /// An execution domain (personality(2)).
    PersonalityDomain {
        /// The machine as it is.
        Linux = "LINUX" 0,
        /// A machine of 32 bits.
        Linux32 = "LINUX32" 8,
    }
}

/// Policy and priority of a process (runtime-spec config.md, "Linux Process").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// Which policy.
    pub policy: SchedulerPolicy,
    /// -20 to 19; lower is more urgent.
    #[serde(default)]
    pub nice: i32,
    /// 1 to 99 for the real-time policies; higher is more urgent.
    #[serde(default)]
    pub priority: i32,
    /// Flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<SchedulerFlag>,
    /// Nanoseconds of work in a period, for deadlines.
    #[serde(default)]
    pub runtime: u64,
    /// Nanoseconds until the work is done, for deadlines.
    #[serde(default)]
    pub deadline: u64,
    /// Nanoseconds of a period, for deadlines.
    #[serde(default)]
    pub period: u64,
}

/// I/O priority of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    /// Which class.
    pub class: IoPriorityClass,
    /// 0 to 7; lower is more urgent.
    #[serde(default)]
    pub priority: i32,
}

/// Processors of a process that is added to a container: lists such as `0-3,7`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    /// Until it is in the container's cgroup; empty for the caller's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub initial: String,
    /// Afterwards; empty for what the kernel makes of it.
    #[serde(rename = "final", skip_serializing_if = "String::is_empty")]
    pub last: String,
}

/// An execution domain (runtime-spec config-linux.md, "Personality").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personality {
    /// Which.
    pub domain: PersonalityDomain,
    /// The specification knows none yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// Where memory comes from (runtime-spec config-linux.md, "Memory policy").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// How nodes are chosen.
    pub mode: MemoryPolicyMode,
    /// Which nodes: a list such as `0-3,7`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub nodes: String,
    /// Flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<MemoryPolicyFlag>,
}

/// What is added to a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    /// Seconds; may be negative.
    pub secs: i64,
    /// And nanoseconds, less than a second.
    pub nanosecs: u32,
}

/// What is added to the clocks of a new time namespace, by their names: `monotonic`, `boottime`.
pub type TimeOffsets = BTreeMap<String, TimeOffset>;

/// A network device that moves into the container (runtime-spec v1.3 config-linux.md, "Network Devices").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    /// Its name there; empty for the same. `%d` becomes a free number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}
