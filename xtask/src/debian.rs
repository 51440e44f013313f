//! Programs of Debian that tests and benches talk to, unpacked below the target directory and not installed: the
//! package's own service never starts, and the machine stays as it was.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use testkit::paths;

use crate::step::{quiet, step};
use crate::tools::apt;

/// What tests talk to: packages, and their programs.
const FOR_TESTS: [(&str, &str); 3] =
    [("docker-registry", "docker-registry"), ("runc", "runc"), ("btrfs-progs", "mkfs.btrfs")];

/// Has everything that tests talk to, installed or unpacked.
pub(crate) fn for_tests() -> Result<()> {
    let missing = FOR_TESTS.iter().filter(|(package, program)| paths::program_of(package, program).is_err());
    missing.map(|(package, _)| package).try_for_each(|package| unpack(package))?;
    if paths::program_of("openssh-server", "sshd").is_err() {
        // What it is linked with that few machines have.
        unpack("libwrap0")?;
        unpack("openssh-server")?;
    }
    if paths::program_of("crun", "crun").is_err() {
        unpack("libyajl2")?;
        step("unpack crun", || download("crun", &paths::unpacked("crun"), wrap_crun))?;
    }
    if paths::program_of("fuse-overlayfs", "fuse-overlayfs").is_err() {
        unpack("libfuse3-3")?;
        step("unpack fuse-overlayfs", || download("fuse-overlayfs", &paths::unpacked("fuse-overlayfs"), wrap_fuse))?;
    }
    if paths::program_of("xfsprogs", "mkfs.xfs").is_err() {
        XFS_LIBRARIES.iter().try_for_each(|library| unpack(library))?;
        step("unpack xfsprogs", || download("xfsprogs", &paths::unpacked("xfsprogs"), wrap_xfs))?;
    }
    // Always these: one that is installed is the machine's own.
    for package in ["firewalld", "python3-firewall", "python3-nftables"] {
        unpack(package)?;
    }
    if paths::program_of("iptables", "iptables-legacy").is_err() {
        ["libip4tc2", "libip6tc2", "libxtables12"].iter().try_for_each(|library| unpack(library))?;
        step("unpack iptables", || download("iptables", &paths::unpacked("iptables"), wrap_iptables))?;
    }
    if paths::program_of("criu", "criu").is_err() {
        step("unpack criu", || fetch_criu(&paths::unpacked("criu")))?;
    }
    for plugin in PLUGINS {
        if paths::docker_plugin(plugin).is_err() {
            step(&format!("unpack {plugin}"), || fetch_plugin(plugin, &paths::unpacked(plugin)))?;
        }
    }
    Ok(())
}

/// Plugins of docker's command line, which Debian 12 has not, or not as plugins.
const PLUGINS: [&str; 2] = ["docker-buildx", "docker-compose"];

/// A plugin alone: those of [`SID`] run with the C library of Debian 12, and need no other.
fn fetch_plugin(package: &str, place: &Path) -> Result<()> {
    let sid = Sid::new(place)?;
    sid.apt(&["download", package])?;
    let files = sid.path("files");
    sid.extract(sid.scratch.path(), &files)?;
    settle(&files, place)
}

/// The release whose CRIU is taken: that of Debian 12 (3.17) does not know the vDSO of newer kernels, that of Debian 13 (4.1)
/// cannot write TCP sockets on kernels from 6.16 on, where SO_PASSCRED is refused for them.
const SID: &str = "sid";

/// Packages of [`SID`], beside this machine's: apt is given lists and a status of its own. Gone when it is dropped.
struct Sid {
    scratch: tempfile::TempDir,
}

