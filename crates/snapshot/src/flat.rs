//! `vfs` and `btrfs`: a container has all its files in one tree, and nothing is mounted on top of anything.
//!
//! Layers stay what they are, as for overlayfs. What a chain of them shows is put together once, and containers are copies:
//!
//! ```text
//! <root>/m/<32 hex>      all layers of a chain in one tree; the name is that of its last layer, or `empty`
//! <root>/c/<key>/fs      a copy of it, which the container has mounted
//!
//!             the trees in m                          containers
//!   vfs       directories; files are links to those   full copies, or reflinks where the file system has them
//!             of the layers
//!   btrfs     subvolumes; files are reflinks          snapshots
//! ```
//! A tree begins as a copy of the one of the longest chain below that is there, so that a build adds its last layer alone. It
//! is on disk before it gets its name, and is collected with its layer.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use oci::runtime::Mount;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use stdx::tree::Usage;

use crate::chain::ChainId;
use crate::changes::{ChangeKind, Changes, Comparison, Own, Stubs, compare};
use crate::copy::{CopyError, Copying, Files};
use crate::driver::{OwnFiles, Snapshotter};
use crate::overlay::bind;
use crate::store::{Limit, Place, ROOT_MODE, SnapshotError, make_dir};

/// See the page above.
#[derive(Debug)]
pub(crate) struct Flat {
    subvolumes: bool,
}

impl Flat {
    /// `vfs`.
    pub(crate) fn copies() -> Flat {
        Flat { subvolumes: false }
    }

    /// `btrfs`.
    pub(crate) fn subvolumes() -> Flat {
        Flat { subvolumes: true }
    }

    /// Puts the layers of a chain together at `to`.
    fn merge(&self, place: &Place, chain: &[ChainId], to: &Path) -> Result<(), SnapshotError> {
        let have = (1..=chain.len()).rev().find(|count| place.merged(&chain[..*count]).exists()).unwrap_or(0);
        let layers = place.layers(chain)?;
        match have {
            0 => self.make(to)?,
            have => self.copy(&place.merged(&chain[..have]), to, Files::Linked)?,
        }
        // Lowest first; those that are in already are the last of them.
        let mut copying = Copying::new(to, if self.subvolumes { Files::Copied } else { Files::Linked })?;
        for layer in layers.iter().rev().skip(have).filter(|_| !chain.is_empty()) {
            copying.add(layer)?;
        }
        Ok(())
    }

    /// Makes an empty tree.
    fn make(&self, to: &Path) -> Result<(), SnapshotError> {
        let made =
            if self.subvolumes { in_parent(to, |parent, name| sys::btrfs::create(parent, name)) } else { Ok(()) };
        let made = made.and_then(|()| match self.subvolumes {
            true => fs::set_permissions(to, PermissionsExt::from_mode(ROOT_MODE)),
            false => make_dir(to, ROOT_MODE),
        });
        made.map_err(SnapshotError::io("create", to))
    }

    /// Makes a copy of a tree.
    fn copy(&self, from: &Path, to: &Path, files: Files) -> Result<(), SnapshotError> {
        if self.subvolumes {
            let copied = File::open(from)
                .and_then(|source| in_parent(to, |parent, name| sys::btrfs::snapshot(parent, name, &source)));
            return copied.map_err(SnapshotError::io("make a snapshot", to));
        }
        self.make(to)?;
        Ok(Copying::new(to, files)?.add(from)?)
    }
}

impl Snapshotter for Flat {
    fn stack(&self, place: &Place, chain: &[ChainId]) -> Result<Vec<PathBuf>, SnapshotError> {
        let merged = place.merged(chain);
        if merged.exists() {
            return Ok(vec![merged]);
        }
        let mut stage = place.stage();
        self.merge(place, chain, &stage.path)?;
        // A name that a power cut leaves is that of a whole tree.
        place.sync().map_err(SnapshotError::io("sync", &stage.path))?;
        match rustix::fs::renameat_with(CWD, &stage.path, CWD, &merged, RenameFlags::NOREPLACE) {
            Ok(()) => stage.committed = true,
            // Somebody else was as quick.
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(err) => return Err(SnapshotError::io("name", &merged)(err.into())),
        }
        Ok(vec![merged])
    }

