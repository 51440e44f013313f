//! What the library's images begin with: Debian, by `image bootstrap`, made once for all tests.

use std::fs::{self, File};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::FlockOperation;
use testkit::{Daemon, paths, process, skip};

use super::At;

/// The image that they begin with.
const BASE: &str = "debian:bookworm";

/// Packages come from there.
const MIRROR: &str = "deb.debian.org:80";

/// How long packages may take to come and to be installed.
const INSTALLED: Duration = Duration::from_secs(480);

/// The directory of an image of the library.
pub(super) fn directory(image: &str) -> String {
    paths::workspace().join("library").join(image).display().to_string()
}

/// Runs `test` with a daemon that has built this image; reports a skip where Debian cannot be had.
pub(super) fn with_image(image: &str, test: impl Fn(&At<'_>)) {
    if skip::without_root() {
        return;
    }
    if !is_reached(MIRROR) {
        skip::report("Debian's mirror cannot be reached");
        return;
    }
    if paths::program("mmdebstrap").is_none() {
        skip::report("no mmdebstrap on this machine");
        return;
    }
    let daemon = Daemon::start().unwrap();
    if daemon.is_foreign() {
        skip::report("this is about a daemon of the test's own");
        return;
    }
    let at = super::at(&daemon);
    give_base(&at);
    built(&at, image, &directory(image));
    test(&at);
}

fn is_reached(address: &str) -> bool {
    let mut found = address.to_socket_addrs().into_iter().flatten();
    found.any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok())
}

/// Builds an image with packages in it.
pub(super) fn built(at: &At<'_>, image: &str, words: &str) {
    patiently(at.command(&format!("build -t {image} {words}")), &format!("{image}.build"), at);
}

/// Runs a command that takes minutes; what it prints goes to a file, and into the failure.
fn patiently(mut command: Command, name: &str, at: &At<'_>) {
    let log = at.daemon.scratch().path().join(name);
    let file = File::create(&log).unwrap();
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    let status = process::wait(&mut command.spawn().unwrap(), INSTALLED);
    let told = || fs::read_to_string(&log).unwrap_or_default();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{command:?}: {status:?}\n{}", told());
}

/// Loads the base, made by the first test that needs it: the others wait for that.
fn give_base(at: &At<'_>) {
    let archive = paths::target().join("images/debian-bookworm.tar");
    fs::create_dir_all(archive.parent().unwrap()).unwrap();
    let lock = File::create(archive.with_extension("lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    if archive.exists() {
        drop(lock);
        at.ok(&format!("load -q -i {}", archive.display()));
        return;
    }
    patiently(at.command(&format!("image bootstrap -q {BASE}")), "bootstrap", at);
    let part: PathBuf = archive.with_extension("part");
    at.ok(&format!("save -o {} {BASE}", part.display()));
    // Whole or not at all.
    fs::rename(&part, &archive).unwrap();
}
