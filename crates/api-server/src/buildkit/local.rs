//! The client's files: the Dockerfile and what stands beside it whole, the context as an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use archive::{Entry, Kind, TarWriter, Time};
use buildkit_api::files::{self, FilesError, Sink, Wanted};
use buildkit_api::messages::{Stat, VertexStatus};
use buildkit_api::modes::{self, permissions};
use buildkit_api::session::Session;
use buildkit_api::status::Status;
use engine::ops::build::{ContextFiles, ContextName, FileSum, Needed, SentFiles};
use hyper::body::Bytes;
use tokio::sync::OnceCell;

use super::build::Build;
use super::failure::{Place, said};
use super::progress::Part;
use crate::upload::{self, Upload};

/// The longest Dockerfile, and what stands beside it, in bytes.
const TEXT_MAX: usize = 16 << 20;

/// How many directories are remembered where texts are wanted: a client sends those above them, too.
const DIRECTORIES_MAX: usize = 64;

/// How many bytes of an archive go at once.
const PIECE_BYTES: usize = 128 << 10;

/// How often it is told how much of a directory has come.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// How clients call the directory that is built from.
const CONTEXT: &str = "context";

/// What leaves files out of a context.
const IGNORE: &str = ".dockerignore";

/// What leaves files of a context out, which the client is asked for once.
#[derive(Clone, Debug, Default)]
pub(super) struct Ignore(Arc<OnceCell<Vec<u8>>>);

/// A Dockerfile.
#[derive(Clone, Debug, Default)]
pub(super) struct Definition {
    /// By which name it was found.
    pub(super) name: String,
    pub(super) text: Vec<u8>,
    /// What leaves files of its context out: known where it has a `.dockerignore` of its own.
    pub(super) ignore: Ignore,
    /// The part of the build that has loaded it.
    pub(super) part: String,
}

impl Definition {
    /// It as where failures are, before any of it was done.
    pub(super) fn place(&self) -> Place {
        Place { name: self.name.clone(), text: self.text.clone(), line: 0, end: 0 }
    }
}

/// Has a Dockerfile sent.
pub(super) async fn definition(
    build: &Build,
    session: &Session,
    directory: &str,
    name: &str,
) -> Result<Definition, Status> {
    let part = build.progress.begin(&format!("[internal] load build definition from {name}"), None).await;
    let lower = lower(name);
    let ignore = format!("{name}{IGNORE}");
    let follow = [Some(name.to_owned()), Some(ignore.clone()), lower.clone()].into_iter().flatten().collect();
    let sent = texts(build, session, &part, ("dockerfile", directory), follow).await;
    build.progress.end(&part, sent.as_ref().err().map(|err| err.message.as_str())).await;
    let Texts { all: mut texts, directories, .. } = sent?;
    if directories.contains(name) {
        return Err(said(format!("failed to read dockerfile: read {name}: is a directory")));
    }
    let mut names = [Some(name.to_owned()), lower].into_iter().flatten();
    let found = names.find_map(|name| Some((texts.remove(&name)?, name)));
    let missing = || said(format!("failed to read dockerfile: open {name}: no such file or directory"));
    let (text, found) = found.ok_or_else(missing)?;
    let ignore = Ignore(Arc::new(OnceCell::new_with(texts.remove(&ignore))));
    Ok(Definition { name: found, text, ignore, part: part.digest().to_owned() })
}

/// `Dockerfile` may be written in small letters.
pub(super) fn lower(name: &str) -> Option<String> {
    let (above, last) = name.rsplit_once('/').map_or(("", name), |(above, last)| (above, last));
    let slash = if above.is_empty() { "" } else { "/" };
    (last == "Dockerfile").then(|| format!("{above}{slash}dockerfile"))
}

/// Has a few files sent whole.
async fn texts(
    build: &Build,
    session: &Session,
    part: &Part,
    (told, directory): (&str, &str),
    follow: Vec<String>,
) -> Result<Texts, Status> {
    let status = build.progress.goes_on(part, &format!("transferring {told}:")).await;
    let wanted = Wanted { directory: directory.to_owned(), exclude: Vec::new(), follow };
    let mut texts = Texts::default();
    let bytes = receive(build, &status, session, &wanted, &mut texts).await?;
    build.progress.has_ended(status, bytes).await;
    Ok(texts)
}

