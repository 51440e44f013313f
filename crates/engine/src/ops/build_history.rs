//! Builds that have ended, as BuildKit's clients told of them (`api-server`, `buildkit::history`).
//!
//! ```text
//! <data-root>/build-history/records/<sum of the build's name>   a line of JSON: [`Head`]; then what the client is told
//! <data-root>/build-history/blobs/<sum of what is in it>        what a record names: what the build told, why it failed, ...
//! ```
//! Blobs are written before the record that names them, and removed behind it; what a killed daemon leaves is removed with
//! the next build. Whoever changes something holds the lock of [`History`], which readers need not: a file is whole or not there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use stdx::fs::{Durability, create_private_dir, remove_if_exists, write_atomic};
use tracing::{debug, warn};

use crate::{Engine, clock, time_query};

/// How many builds stay, however old they are. BuildKit's default.
const ENTRIES: usize = 50;

/// How long the others stay. BuildKit's default.
const AGE: Duration = Duration::from_secs(48 * 3600);

/// How many stay at most: BuildKit has no such bound, and a machine that builds all the time would fill its disk.
const ENTRIES_MAX: usize = 1000;

/// The longest file, in bytes.
pub const FILE_MAX: usize = 64 << 20;

/// What all blobs may take, in bytes, but for those of the newest build.
const BYTES_MAX: u64 = 512 << 20;

/// What is known of builds that have ended.
#[derive(Debug, Default)]
pub struct History(Mutex<()>);

/// A build that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is known of it here.
    pub head: Head,
    /// What clients are told.
    pub record: Vec<u8>,
}

/// What is known of a build that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its name.
    pub reference: String,
    /// When it ended, in nanoseconds since 1970.
    pub completed_nanos: i64,
    /// Whether it stays.
    pub pinned: bool,
    /// The blobs that it names, by their sums.
    pub blobs: BTreeSet<String>,
}

/// What blobs are known by: the sum of their bytes, in hexadecimal.
pub fn sum(bytes: &[u8]) -> String {
    oci::Digest::from_sha256(&Sha256::digest(bytes).into()).hex().to_owned()
}

/// Nanoseconds of `1h30m`, as Go reads it; `None` for anything else.
pub fn parse_duration(text: &str) -> Option<i64> {
    time_query::duration(text)
}

/// Nanoseconds since 1970 of a time in RFC 3339; `None` for anything else.
pub fn parse_time(text: &str) -> Option<i64> {
    clock::parse_rfc3339(text)
}

fn root(engine: &Engine) -> PathBuf {
    engine.config.data_root.join("build-history")
}

fn record_path(root: &Path, reference: &str) -> PathBuf {
    root.join("records").join(sum(reference.as_bytes()))
}

impl History {
    /// Keeps a build and its blobs, and forgets those that need not stay.
    pub async fn keep(self: &Arc<Self>, engine: &Engine, entry: Entry, blobs: Vec<Vec<u8>>) -> io::Result<()> {
        let (history, engine) = (self.clone(), engine.clone());
        bridge::blocking(move || history.keep_now(&engine, &entry, &blobs)).await
    }

    /// Changes what is known of a build; whether there is such a one.
    pub async fn change(
        self: &Arc<Self>,
        engine: &Engine,
        reference: &str,
        change: impl FnOnce(&mut Entry) + Send + 'static,
    ) -> io::Result<bool> {
        let (history, engine, reference) = (self.clone(), engine.clone(), reference.to_owned());
        bridge::blocking(move || history.change_now(&engine, &reference, change)).await
    }

    /// Forgets a build; whether there was such a one.
    pub async fn forget(self: &Arc<Self>, engine: &Engine, reference: &str) -> io::Result<bool> {
        let (history, engine, reference) = (self.clone(), engine.clone(), reference.to_owned());
        bridge::blocking(move || history.forget_now(&engine, &reference)).await
    }

    fn keep_now(&self, engine: &Engine, entry: &Entry, blobs: &[Vec<u8>]) -> io::Result<()> {
        let _changing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let root = root(engine);
        for directory in ["records", "blobs"] {
            create_private_dir(&root.join(directory))?;
        }
        for bytes in blobs {
            write_atomic(&root.join("blobs").join(sum(bytes)), bytes, Durability::ProcessDeath)?;
        }
        write(&root, entry)?;
        collect(&root, &entry.head.reference)
    }

    fn change_now(&self, engine: &Engine, reference: &str, change: impl FnOnce(&mut Entry)) -> io::Result<bool> {
        let _changing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let root = root(engine);
        let Some(mut entry) = read(&record_path(&root, reference))? else { return Ok(false) };
        change(&mut entry);
        write(&root, &entry).map(|()| true)
    }

    fn forget_now(&self, engine: &Engine, reference: &str) -> io::Result<bool> {
        let _changing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let root = root(engine);
        let path = record_path(&root, reference);
        if !path.exists() {
            return Ok(false);
        }
        remove_if_exists(&path)?;
        collect(&root, "").map(|()| true)
    }
}

fn write(root: &Path, entry: &Entry) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(&entry.head)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&entry.record);
    write_atomic(&record_path(root, &entry.head.reference), &bytes, Durability::ProcessDeath)
}

/// What is in a file; `None` where there is none.
fn bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX as u64).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn read(path: &Path) -> io::Result<Option<Entry>> {
    let Some(bytes) = bytes(path)? else { return Ok(None) };
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(io::ErrorKind::InvalidData)?;
    let head = serde_json::from_slice(&bytes[..end])?;
    Ok(Some(Entry { head, record: bytes[end + 1..].to_vec() }))
}

