//! `RUN --mount`: what a command sees of other files while it runs, and what of that is taken away behind it.
//!
//! ```text
//! wanted --see--> what binds and new caches show, which the step's key depends on
//!        --prepare--> PreparedMounts: mounts of the container's own mount namespace, and what they are of
//! the command runs; its container goes, and with it the mounts
//! PreparedMounts::stubs --> places that were made for the mounts, which no layer has
//! ```
//! Nothing is mounted on the host, so nothing is left there however the daemon ends. What is mounted is on no record: a
//! container that is built in is started once, by the daemon that made it.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bridge::Abandoned;
use builder::mounts::{From, Mounted, Owner, Part, RunMount};
use oci::runtime::Mount;
use rustix::fs::{CWD, Mode, OFlags};
use snapshot::{Driver, Stubs};

use super::caches::{Lease, Wish};
use super::carried::Carried;
use super::client_files::{ClientFileError, ClientFiles, Secret};
use super::failed_at::Missing;
use super::receive::Context;
use super::sources::{self, SourceError};
use super::transfer::{self, TransferError};
use super::tree::{Found, Tree};
use super::work::ImageTree;
use crate::Engine;
use crate::container::Unrecorded;
use crate::ops::changes::STUBS;

/// What keeps overlays from other features than those of the layers' own (crate `snapshot`).
const OVERLAY_OPTIONS: [&str; 4] = ["index=off", "metacopy=off", "redirect_dir=off", "xino=off"];

/// Why a command does not get its mounts.
#[derive(Debug, thiserror::Error)]
pub enum RunMountError {
    /// What is to be mounted is not there.
    #[error("mount {target}")]
    Source {
        /// Where in the container.
        target: String,
        /// Why.
        source: SourceError,
    },
    /// The layers of an image cannot be put together.
    #[error("mount {target}")]
    Layers {
        /// Where in the container.
        target: String,
        /// Why.
        source: snapshot::SnapshotError,
    },
    /// What is written to cannot be made of what is there.
    #[error("make a copy for {target}")]
    Copy {
        /// Where in the container.
        target: String,
        /// Why.
        source: TransferError,
    },
    /// A place for files is not there.
    #[error("make a place for {target}")]
    Place {
        /// Where in the container.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// Only directories are kept.
    #[error("the cache at {0} begins with a file, not a directory")]
    CacheOfFile(String),
}

/// Whose files are shown.
#[derive(Clone)]
pub(super) enum Whose {
    Nothing,
    Context(Arc<Context>),
    Image(Arc<ImageTree>),
}

/// What a mount shows.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) whose: Whose,
    pub(super) part: Part,
    /// All that the step's outcome depends on; empty where it must not.
    pub(super) exact: String,
}

impl Whose {
    fn tree(&self) -> Option<&Tree> {
        match self {
            Whose::Nothing => None,
            Whose::Context(context) => Some(&context.tree),
            Whose::Image(image) => Some(&image.tree),
        }
    }
}

/// Looks at what mounts show. Blocks: reads all that a bind shows, but of a whole image its layers' names.
pub(super) fn see(mounts: &[RunMount], whose: Vec<Whose>, abandoned: &Abandoned) -> Result<Vec<Seen>, SourceError> {
    let one = |(mount, whose): (&RunMount, Whose)| {
        let Some(part) = part(mount) else {
            let part = Part { from: From::Nothing, source: "/".to_owned() };
            return Ok(Seen { whose: Whose::Nothing, part, exact: String::new() });
        };
        let exact = match (&mount.what, &whose) {
            (Mounted::Bind(_), Whose::Image(image)) if part.source == "/" && !image.is_files() => {
                format!("{:?}", image.chain)
            }
            (Mounted::Bind(_), Whose::Context(context)) => {
                sources::exact(&context.tree, &part.source[1..], true, abandoned)?
            }
            (Mounted::Bind(_), Whose::Image(image)) => {
                sources::exact(&image.tree, &part.source[1..], false, abandoned)?
            }
            _ => String::new(),
        };
        Ok(Seen { whose, part: part.clone(), exact })
    };
    mounts.iter().zip(whose).map(one).collect()
}

/// The part of a tree that a mount shows, or begins with.
pub(super) fn part(mount: &RunMount) -> Option<&Part> {
    match &mount.what {
        Mounted::Bind(part) | Mounted::Cache { from: part, .. } => Some(part),
        _ => None,
    }
}

/// The stage or image that a mount shows a part of.
pub(super) fn named(mount: &RunMount) -> Option<&str> {
    match part(mount) {
        Some(Part { from: From::Named(name), .. }) => Some(name),
        _ => None,
    }
}

