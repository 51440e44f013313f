//! `GET /containers/{id}/stats`: what a container uses.
//!
//! Every client's look is its own: the kernel counts, and reading thirty small files costs half a millisecond.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cgroup::Version;
use engine_api::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats, ThrottlingData,
};
use errdefs::ErrorKind;
use stdx::time::{Rfc3339, ZERO};

use crate::Engine;
use crate::container::Container;
use crate::registry::LookupError;

/// Between two looks of a stream: dockerd's.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between the two looks of one answer, of which a client computes shares. The machine's time is counted in hundredths of a
/// second: half a second keeps the error below two percent. dockerd takes a second or two.
const PAIR_INTERVAL: Duration = Duration::from_millis(500);

/// What the machine's times in /proc/stat are counted in (USER_HZ).
const NANOS_PER_TICK: u64 = 10_000_000;

/// Why [`watch`] failed.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Its counters cannot be read.
    #[error("read the container's counters")]
    Read(#[source] cgroup::CgroupError),
}

impl StatsError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StatsError::Lookup(err) => err.kind(),
            StatsError::Read(_) => ErrorKind::Internal,
        }
    }
}

/// A client that watches a container.
pub struct Watch {
    engine: Engine,
    container: Arc<Container>,
    last: Option<Stats>,
}

/// Begins to watch a container.
pub fn watch(engine: &Engine, name: &str) -> Result<Watch, StatsError> {
    let container = engine.containers.find(name)?;
    Ok(Watch { engine: engine.clone(), container, last: None })
}

impl Watch {
    /// One look, which knows of none before it.
    pub async fn once(self) -> Result<Stats, StatsError> {
        let stats = self.look().await?;
        Ok(Stats { name: String::new(), id: String::new(), ..stats })
    }

    /// Two looks in one answer, at once if the container does not run.
    pub async fn pair(mut self) -> Result<Stats, StatsError> {
        let first = self.next().await?;
        if first.read == ZERO {
            return Ok(first);
        }
        tokio::time::sleep(PAIR_INTERVAL).await;
        self.next().await
    }

    /// The next look of a stream; `None` once the container was removed.
    pub async fn later(&mut self) -> Option<Result<Stats, StatsError>> {
        if self.last.is_some() {
            tokio::time::sleep(INTERVAL).await;
        }
        if self.container.is_removed() { None } else { Some(self.next().await) }
    }

    async fn next(&mut self) -> Result<Stats, StatsError> {
        let mut stats = self.look().await?;
        // What is known of another run says nothing about this one.
        if let Some(last) = self.last.take().filter(|last| last.read != ZERO && stats.read != ZERO) {
            stats.preread = last.read;
            stats.precpu_stats = last.cpu_stats;
        }
        self.last = Some(stats.clone());
        Ok(stats)
    }

    async fn look(&self) -> Result<Stats, StatsError> {
        let (engine, container) = (self.engine.clone(), self.container.clone());
        bridge::blocking(move || look(&engine, &container)).await
    }
}

/// Reads everything. Blocks shortly.
fn look(engine: &Engine, container: &Container) -> Result<Stats, StatsError> {
    let nothing = Stats {
        name: format!("/{}", container.name()),
        id: container.id().to_string(),
        read: ZERO.to_owned(),
        preread: ZERO.to_owned(),
        ..Stats::default()
    };
    let pid = container.state().pid();
    if pid == 0 {
        return Ok(nothing);
    }
    let counted = engine.cgroup_of(container).and_then(|group| Ok((group.version, cgroup::stats(&group)?)));
    let (version, counted) = match counted {
        Ok(counted) => counted,
        // It has ended meanwhile.
        Err(_) if container.state().pid() != pid => return Ok(nothing),
        Err(err) => return Err(StatsError::Read(err)),
    };
    let machine = machine(&std::fs::read_to_string("/proc/stat").unwrap_or_default());
    let has_network = !matches!(container.definition.host_config.network_mode.as_str(), "host" | "none");
    let networks =
        has_network.then(|| std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("net/dev")));
    Ok(Stats {
        read: Rfc3339::now().to_string(),
        pids_stats: pids(version, &counted.pids),
        blkio_stats: blkio(version, counted.blkio),
        cpu_stats: processors(counted.cpu, machine),
        memory_stats: memory(version, counted.memory, engine.facts.memory_bytes),
        networks: networks.and_then(Result::ok).map(|text| interfaces(&text)),
        ..nothing
    })
}

/// Time of all processors together, idle time included, and their number. `text` is /proc/stat's.
fn machine(text: &str) -> (u64, u32) {
    let ticks: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .into_iter()
        // user, nice, system, idle, iowait, irq, softirq: those that dockerd adds up.
        .flat_map(|fields| fields.split_whitespace().take(7))
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let is_processor = |line: &&str| line.starts_with("cpu") && line.as_bytes().get(3).is_some_and(u8::is_ascii_digit);
    let processors = text.lines().filter(is_processor).count();
    (ticks * NANOS_PER_TICK, u32::try_from(processors).unwrap_or(u32::MAX))
}

fn processors(cpu: cgroup::CpuStats, (system_cpu_usage, online_cpus): (u64, u32)) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: cpu.usage.total,
            percpu_usage: cpu.usage.percpu,
            usage_in_kernelmode: cpu.usage.kernel,
            usage_in_usermode: cpu.usage.user,
        },
        system_cpu_usage,
        online_cpus,
        throttling_data: ThrottlingData {
            periods: cpu.throttling.periods,
            throttled_periods: cpu.throttling.throttled_periods,
            throttled_time: cpu.throttling.throttled_time,
        },
    }
}

