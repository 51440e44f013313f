//! How a process is scheduled, and what machine it sees: planned without the kernel, applied in the child.

use std::io;

use oci::runtime::{CpuAffinity, IoPriority, Linux, MemoryPolicy, MemoryPolicyMode, Process, Scheduler};
use oci::runtime::{SchedulerFlag, SchedulerPolicy};
use sys::scheduling::{self, Attributes, Mask};

use crate::channel::{At, Failure};
use crate::error::{PlanError, Step};
use crate::field::FieldError;

/// What a process asks for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scheduling {
    /// With the policy's word.
    attributes: Option<(Attributes, &'static str)>,
    /// The kernel's class and level, with the class's word.
    io: Option<(u8, u8, &'static str)>,
    /// Of a process that is added, until it is in its cgroup.
    pub(crate) first_processors: Option<Mask>,
    /// And then.
    last_processors: Option<Mask>,
}

/// What a container's processes have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Of personality(2), with its word.
    personality: Option<(u32, &'static str)>,
    /// Mode and flags, nodes, and the mode's word.
    memory: Option<(u32, Mask, &'static str)>,
}

impl Scheduling {
    pub(crate) fn plan(process: &Process) -> Result<Scheduling, PlanError> {
        let affinity = process.exec_cpu_affinity.as_ref();
        let processors = |name: &str, list: fn(&CpuAffinity) -> &String| match affinity.map(list) {
            Some(text) => numbers(text).map_err(|err| err.at(format!("process.execCPUAffinity.{name}"))),
            None => Ok(None),
        };
        Ok(Scheduling {
            attributes: process.scheduler.as_ref().map(attributes).transpose()?,
            io: process.io_priority.map(io_priority).transpose()?,
            first_processors: processors("initial", |affinity| &affinity.initial)?,
            last_processors: processors("final", |affinity| &affinity.last)?,
        })
    }

    /// The processors of a process in its cgroup. A container's first process, and who asks for nothing, runs on all that the
    /// cgroup has, not on those that the caller happens to be bound to, as under runc and crun.
    pub(crate) fn settle_processors(&self, first: bool) -> Result<(), Failure> {
        match (&self.last_processors, &self.first_processors) {
            (Some(last), _) if !first => scheduling::set_affinity(last).at(Step::Affinity, &last.to_string()),
            (None, Some(_)) if !first => Ok(()),
            _ => {
                // As under runc: where it is forbidden, the caller's are good enough.
                let _ = scheduling::reset_affinity();
                Ok(())
            }
        }
    }

    /// Policy and priorities of the calling process, which has its privileges still.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        if let Some((attributes, policy)) = &self.attributes {
            scheduling::set_attributes(attributes).at(Step::Scheduler, policy)?;
        }
        if let Some((class, level, word)) = self.io {
            scheduling::set_io_priority(class, level).at(Step::IoPriority, word)?;
        }
        Ok(())
    }
}

impl Machine {
    pub(crate) fn plan(linux: &Linux) -> Result<Machine, PlanError> {
        let personality = linux.personality.as_ref();
        if let Some(flag) = personality.and_then(|personality| personality.flags.first()) {
            return Err(FieldError::Unknown { word: flag.clone(), known: &[] }.at("linux.personality.flags[0]"));
        }
        Ok(Machine {
            personality: personality.map(|personality| (personality.domain.number(), personality.domain.word())),
            memory: linux.memory_policy.as_ref().map(memory).transpose()?,
        })
    }

    /// Of the calling process.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        if let Some((domain, word)) = self.personality {
            scheduling::set_personality(domain).at(Step::Personality, word)?;
        }
        if let Some((mode, nodes, word)) = &self.memory {
            let set = scheduling::set_memory_policy(*mode, nodes);
            match nodes.is_empty() {
                true => set.at(Step::MemoryPolicy, word)?,
                false => set.asked("linux.memoryPolicy.nodes", format_args!("set {word} for the nodes {nodes}"))?,
            }
        }
        Ok(())
    }
}

