//! Figures for Prometheus: counted as things happen, printed when somebody asks.
//!
//! Names, labels and buckets are dockerd's where it has them (moby internal/metrics). What it has and we do not do (builds,
//! swarm mode, Go's own figures) is left out.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a client has done to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `diff`
    Changes,
    /// `commit`
    Commit,
    /// `create`
    Create,
    /// `rm`
    Delete,
    /// `start`
    Start,
}

const ACTIONS: [(Action, &str); 5] = [
    (Action::Changes, "changes"),
    (Action::Commit, "commit"),
    (Action::Create, "create"),
    (Action::Delete, "delete"),
    (Action::Start, "start"),
];

/// Upper bounds of a histogram's buckets: the defaults of Prometheus' clients, which dockerd uses.
const BUCKETS: [(Duration, &str); 11] = [
    (Duration::from_millis(5), "0.005"),
    (Duration::from_millis(10), "0.01"),
    (Duration::from_millis(25), "0.025"),
    (Duration::from_millis(50), "0.05"),
    (Duration::from_millis(100), "0.1"),
    (Duration::from_millis(250), "0.25"),
    (Duration::from_millis(500), "0.5"),
    (Duration::from_secs(1), "1"),
    (Duration::from_millis(2500), "2.5"),
    (Duration::from_secs(5), "5"),
    (Duration::from_secs(10), "10"),
];

/// What is counted. Every counter stands for itself: nothing is ordered by them.
#[derive(Debug, Default)]
pub struct Metrics {
    actions: [Histogram; ACTIONS.len()],
    health_checks: AtomicU64,
    health_checks_failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Histogram {
    /// How many were as short as each bucket's bound, and no shorter bucket's.
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

/// What is known at the moment somebody asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Containers by state: paused, running, stopped.
    pub(crate) containers: [usize; 3],
    pub(crate) cpus: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) events: u64,
    pub(crate) listeners: usize,
    /// Labels of `engine_daemon_engine_info`, in alphabetical order.
    pub(crate) engine: Vec<(&'static str, String)>,
    pub(crate) process: Process,
}

/// What the kernel says of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: f64,
    pub(crate) open_descriptors: usize,
    pub(crate) descriptors_max: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) started_at_seconds: f64,
}

impl Metrics {
    /// Does `work`, and notes how long it took if it succeeded.
    pub async fn time<T, E>(&self, action: Action, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let begun = Instant::now();
        let done = work.await;
        if done.is_ok() {
            self.actions[action as usize].note(begun.elapsed());
        }
        done
    }

