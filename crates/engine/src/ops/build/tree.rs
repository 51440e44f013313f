//! A tree that files are copied from: the context, or the root of an image. Nothing in it leads out of it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use archive::{Entry, Kind};
use bridge::Abandoned;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::path::Arg;
use sha2::{Digest as _, Sha256};
use sys::open::openat2;
use tracing::debug;

use super::kept_context::{ContextFiles, KnownFile};
use super::sources::SeenSources;

/// How much of a file is read at once. Nothing but speed depends on it: less makes more system calls, more only takes memory.
const PIECE_BYTES: usize = 256 * 1024;

/// Levels of directories that are looked into.
const DEPTH_MAX: usize = 1024;

/// A tree.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// What `/proc/self/fd` says of the root.
    place: Vec<u8>,
    /// Who knows what is in files that have not changed.
    files: Option<Arc<ContextFiles>>,
    /// Of an image's: what was read of others, and its topmost layer.
    seen: Option<(Arc<SeenSources>, String)>,
}

/// Something in a tree.
pub(super) struct Found {
    /// Itself, as a place.
    pub(super) place: OwnedFd,
    /// What it is; of a link that was followed what that leads to.
    pub(super) stat: Stat,
    /// Its path from the root, without a slash in front, when links are followed.
    pub(super) path: Vec<u8>,
}

/// The directory that a walk was in last, which most of what comes next is in, too.
#[derive(Default)]
pub(super) struct Nearby(Option<(Vec<u8>, OwnedFd)>);

/// Something in a tree, links not followed.
pub(super) struct Looked {
    /// What it is.
    pub(super) stat: Stat,
    /// Where it leads to, if it is a link.
    pub(super) link: Vec<u8>,
}

impl Found {
    pub(super) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> io::Result<Tree> {
        let place = told(&root)?;
        Ok(Tree { root, place, files: None, seen: None })
    }

    /// The same where something is known of its files.
    pub(super) fn of(self, files: Arc<ContextFiles>) -> Tree {
        Tree { files: Some(files), ..self }
    }

    /// The same of an image whose topmost layer is that, and of which something may have been read.
    pub(super) fn of_layer(self, seen: Arc<SeenSources>, layer: String) -> Tree {
        Tree { seen: Some((seen, layer)), ..self }
    }

    /// What was read of images and contexts, and what this one is called there: by an image's topmost layer.
    pub(super) fn seen(&self) -> Option<(&SeenSources, String)> {
        let of_context = || self.files.as_ref()?.seen();
        self.seen.as_ref().map(|(seen, layer)| (&**seen, layer.clone())).or_else(of_context)
    }

    /// What is known of a regular file, itself and not one that a link leads to, without looking at it.
    pub(super) fn known(&self, path: &[u8]) -> Option<KnownFile> {
        self.files.as_ref()?.known(path)
    }

    /// Its top.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// What is at a path, links followed as in a chroot.
    pub(super) fn find<P: Arg + Copy>(&self, path: P) -> Result<Found, Errno> {
        let place = open(&self.root, path, OFlags::PATH)?;
        let stat = rustix::fs::fstat(&place)?;
        let told = told(&place).map_err(|_| Errno::IO)?;
        let inside = told.strip_prefix(&self.place[..]).unwrap_or(&told);
        let path = without_slashes(inside).to_owned();
        Ok(Found { place, stat, path })
    }

    /// What is at a path, links followed but for the last.
    pub(super) fn look(&self, path: &[u8]) -> Result<Looked, Errno> {
        let place = open(&self.root, path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let stat = rustix::fs::fstat(&place)?;
        let link = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => rustix::fs::readlinkat(&place, c"", Vec::new())?.into_bytes(),
            _ => Vec::new(),
        };
        Ok(Looked { stat, link })
    }

    /// A file's bytes, at most `most` of them; `None` if there is none.
    pub(super) fn read(&self, path: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let found = match self.find(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            found => found?,
        };
        if FileType::from_raw_mode(found.stat.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut bytes = Vec::new();
        let file = File::from(archive::reopen(&found.place, OFlags::RDONLY)?);
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(Some(bytes)) }
    }

    /// Removes a file, which need not be there. Like everything that is found here it is in the tree, wherever links and
    /// `..` of its path would lead from outside.
    pub(super) fn remove(&self, path: &str) {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        if matches!(name, "" | "." | "..") {
            return;
        }
        let above = if above.is_empty() { "/" } else { above };
        // A single name, no link of which is followed.
        let removed = open(&self.root, above, OFlags::PATH | OFlags::DIRECTORY)
            .and_then(|parent| rustix::fs::unlinkat(&parent, name, rustix::fs::AtFlags::empty()));
        match removed {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            // It may be copied, though nobody wants it: no more than that.
            Err(err) => debug!(%err, path, "a file that `.dockerignore` leaves out stays in the context"),
        }
    }