/// What of a mount the step's key has.
pub(super) fn words(mount: &RunMount, seen: &Seen) -> String {
    format!("{} {}", wanted(mount), seen.exact)
}

/// The same without what is shown.
pub(super) fn wanted(mount: &RunMount) -> String {
    let what = match &mount.what {
        // Which name it has is no part of what is seen.
        Mounted::Bind(_) => "bind".to_owned(),
        // Nor which one is filled: as with BuildKit, what is done with it is what counts.
        Mounted::Cache { .. } => "cache".to_owned(),
        Mounted::Tmpfs(bytes) => format!("tmpfs {bytes}"),
        Mounted::Secret { id, env, .. } => format!("secret {id} {env:?}"),
        Mounted::Ssh { id, .. } => format!("ssh {id}"),
    };
    format!("mount {} {} {what}", mount.target, mount.read_only)
}

/// What caches a command wants, one for each mount that is one.
pub(super) fn caches(mounts: &[RunMount], seen: &[Seen], command: &[String]) -> Vec<Option<Wish>> {
    let wish = |(mount, seen): (&RunMount, &Seen)| {
        let Mounted::Cache { id, from, sharing, owner } = &mount.what else { return None };
        let begins_with = match &seen.whose {
            Whose::Nothing => String::new(),
            Whose::Context(_) => format!("context {}", from.source),
            Whose::Image(image) if image.is_files() => format!("context of a name {}", from.source),
            Whose::Image(image) => format!("{:?} {}", image.chain, from.source),
        };
        let about = format!(
            "cached mount {} from exec {} with id {}",
            mount.target,
            command.join(" "),
            builder::go::quote(&format!("/{id}"))
        );
        Some(Wish { key: format!("{id}\0{begins_with}\0{owner:?}"), sharing: *sharing, about })
    };
    mounts.iter().zip(seen).map(wish).collect()
}

/// What a start mounts for a command, and what has to be there as long as it runs.
#[derive(Default)]
pub(super) struct PreparedMounts {
    pub(super) unrecorded: Unrecorded,
    /// What no layer may have.
    pub(super) secrets: Vec<Secret>,
    /// What is told of caches that came from elsewhere, and whether that is good.
    pub(super) told: Vec<(String, bool)>,
    kept: Option<ClientFiles>,
    /// Where something is mounted, and whether that is a directory.
    points: Vec<(String, bool)>,
    /// Caches are the command's, and trees stay mounted, as long as this is held.
    held_leases: Vec<Lease>,
    held_trees: Vec<Seen>,
}

/// Makes ready what a command mounts; `name` is that of its own directories in the build's. A cache that is not here begins
/// with the one that somebody else has, if it is `carried`. Blocks.
pub(super) fn prepare(
    engine: &Engine,
    context: &Context,
    mounts: &[RunMount],
    seen: Vec<Seen>,
    mut leases: Vec<Option<Lease>>,
    carried: &[Option<Carried>],
    name: &str,
) -> Result<PreparedMounts, RunMountError> {
    let mut ready = PreparedMounts::default();
    for (index, (mount, seen)) in mounts.iter().zip(&seen).enumerate() {
        let scratch = context.place.join(&format!("{name}-{index}"));
        let made = match &mount.what {
            Mounted::Bind(_) => bind(engine, mount, seen, &scratch)?,
            Mounted::Cache { owner, .. } => {
                let lease = leases[index].as_ref().expect("every cache was asked for");
                let told = &mut ready.told;
                lease.fill(&scratch, |directory| match &carried[index] {
                    Some(carried) if restored(carried, mount, *owner, directory, told)? => Ok(()),
                    _ => begin_cache(mount, seen, *owner, directory),
                })?;
                bound(lease.directory(), mount.read_only)
            }
            Mounted::Tmpfs(bytes) => tmpfs(*bytes, mount.read_only),
            // What the client has is made ready by who asks it.
            Mounted::Secret { .. } | Mounted::Ssh { .. } => continue,
        };
        let is_directory = made.kind != "bind" || made.source.is_dir();
        ready.add(mount, made, is_directory);
    }
    ready.held_leases = leases.iter_mut().filter_map(Option::take).collect();
    ready.held_trees = seen;
    Ok(ready)
}

impl PreparedMounts {
    /// Puts a mount at its place.
    pub(super) fn add(&mut self, wanted: &RunMount, made: Mount, is_directory: bool) {
        self.points.push((wanted.target.clone(), is_directory));
        self.unrecorded.mounts.push(Mount { destination: wanted.target.clone().into(), ..made });
    }

    /// The place of what is the client's.
    pub(super) fn kept(&mut self, engine: &Engine) -> Result<&mut ClientFiles, ClientFileError> {
        let kept = match self.kept.take() {
            Some(kept) => kept,
            None => ClientFiles::new(&engine.config)?,
        };
        Ok(self.kept.insert(kept))
    }

