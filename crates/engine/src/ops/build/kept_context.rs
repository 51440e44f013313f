//! Contexts that clients have sent, so that the next build of the same directory has only what changed sent.
//!
//! ```text
//! <data-root>/build-contexts/<key>/record    what it is, when it was used, and during which boot it was written
//!                                  entries   what the client has told of its files, and what is in them
//!                                  files/    the files
//! <data-root>/builds/<build>/...             the same while a build has it
//! ```
//! A build takes the context of its client away, by one rename, and gives it back when it ends, by another: another build of the same
//! directory meanwhile has everything sent. What a build has had changed and not to its end goes with it, and so does what a
//! killed daemon leaves: a context is on the list whole or not at all. A machine that crashes may have lost bytes of files
//! that were never flushed, so that what another boot has written is believed nothing. As with BuildKit (source/local) a
//! file is the same if what the client tells of it is: type, mode, owners, size, time, where it leads to. Clients that give what
//! they tell a name tell that alone where it is still the same; then nobody reads `entries`, which takes as long as all the rest.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use archive::{Entry, Kind};
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use stdx::fs::Durability;
use tokio::runtime::Handle;
use tracing::debug;

use super::receive::{Place, PlaceDirectory};
use super::sources::SeenSources;
use super::tree;
use crate::Engine;
use crate::clock::now_nanos;
use crate::sync::lock;

/// How many contexts are kept, and how many bytes and entries one may have, and bytes all of them: what does not fit is
/// sent as a whole each time.
const CONTEXTS_MAX: usize = 64;
const BYTES_MAX: u64 = 4 << 30;
const ENTRIES_MAX: usize = 1 << 17;

/// Which directory of which client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextName {
    /// The same for builds of the same directory.
    pub key: String,
    /// What it is, in BuildKit's words.
    pub about: String,
}

/// The files of a client's directory, as it has told them.
pub struct ContextFiles {
    key: String,
    about: String,
    data_root: PathBuf,
    trash: PathBuf,
    /// Where they are.
    directory: PathBuf,
    /// What belongs to them, until they are given back.
    beside: PathBuf,
    state: Mutex<State>,
    /// What was read of them by earlier builds.
    seen: Arc<SeenSources>,
    /// Until they are given back it stays.
    held_place: Option<Arc<PlaceDirectory>>,
}

#[derive(Debug, Default)]
struct State {
    /// Where `entries` is, which nobody has read yet.
    unread: Option<PathBuf>,
    known: BTreeMap<String, StatFacts>,
    record: Option<Record>,
    /// Whether all files are as they were told.
    is_whole: bool,
    /// Whether anything is known now that `entries` does not say.
    is_new: bool,
    /// What is in regular files, as [`tree::Tree::sum`] says it.
    sums: HashMap<String, String>,
    /// The same of what is coming.
    coming: HashMap<String, String>,
    /// What the client calls the list of all that it has told; empty if it gives it no name.
    list_name: String,
    /// These files and no others: another name whenever one of them may have changed.
    generation: String,
}

impl State {
    /// Reads what is known of the files, if nobody has. Fails where it cannot be read: nothing is known then.
    fn load(&mut self) -> io::Result<()> {
        let Some(path) = self.unread.take() else { return Ok(()) };
        let entries = fs::read(path).and_then(|bytes| Ok(serde_json::from_slice::<Entries>(&bytes)?));
        let entries = entries.inspect_err(|_| self.is_whole = false)?;
        for (path, facts, sum) in entries.files {
            sum.into_iter().for_each(|sum| drop(self.sums.insert(path.clone(), sum)));
            self.known.insert(path, facts);
        }
        Ok(())
    }

    /// Likewise: whether all files are as they were told, and that is known.
    fn is_known(&mut self) -> bool {
        if let Err(err) = self.load() {
            debug!(%err, "what a client has told of its files cannot be read");
        }
        self.is_whole
    }

    /// Whether a list of all files has to be written before they are kept.
    fn has_much_to_write(&self) -> bool {
        self.is_new && self.is_whole
    }
}

