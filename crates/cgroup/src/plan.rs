//! From limits to the files that keep them. Pure.

use errdefs::ErrorKind;
use oci::runtime::{CpuLimits, DeviceRule, MemoryLimits, Resources};

use crate::facts::{Controller, Version};

/// One file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The controller that the file belongs to.
    pub controller: Controller,
    /// Its name in the cgroup's directory.
    pub file: &'static str,
    /// What is written, in one write.
    pub value: String,
}

/// Why limits make no plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// Version 2 counts swap apart from memory, so the sum needs its other part.
    #[error("a limit of memory and swap together ({swap} bytes) needs a memory limit")]
    SwapWithoutMemory {
        /// What was asked for.
        swap: i64,
    },
    /// The sum is less than one of its parts.
    #[error("limit of memory and swap together ({swap} bytes) is less than the memory limit ({memory} bytes)")]
    SwapBelowMemory {
        /// Memory and swap together.
        swap: i64,
        /// Memory alone.
        memory: i64,
    },
    /// A rule of the device controller is not one.
    #[error("device rule of type {kind:?} with access {access:?}")]
    DeviceRule {
        /// Its type.
        kind: String,
        /// Its access.
        access: String,
    },
    /// Version 2 has no such thing.
    #[error("{setting} does not exist with cgroup version 2")]
    OnlyVersion1 {
        /// The setting.
        setting: &'static str,
    },
}

impl PlanError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// The files to write for these limits, in order.
///
/// Device rules make no file with version 2: there an eBPF program keeps them ([`crate::Cgroup::create`] attaches it).
pub fn plan(resources: &Resources, version: Version) -> Result<Vec<Write>, PlanError> {
    let mut writes = Vec::new();
    match version {
        Version::V1 => {
            for rule in &resources.devices {
                let write = device_v1(rule)?;
                // What is said already, and not unsaid since, costs a system call for nothing.
                let said =
                    writes.iter().rev().take_while(|last: &&Write| last.file == write.file).any(|last| *last == write);
                if !said {
                    writes.push(write);
                }
            }
            writes.extend(resources.memory.iter().flat_map(memory_v1));
            writes.extend(resources.cpu.iter().flat_map(cpu_v1));
        }
        Version::V2 => {
            // Checked alike, so that the program below is made of rules that are some.
            resources.devices.iter().try_for_each(|rule| device_v1(rule).map(drop))?;
            if let Some(memory) = &resources.memory {
                memory_v2(memory, &mut writes)?;
            }
            writes.extend(resources.cpu.iter().flat_map(cpu_v2));
        }
    }
    writes.extend(resources.cpu.iter().flat_map(cpuset));
    if let Some(pids) = &resources.pids {
        let value = if pids.limit > 0 { pids.limit.to_string() } else { "max".into() };
        writes.push(Write { controller: Controller::Pids, file: "pids.max", value });
    }
    Ok(writes)
}

/// Version 2's weight (1 to 10,000, default 100) for version 1's shares (2 to 262,144, default 1024).
///
/// runc's and crun's present formula, a curve through the three defaults; the straight line of earlier years gave a
/// container with the default shares 39 instead of 100 (opencontainers/cgroups `ConvertCPUSharesToCgroupV2Value`).
pub fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

fn memory_v1(memory: &MemoryLimits) -> Vec<Write> {
    let write = |file, value: String| Write { controller: Controller::Memory, file, value };
    // The sum may not be less than memory: on a fresh cgroup, where both are without limit, memory comes first.
    let limits = [
        ("memory.limit_in_bytes", memory.limit),
        ("memory.memsw.limit_in_bytes", memory.swap),
        ("memory.soft_limit_in_bytes", memory.reservation),
    ];
    let limits = limits.into_iter().filter_map(|(file, value)| value.filter(|v| *v != 0).map(|v| (file, v)));
    let mut writes: Vec<_> = limits.map(|(file, value)| write(file, value.to_string())).collect();
    writes.extend(memory.swappiness.map(|value| write("memory.swappiness", value.to_string())));
    if memory.disable_oom_killer == Some(true) {
        writes.push(write("memory.oom_control", "1".into()));
    }
    writes
}

