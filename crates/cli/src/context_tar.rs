//! The context of a build as a tar: what `.dockerignore` leaves, in the order of its names, owned by nobody in particular.

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use archive::{Entry, Kind, Pack, PackError, TarWriter, Time};
use dockerfile::Patterns;
use engine_api::progress::{Progress, UNKNOWN_WIDTH};
use stdx::pipe::{Reader, Writer, pipe};

use crate::say;

/// How much of the input shows whether it is an archive: more than a header of tar.
pub const HEAD_BYTES: u64 = 512;

/// How much is handed on at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Steps of progress that a terminal gets to see.
pub const SHOWN_BYTES: u64 = 512 * 1024;

/// The one attribute that a context's files keep (capabilities(7)).
pub const CAPABILITY: &[u8] = b"security.capability";

/// Why there is no context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// `.dockerignore` is wrong.
    #[error("error reading .dockerignore")]
    Ignore(#[from] dockerfile::PatternError),
    /// Something cannot be read.
    #[error("open {}", path.display())]
    Open {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing.
    #[error("failed to peek context header from STDIN: EOF")]
    Nothing,
    /// A context cannot be packed.
    #[error("pack the Dockerfile")]
    Pack(#[source] io::Error),
}

/// Where a context comes from.
pub enum Source {
    /// A directory.
    Directory {
        /// Which one.
        directory: PathBuf,
        /// What the Dockerfile is called.
        name: String,
        /// What is in the Dockerfile, if it is not in the directory.
        text: Option<Vec<u8>>,
    },
    /// A Dockerfile alone.
    Dockerfile {
        /// What it is called.
        name: String,
        /// What is in it.
        text: Vec<u8>,
    },
    /// An archive on standard input, and what was read of it.
    Input(Vec<u8>),
    /// An address, from which the daemon fetches it.
    Remote(String),
}

/// What standard input is: an archive, or a Dockerfile alone.
pub fn of_input(start: Vec<u8>, file: &str) -> Result<(Source, String), ContextError> {
    if start.is_empty() {
        return Err(ContextError::Nothing);
    }
    let compressed: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    let is_archive = archive::looks_like_tar(&start) || compressed.iter().any(|magic| start.starts_with(magic));
    if is_archive {
        return Ok((Source::Input(start), file.to_owned()));
    }
    let mut text = start;
    let path = PathBuf::from("-");
    io::stdin().read_to_end(&mut text).map_err(|source| ContextError::Open { path, source })?;
    let name = "Dockerfile".to_owned();
    Ok((Source::Dockerfile { name: name.clone(), text }, name))
}

impl Source {
    /// A directory with a Dockerfile from elsewhere, which gets a name that nothing there has.
    pub fn with_dockerfile(directory: PathBuf, text: Vec<u8>) -> (Source, String) {
        let name = format!(".dockerfile.{}", stdx::id::random_hex::<10>());
        (Source::Directory { directory, name: name.clone(), text: Some(text) }, name)
    }

    /// The archive.
    pub fn open(self) -> Result<Box<dyn Read + Send>, ContextError> {
        match self {
            Source::Remote(_) => Ok(Box::new(io::empty())),
            Source::Input(start) => Ok(Box::new(Cursor::new(start).chain(io::stdin()))),
            Source::Dockerfile { name, text } => {
                let mut tar = TarWriter::new(Vec::new());
                let written = add(&mut tar, &name, &text).and_then(|()| tar.finish());
                Ok(Box::new(Cursor::new(written.map_err(ContextError::Pack)?)))
            }
            Source::Directory { directory, name, text } => {
                let patterns = patterns(&directory, &name, text.is_none())?;
                packed(directory, patterns, text.map(|text| (name, text)))
            }
        }
    }
}

/// The archive of a context that has a name: without a Dockerfile of its own.
pub fn files_of(directory: &Path) -> Result<Box<dyn Read + Send>, ContextError> {
    packed(directory.to_owned(), ignored(directory, "", false)?, None)
}

/// An archive that is made while it is read, with a file more.
fn packed(
    directory: PathBuf,
    patterns: Patterns,
    more: Option<(String, Vec<u8>)>,
) -> Result<Box<dyn Read + Send>, ContextError> {
    let opened = File::open(&directory);
    let top = opened.map_err(|source| ContextError::Open { path: directory, source })?;
    let (reader, writer) = pipe(PIECE_BYTES);
    let (done, outcome) = mpsc::channel();
    thread::spawn(move || {
        let packed = pack(top, writer, &patterns, more);
        // Whoever reads has given up.
        let _ = done.send(packed);
    });
    Ok(Box::new(Packed { reader, outcome }))
}

/// What is left out: what belongs to the build itself is sent in any case.
fn patterns(directory: &Path, name: &str, inside: bool) -> Result<Patterns, ContextError> {
    let mut patterns = ignored(directory, name, inside)?;
    for file in [".dockerignore", name] {
        if patterns.exclude(file) {
            patterns.add(&format!("!{file}"))?;
        }
    }
    Ok(patterns)
}

/// What `.dockerignore` leaves out, or that of a Dockerfile `inside` of the directory.
pub fn ignored(directory: &Path, name: &str, inside: bool) -> Result<Patterns, ContextError> {
    let own = directory.join(format!("{name}.dockerignore"));
    let path = if inside && own.exists() { own } else { directory.join(".dockerignore") };
    let text = match fs::read(&path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Patterns::default()),
        text => text.map_err(|source| ContextError::Open { path, source })?,
    };
    Ok(Patterns::read(&String::from_utf8_lossy(&text))?)
}

fn pack(top: File, writer: Writer, patterns: &Patterns, more: Option<(String, Vec<u8>)>) -> Result<(), PackError> {
    let mut tar = TarWriter::new(writer);
    let mut entry = |seen: &archive::Seen<'_>, entry: &mut Entry, _: &mut Vec<Entry>| {
        (entry.uid, entry.gid) = (0, 0);
        if seen.path.is_empty() || patterns.is_empty() {
            return Ok(true);
        }
        let path = String::from_utf8_lossy(seen.path);
        if !patterns.exclude(&path) {
            return Ok(true);
        }
        // Without a name it is not written, and what is in it is looked at.
        entry.path.clear();
        Ok(entry.kind == Kind::Directory && patterns.may_hold_exceptions(&path))
    };
    let options = Pack { name: b"", xattr: |name| name == CAPABILITY, holes: false, still: false, entry: &mut entry };
    archive::pack(&mut tar, top.into(), options)?;
    if let Some((name, text)) = more {
        add(&mut tar, &name, &text).map_err(PackError::Write)?;
    }
    tar.finish().map(drop).map_err(PackError::Write)
}

