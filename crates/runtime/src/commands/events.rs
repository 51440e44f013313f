//! `events`: what a container uses, now and again, and when its memory runs out; runc's lines to the letter.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cgroup::{Cgroup, Stats, end_events, has_ended, stats};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::{Context, cgroup, hierarchies};
use crate::arguments::{Parsed, UsageError};
use crate::error::CommandError;
use crate::one;
use crate::state::{Place, Status};

/// How often counters are printed if nothing else is said; runc's.
const INTERVAL_DEFAULT: &str = "5s";

/// One line.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Counted>,
}

/// The counters, and what we do not count.
#[derive(Debug, Serialize)]
struct Counted {
    #[serde(flatten)]
    stats: Stats,
    intel_rdt: Nothing,
    network_interfaces: Option<()>,
}

#[derive(Debug, Serialize)]
struct Nothing {}

/// Prints until the container has ended; with `--stats` once.
pub(crate) fn events(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    let id = one(flags, "events")?;
    let text = flags.value("interval").unwrap_or(INTERVAL_DEFAULT);
    let bad = || UsageError::BadValue { name: "interval", value: text.to_owned() };
    let interval = parse_duration(text).ok_or_else(bad)?;
    let place = context.store.open(id)?;
    let record = place.load()?;
    if interval.is_zero() {
        return Err(CommandError::Interval);
    }
    let hierarchies = hierarchies()?;
    if place.status(&record, hierarchies)? == Status::Stopped {
        return Err(CommandError::EventsStopped { id: id.to_owned() });
    }
    let group = cgroup(&record, hierarchies)?;
    if flags.is_on("stats") {
        print(id, "stats", Some(stats(&group)?))?;
        return Ok(0);
    }
    watch(context, id, &place, &group, interval)?;
    Ok(0)
}

/// Waits for whatever comes first: the next time to print, a kill for memory, or the end.
fn watch(
    context: &Context<'_>,
    id: &str,
    place: &Place,
    group: &Cgroup,
    interval: Duration,
) -> Result<(), CommandError> {
    let mut ooms = group.oom_events()?;
    let end = end_events(group)?;
    let mut next = Instant::now() + interval;
    // A container that is being made has none yet.
    let mut first = None;
    loop {
        if first.is_none()
            && let Some(process) = place.process()
        {
            let Some(process) = process.open() else { return Ok(()) };
            first = Some(process);
        }
        let left = next.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|err| CommandError::system("wait")(io::Error::other(err)))?;
        let mut fds = vec![PollFd::new(&ooms, ooms.poll_flags())];
        fds.extend(end.as_ref().map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::PRI)));
        fds.extend(first.as_ref().map(|first| PollFd::new(first, PollFlags::IN)));
        match poll(&mut fds, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            other => other.map(drop).map_err(CommandError::system("wait for events"))?,
        }
        drop(fds);
        // When the cgroup goes version 1 says so here, too; then there is no file left to read.
        let oom = ooms.take();
        if has_ended(group) {
            return Ok(());
        }
        if oom.map_err(CommandError::system("read memory events"))? {
            print(id, "oom", None)?;
        }
        // Its cgroup stays until it is deleted.
        let has_ended = |first: &OwnedFd| sys::wait::readable(first.as_fd(), Instant::now()).unwrap_or(true);
        if first.as_ref().is_some_and(has_ended) {
            return Ok(());
        }
        if Instant::now() >= next {
            next += interval;
            match stats(group) {
                Ok(stats) => print(id, "stats", Some(stats))?,
                // It may be going at this moment.
                Err(err) => context.log.warning(&errdefs::chain(&err)),
            }
        }
    }
}

fn print(id: &str, kind: &'static str, stats: Option<Stats>) -> Result<(), CommandError> {
    let data = stats.map(|stats| Counted { stats, intel_rdt: Nothing {}, network_interfaces: None });
    let line = serde_json::to_string(&Event { kind, id, data }).expect("counters have only texts and numbers");
    super::print(&format!("{line}\n"))
}

/// Go counts nanoseconds in an i64; a clock cannot be set much further ahead, either.
const DURATION_MAX: Duration = Duration::from_nanos(i64::MAX as u64);

/// Go's way to write a time: `5s`, `1m30s`, `1.5h`, `100ms`.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(sum).ok().filter(|time| *time <= DURATION_MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (text, time) in [
            ("5s", ms(5000)),
            ("1m30s", ms(90_000)),
            ("1.5h", ms(5_400_000)),
            ("100ms", ms(100)),
            ("0", ms(0)),
            ("0s", ms(0)),
            ("5", None),
            ("-5s", None),
            ("", None),
            ("s", None),
            ("5x", None),
            ("99999999999999999999h", None),
            ("3000000000000000h", None),
        ] {
            assert_eq!(parse_duration(text), time, "{text}");
        }
    }

    #[test]
    fn lines_are_runcs() {
        let line = |data| serde_json::to_string(&Event { kind: "oom", id: "x", data }).unwrap();
        assert_eq!(line(None), r#"{"type":"oom","id":"x"}"#);
        let counted = Counted { stats: Stats::default(), intel_rdt: Nothing {}, network_interfaces: None };
        let text = line(Some(counted));
        assert!(text.starts_with(r#"{"type":"oom","id":"x","data":{"cpu":{"usage":{"#), "{text}");
        assert!(text.ends_with(r#""hugetlb":{},"intel_rdt":{},"network_interfaces":null}}"#), "{text}");
    }
}
