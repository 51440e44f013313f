//! Archives of images: loaded where nothing of them is, and saved to a file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::engine::{Engine, Sample};
use super::pull;

/// Loads the archive, in which `image` is, and removes it again; see [`pull::removed`] for `store`.
pub(super) fn load(engine: &Engine, archive: &Path, image: &str, store: Option<&Path>) -> Result<Sample> {
    let line = ["load".into(), "-q".into(), "-i".into(), archive.display().to_string()];
    pull::removed(engine, image, store, || engine.sample(&line))
}

/// Saves `image`, which is there, beside the archive: where every engine sees that, it may write.
pub(super) fn save(engine: &Engine, archive: &Path, image: &str) -> Result<Sample> {
    let output = output(archive);
    rustix::fs::sync();
    let sample = engine.sample(&["save".into(), "-o".into(), output.display().to_string(), image.into()]);
    let removed = fs::remove_file(&output).with_context(|| format!("remove {}", output.display()));
    let sample = sample?;
    removed?;
    Ok(sample)
}

fn output(archive: &Path) -> PathBuf {
    archive.with_file_name(format!("bench-save-{}.tar", std::process::id()))
}