    /// Whether nothing is mounted.
    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// What is made in a root so that these can be mounted.
    pub(super) fn stubs(&self, root: Option<&Tree>) -> Made {
        let mut made = Made::default();
        for (target, is_directory) in &self.points {
            made.add(root, target, *is_directory);
        }
        made
    }
}

/// What is made in a root for its mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    files: Vec<String>,
    directories: Vec<String>,
}

impl Made {
    fn add(&mut self, root: Option<&Tree>, target: &str, is_directory: bool) {
        let real = missing(root, target);
        let Some(real) = real else { return };
        let parts: Vec<&str> = real.split('/').filter(|part| !part.is_empty()).collect();
        let above = (1..parts.len()).map(|count| parts[..count].join("/"));
        self.directories.extend(above);
        match is_directory {
            true => self.directories.push(parts.join("/")),
            false => self.files.push(parts.join("/")),
        }
    }

    /// With what every start makes.
    pub(super) fn with_all<T>(&self, work: impl FnOnce(Stubs<'_>) -> T) -> T {
        let both = |all: &[&'static str], own: &'_ [String]| -> Vec<String> {
            all.iter().map(|path| (*path).to_owned()).chain(own.iter().cloned()).collect()
        };
        let (files, directories) = (both(STUBS.files, &self.files), both(STUBS.directories, &self.directories));
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let directories: Vec<&str> = directories.iter().map(String::as_str).collect();
        work(Stubs { files: &files, links: STUBS.links, directories: &directories })
    }
}

/// Where a place that is not there is made, links of what is there followed.
fn missing(root: Option<&Tree>, target: &str) -> Option<String> {
    let Some(root) = root else { return Some(target.to_owned()) };
    let (mut there, mut behind) = (target, String::new());
    loop {
        if let Ok(found) = root.find(there) {
            return (!behind.is_empty()).then(|| format!("{}{behind}", String::from_utf8_lossy(&found.path)));
        }
        let (above, name) = there.rsplit_once('/')?;
        behind = format!("/{name}{behind}");
        there = if above.is_empty() { "/" } else { above };
    }
}

/// A bind of the host's.
pub(super) fn bound(source: &Path, read_only: bool) -> Mount {
    let access = if read_only { "ro" } else { "rw" };
    let options = ["rbind", access, "rprivate"].map(str::to_owned).into();
    Mount { kind: "bind".to_owned(), source: source.to_owned(), options, ..Mount::default() }
}

fn tmpfs(bytes: i64, read_only: bool) -> Mount {
    let size = (bytes > 0).then(|| format!("size={bytes}"));
    let access = read_only.then(|| "ro".to_owned());
    let options = ["nosuid", "nodev"].map(str::to_owned).into_iter().chain(size).chain(access).collect();
    Mount { kind: "tmpfs".to_owned(), source: "tmpfs".into(), options, ..Mount::default() }
}

fn bind(engine: &Engine, mount: &RunMount, seen: &Seen, scratch: &Path) -> Result<Mount, RunMountError> {
    let of = |target: &RunMount| target.target.clone();
    let place = |source| RunMountError::Place { target: of(mount), source };
    let shown = match &seen.whose {
        Whose::Nothing => {
            make_directory(scratch, 0o755).map_err(place)?;
            return Ok(bound(scratch, mount.read_only));
        }
        Whose::Context(context) => {
            let found = find(&context.tree, seen, mount)?;
            bound(&path_of(&found).map_err(place)?, true)
        }
        Whose::Image(image) if image.is_files() => {
            let found = find(&image.tree, seen, mount)?;
            bound(&path_of(&found).map_err(place)?, true)
        }
        Whose::Image(image) => {
            let part = Path::new(&seen.part.source);
            let mounts = snapshot::view_part(engine.images.snapshots(), &image.chain, part);
            let mounts = mounts.map_err(|source| RunMountError::Layers { target: of(mount), source })?;
            let mut shown = mounts.into_iter().next().expect("a view is one mount");
            shown.options.push("rprivate".to_owned());
            shown
        }
    };
    if mount.read_only {
        return Ok(shown);
    }
    make_directory(scratch, 0o700).map_err(place)?;
    let tree = seen.whose.tree().expect("what is shown is in a tree");
    let found = find(tree, seen, mount)?;
    if found.is_directory() && engine.images.snapshots().driver() == Driver::Overlay2 {
        return above(&shown, &found, scratch).map_err(place);
    }
    let copied = transfer::copy(found, scratch);
    let copied = copied.map_err(|source| RunMountError::Copy { target: of(mount), source })?;
    Ok(bound(&copied, false))
}

fn find(tree: &Tree, seen: &Seen, mount: &RunMount) -> Result<Found, RunMountError> {
    let path = &seen.part.source[1..];
    tree.find(path).map_err(|_| RunMountError::Source {
        target: mount.target.clone(),
        source: SourceError::NotFound(Missing::of(tree, path)),
    })
}

/// Where on the host something is.
fn path_of(found: &Found) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", found.place.as_raw_fd()))
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    // Whatever our umask is.
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

/// An overlay above what is shown: what is written goes into `scratch`, and with it.
fn above(shown: &Mount, found: &Found, scratch: &Path) -> io::Result<Mount> {
    let (upper, work) = (scratch.join("fs"), scratch.join("work"));
    make_directory(&upper, found.stat.st_mode & 0o7777)?;
    std::os::unix::fs::chown(&upper, Some(found.stat.st_uid), Some(found.stat.st_gid))?;
    make_directory(&work, 0o700)?;
    let lowers: Vec<String> = match shown.kind.as_str() {
        "overlay" => shown.options.iter().filter(|option| option.starts_with("lowerdir")).cloned().collect(),
        _ => vec![format!("lowerdir+={}", shown.source.display())],
    };
    let own = [("upperdir", &upper), ("workdir", &work)].map(|(name, path)| format!("{name}={}", path.display()));
    let options = lowers.into_iter().chain(own).chain(OVERLAY_OPTIONS.map(str::to_owned));
    let options = options.chain(["rprivate".to_owned()]).collect();
    Ok(Mount { kind: "overlay".to_owned(), source: "overlay".into(), options, ..Mount::default() })
}

/// Begins a cache with what somebody else has; answers whether it came.
fn restored(
    carried: &Carried,
    mount: &RunMount,
    owner: Option<Owner>,
    directory: &Path,
    told: &mut Vec<(String, bool)>,
) -> Result<bool, RunMountError> {
    let place = |source| RunMountError::Place { target: mount.target.clone(), source };
    if let Err(err) = carried.restore(directory) {
        // Nothing depends on what is in a cache.
        told.push((format!("{} is not as {} has it: {}", mount.target, carried.whose, errdefs::chain(&err)), false));
        return Ok(false);
    }
    told.push((format!("{} begins as {} has it", mount.target, carried.whose), true));
    if let Some(Owner { uid, gid, mode }) = owner {
        give(directory, (uid, gid, mode)).map_err(place)?;
    }
    Ok(true)
}

/// What is in a cache that is new. `directory` is there, and empty.
fn begin_cache(mount: &RunMount, seen: &Seen, owner: Option<Owner>, directory: &Path) -> Result<(), RunMountError> {
    let place = |source| RunMountError::Place { target: mount.target.clone(), source };
    if let Some(tree) = seen.whose.tree() {
        let found = find(tree, seen, mount)?;
        if !found.is_directory() {
            return Err(RunMountError::CacheOfFile(mount.target.clone()));
        }
        let whose = (found.stat.st_uid, found.stat.st_gid, found.stat.st_mode & 0o7777);
        transfer::copy_into(found, directory)
            .map_err(|source| RunMountError::Copy { target: mount.target.clone(), source })?;
        give(directory, whose).map_err(place)?;
    }
    match owner {
        Some(Owner { uid, gid, mode }) => give(directory, (uid, gid, mode)).map_err(place),
        None => Ok(()),
    }
}

/// Changes whose a file is, and what may be done with it.
pub(super) fn give(path: &Path, (uid, gid, mode): (u32, u32, u32)) -> io::Result<()> {
    let file = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
    // A change of the owner takes bits away.
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn places_that_are_made_are_known() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        symlink("/usr/lib", root.join("lib")).unwrap();
        fs::write(root.join("usr/file"), "").unwrap();
        let tree = Tree::new(fs::File::open(root).unwrap().into()).unwrap();
        let made = |target: &str, is_directory| {
            let mut made = Made::default();
            made.add(Some(&tree), target, is_directory);
            (made.files.join(" "), made.directories.join(" "))
        };
        let told = |files: &str, directories: &str| (files.to_owned(), directories.to_owned());
        assert_eq!(made("/usr/lib", true), told("", ""));
        assert_eq!(made("/usr/file", false), told("", ""));
        assert_eq!(made("/lib/a/b", true), told("", "usr usr/lib usr/lib/a usr/lib/a/b"));
        assert_eq!(made("/run/secrets/x", false), told("run/secrets/x", "run run/secrets"));
        let mut without = Made::default();
        without.add(None, "/a/b", true);
        assert_eq!(without.directories, ["a", "a/b"]);
    }
}