fn pids(version: Version, pids: &cgroup::PidsStats) -> PidsStats {
    let limit = match (version, pids.limit) {
        // dockerd shows no limit as the greatest number there, and leaves it out with version 1.
        (Version::V2, 0) => u64::MAX,
        (_, limit) => limit,
    };
    PidsStats { current: pids.current, limit }
}

fn memory(version: Version, memory: cgroup::MemoryStats, machine_bytes: u64) -> MemoryStats {
    let mut stats = memory.raw;
    if version == Version::V1 {
        stats.retain(|name, _| {
            let name = name.strip_prefix("total_").unwrap_or(name);
            MEMORY_STATS_V1.contains(&name)
        });
    }
    MemoryStats {
        usage: memory.usage.usage,
        max_usage: if version == Version::V1 { memory.usage.max } else { 0 },
        stats,
        failcnt: memory.usage.failcnt,
        limit: if machine_bytes > 0 { memory.usage.limit.min(machine_bytes) } else { memory.usage.limit },
    }
}

/// The fields of version 1's memory.stat that Docker shows, each also as a total.
const MEMORY_STATS_V1: [&str; 17] = [
    "active_anon",
    "active_file",
    "cache",
    "dirty",
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    "inactive_anon",
    "inactive_file",
    "mapped_file",
    "pgfault",
    "pgmajfault",
    "pgpgin",
    "pgpgout",
    "rss",
    "rss_huge",
    "unevictable",
    "writeback",
];

fn blkio(version: Version, blkio: cgroup::BlkioStats) -> BlkioStats {
    let entries = |entries: Vec<cgroup::BlkioEntry>| {
        let op = |op: String| if version == Version::V2 { op.to_lowercase() } else { op };
        let entry =
            |it: cgroup::BlkioEntry| BlkioEntry { major: it.major, minor: it.minor, op: op(it.op), value: it.value };
        entries.into_iter().map(entry).collect::<Vec<_>>()
    };
    // Version 2 counts bytes alone for dockerd: the others stay null.
    let others = |list| (version == Version::V1).then(|| entries(list));
    BlkioStats {
        io_service_bytes_recursive: Some(entries(blkio.io_service_bytes_recursive)),
        io_serviced_recursive: others(blkio.io_serviced_recursive),
        io_queue_recursive: others(blkio.io_queued_recursive),
        io_service_time_recursive: others(blkio.io_service_time_recursive),
        io_wait_time_recursive: others(blkio.io_wait_time_recursive),
        io_merged_recursive: others(blkio.io_merged_recursive),
        io_time_recursive: others(blkio.io_time_recursive),
        sectors_recursive: others(blkio.sectors_recursive),
    }
}

/// The interfaces of a network namespace but for the loopback. `text` is /proc/PID/net/dev's.
fn interfaces(text: &str) -> BTreeMap<String, NetworkStats> {
    let interface = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
            counts[..]
        else {
            return None;
        };
        let stats =
            NetworkStats { rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped };
        (name.trim() != "lo").then(|| (name.trim().to_owned(), stats))
    };
    text.lines().filter_map(interface).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_time_is_the_sum_that_dockerd_makes() {
        let text = "cpu  1 2 3 4 5 6 7 100 200 300\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 0 0 0\nintr 5\ncpufreq 1\n";
        assert_eq!(machine(text), (28 * NANOS_PER_TICK, 2));
        assert_eq!(machine(""), (0, 0));
    }

    #[test]
    fn interfaces_are_told_but_for_the_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                    lo:      84       1    0    0    0     0          0         0       84       1    0    0    0     0       0          0\n  \
                    eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let found = interfaces(text);
        let expected = NetworkStats {
            rx_bytes: 1,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 9,
            tx_packets: 10,
            tx_errors: 11,
            tx_dropped: 12,
        };
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("eth0".to_owned(), expected)]);
    }

    #[test]
    fn versions_are_told_as_dockerd_tells_them() {
        let counted = cgroup::PidsStats { current: 3, limit: 0 };
        assert_eq!((pids(Version::V1, &counted).limit, pids(Version::V2, &counted).limit), (0, u64::MAX));
        let raw = [("cache", 1), ("total_rss", 2), ("shmem", 3)].map(|(name, value)| (name.to_owned(), value)).into();
        let mut counted = cgroup::MemoryStats { raw, ..cgroup::MemoryStats::default() };
        (counted.usage.limit, counted.usage.max) = (u64::MAX, 9);
        let told = memory(Version::V1, counted.clone(), 77);
        assert_eq!(told.stats.keys().collect::<Vec<_>>(), ["cache", "total_rss"]);
        assert_eq!((told.limit, told.max_usage), (77, 9));
        assert_eq!(memory(Version::V2, counted, 77).stats.len(), 3);
        let entry = cgroup::BlkioEntry { major: 8, minor: 0, op: "Read".to_owned(), value: 1 };
        let counted = cgroup::BlkioStats { io_service_bytes_recursive: vec![entry], ..cgroup::BlkioStats::default() };
        let told = blkio(Version::V2, counted.clone());
        assert_eq!((told.io_service_bytes_recursive.unwrap()[0].op.as_str(), told.sectors_recursive), ("read", None));
        assert_eq!(blkio(Version::V1, counted).sectors_recursive, Some(vec![]));
    }
}