    /// All paths below a directory, itself first unless it is the root, each directory before what is in it; down to so
    /// many levels. Links are not followed but at `path` itself. More levels than anybody makes are `ENAMETOOLONG`: what is
    /// left out there would be in no key.
    pub(super) fn walk(&self, path: impl AsRef<[u8]>, levels: usize) -> Result<Vec<Vec<u8>>, Errno> {
        let path = path.as_ref();
        let mut paths = Vec::new();
        if !path.is_empty() {
            paths.push(path.to_owned());
        }
        let place = open(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.walk_in(&place, path, (levels, DEPTH_MAX), &mut paths)?;
        Ok(paths)
    }

    /// Names in a directory, so many at most; those alone that are texts.
    pub(super) fn names(&self, path: &str, most: usize) -> Result<Vec<String>, Errno> {
        let path = if path.is_empty() { "." } else { path };
        let place = open(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let names = Dir::read_from(&place)?.take(most).filter_map(Result::ok);
        let names = names.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        Ok(names.filter(|name| !matches!(name.as_str(), "." | "..")).collect())
    }

    fn walk_in(
        &self,
        directory: &OwnedFd,
        path: &[u8],
        (levels, room): (usize, usize),
        paths: &mut Vec<Vec<u8>>,
    ) -> Result<(), Errno> {
        if levels == 0 {
            return Ok(());
        }
        if room == 0 {
            return Err(Errno::NAMETOOLONG);
        }
        let mut names: Vec<(CString, FileType)> = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, kind) in names {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let inside = [path, slash, name.as_bytes()].concat();
            paths.push(inside.clone());
            if matches!(kind, FileType::Directory | FileType::Unknown) {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(directory, &name, flags, Mode::empty()) {
                    Ok(child) => self.walk_in(&child, &inside, (levels - 1, room - 1), paths)?,
                    Err(Errno::NOTDIR | Errno::LOOP) => {}
                    Err(err) => return Err(err),
                }
            }
        }
        Ok(())
    }

    /// What dockerd calls the sum of a file: of what a tar would say of it but its time, and of its bytes (moby
    /// pkg/tarsum, version 1). A link that leads nowhere has its own path for one.
    ///
    /// Files may be as long as somebody likes who sends only what is not zero: it ends when nobody waits for it any more.
    pub(super) fn sum(&self, path: &[u8], abandoned: &Abandoned) -> io::Result<String> {
        // Most files of a context that was sent before need not be looked at.
        if let Some(sum) = self.files.as_ref().and_then(|files| files.known_at(path)) {
            return Ok(sum);
        }
        let found = match self.find(path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(String::from_utf8_lossy(path).into_owned()),
            found => found?,
        };
        let kind = FileType::from_raw_mode(found.stat.st_mode);
        // The sum has a path, which is that of the file itself.
        if let Some(known) = self.known(&found.path) {
            return Ok(known.sum);
        }
        let mut hash = Sha256::new();
        header(&mut hash, &found, kind);
        if kind == FileType::RegularFile && found.stat.st_size > 0 {
            let file = File::from(archive::reopen(&found.place, OFlags::RDONLY)?);
            hash_file(&mut hash, file, piece_bytes(&found.stat), abandoned)?;
        }
        let sum = hex(hash);
        self.files.iter().for_each(|files| files.learn(&found.path, &sum));
        Ok(sum)
    }

    /// What [`Tree::sum`] and [`Tree::look`] say of a regular file that a walk has found, by half as many system calls; nothing
    /// of anything else.
    pub(super) fn regular(
        &self,
        path: &[u8],
        nearby: &mut Nearby,
        abandoned: &Abandoned,
    ) -> io::Result<Option<KnownFile>> {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let (above, name) = slash.map_or((&path[..0], path), |slash| (&path[..slash], &path[slash + 1..]));
        let place = match nearby.0.take() {
            Some((path, place)) if path == above => place,
            _ => open(&self.root, above, OFlags::PATH | OFlags::DIRECTORY)?,
        };
        let (_, place) = nearby.0.insert((above.to_vec(), place));
        let stat = rustix::fs::statat(&*place, name, AtFlags::SYMLINK_NOFOLLOW)?;
        // What is no plain file may do something when it is opened.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&*place, name, flags, Mode::empty())?);
        let mut hash = Sha256::new();
        let (owner, size) = ((stat.st_uid, stat.st_gid), u64::try_from(stat.st_size).unwrap_or_default());
        hash.update(told_of(&String::from_utf8_lossy(path), stat.st_mode & 0o7777, owner, size, '0', (0, 0)));
        capabilities(&mut hash, |value| rustix::fs::fgetxattr(&file, "security.capability", value));
        if size > 0 {
            hash_file(&mut hash, file, piece_bytes(&stat), abandoned)?;
        }
        let sum = hex(hash);
        self.files.iter().for_each(|files| files.learn(path, &sum));
        Ok(Some(KnownFile { mode: stat.st_mode, owner, sum }))
    }
}

/// The sum of a regular file while its bytes come: what [`Tree::sum`] says of it later.
#[derive(Debug)]
pub struct FileSum(Sha256);

impl FileSum {
    /// Of an entry of a context, by its path from the top; nothing of what is no plain file.
    pub fn of(entry: &Entry) -> Option<FileSum> {
        let path = std::str::from_utf8(&entry.path).ok()?;
        let is_plain = entry.kind == Kind::File && entry.xattrs.is_empty() && entry.segments.is_none();
        let mut hash = Sha256::new();
        hash.update(told_of(path, entry.mode & 0o7777, (entry.uid, entry.gid), entry.size, '0', (0, 0)));
        is_plain.then_some(FileSum(hash))
    }

