//! From samples to words.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::Options;
use super::engine::Sample;
use super::http::VETH;
use super::rows::{Bound, ROWS, Row, Work};
use super::runner::{Measured, Series, Values};

/// Whether a promise is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    Broken,
    /// Its peer was not measured.
    Unknown,
}

/// Smallest, median and largest of a series, in ms or KiB.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

pub(super) fn verdict(measured: &Measured) -> Verdict {
    let Some(ours) = measured.series.first() else { return Verdict::Unknown };
    let kept = match measured.bound {
        Bound::Kib(limit) | Bound::WallMs(limit) => first(ours).median <= limit,
        Bound::OfDocker { .. } | Bound::OfCrun { .. } | Bound::KibOfCrun => {
            let (name, wall, part) = match measured.bound {
                Bound::OfDocker { wall, cpu } => ("docker", wall, cpu),
                Bound::OfCrun { wall, cpu } => ("crun", wall, cpu),
                _ => ("crun", 1.0, None),
            };
            let Some(peer) = measured.series.iter().find(|series| series.engine == name) else {
                return Verdict::Unknown;
            };
            first(ours).median / first(peer).median <= wall
                && part.is_none_or(|part| cpu(ours).median / cpu(peer).median <= part)
        }
        Bound::OfBuilders { wall, ms } => {
            let builders =
                measured.series.iter().filter(|series| ["docker", "buildah"].contains(&series.engine.as_str()));
            let mut others = builders.map(|series| first(series).median).peekable();
            if others.peek().is_none() {
                return Verdict::Unknown;
            }
            let ours = first(ours).median;
            others.all(|other| ours / other <= wall) && ms.is_none_or(|ms| ours <= ms)
        }
        Bound::OfVeth { wall, cpu: part } => {
            let Some(veth) = measured.series.iter().find(|series| series.engine == VETH) else {
                return Verdict::Unknown;
            };
            // What has no engine at all is no peer.
            let peers = measured.series.iter().skip(1).take_while(|series| series.engine != VETH);
            first(ours).median / first(veth).median <= wall
                && cpu(ours).median / cpu(veth).median <= part
                && peers.map(first).all(|peer| first(ours).median <= peer.median)
        }
        Bound::Part => return Verdict::Unknown,
    };
    if kept { Verdict::Kept } else { Verdict::Broken }
}

/// One line per row and engine; ours says what was promised.
pub(super) fn table(results: &[Measured]) -> String {
    let mut text = format!(
        "{:12} {:12} {:>4} {:>28} {:>28}  {}\n",
        "row", "engine", "runs", "wall ms (or KiB)", "CPU ms", "result"
    );
    for measured in results {
        for (index, series) in measured.series.iter().enumerate() {
            let result = if index == 0 { promise(measured) } else { ratio(measured, series) };
            let (runs, second) = match &series.values {
                Values::Time(samples) => (samples.len(), show(cpu(series))),
                Values::Kib(values) => (values.len(), String::new()),
            };
            let first = show(first(series));
            // Writing to a String cannot fail.
            let _ =
                writeln!(text, "{:12} {:12} {runs:>4} {first:>28} {second:>28}  {result}", measured.row, series.engine);
        }
    }
    text
}

/// What is not in the table although it could be asked for: rows, and peers in rows that only others can do.
pub(super) fn left_out(results: &[Measured], options: &Options) -> String {
    let mut text = String::new();
    let measured = |row: &str| results.iter().find(|measured| measured.row == row);
    for row in ROWS.iter().filter(|row| options.only.is_empty() && measured(row.name).is_none()) {
        let _ = writeln!(text, "{} is left out: it needs {}", row.name, needs(row));
    }
    let engines_measured = results.iter().any(|measured| !is_oci(measured.row));
    for peer in options.peers.iter().filter(|_| engines_measured) {
        let without = |row: &&str| {
            measured(row).is_some_and(|measured| measured.series.iter().all(|series| series.engine != peer.name))
        };
        let rows: Vec<&str> = ROWS.iter().map(|row| row.name).filter(|row| !is_oci(row)).filter(without).collect();
        if !rows.is_empty() {
            let _ = writeln!(text, "{} is not measured in: {}", peer.name, rows.join(", "));
        }
    }
    text
}

/// The option without which a row is not measured.
fn needs(row: &Row) -> &'static str {
    match row.work {
        Work::Oci(_) => "--runtime",
        Work::Load(_) | Work::Save(_) | Work::Push(_) | Work::PeakMemory => "--archive",
        Work::Build { .. } | Work::BuildMemory => "--contexts",
        _ => "--registry",
    }
}

