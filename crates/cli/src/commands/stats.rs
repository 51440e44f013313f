//! `stats`: what containers use, once or again and again.

use std::cell::RefCell;
use std::time::Duration;

use client::container::{self, ListOptions};
use client::{ClientError, live};
use engine_api::container::Summary;
use engine_api::stats::{CpuStats, MemoryStats, Stats};
use serde_json::Value;

use super::{Context, at_once};
use crate::args::Parsed;
use crate::format::listing::{Listing, Row, Shape};
use crate::format::{short_id, units};
use crate::report::{Exit, client_error};
use crate::say;

const TITLES: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
    ("Container", "CONTAINER"),
];

/// Go's name of what a row is made from.
const TYPE_NAME: &str = "*container.statsContext";

/// Between two frames.
const INTERVAL: Duration = Duration::from_secs(1);

/// One line of the table.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// As the user named it, or its id.
    container: String,
    id: String,
    name: String,
    /// `None` if nothing could be had.
    stats: Option<Stats>,
}

/// `stats`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let format = match parsed.text("format") {
        "" => context.config.stats_format.as_str(),
        given => given,
    };
    let columns = TITLES[..8].iter().map(|(field, _)| *field).collect();
    let shape = Shape::parse(format, false, columns);
    let full = parsed.flag("no-trunc");
    let mut entries = begin(context, parsed).await?;
    if parsed.flag("no-stream") {
        say!("{}", render(&entries, &shape, full)?);
        return Ok(());
    }
    loop {
        say!("{}", frame(&render(&entries, &shape, full)?));
        tokio::time::sleep(INTERVAL).await;
        entries = refresh(context, parsed, entries).await?;
        if entries.is_empty() && !parsed.positionals.is_empty() {
            say!("\x1b[H\x1b[J");
            return Ok(());
        }
    }
}

/// The first look, which fails where a container that was named is not there.
async fn begin(context: &Context, parsed: &Parsed) -> Result<Vec<Entry>, Exit> {
    let names = names(context, parsed).await?;
    let (mut entries, mut failures) = (Vec::new(), Vec::new());
    for (container, stats) in look(context, &names, true).await {
        match stats {
            Ok(stats) => entries.push(entry(container, stats)),
            // One of the list that is gone by now is no failure.
            Err(err) if parsed.positionals.is_empty() && err.is_not_found() => {}
            Err(err) => failures.push(client_error(&err)),
        }
    }
    if failures.is_empty() { Ok(entries) } else { Err(Exit::new(1, failures.join("\n"))) }
}

/// The next look: of what was named and is still there, or of all that are there now.
async fn refresh(context: &Context, parsed: &Parsed, before: Vec<Entry>) -> Result<Vec<Entry>, Exit> {
    let names = match parsed.positionals.is_empty() {
        true => names(context, parsed).await?,
        false => before.iter().map(|entry| entry.container.clone()).collect(),
    };
    let mut entries = Vec::new();
    for (container, stats) in look(context, &names, false).await {
        let last = before.iter().find(|entry| entry.container == container);
        match (last, stats) {
            (Some(last), Ok(stats)) => entries.push(next(last, stats)),
            // A container that is new has no look before this one: only a pair tells its name, too.
            (None, Ok(_)) => {
                let pair = live::stats(&context.client, &container, true).await;
                entries.extend(pair.ok().map(|stats| entry(container, stats)));
            }
            (_, Err(err)) if err.is_not_found() => {}
            (last, Err(_)) => entries.extend(last.map(|last| Entry { stats: None, ..last.clone() })),
        }
    }
    Ok(entries)
}