/// Carries files over, and tells now and then how much has come; answers how many bytes it took.
async fn receive(
    build: &Build,
    status: &VertexStatus,
    session: &Session,
    wanted: &Wanted,
    sink: &mut impl Sink,
) -> Result<u64, Status> {
    let (came, mut told) = (AtomicU64::new(0), 0);
    let receiving = files::receive(session, wanted, sink, &came);
    tokio::pin!(receiving);
    loop {
        tokio::select! {
            received = &mut receiving => return received.map_err(of_files),
            () = tokio::time::sleep(TOLD_EVERY) => {}
        }
        let bytes = came.load(Ordering::Relaxed);
        if bytes != told {
            build.progress.is_at(status, bytes).await;
            told = bytes;
        }
    }
}

fn of_files(err: FilesError) -> Status {
    match err {
        FilesError::Refused(status) => status,
        err => said(errdefs::chain(&err)),
    }
}

/// Files that are kept in memory.
#[derive(Default)]
struct Texts {
    all: BTreeMap<String, Vec<u8>>,
    /// What was asked for and is none.
    directories: BTreeSet<String>,
    last: String,
    bytes: usize,
}

impl Sink for Texts {
    async fn entry(&mut self, stat: &Stat) -> bool {
        self.last.clone_from(&stat.path);
        if files::is_file(stat) {
            self.all.insert(stat.path.clone(), Vec::new());
        } else if stat.mode & modes::DIRECTORY != 0 && self.directories.len() < DIRECTORIES_MAX {
            self.directories.insert(stat.path.clone());
        }
        true
    }

    async fn data(&mut self, bytes: Bytes) -> bool {
        self.bytes += bytes.len();
        if let Some(text) = self.all.get_mut(&self.last) {
            text.extend_from_slice(&bytes);
        }
        self.bytes <= TEXT_MAX
    }
}

/// Has what leaves files of a context out sent; there may be nothing. `label` is whose part of the build it is.
async fn ignore(build: &Build, session: &Session, label: &str, directory: &str) -> Result<Vec<u8>, Status> {
    let part = build.progress.begin(&format!("[{label}] load {IGNORE}"), None).await;
    let texts = texts(build, session, &part, (directory, directory), vec![IGNORE.to_owned()]).await;
    let told = texts.as_ref().err().map(|err| err.message.as_str());
    build.progress.end(&part, told).await;
    Ok(texts?.all.remove(IGNORE).unwrap_or_default())
}

/// The context of a build.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) build: Arc<Build>,
    pub(super) session: Arc<Session>,
    /// The client's name of its directory.
    pub(super) directory: String,
    /// What leaves files out.
    pub(super) ignore: Ignore,
    /// What its name is; nothing of the main one.
    pub(super) name: Option<String>,
}

impl Context {
    /// Who has the files sent that are needed.
    pub(super) fn sent(self) -> SentFiles {
        SentFiles { name: self.name(), source: Box::new(move |needed, before| self.open(needed, before)) }
    }

    /// What leaves files out.
    pub(super) async fn ignored(&self) -> Result<Vec<u8>, Status> {
        let label = self.label().unwrap_or_else(|| "internal".to_owned());
        let ask = || ignore(&self.build, &self.session, &label, &self.directory);
        self.ignore.0.get_or_try_init(ask).await.cloned()
    }

    /// Whose part of the build it is where it has a name.
    fn label(&self) -> Option<String> {
        self.name.as_ref().map(|name| format!("context {name}"))
    }

    fn name(&self) -> Option<ContextName> {
        name(&self.session, &self.directory, self.name.as_deref().unwrap_or_default())
    }

    fn open(self, needed: Needed, before: Option<Arc<ContextFiles>>) -> Box<dyn Read + Send> {
        let (mut archive, reader) = Archive::open(before);
        tokio::spawn(async move {
            let sent = self.send(needed, &mut archive).await;
            archive.close(sent).await;
        });
        Box::new(reader)
    }

    async fn send(self, needed: Needed, archive: &mut Archive) -> Result<(), Status> {
        let progress = &self.build.progress;
        let follow = match needed {
            Needed::Nothing => return Ok(()),
            Needed::Paths(paths) => paths,
            Needed::All => Vec::new(),
        };
        let (label, ignore) = (self.label(), self.ignored().await?);
        let (part, told) = match &label {
            Some(label) => (format!("[{label}] load from client"), self.directory.as_str()),
            None => ("[internal] load build context".to_owned(), "context"),
        };
        let part = progress.begin(&part, None).await;
        let status = progress.goes_on(&part, &format!("transferring {told}:")).await;
        let exclude = engine::ops::build::ignored(&String::from_utf8_lossy(&ignore));
        let wanted = Wanted { directory: self.directory.clone(), exclude, follow };
        let sent = receive(&self.build, &status, &self.session, &wanted, archive).await;
        let told = sent.as_ref().err().map(|err| err.message.as_str());
        if let Ok(bytes) = sent {
            progress.has_ended(status, bytes).await;
        }
        progress.end(&part, told).await;
        sent.map(drop)
    }
}

