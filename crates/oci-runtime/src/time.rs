//! Clocks of a new time namespace (time_namespaces(7)).

use std::os::fd::AsFd;

use oci::runtime::{Linux, NamespaceKind};

use crate::error::PlanError;
use crate::field::FieldError;
use crate::process::{open_proc, write_proc};

/// Those that a time namespace has of its own.
const CLOCKS: [&str; 2] = ["monotonic", "boottime"];

/// The kernel's clocks end there (linux/ktime.h, `KTIME_SEC_MAX`).
const SECONDS_MAX: i128 = i64::MAX as i128 / 1_000_000_000;

/// What is written to /proc/self/timens_offsets; empty for nothing.
pub(crate) fn offsets(linux: &Linux) -> Result<String, PlanError> {
    let failed = |with| FieldError::Needs { with }.at("linux.timeOffsets");
    let mut text = String::new();
    if linux.time_offsets.is_empty() {
        return Ok(text);
    }
    let time = linux.namespaces.iter().find(|namespace| namespace.kind == NamespaceKind::Time);
    if time.ok_or_else(|| failed("a time namespace"))?.path.is_some() {
        return Err(failed("a new time namespace, not one to join"));
    }
    for (clock, offset) in &linux.time_offsets {
        if !CLOCKS.contains(&clock.as_str()) {
            return Err(FieldError::Unknown { word: clock.clone(), known: &CLOCKS }.at("linux.timeOffsets"));
        }
        let seconds = FieldError::in_range(offset.secs, -SECONDS_MAX, SECONDS_MAX);
        seconds.map_err(|err| err.at(format!("linux.timeOffsets.{clock}.secs")))?;
        let nanoseconds = FieldError::in_range(offset.nanosecs, 0, 999_999_999);
        nanoseconds.map_err(|err| err.at(format!("linux.timeOffsets.{clock}.nanosecs")))?;
        text += &format!("{clock} {} {}\n", offset.secs, offset.nanosecs);
    }
    Ok(text)
}

/// Runs `clone` while children are born in a new time namespace with these offsets.
pub(crate) fn with_offsets<T>(offsets: &str, clone: impl FnOnce() -> T) -> std::io::Result<T> {
    let set_up = || write_proc(open_proc()?.as_fd(), "self/timens_offsets", offsets);
    sys::namespace::in_new_time_namespace(set_up, clone)
}
