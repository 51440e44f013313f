//! Secrets that a command has written into its image.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use bridge::Abandoned;
use memchr::memmem::Finder;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, SeekFrom as Place};
use rustix::io::Errno;
use snapshot::{ChangeKind, SnapshotError, SnapshotKey, Stubs};
use sys::open::openat2;

use super::client_files::Secret;
use crate::Engine;

/// The shortest secret that is looked for, in bytes: shorter ones are in many files by chance.
const SECRET_MIN: usize = 8;

/// How much of a file is looked at at once, beside what may be the beginning of a secret: twice the longest one (500 KiB),
/// so that most of it is looked at once.
const PIECE_BYTES: usize = 1 << 20;

/// A secret in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leak {
    pub(super) id: String,
    /// From the root.
    pub(super) path: String,
}

/// Why nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum LeakError {
    /// What the command changed cannot be told.
    #[error("compare the command's files with its image's")]
    Changes(#[from] SnapshotError),
    /// A file cannot be read.
    #[error("look for secrets in {path}")]
    Read {
        /// From the root.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// A secret that is looked for, in time that grows with what is looked through alone: a key's padding is in many files, and
/// most of it is where it is not.
struct Wanted<'a> {
    id: &'a str,
    value: Finder<'a>,
}

impl<'a> Wanted<'a> {
    fn new(id: &'a str, value: &'a [u8]) -> Wanted<'a> {
        Wanted { id, value: Finder::new(value) }
    }
}

/// Looks for secrets in all that a command has written, as long as somebody waits for it. Blocks.
pub(super) fn find(
    engine: &Engine,
    container: &SnapshotKey,
    stubs: Stubs<'_>,
    secrets: &[Secret],
    abandoned: &Abandoned,
) -> Result<Option<Leak>, LeakError> {
    let wanted = wanted_of(secrets);
    if wanted.is_empty() {
        return Ok(None);
    }
    let snapshots = engine.images.snapshots();
    let changes = snapshots.changes(container, stubs)?;
    let own = snapshots.own_files(container, &changes)?;
    for (path, _) in changes.paths.iter().filter(|(_, kind)| **kind != ChangeKind::Deleted) {
        let told = format!("/{}", String::from_utf8_lossy(path));
        let found = search(own.path(), path, &wanted, abandoned);
        let found = found.map_err(|source| LeakError::Read { path: told.clone(), source })?;
        if let Some(id) = found {
            return Ok(Some(Leak { id: id.to_owned(), path: told }));
        }
    }
    Ok(None)
}

/// What is looked for.
fn wanted_of(secrets: &[Secret]) -> Vec<Wanted<'_>> {
    let wanted = secrets
        .iter()
        // A file of one ends with a line's end, which what is made of it need not have.
        .map(|secret| (secret.id.as_str(), secret.value.trim_ascii_end()));
    wanted.filter(|(_, value)| value.len() >= SECRET_MIN).map(|(id, value)| Wanted::new(id, value)).collect()
}

/// The length of the longest of them, in bytes.
fn longest(wanted: &[Wanted<'_>]) -> usize {
    wanted.iter().map(|wanted| wanted.value.needle().len()).max().unwrap_or(1)
}

/// Looks for secrets in bytes that go by.
pub(super) struct Watch<'a> {
    wanted: Vec<Wanted<'a>>,
    longest: usize,
    /// The end of what went by: one may begin there.
    last: Vec<u8>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(secrets: &'a [Secret]) -> Watch<'a> {
        let wanted = wanted_of(secrets);
        Watch { longest: longest(&wanted), wanted, last: Vec::new() }
    }

    /// The next bytes; answers the secret that is in them, or ends in them.
    pub(super) fn see(&mut self, bytes: &[u8]) -> Option<&'a str> {
        if self.wanted.is_empty() {
            return None;
        }
        self.last.extend_from_slice(bytes);
        let found = self.wanted.iter().find(|wanted| wanted.value.find(&self.last).is_some()).map(|wanted| wanted.id);
        let kept = self.last.len().saturating_sub(self.longest - 1);
        self.last.drain(..kept);
        found
    }
}

