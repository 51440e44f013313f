//! Image archives, planned as values and written byte for byte the same every time.
//!
//! [`plan`] says what is in an image, [`write`] turns that into a docker-archive or an OCI layout. Modification times
//! are fixed and entries are written in the order of the plan, so that digests can stand in tests.
//!
//! | file in `target/images` | what |
//! |---|---|
//! | `busybox.tar` | docker-archive, one layer: Debian's busybox-static and its applets as hard links |
//! | `busybox-oci-gzip.tar`, `busybox-oci-zstd.tar` | the same image as OCI layouts |
//! | `layers.tar` | docker-archive, two layers: whiteout, opaque directory, xattr, hard link, device, sparse file |
//! | `sparse.tar` | docker-archive with a sparse file in GNU's old format, which Docker refuses |

pub mod plan;
pub mod write;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::paths;
use plan::Image;
use write::Compression;

/// An archive that tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// `busybox:latest`, docker-archive.
    Busybox,
    /// `busybox:latest`, OCI layout with a gzip layer.
    BusyboxGzip,
    /// `busybox:latest`, OCI layout with a zstd layer.
    BusyboxZstd,
    /// `layers:latest`, docker-archive with everything that makes layers hard.
    Layers,
    /// `volumes:latest`, docker-archive of busybox with volumes.
    Volumes,
    /// `sparse:latest`, docker-archive with a sparse file in GNU's old format.
    OldSparse,
}

impl Archive {
    /// Every archive.
    pub const ALL: [Archive; 6] = [
        Archive::Busybox,
        Archive::BusyboxGzip,
        Archive::BusyboxZstd,
        Archive::Layers,
        Archive::Volumes,
        Archive::OldSparse,
    ];

    /// Its file's name in `target/images`.
    pub fn file_name(self) -> &'static str {
        match self {
            Archive::Busybox => "busybox.tar",
            Archive::BusyboxGzip => "busybox-oci-gzip.tar",
            Archive::BusyboxZstd => "busybox-oci-zstd.tar",
            Archive::Layers => "layers.tar",
            Archive::Volumes => "volumes.tar",
            Archive::OldSparse => "sparse.tar",
        }
    }

    fn bytes(self) -> Result<Vec<u8>> {
        match self {
            Archive::Busybox => write::docker_archive(&busybox()?),
            Archive::BusyboxGzip => write::oci_layout(&busybox()?, Compression::Gzip),
            Archive::BusyboxZstd => write::oci_layout(&busybox()?, Compression::Zstd),
            Archive::Layers => write::docker_archive(&plan::layers()),
            Archive::Volumes => write::docker_archive(&plan::volumes(busybox()?)),
            Archive::OldSparse => write::docker_archive(&plan::old_sparse()),
        }
    }

    /// The path of the archive, made now if nobody made it before.
    ///
    /// Blocks. Safe beside other processes that do the same: the file appears whole, with equal content.
    pub fn path(self) -> Result<PathBuf> {
        let path = paths::target().join("images").join(self.file_name());
        if !path.exists() {
            self.make(&path)?;
        }
        Ok(path)
    }

    /// Writes the archive to `path`, replacing what is there.
    pub fn make(self, path: &Path) -> Result<()> {
        let dir = path.parent().context("an archive needs a directory")?;
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let readable = fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(dir)?;
        std::io::Write::write_all(&mut file, &self.bytes()?)?;
        file.persist(path).with_context(|| format!("write {}", path.display()))?;
        Ok(())
    }
}

/// The busybox image, from the host's static busybox.
pub fn busybox() -> Result<Image> {
    let program = paths::busybox()?;
    let binary = fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let listed = std::process::Command::new(&program).arg("--list").output()?;
    ensure!(listed.status.success(), "{} --list failed", program.display());
    let applets = String::from_utf8(listed.stdout)?;
    Ok(plan::busybox(binary, &applets.lines().collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests;
