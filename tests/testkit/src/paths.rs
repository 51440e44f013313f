//! Where things are in the work tree.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the work tree.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("testkit stands at tests/testkit").to_owned()
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, else `target`.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// Where the programs under test are: `LONGSHORE_DIST`, else what `cargo xtask dist --dev` makes.
pub fn dist() -> PathBuf {
    match std::env::var_os("LONGSHORE_DIST") {
        Some(dir) => workspace().join(dir),
        None => target().join("dist-dev"),
    }
}

/// The host's static busybox, of Debian's package busybox-static.
pub fn busybox() -> Result<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"];
    let found = places.iter().map(Path::new).find(|path| path.is_file());
    found.map(Path::to_owned).context("no busybox on this machine: apt-get install busybox-static")
}

/// The first file called `name` in `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Where `cargo xtask` unpacks a package of Debian that nobody has to install.
pub fn unpacked(package: &str) -> PathBuf {
    target().join("debian").join(package)
}

/// The directory of a plugin of docker's command line, of a package that is installed or [`unpacked`].
pub fn docker_plugin(package: &str) -> Result<PathBuf> {
    const PLUGINS: &str = "usr/libexec/docker/cli-plugins";
    let places = [Path::new("/").join(PLUGINS), unpacked(package).join(PLUGINS)];
    let found = places.into_iter().find(|place| place.join(package).is_file());
    found.with_context(|| format!("no {package} on this machine: `cargo xtask test` unpacks Debian's package"))
}

/// A program of a package that is installed or [`unpacked`].
pub fn program_of(package: &str, name: &str) -> Result<PathBuf> {
    let unpacked = ["usr/bin", "usr/sbin"].map(|dir| unpacked(package).join(dir).join(name));
    let found = program(name).or_else(|| unpacked.into_iter().find(|file| file.is_file()));
    found.with_context(|| format!("no {name} on this machine: `cargo xtask test` unpacks Debian's package {package}"))
}