/// The first secret that is in a file; what is no file has none.
fn search<'a>(own: &Path, path: &[u8], wanted: &[Wanted<'a>], abandoned: &Abandoned) -> io::Result<Option<&'a str>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, own, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // Devices are not opened: what one does then is its own affair.
    let place = match openat2(&root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        place => place?,
    };
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
    if kind != rustix::fs::FileType::RegularFile {
        return Ok(None);
    }
    let mut file = std::fs::File::from(openat2(&root, path, flags, Mode::empty(), resolve)?);
    let longest = longest(wanted);
    let mut from = 0;
    loop {
        // Holes of a file may be longer than any disk.
        let begin = match rustix::fs::seek(&file, Place::Data(from)) {
            Err(Errno::NXIO) => return Ok(None),
            begin => begin?,
        };
        let end = rustix::fs::seek(&file, Place::Hole(begin))?;
        file.seek(SeekFrom::Start(begin))?;
        if let Some(id) = search_in(&mut (&file).take(end - begin), wanted, longest, abandoned)? {
            return Ok(Some(id));
        }
        from = end;
    }
}

fn search_in<'a>(
    bytes: &mut impl Read,
    wanted: &[Wanted<'a>],
    longest: usize,
    abandoned: &Abandoned,
) -> io::Result<Option<&'a str>> {
    let mut piece = Vec::with_capacity(PIECE_BYTES + longest);
    loop {
        if abandoned.is_so() {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let read = bytes.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        if let Some(found) = wanted.iter().find(|wanted| wanted.value.find(&piece).is_some()) {
            return Ok(Some(found.id));
        }
        if read == 0 {
            return Ok(None);
        }
        // One may begin at the end of a piece.
        piece.drain(..piece.len().saturating_sub(longest - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8]) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("f"), bytes).unwrap();
        let wanted = [Wanted::new("one", b"first secret"), Wanted::new("two", b"second secret")];
        search(directory.path(), b"f", &wanted, &Abandoned::default()).unwrap().map(str::to_owned)
    }

    #[test]
    fn a_secret_that_is_almost_everywhere_is_looked_for_in_bounded_time() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("f"), vec![b'='; 16 * PIECE_BYTES]).unwrap();
        let mut value = vec![b'='; 500 * 1024];
        value[500 * 1024 - 1] = b'x';
        let begun = std::time::Instant::now();
        let found = search(directory.path(), b"f", &[Wanted::new("one", &value)], &Abandoned::default());
        assert_eq!(found.unwrap(), None);
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn secrets_are_found_wherever_they_are() {
        for at in [0, 1, PIECE_BYTES - 5, PIECE_BYTES - 12, PIECE_BYTES, 2 * PIECE_BYTES - 1] {
            let mut bytes = vec![b'f'; at];
            bytes.extend(b"second secret, and more");
            assert_eq!(found(&bytes).as_deref(), Some("two"), "{at}");
        }
        assert_eq!(found(b"first second"), None);
        assert_eq!(found(b""), None);
    }

    #[test]
    fn secrets_that_go_by_in_pieces_are_seen() {
        let secrets = [("one", "first secret\n"), ("short", "ab"), ("two", "second")];
        let secrets = secrets.map(|(id, value)| Secret { id: id.to_owned(), value: value.as_bytes().to_vec() });
        let seen = |pieces: &[&str]| {
            let mut watch = Watch::new(&secrets);
            pieces.iter().find_map(|piece| watch.see(piece.as_bytes()))
        };
        assert_eq!(seen(&["xx first secret xx"]), Some("one"));
        assert_eq!(seen(&["xx fir", "s", "t secret"]), Some("one"));
        assert_eq!(seen(&["xx fir", "t secret ab second"]), None);
    }

    #[test]
    fn holes_and_links_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(directory.path().join("f")).unwrap();
        file.set_len(1 << 40).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"first secret", (1 << 40) - 100).unwrap();
        std::os::unix::fs::symlink("f", directory.path().join("link")).unwrap();
        let search = |path: &[u8]| {
            let wanted = [Wanted::new("one", b"first secret")];
            search(directory.path(), path, &wanted, &Abandoned::default()).unwrap().map(str::to_owned)
        };
        assert_eq!(search(b"f").as_deref(), Some("one"));
        assert_eq!(search(b"link"), None);
        assert_eq!(search(b"none"), None);
    }
}
