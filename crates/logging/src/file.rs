//! The file under the writing thread: appends, rotates, compresses. Allocates only in [`LogFile::open`].

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::packed::{Packed, Packer, Packing};

/// When files change places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file of at least this size gets no further line; never rotated if absent.
    pub max_size_bytes: Option<u64>,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
    /// Whether rotated files are compressed.
    pub compress: bool,
}

/// The current file of a log.
pub(crate) struct LogFile {
    /// Closed while a rotation has not got its new file.
    file: Option<OwnedFd>,
    size_bytes: u64,
    max_size_bytes: u64,
    /// The current name and those of the rotated files, all made beforehand.
    names: Vec<CString>,
    packing: Option<PackedNames>,
}

/// What belongs to compression.
struct PackedNames {
    /// Of the compressed files; the first is that of the one in the making.
    names: Vec<CString>,
    /// The youngest rotated file waits for its compression, or is under way.
    pending: bool,
    work: Option<Packing>,
}

/// The path of the `number`th rotated file; 1 is the youngest.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    suffixed(path, &format!(".{number}"))
}

/// As [`rotated`], of the compressed one.
pub(crate) fn rotated_packed(path: &Path, number: u32) -> PathBuf {
    suffixed(path, &format!(".{number}.gz"))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl LogFile {
    /// Opens or makes the file. A last line that was torn by a power cut is ended, so that it spoils no other.
    pub(crate) fn open(path: &Path, rotation: Rotation) -> io::Result<LogFile> {
        let mut names = vec![name(path)?];
        for number in 1..rotation.max_files {
            names.push(name(&rotated(path, number))?);
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
        let packing = if rotation.compress && rotation.max_files > 1 {
            let mut packed = vec![name(&suffixed(path, ".gz.tmp"))?];
            for number in 1..rotation.max_files {
                packed.push(name(&rotated_packed(path, number))?);
            }
            Some(PackedNames { names: packed, pending: false, work: None })
        } else {
            None
        };
        Ok(LogFile { file: Some(file), size_bytes, max_size_bytes, names, packing })
    }

    /// Writes from the front of `lines`, as many whole lines as go before the next rotation; answers how many bytes went.
    /// May stop inside a line when the disk is full: the caller goes on from there.
    pub(crate) fn write(
        &mut self,
        lines: &[u8],
        at_line_start: bool,
        packer: Option<&mut Packer>,
    ) -> Result<usize, Errno> {
        if at_line_start && self.size_bytes >= self.max_size_bytes || self.file.is_none() {
            self.rotate(packer)?;
        }
        let room = usize::try_from(self.max_size_bytes.saturating_sub(self.size_bytes)).unwrap_or(usize::MAX);
        // The line that crosses the limit still belongs to this file, as with dockerd.
        let end = match lines.get(room.saturating_sub(1)..) {
            Some(over) => lines.len() - over.len() + memchr::memchr(b'\n', over).map_or(over.len(), |at| at + 1),
            None => lines.len(),
        };
        let Some(file) = &self.file else { return Err(Errno::BADF) };
        let written = rustix::io::retry_on_intr(|| rustix::io::write(file, &lines[..end]))?;
        self.size_bytes += written as u64;
        Ok(written)
    }

    /// Whether a file waits to be compressed.
    pub(crate) fn wants_packing(&self) -> bool {
        self.packing.as_ref().is_some_and(|packing| packing.pending)
    }

    /// Goes on with a compression. A file that cannot be compressed stays as it is.
    pub(crate) fn pack(&mut self, packer: &mut Packer) {
        let Some(packing) = self.packing.as_mut().filter(|packing| packing.pending) else { return };
        if let Ok(Packed::More) = packing.step(&self.names[1], packer) {
            return;
        }
        packing.pending = false;
        packing.work = None;
        // It is there no more unless something failed.
        let _ = unlink(&packing.names[0]);
    }

    /// Makes room under the current name: the oldest file goes, every other one moves up.
    fn rotate(&mut self, packer: Option<&mut Packer>) -> Result<(), Errno> {
        if let Some(packer) = packer {
            while self.wants_packing() {
                self.pack(packer);
            }
        }
        // Without this file there is nothing left to move: only the new one is missing since an earlier try.
        if self.file.take().is_some() {
            match self.names.len() {
                1 => unlink(&self.names[0])?,
                count => self.move_up(count)?,
            }
        }
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        self.file = Some(rustix::fs::openat(CWD, &self.names[0], flags, mode())?);
        self.size_bytes = 0;
        Ok(())
    }

    fn move_up(&mut self, count: usize) -> Result<(), Errno> {
        if let Some(packing) = &mut self.packing {
            unlink(&self.names[count - 1])?;
            unlink(&packing.names[count - 1])?;
            for number in (2..count).rev() {
                rename(&packing.names[number - 1], &packing.names[number])?;
            }
            // One that was not compressed in time stays as it is.
            packing.work = None;
            packing.pending = true;
        }
        for number in (1..count).rev() {
            rename(&self.names[number - 1], &self.names[number])?;
        }
        Ok(())
    }
}

impl PackedNames {
    fn step(&mut self, from: &CStr, packer: &mut Packer) -> Result<Packed, Errno> {
        let work = match &self.work {
            Some(work) => work,
            None => self.work.insert(packer.begin(from, &self.names[0], mode())?),
        };
        if packer.step(work)? == Packed::More {
            return Ok(Packed::More);
        }
        rustix::fs::renameat(CWD, &self.names[0], CWD, &self.names[1])?;
        unlink(from)?;
        Ok(Packed::Whole)
    }
}

/// dockerd's mode for log files.
fn mode() -> Mode {
    Mode::from_raw_mode(0o640)
}

fn name(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn rename(from: &CStr, to: &CStr) -> Result<(), Errno> {
    ignore_absent(rustix::fs::renameat(CWD, from, CWD, to))
}

fn unlink(path: &CStr) -> Result<(), Errno> {
    ignore_absent(rustix::fs::unlinkat(CWD, path, AtFlags::empty()))
}

fn ignore_absent(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
