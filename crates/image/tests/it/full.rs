//! A full disk: what fails says so, and when there is room again everything goes on.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use image::{RemoveOptions, Store};

use crate::archive::{docker, layer, tar};
use crate::names;

/// A file system of 4 MiB, unmounted in the end.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Small {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success());
        Small(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) -> std::path::PathBuf {
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[1; 512]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status().unwrap();
        assert!(unmounted.success());
    }
}

fn why(err: &dyn std::error::Error) -> String {
    errdefs::chain(err).to_string()
}

#[test]
fn privileged_a_load_that_does_not_fit_leaves_nothing() {
    let disk = Small::new();
    let store = Store::open(disk.path()).unwrap();
    let archive = tar(&docker(Some("a:1"), &[layer(&[("big", &"x".repeat(6 << 20))])], ""));
    let err = store.load(&archive[..], &mut |_| {}).unwrap_err();
    assert!(why(&err).contains("no space left on device"), "{}", why(&err));
    assert!(crate::leftovers(disk.path()).is_empty());
    store.sweep().unwrap();
    assert!(names(&disk.path().join("snapshots/trash")).is_empty());
    store.load(&tar(&docker(Some("a:1"), &[layer(&[("a", "1")])], ""))[..], &mut |_| {}).unwrap();
}

#[test]
fn privileged_room_can_be_made_without_a_restart() {
    let disk = Small::new();
    let store = Store::open(disk.path()).unwrap();
    let image = |index: usize| tar(&docker(Some(&format!("a:{index}")), &[layer(&[("a", "1")])], &index.to_string()));
    store.load(&image(0)[..], &mut |_| {}).unwrap();
    let filler = disk.fill();
    let mut failed = false;
    for index in 0..4000 {
        let target = format!("{}{index}:{}", "n".repeat(180), "x".repeat(120)).parse().unwrap();
        if let Err(err) = store.tag("a:0", &target) {
            assert!(why(&err).contains("No space left on device"), "{}", why(&err));
            failed = true;
            break;
        }
    }
    assert!(failed, "the disk never was full");
    fs::remove_file(filler).unwrap();
    store.tag("a:0", &"b:1".parse().unwrap()).unwrap();
    store.remove("b:1", RemoveOptions::default(), &[]).unwrap();
    // A full disk may keep it from opening, but that does not make it torn.
    drop(store);
    let filler = disk.fill();
    if let Ok(store) = Store::open(disk.path()) {
        assert!(store.torn().is_empty(), "{:?}", store.torn());
    }
    fs::remove_file(filler).unwrap();
    let store = Store::open(disk.path()).unwrap();
    assert!(store.torn().is_empty() && store.resolve("a:0").is_ok());
}

#[test]
fn privileged_a_removal_needs_no_room() {
    let disk = Small::new();
    let store = Store::open(disk.path()).unwrap();
    store.load(&tar(&docker(Some("a:1"), &[layer(&[("a", "1")])], ""))[..], &mut |_| {}).unwrap();
    store.tag("a:1", &"b:1".parse().unwrap()).unwrap();
    disk.fill();
    store.remove("b:1", RemoveOptions::default(), &[]).unwrap();
    // Nor does it after the death of its process.
    drop(store);
    let store = Store::open(disk.path()).unwrap();
    store.remove("a:1", RemoveOptions::default(), &[]).unwrap();
    assert!(store.list().is_empty());
}
