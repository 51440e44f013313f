//! Directories that commands of builds find again (`RUN --mount=type=cache`).
//!
//! ```text
//! <data-root>/build-cache-mounts/<name>/record    what it is, and when it was used last
//!                                       fs/       its files
//! ```
//! A name is a hash of a cache's key and of a number: of caches that nobody may share there are several. Who uses which is
//! known in memory alone, behind one lock that is held over a few looks at names; with the daemon the users go. A new one is
//! made in the directory of its build and appears whole, by one rename.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dockerfile::Sharing;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use stdx::fs::Durability;
use tokio::sync::Notify;
use tracing::debug;

use super::RunMountError;
use crate::Engine;
use crate::clock::now_nanos;
use crate::sync::lock;

/// Caches of one key that may be used at the same time: more than there are builds.
const NUMBERS: u32 = 1024;

/// How many of them are looked for beside those that are used: one that was removed leaves a gap.
const SPARE: usize = 8;

/// What is wanted of a cache.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// Equal for equal ones.
    pub(super) key: String,
    pub(super) sharing: Sharing,
    /// What it is, in BuildKit's words.
    pub(super) about: String,
}

impl Wish {
    /// What the Dockerfile calls the cache.
    pub(super) fn id(&self) -> &str {
        self.key.split('\0').next().unwrap_or_default()
    }
}

/// The keys of caches with which a build has begun anew.
pub(super) type Renewed = HashSet<String>;

/// Who uses which caches.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    used: Mutex<HashMap<String, Use>>,
    freed: Notify,
    wanted: Arc<Wanted>,
}

/// The keys of caches that somebody waits for, as often as that.
#[derive(Debug, Default)]
pub(super) struct Wanted(Mutex<Vec<String>>);

impl Wanted {
    /// Whether one of these is among them.
    pub(super) fn has_any(&self, keys: &[String]) -> bool {
        lock(&self.0).iter().any(|key| keys.contains(key))
    }

    /// Adds one, until the answer is dropped.
    pub(super) fn add<'a>(&'a self, key: &'a str) -> Waiting<'a> {
        lock(&self.0).push(key.to_owned());
        Waiting { wanted: self, key }
    }
}

/// Somebody who waits for a cache.
pub(super) struct Waiting<'a> {
    wanted: &'a Wanted,
    key: &'a str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut keys = lock(&self.wanted.0);
        if let Some(place) = keys.iter().position(|key| key == self.key) {
            keys.swap_remove(place);
        }
    }
}

#[derive(Debug)]
struct Use {
    key: String,
    users: usize,
    is_shared: bool,
    /// Held by who makes it.
    making: Arc<Mutex<()>>,
}

/// A cache that is used, until this is dropped.
pub(super) struct Lease {
    engine: Engine,
    name: String,
    wish: Wish,
    directory: PathBuf,
    making: Arc<Mutex<()>>,
}

/// What is known of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    about: String,
    created_at_nanos: i64,
    used_at_nanos: i64,
    usage_count: i64,
}

/// A cache that is there.
pub(crate) struct Cache {
    /// Its name: 64 hex digits.
    pub(crate) name: String,
    /// What it is, in BuildKit's words.
    pub(crate) about: String,
    /// Nanoseconds since 1970.
    pub(crate) created_at_nanos: i64,
    /// When it was used last: nanoseconds since 1970.
    pub(crate) used_at_nanos: i64,
    /// How often it was used.
    pub(crate) usage_count: i64,
    /// Whether it is used now.
    pub(crate) in_use: bool,
}

fn root(engine: &Engine) -> PathBuf {
    engine.config.data_root.join("build-cache-mounts")
}

fn name(key: &str, number: u32) -> String {
    let hash = Sha256::digest(format!("{number}\0{key}"));
    oci::Digest::from_sha256(&hash.into()).hex().to_owned()
}

