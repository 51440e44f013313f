//! Processor time, and which processors.

use oci::runtime::CpuLimits;

use super::{PlanError, Write, asked};
use crate::facts::{Controller, Version};

const SHARES: &str = "linux.resources.cpu.shares";
const QUOTA: &str = "linux.resources.cpu.quota";
const PERIOD: &str = "linux.resources.cpu.period";
const BURST: &str = "linux.resources.cpu.burst";
const IDLE: &str = "linux.resources.cpu.idle";
const RT_RUNTIME: &str = "linux.resources.cpu.realtimeRuntime";
const RT_PERIOD: &str = "linux.resources.cpu.realtimePeriod";

pub(super) fn plan(cpu: &CpuLimits, version: Version) -> Result<Vec<Write>, PlanError> {
    check_bandwidth(cpu)?;
    match version {
        Version::V1 => version_1(cpu),
        Version::V2 => version_2(cpu),
    }
}

/// What every kernel refuses (kernel/sched/core.c, `tg_set_cfs_bandwidth`), and only says that it is invalid.
fn check_bandwidth(cpu: &CpuLimits) -> Result<(), PlanError> {
    if let Some(value) = asked(cpu.period).filter(|period| !(1_000..=1_000_000).contains(period)) {
        let range = "between 1000 and 1000000 microseconds";
        return Err(PlanError::OutOfRange { field: PERIOD.into(), value: value.into(), range });
    }
    let quota = asked(cpu.quota).filter(|quota| *quota > 0);
    if let Some(value) = quota.filter(|quota| *quota < 1_000) {
        let range = "-1, for no limit, or 1000 microseconds and more";
        return Err(PlanError::OutOfRange { field: QUOTA.into(), value: value.into(), range });
    }
    match (cpu.burst, quota) {
        (Some(burst), Some(quota)) if burst > quota.unsigned_abs() => Err(PlanError::BurstAboveQuota { burst, quota }),
        _ => Ok(()),
    }
}

fn version_1(cpu: &CpuLimits) -> Result<Vec<Write>, PlanError> {
    let write = |field, file: &'static str, value: String| Write::new(Controller::Cpu, field, file, value);
    let mut writes = Vec::new();
    if let Some(shares) = asked(cpu.shares) {
        // The kernel takes others and keeps the nearest of these, which is not what was asked for.
        if !(2..=262_144).contains(&shares) {
            let range = "between 2 and 262144";
            return Err(PlanError::OutOfRange { field: SHARES.into(), value: shares.into(), range });
        }
        // Refused while the cgroup is idle, which a later write may end.
        writes.push(write(SHARES, "cpu.shares", shares.to_string()).again());
    }
    // Each of the three is checked against the others as they are at that moment.
    writes.extend(asked(cpu.period).map(|period| write(PERIOD, "cpu.cfs_period_us", period.to_string()).again()));
    writes.extend(cpu.burst.map(|burst| write(BURST, "cpu.cfs_burst_us", burst.to_string()).again()));
    writes.extend(asked(cpu.quota).map(|quota| write(QUOTA, "cpu.cfs_quota_us", quota.to_string()).again()));
    writes.extend(cpu.idle.map(|idle| write(IDLE, "cpu.idle", idle.to_string())));
    writes.extend(asked(cpu.realtime_period).map(|us| write(RT_PERIOD, "cpu.rt_period_us", us.to_string()).again()));
    writes.extend(asked(cpu.realtime_runtime).map(|us| write(RT_RUNTIME, "cpu.rt_runtime_us", us.to_string())));
    Ok(writes)
}

fn version_2(cpu: &CpuLimits) -> Result<Vec<Write>, PlanError> {
    for (asks, field) in
        [(asked(cpu.realtime_runtime).is_some(), RT_RUNTIME), (asked(cpu.realtime_period).is_some(), RT_PERIOD)]
    {
        if asks {
            return Err(PlanError::OnlyVersion1 { field: field.into() });
        }
    }
    let write = |field, file: &'static str, value: String| Write::new(Controller::Cpu, field, file, value);
    let mut writes = Vec::new();
    // As with version 1.
    writes.extend(asked(cpu.shares).map(|shares| write(SHARES, "cpu.weight", cpu_weight(shares).to_string()).again()));
    writes.extend(cpu.idle.map(|idle| write(IDLE, "cpu.idle", idle.to_string())));
    writes.extend(cpu.burst.map(|burst| write(BURST, "cpu.max.burst", burst.to_string()).again()));
    let (quota, period) = (asked(cpu.quota), asked(cpu.period));
    if quota.is_some() || period.is_some() {
        let field = if quota.is_some() { QUOTA } else { PERIOD };
        let quota = quota.filter(|quota| *quota > 0).map_or("max".into(), |quota| quota.to_string());
        writes.push(write(field, "cpu.max", format!("{quota} {}", period.unwrap_or(CPU_PERIOD_DEFAULT_US))).again());
    }
    Ok(writes)
}

/// The kernel's own default, needed because `cpu.max` takes both numbers at once.
const CPU_PERIOD_DEFAULT_US: u64 = 100_000;

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

pub(super) fn cpuset(cpu: &CpuLimits) -> Result<Vec<Write>, PlanError> {
    let files = [
        ("linux.resources.cpu.cpus", "cpuset.cpus", &cpu.cpus),
        ("linux.resources.cpu.mems", "cpuset.mems", &cpu.mems),
    ];
    let mut writes = Vec::new();
    for (field, file, value) in files.into_iter().filter(|(_, _, value)| !value.is_empty()) {
        if value.trim_matches([' ', '\t', '\n', ',']).is_empty() {
            // The kernel takes it for none, and lets no process in then.
            return Err(PlanError::Word { field: field.into(), value: value.clone(), wanted: "a list, as 0-3,7" });
        }
        writes.push(Write::new(Controller::Cpuset, field, file, value));
    }
    Ok(writes)
}