impl Sid {
    /// With fresh lists, beside a place to which files are to come.
    fn new(place: &Path) -> Result<Sid> {
        let parent = place.parent().context("a place below the target directory")?;
        fs::create_dir_all(parent)?;
        let sid = Sid { scratch: tempfile::tempdir_in(parent)? };
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(sid.path(directory))?;
        }
        let source = format!(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian {SID} main\n"
        );
        fs::write(sid.path("sources.list"), source)?;
        fs::write(sid.path("status"), "")?;
        sid.apt(&["update"])?;
        Ok(sid)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn apt(&self, words: &[&str]) -> Result<()> {
        let options = [
            ("Dir::Etc::sourcelist", self.path("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::Etc::preferencesparts", "/dev/null".into()),
            ("Dir::State::lists", self.path("lists")),
            ("Dir::State::status", self.path("status")),
            ("Dir::Cache", self.path("cache")),
            // The directory is closed to the user that apt would fetch as.
            ("APT::Sandbox::User", "root".into()),
        ];
        let mut command = apt();
        command.current_dir(self.scratch.path());
        command.args(options.iter().map(|(name, value)| format!("-o{name}={}", value.display())));
        quiet(command.args(words)).map(drop)
    }

    /// Unpacks all packages of a directory into another one.
    fn extract(&self, packages: &Path, into: &Path) -> Result<()> {
        fs::create_dir_all(into)?;
        for entry in fs::read_dir(packages)? {
            let archive = entry?.path();
            if archive.extension().is_some_and(|extension| extension == "deb") {
                quiet(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(into))?;
            }
        }
        Ok(())
    }
}

/// CRIU and every library that it needs, with a script that runs it among these.
fn fetch_criu(place: &Path) -> Result<()> {
    let sid = Sid::new(place)?;
    sid.apt(&["install", "--yes", "--download-only", "--no-install-recommends", "criu"])?;
    let files = sid.path("files");
    sid.extract(&sid.path("cache/archives"), &files.join(SID))?;
    fs::create_dir_all(files.join("usr/bin"))?;
    let script = files.join("usr/bin/criu");
    fs::write(&script, CRIU_SCRIPT)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    settle(&files, place)
}

/// Runs CRIU with the C library that it was made for.
const CRIU_SCRIPT: &str = "\
#!/bin/sh
usr=${0%/bin/criu}/../sid/usr
for loader in \"$usr\"/lib/*-linux-gnu/ld-linux-*.so.*; do
    exec \"$loader\" --library-path \"${loader%/*}\" \"$usr/sbin/criu\" \"$@\"
done
";

/// Puts a script in the place of crun that runs it with the library which few machines have.
fn wrap_crun(files: &Path) -> Result<()> {
    let program = files.join("usr/bin/crun");
    fs::rename(&program, files.join("usr/bin/crun.real"))?;
    fs::write(&program, CRUN_SCRIPT)?;
    Ok(fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?)
}

const CRUN_SCRIPT: &str = "\
#!/bin/sh
here=${0%/crun}
for library in \"$here\"/../../../libyajl2/usr/lib/*-linux-gnu; do
    LD_LIBRARY_PATH=$library exec \"$here/crun.real\" \"$@\"
done
";

/// Puts a script in the place of fuse-overlayfs that runs it with the library which few machines have.
fn wrap_fuse(files: &Path) -> Result<()> {
    let program = files.join("usr/bin/fuse-overlayfs");
    fs::rename(&program, files.join("usr/bin/fuse-overlayfs.real"))?;
    fs::write(&program, FUSE_SCRIPT)?;
    Ok(fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?)
}

const FUSE_SCRIPT: &str = "\
#!/bin/sh
here=${0%/fuse-overlayfs}
for library in \"$here\"/../../../libfuse3-3/lib/*-linux-gnu \"$here\"/../../../libfuse3-3/usr/lib/*-linux-gnu; do
    libraries=$libraries:$library
done
LD_LIBRARY_PATH=$libraries exec \"$here/fuse-overlayfs.real\" \"$@\"
";

/// What mkfs.xfs is linked with that few machines have.
const XFS_LIBRARIES: [&str; 2] = ["libinih1", "liburcu8"];

/// Puts a script beside mkfs.xfs that runs it with these libraries.
fn wrap_xfs(files: &Path) -> Result<()> {
    let directory = files.join("usr/sbin");
    fs::create_dir_all(&directory)?;
    let program = directory.join("mkfs.xfs");
    fs::write(&program, XFS_SCRIPT)?;
    Ok(fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?)
}

const XFS_SCRIPT: &str = "\
#!/bin/sh
here=${0%/usr/sbin/mkfs.xfs}
for library in \"$here\"/../libinih1/usr/lib/*-linux-gnu \"$here\"/../liburcu8/usr/lib/*-linux-gnu; do
    libraries=$libraries:$library
done
LD_LIBRARY_PATH=$libraries exec \"$here/sbin/mkfs.xfs\" \"$@\"
";

/// Puts a script in the place of iptables-legacy that runs it with its libraries, and a lock of its own.
fn wrap_iptables(files: &Path) -> Result<()> {
    let program = files.join("usr/sbin/iptables-legacy");
    fs::remove_file(&program)?;
    fs::write(&program, IPTABLES_SCRIPT)?;
    Ok(fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?)
}

const IPTABLES_SCRIPT: &str = "\
#!/bin/sh
here=${0%/usr/sbin/iptables-legacy}
for library in \"$here\"/../libip4tc2/usr/lib/*-linux-gnu \"$here\"/../libip6tc2/usr/lib/*-linux-gnu \\
    \"$here\"/../libxtables12/usr/lib/*-linux-gnu; do
    libraries=$libraries:$library
done
export LD_LIBRARY_PATH=$libraries XTABLES_LOCKFILE=$0 XTABLES_LIBDIR=$here/usr/lib/${library##*/}/xtables
exec \"$here/usr/sbin/xtables-legacy-multi\" iptables \"$@\"
";

/// Has the files of `package` in [`paths::unpacked`].
pub(crate) fn unpack(package: &str) -> Result<()> {
    let place = paths::unpacked(package);
    if place.exists() {
        return Ok(());
    }
    if paths::program("apt-get").is_none() {
        bail!("missing: {package}. Its files belong into {}", place.display());
    }
    step(&format!("unpack {package}"), || download(package, &place, |_| Ok(())))?;
    Ok(())
}

fn download(package: &str, place: &Path, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = place.parent().context("a place below the target directory")?;
    fs::create_dir_all(parent)?;
    let scratch = tempfile::tempdir_in(parent)?;
    let fetch = || quiet(apt().args(["download", package]).current_dir(scratch.path()));
    if fetch().is_err() {
        // The lists may be missing or old.
        quiet(apt().arg("update"))?;
        fetch()?;
    }
    let files = fs::read_dir(scratch.path())?.collect::<Result<Vec<_>, _>>()?;
    let archive = files.first().with_context(|| format!("apt-get brought nothing for {package}"))?.path();
    let files = scratch.path().join("files");
    quiet(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&files))?;
    prepare(&files)?;
    settle(&files, place)
}

/// Whole or not at all, beside others that do the same.
fn settle(files: &Path, place: &Path) -> Result<()> {
    match fs::rename(files, place) {
        Err(_) if place.exists() => Ok(()),
        outcome => outcome.with_context(|| format!("create {}", place.display())),
    }
}
