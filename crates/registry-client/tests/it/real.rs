//! Debian's docker-registry.

use registry_client::Wanted;
use testkit::registry::{Debian, Served};

use crate::{Credentials, Registry, Scratch, digest, read, reference, settings};

#[tokio::test]
async fn a_real_registry_is_read() {
    let real = Debian::start().unwrap();
    let served = Served::new(&[2_000_000, 100]);
    real.push(&served, "a/b").unwrap();
    let scratch = Scratch::new();
    let name = reference(real.host(), "a/b:1");
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
    let absent = reference(real.host(), "a/b:none");
    let err = errdefs::chain(&session.resolve(&absent, &Wanted::host()).await.unwrap_err());
    assert_eq!(err, format!("manifest for {absent} not found: manifest unknown: manifest unknown"));
}