fn memory_v2(memory: &MemoryLimits, writes: &mut Vec<Write>) -> Result<(), PlanError> {
    if memory.disable_oom_killer == Some(true) {
        return Err(PlanError::OnlyVersion1 { setting: "disabling the OOM killer" });
    }
    if memory.swappiness.is_some() {
        return Err(PlanError::OnlyVersion1 { setting: "memory swappiness" });
    }
    let limit = memory.limit.filter(|limit| *limit != 0);
    let swap = match (memory.swap.filter(|swap| *swap != 0), limit) {
        (None, Some(-1)) | (Some(-1), _) => Some(-1),
        (None, _) => None,
        (Some(swap), None | Some(-1)) => return Err(PlanError::SwapWithoutMemory { swap }),
        (Some(swap), Some(memory)) if swap < memory => return Err(PlanError::SwapBelowMemory { swap, memory }),
        (Some(swap), Some(memory)) => Some(swap - memory),
    };
    let files =
        [("memory.max", limit), ("memory.swap.max", swap), ("memory.low", memory.reservation.filter(|low| *low != 0))];
    for (file, value) in files {
        let value = value.map(|bytes| if bytes < 0 { "max".into() } else { bytes.to_string() });
        writes.extend(value.map(|value| Write { controller: Controller::Memory, file, value }));
    }
    Ok(())
}

fn cpu_v1(cpu: &CpuLimits) -> Vec<Write> {
    let values = [
        ("cpu.shares", cpu.shares.filter(|shares| *shares != 0).map(|shares| shares.to_string())),
        // The period first: a quota is checked against it.
        ("cpu.cfs_period_us", cpu.period.filter(|period| *period != 0).map(|period| period.to_string())),
        ("cpu.cfs_quota_us", cpu.quota.filter(|quota| *quota != 0).map(|quota| quota.to_string())),
    ];
    let write =
        |(file, value): (_, Option<String>)| value.map(|value| Write { controller: Controller::Cpu, file, value });
    values.into_iter().filter_map(write).collect()
}

fn cpu_v2(cpu: &CpuLimits) -> Vec<Write> {
    let write = |file, value| Write { controller: Controller::Cpu, file, value };
    let mut writes = Vec::new();
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        writes.push(write("cpu.weight", cpu_weight(shares).to_string()));
    }
    let (quota, period) = (cpu.quota.filter(|quota| *quota != 0), cpu.period.filter(|period| *period != 0));
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".into(), |quota| quota.to_string());
        writes.push(write("cpu.max", format!("{quota} {}", period.unwrap_or(CPU_PERIOD_DEFAULT_US))));
    }
    writes
}

/// The kernel's own default, needed because `cpu.max` takes both numbers at once.
const CPU_PERIOD_DEFAULT_US: u64 = 100_000;

fn cpuset(cpu: &CpuLimits) -> Vec<Write> {
    let write = |(file, value): (_, &String)| Write { controller: Controller::Cpuset, file, value: value.clone() };
    let files = [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)];
    files.into_iter().filter(|(_, value)| !value.is_empty()).map(write).collect()
}

fn device_v1(rule: &DeviceRule) -> Result<Write, PlanError> {
    let file = if rule.allow { "devices.allow" } else { "devices.deny" };
    let known = |access: &str| access.bytes().all(|letter| b"rwm".contains(&letter));
    let number = |number: Option<i64>| match number {
        None | Some(-1) => "*".into(),
        Some(number) => number.to_string(),
    };
    let value = match rule.kind.as_str() {
        "" | "a" => "a".into(),
        kind @ ("b" | "c") if known(&rule.access) && !rule.access.is_empty() => {
            format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), rule.access)
        }
        _ => return Err(PlanError::DeviceRule { kind: rule.kind.clone(), access: rule.access.clone() }),
    };
    Ok(Write { controller: Controller::Devices, file, value })
}

#[cfg(test)]
mod tests;