/// What a client has told of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StatFacts {
    kind: char,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    time: (i64, u32),
    link: String,
    device: (u32, u32),
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    about: String,
    boot: String,
    bytes: u64,
    created_at_nanos: i64,
    used_at_nanos: i64,
    usage_count: i64,
    /// Of builds before, nothing.
    #[serde(default)]
    list_name: String,
    #[serde(default)]
    generation: String,
}

/// `entries`.
#[derive(Serialize, Deserialize)]
struct Entries {
    files: Vec<(String, StatFacts, Option<String>)>,
}

/// A context that is kept.
pub(crate) struct KeptContext {
    /// Its key: 64 hex digits.
    pub(crate) name: String,
    /// What it is, in BuildKit's words.
    pub(crate) about: String,
    /// What it takes.
    pub(crate) bytes: u64,
    /// Nanoseconds since 1970.
    pub(crate) created_at_nanos: i64,
    /// Likewise.
    pub(crate) used_at_nanos: i64,
    /// How many builds have used it.
    pub(crate) usage_count: i64,
}

/// What a regular file is, and the sum of what is in it.
pub(super) struct KnownFile {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) sum: String,
}

fn root(data_root: &Path) -> PathBuf {
    data_root.join("build-contexts")
}

impl StatFacts {
    fn of(entry: &Entry) -> StatFacts {
        let kind = match entry.kind {
            Kind::Directory => 'd',
            Kind::Symlink => 'l',
            Kind::HardLink => 'h',
            Kind::Fifo => 'p',
            Kind::CharDevice => 'c',
            Kind::BlockDevice => 'b',
            _ => 'f',
        };
        StatFacts {
            kind,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            size: entry.size,
            time: (entry.mtime.secs, entry.mtime.nanos),
            link: String::from_utf8_lossy(&entry.link).into_owned(),
            device: entry.device,
            attributes: entry.xattrs.clone(),
        }
    }

    /// Whether it is made anew each time: a directory changes with what is in it, and a hard link is what it leads to.
    fn is_always_told(&self) -> bool {
        matches!(self.kind, 'd' | 'h')
    }
}

impl ContextFiles {
    /// Takes the files of a client's directory from where they are kept, if they are, into `directory`, which is empty; `beside` is a
    /// path of the build's own, at which nothing is. They are given back when nobody reads them any more. Blocks.
    pub(super) fn take(place: &Place, context: &ContextName, directory: &Path, beside: &Path) -> Arc<ContextFiles> {
        let config = &place.engine().config;
        let roots = (config.data_root.as_path(), place.engine().trash());
        let mut taken = ContextFiles::take_in(roots, context, (directory, beside.to_owned()), Some(place.directory()));
        taken.seen = place.engine().seen_sources.clone();
        Arc::new(taken)
    }

    fn take_in(
        (data_root, trash): (&Path, PathBuf),
        context: &ContextName,
        (directory, beside): (&Path, PathBuf),
        place: Option<Arc<PlaceDirectory>>,
    ) -> ContextFiles {
        let key = oci::Digest::from_sha256(&Sha256::digest(&context.key).into()).hex().to_owned();
        let state = Mutex::new(take(data_root, &key, directory, &beside).unwrap_or_default());
        let (about, data_root, directory) = (context.about.clone(), data_root.to_owned(), directory.to_owned());
        let seen = Arc::default();
        ContextFiles { key, about, data_root, trash, directory, beside, state, seen, held_place: place }
    }

    /// Has them become those that the client tells, each as an archive has it, as far as that goes without their bytes: removes what is
    /// gone. Answers which ones have to come.
    pub async fn become_told(self: Arc<ContextFiles>, told: Vec<Option<Entry>>) -> io::Result<Vec<bool>> {
        bridge::blocking(move || self.update(&told)).await
    }

