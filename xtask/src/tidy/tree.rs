//! Reads what is checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::layers::{Layer, parse_layers};

/// The work tree as values.
pub(super) struct Tree {
    pub(super) layers: BTreeMap<String, Layer>,
    pub(super) manifests: Vec<Manifest>,
    pub(super) sources: Vec<Source>,
    /// The text of docs/acceptance.md.
    pub(super) acceptance: String,
}

/// A crate's Cargo.toml.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    /// The crate.
    pub(super) name: String,
    /// Relative to the work tree.
    pub(super) path: PathBuf,
    /// Its content.
    pub(super) text: String,
}

/// A Rust file.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The crate it belongs to.
    pub(super) krate: String,
    /// Relative to the work tree.
    pub(super) path: PathBuf,
    /// Relative to the crate.
    pub(super) within: PathBuf,
    /// Its content.
    pub(super) text: String,
}

/// Reads crates, xtask and tests below `root`.
pub(super) fn read(root: &Path) -> Result<Tree> {
    let mut dirs = vec![root.join("xtask")];
    for parent in ["crates", "tests"] {
        for entry in fs::read_dir(root.join(parent)).with_context(|| format!("list {parent}"))? {
            dirs.push(entry?.path());
        }
    }
    dirs.retain(|dir| dir.join("Cargo.toml").is_file());
    dirs.sort();
    let (mut manifests, mut sources) = (Vec::new(), Vec::new());
    for dir in dirs {
        let name = dir.file_name().and_then(|name| name.to_str()).context("crate names are UTF-8")?.to_owned();
        let path = dir.join("Cargo.toml");
        let text = read_text(&path)?;
        manifests.push(Manifest { name: name.clone(), path: path.strip_prefix(root)?.to_owned(), text });
        let mut files = Vec::new();
        rust_files(&dir, &mut files)?;
        files.sort();
        for file in files {
            sources.push(Source {
                krate: name.clone(),
                path: file.strip_prefix(root)?.to_owned(),
                within: file.strip_prefix(&dir)?.to_owned(),
                text: read_text(&file)?,
            });
        }
    }
    sources.retain(|source| !source.text.starts_with("// @generated"));
    let layers = parse_layers(&read_text(&root.join("layers.toml"))?)?;
    Ok(Tree { layers, manifests, sources, acceptance: read_text(&root.join("docs/acceptance.md"))? })
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}
