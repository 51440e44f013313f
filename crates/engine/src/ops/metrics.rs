//! What Prometheus is told: `GET /metrics`, on an address of its own.

use std::fs;

use rustix::process::Resource;

use crate::Engine;
use crate::metrics::{Process, Snapshot};

/// How many ticks the kernel counts in a second: USER_HZ, the same on all architectures that we have.
const TICKS: f64 = 100.0;

/// The page.
pub async fn page(engine: &Engine) -> String {
    let info = super::system::info(engine).await;
    let version = super::system::version(engine).await;
    let count = |number: i64| usize::try_from(number).unwrap_or(0);
    let now = Snapshot {
        containers: [count(info.containers_paused), count(info.containers_running), count(info.containers_stopped)],
        cpus: engine.facts.cpus,
        memory_bytes: engine.facts.memory_bytes,
        events: engine.events.total(),
        listeners: engine.events.listeners(),
        engine: vec![
            ("architecture", info.architecture),
            ("commit", version.git_commit),
            ("daemon_id", info.id),
            ("graphdriver", info.driver),
            ("kernel", info.kernel_version),
            ("os", info.operating_system),
            ("os_type", info.os_type),
            ("os_version", info.os_version),
            ("version", info.server_version),
        ],
        process: process(),
    };
    engine.metrics.text(&now)
}

/// What the kernel says of us; what it does not say is zero, as in every client of Prometheus.
fn process() -> Process {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // Behind the name, which may hold anything: state, ..., utime (14th of all), stime, ..., starttime (22nd).
    let fields: Vec<f64> =
        stat.rsplit(") ").next().unwrap_or_default().split(' ').map(|field| field.parse().unwrap_or(0.0)).collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
    let booted = read("/proc/stat").lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
    let pages = read("/proc/self/statm").split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    Process {
        cpu_seconds: (field(14) + field(15)) / TICKS,
        open_descriptors: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        descriptors_max: rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        resident_bytes: pages * rustix::param::page_size() as u64,
        started_at_seconds: booted.unwrap_or(0.0) + field(22) / TICKS,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_knows_us() {
        let process = super::process();
        assert!(process.resident_bytes > 1 << 20 && process.open_descriptors > 2, "{process:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - process.started_at_seconds).abs() < 3600.0, "{process:?}");
    }
}
