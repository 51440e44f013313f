//! What no record owns goes when the daemon starts; what one owns stays.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon};

use crate::support::At;

/// Puts there what a death at a bad moment may leave, and worse.
fn plant(root: &Path) -> Vec<PathBuf> {
    let id = "c0ffee".repeat(11)[..64].to_owned();
    let files = [
        format!("snapshots/l/{}/etc/file", &id[..32]),
        format!("snapshots/c/{id}/fs/file"),
        "snapshots/new/0123456789abcdef/file".to_owned(),
        "snapshots/trash/0123456789abcdef/deep/file".to_owned(),
        format!("content/blobs/sha256/{id}"),
        "content/ingest/0123456789abcdef".to_owned(),
        "trash/0123456789abcdef/file".to_owned(),
    ];
    let planted = files.map(|file| root.join(file));
    for file in &planted {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "left").unwrap();
    }
    planted.into()
}

#[test]
fn privileged_what_no_record_owns_goes_at_the_start() {
    if testkit::skip::without_root() {
        return;
    }
    let mut daemon = Daemon::with_busybox().unwrap();
    if daemon.is_foreign() {
        return testkit::skip::report("this looks into the daemon's directories");
    }
    let at = At { daemon: &daemon, cli: Cli::Longshore };
    at.ok("run --network none --name kept busybox sh -c 'echo mine >/mine'");
    let before = at.ok("system df --format {{.Type}}:{{.Size}}");
    let root = daemon.scratch().data_root();
    daemon.kill9().unwrap();
    let planted = plant(&root);
    daemon.restart().unwrap();
    let gone = || planted.iter().all(|file| !file.exists()).then_some(());
    until("nothing of it is left", DEADLINE, gone)
        .unwrap_or_else(|err| panic!("{err}: {:?}", planted.iter().filter(|file| file.exists()).collect::<Vec<_>>()));
    let at = At { daemon: &daemon, cli: Cli::Longshore };
    assert_eq!(at.ok("diff kept"), "A /mine");
    assert_eq!(at.ok("system df --format {{.Type}}:{{.Size}}"), before);
    at.ok("rm kept");
    daemon.finish().unwrap();
}