    /// What [`ContextFiles::become_told`] does. Blocks: removes files, and looks at all that is told.
    fn update(&self, told: &[Option<Entry>]) -> io::Result<Vec<bool>> {
        let mut state = lock(&self.state);
        let loaded = state.load();
        // From here on they are neither what they were nor what they shall be.
        state.is_whole = false;
        state.list_name.clear();
        let path = |entry: &Entry| String::from_utf8_lossy(&entry.path).into_owned();
        let new: BTreeMap<String, StatFacts> =
            told.iter().flatten().map(|entry| (path(entry), StatFacts::of(entry))).collect();
        state.coming.clear();
        // What is written through a link would be in a file that is told as another one.
        let leads_on = |path: &str| new.get(path).is_some_and(|facts| facts.kind != 'd');
        if new.keys().any(|path| path.match_indices('/').any(|(at, _)| leads_on(&path[..at]))) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file is told to be in what is no directory"));
        }
        if let Err(err) = loaded.and_then(|()| remove_gone(&self.directory, &state.known, &new)) {
            debug!(%err, "what a client sent is not changed but sent again");
            empty(&self.directory)?;
            let record = state.record.take();
            // What `entries` says is not there any more, be it that nothing else is told.
            *state = State { record, is_new: true, ..State::default() };
        }
        let comes = |entry: &Option<Entry>| {
            let Some(entry) = entry else { return false };
            let path = path(entry);
            new.get(&path).is_none_or(|facts| facts.is_always_told() || state.known.get(&path) != Some(facts))
        };
        let comes: Vec<bool> = told.iter().map(comes).collect();
        if state.known != new {
            for (entry, _) in told.iter().zip(&comes).filter(|(_, comes)| **comes) {
                entry.iter().for_each(|entry| drop(state.sums.remove(&path(entry))));
            }
            state.sums.retain(|path, _| new.contains_key(path));
            state.known = new;
            state.generation = stdx::id::random_hex::<16>();
            state.is_new = true;
        }
        Ok(comes)
    }

    /// What the client called all that it has told before; empty if it did not.
    pub fn list_name(&self) -> String {
        let state = lock(&self.state);
        if state.is_whole { state.list_name.clone() } else { String::new() }
    }

    /// What it calls all that it has told now.
    pub fn list_is_called(&self, name: &str) {
        name.clone_into(&mut lock(&self.state).list_name);
    }

    /// Who has read earlier builds' sources, and what these files are called there; nothing while they are coming.
    pub(super) fn seen(&self) -> Option<(&SeenSources, String)> {
        let state = lock(&self.state);
        let is_named = state.is_whole && !state.generation.is_empty();
        is_named.then(|| (&*self.seen, format!("context {}", state.generation)))
    }

    /// What is in a file that is coming, by its path.
    pub fn note(&self, path: String, sum: String) {
        lock(&self.state).coming.insert(path, sum);
    }

    /// All has come that had to.
    pub(super) fn are_whole(&self) {
        let mut state = lock(&self.state);
        let coming = std::mem::take(&mut state.coming);
        let State { known, sums, is_new, .. } = &mut *state;
        for (path, sum) in coming.into_iter().filter(|(path, _)| known.get(path).is_some_and(|facts| facts.kind == 'f'))
        {
            *is_new |= sums.insert(path, sum).is_none();
        }
        state.is_whole = true;
    }

    /// What is known of a regular file without looking at it.
    pub(super) fn known(&self, path: &[u8]) -> Option<KnownFile> {
        let mut state = lock(&self.state);
        let path = std::str::from_utf8(path).ok().filter(|_| state.is_known())?;
        let facts = state.known.get(path).filter(|facts| facts.kind == 'f')?;
        let mode = FileType::RegularFile.as_raw_mode() | facts.mode;
        Some(KnownFile { mode, owner: facts.owner, sum: state.sums.get(path)?.clone() })
    }

    /// The sum of a regular file by a path that no link is on.
    pub(super) fn known_at(&self, path: &[u8]) -> Option<String> {
        let mut state = lock(&self.state);
        let path = std::str::from_utf8(path).ok().filter(|_| state.is_known())?;
        let is = |path: &str, kind| state.known.get(path).is_some_and(|facts| facts.kind == kind);
        let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
        let is_plain = is(path, 'f') && above.all(|above| is(above, 'd'));
        is_plain.then(|| state.sums.get(path).cloned())?
    }

    /// Keeps what is in a file, if it is a regular one that was told.
    pub(super) fn learn(&self, path: &[u8], sum: &str) {
        let mut state = lock(&self.state);
        if let Ok(path) = std::str::from_utf8(path)
            && state.is_known()
            && state.known.get(path).is_some_and(|facts| facts.kind == 'f')
            && state.sums.insert(path.to_owned(), sum.to_owned()).is_none()
        {
            state.is_new = true;
        }
    }

    /// Gives them back to where they are kept, if they are whole.
    fn keep(&self) -> io::Result<()> {
        let state = std::mem::take(&mut *lock(&self.state));
        let (data_root, trash) = (self.data_root.as_path(), self.trash.as_path());
        let bytes: u64 = match (&state.unread, &state.record) {
            (Some(_), Some(record)) => record.bytes,
            _ => state.known.values().filter(|facts| facts.kind == 'f').map(|facts| facts.size).sum(),
        };
        if !state.is_whole || state.known.len() > ENTRIES_MAX || bytes > BYTES_MAX {
            return Ok(());
        }
        let now = now_nanos();
        let record = Record {
            about: self.about.clone(),
            boot: stdx::boot::id()?,
            bytes,
            created_at_nanos: state.record.as_ref().map_or(now, |record| record.created_at_nanos),
            used_at_nanos: now,
            usage_count: state.record.as_ref().map_or(0, |record| record.usage_count) + 1,
            list_name: state.list_name,
            generation: state.generation,
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.beside)?;
        if state.is_new {
            let mut sums = state.sums;
            let row = |(path, facts): (String, StatFacts)| {
                let sum = sums.remove(&path);
                (path, facts, sum)
            };
            let entries = Entries { files: state.known.into_iter().map(row).collect() };
            fs::write(self.beside.join("entries"), serde_json::to_vec(&entries)?)?;
        }
        write(&self.beside, &record)?;
        fs::rename(&self.directory, self.beside.join("files"))?;
        let (above, whole) = (root(data_root), root(data_root).join(&self.key));
        DirBuilder::new().recursive(true).mode(0o700).create(&above)?;
        // What another build has given back meanwhile is older than what this one has had sent, or the same.
        set_aside(&whole, trash);
        fs::rename(&self.beside, &whole)?;
        bound(data_root, trash);
        Ok(())
    }
}

