//! Debian's kernel, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use testkit::paths;

use crate::debian;
use crate::step::{quiet, step};
use crate::tools::apt;

/// Debian's package that depends on that of the newest kernel.
const PACKAGE: &str = "linux-image-amd64";

/// Beginning of the names of packages with a kernel in them.
const KERNELS: &str = "linux-image-";

/// Made in the modules' directory once they are listed.
const LISTED: &str = "longshore-listed";

/// A kernel on disk.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// What /lib/modules/RELEASE is where it is installed.
    pub(super) modules: PathBuf,
}

/// One that was unpacked earlier, or else the newest.
pub(super) fn get(busybox: &Path) -> Result<Kernel> {
    let kernels = paths::unpacked(KERNELS);
    let place = match kernels.parent().and_then(|dir| entry(dir, KERNELS)) {
        Some(place) => place,
        None => {
            let package = newest()?;
            debian::unpack(&package)?;
            paths::unpacked(&package)
        }
    };
    let missing = || format!("{} is no kernel of Debian's: remove it", place.display());
    let image = entry(&place.join("boot"), "vmlinuz-").with_context(missing)?;
    let modules = entry(&place.join("lib/modules"), "").with_context(missing)?;
    if !modules.join(LISTED).exists() {
        let release = modules.file_name().with_context(missing)?;
        step("list the kernel's modules", || {
            quiet(Command::new(busybox).args(["depmod", "-b"]).arg(&place).arg(release))
        })?;
        fs::write(modules.join(LISTED), "")?;
    }
    Ok(Kernel { image, modules })
}

/// An entry of the directory whose name begins so.
fn entry(dir: &Path, beginning: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(dir).ok()?.flatten();
    let named = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(beginning));
    named.map(|entry| entry.path())
}

fn newest() -> Result<String> {
    let ask = || quiet(Command::new("apt-cache").args(["depends", PACKAGE]));
    let mut listed = ask();
    if listed.is_err() {
        // The lists may be missing.
        quiet(apt().arg("update"))?;
        listed = ask();
    }
    let package = listed?;
    dependency(&package).map(str::to_owned).with_context(|| format!("{PACKAGE} depends on no kernel"))
}

/// The package of a kernel in what `apt-cache depends` prints.
fn dependency(listed: &str) -> Option<&str> {
    let named = listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    named.map(str::trim).find(|name| name.starts_with(KERNELS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_package_depends_on() {
        let listed = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Recommends: firmware\n";
        assert_eq!(dependency(listed), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(dependency("linux-image-amd64\n  Depends: <other>\n"), None);
    }
}
