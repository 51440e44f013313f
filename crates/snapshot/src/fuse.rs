//! `fuse-overlayfs`: a program puts layers and a container's own files on top of each other, where the kernel does not.
//!
//! Directories are those of overlayfs, with what the program leaves in a container's own beside overlayfs' marks
//! (fuse-overlayfs main.c, `set_fd_opaque`, `create_whiteout`):
//!
//! ```text
//! .wh..wh..opq, .wh..opq    in a directory that is opaque as well
//! a whiteout                also for what no layer has
//! ```
//! Names that begin with `.wh.` are the program's: no container can make them, and nobody is told of them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use oci::runtime::Mount;
use rustix::fs::{FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use stdx::tree::Usage;

use crate::chain::ChainId;
use crate::changes::{ChangeKind, Changes, Comparison, Own, Stubs, compare};
use crate::copy::{Copying, Files};
use crate::driver::{OwnFiles, Snapshotter, Unusable};
use crate::overlay::{self, Overlay, bind};
use crate::store::{Limit, Place, ROOT_MODE, SnapshotError, make_dir};

/// The program, found in `PATH` as dockerd finds it.
const PROGRAM: &str = "fuse-overlayfs";

/// See the page above.
#[derive(Debug)]
pub(crate) struct Fuse {
    pub(crate) program: PathBuf,
}

impl Fuse {
    /// With the program that `PATH` has.
    pub(crate) fn new() -> Result<Fuse, Unusable> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // It is started from another directory than ours.
        let candidates = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
        let found = candidates.map(|directory| directory.join(PROGRAM)).find(|file| is_program(file));
        Ok(Fuse { program: found.ok_or(Unusable::Program(PROGRAM))? })
    }

    /// Every write is in the container's own directory when it is done: that is what `diff`, `commit` and sizes look at.
    fn stacked(&self, stack: &[PathBuf], more: Vec<String>) -> Mount {
        let mut options: Vec<String> = stack.iter().map(|layer| format!("lowerdir+={}", layer.display())).collect();
        options.extend(more);
        options.push("writeback=0".to_owned());
        Mount { kind: sys::fuse::KIND.into(), source: self.program.clone(), options, ..Mount::default() }
    }
}

impl Snapshotter for Fuse {
    fn stack(&self, place: &Place, chain: &[ChainId]) -> Result<Vec<PathBuf>, SnapshotError> {
        Overlay.stack(place, chain)
    }

    fn is_quick(&self) -> bool {
        Overlay.is_quick()
    }

    fn fill(&self, container: &Path, stack: &[PathBuf], limit: Option<Limit<'_>>) -> Result<(), SnapshotError> {
        if limit.is_some() {
            // dockerd has none for it either.
            return Err(SnapshotError::io("limit", &container.join("fs"))(Errno::OPNOTSUPP.into()));
        }
        Overlay.fill(container, stack, None)
    }

    fn mount(&self, container: &Path, stack: &[PathBuf]) -> Mount {
        self.stacked(stack, overlay::own_options(container))
    }

    fn view(&self, stack: &[PathBuf]) -> Vec<Mount> {
        match stack {
            [only] => vec![bind(only, "ro")],
            _ => vec![self.stacked(stack, vec!["ro".to_owned()])],
        }
    }

    fn changes(
        &self,
        container: &Path,
        stack: &[PathBuf],
        stubs: Stubs<'_>,
        stop: &AtomicBool,
    ) -> Result<Changes, SnapshotError> {
        compare(&container.join("fs"), stack, stubs, Comparison { own: Own::Fuse, stop }).map(|(changes, _)| changes)
    }

    fn usage(
        &self,
        place: &Place,
        container: &Path,
        chain: &dyn Fn() -> Result<Vec<ChainId>, SnapshotError>,
        stubs: Stubs<'_>,
        stop: &AtomicBool,
    ) -> Result<Usage, SnapshotError> {
        // What the program leaves is empty.
        Overlay.usage(place, container, chain, stubs, stop)
    }

    fn own_files(&self, place: &Place, container: &Path, changes: &Changes) -> Result<OwnFiles, SnapshotError> {
        let stage = place.stage();
        make_dir(&stage.path, ROOT_MODE).map_err(SnapshotError::io("create", &stage.path))?;
        let mut copying = Copying::new(&stage.path, Files::Linked)?;
        let gone = |kind: &ChangeKind| *kind == ChangeKind::Deleted;
        let changed = changes.paths.iter().map(|(path, kind)| (path.as_slice(), gone(kind)));
        copying.keep_opaque().pick(&container.join("fs"), changed)?;
        Ok(OwnFiles { path: stage.path.clone(), _made: Some(stage) })
    }

    fn discard(&self, _trash: &Path) {}
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether the program is there, and can do its work below a directory.
pub(crate) fn check(directory: &Path) -> Result<(), Unusable> {
    Fuse::new()?;
    let device = rustix::fs::open(sys::fuse::DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    device.map_err(|err| Unusable::Device { path: sys::fuse::DEVICE, source: err.into() })?;
    let probe = directory.join(format!(".marks-{}", stdx::id::random_hex::<8>()));
    let tried = try_marks(&probe);
    // What a death leaves behind is a directory with a marked node.
    let removed = fs::remove_dir_all(&probe);
    tried.and(removed).map_err(Unusable::Overlay)
}

/// Makes what layers are marked with.
pub(crate) fn try_marks(probe: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(probe)?;
    rustix::fs::setxattr(probe, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
    let whiteout = probe.join("whiteout");
    Ok(rustix::fs::mknodat(rustix::fs::CWD, whiteout, FileType::CharacterDevice, Mode::empty(), 0)?)
}