thread_local! {
    /// Whether what is dropped on this thread may block it for long.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Drops what contexts are read through: those that nobody else reads are back when this returns. Blocks.
pub(super) fn drop_here<T>(reader: T) {
    let before = MAY_BLOCK.replace(true);
    drop(reader);
    MAY_BLOCK.set(before);
}

impl ContextFiles {
    /// The same, leaving nothing here.
    fn moved(&mut self) -> ContextFiles {
        ContextFiles {
            key: std::mem::take(&mut self.key),
            about: std::mem::take(&mut self.about),
            data_root: std::mem::take(&mut self.data_root),
            trash: std::mem::take(&mut self.trash),
            directory: std::mem::take(&mut self.directory),
            beside: std::mem::take(&mut self.beside),
            state: Mutex::new(std::mem::take(&mut *lock(&self.state))),
            seen: self.seen.clone(),
            held_place: self.held_place.take(),
        }
    }
}

impl Drop for ContextFiles {
    fn drop(&mut self) {
        // Whoever read them may have been about to record what a step came to: nobody else has changed them until now.
        let has_much_to_write = lock(&self.state).has_much_to_write();
        if has_much_to_write
            && !MAY_BLOCK.get()
            && let Ok(runtime) = Handle::try_current()
        {
            // A build that was given up, whose tasks are dropped where others wait for their turn.
            let files = self.moved();
            runtime.spawn(bridge::blocking(move || drop_here(files)));
            return;
        }
        if let Err(err) = self.keep() {
            debug!(%err, "a context is not kept");
        }
    }
}

impl fmt::Debug for ContextFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextFiles").field("key", &self.key).finish_non_exhaustive()
    }
}

fn set_aside(whole: &Path, trash: &Path) -> bool {
    fs::rename(whole, trash.join(stdx::id::random_hex::<8>())).is_ok()
}

