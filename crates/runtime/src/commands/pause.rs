//! `pause` and `resume`.

use std::time::Duration;

use super::{Context, cgroup, hierarchies};
use crate::error::CommandError;
use crate::state::Status;

/// How long processes have to stand still or to go on.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// Freezes all processes.
pub(crate) fn pause(context: &Context<'_>, id: &str) -> Result<u8, CommandError> {
    let locked = context.store.lock(id)?;
    let record = locked.place.load()?;
    let hierarchies = hierarchies()?;
    match locked.status(&record, hierarchies) {
        Status::Created | Status::Running => cgroup(&record, hierarchies)?.freeze(FREEZE_TIMEOUT)?,
        _ => return Err(CommandError::NotRunning),
    }
    Ok(0)
}

/// Lets all processes go on.
pub(crate) fn resume(context: &Context<'_>, id: &str) -> Result<u8, CommandError> {
    let locked = context.store.lock(id)?;
    let record = locked.place.load()?;
    let hierarchies = hierarchies()?;
    match locked.status(&record, hierarchies) {
        Status::Paused => cgroup(&record, hierarchies)?.thaw(FREEZE_TIMEOUT)?,
        _ => return Err(CommandError::NotPaused),
    }
    Ok(0)
}
