//! What steps came to: one small file each, named by its key. What is lost or torn is built again.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use builder::cache::Key;
use oci::Digest;
use serde::{Deserialize, Serialize};
use stdx::fs::Durability;
use tracing::debug;

use super::explain::{self, Ingredients, Reason};
use crate::Engine;
use crate::clock::now_nanos;

/// What is known of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    image: String,
    /// What it did, as history says it.
    about: String,
    created_at_nanos: i64,
    /// What its key was made of; steps of before that was remembered have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_of: Option<Ingredients>,
}

/// How many forgotten steps are remembered as such, at most; when there are more, only half of them.
const FORGOTTEN_MAX: usize = 4096;

/// How many steps are remembered, and what their files may take together, in bytes: far more than machines build that are
/// swept now and then. Each costs `--explain`, `system df` and `buildx du` a file that they read.
const REMEMBERED_MAX: usize = 16_384;
const BYTES_MAX: u64 = 128 << 20;

/// How long a use is as good as one now.
const USED_WITHIN: Duration = Duration::from_secs(3600);

/// Of how many addresses of the web it is remembered what their servers said.
const WEB_MAX: usize = 4096;

/// A step on its way.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    pub(super) key: Key,
    /// What history says of it.
    pub(super) words: Vec<String>,
    /// Whether these say all that it depends on.
    pub(super) is_told_whole: bool,
    /// What its key was made of.
    pub(super) made_of: Ingredients,
}

/// Where it is remembered what servers of the web said.
const WEB: &str = "web";

/// What is remembered of an address of the web, by its sum.
pub(super) fn of_web(engine: &Engine, sum: &str) -> PathBuf {
    directory(engine).join(WEB).join(sum)
}

fn directory(engine: &Engine) -> PathBuf {
    engine.config.data_root.join("build-cache")
}

/// The image that a step came to, if that is here and still the child of what the step was above. Blocks shortly.
pub(super) fn look_up(engine: &Engine, key: &Key, parent: Option<&Digest>) -> Option<Digest> {
    let path = directory(engine).join(key.as_str());
    let entry: Entry = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    let image = engine.images.get(&entry.image.parse().ok()?)?;
    if image.parent.as_ref() != parent {
        return None;
    }
    note_use(&path);
    Some(image.id.clone())
}

/// Notes that a step was used, by the time of its file. Not each time: what is used every hour is no older than what is now.
fn note_use(path: &Path) {
    let noted = std::fs::metadata(path).and_then(|known| known.modified()).and_then(|used| {
        let is_old = used.elapsed().is_ok_and(|age| age > USED_WITHIN);
        if is_old { std::fs::File::options().write(true).open(path)?.set_modified(SystemTime::now()) } else { Ok(()) }
    });
    if let Err(err) = noted {
        debug!(%err, "that a build step was used is not noted");
    }
}

/// Remembers what a step came to. Blocks shortly.
pub(super) fn remember(engine: &Engine, image: &Digest, keyed: Keyed) {
    let directory = directory(engine);
    let Keyed { key, words, made_of, .. } = keyed;
    let entry = Entry {
        image: image.to_string(),
        about: words.join(" "),
        created_at_nanos: now_nanos(),
        made_of: Some(made_of),
    };
    let bytes = serde_json::to_vec(&entry).expect("texts and numbers are always JSON");
    let write = |directory: &Path| -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        stdx::fs::write_atomic(&directory.join(key.as_str()), &bytes, Durability::ProcessDeath)
    };
    if let Err(err) = write(&directory) {
        // It will be built again.
        debug!(%err, "what a build step came to is not remembered");
    }
}

/// Why a step is not known. Blocks: reads all that is remembered.
pub(super) fn why(engine: &Engine, step: &Keyed) -> Vec<Reason> {
    if directory(engine).join(step.key.as_str()).exists() {
        return vec![Reason::ImageGone];
    }
    let forgotten = std::fs::read_to_string(forgotten(engine)).unwrap_or_default();
    if forgotten.lines().any(|key| key == step.key.as_str()) {
        return vec![Reason::Forgotten];
    }
    let remembered: Vec<_> =
        entries(engine).filter_map(|(_, entry, _)| Some((entry.created_at_nanos, entry.made_of?))).collect();
    explain::why(&step.made_of, &remembered)
}

/// Where it is remembered which steps were forgotten: a key on each line.
fn forgotten(engine: &Engine) -> PathBuf {
    engine.config.data_root.join("build-cache-forgotten")
}

/// Everything that is remembered, in no order, with the time of its last use.
fn entries(engine: &Engine) -> impl Iterator<Item = (String, Entry, SystemTime)> {
    // Without a directory nothing is.
    let files = std::fs::read_dir(directory(engine)).into_iter().flatten();
    files.filter_map(|file| {
        let file = file.ok()?;
        let entry: Entry = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
        Some((file.file_name().into_string().ok()?, entry, file.metadata().ok()?.modified().ok()?))
    })
}

/// A step that is remembered.
pub(crate) struct Remembered {
    /// Its key.
    pub(crate) key: String,
    /// What it did, as history says it.
    pub(crate) about: String,
    /// Nanoseconds since 1970.
    pub(crate) created_at_nanos: i64,
    /// When it was used last, within an hour: nanoseconds since 1970.
    pub(crate) used_at_nanos: i64,
    /// The image that it came to, if there is one.
    pub(crate) image: Option<Digest>,
}

