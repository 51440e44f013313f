//! Pulls, each of an image of which the engine has nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use testkit::process;

use super::engine::{Engine, Sample};

/// What may be left of a removed image, in a store whose tables grow and are not cut: far below a layer of a big image.
const LEFT_BYTES: u64 = 4 << 20;

/// Has `engine` forget `image`; that it has never had it is no error.
pub(super) fn forget(engine: &Engine, image: &str) {
    // Docker's client fails then, others do not.
    let _ = engine.run(&["rmi".into(), "-f".into(), image.into()]);
}

/// Pulls `image` and removes it again.
pub(super) fn sample(engine: &Engine, image: &str, store: Option<&Path>) -> Result<Sample> {
    removed(engine, image, store, || engine.sample(&["pull".into(), "-q".into(), image.into()]))
}

/// Measures how `image` comes, and removes it again. With `store`, where the engine keeps its images, it fails when the
/// removed image is still there after a time: the next sample would find it.
pub(super) fn removed(
    engine: &Engine,
    image: &str,
    store: Option<&Path>,
    sample: impl FnOnce() -> Result<Sample>,
) -> Result<Sample> {
    let before = store.map(bytes).transpose()?;
    // What others have written is not this engine's to wait for.
    rustix::fs::sync();
    let sample = sample()?;
    engine.run(&["rmi".into(), "-f".into(), image.into()])?;
    if let (Some(store), Some(before)) = (store, before) {
        let gone = || bytes(store).is_ok_and(|after| after < before + LEFT_BYTES).then_some(());
        process::until("the removed image is gone", process::DEADLINE, gone)?;
    }
    Ok(sample)
}

/// What the files below `dir` take on the disk.
fn bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        sum += metadata.blocks() * 512;
        if metadata.is_dir() {
            sum += bytes(&path)?;
        }
    }
    Ok(sum)
}
