//! Debian sid with the peers, below the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use testkit::paths;

use crate::step::{quiet, step};

/// The peers, and what their steps use. Of CRIU and podman only sid has versions that know kernels of these days.
const PACKAGES: [&str; 23] = [
    "aardvark-dns",
    "ca-certificates",
    "catatonit",
    "conmon",
    "containerd",
    "containernetworking-plugins",
    "criu",
    "curl",
    "docker-buildx",
    "docker-cli",
    "docker-registry",
    "docker.io",
    "iproute2",
    "iptables",
    "jq",
    "netavark",
    "nftables",
    "podman",
    "procps",
    "protobuf-compiler",
    "runc",
    "skopeo",
    "uidmap",
];

/// Whose versions are told.
const PEERS: [&str; 7] = ["podman", "containerd", "docker.io", "runc", "criu", "skopeo", "docker-registry"];

/// What dpkg has installed, below the chroot.
const STATUS: &str = "var/lib/dpkg/status";

/// Where CRI's messages are described, below the chroot.
const CRI: &str = "usr/share/cri/api.proto";

/// Of the package that has it nothing else is wanted, nor the two gigabytes of sources that it depends on. protoc knows the
/// option from a file of Go's alone.
const FETCH_CRI: &str = r#"set -e
mkdir -p "$1/tmp/cri" "$1/usr/share/cri"
chroot "$1" sh -c 'cd /tmp/cri && apt-get -q -oAPT::Sandbox::User=root download golang-k8s-cri-api-dev'
dpkg-deb --fsys-tarfile "$1"/tmp/cri/*.deb | tar -x -O ./usr/share/gocode/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto |
    sed -E 's/ *\[ *debug_redact = true *\]//' >"$1/usr/share/cri/api.proto"
test -s "$1/usr/share/cri/api.proto"
rm -r "$1/tmp/cri" "$1"/var/cache/apt/archives/*.deb"#;

/// The chroot, made now if it is not there or lacks a package. Removing the directory makes it anew.
pub(super) fn get() -> Result<PathBuf> {
    let place = paths::target().join("peers/sid");
    let status = fs::read_to_string(place.join(STATUS)).unwrap_or_default();
    let has = |package: &&str| status.contains(&format!("Package: {package}\n"));
    if place.join(CRI).exists() && PACKAGES.iter().all(has) {
        return Ok(place);
    }
    step("make a Debian sid with podman, containerd, docker and skopeo", || make(&place))?;
    Ok(place)
}

fn make(place: &Path) -> Result<()> {
    let parent = place.parent().context("a place below the target directory")?;
    fs::create_dir_all(parent)?;
    let scratch = tempfile::tempdir_in(parent)?;
    let files = scratch.path().join("sid");
    let source = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main";
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", &format!("--include={}", PACKAGES.join(","))]);
    command.arg("--aptopt=APT::Install-Recommends \"false\"");
    // A mirror's snapshot stays useful.
    command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    for unread in ["doc", "man", "locale"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{unread}/*"));
    }
    command.arg(format!("--customize-hook={FETCH_CRI}")).arg("sid").arg(&files).arg(source);
    quiet(&mut command)?;
    // That of an earlier version.
    if place.exists() {
        fs::remove_dir_all(place).with_context(|| format!("remove {}", place.display()))?;
    }
    fs::rename(&files, place).with_context(|| format!("create {}", place.display()))
}

/// A line with the peers' versions.
pub(super) fn versions(chroot: &Path) -> Result<String> {
    let status = fs::read_to_string(chroot.join(STATUS))?;
    let version = |package: &&str| {
        let entry = status.split("\n\n").find(|entry| entry.starts_with(&format!("Package: {package}\n")))?;
        let version = entry.lines().find_map(|line| line.strip_prefix("Version: "))?;
        Some(format!("{package} {version}"))
    };
    Ok(PEERS.iter().filter_map(version).collect::<Vec<_>>().join(", "))
}
