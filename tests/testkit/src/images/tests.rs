use std::collections::BTreeMap;
use std::io::Read;

use super::plan::{Entry, Image, Kind, SparseFormat};
use super::write::{Compression, docker_archive, layer_tar, many, oci_layout, sha256};

fn small() -> Image {
    super::plan::busybox(b"binary".to_vec(), &["sh", "busybox", "echo", "sh"])
}

fn members(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut tar = tar::Archive::new(archive);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    };
    tar.entries().unwrap().map(read).collect()
}

#[test]
fn an_archive_is_the_same_every_time_and_its_names_are_its_digests() {
    let archive = docker_archive(&small()).unwrap();
    assert_eq!(archive, docker_archive(&small()).unwrap());
    let members = members(&archive);
    let manifest: serde_json::Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    let config = manifest[0]["Config"].as_str().unwrap();
    let layer = manifest[0]["Layers"][0].as_str().unwrap();
    assert_eq!(config, format!("{}.json", sha256(&members[config])));
    assert_eq!(layer, format!("{}/layer.tar", sha256(&members[layer])));
    let parsed: serde_json::Value = serde_json::from_slice(&members[config]).unwrap();
    assert_eq!(parsed["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&members[layer])));
}

#[test]
fn many_images_have_one_layer_and_differ() {
    let members = members(&many(&small(), &["a:0".to_owned(), "a:1".to_owned()]).unwrap());
    let manifest: serde_json::Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    assert_eq!((&manifest[0]["RepoTags"][0], &manifest[1]["RepoTags"][0]), (&"a:0".into(), &"a:1".into()));
    assert_eq!(manifest[0]["Layers"], manifest[1]["Layers"]);
    assert_eq!(members.len(), 4, "two configurations, a layer and the manifest");
}

#[test]
fn every_blob_of_a_layout_has_its_digest_as_its_name() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let archive = oci_layout(&small(), compression).unwrap();
        assert_eq!(archive, oci_layout(&small(), compression).unwrap());
        let members = members(&archive);
        let blobs: Vec<_> = members.iter().filter(|(name, _)| name.starts_with("blobs/sha256/")).collect();
        assert_eq!(blobs.len(), 3);
        assert!(blobs.iter().all(|(name, content)| name.ends_with(&sha256(content))));
    }
}

#[test]
fn applets_are_sorted_hard_links_without_busybox_itself() {
    let links: Vec<_> =
        small().layers[0].iter().filter(|e| matches!(e.kind, Kind::Hardlink(_))).map(|e| e.path.clone()).collect();
    assert_eq!(links, ["bin/echo", "bin/sh"]);
}

#[test]
fn a_sparse_file_reads_back_with_its_holes() {
    let format = SparseFormat::OldGnu;
    let kind = Kind::Sparse { format, pieces: vec![(0, vec![1; 512]), (4096, vec![2; 512])], size: 4608 };
    let tar = layer_tar(&[Entry::new("sparse", 0o644, kind)]).unwrap();
    let content = &members(&tar)["sparse"];
    assert_eq!(content.len(), 4608);
    assert!(content[..512].iter().all(|b| *b == 1));
    assert!(content[512..4096].iter().all(|b| *b == 0));
    assert!(content[4096..].iter().all(|b| *b == 2));
    assert!(tar.len() < 4608, "holes are not stored");
}

#[test]
fn xattrs_owners_devices_and_whiteouts_are_in_the_layers() {
    let image = super::plan::layers();
    let lower = layer_tar(&image.layers[0]).unwrap();
    let mut archive = tar::Archive::new(lower.as_slice());
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let header = entry.header();
        match path.as_str() {
            "data/null" => assert_eq!(header.device_minor().unwrap(), Some(3)),
            "data/owned" => assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (1000, 1001)),
            "data/setuid" => assert_eq!(header.mode().unwrap(), 0o4755),
            "data/xattr" => {
                let extensions = entry.pax_extensions().unwrap().unwrap();
                let record = extensions.map(|e| e.unwrap()).find(|e| e.key() == Ok("SCHILY.xattr.user.longshore"));
                assert_eq!(record.unwrap().value_bytes(), b"value\0with zero");
            }
            _ => continue,
        }
        seen.push(path);
    }
    assert_eq!(seen.len(), 4);
    let upper = members(&layer_tar(&image.layers[1]).unwrap());
    assert!(upper.contains_key("data/.wh.deleted") && upper.contains_key("opaque/.wh..wh..opq"));
}

#[test]
fn a_pax_sparse_file_is_what_gnu_tar_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (tar, sparse) = (dir.path().join("a.tar"), dir.path().join("data/sparse"));
    std::fs::write(&tar, layer_tar(&super::plan::layers().layers[0]).unwrap()).unwrap();
    let mut command = std::process::Command::new("tar");
    command.arg("-xf").arg(&tar).arg("-C").arg(dir.path()).arg("data/sparse");
    assert_eq!(crate::process::run(&mut command, b"").unwrap().code, 0);
    let content = std::fs::read(&sparse).unwrap();
    assert_eq!(content.len(), (1 << 20) + 1024);
    assert!(content[..512].iter().all(|b| *b == b'a') && content[512..1 << 20].iter().all(|b| *b == 0));
    assert!(content[1 << 20..].iter().all(|b| *b == b'z'));
}
