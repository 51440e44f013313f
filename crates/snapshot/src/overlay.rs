//! `overlay2`: the kernel puts layers and a container's own files on top of each other.
//!
//! Nothing is copied: the directories of layers are what is mounted, and what a container changed is its upper directory.

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use oci::runtime::Mount;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use stdx::tree::Usage;
use sys::open::openat2;

use crate::chain::ChainId;
use crate::changes::{Changes, Comparison, Own, Stubs, compare};
use crate::driver::{OwnFiles, Snapshotter};
use crate::store::{Limit, Place, SnapshotError, of_tree};

/// Options of every overlay that we mount; the crate page says why they are explicit.
const OVERLAY_OPTIONS: [&str; 4] = ["index=off", "metacopy=off", "redirect_dir=off", "xino=off"];

#[derive(Debug)]
pub(crate) struct Overlay;

impl Snapshotter for Overlay {
    fn stack(&self, place: &Place, chain: &[ChainId]) -> Result<Vec<PathBuf>, SnapshotError> {
        place.layers(chain)
    }

    fn is_quick(&self) -> bool {
        true
    }

    fn fill(&self, container: &Path, stack: &[PathBuf], limit: Option<Limit<'_>>) -> Result<(), SnapshotError> {
        fill(container, &stack[0]).map_err(SnapshotError::io("create", container))?;
        let Some(limit) = limit else { return Ok(()) };
        // Not the directory of both: that is renamed, which a project would not allow everywhere.
        let (upper, work) = (container.join("fs"), container.join("work"));
        limit(&[&upper, &work]).map_err(SnapshotError::io("limit", &upper))
    }

    fn mount(&self, container: &Path, stack: &[PathBuf]) -> Mount {
        overlay(stack, own_options(container))
    }

    fn view(&self, stack: &[PathBuf]) -> Vec<Mount> {
        // Overlayfs refuses a single lower directory without an upper one.
        let [only] = stack else { return vec![overlay(stack, vec!["ro".to_owned()])] };
        vec![bind(only, "ro")]
    }

    fn changes(
        &self,
        container: &Path,
        stack: &[PathBuf],
        stubs: Stubs<'_>,
        stop: &AtomicBool,
    ) -> Result<Changes, SnapshotError> {
        compare(&container.join("fs"), stack, stubs, Comparison { own: Own::Overlay, stop }).map(|(changes, _)| changes)
    }

    fn usage(
        &self,
        _place: &Place,
        container: &Path,
        _chain: &dyn Fn() -> Result<Vec<ChainId>, SnapshotError>,
        stubs: Stubs<'_>,
        stop: &AtomicBool,
    ) -> Result<Usage, SnapshotError> {
        let own = container.join("fs");
        let mut usage = of_tree(&own, stop)?;
        // Stubs of files are empty; a link is as long as what it says.
        let links = stubs.links.iter().filter(|(link, target)| says(&own, link, target));
        let links = links.map(|(_, target)| target.len() as u64);
        usage.bytes = usage.bytes.saturating_sub(links.sum());
        Ok(usage)
    }

    fn own_files(&self, _place: &Place, container: &Path, _changes: &Changes) -> Result<OwnFiles, SnapshotError> {
        Ok(OwnFiles { path: container.join("fs"), _made: None })
    }

    fn discard(&self, _trash: &Path) {}
}

/// Whether a link among a container's own files says that. Whatever the container has made of its directories, nothing else
/// is looked at.
fn says(own: &Path, link: &str, target: &str) -> bool {
    let (flags, resolve) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS);
    let read = || {
        let own = openat2(CWD, own, flags | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::empty())?;
        let link = openat2(own, link, flags | OFlags::NOFOLLOW, Mode::empty(), resolve)?;
        rustix::fs::readlinkat(link, "", Vec::new())
    };
    read().is_ok_and(|said: CString| said.to_bytes() == target.as_bytes())
}

fn fill(container: &Path, top: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(container.join("work"))?;
    let (upper, root) = (container.join("fs"), fs::metadata(top)?);
    fs::create_dir(&upper)?;
    if (root.uid(), root.gid()) != (0, 0) {
        std::os::unix::fs::chown(&upper, Some(root.uid()), Some(root.gid()))?;
    }
    fs::set_permissions(&upper, PermissionsExt::from_mode(root.mode() & 0o7777))
}

/// The options that name a container's own directories.
pub(crate) fn own_options(container: &Path) -> Vec<String> {
    let option = |name, directory| format!("{name}={}", container.join(directory).display());
    vec![option("upperdir", "fs"), option("workdir", "work")]
}

/// Has a mount leave out all syncs, if the kernel knows of that (overlayfs.rst, "Volatile mount").
pub(crate) fn without_syncs(mount: &mut Mount) {
    if sys::overlay::leaves_out_syncs() {
        mount.options.push("volatile".to_owned());
    }
}

/// Takes away the mark by which the kernel refuses to mount a container's directories again that were mounted without syncs: what a
/// power cut took would not be missed.
pub(crate) fn forget_unsynced(container: &Path) -> io::Result<()> {
    stdx::fs::remove_if_exists(&container.join("work/work/incompat"))
}

/// A directory or file as it is, `ro` or `rw`.
pub(crate) fn bind(source: &Path, access: &str) -> Mount {
    let options = vec!["bind".to_owned(), access.to_owned()];
    Mount { kind: "bind".into(), source: source.to_owned(), options, ..Mount::default() }
}

fn overlay(lowers: &[PathBuf], more: Vec<String>) -> Mount {
    let mut options: Vec<String> = lowers.iter().map(|lower| format!("lowerdir+={}", lower.display())).collect();
    options.extend(more);
    options.extend(OVERLAY_OPTIONS.map(str::to_owned));
    Mount { kind: "overlay".into(), source: "overlay".into(), options, ..Mount::default() }
}