    /// Notes a health check. Failed are, as with dockerd, those that could not be made, not those that found something.
    pub fn health_check(&self, made: bool) {
        self.health_checks.fetch_add(1, Ordering::Relaxed);
        if !made {
            self.health_checks_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything in the text form of Prometheus.
    pub(crate) fn text(&self, now: &Snapshot) -> String {
        let mut page = Page(String::new());
        page.head(
            "engine_daemon_container_actions_seconds",
            "histogram",
            "The number of seconds it takes to process each container action",
        );
        for (action, name) in ACTIONS {
            self.actions[action as usize].print(name, &mut page.0);
        }
        page.head("engine_daemon_container_states_containers", "gauge", "The count of containers in various states");
        for (state, count) in ["paused", "running", "stopped"].iter().zip(now.containers) {
            page.line(&format!("engine_daemon_container_states_containers{{state=\"{state}\"}}"), count);
        }
        page.single(
            "engine_daemon_engine_cpus_cpus",
            "gauge",
            "The number of cpus that the host system of the engine has",
            now.cpus,
        );
        page.head(
            "engine_daemon_engine_info",
            "gauge",
            "The information related to the engine and the OS it is running on",
        );
        let labels = now.engine.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
        page.line(&format!("engine_daemon_engine_info{{{}}}", labels.collect::<Vec<_>>().join(",")), 1);
        page.single(
            "engine_daemon_engine_memory_bytes",
            "gauge",
            "The number of bytes of memory that the host system of the engine has",
            now.memory_bytes,
        );
        page.single(
            "engine_daemon_events_subscribers_total",
            "gauge",
            "The number of current subscribers to events",
            now.listeners,
        );
        page.single("engine_daemon_events_total", "counter", "The number of events logged", now.events);
        let failed = self.health_checks_failed.load(Ordering::Relaxed);
        page.single(
            "engine_daemon_health_checks_failed_total",
            "counter",
            "The total number of failed health checks",
            failed,
        );
        let checks = self.health_checks.load(Ordering::Relaxed);
        page.single("engine_daemon_health_checks_total", "counter", "The total number of health checks", checks);
        page.process(&now.process);
        page.0
    }
}

impl Histogram {
    fn note(&self, took: Duration) {
        if let Some(bucket) = BUCKETS.iter().position(|(bound, _)| took <= *bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn print(&self, action: &str, page: &mut String) {
        let name = "engine_daemon_container_actions_seconds";
        let mut below = 0;
        for ((_, bound), bucket) in BUCKETS.iter().zip(&self.buckets) {
            below += bucket.load(Ordering::Relaxed);
            let _ = writeln!(page, "{name}_bucket{{action=\"{action}\",le=\"{bound}\"}} {below}");
        }
        let count = self.count.load(Ordering::Relaxed);
        let seconds = self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        let _ = writeln!(page, "{name}_bucket{{action=\"{action}\",le=\"+Inf\"}} {count}");
        let _ = writeln!(page, "{name}_sum{{action=\"{action}\"}} {seconds}");
        let _ = writeln!(page, "{name}_count{{action=\"{action}\"}} {count}");
    }
}

/// The text; writing to a String cannot fail.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.line(name, value);
    }

    fn process(&mut self, process: &Process) {
        self.single(
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            process.cpu_seconds,
        );
        self.single("process_max_fds", "gauge", "Maximum number of open file descriptors.", process.descriptors_max);
        self.single("process_open_fds", "gauge", "Number of open file descriptors.", process.open_descriptors);
        self.single("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", process.resident_bytes);
        self.single(
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            process.started_at_seconds,
        );
    }
}

/// A label's value, as the text form wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn figures_have_dockerds_names() {
        let metrics = Metrics::default();
        metrics.time(Action::Start, async { Ok::<(), ()>(()) }).await.unwrap();
        metrics.time(Action::Start, async { Err::<(), ()>(()) }).await.unwrap_err();
        metrics.actions[Action::Create as usize].note(Duration::from_millis(20));
        metrics.actions[Action::Create as usize].note(Duration::from_secs(20));
        metrics.health_check(true);
        metrics.health_check(false);
        let engine = vec![("version", "a\"b".to_owned())];
        let now = Snapshot { containers: [0, 2, 1], events: 7, cpus: 4, engine, ..Snapshot::default() };
        let text = metrics.text(&now);
        for line in [
            "engine_daemon_container_actions_seconds_count{action=\"start\"} 1",
            "engine_daemon_container_actions_seconds_bucket{action=\"create\",le=\"0.01\"} 0",
            "engine_daemon_container_actions_seconds_bucket{action=\"create\",le=\"0.025\"} 1",
            "engine_daemon_container_actions_seconds_bucket{action=\"create\",le=\"10\"} 1",
            "engine_daemon_container_actions_seconds_bucket{action=\"create\",le=\"+Inf\"} 2",
            "engine_daemon_container_actions_seconds_sum{action=\"create\"} 20.02",
            "engine_daemon_container_states_containers{state=\"running\"} 2",
            "engine_daemon_engine_cpus_cpus 4",
            "engine_daemon_engine_info{version=\"a\\\"b\"} 1",
            "engine_daemon_events_total 7",
            "engine_daemon_health_checks_failed_total 1",
            "engine_daemon_health_checks_total 2",
            "# TYPE engine_daemon_container_actions_seconds histogram",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        // Every figure is explained before it is told.
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(text.contains(&format!("# TYPE {name} ")), "{line}");
        }
    }
}
