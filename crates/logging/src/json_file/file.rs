//! The file under the writing thread: appends and rotates. Allocates only in [`LogFile::open`].

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::writer::Rotation;

/// The current file of a log.
pub(super) struct LogFile {
    /// Closed while a rotation has not got its new file.
    file: Option<OwnedFd>,
    size_bytes: u64,
    max_size_bytes: u64,
    /// The current name and those of the rotated files, all made beforehand.
    names: Vec<CString>,
}

impl LogFile {
    /// Opens or makes the file. A last line that was torn by a power cut is ended, so that it spoils no other.
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<LogFile> {
        let mut names = vec![name(path)?];
        for number in 1..rotation.max_files {
            names.push(name(&super::rotated(path, number))?);
        }
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(CWD, &names[0], flags, mode())?;
        let mut size_bytes = rustix::fs::fstat(&file)?.st_size as u64;
        let mut last = [b'\n'];
        if size_bytes > 0 {
            rustix::io::pread(&file, &mut last, size_bytes - 1)?;
        }
        if last != [b'\n'] {
            size_bytes += rustix::io::write(&file, b"\n")? as u64;
        }
        let max_size_bytes = rotation.max_size_bytes.unwrap_or(u64::MAX);
        Ok(LogFile { file: Some(file), size_bytes, max_size_bytes, names })
    }

    /// Writes from the front of `lines`, as many whole lines as go before the next rotation; answers how many bytes went.
    /// May stop inside a line when the disk is full: the caller goes on from there.
    pub(super) fn write(&mut self, lines: &[u8], at_line_start: bool) -> Result<usize, Errno> {
        if at_line_start && self.size_bytes >= self.max_size_bytes || self.file.is_none() {
            self.rotate()?;
        }
        let room = usize::try_from(self.max_size_bytes.saturating_sub(self.size_bytes)).unwrap_or(usize::MAX);
        // The line that crosses the limit still belongs to this file, as with dockerd.
        let end = match lines.get(room.saturating_sub(1)..) {
            Some(over) => {
                lines.len() - over.len() + over.iter().position(|b| *b == b'\n').map_or(over.len(), |at| at + 1)
            }
            None => lines.len(),
        };
        let Some(file) = &self.file else { return Err(Errno::BADF) };
        let written = rustix::io::retry_on_intr(|| rustix::io::write(file, &lines[..end]))?;
        self.size_bytes += written as u64;
        Ok(written)
    }

    /// Makes room under the current name: the oldest file goes, every other one moves up.
    fn rotate(&mut self) -> Result<(), Errno> {
        // Without this file there is nothing left to move: only the new one is missing since an earlier try.
        if self.file.take().is_some() {
            match self.names.len() {
                1 => ignore_absent(rustix::fs::unlinkat(CWD, &self.names[0], rustix::fs::AtFlags::empty()))?,
                count => {
                    for number in (1..count).rev() {
                        ignore_absent(rustix::fs::renameat(CWD, &self.names[number - 1], CWD, &self.names[number]))?;
                    }
                }
            }
        }
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        self.file = Some(rustix::fs::openat(CWD, &self.names[0], flags, mode())?);
        self.size_bytes = 0;
        Ok(())
    }
}

/// dockerd's mode for log files.
fn mode() -> Mode {
    Mode::from_raw_mode(0o640)
}

fn name(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn ignore_absent(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