/// A directory that the client of a session tells as it shall be: nothing of it is left out.
pub(super) fn whole_directory(session: Arc<Session>) -> SentFiles {
    let name = name(&session, CONTEXT, "");
    let open = move |needed, before| -> Box<dyn Read + Send> {
        let (mut archive, reader) = Archive::open(before);
        tokio::spawn(async move {
            let sent = all_of(&session, needed, &mut archive).await;
            archive.close(sent).await;
        });
        Box::new(reader)
    };
    SentFiles { name, source: Box::new(open) }
}

async fn all_of(session: &Session, needed: Needed, archive: &mut Archive) -> Result<(), Status> {
    let follow = match needed {
        Needed::Nothing => return Ok(()),
        Needed::Paths(paths) => paths,
        Needed::All => Vec::new(),
    };
    let wanted = Wanted { directory: CONTEXT.to_owned(), exclude: Vec::new(), follow };
    // How much goes the client tells by itself.
    files::receive(session, &wanted, archive, &AtomicU64::new(0)).await.map(drop).map_err(of_files)
}

/// Which directory it is: as with BuildKit (source/local) what the session says, and its own name.
fn name(session: &Session, directory: &str, own: &str) -> Option<ContextName> {
    let shared = &session.shared_key;
    let key = format!("{directory}\0{own}\0{shared}");
    let about = format!("local source for {directory}");
    (!shared.is_empty()).then_some(ContextName { key, about })
}

/// Files as an archive on its way to a thread that unpacks it.
pub(super) struct Archive {
    tar: TarWriter<Buffer>,
    written: Buffer,
    upload: Upload,
    /// What need not come.
    before: Option<Arc<ContextFiles>>,
    /// The file whose bytes come, and its sum so far, where that is kept.
    summing: Option<(String, FileSum)>,
}

/// What was written and not sent yet.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Archive {
    pub(super) fn new(upload: Upload) -> Archive {
        let written = Buffer::default();
        Archive { tar: TarWriter::new(written.clone()), written, upload, before: None, summing: None }
    }

    /// One that is read while it is written; `before` is what need not come.
    fn open(before: Option<Arc<ContextFiles>>) -> (Archive, impl Read + Send + use<>) {
        let (upload, reader) = upload::channel();
        (Archive { before, ..Archive::new(upload) }, reader)
    }

    /// Ends it, or says why it breaks off.
    async fn close(self, sent: Result<(), Status>) {
        match sent {
            Ok(()) => self.end().await,
            Err(err) => self.fail(err.message).await,
        }
    }

    /// Sends what was written, once there is enough of it.
    async fn pass_on(&mut self, least: usize) -> bool {
        let piece = {
            let mut written = self.written.0.lock().unwrap_or_else(PoisonError::into_inner);
            if written.len() < least {
                return true;
            }
            std::mem::take(&mut *written)
        };
        piece.is_empty() || self.upload.send(piece.into()).await
    }

    pub(super) async fn fail(self, message: String) {
        self.upload.fail(message).await;
    }

    /// Keeps the sum of the last file, all of which has come.
    fn note_last(&mut self) {
        if let (Some((path, sum)), Some(before)) = (self.summing.take(), &self.before) {
            before.note(path, sum.finish());
        }
    }

    pub(super) async fn end(mut self) {
        self.note_last();
        let Archive { tar, written, upload, before, .. } = self;
        // Who unpacks has them alone from now on.
        drop(before);
        if let Err(err) = tar.finish() {
            return upload.fail(err.to_string()).await;
        }
        let rest = std::mem::take(&mut *written.0.lock().unwrap_or_else(PoisonError::into_inner));
        if upload.send(rest.into()).await {
            upload.end().await;
        }
    }
}

impl Sink for Archive {
    fn known(&self) -> Option<String> {
        self.before.as_ref().map(|before| before.list_name())
    }