/// What the user named, or all containers.
async fn names(context: &Context, parsed: &Parsed) -> Result<Vec<String>, Exit> {
    if parsed.positionals.is_empty() {
        let options = ListOptions { all: parsed.flag("all"), ..ListOptions::default() };
        let containers: Vec<Summary> = container::list(&context.client, &options).await?.read()?;
        // Docker's column `Container` has what was asked for: of containers that nobody named, ids that are cut.
        return Ok(containers.iter().map(|container| short_id(&container.id).to_owned()).collect());
    }
    let mut names: Vec<String> = Vec::new();
    for name in &parsed.positionals {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    Ok(names)
}

/// Asks for all at once.
async fn look(context: &Context, names: &[String], pair: bool) -> Vec<(String, Result<Stats, ClientError>)> {
    let looked = RefCell::new(Vec::new());
    let ask = async |name: &String| live::stats(&context.client, name, pair).await;
    at_once::each_of(at_once::MANY, names, ask, |name, stats| looked.borrow_mut().push((name.clone(), stats))).await;
    looked.into_inner()
}

fn entry(container: String, stats: Stats) -> Entry {
    let (id, name) = (stats.id.clone(), stats.name.clone());
    Entry { container, id, name, stats: Some(stats) }
}

/// A single look knows of none before it: what we have seen is put in its place.
fn next(last: &Entry, stats: Stats) -> Entry {
    let precpu_stats = last.stats.as_ref().map(|stats| stats.cpu_stats.clone()).unwrap_or_default();
    Entry { stats: Some(Stats { precpu_stats, ..stats }), ..last.clone() }
}

fn render(entries: &[Entry], shape: &Shape, full: bool) -> Result<String, Exit> {
    let rows = entries.iter().map(|entry| row(entry, full)).collect();
    Listing { titles: TITLES, rows, type_name: TYPE_NAME }.render(shape)
}

/// A screen: from its upper left corner, what is left of each line and below the last one erased.
fn frame(text: &str) -> String {
    let lines: String = text.split('\n').map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{lines}\x1b[J")
}

/// What stands where nothing is known.
const NOTHING: &str = "--";

fn row(entry: &Entry, full: bool) -> Row {
    let id = if full { entry.id.clone() } else { short_id(&entry.id).to_owned() };
    let name = entry.name.strip_prefix('/').unwrap_or(&entry.name);
    let name = if name.is_empty() { NOTHING } else { name };
    let known = |text: fn(&Stats) -> String, nothing: &str| entry.stats.as_ref().map_or(nothing.to_owned(), text);
    let fields = [
        ("BlockIO", known(block_io, NOTHING)),
        ("CPUPerc", known(|stats| percent(cpu_share(&stats.precpu_stats, &stats.cpu_stats)), NOTHING)),
        ("Container", entry.container.clone()),
        ("ID", id),
        ("MemPerc", known(|stats| percent(memory_share(&stats.memory_stats)), NOTHING)),
        ("MemUsage", known(memory, "-- / --")),
        ("Name", name.to_owned()),
        ("NetIO", known(net_io, NOTHING)),
        ("PIDs", known(|stats| stats.pids_stats.current.to_string(), NOTHING)),
    ];
    Row { fields: fields.map(|(name, text)| (name, Value::String(text))).into(), ..Row::default() }
}

fn percent(share: f64) -> String {
    format!("{share:.2}%")
}

/// The share of one processor in percent, as Docker computes it.
fn cpu_share(before: &CpuStats, now: &CpuStats) -> f64 {
    let used = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let passed = now.system_cpu_usage as f64 - before.system_cpu_usage as f64;
    let processors = match now.online_cpus {
        0 => now.cpu_usage.percpu_usage.len() as f64,
        count => f64::from(count),
    };
    if used > 0.0 && passed > 0.0 { used / passed * processors * 100.0 } else { 0.0 }
}

/// Memory without what can be dropped at once: pages of files that nobody has used for a while.
fn memory_in_use(memory: &MemoryStats) -> f64 {
    let idle = |name: &str| memory.stats.get(name).copied().filter(|bytes| *bytes < memory.usage);
    let idle = idle("total_inactive_file").or_else(|| idle("inactive_file")).unwrap_or(0);
    (memory.usage - idle) as f64
}

fn memory_share(memory: &MemoryStats) -> f64 {
    if memory.limit == 0 { 0.0 } else { memory_in_use(memory) / memory.limit as f64 * 100.0 }
}

fn memory(stats: &Stats) -> String {
    let memory = &stats.memory_stats;
    format!("{} / {}", units::bytes_size(memory_in_use(memory)), units::bytes_size(memory.limit as f64))
}

fn net_io(stats: &Stats) -> String {
    let interfaces = || stats.networks.iter().flatten().map(|(_, interface)| interface);
    let received: u64 = interfaces().map(|interface| interface.rx_bytes).sum();
    let sent: u64 = interfaces().map(|interface| interface.tx_bytes).sum();
    format!("{} / {}", units::human_size(received as f64, 3), units::human_size(sent as f64, 3))
}

fn block_io(stats: &Stats) -> String {
    let entries = || stats.blkio_stats.io_service_bytes_recursive.iter().flatten();
    let sum = |letters: [char; 2]| {
        let bytes: u64 = entries().filter(|entry| entry.op.starts_with(letters)).map(|entry| entry.value).sum();
        units::human_size(bytes as f64, 3)
    };
    format!("{} / {}", sum(['r', 'R']), sum(['w', 'W']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Stats {
        serde_json::from_str(
            r#"{"name":"/web","id":"0123456789abcdef","cpu_stats":{"cpu_usage":{"total_usage":300},"system_cpu_usage":2000,
            "online_cpus":2},"precpu_stats":{"cpu_usage":{"total_usage":100},"system_cpu_usage":1000},"pids_stats":
            {"current":3},"memory_stats":{"usage":3145728,"limit":8388608,"stats":{"total_inactive_file":1048576}},
            "networks":{"eth0":{"rx_bytes":1500,"tx_bytes":3},"eth1":{"rx_bytes":500}},"blkio_stats":
            {"io_service_bytes_recursive":[{"op":"Read","value":4096},{"op":"write","value":1},{"op":"Total","value":9}]}}"#,
        )
        .unwrap()
    }

    fn rendered(entry: Entry, format: &str) -> String {
        render(&[entry], &Shape::parse(format, false, vec![]), false).unwrap_or_else(|_| panic!("{format}"))
    }

    #[test]
    fn a_row_reads_as_dockers() {
        let expected = r#"{"BlockIO":"4.1kB / 1B","CPUPerc":"40.00%","Container":"web","ID":"0123456789ab","MemPerc":"25.00%","MemUsage":"2MiB / 8MiB","Name":"web","NetIO":"2kB / 3B","PIDs":"3"}"#;
        assert_eq!(rendered(entry("web".to_owned(), stats()), "json"), format!("{expected}\n"));
        let gone = Entry { stats: None, ..entry("web".to_owned(), stats()) };
        assert_eq!(rendered(gone, "{{.CPUPerc}} {{.MemUsage}}"), "-- -- / --\n");
    }

    #[test]
    fn a_look_is_compared_with_the_one_before() {
        let last = entry("web".to_owned(), stats());
        let mut now = Stats { name: String::new(), ..stats() };
        (now.cpu_stats.cpu_usage.total_usage, now.cpu_stats.system_cpu_usage) = (800, 3000);
        let next = next(&last, now);
        assert_eq!(next.name, "/web");
        let stats = next.stats.unwrap();
        assert_eq!(cpu_share(&stats.precpu_stats, &stats.cpu_stats), 100.0);
    }

    #[test]
    fn a_frame_covers_the_one_before() {
        assert_eq!(frame("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[K\n\x1b[J");
    }
}
