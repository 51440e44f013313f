//! Tests that cannot run on this machine.
//!
//! Rust's harness knows passed and failed only. A test that cannot run says so here and returns; `cargo xtask test`
//! names the file in `LONGSHORE_SKIP_LOG`, prints its lines and takes them off the number of passed tests.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::paths;

/// Records that the running test is skipped, and why.
pub fn report(why: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    // The lines also show under `--nocapture`, when nobody collects them.
    println!("SKIPPED {name}: {why}");
    let Some(log) = std::env::var_os("LONGSHORE_SKIP_LOG") else { return };
    let opened = OpenOptions::new().create(true).append(true).open(log);
    // One write per line: appends of parallel tests do not mix.
    if let Err(err) = opened.and_then(|mut file| file.write_all(format!("{name}: {why}\n").as_bytes())) {
        println!("the skip is not in the log: {err}");
    }
}

/// Whether the running test has to be skipped because it needs root; reports it if so.
pub fn without_root() -> bool {
    let skipped = !rustix::process::geteuid().is_root();
    if skipped {
        report("needs root");
    }
    skipped
}

/// The program fuse-overlayfs; where it or its device is missing, the running test is told to be skipped in part, and why.
pub fn unless_fuse_overlayfs() -> Option<PathBuf> {
    if !Path::new("/dev/fuse").exists() {
        report("this machine has no /dev/fuse");
        return None;
    }
    let program = paths::program_of("fuse-overlayfs", "fuse-overlayfs");
    program.inspect_err(|err| report(&err.to_string())).ok()
}
