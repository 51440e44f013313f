//! Pulls from registries: a real one, and one that does everything wrong.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod auth;
mod documents;
mod layers;
mod mirrors;
mod proxies;
mod pull;
mod push;
mod real;
mod search;
mod signatures;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use content::Content;
use oci::{Digest, Reference};
use registry_client::{
    Credentials, LayerProgress, Registry, RegistryError, Resolved, Session, Settings, Timing, Transfer, Wanted,
};
use testkit::registry::Server;
use tokio::sync::mpsc;

/// Patient, since a machine may be slow, but for the pauses between attempts.
fn settings() -> Settings {
    let timing = Timing { retry: Duration::from_millis(1), ..Timing::default() };
    Settings { timing, certificates: Vec::new(), ..Settings::default() }
}

/// For servers that are silent for ever.
fn impatient() -> Settings {
    Settings { timing: Timing { idle: Duration::from_millis(200), ..settings().timing }, ..settings() }
}

fn digest(bytes: &[u8]) -> Digest {
    testkit::registry::digest(bytes).parse().unwrap()
}

fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

async fn session(server: &Server) -> Result<Arc<Session>, RegistryError> {
    Registry::new(settings()).session(&reference(&server.host(), "r"), Credentials::Anonymous).await
}

async fn resolve(server: &Server, rest: &str) -> Result<Resolved, RegistryError> {
    let session = session(server).await?;
    session.resolve(&reference(&server.host(), rest), &Wanted::parse("linux/amd64").unwrap()).await
}

/// A content store, and pulls into it.
struct Scratch {
    dir: tempfile::TempDir,
    content: Content,
    registry: Arc<Registry>,
}

impl Scratch {
    fn new() -> Scratch {
        Scratch::with(settings())
    }

    fn with(settings: Settings) -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::open(dir.path()).unwrap();
        Scratch { dir, content, registry: Registry::new(settings) }
    }

    async fn transfer(&self, server: &Server) -> (Transfer, Resolved, mpsc::Receiver<LayerProgress>) {
        let name = reference(&server.host(), "r:1");
        let session = self.registry.session(&name, Credentials::Anonymous).await.unwrap();
        let resolved = session.resolve(&name, &Wanted::parse("linux/amd64").unwrap()).await.unwrap();
        let (reports, reported) = mpsc::channel(64);
        (Transfer::new(session, &self.content, reports), resolved, reported)
    }

    /// Reads all layers at once.
    async fn layers(&self, server: &Server) -> Result<Vec<Vec<u8>>, Arc<RegistryError>> {
        let (transfer, resolved, _reported) = self.transfer(server).await;
        let readers: Vec<_> = resolved.manifest.layers.iter().map(|layer| transfer.open(layer)).collect();
        let mut layers = Vec::new();
        for mut reader in readers {
            layers.push(bridge::blocking(move || read(&mut reader)).await);
        }
        let read: Result<Vec<_>, _> = layers.into_iter().collect();
        read.map_err(|_| transfer.failure().expect("a reader failed"))
    }

    fn partials(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("partial")).unwrap().count()
    }
}

fn read(reader: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}