fn add<W: Write>(tar: &mut TarWriter<W>, name: &str, text: &[u8]) -> io::Result<()> {
    tar.begin(&Entry {
        path: name.as_bytes().to_vec(),
        kind: Kind::File,
        link: Vec::new(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        size: text.len() as u64,
        device: (0, 0),
        xattrs: Vec::new(),
        segments: None,
    })?;
    tar.data(text)
}

/// An archive that is packed meanwhile. Its end is one only if the packing came to its own.
struct Packed {
    reader: Reader,
    outcome: mpsc::Receiver<Result<(), PackError>>,
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0
            && let Ok(Err(err)) = self.outcome.recv()
        {
            return Err(io::Error::other(errdefs::chain(&err)));
        }
        Ok(count)
    }
}

/// A context on its way, told as Docker tells it.
pub struct Sent {
    inner: Box<dyn Read + Send>,
    bytes: u64,
    shown: u64,
    tell: bool,
    terminal: bool,
}

impl Sent {
    /// Tells how much was sent: on a terminal now and then, else at the end.
    pub fn new(inner: Box<dyn Read + Send>, tell: bool, terminal: bool) -> Sent {
        Sent { inner, bytes: 0, shown: 0, tell, terminal }
    }

    fn show(&self, last: bool) {
        show_sent(self.bytes, last);
    }
}

/// Tells how much of a context was sent.
pub fn show_sent(bytes: u64, last: bool) {
    let progress = Progress { current: bytes.cast_signed(), total: 0 };
    let progress = if bytes == 0 { " 0B".to_owned() } else { progress.text(UNKNOWN_WIDTH) };
    let text = format!("Sending build context to Docker daemon {progress}");
    say!("{text}\r");
    if last {
        say!("\r\n");
    }
}

impl Read for Sent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if !self.tell {
            return Ok(count);
        }
        if count == 0 {
            self.tell = false;
            self.show(true);
        } else if self.terminal && self.bytes >= self.shown + SHOWN_BYTES {
            self.shown = self.bytes;
            self.show(false);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use archive::TarReader;

    use super::*;

    fn names(source: Source) -> Vec<String> {
        let mut bytes = Vec::new();
        source.open().unwrap().read_to_end(&mut bytes).unwrap();
        let mut tar = TarReader::new(&bytes[..]);
        let mut names = Vec::new();
        while let Some(entry) = tar.next_entry().unwrap() {
            assert_eq!((entry.uid, entry.gid), (0, 0));
            names.push(String::from_utf8(entry.path).unwrap());
        }
        names
    }

    #[test]
    fn only_what_counts_is_sent() {
        let directory = std::env::temp_dir().join(format!("longshore-context-{}", std::process::id()));
        fs::create_dir_all(directory.join("target/keep")).unwrap();
        for (name, text) in [
            ("Dockerfile", "FROM a\n"),
            (".dockerignore", "target\n!target/keep\nDockerfile\n.dockerignore\n*.md"),
            ("a.md", ""),
            ("b", ""),
            ("target/x", ""),
            ("target/keep/y", ""),
        ] {
            fs::write(directory.join(name), text).unwrap();
        }
        let source = |name: &str, text| Source::Directory { directory: directory.clone(), name: name.into(), text };
        let wanted = [".dockerignore", "Dockerfile", "b", "target/keep/", "target/keep/y"];
        assert_eq!(names(source("Dockerfile", None)), wanted);
        let with_own = names(source("d", Some(b"FROM b\n".to_vec())));
        assert_eq!(with_own, [".dockerignore", "b", "target/keep/", "target/keep/y", "d"]);
        fs::write(directory.join("Dockerfile.dockerignore"), "*\n!b").unwrap();
        assert_eq!(names(source("Dockerfile", None)), [".dockerignore", "Dockerfile", "b"]);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn input_is_an_archive_or_a_dockerfile() {
        let tar = TarWriter::new(Vec::new());
        assert!(matches!(of_input(tar.finish().unwrap(), "x"), Ok((Source::Input(_), name)) if name == "x"));
        assert!(of_input(Vec::new(), "").is_err());
    }
}
