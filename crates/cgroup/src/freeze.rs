//! Stopping the processes of a directory, and letting them go on.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::error::CgroupError;
use crate::events::wait_for;
use crate::group::pause;

/// After so many looks at a cgroup that does not freeze its processes go on for a moment.
const THAW_EVERY: u32 = 50;

/// In the freezer's hierarchy of version 1; false when the deadline came first.
pub(crate) fn set_v1(directory: &Path, frozen: bool, deadline: Instant) -> Result<bool, CgroupError> {
    let file = directory.join("freezer.state");
    let value = if frozen { "FROZEN" } else { "THAWED" };
    for attempt in 1_u32.. {
        // A process that is about to come in from outside, as those that runc adds, can wait for one that stands still
        // already: all go on for a moment, and try again (runc does so, too).
        if frozen && attempt % THAW_EVERY == 0 {
            fs::write(&file, "THAWED").map_err(CgroupError::io("write", &file))?;
            pause(deadline);
        }
        // Written again each time: it can hang in FREEZING when processes fork meanwhile (runc does the same).
        fs::write(&file, value).map_err(CgroupError::io("write", &file))?;
        let text = fs::read_to_string(&file).map_err(CgroupError::io("read", &file))?;
        if text.trim_end() == value {
            return Ok(true);
        }
        if !pause(deadline) {
            break;
        }
    }
    Ok(false)
}

/// With version 2; false when the deadline came first.
pub(crate) fn set_v2(directory: &Path, frozen: bool, deadline: Instant) -> Result<bool, CgroupError> {
    let (value, line) = if frozen { ("1", "frozen 1") } else { ("0", "frozen 0") };
    let file = directory.join("cgroup.freeze");
    fs::write(&file, value).map_err(CgroupError::io("write", &file))?;
    wait_for(directory, line, deadline).map_err(CgroupError::io("wait for", directory))
}