    /// The next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum, behind the last byte.
    pub fn finish(self) -> String {
        hex(self.0)
    }
}

/// What a sum says of a file besides its bytes.
fn told_of(path: &str, mode: u32, (uid, gid): (u32, u32), size: u64, flag: char, (major, minor): (u32, u32)) -> String {
    format!(
        "name{path}mode{mode}uid{uid}gid{gid}size{size}typeflag{flag}linknameunamegnamedevmajor{major}devminor{minor}"
    )
}

fn header(hash: &mut Sha256, found: &Found, kind: FileType) {
    let stat = &found.stat;
    let slash = if kind == FileType::Directory { "/" } else { "" };
    let size = if kind == FileType::RegularFile { stat.st_size } else { 0 };
    let flag = match kind {
        FileType::Directory => '5',
        FileType::CharacterDevice => '3',
        FileType::BlockDevice => '4',
        FileType::Fifo => '6',
        _ => '0',
    };
    let (major, minor) = match kind {
        FileType::CharacterDevice | FileType::BlockDevice => {
            (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        }
        _ => (0, 0),
    };
    let (path, size) =
        (format!("{}{slash}", String::from_utf8_lossy(&found.path)), u64::try_from(size).unwrap_or_default());
    hash.update(told_of(&path, stat.st_mode & 0o7777, (stat.st_uid, stat.st_gid), size, flag, (major, minor)));
    if kind != FileType::RegularFile {
        return;
    }
    let path = format!("/proc/self/fd/{}", found.place.as_raw_fd());
    capabilities(hash, |value| rustix::fs::getxattr(&*path, "security.capability", value));
}

/// What a sum says of a file's capabilities, if it has any.
fn capabilities(hash: &mut Sha256, read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) {
    let mut value = [0; 256];
    if let Ok(length) = read(&mut value) {
        hash.update(b"security.capability");
        hash.update(&value[..length]);
    }
}

/// How much of a file is read at once.
fn piece_bytes(stat: &Stat) -> usize {
    PIECE_BYTES.min(usize::try_from(stat.st_size).unwrap_or(PIECE_BYTES))
}

/// Hashes a file, `piece_bytes` at once. It ends when nobody waits for it any more.
pub(super) fn hash_file(
    hash: &mut Sha256,
    mut file: File,
    piece_bytes: usize,
    abandoned: &Abandoned,
) -> io::Result<()> {
    let mut piece = vec![0; piece_bytes];
    loop {
        if abandoned.is_so() {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => hash.update(&piece[..count]),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

pub(super) fn hex(hash: Sha256) -> String {
    oci::Digest::from_sha256(&hash.finalize().into()).hex().to_owned()
}

/// Opens a path below `root`, links followed as in a chroot.
pub(super) fn open<P: Arg + Copy>(root: &OwnedFd, path: P, flags: OFlags) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsFd;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    match path.to_string_lossy().is_empty() {
        true => openat2(root.as_fd(), ".", flags, Mode::empty(), resolve),
        false => openat2(root.as_fd(), path, flags, Mode::empty(), resolve),
    }
}

/// What the kernel calls what a descriptor stands for.
fn told(place: &OwnedFd) -> io::Result<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", place.as_raw_fd());
    let told = rustix::fs::readlinkat(CWD, link, Vec::new())?.into_bytes();
    Ok(if told == b"/" { Vec::new() } else { told })
}

/// A path without slashes in front and behind.
fn without_slashes(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"/").or_else(|| path.strip_suffix(b"/")) {
        path = rest;
    }
    path
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn tree_in(root: &Path) -> Tree {
        Tree::new(File::open(root).unwrap().into()).unwrap()
    }

    #[test]
    fn nothing_outside_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (outside, root) = (directory.path().join("outside"), directory.path().join("root"));
        fs::create_dir_all(&outside).unwrap();
        fs::create_dir_all(root.join("sub")).unwrap();
        let victim = outside.join("file");
        fs::write(&victim, "x").unwrap();
        symlink(&outside, root.join("linked")).unwrap();
        symlink("../outside", root.join("climbing")).unwrap();
        let tree = tree_in(&root);
        let absolute = victim.to_str().unwrap();
        for path in
            [absolute, "../outside/file", "sub/../../outside/file", "linked/file", "climbing/file", "", ".", "..", "/"]
        {
            tree.remove(path);
            assert!(victim.exists(), "{path}");
        }
        assert!(root.join("sub").exists());
    }

    #[test]
    fn a_sum_that_is_made_while_bytes_come_is_that_of_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("d")).unwrap();
        let path = directory.path().join("d/f");
        fs::write(&path, "some bytes").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o4751)).unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let entry = Entry {
            path: b"d/f".to_vec(),
            kind: Kind::File,
            link: Vec::new(),
            mode: 0o4751,
            uid,
            gid,
            mtime: archive::Time::default(),
            size: 10,
            device: (0, 0),
            xattrs: Vec::new(),
            segments: None,
        };
        let mut sum = FileSum::of(&entry).unwrap();
        sum.add(b"some ");
        sum.add(b"bytes");
        assert_eq!(sum.finish(), tree_in(directory.path()).sum(b"d/f", &Abandoned::default()).unwrap());
        assert!(FileSum::of(&Entry { kind: Kind::Symlink, ..entry }).is_none());
    }

    #[test]
    fn nothing_is_read_for_nobody() {
        let directory = tempfile::tempdir().unwrap();
        // It would take hours.
        fs::File::create(directory.path().join("long")).unwrap().set_len(8 << 40).unwrap();
        let tree = tree_in(directory.path());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (sender, ended) = std::sync::mpsc::channel();
        runtime.block_on(async move {
            let (begun, has_begun) = tokio::sync::oneshot::channel();
            let summing = tokio::spawn(bridge::abandonable(move |abandoned| {
                begun.send(()).unwrap();
                let _ = sender.send(tree.sum(b"long", abandoned));
            }));
            has_begun.await.unwrap();
            summing.abort();
            assert!(summing.await.unwrap_err().is_cancelled());
        });
        assert!(ended.recv().unwrap().is_err());
    }

    #[test]
    fn what_is_too_deep_to_be_looked_at_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree_in(directory.path());
        let mut place: OwnedFd = File::open(directory.path()).unwrap().into();
        for _ in 0..=DEPTH_MAX {
            rustix::fs::mkdirat(&place, "d", Mode::from_raw_mode(0o755)).unwrap();
            place = rustix::fs::openat(&place, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(tree.walk("", 3).unwrap().len(), 3);
        assert_eq!(tree.walk("", usize::MAX).unwrap_err(), Errno::NAMETOOLONG);
        assert_eq!(tree.walk("d", usize::MAX).unwrap_err(), Errno::NAMETOOLONG);
        assert_eq!(tree.walk("d/d", usize::MAX).unwrap().len(), DEPTH_MAX);
    }

    #[test]
    fn files_of_the_tree_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("sub")).unwrap();
        symlink("/sub", root.join("linked")).unwrap();
        for (path, file) in
            [("a", "a"), ("/a", "a"), ("../a", "a"), ("sub/a", "sub/a"), ("/sub/a", "sub/a"), ("linked/a", "sub/a")]
        {
            fs::write(root.join(file), "x").unwrap();
            tree_in(root).remove(path);
            assert!(!root.join(file).exists(), "{path}");
        }
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), root.join("link")).unwrap();
        tree_in(root).remove("link");
        assert!(outside.path().exists() && fs::symlink_metadata(root.join("link")).is_err());
    }
}
