//! Everything that the controllers count, in the form in which runc's `events` prints it (its `types/events.go`): both
//! versions in the words of version 1, numbers that are 0 left out where runc leaves them out.
//!
//! [`Cgroup::usage`] is the cheap look for an engine; this one reads some thirty files.

mod version_1;
mod version_2;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::error::CgroupError;
use crate::facts::{Controller, Version};
use crate::group::Cgroup;

/// What was used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Which processors.
    pub cpuset: CpusetStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block devices.
    pub blkio: BlkioStats,
    /// Huge pages, by their size.
    pub hugetlb: BTreeMap<String, HugetlbStats>,
}

/// Processor time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuStats {
    /// How much.
    pub usage: CpuUsage,
    /// How often it was held back.
    pub throttling: Throttling,
    /// How much was waited for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Processor time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// Of all.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// On each processor (v1 only).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// On each processor in the kernel (v1 only).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// On each processor outside of it (v1 only).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// Outside of it.
    pub user: u64,
}

/// How often processes were held back by their quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods in which they ran.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Those of them in which they were held back.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// For so many nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// How much was waited for something (the kernel's psi.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// By some of the tasks.
    pub some: PressureShare,
    /// By all of them at once.
    pub full: PressureShare,
}

/// Parts of the time in percent, and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PressureShare {
    /// Of the last 10 seconds.
    pub avg10: f64,
    /// Of the last minute.
    pub avg60: f64,
    /// Of the last five minutes.
    pub avg300: f64,
    /// Microseconds.
    pub total: u64,
}

/// Which processors and memory nodes; the switches are version 1's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpusetStats {
    /// Processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// cpuset.cpu_exclusive.
    pub cpu_exclusive: u64,
    /// Memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// cpuset.mem_hardwall.
    pub mem_hardwall: u64,
    /// cpuset.mem_exclusive.
    pub mem_exclusive: u64,
    /// cpuset.memory_migrate.
    pub memory_migrate: u64,
    /// cpuset.memory_spread_page.
    pub memory_spread_page: u64,
    /// cpuset.memory_spread_slab.
    pub memory_spread_slab: u64,
    /// cpuset.memory_pressure.
    pub memory_pressure: u64,
    /// cpuset.sched_load_balance.
    pub sched_load_balance: u64,
    /// cpuset.sched_relax_domain_level.
    pub sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryStats {
    /// Pages of files.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap together.
    pub swap: MemoryEntry,
    /// The kernel's (v1 only).
    pub kernel: MemoryEntry,
    /// Of the kernel's, buffers of TCP (v1 only).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// memory.stat.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// How much was waited for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One kind of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    /// `u64::MAX` is none with version 2.
    pub limit: u64,
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Ever.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met (v1 only).
    pub failcnt: u64,
}

/// Tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PidsStats {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// 0 is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlkioStats {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Operations that wait.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Nanoseconds at work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Nanoseconds of waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Operations that became one with others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Milliseconds of the device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// How much was waited for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One number of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    /// Major number.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// Minor number.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read`, `Write` and so on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HugetlbStats {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Ever (v1 only).
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Reads all counters. What a controller that is not there would count is 0.
pub fn stats(group: &Cgroup) -> Result<Stats, CgroupError> {
    match group.version {
        Version::V1 => version_1::read(group),
        Version::V2 => version_2::read(group),
    }
}

/// A controller's directory, if the cgroup is in it.
fn place(group: &Cgroup, controller: Controller) -> Option<&Path> {
    group.directory(controller).ok()
}

/// The text of a file; empty if there is none.
fn text(directory: &Path, file: &str) -> Result<String, CgroupError> {
    let path = directory.join(file);
    match fs::read_to_string(&path) {
        // EOPNOTSUPP: counters of pressure that are switched off at boot.
        Err(err) if err.kind() == io::ErrorKind::NotFound || err.kind() == io::ErrorKind::Unsupported => {
            Ok(String::new())
        }
        other => other.map_err(CgroupError::io("read", &path)),
    }
}

/// A file that is one number, 0 if there is none; `max` is the greatest.
fn number(directory: &Path, file: &str) -> Result<u64, CgroupError> {
    let text = text(directory, file)?;
    Ok(if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or(0) })
}

/// A file of `name number` lines.
fn numbers(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| line.split_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    text.lines().filter_map(pair).collect()
}

/// `0-2,5`.
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// The sizes of huge pages that this machine has, as files are named after them.
fn huge_page_sizes() -> Vec<String> {
    // Without huge pages there is no directory.
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| page_size(entry.file_name().to_str()?);
    entries.filter_map(size).collect()
}

/// `2MB` for `hugepages-2048kB` (mm/hugetlb_cgroup.c, `mem_fmt`).
fn page_size(directory: &str) -> Option<String> {
    let kilobytes: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        1_048_576.. => format!("{}GB", kilobytes >> 20),
        1024.. => format!("{}MB", kilobytes >> 10),
        _ => format!("{kilobytes}KB"),
    })
}

#[cfg(test)]
mod tests;
