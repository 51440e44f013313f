//! kill -9 during a load: whatever the moment, the store opens and shows the image whole or not at all.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image::Store;

use crate::archive::{docker, layer, tar};
use crate::{leftovers, names};

const ROOT: &str = "LONGSHORE_TEST_LOAD_INTO";

/// The process that is killed: not a test by itself.
#[test]
fn child_loads_its_standard_input() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let store = Store::open(root.as_ref()).unwrap();
    store.load(std::io::stdin(), &mut |_| {}).unwrap();
}

fn archive() -> Vec<u8> {
    let big = "x".repeat(2_000_000);
    let layers = [layer(&[("a", &big), ("d/b", "1")]), layer(&[("d/.wh.b", ""), ("c", &big)]), layer(&[("e", "2")])];
    tar(&docker(Some("a:1"), &layers, ""))
}

/// Gives the child `bytes`, waits a little, kills it. `None` waits for its end.
fn load_and_kill(root: &std::path::Path, bytes: &[u8], after: Option<Duration>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_loads_its_standard_input", "--test-threads=1"])
        .env(ROOT, root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(bytes).unwrap();
    if let Some(after) = after {
        if bytes.len() == archive().len() {
            drop(stdin);
        }
        // Not a wait for anything: the moments of death must be spread over the whole commit.
        let end = Instant::now() + after;
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
    } else {
        drop(stdin);
    }
    child.wait().unwrap();
}

fn check(root: &std::path::Path) -> bool {
    let store = Store::open(root).unwrap();
    assert!(store.torn().is_empty(), "{:?}", store.torn());
    store.sweep().unwrap();
    assert!(names(&root.join("snapshots/trash")).is_empty());
    let Ok(image) = store.resolve("a:1") else {
        assert!(leftovers(root).is_empty(), "{:?}", leftovers(root));
        return false;
    };
    let layer = |index: usize| store.snapshots().layer(&image.chain[index]);
    assert_eq!(std::fs::metadata(layer(0).join("a")).unwrap().len(), 2_000_000);
    assert_eq!(std::fs::metadata(layer(1).join("c")).unwrap().len(), 2_000_000);
    assert_eq!(std::fs::read(layer(2).join("e")).unwrap(), b"2");
    // Three layers, their recipes, and the configuration.
    assert_eq!(leftovers(root).len(), 7);
    true
}

#[test]
fn privileged_a_load_killed_at_any_moment_is_whole_or_absent() {
    let bytes = archive();
    let fresh = |part: &[u8], after| {
        let dir = tempfile::tempdir().unwrap();
        load_and_kill(dir.path(), part, after);
        check(dir.path())
    };
    // Within the stream, which it cannot have read to the end.
    for part in 0..10 {
        assert!(!fresh(&bytes[..bytes.len() * part / 10], Some(Duration::ZERO)));
    }
    // From the last byte to after the end.
    for step in 0..20 {
        fresh(&bytes, Some(Duration::from_micros(step * step * 100)));
    }
    assert!(fresh(&bytes, None));
}
