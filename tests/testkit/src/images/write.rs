//! From a planned image to the bytes of an archive.

use std::io::{self, Write};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::plan::{Entry, Image, Kind, SparseFormat};

/// Modification time of every entry: 2026-01-01T00:00:00Z, also the image's `created`.
const MTIME: u64 = 1_767_225_600;
const CREATED: &str = "2026-01-01T00:00:00Z";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How an OCI layout holds its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `tar`.
    None,
    /// `tar+gzip`.
    Gzip,
    /// `tar+zstd`.
    Zstd,
}

/// A docker-archive as `docker save` writes it: layers uncompressed, `manifest.json` last.
pub fn docker_archive(image: &Image) -> Result<Vec<u8>> {
    let layers = image.layers.iter().map(|layer| layer_tar(layer)).collect::<Result<Vec<_>>>()?;
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let config = serde_json::to_vec(&config(image, &diff_ids))?;
    let config_name = format!("{}.json", sha256(&config));
    let layer_names: Vec<String> = diff_ids.iter().map(|id| format!("{id}/layer.tar")).collect();
    let manifest = json!([{ "Config": config_name, "RepoTags": [image.tag], "Layers": layer_names }]);

    let mut archive = Builder::new(Vec::new());
    add(&mut archive, &config_name, &config)?;
    for (name, layer) in layer_names.iter().zip(&layers) {
        add(&mut archive, name, layer)?;
    }
    add(&mut archive, "manifest.json", &serde_json::to_vec(&manifest)?)?;
    Ok(archive.into_inner()?)
}

/// A docker-archive of many images over the same layers: each has one of `tags`, a configuration that differs by a label,
/// and an age of its own, the first being the oldest. At most 86,400.
pub fn many(image: &Image, tags: &[String]) -> Result<Vec<u8>> {
    let layers = image.layers.iter().map(|layer| layer_tar(layer)).collect::<Result<Vec<_>>>()?;
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let layer_names: Vec<String> = diff_ids.iter().map(|id| format!("{id}/layer.tar")).collect();
    let mut archive = Builder::new(Vec::new());
    for (name, layer) in layer_names.iter().zip(&layers) {
        add(&mut archive, name, layer)?;
    }
    let mut manifest = Vec::new();
    for (number, tag) in tags.iter().enumerate() {
        let mut config = config(image, &diff_ids);
        config["config"]["Labels"] = json!({ "number": number.to_string() });
        config["created"] =
            json!(format!("2026-01-01T{:02}:{:02}:{:02}Z", number / 3600, number / 60 % 60, number % 60));
        let config = serde_json::to_vec(&config)?;
        let name = format!("{}.json", sha256(&config));
        add(&mut archive, &name, &config)?;
        manifest.push(json!({ "Config": name, "RepoTags": [tag], "Layers": layer_names }));
    }
    add(&mut archive, "manifest.json", &serde_json::to_vec(&manifest)?)?;
    Ok(archive.into_inner()?)
}

/// An OCI image layout in a tar (image-spec v1.1 image-layout.md), as skopeo and buildx write it.
pub fn oci_layout(image: &Image, compression: Compression) -> Result<Vec<u8>> {
    let mut blobs: Vec<Vec<u8>> = Vec::new();
    let (mut diff_ids, mut layers) = (Vec::new(), Vec::new());
    for layer in &image.layers {
        let plain = layer_tar(layer)?;
        diff_ids.push(sha256(&plain));
        let (suffix, blob) = compress(plain, compression)?;
        layers.push(descriptor(&format!("application/vnd.oci.image.layer.v1.tar{suffix}"), &blob));
        blobs.push(blob);
    }
    let config = serde_json::to_vec(&config(image, &diff_ids))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers,
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    // containerd and buildx put the whole name beside the tag; docker load reads it from there.
    let tag = image.tag.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let name = format!("docker.io/library/{}", image.tag);
    entry["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });

    let mut archive = Builder::new(Vec::new());
    add(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    for blob in blobs.iter().chain([&config, &manifest]) {
        add(&mut archive, &format!("blobs/sha256/{}", sha256(blob)), blob)?;
    }
    add(&mut archive, "index.json", &serde_json::to_vec(&index)?)?;
    Ok(archive.into_inner()?)
}

/// One layer as an uncompressed tar, entries in the given order.
pub fn layer_tar(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for entry in entries {
        append(&mut tar, entry).with_context(|| format!("write tar entry {}", entry.path))?;
    }
    Ok(tar.into_inner()?)
}

/// The hex SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn append(tar: &mut Builder<Vec<u8>>, entry: &Entry) -> Result<()> {
    if !entry.xattrs.is_empty() {
        let records: Vec<(String, &[u8])> =
            entry.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice())).collect();
        tar.append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), *value)))?;
    }
    let mut header = header(entry.mode, entry.uid, entry.gid);
    match &entry.kind {
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, format!("{}/", entry.path), io::empty())?;
        }
        Kind::File(content) => {
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, &entry.path, content.as_slice())?;
        }
        Kind::Hardlink(target) => {
            header.set_entry_type(EntryType::Link);
            tar.append_link(&mut header, &entry.path, target)?;
        }
        Kind::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, &entry.path, target)?;
        }
        Kind::CharDevice { major, minor } => {
            header.set_entry_type(EntryType::Char);
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            tar.append_data(&mut header, &entry.path, io::empty())?;
        }
        Kind::Fifo => {
            header.set_entry_type(EntryType::Fifo);
            tar.append_data(&mut header, &entry.path, io::empty())?;
        }
        Kind::Sparse { format: SparseFormat::OldGnu, pieces, size } => {
            append_old_sparse(tar, header, &entry.path, pieces, *size)?;
        }
        Kind::Sparse { format: SparseFormat::Pax, pieces, size } => {
            // GNU tar decides by the header's format how to read the holes.
            let mut header = Header::new_ustar();
            fill(&mut header, entry.mode, entry.uid, entry.gid);
            append_pax_sparse(tar, header, &entry.path, pieces, *size)?;
        }
    }
    Ok(())
}

