//! What of the build cache goes by itself.

use testkit::images::Archive;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon};

use crate::build::{context, path};
use crate::support::At;

/// A stage of 4 MB of which the result has a file, and one of which it has all.
const DOCKERFILE: &str = "FROM busybox AS beside\nRUN dd if=/dev/zero of=/big bs=1M count=4 && echo small > /small\n\
                          FROM busybox\nRUN dd if=/dev/zero of=/own bs=1M count=4\nCOPY --from=beside /small /\n";

/// A daemon whose build cache has this said of it, and that has built.
fn built(about: &str) -> Daemon {
    let daemon = Daemon::start_with(&["--builder", about]).unwrap();
    daemon.load(Archive::Busybox).unwrap();
    build(&daemon);
    daemon
}

/// Builds; answers how many commands were known.
fn build(daemon: &Daemon) -> usize {
    let directory = context(&[("Dockerfile", DOCKERFILE)]);
    let at = At { daemon, cli: Cli::Longshore };
    at.ok(&format!("build -t result {}", path(&directory))).matches("Using cache").count()
}

/// The names of files that layers have.
fn has(daemon: &Daemon, file: &str) -> bool {
    let layers = std::fs::read_dir(daemon.scratch().data_root().join("snapshots/l")).unwrap();
    layers.flatten().any(|layer| layer.path().join(file).exists())
}

#[test]
fn privileged_a_cache_that_takes_too_much_loses_what_nobody_refers_to() {
    let daemon = built(r#"{"gc": {"defaultMaxUsedSpace": "1MB"}}"#);
    if daemon.is_foreign() {
        return;
    }
    let gone = || (!has(&daemon, "big")).then_some(());
    until("the stage that no image was built from is gone", DEADLINE, gone).unwrap();
    assert!(has(&daemon, "own"), "the image is no cache");
    let at = At { daemon: &daemon, cli: Cli::Longshore };
    assert_eq!(at.ok("run --rm --network none result cat /small"), "small");
    assert_eq!(build(&daemon), 2, "what the image was built from is known");
    assert!(has(&daemon, "big"), "once a minute at most");
    daemon.finish().unwrap();
}

#[test]
fn privileged_a_cache_stays_that_may_or_that_nobody_collects() {
    for about in
        [r#"{"gc": {"defaultMaxUsedSpace": "100MB"}}"#, r#"{"gc": {"enabled": false, "defaultMaxUsedSpace": "1MB"}}"#]
    {
        let daemon = built(about);
        if daemon.is_foreign() {
            return;
        }
        // Each build looks before the next one ends: they would both have gone.
        assert_eq!((build(&daemon), build(&daemon)), (3, 3), "{about}");
        assert!(has(&daemon, "big") && has(&daemon, "own"), "{about}");
        daemon.finish().unwrap();
    }
}
