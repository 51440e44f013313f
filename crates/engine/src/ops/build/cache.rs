//! What steps came to: one small file each, named by its key. What is lost or torn is built again.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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
    let entry: Entry = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let image = engine.images.get(&entry.image.parse().ok()?)?;
    (image.parent.as_ref() == parent).then(|| image.id.clone())
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
        entries(engine).filter_map(|(_, entry)| Some((entry.created_at_nanos, entry.made_of?))).collect();
    explain::why(&step.made_of, &remembered)
}

/// Where it is remembered which steps were forgotten: a key on each line.
fn forgotten(engine: &Engine) -> PathBuf {
    engine.config.data_root.join("build-cache-forgotten")
}

/// Everything that is remembered, in no order.
fn entries(engine: &Engine) -> impl Iterator<Item = (String, Entry)> {
    // Without a directory nothing is.
    let files = std::fs::read_dir(directory(engine)).into_iter().flatten();
    files.filter_map(|file| {
        let file = file.ok()?;
        let entry: Entry = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
        Some((file.file_name().into_string().ok()?, entry))
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
}

/// All that is remembered, the oldest first. Blocks.
pub(crate) fn remembered(engine: &Engine) -> Vec<Remembered> {
    let one = |(key, entry): (String, Entry)| Remembered {
        key,
        about: entry.about,
        created_at_nanos: entry.created_at_nanos,
    };
    let mut all: Vec<Remembered> = entries(engine).map(one).collect();
    all.sort_by(|a, b| (a.created_at_nanos, &a.key).cmp(&(b.created_at_nanos, &b.key)));
    all
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