/// GNU's old sparse format (tar manual, "Old GNU Format"): the header lists up to four pieces, the data are the
/// pieces without the holes.
fn append_old_sparse(
    tar: &mut Builder<Vec<u8>>,
    mut header: Header,
    path: &str,
    pieces: &[(u64, Vec<u8>)],
    size: u64,
) -> Result<()> {
    header.set_entry_type(EntryType::GNUSparse);
    let gnu = header.as_gnu_mut().context("headers are made in GNU's format")?;
    ensure!(pieces.len() <= gnu.sparse.len(), "more pieces than one header holds");
    for (slot, (offset, content)) in gnu.sparse.iter_mut().zip(pieces) {
        octal(&mut slot.offset, *offset);
        octal(&mut slot.numbytes, content.len() as u64);
    }
    octal(&mut gnu.realsize, size);
    let data: Vec<u8> = pieces.iter().flat_map(|(_, content)| content.iter().copied()).collect();
    header.set_size(data.len() as u64);
    tar.append_data(&mut header, path, data.as_slice())?;
    Ok(())
}

/// Sparse format 1.0 (tar manual, "PAX Format, Version 1.0"): records beside a regular entry, whose data begin with the
/// map in decimal lines, filled up to a block.
fn append_pax_sparse(
    tar: &mut Builder<Vec<u8>>,
    mut header: Header,
    path: &str,
    pieces: &[(u64, Vec<u8>)],
    size: u64,
) -> Result<()> {
    let size = size.to_string();
    tar.append_pax_extensions([
        ("GNU.sparse.major", b"1".as_slice()),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", path.as_bytes()),
        ("GNU.sparse.realsize", size.as_bytes()),
    ])?;
    let map: String = pieces.iter().map(|(offset, content)| format!("{offset}\n{}\n", content.len())).collect();
    let mut data = format!("{}\n{map}", pieces.len()).into_bytes();
    data.resize(data.len().next_multiple_of(512), 0);
    data.extend(pieces.iter().flat_map(|(_, content)| content.iter().copied()));
    header.set_size(data.len() as u64);
    tar.append_data(&mut header, path, data.as_slice())?;
    Ok(())
}

/// Eleven octal digits and a zero byte, as tar's numeric fields are.
fn octal(field: &mut [u8; 12], value: u64) {
    field[..11].copy_from_slice(format!("{value:011o}").as_bytes());
    field[11] = 0;
}

fn header(mode: u32, uid: u64, gid: u64) -> Header {
    let mut header = Header::new_gnu();
    fill(&mut header, mode, uid, gid);
    header
}

fn fill(header: &mut Header, mode: u32, uid: u64, gid: u64) {
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(MTIME);
    header.set_size(0);
}

fn add(archive: &mut Builder<Vec<u8>>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = header(0o644, 0, 0);
    header.set_size(bytes.len() as u64);
    Ok(archive.append_data(&mut header, name, bytes)?)
}

fn config(image: &Image, diff_ids: &[String]) -> Value {
    let history: Vec<Value> = (0..diff_ids.len())
        .map(|layer| json!({ "created": CREATED, "created_by": format!("layer {layer}") }))
        .collect();
    let diff_ids: Vec<String> = diff_ids.iter().map(|id| format!("sha256:{id}")).collect();
    let volumes: serde_json::Map<String, Value> = image.volumes.iter().map(|path| (path.clone(), json!({}))).collect();
    let volumes = if volumes.is_empty() { Value::Null } else { volumes.into() };
    json!({
        "architecture": architecture(),
        "os": "linux",
        "created": CREATED,
        "config": { "Env": [PATH], "Cmd": image.command, "Volumes": volumes },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    })
}

/// Go's name of this processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", sha256(blob)), "size": blob.len() })
}

fn compress(plain: Vec<u8>, compression: Compression) -> Result<(&'static str, Vec<u8>)> {
    Ok(match compression {
        Compression::None => ("", plain),
        Compression::Gzip => {
            // GzEncoder writes no time and no name unless told to: the bytes depend on the content alone.
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&plain)?;
            ("+gzip", encoder.finish()?)
        }
        Compression::Zstd => ("+zstd", zstd::encode_all(plain.as_slice(), 3)?),
    })
}

/// The archive with each member's content replaced by what `edit` answers for its name, left out for None: for
/// archives that are broken in one place.
pub fn edited(archive: &[u8], mut edit: impl FnMut(&str, Vec<u8>) -> Option<Vec<u8>>) -> Result<Vec<u8>> {
    let mut result = Builder::new(Vec::new());
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut content = Vec::new();
        io::Read::read_to_end(&mut entry, &mut content)?;
        if let Some(content) = edit(&name, content) {
            add(&mut result, &name, &content)?;
        }
    }
    Ok(result.into_inner()?)
}

/// The tar with the entry `from` called `to`, of equal length: for names that no tar writer would write.
pub fn renamed(mut tar: Vec<u8>, from: &str, to: &str) -> Result<Vec<u8>> {
    ensure!(from.len() == to.len(), "{from} and {to} differ in length");
    let starts = |block: &[u8]| block.starts_with(from.as_bytes()) && matches!(block.get(from.len()), Some(0 | b'/'));
    let block = tar.chunks_exact_mut(512).find(|block| starts(block)).context("no such entry")?;
    block[..to.len()].copy_from_slice(to.as_bytes());
    // The sum of the header's bytes, its own field read as blanks (POSIX pax, "ustar Interchange Format").
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(tar)
}
