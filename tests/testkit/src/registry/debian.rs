//! Debian's docker-registry.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::served::{Served, digest};
use crate::Certificates;
use crate::http::{self, Response};
use crate::paths;
use crate::process::DEADLINE;

/// The program, on a port of its own choice; dropped, it ends, and data of its own goes.
#[derive(Debug)]
pub struct Debian {
    child: Child,
    host: String,
    /// Where its configuration is, and the data that goes with it.
    _dir: tempfile::TempDir,
}

impl Debian {
    /// Starts it, empty.
    pub fn start() -> Result<Debian> {
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("data");
        Debian::listen(dir, &data, "", "")
    }

    /// Starts it, empty, with TLS, for those alone who show a certificate of the same authority.
    pub fn demanding(certificates: &Certificates) -> Result<Debian> {
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("data");
        let file = |name: &str| certificates.server().join(name).display().to_string();
        let tls = format!(
            ", tls: {{certificate: '{}', key: '{}', clientcas: ['{}']}}",
            file("cert.pem"),
            file("key.pem"),
            file("ca.pem")
        );
        Debian::listen(dir, &data, "", &tls)
    }

    /// Starts it on what another one has stored in `data`, which it does not change: others may read it, too.
    pub fn reading(data: &Path) -> Result<Debian> {
        let data = std::fs::canonicalize(data).with_context(|| format!("registry in {}", data.display()))?;
        let storage = "  cache: {blobdescriptor: inmemory}\n  maintenance: {readonly: {enabled: true}}\n";
        Debian::listen(tempfile::tempdir()?, &data, storage, "")
    }

    /// `storage` is what more its configuration says of how it stores, `tls` of how it is reached; `dir` holds that
    /// configuration.
    fn listen(dir: tempfile::TempDir, data: &Path, storage: &str, tls: &str) -> Result<Debian> {
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: '{}'}}\n{storage}\
             http: {{addr: '127.0.0.1:0'{tls}}}\n",
            data.display()
        );
        std::fs::write(&config, text)?;
        let mut child = Command::new(paths::program_of("docker-registry", "docker-registry")?)
            .args(["serve".as_ref(), config.as_os_str()])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("start docker-registry")?;
        let stderr = child.stderr.take().context("a child without standard error")?;
        let mut registry = Debian { child, host: String::new(), _dir: dir };
        let mut lines = BufReader::new(stderr).lines().map_while(std::result::Result::ok);
        let host = lines.find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split(|c: char| c == '"' || c == ',' || c.is_whitespace()).next()?.to_owned())
        });
        registry.host = host.context("docker-registry ended before it listened")?;
        // Whoever stops reading would block it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(registry)
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Puts all that is served there as `repository`: every manifest under its tag or digest.
    pub fn push(&self, served: &Served, repository: &str) -> Result<()> {
        for (digest, blob) in &served.blobs {
            let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[])?;
            let place = begun.header("location").with_context(|| format!("no upload: {begun:?}"))?;
            let path = place.split_once(&self.host).map_or(place, |(_, path)| path);
            let put = self.ask("PUT", &format!("{path}&digest={digest}"), "application/octet-stream", blob)?;
            ensure!(put.status == 201, "{digest}: {put:?}");
        }
        // An index refers to manifests that have to be there before it.
        let by_digest = |(name, bytes): &(&String, &Vec<u8>)| (**name != digest(bytes), name.len());
        let mut manifests: Vec<_> = served.manifests.iter().collect();
        manifests.sort_by_key(by_digest);
        let (indexes, images): (Vec<_>, Vec<_>) = manifests.into_iter().partition(|(_, bytes)| served.is_index(bytes));
        for (name, bytes) in images.into_iter().chain(indexes) {
            let put = self.ask("PUT", &format!("/v2/{repository}/manifests/{name}"), served.kind(bytes), bytes)?;
            ensure!(put.status == 201, "{name}: {put:?}");
        }
        Ok(())
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Response> {
        let mut stream = TcpStream::connect(&self.host)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        http::read_response(&mut BufReader::new(stream))
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_registry_reads_what_the_first_has_stored_and_changes_nothing() {
        let data = tempfile::tempdir().unwrap();
        let first = Debian::listen(tempfile::tempdir().unwrap(), data.path(), "", "").unwrap();
        let served = Served::new(&[1000]);
        first.push(&served, "a/b").unwrap();
        let second = Debian::reading(data.path()).unwrap();
        for blob in served.blobs.keys() {
            assert_eq!(second.ask("GET", &format!("/v2/a/b/blobs/{blob}"), "", &[]).unwrap().body, served.blobs[blob]);
        }
        second.push(&Served::new(&[2000]), "a/b").unwrap_err();
        assert_eq!(first.ask("GET", "/v2/a/b/tags/list", "", &[]).unwrap().status, 200);
    }
}
