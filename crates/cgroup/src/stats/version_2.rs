//! Version 2: one directory, whose files are told in the words of version 1.

use std::path::Path;

use super::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, HugetlbStats, MemoryEntry, MemoryStats, PidsStats, Pressure,
    PressureShare, Stats, Throttling, huge_page_sizes, number, numbers, place, text, version_1,
};
use crate::error::CgroupError;
use crate::facts::Controller;
use crate::group::Cgroup;

pub(super) fn read(group: &Cgroup) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    let Some((_, directory)) = group.directories.first() else { return Ok(stats) };
    // There with or without the controller.
    stats.cpu = cpu(directory)?;
    stats.memory = memory(directory)?;
    stats.blkio = blkio(&text(directory, "io.stat")?);
    stats.blkio.psi = pressure(&text(directory, "io.pressure")?);
    stats.pids = match place(group, Controller::Pids) {
        Some(directory) if directory.join("pids.current").exists() => version_1::pids(directory)?,
        _ => PidsStats { current: group.procs()?.len() as u64, limit: 0 },
    };
    if directory.join("hugetlb.2MB.current").exists() || place(group, Controller::Hugetlb).is_some() {
        for size in huge_page_sizes() {
            stats.hugetlb.insert(size.clone(), hugetlb(directory, &size)?);
        }
    }
    Ok(stats)
}

fn cpu(directory: &Path) -> Result<CpuStats, CgroupError> {
    let counted = numbers(&text(directory, "cpu.stat")?);
    let count = |name| counted.get(name).copied().unwrap_or(0);
    Ok(CpuStats {
        usage: CpuUsage {
            total: 1000 * count("usage_usec"),
            kernel: 1000 * count("system_usec"),
            user: 1000 * count("user_usec"),
            ..CpuUsage::default()
        },
        throttling: Throttling {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: 1000 * count("throttled_usec"),
        },
        psi: pressure(&text(directory, "cpu.pressure")?),
    })
}

fn memory(directory: &Path) -> Result<MemoryStats, CgroupError> {
    let raw = numbers(&text(directory, "memory.stat")?);
    let entry = |name: &str| -> Result<MemoryEntry, CgroupError> {
        let one = |what: &str| number(directory, &format!("{name}.{what}"));
        Ok(MemoryEntry { limit: one("max")?, usage: one("current")?, max: one("peak")?, failcnt: 0 })
    };
    let (usage, alone) = (entry("memory")?, entry("memory.swap")?);
    let limit = if alone.limit == u64::MAX { u64::MAX } else { alone.limit.saturating_add(usage.limit) };
    Ok(MemoryStats {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        // The peaks of two numbers have no sum.
        swap: MemoryEntry { limit, usage: alone.usage + usage.usage, max: 0, failcnt: 0 },
        raw,
        psi: pressure(&text(directory, "memory.pressure")?),
        ..MemoryStats::default()
    })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
pub(super) fn blkio(text: &str) -> BlkioStats {
    let mut stats = BlkioStats::default();
    for line in text.lines() {
        let Some((device, counts)) = line.split_once(' ') else { continue };
        for (name, value) in counts.split(' ').filter_map(|count| count.split_once('=')) {
            let (op, list) = match name {
                "rbytes" => ("Read", &mut stats.io_service_bytes_recursive),
                "wbytes" => ("Write", &mut stats.io_service_bytes_recursive),
                "rios" => ("Read", &mut stats.io_serviced_recursive),
                "wios" => ("Write", &mut stats.io_serviced_recursive),
                _ => continue,
            };
            list.extend(version_1::blkio_entry(&format!("{device} {op} {value}")));
        }
    }
    let by_device = |entry: &BlkioEntry| (entry.major, entry.minor);
    stats.io_service_bytes_recursive.sort_by_key(by_device);
    stats.io_serviced_recursive.sort_by_key(by_device);
    stats
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same with `full`; nothing where the kernel does not count it.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let share = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
        let value = |name: &str| {
            let fields = line.into_iter().flat_map(|line| line.split(' ')).filter_map(|field| field.split_once('='));
            fields.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let part = |name| value(name).parse().unwrap_or(0.0);
        PressureShare {
            avg10: part("avg10"),
            avg60: part("avg60"),
            avg300: part("avg300"),
            total: value("total").parse().unwrap_or(0),
        }
    };
    (!text.is_empty()).then(|| Pressure { some: share("some"), full: share("full") })
}

pub(super) fn hugetlb(directory: &Path, size: &str) -> Result<HugetlbStats, CgroupError> {
    let reserved = directory.join(format!("hugetlb.{size}.rsvd.current")).exists();
    let usage = if reserved { format!("hugetlb.{size}.rsvd.current") } else { format!("hugetlb.{size}.current") };
    let events = numbers(&text(directory, &format!("hugetlb.{size}.events"))?);
    Ok(HugetlbStats { usage: number(directory, &usage)?, max: 0, failcnt: events.get("max").copied().unwrap_or(0) })
}
