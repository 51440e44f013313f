//! Archives of images: loaded where nothing of them is, saved to a file, and pushed to a registry that has nothing. One of many
//! images is made here: to list them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use testkit::images::{plan, write};
use testkit::registry::Debian;

use super::engine::{Engine, Sample};
use super::pull;

/// Loads the archive, in which `image` is, and removes it again; see [`pull::removed`] for `store`.
pub(super) fn load(engine: &Engine, archive: &Path, image: &str, store: Option<&Path>) -> Result<Sample> {
    let line = ["load".into(), "-q".into(), "-i".into(), archive.display().to_string()];
    pull::removed(engine, image, store, || engine.sample(&line))
}

/// Loads images of these names, with one small layer for all of them. Nothing is measured.
pub(super) fn load_many(engine: &Engine, names: &[String]) -> Result<()> {
    let layer = vec![plan::Entry::file("one", "file")];
    let command = vec!["/one".to_owned()];
    let image = plan::Image { tag: String::new(), layers: vec![layer], command, volumes: Vec::new() };
    // Not by name: a peer in a file system of its own does not see our files.
    engine.run_fed(&["load".into(), "-q".into()], &write::many(&image, names)?)
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

/// Loads the archive, pushes `image` of it to a registry of its own, and removes it again: who has pushed an image before keeps
/// the compressed layers, or knows where they are. The registry is where the engine reaches it, in `netns`.
pub(super) fn push(
    engine: &Engine,
    archive: &Path,
    image: &str,
    netns: Option<&Path>,
    store: Option<&Path>,
) -> Result<Sample> {
    let registry = empty_registry(netns)?;
    let name = format!("{}/{image}", registry.host());
    pull::removed(engine, image, store, || {
        engine.run(&["load".into(), "-q".into(), "-i".into(), archive.display().to_string()])?;
        engine.run(&["tag".into(), image.into(), name.clone()])?;
        rustix::fs::sync();
        let sample = engine.sample(&["push".into(), "-q".into(), name.clone()]);
        pull::forget(engine, &name);
        sample
    })
}

fn empty_registry(netns: Option<&Path>) -> Result<Debian> {
    let Some(netns) = netns else { return Debian::start() };
    let file = fs::File::open(netns).with_context(|| format!("open {}", netns.display()))?;
    let start = || {
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))?;
        Debian::start()
    };
    // The namespace of the thread is what its children are born in.
    std::thread::scope(|scope| scope.spawn(start).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn output(archive: &Path) -> PathBuf {
    archive.with_file_name(format!("bench-save-{}.tar", std::process::id()))
}
