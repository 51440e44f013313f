//! Debian's docker-registry, filled by skopeo; skipped where they are not installed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use oci::Digest;
use registry_client::Wanted;

use crate::image::{Served, digest};
use crate::{Credentials, Registry, Scratch, read, reference, settings};

/// The program, on a port of its own choice.
struct RealRegistry {
    child: Child,
    host: String,
    dir: tempfile::TempDir,
}

impl RealRegistry {
    fn start() -> Option<RealRegistry> {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            dir.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve".as_ref(), config.as_os_str()])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let host = lines.find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split(|c: char| c == '"' || c.is_whitespace()).next()?.to_owned())
        });
        // Whoever stops reading would block it.
        std::thread::spawn(move || lines.for_each(drop));
        Some(RealRegistry { child, host: host.expect("it says where it listens"), dir })
    }

    /// Puts an OCI layout of the image there, and has skopeo copy it.
    fn push(&self, served: &Served, name: &str) -> Option<()> {
        let layout = self.dir.path().join("layout");
        std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let write = |digest: &Digest, bytes: &[u8]| {
            std::fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap()
        };
        served.blobs.iter().for_each(|(name, bytes)| write(&name.parse().unwrap(), bytes));
        write(&digest(&served.manifest), &served.manifest);
        std::fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
        let (digest, size) = (digest(&served.manifest), served.manifest.len());
        let media_type = &served.media_type;
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": media_type, "digest": digest, "size": size,
            "annotations": {"org.opencontainers.image.ref.name": "1"},
        }]});
        std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
        let status = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--preserve-digests"])
            .args([format!("oci:{}:1", layout.display()), format!("docker://{}/{name}", self.host)])
            .status()
            .ok()?;
        assert!(status.success());
        Some(())
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_real_registry_is_read() {
    let Some(real) = RealRegistry::start() else {
        eprintln!("skipped: docker-registry is not installed");
        return;
    };
    let served = Served::new(&[2_000_000, 100]);
    let Some(()) = real.push(&served, "a/b:1") else {
        eprintln!("skipped: skopeo is not installed");
        return;
    };
    let scratch = Scratch::new();
    let name = reference(&real.host, "a/b:1");
    let session = Registry::new(settings()).session(&name, Credentials::Anonymous).await.unwrap();
    assert_eq!(session.tags().await.unwrap(), ["1"]);
    let resolved = session.resolve(&name, &Wanted::host()).await.unwrap();
    assert_eq!(resolved.digest, digest(&served.manifest));
    session.config(&resolved.manifest).await.unwrap();
    // Half of a layer is there: the registry gives the rest.
    let half = &served.layers[0][..1_000_000];
    scratch.content.partial(&digest(&served.layers[0])).unwrap().write(half).unwrap();
    let (reports, _reported) = tokio::sync::mpsc::channel(64);
    let transfer = registry_client::Transfer::new(session.clone(), &scratch.content, reports);
    for (layer, expected) in resolved.manifest.layers.iter().zip(&served.layers) {
        let mut reader = transfer.open(layer);
        assert!(bridge::blocking(move || read(&mut reader)).await.unwrap() == *expected);
    }
    let absent = reference(&real.host, "a/b:none");
    let err = errdefs::chain(&session.resolve(&absent, &Wanted::host()).await.unwrap_err());
    assert_eq!(err, format!("manifest for {absent} not found: manifest unknown: manifest unknown"));
}
