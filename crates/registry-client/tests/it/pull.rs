//! Registry and image store together, as the engine puts them together.

use std::sync::Mutex;

use image::{PullEvent, PulledImage, Store};
use registry_client::{Credentials, Registry, Transfer, Wanted};
use testkit::registry::{Served, Server};
use tokio::sync::mpsc;

use crate::{reference, settings};

#[tokio::test(flavor = "multi_thread")]
async fn privileged_an_image_is_pulled_and_is_up_to_date_then() {
    let served = Served::new(&[3_000_000, 10, 500_000, 70_000]);
    let layers = served.layers.len();
    let server = Server::start(move |request| served.answer(request));
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(Store::open(dir.path()).unwrap());
    let name = reference(&server.host(), "r:1");
    let registry = Registry::new(settings());
    for round in 0..2 {
        let session = registry.session(&name, Credentials::Anonymous).await.unwrap();
        let resolved = session.resolve(&name, &Wanted::parse("linux/amd64").unwrap()).await.unwrap();
        let config = session.config(&resolved.manifest).await.unwrap();
        let digested = reference(&server.host(), &format!("r@{}", resolved.digest));
        let image = PulledImage {
            index: None,
            config,
            manifest: resolved.manifest,
            descriptor: resolved.descriptor,
            manifest_bytes: resolved.bytes,
            references: vec![name.clone(), digested.clone()],
            parent: None,
        };
        let (reports, mut reported) = mpsc::channel(64);
        let drain = tokio::spawn(async move { while reported.recv().await.is_some() {} });
        let transfer = Transfer::new(session, store.content(), reports);
        let pulling = store.clone();
        let (loaded, events) = bridge::blocking(move || {
            let events = Mutex::new(Vec::new());
            let see = |event| events.lock().unwrap().push(event);
            let loaded = pulling.pull(image, |layer| transfer.open(layer), &see).unwrap();
            drop(transfer);
            (loaded, events.into_inner().unwrap())
        })
        .await;
        drain.await.unwrap();
        let record = store.get(&loaded.id).unwrap();
        assert_eq!(record.repo_digests(), [digested.familiar()]);
        assert_eq!(record.repo_tags(), [name.familiar()]);
        assert_eq!(record.layer_blobs.len(), layers);
        let complete = events.iter().filter(|event| matches!(event, PullEvent::Complete(_))).count();
        assert_eq!(complete, if round == 0 { layers } else { 0 });
    }
    assert_eq!(server.requests("/blobs/").len(), layers + 2);
    assert_eq!(std::fs::read_dir(dir.path().join("content/partial")).unwrap().count(), 0);
}