/// Takes what is kept away; nothing if there is nothing that could be believed.
fn take(data_root: &Path, key: &str, directory: &Path, beside: &Path) -> Option<State> {
    fs::rename(root(data_root).join(key), beside).ok()?;
    let taken = read(beside).and_then(|record| {
        // An empty directory gives way.
        fs::rename(beside.join("files"), directory).ok()?;
        Some(record)
    });
    let Some(mut record) = taken else {
        // With the build it goes.
        if let Err(err) = fs::rename(beside, beside.with_extension("broken")) {
            debug!(%err, "a context that cannot be read stays in its build's way");
        }
        return None;
    };
    let (list_name, generation) = (std::mem::take(&mut record.list_name), std::mem::take(&mut record.generation));
    let unread = Some(beside.join("entries"));
    Some(State { unread, record: Some(record), is_whole: true, list_name, generation, ..State::default() })
}

/// Removes what a client does not tell any more. Fails where what is there cannot become what is told.
fn remove_gone(
    directory: &Path,
    known: &BTreeMap<String, StatFacts>,
    new: &BTreeMap<String, StatFacts>,
) -> io::Result<()> {
    if known.is_empty() {
        return Ok(());
    }
    let root: OwnedFd = fs::File::open(directory)?.into();
    // What is in a directory stands behind it.
    for (path, facts) in known.iter().rev() {
        match new.get(path) {
            // Unpacking takes no attribute from a directory.
            Some(new) if facts.kind == 'd' && new.kind == 'd' && facts.attributes != new.attributes => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Some(_) => {}
            None => remove(&root, path, facts.kind == 'd')?,
        }
    }
    Ok(())
}

fn remove(root: &OwnedFd, path: &str, is_directory: bool) -> io::Result<()> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    let parent = tree::open(root, above, OFlags::PATH | OFlags::DIRECTORY)?;
    match rustix::fs::unlinkat(&parent, name, flags) {
        Err(Errno::NOENT) | Ok(()) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// Removes everything in a directory.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// What is known of a context; nothing of one that another boot has written.
fn read(whole: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(whole.join("record")).ok()?).ok()?;
    (record.boot == stdx::boot::id().ok()?).then_some(record)
}

fn write(whole: &Path, record: &Record) -> io::Result<()> {
    stdx::fs::write_atomic(&whole.join("record"), &serde_json::to_vec(record)?, Durability::ProcessDeath)
}

/// All contexts that are kept and that no build has, the one first that was unused for the longest time. Blocks.
pub(crate) fn all(data_root: &Path) -> Vec<KeptContext> {
    // Without a directory there are none.
    let Ok(entries) = fs::read_dir(root(data_root)) else { return Vec::new() };
    let context = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        // One without a record goes first.
        let record = read(&entry.path()).unwrap_or_default();
        let Record { about, bytes, created_at_nanos, used_at_nanos, usage_count, .. } = record;
        let name = entry.file_name().into_string().ok()?;
        Some(KeptContext { name, about, bytes, created_at_nanos, used_at_nanos, usage_count })
    };
    let mut all: Vec<KeptContext> = entries.filter_map(context).collect();
    all.sort_by(|a, b| (a.used_at_nanos, &a.name).cmp(&(b.used_at_nanos, &b.name)));
    all
}

/// Removes a context that no build has; answers whether it is gone. Blocks shortly.
pub(crate) fn remove_kept(engine: &Engine, name: &str) -> bool {
    let is_gone = set_aside(&root(&engine.config.data_root).join(name), &engine.trash());
    engine.sweep_soon();
    is_gone
}

/// Removes the oldest ones until there are no more than there may be.
fn bound(data_root: &Path, trash: &Path) {
    let all = all(data_root);
    let (mut count, mut bytes) = (all.len(), all.iter().map(|context| context.bytes).sum::<u64>());
    for context in &all {
        if count <= CONTEXTS_MAX && bytes <= BYTES_MAX {
            return;
        }
        if set_aside(&root(data_root).join(&context.name), trash) {
            count -= 1;
            bytes -= context.bytes;
        }
    }
}

#[cfg(test)]
mod tests;
