//! Version 1: a directory for each controller.

use std::path::Path;

use super::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, CpusetStats, HugetlbStats, MemoryEntry, MemoryStats, PidsStats, Stats,
    Throttling, huge_page_sizes, list, number, numbers, place, text, version_2,
};
use crate::error::CgroupError;
use crate::facts::Controller;
use crate::group::Cgroup;

pub(super) fn read(group: &Cgroup) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    if let Some(directory) = place(group, Controller::Cpuacct) {
        stats.cpu.usage = cpu_usage(directory)?;
    }
    if let Some(directory) = place(group, Controller::Cpu) {
        throttling(directory, &mut stats.cpu)?;
    }
    if let Some(directory) = place(group, Controller::Cpuset) {
        stats.cpuset = cpuset(directory)?;
    }
    if let Some(directory) = place(group, Controller::Memory) {
        stats.memory = memory(directory)?;
    }
    if let Some(directory) = place(group, Controller::Pids) {
        stats.pids = pids(directory)?;
    }
    if let Some(directory) = place(group, Controller::Blkio) {
        stats.blkio = blkio(directory)?;
    }
    if let Some(directory) = place(group, Controller::Hugetlb) {
        // In a hybrid it may be version 2's.
        let is_ours = directory.join("tasks").exists();
        for size in huge_page_sizes() {
            let one = if is_ours { hugetlb(directory, &size)? } else { version_2::hugetlb(directory, &size)? };
            stats.hugetlb.insert(size, one);
        }
    }
    Ok(stats)
}

/// What processor time is counted in where it is not nanoseconds; the same on every machine (USER_HZ).
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

fn cpu_usage(directory: &Path) -> Result<CpuUsage, CgroupError> {
    let ticks = numbers(&text(directory, "cpuacct.stat")?);
    let spent = |name| ticks.get(name).copied().unwrap_or(0) * NANOSECONDS_PER_TICK;
    let mut usage = CpuUsage {
        total: number(directory, "cpuacct.usage")?,
        percpu: fields(&text(directory, "cpuacct.usage_percpu")?),
        kernel: spent("system"),
        user: spent("user"),
        ..CpuUsage::default()
    };
    // The head is `cpu user system`.
    for line in text(directory, "cpuacct.usage_all")?.lines().skip(1) {
        if let [_, user, system, ..] = fields(line)[..] {
            usage.percpu_user.push(user);
            usage.percpu_kernel.push(system);
        }
    }
    Ok(usage)
}

fn fields(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|field| field.parse().ok()).collect()
}

fn throttling(directory: &Path, cpu: &mut CpuStats) -> Result<(), CgroupError> {
    let counted = numbers(&text(directory, "cpu.stat")?);
    let count = |name| counted.get(name).copied().unwrap_or(0);
    cpu.throttling = Throttling {
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_time: count("throttled_time"),
    };
    Ok(())
}

fn cpuset(directory: &Path) -> Result<CpusetStats, CgroupError> {
    let one = |name: &str| number(directory, &format!("cpuset.{name}"));
    Ok(CpusetStats {
        cpus: list(&text(directory, "cpuset.cpus")?),
        cpu_exclusive: one("cpu_exclusive")?,
        mems: list(&text(directory, "cpuset.mems")?),
        mem_hardwall: one("mem_hardwall")?,
        mem_exclusive: one("mem_exclusive")?,
        memory_migrate: one("memory_migrate")?,
        memory_spread_page: one("memory_spread_page")?,
        memory_spread_slab: one("memory_spread_slab")?,
        memory_pressure: one("memory_pressure")?,
        sched_load_balance: one("sched_load_balance")?,
        sched_relax_domain_level: text(directory, "cpuset.sched_relax_domain_level")?.trim().parse().unwrap_or(0),
    })
}

fn memory(directory: &Path) -> Result<MemoryStats, CgroupError> {
    let raw = numbers(&text(directory, "memory.stat")?);
    let entry = |name: &str| -> Result<MemoryEntry, CgroupError> {
        let one = |what: &str| number(directory, &format!("{name}.{what}"));
        Ok(MemoryEntry {
            limit: one("limit_in_bytes")?,
            usage: one("usage_in_bytes")?,
            max: one("max_usage_in_bytes")?,
            failcnt: one("failcnt")?,
        })
    };
    Ok(MemoryStats {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry("memory")?,
        swap: entry("memory.memsw")?,
        kernel: entry("memory.kmem")?,
        kernel_tcp: entry("memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

pub(super) fn pids(directory: &Path) -> Result<PidsStats, CgroupError> {
    let limit = number(directory, "pids.max")?;
    Ok(PidsStats { current: number(directory, "pids.current")?, limit: if limit == u64::MAX { 0 } else { limit } })
}

/// The scheduler counts if there is one that does, else the throttle.
fn blkio(directory: &Path) -> Result<BlkioStats, CgroupError> {
    let one = |file: &str| -> Result<Vec<BlkioEntry>, CgroupError> {
        Ok(text(directory, file)?.lines().filter_map(blkio_entry).collect())
    };
    let mut stats = BlkioStats {
        sectors_recursive: one("blkio.bfq.sectors_recursive")?,
        io_service_time_recursive: one("blkio.bfq.io_service_time_recursive")?,
        io_wait_time_recursive: one("blkio.bfq.io_wait_time_recursive")?,
        io_merged_recursive: one("blkio.bfq.io_merged_recursive")?,
        io_queued_recursive: one("blkio.bfq.io_queued_recursive")?,
        io_time_recursive: one("blkio.bfq.time_recursive")?,
        io_serviced_recursive: one("blkio.bfq.io_serviced_recursive")?,
        io_service_bytes_recursive: one("blkio.bfq.io_service_bytes_recursive")?,
        psi: None,
    };
    if stats.io_serviced_recursive.is_empty() {
        stats.io_serviced_recursive = one("blkio.throttle.io_serviced_recursive")?;
        stats.io_service_bytes_recursive = one("blkio.throttle.io_service_bytes_recursive")?;
    }
    Ok(stats)
}

/// `8:0 Read 512` or `8:0 512`; the sum of all devices has none.
pub(super) fn blkio_entry(line: &str) -> Option<BlkioEntry> {
    let (device, rest) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
    Some(BlkioEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        op: op.to_owned(),
        value: value.parse().ok()?,
    })
}

fn hugetlb(directory: &Path, size: &str) -> Result<HugetlbStats, CgroupError> {
    // Reserved pages include used ones; kernels before 5.7 count only these.
    let reserved = format!("hugetlb.{size}.rsvd");
    let is_counted = directory.join(format!("{reserved}.usage_in_bytes")).exists();
    let name = if is_counted { reserved } else { format!("hugetlb.{size}") };
    Ok(HugetlbStats {
        usage: number(directory, &format!("{name}.usage_in_bytes"))?,
        max: number(directory, &format!("{name}.max_usage_in_bytes"))?,
        failcnt: number(directory, &format!("{name}.failcnt"))?,
    })
}
