//! Removing trees that a container made.

use std::io;
use std::path::PathBuf;

use errdefs::ErrorKind;
use rustix::fs::{AtFlags, CWD, Dir, FileType, renameat, unlinkat};
use rustix::io::Errno;

use crate::overlay::Overlay;
use crate::usage::open_dir;

/// Levels that are walked with an open descriptor each. What nests deeper is moved up and walked on its own, because a
/// container can nest directories beyond any limit on descriptors.
const DEPTH_MAX: usize = 64;

/// Trees of the trash that could not be removed; they are tried again at the next sweep.
#[derive(Debug, thiserror::Error)]
#[error("remove {}, and {more} more", path.display())]
pub struct SweepError {
    /// The first that failed.
    pub path: PathBuf,
    /// How many failed beside it.
    pub more: usize,
    /// Why the first one failed.
    pub source: io::Error,
}

impl SweepError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

impl Overlay {
    /// Removes what `remove`, `retain_layers` and dropped stages put in the trash; returns the number of trees.
    ///
    /// Takes as long as the trees are large: call it in the background. Two sweeps at once do no harm.
    pub fn sweep(&self) -> Result<usize, SweepError> {
        let (mut removed, mut failed) = (0, Vec::new());
        loop {
            let trash = self.root.join("trash");
            let names = match list(&trash) {
                Ok(names) => names,
                Err(err) => return Err(SweepError { path: trash, more: 0, source: err.into() }),
            };
            let mut progress = false;
            failed.clear();
            for path in names.into_iter().map(|name| trash.join(name)) {
                match self.remove_tree(&path) {
                    Ok(()) => (removed, progress) = (removed + 1, true),
                    Err(source) => failed.push((path, source)),
                }
            }
            // Deep trees leave their lower parts in the trash, for the next round.
            if !progress {
                break;
            }
        }
        let more = failed.len().saturating_sub(1);
        match failed.into_iter().next() {
            None => Ok(removed),
            Some((path, source)) => Err(SweepError { path, more, source: source.into() }),
        }
    }

    fn remove_tree(&self, path: &PathBuf) -> Result<(), Errno> {
        match unlinkat(CWD, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(err) => return Err(err),
        }
        self.empty_dir(open_dir(CWD, path)?, DEPTH_MAX)?;
        ignore_absent(unlinkat(CWD, path, AtFlags::REMOVEDIR))
    }

    fn empty_dir(&self, mut dir: Dir, depth: usize) -> Result<(), Errno> {
        while let Some(entry) = dir.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if entry.file_type() != FileType::Directory {
                ignore_absent(unlinkat(dir.fd()?, name, AtFlags::empty()))?;
                continue;
            }
            if depth == 0 {
                ignore_absent(renameat(dir.fd()?, name, CWD, self.trash_path()))?;
                continue;
            }
            self.empty_dir(open_dir(dir.fd()?, name)?, depth - 1)?;
            ignore_absent(unlinkat(dir.fd()?, name, AtFlags::REMOVEDIR))?;
        }
        Ok(())
    }
}

fn list(path: &PathBuf) -> Result<Vec<PathBuf>, Errno> {
    let mut dir = open_dir(CWD, path)?;
    let mut names = Vec::new();
    while let Some(entry) = dir.read() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(PathBuf::from(name));
        }
    }
    Ok(names)
}

fn ignore_absent(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