/// Waits for the caches that a command wants, each once; those that are locked by others until they are free. Always in the
/// same order, so that commands that want the same do not wait for each other for ever.
///
/// A build that does all again (`renewed`) begins with new ones, as with BuildKit: what is there under their names goes, and
/// of those that others use it gets others.
pub(super) async fn acquire(
    engine: &Engine,
    wishes: Vec<Option<Wish>>,
    renewed: Option<&Mutex<Renewed>>,
) -> Vec<Option<Lease>> {
    let mut order: Vec<usize> = (0..wishes.len()).filter(|index| wishes[*index].is_some()).collect();
    order.sort_by(|a, b| wishes[*a].as_ref().map(|wish| &wish.key).cmp(&wishes[*b].as_ref().map(|wish| &wish.key)));
    let mut leases: Vec<Option<Lease>> = wishes.iter().map(|_| None).collect();
    let mut last: Option<usize> = None;
    for index in order {
        let Some(wish) = &wishes[index] else { continue };
        let own = last.and_then(|last| leases[last].as_ref()).filter(|lease| lease.wish.key == wish.key);
        // What a command mounts at two places it has once.
        leases[index] = Some(match own {
            Some(own) => own.again(),
            None => match renewed.and_then(|renewed| renew(engine, wish, &mut lock(renewed))) {
                Some(new) => new,
                None => one(engine, wish).await,
            },
        });
        last = Some(index);
    }
    leases
}

/// The keys of what is held, and who waits for which; `None` where nothing is.
pub(super) fn held(leases: &[Option<Lease>]) -> Option<(Arc<Wanted>, Vec<String>)> {
    let mut leases = leases.iter().flatten().peekable();
    let wanted = leases.peek()?.engine.caches.wanted.clone();
    Some((wanted, leases.map(|lease| lease.wish.key.clone()).collect()))
}

/// Begins with a new cache, where the build has none of that key yet.
fn renew(engine: &Engine, wish: &Wish, renewed: &mut Renewed) -> Option<Lease> {
    if !renewed.insert(wish.key.clone()) {
        return None;
    }
    let mut used = lock(&engine.caches.used);
    let name = (0..NUMBERS).map(|number| name(&wish.key, number)).find(|name| !used.contains_key(name))?;
    let gone = fs::rename(root(engine).join(&name), engine.trash().join(stdx::id::random_hex::<8>()));
    if gone.is_ok() {
        engine.sweep_soon();
    }
    Some(hold(&mut used, engine, wish, name))
}

/// Uses a cache.
fn hold(used: &mut HashMap<String, Use>, engine: &Engine, wish: &Wish, name: String) -> Lease {
    let (is_shared, making) = (wish.sharing == Sharing::Shared, Arc::default());
    let user = used.entry(name.clone()).or_insert(Use { key: wish.key.clone(), users: 0, is_shared, making });
    user.users += 1;
    let directory = root(engine).join(&name).join("fs");
    Lease { engine: engine.clone(), making: user.making.clone(), wish: wish.clone(), name, directory }
}

async fn one(engine: &Engine, wish: &Wish) -> Lease {
    loop {
        let freed = engine.caches.freed.notified();
        tokio::pin!(freed);
        // From here on no end of another's use is missed.
        freed.as_mut().enable();
        if let Some(lease) = engine.caches.take(engine, wish) {
            return lease;
        }
        let _waiting = engine.caches.wanted.add(&wish.key);
        freed.await;
    }
}

impl Caches {
    fn take(&self, engine: &Engine, wish: &Wish) -> Option<Lease> {
        let mut used = lock(&self.used);
        let is_shared = wish.sharing == Sharing::Shared;
        let joined = used.iter().find(|(_, user)| is_shared && user.is_shared && user.key == wish.key);
        let joined = joined.map(|(name, _)| name.clone());
        let name = match joined {
            Some(name) => name,
            None => free(&used, &root(engine), wish)?,
        };
        Some(hold(&mut used, engine, wish, name))
    }
}

/// A cache that nobody uses: one that is there before one that is not. `None` where others have to be waited for.
fn free(used: &HashMap<String, Use>, root: &Path, wish: &Wish) -> Option<String> {
    let names: Vec<String> = (0..NUMBERS).map(|number| name(&wish.key, number)).take(used.len() + SPARE).collect();
    let mut unused = names.iter().filter(|name| !used.contains_key(*name));
    let there = unused.clone().find(|name| root.join(name).exists());
    let is_locked = || wish.sharing == Sharing::Locked && used.values().any(|user| user.key == wish.key);
    match there {
        Some(name) => Some(name.clone()),
        None if is_locked() => None,
        None => unused.next().cloned(),
    }
}

