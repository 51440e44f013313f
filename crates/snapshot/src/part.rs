//! A part of stacked layers, without mounting all of them first: nobody can clone a part of what is attached nowhere before
//! Linux 6.15.
//!
//! The directories at one path in each of the layers, stacked, are the same as that path in the stacked layers, as long as
//! the walk minds what upper ones hide. It goes down all of them at once, one name at a time:
//!
//! ```text
//!                 /     a          a/b
//!   upper layer   x     x          -         the directory a is there, b is not
//!   middle layer  x     x opaque   x         nothing below it counts
//!   lower layer   x     hidden     hidden
//! ```
//! A link starts the walk anew, with its target in the place of what was walked; it never leads above the root. Layers never
//! change, so that nobody puts a link in the way.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use oci::runtime::Mount;
use rustix::fs::{FileType, lstat};
use rustix::io::Errno;

use crate::chain::ChainId;
use crate::changes::{is_opaque, is_whiteout};
use crate::store::{SnapshotError, Snapshots};

/// As many links as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What stacked directories have under a name.
enum Found {
    /// Directories, uppermost first.
    Directories(Vec<PathBuf>),
    /// A file of another kind.
    File(PathBuf),
    /// A link to there.
    Link(PathBuf),
    /// Nothing.
    Nothing,
}

/// How to mount what is at `part` of `chain` (lowest first) read-only: a directory or a single file.
pub fn view_part(snapshots: &Snapshots, chain: &[ChainId], part: &Path) -> Result<Vec<Mount>, SnapshotError> {
    let layers = snapshots.stack(chain)?;
    let missing = || SnapshotError::NoSuchPart { part: part.to_owned() };
    let (mut here, mut walked, mut links) = (layers.clone(), Vec::new(), 0);
    let mut rest = names(part);
    while let Some(name) = rest.pop_front() {
        let looked = look(&here, &name).map_err(SnapshotError::io("look at", &here[0].join(&name)))?;
        match looked {
            Found::Directories(below) => {
                walked.push(name);
                here = below;
            }
            Found::File(file) if rest.is_empty() => return Ok(snapshots.snapshotter.view(&[file])),
            Found::Link(target) if links < LINKS_MAX => {
                links += 1;
                let target = walked.iter().collect::<PathBuf>().join(target);
                rest = names(&rest.iter().fold(target, |path, name| path.join(name)));
                (here, walked) = (layers.clone(), Vec::new());
            }
            Found::File(_) | Found::Link(_) | Found::Nothing => return Err(missing()),
        }
    }
    Ok(snapshots.snapshotter.view(&here))
}

fn look(stacked: &[PathBuf], name: &OsString) -> io::Result<Found> {
    let mut below = Vec::new();
    for directory in stacked {
        let place = directory.join(name);
        let stat = match lstat(&place) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(err) => return Err(err.into()),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind.is_dir() {
            let opaque = is_opaque(File::open(&place)?);
            below.push(place);
            if opaque {
                break;
            }
            continue;
        }
        return Ok(match below.is_empty() {
            // Under a directory of an upper layer whatever is none is hidden, with all below it.
            false => Found::Directories(below),
            true if is_whiteout(&stat) => Found::Nothing,
            true if kind.is_symlink() => Found::Link(fs::read_link(&place)?),
            true => Found::File(place),
        });
    }
    Ok(if below.is_empty() { Found::Nothing } else { Found::Directories(below) })
}

/// The names of a path from the root, which `..` does not leave.
fn names(path: &Path) -> VecDeque<OsString> {
    let mut names = VecDeque::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push_back(name.to_owned()),
            Component::ParentDir => drop(names.pop_back()),
            Component::RootDir => names.clear(),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    names
}

#[cfg(test)]
mod tests;
