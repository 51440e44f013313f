//! `kill`.

use std::os::fd::AsFd;
use std::time::Duration;

use cgroup::is_frozen;
use oci::runtime::NamespaceKind;
use rustix::process::Signal;

use super::{Context, cgroup, hierarchies};
use crate::arguments::{Parsed, UsageError};
use crate::error::CommandError;
use crate::state::{Record, Status, described};

/// How long processes have to go on again.
const THAW_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a signal to the first process; with `--all` to every process.
pub(crate) fn kill(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    let (id, text) = match flags.words.as_slice() {
        [id] => (id, "SIGTERM"),
        [id, signal] => (id, signal.as_str()),
        [] => return Err(UsageError::Words { command: "kill", wanted: "a minimum of 1 argument(s)" }.into()),
        _ => return Err(UsageError::Words { command: "kill", wanted: "a maximum of 2 argument(s)" }.into()),
    };
    let place = context.store.open(id)?;
    let record = place.load()?;
    let signal = parse(text)?;
    let all = flags.is_on("all");
    if record.process.is_none() && !all && place.status(&record, hierarchies()?)? == Status::Creating {
        return Err(CommandError::NotMade { by: described(context.store.holder(id).as_ref()) });
    }
    let sent = send(&record, signal, all);
    if sent.is_ok() && signal == Signal::KILL.as_raw() {
        let_die(&record)?;
    }
    sent
}

/// On version 1 of cgroups what stands still does not even die: it is let go.
fn let_die(record: &Record) -> Result<(), CommandError> {
    let group = cgroup(record, hierarchies()?)?;
    if is_frozen(&group) { Ok(group.thaw(THAW_TIMEOUT)?) } else { Ok(()) }
}

fn send(record: &Record, signal: i32, all: bool) -> Result<u8, CommandError> {
    let Some(process) = record.process.and_then(|process| process.open()) else {
        if !all {
            return Err(CommandError::NotRunning);
        }
        // What its first process has left behind.
        cgroup::signal_all(&cgroup(record, hierarchies()?)?, signal)?;
        return Ok(0);
    };
    // The end of a PID namespace's first process is the end of all in it; in a shared one the others would stay.
    if all || signal == Signal::KILL.as_raw() && !has_own_processes(record) {
        let group = cgroup(record, hierarchies()?)?;
        // Without one, where the caller may make none, only the first process is known.
        if !group.directories.is_empty() {
            cgroup::signal_all(&group, signal)?;
            return Ok(0);
        }
    }
    match sys::signal::send(process.as_fd(), signal) {
        Err(err) if err.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Err(CommandError::NotRunning),
        other => other.map(|()| 0).map_err(CommandError::system("signal the container")),
    }
}

/// Names or numbers; 0 asks whether there is a process.
fn parse(text: &str) -> Result<i32, CommandError> {
    let number = if text == "0" { Some(0) } else { oci::signal::parse_signal(text) };
    let number = number.filter(|number| (0..=sys::signal::SIGNAL_MAX).contains(number));
    number.ok_or_else(|| CommandError::Signal { text: text.to_owned() })
}

/// Whether a word without its dash means one.
pub(crate) fn is_signal(text: &str) -> bool {
    parse(text).is_ok()
}

fn has_own_processes(record: &Record) -> bool {
    let namespaces = &record.spec.linux.namespaces;
    namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Pid && namespace.path.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_names_or_numbers() {
        for (text, number) in [
            ("9", Some(9)),
            ("KILL", Some(9)),
            ("sigterm", Some(15)),
            ("0", Some(0)),
            ("65", None),
            ("-1", None),
            ("X", None),
        ] {
            assert_eq!(parse(text).ok(), number, "{text}");
        }
    }
}
