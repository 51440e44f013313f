//! The image store as the engine uses it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod archive;
mod bounds;
mod build;
mod crash;
mod full;
mod indexes;
mod load;
mod manifests;
mod platforms;
mod pull;
mod remove;
mod save;
mod settle;

use std::path::{Path, PathBuf};

use image::{LoadError, LoadEvent, Loaded, Store};

/// A store in a directory of its own.
struct Scratch {
    dir: tempfile::TempDir,
    store: Store,
}

impl Scratch {
    fn new() -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Scratch { dir, store }
    }

    fn load(&self, files: &[(String, Vec<u8>)]) -> Result<Vec<Loaded>, LoadError> {
        self.store.load(&archive::tar(files)[..], &mut |_| {})
    }

    fn events(&self, files: &[(String, Vec<u8>)]) -> Vec<LoadEvent> {
        let mut events = Vec::new();
        self.store.load(&archive::tar(files)[..], &mut |event| events.push(event)).unwrap();
        events
    }

    fn reopened(self) -> Scratch {
        drop(self.store);
        let store = Store::open(self.dir.path()).unwrap();
        Scratch { dir: self.dir, store }
    }
}

fn names(path: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

/// Blobs, layers and unfinished things below a root.
fn leftovers(root: &Path) -> Vec<PathBuf> {
    let of = |name: &str| names(&root.join(name));
    [of("content/blobs/sha256"), of("content/ingest"), of("snapshots/l"), of("snapshots/new")].concat()
}
