//! What version 2 announces in `cgroup.events`: whether there are processes, and whether they stand still.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits until `cgroup.events` of the directory has this line; false when the deadline came first.
///
/// A directory that goes away has no processes, and whatever was waited for is so.
pub(crate) fn wait_for(directory: &Path, line: &str, deadline: Instant) -> io::Result<bool> {
    let gone = |err: &io::Error| {
        err.kind() == io::ErrorKind::NotFound || err.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
    };
    let file = match File::open(directory.join("cgroup.events")) {
        Err(err) if gone(&err) => return Ok(true),
        other => other?,
    };
    loop {
        // Through the polled descriptor: reading another one leaves it ready (kernfs_generic_poll).
        let mut text = [0; EVENTS_BYTES];
        let length = match rustix::io::pread(&file, &mut text, 0).map_err(io::Error::from) {
            Err(err) if gone(&err) => return Ok(true),
            other => other?,
        };
        if has_line(&text[..length], line) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&file, PollFlags::PRI)];
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => other.map(drop)?,
        }
    }
}

/// More than `cgroup.events` ever is: two lines.
const EVENTS_BYTES: usize = 128;

fn has_line(text: &[u8], line: &str) -> bool {
    text.split(|byte| *byte == b'\n').any(|found| found == line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_whole() {
        assert!(has_line(b"populated 0\nfrozen 1\n", "frozen 1"));
        assert!(!has_line(b"populated 0\nfrozen 10\n", "frozen 1"));
    }

    #[test]
    fn a_directory_that_is_gone_is_waited_for_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        assert!(wait_for(&dir.path().join("x"), "populated 0", Instant::now()).unwrap());
    }
}
