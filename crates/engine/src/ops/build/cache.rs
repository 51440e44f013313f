//! What steps came to: one small file each, named by its key. What is lost or torn is built again.

use std::io;
use std::path::{Path, PathBuf};

use builder::cache::Key;
use oci::Digest;
use serde::{Deserialize, Serialize};
use stdx::fs::Durability;
use tracing::debug;

use crate::Engine;
use crate::clock::now_nanos;

/// What is known of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    image: String,
    /// What it did, as history says it.
    about: String,
    created_at_nanos: i64,
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
pub(super) fn remember(engine: &Engine, key: &Key, image: &Digest, words: &[String]) {
    let directory = directory(engine);
    let entry = Entry { image: image.to_string(), about: words.join(" "), created_at_nanos: now_nanos() };
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
    // Without a directory nothing is.
    let Ok(files) = std::fs::read_dir(directory(engine)) else { return Vec::new() };
    let mut all: Vec<Remembered> = files
        .filter_map(|file| {
            let file = file.ok()?;
            let entry: Entry = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
            let key = file.file_name().into_string().ok()?;
            Some(Remembered { key, about: entry.about, created_at_nanos: entry.created_at_nanos })
        })
        .collect();
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
    stdx::fs::remove_if_exists(&directory(engine).join(key))
}