/// Runs `clone` on these processors, which the child begins on, and goes back. Outer error: they cannot be had.
pub(crate) fn on_processors<T>(processors: Option<&Mask>, clone: impl FnOnce() -> T) -> io::Result<T> {
    let Some(processors) = processors else { return Ok(clone()) };
    let before = scheduling::affinity()?;
    scheduling::set_affinity(processors)?;
    let cloned = clone();
    // They were ours a moment ago; should they be gone, the kernel has chosen others for us already.
    let _ = scheduling::set_affinity(&before);
    Ok(cloned)
}

fn attributes(scheduler: &Scheduler) -> Result<(Attributes, &'static str), PlanError> {
    use SchedulerPolicy::{Batch, Deadline, Fifo, Other, RoundRobin};
    let Scheduler { policy, nice, priority, ref flags, runtime, deadline, period } = *scheduler;
    let keeps = flags.iter().any(|flag| matches!(flag, SchedulerFlag::KeepParameters | SchedulerFlag::KeepPolicy));
    if matches!(policy, Other | Batch) {
        FieldError::in_range(nice, -20, 19).map_err(|err| err.at("process.scheduler.nice"))?;
    }
    match policy {
        Fifo | RoundRobin if !keeps => FieldError::in_range(priority, 1, 99),
        Fifo | RoundRobin => FieldError::in_range(priority, 0, 99),
        _ if priority != 0 => Err(FieldError::Needs { with: "policy SCHED_FIFO or SCHED_RR" }),
        _ => Ok(()),
    }
    .map_err(|err| err.at("process.scheduler.priority"))?;
    for (name, time) in [("runtime", runtime), ("deadline", deadline), ("period", period)] {
        if policy != Deadline && time != 0 {
            let field = format!("process.scheduler.{name}");
            return Err(FieldError::Needs { with: "policy SCHED_DEADLINE" }.at(field));
        }
    }
    let flags = flags.iter().fold(0, |bits, flag| bits | u64::from(flag.number()));
    let priority = priority.unsigned_abs();
    Ok((Attributes { policy: policy.number(), flags, nice, priority, runtime, deadline, period }, policy.word()))
}

fn io_priority(wanted: IoPriority) -> Result<(u8, u8, &'static str), PlanError> {
    FieldError::in_range(wanted.priority, 0, 7).map_err(|err| err.at("process.ioPriority.priority"))?;
    Ok((wanted.class.number() as u8, wanted.priority as u8, wanted.class.word()))
}

fn memory(policy: &MemoryPolicy) -> Result<(u32, Mask, &'static str), PlanError> {
    use MemoryPolicyMode::{Default, Local, Preferred};
    let failed = |err: FieldError| err.at("linux.memoryPolicy.nodes");
    let nodes = numbers(&policy.nodes).map_err(failed)?.unwrap_or_default();
    match (policy.mode, nodes.is_empty()) {
        (Default | Local, false) => return Err(failed(FieldError::Contradicts { with: policy.mode.word() })),
        (Default | Local | Preferred, _) | (_, false) => {}
        (_, true) => return Err(failed(FieldError::Empty)),
    }
    let flags = policy.flags.iter().fold(0, |bits, flag| bits | flag.number());
    Ok((policy.mode.number() | flags, nodes, policy.mode.word()))
}

