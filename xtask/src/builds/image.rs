//! What is in an image's archive (`docker save`): its configuration, the paths of its layers, and the file tree.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tar::EntryType;

/// An image as it is saved.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub(super) config: Value,
    /// The paths of each layer, in order of the alphabet.
    pub(super) layers: Vec<Vec<String>>,
    /// All files by their paths.
    pub(super) tree: BTreeMap<String, Node>,
}

/// A file of an image, as far as an image says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: &'static str,
    pub(super) mode: u32,
    pub(super) owner: (u64, u64),
    /// Seconds since 1970.
    pub(super) time: u64,
    pub(super) size: u64,
    /// Of a file the sum of its bytes, of a link its target, of a device its numbers.
    pub(super) content: String,
    /// The first name in the layer of a file that has several there.
    pub(super) first_name: Option<String>,
    pub(super) xattrs: BTreeMap<String, String>,
}

/// Reads a docker-archive or an OCI layout with a `manifest.json`.
pub(super) fn read(path: &Path) -> Result<Image> {
    let manifest: Value = serde_json::from_slice(&member(path, "manifest.json")?)?;
    let named = |value: &Value| value.as_str().map(str::to_owned).context("manifest.json names no file");
    let config = serde_json::from_slice(&member(path, &named(&manifest[0]["Config"])?)?)?;
    let mut image = Image { config, layers: Vec::new(), tree: BTreeMap::new() };
    for layer in manifest[0]["Layers"].as_array().context("manifest.json names no layers")? {
        image.add(&member(path, &named(layer)?)?)?;
    }
    Ok(image)
}

fn member(archive: &Path, name: &str) -> Result<Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(archive)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path_bytes().as_ref() == name.as_bytes() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
    }
    anyhow::bail!("no {name} in the archive")
}

impl Image {
    /// Puts a layer on top.
    fn add(&mut self, layer: &[u8]) -> Result<()> {
        let mut paths = Vec::new();
        for entry in tar::Archive::new(layer).entries()? {
            let mut entry = entry?;
            let path = bare(&String::from_utf8_lossy(&entry.path_bytes()));
            paths.push(path.clone());
            if self.whiteout(&path) {
                continue;
            }
            let node = match entry.header().entry_type() {
                EntryType::Link => self.another_name(&entry)?,
                _ => node(&mut entry)?,
            };
            self.put(path, node);
        }
        paths.sort();
        self.layers.push(paths);
        Ok(())
    }

    /// Takes away what a whiteout names; whether it is one (image-spec v1.1 layer.md, "Whiteouts").
    fn whiteout(&mut self, path: &str) -> bool {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(hidden) = name.strip_prefix(".wh.") else { return false };
        let within = |place: &str| if parent.is_empty() { place.to_owned() } else { format!("{parent}/{place}") };
        match hidden {
            ".wh..opq" => {
                let below = within("");
                self.tree.retain(|known, _| !known.starts_with(&below));
            }
            _ => self.remove(&within(hidden)),
        }
        true
    }

    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.tree.retain(|known, _| known != path && !known.starts_with(&below));
    }

    fn put(&mut self, path: String, node: Node) {
        // A directory in the place of another one keeps what is in that.
        if node.kind != "directory" {
            self.remove(&path);
        }
        self.tree.insert(path, node);
    }

    fn another_name(&mut self, entry: &tar::Entry<'_, &[u8]>) -> Result<Node> {
        let first = bare(&String::from_utf8_lossy(&entry.link_name_bytes().context("a link without a target")?));
        let node = self.tree.get_mut(&first).with_context(|| format!("a hard link to {first}, which is not there"))?;
        node.first_name = Some(first);
        Ok(node.clone())
    }
}

/// A path as all archives have it: `./dir/` is `dir`.
fn bare(path: &str) -> String {
    path.trim_start_matches("./").trim_matches('/').to_owned()
}

fn node(entry: &mut tar::Entry<'_, &[u8]>) -> Result<Node> {
    let mut xattrs = BTreeMap::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(name) = extension.key()?.strip_prefix("SCHILY.xattr.") {
            xattrs.insert(name.to_owned(), String::from_utf8_lossy(extension.value_bytes()).into_owned());
        }
    }
    let header = entry.header();
    let (kind, content) = match header.entry_type() {
        EntryType::Regular => ("file", String::new()),
        EntryType::Directory => ("directory", String::new()),
        EntryType::Symlink => ("link", String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into()),
        EntryType::Fifo => ("fifo", String::new()),
        EntryType::Char => ("character device", format!("{:?}", (header.device_major()?, header.device_minor()?))),
        EntryType::Block => ("block device", format!("{:?}", (header.device_major()?, header.device_minor()?))),
        _ => ("other", format!("{:?}", header.entry_type())),
    };
    let (mode, time) = (header.mode()? & 0o7777, header.mtime()?);
    let (owner, size) = ((header.uid()?, header.gid()?), entry.size());
    let content = if kind == "file" { sum(entry)? } else { content };
    Ok(Node { kind, mode, owner, time, size, content, first_name: None, xattrs })
}

fn sum(entry: &mut tar::Entry<'_, &[u8]>) -> Result<String> {
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