/// A build of a name, if it has ended and is known still.
pub async fn find(engine: &Engine, reference: &str) -> Option<Entry> {
    let path = record_path(&root(engine), reference);
    let found = bridge::blocking(move || read(&path)).await;
    found.unwrap_or_else(|err| {
        warn!(reference, %err, "a build's record cannot be read");
        None
    })
}

/// All builds that have ended, the newest first.
pub async fn list(engine: &Engine) -> Vec<Entry> {
    let root = root(engine);
    bridge::blocking(move || all(&root)).await
}

fn all(root: &Path) -> Vec<Entry> {
    let files = fs::read_dir(root.join("records")).into_iter().flatten().flatten();
    let files = files.map(|file| file.path()).filter(|path| path.extension().is_none());
    // What cannot be read is as good as not there, and goes with the next build.
    let mut all: Vec<Entry> = files.filter_map(|path| read(&path).ok().flatten()).collect();
    all.sort_by_key(|entry| std::cmp::Reverse(entry.head.completed_nanos));
    all
}

/// A blob that a build names.
pub async fn blob(engine: &Engine, sum: &str) -> Option<Vec<u8>> {
    let is_sum = sum.len() == 64 && sum.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if !is_sum {
        return None;
    }
    let path = root(engine).join("blobs").join(sum);
    bridge::blocking(move || bytes(&path)).await.ok().flatten()
}

/// Forgets what need not stay, but the newest of these names, and removes what nobody names.
fn collect(root: &Path, newest: &str) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let all = all(root);
    let sizes = |entry: &Entry| -> u64 {
        let size = |sum: &String| fs::metadata(root.join("blobs").join(sum)).map_or(0, |found| found.len());
        entry.head.blobs.iter().map(size).sum()
    };
    let seen: Vec<(&Head, u64)> = all.iter().map(|entry| (&entry.head, sizes(entry))).collect();
    let stay = staying(&seen, newest, i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
    let blobs: BTreeSet<&String> = stay.iter().flat_map(|head| &head.blobs).collect();
    let records: BTreeSet<String> = stay.iter().map(|head| sum(head.reference.as_bytes())).collect();
    for (directory, is_kept) in [
        ("records", &(|name: &String| records.contains(name)) as &dyn Fn(&String) -> bool),
        ("blobs", &|name: &String| blobs.contains(name)),
    ] {
        for file in fs::read_dir(root.join(directory))?.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if !is_kept(&name)
                && let Err(err) = remove_if_exists(&file.path())
            {
                // The next build tries again.
                debug!(name, %err, "a file of an old build stays");
            }
        }
    }
    Ok(())
}

/// Which builds stay, of all with what their blobs take, the newest first. Pure.
fn staying<'a>(all: &[(&'a Head, u64)], newest: &str, now_nanos: i64) -> Vec<&'a Head> {
    let (mut count, mut bytes) = (0, 0_u64);
    let age = i64::try_from(AGE.as_nanos()).unwrap_or(i64::MAX);
    let stays = |(head, size): &&(&Head, u64)| {
        bytes = bytes.saturating_add(*size);
        if head.pinned || head.reference == newest {
            return true;
        }
        count += 1;
        let is_young = head.completed_nanos.saturating_add(age) > now_nanos;
        (count <= ENTRIES || is_young && count <= ENTRIES_MAX) && bytes <= BYTES_MAX
    };
    all.iter().filter(stays).map(|(head, _)| *head).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_builds_go_when_there_are_many() {
        let head = |number: usize, completed_nanos, pinned| Head {
            reference: number.to_string(),
            completed_nanos,
            pinned,
            blobs: BTreeSet::new(),
        };
        let now = i64::try_from(AGE.as_nanos()).unwrap() * 2;
        let count = |heads: &[Head], size| {
            let all: Vec<_> = heads.iter().map(|head| (head, size)).collect();
            staying(&all, "0", now).len()
        };
        let old: Vec<Head> = (0..80).map(|number| head(number, 0, number == 70)).collect();
        // The newest, the fifty, and what was pinned.
        assert_eq!(count(&old, 1), 52);
        let young: Vec<Head> = (0..2000).map(|number| head(number, now, false)).collect();
        assert_eq!(count(&young, 1), ENTRIES_MAX + 1);
        assert_eq!(count(&young[..80], BYTES_MAX / 10), 10);
        assert_eq!(count(&young[..5], u64::MAX), 1);
    }

    #[test]
    fn records_come_back_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("records")).unwrap();
        fs::create_dir(directory.path().join("blobs")).unwrap();
        let blobs = BTreeSet::from([sum(b"a")]);
        let head = Head { reference: "x".to_owned(), completed_nanos: i64::MAX, pinned: false, blobs };
        let entry = Entry { head, record: b"\nrecord\n".to_vec() };
        write(directory.path(), &entry).unwrap();
        for name in [sum(b"a"), sum(b"b"), "x.tmp".to_owned()] {
            fs::write(directory.path().join("blobs").join(name), "a").unwrap();
        }
        fs::write(record_path(directory.path(), "torn"), "{").unwrap();
        assert_eq!(all(directory.path()), [entry]);
        collect(directory.path(), "").unwrap();
        let left = |name: &str| fs::read_dir(directory.path().join(name)).unwrap().count();
        assert_eq!((left("records"), left("blobs")), (1, 1));
    }
}
