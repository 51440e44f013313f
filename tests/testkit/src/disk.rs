//! A file system small enough to be filled.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::mount::UnmountFlags;
use tempfile::TempDir;

use crate::{paths, process, skip};

/// A file system in a file, mounted as long as this lives.
#[derive(Debug)]
pub struct SmallDisk {
    dir: TempDir,
}

/// File systems with quotas for projects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4, mounted with `prjquota`.
    Ext4,
    /// XFS, mounted with `pquota`.
    Xfs,
}

impl SmallDisk {
    /// Makes and mounts an ext4 of that many MiB; as root there are no blocks in reserve.
    pub fn new(mebibytes: u64) -> Result<SmallDisk> {
        SmallDisk::make(mebibytes, Command::new("mkfs.ext4").args(["-q", "-m", "0"]), "loop")
    }

    /// One that keeps limits of projects. Needs a kernel with quotas.
    pub fn with_projects(kind: Kind) -> Result<SmallDisk> {
        match kind {
            Kind::Ext4 => {
                let options = ["-q", "-m", "0", "-O", "quota,project", "-E", "quotatype=prjquota"];
                SmallDisk::make(128, Command::new("mkfs.ext4").args(options), "loop,prjquota")
            }
            // Below 300 MiB mkfs.xfs refuses.
            Kind::Xfs => {
                let mkfs = paths::program_of("xfsprogs", "mkfs.xfs")?;
                SmallDisk::make(320, Command::new(mkfs).arg("-q"), "loop,pquota")
            }
        }
    }

    /// One with btrfs; where there cannot be one, the running test is told to be skipped in part, and why.
    pub fn btrfs() -> Result<Option<SmallDisk>> {
        let Ok(mkfs) = paths::program_of("btrfs-progs", "mkfs.btrfs") else {
            skip::report("no mkfs.btrfs on this machine: apt-get install btrfs-progs");
            return Ok(None);
        };
        let known = fs::read_to_string("/proc/filesystems")?;
        if !known.lines().any(|line| line.trim() == "btrfs") {
            skip::report("this kernel has no btrfs");
            return Ok(None);
        }
        // Below 109 MiB mkfs.btrfs refuses; the file has holes.
        SmallDisk::make(512, Command::new(mkfs).arg("-q"), "loop").map(Some)
    }

    fn make(mebibytes: u64, mkfs: &mut Command, options: &str) -> Result<SmallDisk> {
        let disk = SmallDisk { dir: tempfile::Builder::new().prefix("longshore-disk-").tempdir()? };
        let image = disk.dir.path().join("image");
        File::create(&image)?.set_len(mebibytes << 20)?;
        fs::create_dir(disk.path())?;
        run(mkfs.arg(&image))?;
        run(Command::new("mount").args(["-o", options]).arg(&image).arg(disk.path()))?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Takes every free block.
    pub fn fill(&self) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.ballast())?;
        // Some blocks are held back for what is not on the disk yet, and given back when it is.
        while free_bytes(&self.path())? > 0 {
            for length in [1 << 20, 4096, 1] {
                let piece = vec![0; length];
                while written(file.write_all(&piece))? {}
            }
            written(file.sync_all())?;
        }
        Ok(())
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("remove the ballast")
    }

    /// Whether the file system, unmounted for that, is as its rules want it. For the end of a test.
    pub fn check(&self) -> Result<()> {
        rustix::mount::unmount(self.path(), UnmountFlags::empty())?;
        let image = self.dir.path().join("image");
        // A container that somebody is just making may have a copy of the mount: before that is gone nothing is written back.
        let free = || (!is_attached(&image)).then_some(());
        process::until("nobody has the disk mounted", process::DEADLINE, free)?;
        run(Command::new("e2fsck").args(["-f", "-n"]).arg(image))
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Not there after `check`. A daemon that a failed test left may still use it.
        let _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// Whether a loop device stands for this file: it goes with the last mount.
fn is_attached(image: &Path) -> bool {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.into_iter().any(|file| Path::new(file.trim_end()) == image)
}

/// Whether there was room.
fn written(result: io::Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == ErrorKind::StorageFull => Ok(false),
        Err(err) => Err(err).context("write the ballast"),
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = process::run(command, b"")?;
    ensure!(output.code == 0, "{command:?}: {} {}", output.stdout, output.stderr);
    Ok(())
}

/// How many bytes are free where `path` lies.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let room = rustix::fs::statvfs(path)?;
    Ok(room.f_bavail * room.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_a_disk_is_full_and_has_room_again() {
        if crate::skip::without_root() {
            return;
        }
        let disk = SmallDisk::new(4).unwrap();
        disk.fill().unwrap();
        assert_eq!(free_bytes(&disk.path()).unwrap(), 0);
        let refused = fs::write(disk.path().join("file"), [0; 10_000]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
        disk.free().unwrap();
        fs::write(disk.path().join("file"), [0; 10_000]).unwrap();
        disk.check().unwrap();
    }
}
