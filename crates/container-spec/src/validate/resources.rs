//! Limits.

use engine_api::host_config::HostConfig;

use super::{InvalidRequest, Warning};
use crate::facts::{CgroupLayout, HostFacts};

/// Docker's smallest memory limit: room for the runtime's own start.
const MEMORY_MIN_BYTES: i64 = 6 << 20;

/// The highest number in a cpuset that dockerd reads (moby pkg/parsers).
const CPUSET_MAX: u32 = 8192;

pub(crate) fn validate(host: &HostConfig, facts: &HostFacts) -> Result<Vec<Warning>, InvalidRequest> {
    let mut warnings = memory(host, facts)?;
    processors(host, facts)?;
    warnings.extend((host.cpu_percent > 0).then_some(Warning::CpuPercent));
    cpuset("cpus", "CPUs", &host.cpuset_cpus, &facts.cpuset_cpus)?;
    cpuset("mems", "memory nodes", &host.cpuset_mems, &facts.cpuset_mems)?;
    warnings.extend(crate::block_io::validate(host, facts)?);
    if host.shm_size < 0 {
        return Err(InvalidRequest::ShmSize);
    }
    match host.oom_score_adj {
        -1000..=1000 => Ok(warnings),
        value => Err(InvalidRequest::OomScore { value }),
    }
}

fn memory(host: &HostConfig, facts: &HostFacts) -> Result<Vec<Warning>, InvalidRequest> {
    let (memory, swap, reservation) = (host.memory, host.memory_swap, host.memory_reservation);
    if memory != 0 && memory < MEMORY_MIN_BYTES {
        return Err(InvalidRequest::MemoryTooSmall);
    }
    if memory > 0 && swap > 0 && swap < memory && facts.swap_limit {
        return Err(InvalidRequest::SwapBelowMemory);
    }
    if memory == 0 && swap > 0 {
        return Err(InvalidRequest::SwapWithoutMemory);
    }
    // -1 is the command line's way to say nothing.
    let swappiness = host.memory_swappiness.filter(|value| *value != -1);
    if let Some(value) = swappiness.filter(|value| !(0..=100).contains(value)) {
        return Err(InvalidRequest::Swappiness { value });
    }
    if reservation > 0 && reservation < MEMORY_MIN_BYTES {
        return Err(InvalidRequest::ReservationTooSmall);
    }
    if memory > 0 && reservation > memory {
        return Err(InvalidRequest::MemoryBelowReservation);
    }
    let (v2, oom_off) = (facts.cgroup == CgroupLayout::V2, host.oom_kill_disable == Some(true));
    let said = [
        (memory > 0 && swap != -1 && !facts.swap_limit, Warning::NoSwapLimit),
        (v2 && swappiness.is_some(), Warning::NoSwappiness),
        (v2 && oom_off, Warning::NoOomKillDisable),
        (!v2 && oom_off && memory == 0, Warning::OomKillDisabledWithoutLimit),
    ];
    Ok(said.into_iter().filter(|(applies, _)| *applies).map(|(_, warning)| warning).collect())
}

fn processors(host: &HostConfig, facts: &HostFacts) -> Result<(), InvalidRequest> {
    if host.cpu_shares < 0 {
        return Err(InvalidRequest::CpuShares { shares: host.cpu_shares });
    }
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return Err(InvalidRequest::CpusConflict { other: "Period" });
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return Err(InvalidRequest::CpusConflict { other: "Quota" });
    }
    if host.nano_cpus < 0 || host.nano_cpus > i64::from(facts.cpus) * 1_000_000_000 {
        return Err(InvalidRequest::CpusRange { cpus: facts.cpus });
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return Err(InvalidRequest::CpuPeriod);
    }
    match host.cpu_quota {
        1..1000 => Err(InvalidRequest::CpuQuota),
        _ if host.cpu_realtime_period > 0 && host.cpu_realtime_runtime > host.cpu_realtime_period => {
            Err(InvalidRequest::RealtimeRuntime)
        }
        _ => Ok(()),
    }
}

fn cpuset(list: &'static str, what: &'static str, value: &str, available: &str) -> Result<(), InvalidRequest> {
    if value.is_empty() {
        return Ok(());
    }
    let Some(wanted) = parse_cpuset(value) else {
        return Err(InvalidRequest::Cpuset { value: value.to_owned(), list });
    };
    if let Some((_, last)) = wanted.iter().find(|(_, last)| *last > CPUSET_MAX) {
        return Err(InvalidRequest::CpusetRange { value: last.to_string(), list });
    }
    let have = parse_cpuset(available).unwrap_or_default();
    match wanted.iter().all(|(from, to)| have.iter().any(|(first, last)| first <= from && to <= last)) {
        true => Ok(()),
        false => {
            Err(InvalidRequest::CpusetUnavailable { what, value: value.to_owned(), available: available.to_owned() })
        }
    }
}

/// Reads `0-2,4` as ranges, both ends included.
fn parse_cpuset(list: &str) -> Option<Vec<(u32, u32)>> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        (from <= to).then_some((from, to))
    };
    list.split(',').map(range).collect()
}