/// All that is remembered, the oldest first. Blocks.
pub(crate) fn remembered(engine: &Engine) -> Vec<Remembered> {
    let one = |(key, entry, used_at): (String, Entry, SystemTime)| Remembered {
        key,
        used_at_nanos: nanos(used_at),
        about: entry.about,
        created_at_nanos: entry.created_at_nanos,
        image: entry.image.parse().ok(),
    };
    let mut all: Vec<Remembered> = entries(engine).map(one).collect();
    all.sort_by(|a, b| (a.created_at_nanos, &a.key).cmp(&(b.created_at_nanos, &b.key)));
    all
}

/// Since 1970.
fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A file that something is remembered in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Remains {
    written: SystemTime,
    name: String,
    bytes: u64,
}

/// Forgets what was not used for longest where it is more than it may be. Blocks: looks at all files, and opens none.
pub(super) fn bound(engine: &Engine) {
    let steps = directory(engine);
    for (place, count_max) in [(steps.join(WEB), WEB_MAX), (steps, REMEMBERED_MAX)] {
        for gone in going(remains(&place), count_max, BYTES_MAX) {
            if let Err(err) = stdx::fs::remove_if_exists(&place.join(gone)) {
                debug!(%err, "what was remembered for long is not forgotten");
            }
        }
    }
}

/// The files in a directory, without those that are written just now.
fn remains(place: &Path) -> Vec<Remains> {
    // Without a directory there are none.
    let files = std::fs::read_dir(place).into_iter().flatten().flatten();
    let one = |file: std::fs::DirEntry| {
        let (name, known) = (file.file_name().into_string().ok()?, file.metadata().ok()?);
        let is_key = known.is_file() && !name.contains('.');
        Some(Remains { written: known.modified().ok()?, name, bytes: known.len() }).filter(|_| is_key)
    };
    files.filter_map(one).collect()
}

/// What goes of some files, the oldest first, until three quarters are left of what there may be: else one would go with every
/// step. Pure.
fn going(mut all: Vec<Remains>, count_max: usize, bytes_max: u64) -> Vec<String> {
    let (mut count, mut bytes) = (all.len(), all.iter().map(|file| file.bytes).sum::<u64>());
    if count <= count_max && bytes <= bytes_max {
        return Vec::new();
    }
    all.sort_unstable();
    let mut gone = Vec::new();
    for file in all {
        if count <= count_max / 4 * 3 && bytes <= bytes_max / 4 * 3 {
            break;
        }
        count -= 1;
        bytes -= file.bytes;
        gone.push(file.name);
    }
    gone
}

/// Forgets what servers of the web said. Blocks shortly.
pub(crate) fn forget_web(engine: &Engine) -> io::Result<()> {
    match std::fs::remove_dir_all(directory(engine).join(WEB)) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Forgets a step. Blocks shortly.
pub(crate) fn forget(engine: &Engine, key: &str) -> io::Result<()> {
    stdx::fs::remove_if_exists(&directory(engine).join(key))?;
    if let Err(err) = note_forgotten(&forgotten(engine), key) {
        // Of this step will be told that nothing like it was built.
        debug!(%err, "that a build step was forgotten is not remembered");
    }
    Ok(())
}

fn note_forgotten(path: &Path, key: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(format!("{key}\n").as_bytes())?;
    let line_bytes = key.len() + 1;
    if file.metadata()?.len() > (FORGOTTEN_MAX * line_bytes) as u64 {
        let all = std::fs::read(path)?;
        let kept = &all[all.len() - FORGOTTEN_MAX / 2 * line_bytes..];
        stdx::fs::write_atomic(path, kept, Durability::ProcessDeath)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let all = |bytes: &[u64]| -> Vec<Remains> {
            // As a directory has them: in no order.
            let one = |(number, bytes): (usize, &u64)| {
                let written = std::time::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
                Remains { written, name: format!("{}", 9 - number), bytes: *bytes }
            };
            bytes.iter().enumerate().rev().map(one).collect()
        };
        for (bytes, count_max, bytes_max, wanted) in [
            (&[][..], 4, 100, ""),
            (&[25, 25, 25, 25], 4, 100, ""),
            (&[1, 1, 1, 1, 1], 4, 100, "9 8"),
            (&[1, 70, 20, 20], 4, 100, "9 8"),
            (&[90, 1, 1, 9], 4, 100, "9"),
            (&[1, 1, 101], 4, 100, "9 8 7"),
        ] {
            assert_eq!(going(all(bytes), count_max, bytes_max).join(" "), wanted, "{bytes:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("0123"), "one").unwrap();
        std::fs::write(directory.path().join(".0124.new"), "being written").unwrap();
        std::fs::create_dir(directory.path().join(WEB)).unwrap();
        let found = remains(directory.path());
        assert_eq!((found.len(), found[0].name.as_str(), found[0].bytes), (1, "0123", 3));
    }

    #[test]
    fn of_forgotten_steps_the_last_ones_are_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("forgotten");
        let key = |number: usize| format!("{number:064}");
        for number in 0..=FORGOTTEN_MAX {
            note_forgotten(&path, &key(number)).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = kept.lines().collect();
        assert_eq!(lines.len(), FORGOTTEN_MAX / 2);
        assert_eq!([lines[0], lines[lines.len() - 1]], [key(FORGOTTEN_MAX / 2 + 1), key(FORGOTTEN_MAX)]);
    }
}