/// A list such as `0-3,7`, as runc reads it: spaces around the parts and empty parts are allowed. Nothing without a text.
fn numbers(text: &str) -> Result<Option<Mask>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut mask = Mask::default();
    let number = |part: &str| part.parse::<u32>().ok().filter(|number| *number <= Mask::MAX);
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
        let (first, last) = range.ok_or_else(|| FieldError::List { text: text.to_owned(), most: Mask::MAX })?;
        (first..=last).for_each(|number| mask.insert(number));
    }
    if mask.is_empty() { Err(FieldError::List { text: text.to_owned(), most: Mask::MAX }) } else { Ok(Some(mask)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn planned<T: std::fmt::Debug>(result: Result<T, PlanError>) -> String {
        match result {
            Ok(plan) => format!("{plan:?}"),
            Err(err) => errdefs::chain(&err),
        }
    }

    fn process(field: &str, value: Value) -> String {
        planned(Scheduling::plan(&serde_json::from_value(json!({ field: value })).unwrap()))
    }

    fn linux(field: &str, value: Value) -> String {
        planned(Machine::plan(&serde_json::from_value(json!({ field: value })).unwrap()))
    }

    #[test]
    fn policies_and_their_parameters() {
        let words = "policy: 1, flags: 65, nice: 0, priority: 9, runtime: 0, deadline: 0, period: 0";
        let flags = json!(["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_UTIL_CLAMP_MAX"]);
        let fifo = process("scheduler", json!({"policy": "SCHED_FIFO", "priority": 9, "flags": flags}));
        assert!(fifo.contains(words), "{fifo}");
        let times = json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3});
        assert!(
            process("scheduler", times).contains("policy: 6, flags: 0, nice: 0, priority: 0, runtime: 1, deadline: 2")
        );
        for (scheduler, text) in [
            (json!({"policy": "SCHED_OTHER", "nice": 20}), "nice: 20 is not between -20 and 19"),
            (json!({"policy": "SCHED_FIFO"}), "priority: 0 is not between 1 and 99"),
            (json!({"policy": "SCHED_BATCH", "priority": 1}), "priority: needs policy SCHED_FIFO or SCHED_RR"),
            (json!({"policy": "SCHED_IDLE", "period": 1}), "period: needs policy SCHED_DEADLINE"),
        ] {
            assert_eq!(process("scheduler", scheduler), format!("process.scheduler.{text}"));
        }
        let io = process("ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 7}));
        assert!(io.contains("io: Some((3, 7, "), "{io}");
        let text = process("ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}));
        assert_eq!(text, "process.ioPriority.priority: 8 is not between 0 and 7");
    }

    #[test]
    fn lists_of_processors_and_nodes() {
        let affinity = process("execCPUAffinity", json!({"initial": "0-1, 3,", "final": ""}));
        assert!(affinity.contains("first_processors: Some(Mask([11])), last_processors: None"), "{affinity}");
        for list in ["x", "1-", "3-1", "65536", "-1", ",", " ", "1-2-3"] {
            let text = process("execCPUAffinity", json!({ "final": list }));
            assert_eq!(
                text,
                format!(
                    "process.execCPUAffinity.final: {list:?} is not a list of numbers from 0 to 65535 and of ranges of them, as 0-3,5"
                )
            );
        }
    }

    #[test]
    fn machines_and_memory() {
        assert!(linux("personality", json!({"domain": "LINUX32"})).contains("Some((8, \"LINUX32\"))"));
        let flags = linux("personality", json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}));
        assert_eq!(flags, "linux.personality.flags[0]: unknown word \"ADDR_NO_RANDOMIZE\", none is known");
        let policy =
            linux("memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "1-2", "flags": ["MPOL_F_STATIC_NODES"]}));
        assert!(policy.contains("Some((32770, Mask([6]), \"MPOL_BIND\"))"), "{policy}");
        for (policy, text) in [
            (json!({"mode": "MPOL_BIND"}), "is empty"),
            (json!({"mode": "MPOL_LOCAL", "nodes": "0"}), "contradicts MPOL_LOCAL"),
            (
                json!({"mode": "MPOL_INTERLEAVE", "nodes": "a"}),
                "\"a\" is not a list of numbers from 0 to 65535 and of ranges of them, as 0-3,5",
            ),
        ] {
            assert_eq!(linux("memoryPolicy", policy), format!("linux.memoryPolicy.nodes: {text}"));
        }
        assert!(linux("memoryPolicy", json!({"mode": "MPOL_PREFERRED"})).contains("Some((1, Mask([])"));
    }
}