fn is_oci(name: &str) -> bool {
    ROWS.iter().any(|row| row.name == name && matches!(row.work, Work::Oci(_)))
}

/// Appends every sample as one JSON line per row and engine.
pub(super) fn write(results: &[Measured], path: &Path) -> Result<()> {
    let mut text = String::new();
    for measured in results {
        for series in &measured.series {
            let line = match &series.values {
                Values::Time(samples) => json!({
                    "row": measured.row, "engine": series.engine,
                    "wall_ms": samples.iter().map(|sample| ms(sample.wall)).collect::<Vec<_>>(),
                    "cpu_ms": samples.iter().map(|sample| ms(sample.cpu)).collect::<Vec<_>>(),
                }),
                Values::Kib(values) => json!({ "row": measured.row, "engine": series.engine, "kib": values }),
            };
            let _ = writeln!(text, "{line}");
        }
    }
    fs::create_dir_all(path.parent().context("a file in a directory")?)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn promise(measured: &Measured) -> String {
    let bound = match measured.bound {
        Bound::OfDocker { wall, cpu: Some(part) } if part != wall => {
            format!("at most {} of docker's wall, {} of its CPU", fraction(wall), fraction(part))
        }
        Bound::OfDocker { wall, cpu: Some(_) } => format!("at most {} of docker", fraction(wall)),
        Bound::OfDocker { wall, cpu: None } => format!("at most {} of docker's wall", fraction(wall)),
        Bound::OfCrun { wall, cpu: Some(part) } => format!("at most {wall} of crun's wall, {part} of its CPU"),
        Bound::OfCrun { wall, cpu: None } => format!("at most {wall} of crun's wall"),
        Bound::OfVeth { wall, cpu } => {
            format!("at most {wall:.2} of a plain bridge's wall, {cpu} of its CPU, and every peer's wall")
        }
        Bound::OfBuilders { wall, ms } => {
            let most = ms.map(|ms| format!(", and {ms} ms")).unwrap_or_default();
            format!("at most {} of docker's and buildah's wall{most}", fraction(wall))
        }
        Bound::KibOfCrun => "at most crun's".to_owned(),
        Bound::WallMs(limit) => format!("at most {limit} ms"),
        Bound::Kib(limit) => format!("at most {limit} KiB"),
        Bound::Part => return "a part of each of its figures".to_owned(),
    };
    match verdict(measured) {
        Verdict::Kept => format!("{bound}: kept"),
        Verdict::Broken => format!("{bound}: BROKEN"),
        Verdict::Unknown => format!("{bound}: not compared"),
    }
}

/// `1/12`, or a decimal where the part is no such fraction.
fn fraction(part: f64) -> String {
    let divisor = 1.0 / part;
    if (divisor - divisor.round()).abs() < 1e-6 { format!("1/{divisor:.0}") } else { format!("{part}") }
}

/// How many times as much as ours the peer takes.
fn ratio(measured: &Measured, peer: &Series) -> String {
    let Some(ours) = measured.series.first() else { return String::new() };
    let (wall, cpu) = (first(peer).median / first(ours).median, cpu(peer).median / cpu(ours).median);
    match peer.values {
        Values::Time(_) => format!("wall x{wall:.1}, CPU x{cpu:.1}"),
        Values::Kib(_) => format!("x{wall:.1}"),
    }
}

/// Wall time, or memory.
fn first(series: &Series) -> Spread {
    match &series.values {
        Values::Time(samples) => spread(samples.iter().map(|sample| ms(sample.wall)).collect()),
        Values::Kib(values) => spread(values.clone()),
    }
}

fn cpu(series: &Series) -> Spread {
    let samples: &[Sample] = match &series.values {
        Values::Time(samples) => samples,
        Values::Kib(_) => &[],
    };
    spread(samples.iter().map(|sample| ms(sample.cpu)).collect())
}

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.as_slice() {
        [] => f64::NAN,
        odd if odd.len() % 2 == 1 => odd[middle],
        even => f64::midpoint(even[middle - 1], even[middle]),
    };
    let ends = (values.first().copied(), values.last().copied());
    Spread { min: ends.0.unwrap_or(f64::NAN), median, max: ends.1.unwrap_or(f64::NAN) }
}

fn show(spread: Spread) -> String {
    format!("{:.1} [{:.1} - {:.1}]", spread.median, spread.min, spread.max)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
