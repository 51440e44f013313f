//! The directory of an instance.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A temporary directory with the files of one instance; removed when dropped.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    pub(super) fn new() -> Result<Scratch> {
        let dir = tempfile::Builder::new().prefix("longshore-").tempdir()?;
        fs::DirBuilder::new().mode(0o700).create(dir.path().join("home"))?;
        Ok(Scratch(dir))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What follows `--exec-root`.
    pub fn exec_root(&self) -> PathBuf {
        self.path().join("exec")
    }

    /// What follows `--data-root`.
    pub fn data_root(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The directory that the command lines take for the user's.
    pub fn home(&self) -> PathBuf {
        self.path().join("home")
    }

    /// The random part of the directory's name.
    pub fn mark(&self) -> &str {
        let name = self.path().file_name().and_then(|file| file.to_str()).unwrap_or_default();
        name.trim_start_matches("longshore-")
    }

    /// The 8 hex digits in the names of what belongs to the instance, once it has told them.
    pub fn key(&self) -> Option<String> {
        let text = fs::read_to_string(self.exec_root().join("instance-key")).ok()?;
        Some(text.trim().to_owned()).filter(|key| !key.is_empty())
    }

    /// What all daemons of this instance have printed.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Writes a file into the directory; `daemon.json` is read at the next start.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// `longshored` on this directory, listening on `socket`.
    pub(super) fn longshored(&self, dist: &Path, socket: &Path) -> Result<Command> {
        let program = dist.join("longshored");
        ensure!(program.exists(), "{} is not built: run `cargo xtask dist --dev`", program.display());
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        // Always named: the machine's own /etc/longshore/daemon.json is no part of a test.
        let config = self.path().join("daemon.json");
        if !config.exists() {
            self.write("daemon.json", "{}")?;
        }
        let mut command = Command::new(program);
        command.arg("-H").arg(format!("unix://{}", socket.display()));
        command.arg("--data-root").arg(self.data_root()).arg("--exec-root").arg(self.exec_root());
        command.arg("--pidfile").arg(self.path().join("d.pid")).arg("--config-file").arg(config);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn log_path(&self) -> PathBuf {
        self.path().join("daemon.log")
    }
}