    fn is_quick(&self) -> bool {
        false
    }

    fn fill(&self, container: &Path, stack: &[PathBuf], limit: Option<Limit<'_>>) -> Result<(), SnapshotError> {
        let to = container.join("fs");
        let Some(limit) = limit else {
            self.copy(&stack[0], &to, Files::Copied)?;
            return self.settle(container);
        };
        if self.subvolumes {
            // What a snapshot has belongs to no project.
            return Err(SnapshotError::io("limit", &to)(Errno::OPNOTSUPP.into()));
        }
        self.make(&to)?;
        limit(&[&to]).map_err(SnapshotError::io("limit", &to))?;
        Copying::new(&to, Files::Copied)?.add(&stack[0])?;
        self.settle(container)
    }

    fn mount(&self, container: &Path, _stack: &[PathBuf]) -> Mount {
        bind(&container.join("fs"), "rw")
    }

    fn view(&self, stack: &[PathBuf]) -> Vec<Mount> {
        // All layers are in one directory; a part of an image is one, too.
        stack.iter().map(|tree| bind(tree, "ro")).collect()
    }

    fn changes(
        &self,
        container: &Path,
        stack: &[PathBuf],
        stubs: Stubs<'_>,
        stop: &AtomicBool,
    ) -> Result<Changes, SnapshotError> {
        compare(&container.join("fs"), stack, stubs, Comparison { own: Own::Whole, stop }).map(|(changes, _)| changes)
    }

    fn usage(
        &self,
        place: &Place,
        container: &Path,
        chain: &dyn Fn() -> Result<Vec<ChainId>, SnapshotError>,
        stubs: Stubs<'_>,
        stop: &AtomicBool,
    ) -> Result<Usage, SnapshotError> {
        let stack = self.stack(place, &chain()?)?;
        let how = Comparison { own: Own::Whole, stop };
        compare(&container.join("fs"), &stack, stubs, how).map(|(_, usage)| usage)
    }

    fn own_files(&self, place: &Place, container: &Path, changes: &Changes) -> Result<OwnFiles, SnapshotError> {
        let stage = place.stage();
        make_dir(&stage.path, ROOT_MODE).map_err(SnapshotError::io("create", &stage.path))?;
        let mut copying = Copying::new(&stage.path, Files::Linked)?;
        let from = container.join("fs");
        let gone = |kind: &ChangeKind| *kind == ChangeKind::Deleted;
        copying.pick(&from, changes.paths.iter().map(|(path, kind)| (path.as_slice(), gone(kind))))?;
        Ok(OwnFiles { path: stage.path.clone(), _made: Some(stage) })
    }

    fn discard(&self, trash: &Path) {
        if !self.subvolumes {
            return;
        }
        // Whatever this cannot, as where a container has made subvolumes of its own, the sweep removes file by file.
        for tree in fs::read_dir(trash).into_iter().flatten().flatten().map(|entry| entry.path()) {
            for place in [tree.join("fs"), tree] {
                let _ = in_parent(&place, |parent, name| sys::btrfs::destroy(parent, name));
            }
        }
    }
}

impl Flat {
    /// A container's copy is on disk before its record says that there is one; btrfs sees to that by itself.
    fn settle(&self, container: &Path) -> Result<(), SnapshotError> {
        if self.subvolumes {
            return Ok(());
        }
        let synced = File::open(container).and_then(|directory| Ok(rustix::fs::syncfs(directory)?));
        synced.map_err(SnapshotError::io("sync", container))
    }
}

impl From<CopyError> for SnapshotError {
    fn from(err: CopyError) -> SnapshotError {
        SnapshotError::io("copy", &err.path)(err.source.into())
    }
}

/// Does something to a name in its directory.
fn in_parent<T>(path: &Path, act: impl FnOnce(&File, &std::ffi::CStr) -> io::Result<T>) -> io::Result<T> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
    act(&File::open(parent)?, &CString::new(name.as_bytes())?)
}
