//! `pause` and `resume`.

use std::time::Duration;

use super::{Context, hierarchies, some_cgroup};
use crate::error::CommandError;
use crate::state::Status;

/// How long processes have to stand still or to go on.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a cgroup is needed for.
const FREEZES: &str = "its processes are frozen";

/// Freezes all processes.
pub(crate) fn pause(context: &Context<'_>, id: &str) -> Result<u8, CommandError> {
    let locked = context.store.lock(id)?;
    let record = locked.place.load()?;
    let hierarchies = hierarchies()?;
    match locked.status(&record, hierarchies)? {
        Status::Created | Status::Running => some_cgroup(&record, hierarchies, FREEZES)?.freeze(FREEZE_TIMEOUT)?,
        Status::Paused => return Err(CommandError::PausedAlready),
        _ => return Err(CommandError::NotRunning),
    }
    Ok(0)
}

/// Lets all processes go on.
pub(crate) fn resume(context: &Context<'_>, id: &str) -> Result<u8, CommandError> {
    let locked = context.store.lock(id)?;
    let record = locked.place.load()?;
    let hierarchies = hierarchies()?;
    match locked.status(&record, hierarchies)? {
        Status::Paused => some_cgroup(&record, hierarchies, FREEZES)?.thaw(FREEZE_TIMEOUT)?,
        _ => return Err(CommandError::NotPaused),
    }
    Ok(0)
}
