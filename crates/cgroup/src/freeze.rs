//! Stopping the processes of a directory, and letting them go on.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::error::CgroupError;
use crate::events::wait_for;
use crate::group::pause;

/// In the freezer's hierarchy of version 1; false when the deadline came first.
pub(crate) fn set_v1(directory: &Path, frozen: bool, deadline: Instant) -> Result<bool, CgroupError> {
    let file = directory.join("freezer.state");
    let value = if frozen { "FROZEN" } else { "THAWED" };
    loop {
        // Written again each time: it can hang in FREEZING when processes fork meanwhile (runc does the same).
        fs::write(&file, value).map_err(CgroupError::io("write", &file))?;
        let text = fs::read_to_string(&file).map_err(CgroupError::io("read", &file))?;
        if text.trim_end() == value {
            return Ok(true);
        }
        if !pause(deadline) {
            return Ok(false);
        }
    }
}

/// With version 2; false when the deadline came first.
pub(crate) fn set_v2(directory: &Path, frozen: bool, deadline: Instant) -> Result<bool, CgroupError> {
    let (value, line) = if frozen { ("1", "frozen 1") } else { ("0", "frozen 0") };
    let file = directory.join("cgroup.freeze");
    fs::write(&file, value).map_err(CgroupError::io("write", &file))?;
    wait_for(directory, line, deadline).map_err(CgroupError::io("wait for", directory))
}
