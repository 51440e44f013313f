//! `start`.

use std::os::fd::AsFd;

use oci_runtime::hooks::run_all;
use oci_runtime::open_gate;
use rustix::process::Signal;

use super::{Context, cgroup, delete, hierarchies, hook_state};
use crate::error::CommandError;
use crate::state::{Locked, Record, Status};

/// Lets a created container execute its program.
pub(crate) fn start(context: &Context<'_>, id: &str) -> Result<u8, CommandError> {
    let locked = context.store.lock(id)?;
    let record = locked.place.load()?;
    let hierarchies = hierarchies()?;
    match locked.status(&record, hierarchies)? {
        Status::Created => {}
        Status::Stopped => return Err(CommandError::StartStopped),
        Status::Running => return Err(CommandError::StartRunning),
        other => return Err(CommandError::StartState { status: other.word() }),
    }
    if let Err(err) = begin(&locked, &record) {
        // A failed hook ends the container (runtime-spec runtime.md, "Lifecycle", 9); the first error is the one to tell.
        if let Some(process) = record.process.and_then(|process| process.open()) {
            let _ = sys::signal::send(process.as_fd(), Signal::KILL.as_raw());
        }
        if let Ok(group) = cgroup(&record, hierarchies) {
            let _ = group.kill();
        }
        if matches!(err, CommandError::Deleted) {
            delete::destroy(context, locked, &record)?;
        }
        return Err(err);
    }
    Ok(0)
}

/// Opens the gate, and runs what comes after.
pub(crate) fn begin(locked: &Locked, record: &Record) -> Result<(), CommandError> {
    let gate = locked.place.gate().ok_or(CommandError::StartStopped)?;
    open_gate(&gate).map_err(CommandError::system("start the container"))?;
    locked.remove_gate()?;
    if let Some(hooks) = &record.spec.hooks {
        let ran = run_all("poststart", &hooks.poststart, &hook_state(record, "running"));
        if locked.place.is_deleted() {
            return Err(CommandError::Deleted);
        }
        ran?;
    }
    Ok(())
}
