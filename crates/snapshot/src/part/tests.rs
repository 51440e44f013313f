use std::os::unix::fs::symlink;

use super::*;
use crate::Driver;

/// Layers, lowest first, each a list of `path/` for a directory, `path!` for an opaque one, `path -> target` for a link,
/// `path~` for a whiteout, else a file.
fn layers(all: &[&str]) -> (tempfile::TempDir, Snapshots, Vec<ChainId>) {
    let dir = tempfile::tempdir().unwrap();
    let overlay = Snapshots::open(&dir.path().join("s"), Driver::Overlay2).unwrap();
    let digest = |n: usize| format!("sha256:{n:064}").parse().unwrap();
    let chain = ChainId::chain(&(0..all.len()).map(digest).collect::<Vec<_>>());
    for (layer, chain_id) in all.iter().zip(&chain) {
        let stage = overlay.stage().unwrap();
        for entry in layer.split(", ").filter(|entry| !entry.is_empty()) {
            make(&stage.path().join(""), entry);
        }
        overlay.commit(stage, chain_id).unwrap();
    }
    (dir, overlay, chain)
}

fn make(root: &Path, entry: &str) {
    if let Some((path, target)) = entry.split_once(" -> ") {
        symlink(target, root.join(path)).unwrap();
    } else if let Some(path) = entry.strip_suffix('/') {
        fs::create_dir_all(root.join(path)).unwrap();
    } else if let Some(path) = entry.strip_suffix('!') {
        fs::create_dir_all(root.join(path)).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(root.join(path), "trusted.overlay.opaque", b"y", flags).unwrap();
    } else if let Some(path) = entry.strip_suffix('~') {
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty());
        rustix::fs::mknodat(rustix::fs::CWD, root.join(path), kind, mode, 0).unwrap();
    } else {
        fs::write(root.join(entry), "text").unwrap();
    }
}

/// Which layers (0 is the lowest) a part is made of, uppermost first, and where it is in them.
#[track_caller]
fn check(all: &[&str], part: &str, expected: &str) {
    let (_dir, overlay, chain) = layers(all);
    let seen = match view_part(&overlay, &chain, Path::new(part)) {
        Err(SnapshotError::NoSuchPart { .. }) => "nothing".to_owned(),
        Err(err) => panic!("{err}"),
        Ok(mounts) => {
            let [mount] = &mounts[..] else { panic!("{mounts:?}") };
            let lowers = mount.options.iter().filter_map(|option| option.strip_prefix("lowerdir+="));
            let places: Vec<&str> =
                if mount.kind == "bind" { vec![mount.source.to_str().unwrap()] } else { lowers.collect() };
            let shown = places.iter().map(|place| {
                let found = (0..chain.len()).find_map(|n| {
                    Some((n, Path::new(place).strip_prefix(overlay.layer(&chain[n])).ok()?.to_str()?.to_owned()))
                });
                let (layer, path) = found.unwrap();
                format!("{layer}:{path}")
            });
            shown.collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(seen, expected, "{part} of {all:?}");
}

#[test]
fn privileged_parts_are_what_the_stacked_layers_show() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    check(&["a/"], "a", "0:a");
    check(&["a/", "a/"], "a", "1:a 0:a");
    check(&["a/b/", "a/"], "a/b", "0:a/b");
    check(&["a/", "a!"], "a", "1:a");
    check(&["a/b/", "a!"], "a/b", "nothing");
    check(&["a/b/", "a!", "a/b/"], "a/b", "2:a/b");
    check(&["a/", "a~"], "a", "nothing");
    check(&["a/b/", "a~", "a/b/"], "a/b", "2:a/b");
    check(&["f", "f/"], "f", "1:f");
    check(&["f"], "f", "0:f");
    check(&["f", "f"], "f", "1:f");
    check(&["f"], "f/x", "nothing");
    check(&["a/b/, l -> a"], "l/b", "0:a/b");
    check(&["a/b/, l -> a", "l/"], "l/b", "nothing");
    check(&["a/", "a/b/, l -> /../a/b"], "l", "1:a/b");
    check(&["a/, a/l -> ../b, b/c/"], "a/l/c", "0:b/c");
    check(&["l -> l"], "l", "nothing");
    check(&["a/"], "../a/./x/..", "0:a");
    check(&["a/"], "x", "nothing");
    check(&["a/", "b/"], "", "1: 0:");
}
