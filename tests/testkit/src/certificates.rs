//! Certificates of the test's own, made by openssl: an authority, a server on this machine, a client, and a stranger.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process;

/// A directory with `ca.pem`; below it `server`, `client` and `stranger`, each with `ca.pem`, `cert.pem` and `key.pem`, as
/// Docker's programs look for them. Another authority has vouched for the stranger.
#[derive(Debug)]
pub struct Certificates(TempDir);

impl Certificates {
    /// Makes them.
    pub fn make() -> Result<Certificates> {
        let made = Certificates(tempfile::Builder::new().prefix("certificates-").tempdir()?);
        let other = made.path().join("other");
        std::fs::create_dir(&other)?;
        authority(made.path())?;
        authority(&other)?;
        let here = "subjectAltName=DNS:localhost,IP:127.0.0.1";
        vouch(made.path(), &made.server(), &format!("{here}\nextendedKeyUsage=serverAuth"))?;
        vouch(made.path(), &made.client(), "extendedKeyUsage=clientAuth")?;
        vouch(&other, &made.stranger(), "extendedKeyUsage=clientAuth")?;
        // He believes the server as everybody does: it is he who is not believed.
        std::fs::copy(made.path().join("ca.pem"), made.stranger().join("ca.pem"))?;
        Ok(made)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What a daemon shows.
    pub fn server(&self) -> PathBuf {
        self.path().join("server")
    }

    /// What a client shows that may connect.
    pub fn client(&self) -> PathBuf {
        self.path().join("client")
    }

    /// What a client shows that may not.
    pub fn stranger(&self) -> PathBuf {
        self.path().join("stranger")
    }

    /// The flags of a daemon that serves TLS and verifies its clients.
    pub fn daemon_flags(&self) -> Vec<String> {
        let file = |name: &str| self.server().join(name).display().to_string();
        let flags = [("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem")];
        let files = flags.iter().map(|(flag, name)| format!("--{flag}={}", file(name)));
        std::iter::once("--tlsverify".to_owned()).chain(files).collect()
    }
}

fn authority(dir: &Path) -> Result<()> {
    openssl(
        dir,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority -keyout ca-key.pem -out ca.pem",
    )
}

/// Makes a key in `dir` and a certificate of it by the authority in `of`.
fn vouch(of: &Path, dir: &Path, extensions: &str) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("extensions"), extensions)?;
    std::fs::copy(of.join("ca.pem"), dir.join("ca.pem"))?;
    openssl(
        dir,
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=somebody -keyout key.pem -out request.pem",
    )?;
    let key = of.join("ca-key.pem");
    let signed = format!(
        "x509 -req -in request.pem -CA ca.pem -CAkey {} -CAcreateserial -days 2 -extfile extensions -out cert.pem",
        key.display()
    );
    openssl(dir, &signed)
}

fn openssl(dir: &Path, line: &str) -> Result<()> {
    let output = process::run(Command::new("openssl").current_dir(dir).args(line.split(' ')), b"")?;
    output.success().with_context(|| format!("openssl {line}"))?;
    Ok(())
}