impl Lease {
    /// Its files.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn again(&self) -> Lease {
        if let Some(user) = lock(&self.engine.caches.used).get_mut(&self.name) {
            user.users += 1;
        }
        Lease {
            engine: self.engine.clone(),
            name: self.name.clone(),
            wish: self.wish.clone(),
            directory: self.directory.clone(),
            making: self.making.clone(),
        }
    }

    /// Makes it in `stage` if it is new; who shares it waits meanwhile. Blocks.
    pub(super) fn fill(
        &self,
        stage: &Path,
        begin: impl FnOnce(&Path) -> Result<(), RunMountError>,
    ) -> Result<(), RunMountError> {
        let _making = lock(&self.making);
        let failed = |source| RunMountError::Place { target: self.wish.about.clone(), source };
        let whole = root(&self.engine).join(&self.name);
        if whole.exists() {
            return self.note(&whole).map_err(failed);
        }
        let files = stage.join("fs");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&files);
        made.map_err(failed)?;
        super::mounts::give(&files, (0, 0, 0o755)).map_err(failed)?;
        begin(&files)?;
        self.note(stage).map_err(failed)?;
        DirBuilder::new().recursive(true).mode(0o700).create(root(&self.engine)).map_err(failed)?;
        fs::rename(stage, &whole).map_err(failed)
    }

    /// Writes down that it is used.
    fn note(&self, whole: &Path) -> io::Result<()> {
        let now = now_nanos();
        let known = read(whole);
        let record = Record {
            // Whoever had it made is told of, as with BuildKit.
            about: known.as_ref().map_or_else(|| self.wish.about.clone(), |known| known.about.clone()),
            created_at_nanos: known.as_ref().map_or(now, |known| known.created_at_nanos),
            used_at_nanos: now,
            usage_count: known.map_or(0, |known| known.usage_count) + 1,
        };
        write(whole, &record)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let whole = root(&self.engine).join(&self.name);
        if let Some(known) = read(&whole)
            && let Err(err) = write(&whole, &Record { used_at_nanos: now_nanos(), ..known })
        {
            // It goes a little earlier.
            debug!(%err, "when a cache of builds was used is not noted");
        }
        let mut used = lock(&self.engine.caches.used);
        if let Some(user) = used.get_mut(&self.name) {
            user.users -= 1;
            if user.users == 0 {
                used.remove(&self.name);
            }
        }
        drop(used);
        self.engine.caches.freed.notify_waiters();
    }
}

fn read(whole: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(whole.join("record")).ok()?).ok()
}

fn write(whole: &Path, record: &Record) -> io::Result<()> {
    let bytes = serde_json::to_vec(record).expect("texts and numbers are always JSON");
    stdx::fs::write_atomic(&whole.join("record"), &bytes, Durability::ProcessDeath)
}

/// All caches, the one first that was unused for the longest time. Blocks.
pub(crate) fn all(engine: &Engine) -> Vec<Cache> {
    // Without a directory there are none.
    let Ok(entries) = fs::read_dir(root(engine)) else { return Vec::new() };
    let used = lock(&engine.caches.used);
    let cache = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        let in_use = used.contains_key(&name);
        // One without a record goes first.
        let record = read(&entry.path());
        let record =
            record.unwrap_or(Record { about: String::new(), created_at_nanos: 0, used_at_nanos: 0, usage_count: 0 });
        let Record { about, created_at_nanos, used_at_nanos, usage_count } = record;
        Some(Cache { name, about, created_at_nanos, used_at_nanos, usage_count, in_use })
    };
    let mut all: Vec<Cache> = entries.filter_map(cache).collect();
    drop(used);
    all.sort_by(|a, b| (a.used_at_nanos, &a.name).cmp(&(b.used_at_nanos, &b.name)));
    all
}

/// What a cache takes, in bytes. Blocks: walks all its files.
pub(crate) fn bytes(engine: &Engine, name: &str) -> u64 {
    let usage = stdx::tree::usage(&root(engine).join(name).join("fs"));
    usage.ok().flatten().map_or(0, |usage| usage.bytes)
}

/// Removes a cache that nobody uses; answers whether it is gone. Blocks shortly.
pub(crate) fn remove(engine: &Engine, name: &str) -> bool {
    let used = lock(&engine.caches.used);
    if used.contains_key(name) {
        return false;
    }
    let renamed = fs::rename(root(engine).join(name), engine.trash().join(stdx::id::random_hex::<8>()));
    drop(used);
    engine.sweep_soon();
    renamed.is_ok()
}