    fn is_called(&mut self, name: &str) {
        self.before.iter().for_each(|before| before.list_is_called(name));
    }

    async fn begin(&mut self, entries: &[Stat]) -> io::Result<Vec<bool>> {
        let Some(before) = &self.before else { return Ok(vec![true; entries.len()]) };
        let told: Vec<Option<Entry>> = entries.iter().map(entry).collect();
        before.clone().become_told(told).await
    }

    async fn entry(&mut self, stat: &Stat) -> bool {
        // A socket is nothing without who listens.
        let Some(entry) = entry(stat) else { return true };
        self.note_last();
        if self.before.is_some() {
            self.summing = FileSum::of(&entry).map(|sum| (stat.path.clone(), sum));
        }
        self.tar.begin(&entry).is_ok() && self.pass_on(PIECE_BYTES).await
    }

    async fn data(&mut self, bytes: Bytes) -> bool {
        self.summing.iter_mut().for_each(|(_, sum)| sum.add(&bytes));
        self.tar.data(&bytes).is_ok() && self.pass_on(PIECE_BYTES).await
    }
}

/// An entry as archives have it.
fn entry(stat: &Stat) -> Option<Entry> {
    let is = |bit: u32| stat.mode & bit != 0;
    let kind = match () {
        () if is(modes::DIRECTORY) => Kind::Directory,
        () if is(modes::SYMLINK) => Kind::Symlink,
        () if is(modes::SOCKET) => return None,
        () if is(modes::FIFO) => Kind::Fifo,
        () if is(modes::DEVICE) && is(modes::CHARACTERS) => Kind::CharDevice,
        () if is(modes::DEVICE) => Kind::BlockDevice,
        () if !stat.link.is_empty() => Kind::HardLink,
        () => Kind::File,
    };
    const SECOND: i64 = 1_000_000_000;
    Some(Entry {
        path: stat.path.clone().into_bytes(),
        kind,
        link: stat.link.clone().into_bytes(),
        mode: permissions(stat.mode),
        uid: stat.uid,
        gid: stat.gid,
        mtime: Time {
            secs: stat.modified_nanos.div_euclid(SECOND),
            nanos: u32::try_from(stat.modified_nanos.rem_euclid(SECOND)).unwrap_or_default(),
        },
        size: if kind == Kind::File { stat.size.unsigned_abs() } else { 0 },
        device: (u32::try_from(stat.major).unwrap_or_default(), u32::try_from(stat.minor).unwrap_or_default()),
        xattrs: stat.xattrs.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone())).collect(),
        segments: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::modes::of_entry;
    use super::*;

    #[test]
    fn modes_of_go_are_kinds_of_archives() {
        let kind = |mode, link: &str| {
            let stat = Stat { path: "a".to_owned(), mode, link: link.to_owned(), size: 3, ..Stat::default() };
            entry(&stat).map(|entry| (entry.kind, entry.mode, entry.size))
        };
        assert_eq!(kind(0o644, ""), Some((Kind::File, 0o644, 3)));
        assert_eq!(kind(0o644, "b"), Some((Kind::HardLink, 0o644, 0)));
        assert_eq!(kind(modes::DIRECTORY | 1 << 20 | 0o777, ""), Some((Kind::Directory, 0o1777, 0)));
        assert_eq!(kind(modes::SYMLINK | 0o777, "b"), Some((Kind::Symlink, 0o777, 0)));
        assert_eq!(kind(3 << 22 | 0o755, ""), Some((Kind::File, 0o6755, 3)));
        assert_eq!(kind(modes::DEVICE | modes::CHARACTERS | 0o600, ""), Some((Kind::CharDevice, 0o600, 0)));
        assert_eq!(kind(modes::SOCKET | 0o600, ""), None);
        for mode in [
            0o644,
            modes::DIRECTORY | 13 << 20 | 0o755,
            modes::DEVICE | modes::CHARACTERS | 0o600,
            modes::FIFO,
            modes::SYMLINK,
        ] {
            let stat = Stat { path: "a".to_owned(), mode, ..Stat::default() };
            assert_eq!(entry(&stat).map(|entry| of_entry(&entry)), Some(mode));
        }
    }

    #[test]
    fn a_dockerfile_may_be_written_small() {
        assert_eq!(lower("Dockerfile").as_deref(), Some("dockerfile"));
        assert_eq!(lower("a/Dockerfile").as_deref(), Some("a/dockerfile"));
        assert_eq!(lower("Other"), None);
    }
}
