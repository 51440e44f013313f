//! A registry of our own on loopback, to pull from.
//!
//! Debian's docker-registry reads a directory that somebody filled before. Peers in a network namespace of their own need
//! another one in there, on the same directory: then everybody's bytes are the same, from the same page cache.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// A running registry; dropping it ends it.
#[derive(Debug)]
pub(super) struct Registry {
    child: Child,
    host: String,
    /// Holds its configuration.
    _dir: TempDir,
}

impl Registry {
    /// Starts it on what `data` holds, which it does not change, on a port that is free.
    ///
    /// Its CPU belongs to nobody: to be called before the caller enters an account.
    pub(super) fn start(data: &Path) -> Result<Registry> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("config.yml");
        let data = fs::canonicalize(data).with_context(|| format!("--registry {}", data.display()))?;
        fs::write(&config, configuration(&data))?;
        let mut child = Command::new("docker-registry")
            .args(["serve".as_ref(), config.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start docker-registry, of Debian's package of that name")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let mut registry = Registry { child, host: String::new(), _dir: dir };
        let mut seen = String::new();
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next().transpose()? {
            if let Some(host) = listening(&line) {
                host.clone_into(&mut registry.host);
                // It would block if nobody read what it prints.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(registry);
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        bail!("docker-registry ended:\n{seen}")
    }

    /// `address:port`.
    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself: the pull has told.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As the peers' registry should be configured, too. Where it listens is told at level info.
fn configuration(data: &Path) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: info, accesslog: {{disabled: true}}}}\n\
         storage:\n\
         \x20 cache: {{blobdescriptor: inmemory}}\n\
         \x20 filesystem: {{rootdirectory: '{}'}}\n\
         \x20 maintenance: {{readonly: {{enabled: true}}}}\n\
         http: {{addr: '127.0.0.1:0'}}\n",
        data.display()
    )
}

fn listening(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("listening on ")?;
    rest.split(|character: char| character == '"' || character.is_whitespace()).next()
}
