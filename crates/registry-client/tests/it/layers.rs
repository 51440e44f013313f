//! Layers from registries that do it badly.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use content::{Content, Expected, Sync};
use oci::image::Descriptor;
use registry_client::{Credentials, Progress, Registry, RegistryError, Settings, Timing, Transfer, Wanted, WebAddress};
use testkit::registry::{Answer, Served, Server};
use tokio::sync::mpsc;

use crate::{Scratch, digest, impatient, read, reference, settings};

#[tokio::test]
async fn layers_are_read_while_they_come_and_become_blobs() {
    let served = Served::new(&[3_000_000, 10, 500_000, 70_000]);
    let expected = served.layers.clone();
    let server = Server::start(move |request| served.answer(request));
    let scratch = Scratch::new();
    assert!(scratch.layers(&server).await.unwrap() == expected);
    for layer in &expected {
        let whole = scratch.content.verified(&digest(layer), layer.len() as u64).unwrap();
        let expected = Expected { digest: Some(digest(layer)), size: Some(layer.len() as u64) };
        whole.commit(&expected, Sync::Later).unwrap();
    }
    // What is there is not asked for again.
    let asked = server.requests("/blobs/").len();
    assert!(scratch.layers(&server).await.unwrap() == expected);
    assert_eq!(server.requests("/blobs/").len(), asked);
    assert_eq!(scratch.partials(), 0);
}

#[tokio::test]
async fn a_transfer_that_is_cut_again_and_again_is_finished_by_ranges() {
    for (length, cut) in [(1000, 100), (300_000, 65_536), (2_000_000, 100_000)] {
        let served = Served::new(&[length]);
        let expected = served.layers.clone();
        let server = Server::start(move |request| match served.is_layer(request) {
            true => Answer { cut: Some(cut), ..served.answer(request) },
            false => served.answer(request),
        });
        assert!(Scratch::new().layers(&server).await.unwrap() == expected);
        let from: Vec<usize> = server.requests(digest(&expected[0]).as_str()).iter().map(|one| one.from()).collect();
        assert!(from.windows(2).all(|pair| pair[1] > pair[0]), "{from:?}");
        assert!(from.len() >= expected[0].len() / cut, "{from:?}");
    }
}

#[tokio::test]
async fn a_registry_that_knows_no_ranges_is_read_again_from_the_begin() {
    let served = Served::new(&[100_000]);
    let expected = served.layers.clone();
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| match served.is_layer(request) {
        true => {
            let cut = [50_000, 80_000, usize::MAX][asked.fetch_add(1, Ordering::SeqCst).min(2)];
            let answer = Answer::new(200, served.layers[0].clone());
            if cut == usize::MAX { answer } else { Answer { cut: Some(cut), ..answer } }
        }
        false => served.answer(request),
    });
    assert!(Scratch::new().layers(&server).await.unwrap() == expected);
}

#[tokio::test]
async fn hostile_layers_end_with_an_error_and_leave_nothing() {
    type Wrong = fn(&[u8]) -> Answer;
    let wrongs: [(&str, Wrong, &str); 8] = [
        ("digest", |bytes| Answer::new(200, bytes.iter().map(|b| b ^ 1).collect::<Vec<_>>()), "verification failed"),
        ("longer", |bytes| Answer::new(200, [bytes, b"x"].concat()), "verification failed"),
        ("shorter", |bytes| Answer::new(200, &bytes[1..]), "verification failed"),
        ("endless", |_| Answer { status: 200, endless: true, ..Answer::default() }, "verification failed"),
        ("cut", |bytes| Answer { cut: Some(0), ..Answer::new(200, bytes) }, "unexpected EOF"),
        (
            "hangs",
            |bytes| Answer { hang: true, length: Some(bytes.len() as u64), ..Answer::new(200, "") },
            "timeout reading the body",
        ),
        ("absent", |_| Answer::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"x"}]}"#), "blob unknown: x"),
        ("broken", |_| Answer::new(503, "secret"), "received unexpected HTTP status: 503 Service Unavailable"),
    ];
    for (name, wrong, expected) in wrongs {
        let served = Served::new(&[100_000]);
        let server = Server::start(move |request| match served.is_layer(request) {
            true => wrong(&served.layers[0]),
            false => served.answer(request),
        });
        let scratch = Scratch::with(if name == "hangs" { impatient() } else { settings() });
        let err = errdefs::chain(&scratch.layers(&server).await.unwrap_err());
        assert!(err.contains(expected), "{name}: {err}");
        assert!(scratch.content.list().unwrap().is_empty());
        let attempts = server.requests("/blobs/").len();
        let tries = if ["cut", "hangs", "broken"].contains(&name) { 5 } else { 1 };
        assert_eq!(attempts, tries, "{name}");
    }
}

#[tokio::test]
async fn a_registry_that_has_too_much_to_do_is_asked_again_when_it_says() {
    for (busy, wait, tries) in [(429, "0", 3), (503, "0", 3), (429, "3600", 1)] {
        let served = Served::new(&[100_000]);
        let expected = served.layers.clone();
        let asked = AtomicUsize::new(0);
        let server = Server::start(move |request| match served.is_layer(request) {
            true if asked.fetch_add(1, Ordering::Relaxed) < 2 => Answer::new(busy, "").with("Retry-After", wait),
            _ => served.answer(request),
        });
        let pulled = Scratch::new().layers(&server).await;
        assert_eq!(server.requests("/blobs/").len(), tries, "{busy} {wait}");
        match pulled {
            // Nobody waits for an hour.
            Err(err) => assert_eq!((errdefs::chain(&*err).as_str(), wait), ("toomanyrequests: ", "3600")),
            Ok(layers) => assert!(layers == expected && wait == "0"),
        }
    }
}

#[tokio::test]
async fn a_range_that_was_not_asked_for_is_refused() {
    let served = Served::new(&[100_000]);
    let server = Server::start(move |request| match (served.is_layer(request), request.from()) {
        (true, 0) => Answer { cut: Some(50_000), ..served.answer(request) },
        (true, _) => Answer::new(206, &served.layers[0][..]).with("Content-Range", "bytes 0-9/10"),
        _ => served.answer(request),
    });
    let err = errdefs::chain(&*Scratch::new().layers(&server).await.unwrap_err());
    assert!(err.ends_with("another part of the blob"), "{err}");
}

#[tokio::test]
async fn a_body_that_trickles_counts_as_cut() {
    let served = Served::new(&[100_000]);
    let server = Server::start(move |request| served.answer(request));
    // Nothing is fast enough.
    let timing = Timing { trickle: Duration::ZERO, trickle_bytes: u64::MAX, ..settings().timing };
    let scratch = Scratch::with(Settings { timing, ..settings() });
    let err = errdefs::chain(&*scratch.layers(&server).await.unwrap_err());
    assert!(err.ends_with("timeout reading the body"), "{err}");
}

#[tokio::test]
async fn the_next_process_goes_on_where_the_last_one_ended() {
    let served = Served::new(&[200_000]);
    let layer = served.layers[0].clone();
    let server = Server::start(move |request| served.answer(request));
    let mut scratch = Scratch::new();
    scratch.content.partial(&digest(&layer)).unwrap().write(&layer[..150_000]).unwrap();
    scratch.content = Content::open(scratch.dir.path()).unwrap();
    assert!(scratch.layers(&server).await.unwrap() == [layer.clone()]);
    let asked = server.requests(digest(&layer).as_str());
    assert_eq!(asked.iter().map(|one| one.from()).collect::<Vec<_>>(), [150_000]);
    // All of it is there.
    scratch.registry = Registry::new(settings());
    assert!(scratch.layers(&server).await.unwrap() == [layer.clone()]);
    assert_eq!(server.requests(digest(&layer).as_str()).len(), 1);
}

#[tokio::test]
async fn what_a_power_cut_left_is_fetched_again_and_never_read() {
    let served = Served::new(&[200_000]);
    let layer = served.layers[0].clone();
    let server = Server::start(move |request| served.answer(request));
    for left in [vec![0; 150_000], vec![0; layer.len()], vec![0; layer.len() + 1]] {
        let scratch = Scratch::new();
        scratch.content.partial(&digest(&layer)).unwrap().write(&left).unwrap();
        assert!(scratch.layers(&server).await.unwrap() == [layer.clone()]);
    }
}

#[tokio::test]
async fn two_pulls_share_one_transfer() {
    let served = Served::new(&[400_000]);
    let layer = served.layers[0].clone();
    let server = Server::start(move |request| served.answer(request));
    let scratch = Scratch::new();
    let (first, resolved, _first) = scratch.transfer(&server).await;
    let (second, _, _second) = scratch.transfer(&server).await;
    // Both join before either reads.
    let descriptor = &resolved.manifest.layers[0];
    let (mut one, mut two) = (first.open(descriptor), second.open(descriptor));
    let one = tokio::task::spawn_blocking(move || read(&mut one).unwrap());
    let two = tokio::task::spawn_blocking(move || read(&mut two).unwrap());
    assert!(one.await.unwrap() == layer && two.await.unwrap() == layer);
    assert_eq!(server.requests(digest(&layer).as_str()).len(), 1);
}

#[tokio::test]
async fn registries_that_were_changed_share_the_transfers_of_before() {
    let served = Served::new(&[400_000]);
    let layer = served.layers[0].clone();
    let server = Server::start(move |request| served.answer(request));
    let mut scratch = Scratch::new();
    let (first, resolved, _first) = scratch.transfer(&server).await;
    scratch.registry = scratch.registry.changed(Settings { concurrent_downloads: 1, ..settings() });
    let (second, _, _second) = scratch.transfer(&server).await;
    // Both join before either reads.
    let descriptor = &resolved.manifest.layers[0];
    let (mut one, mut two) = (first.open(descriptor), second.open(descriptor));
    let one = tokio::task::spawn_blocking(move || read(&mut one).unwrap());
    let two = tokio::task::spawn_blocking(move || read(&mut two).unwrap());
    assert!(one.await.unwrap() == layer && two.await.unwrap() == layer);
    assert_eq!(server.requests(digest(&layer).as_str()).len(), 1);
}

#[tokio::test]
async fn the_last_reader_that_leaves_ends_the_transfer_and_the_next_one_goes_on() {
    let served = Served::new(&[400_000]);
    let layer = served.layers[0].clone();
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| match served.is_layer(request) {
        true if asked.fetch_add(1, Ordering::SeqCst) == 0 => {
            let answer = Answer::new(200, &served.layers[0][..200_000]);
            Answer { hang: true, length: Some(served.layers[0].len() as u64), ..answer }
        }
        _ => served.answer(request),
    });
    let patient = Settings { timing: Timing { idle: Duration::from_secs(600), ..settings().timing }, ..settings() };
    let scratch = Scratch::with(patient);
    let (transfer, resolved, _reported) = scratch.transfer(&server).await;
    let mut reader = transfer.open(&resolved.manifest.layers[0]);
    let reader = tokio::task::spawn_blocking(move || {
        std::io::Read::read_exact(&mut reader, &mut vec![0; 200_000]).unwrap();
        reader
    });
    let mut reader = reader.await.unwrap();
    // Somebody who waits hears of a cancellation at once, though nothing comes.
    let waiting = tokio::task::spawn_blocking(move || std::io::Read::read(&mut reader, &mut [0]).map(drop));
    transfer.cancel();
    assert!(waiting.await.unwrap().is_err());
    assert!(matches!(*transfer.failure().unwrap(), RegistryError::Cancelled));
    assert!(scratch.layers(&server).await.unwrap() == [layer.clone()]);
    let from: Vec<usize> = server.requests(digest(&layer).as_str()).iter().map(|one| one.from()).collect();
    assert_eq!(from, [0, 200_000]);
}

#[tokio::test]
async fn progress_is_told_stage_by_stage_and_others_wait() {
    let served = Served::new(&[300_000, 200_000]);
    let server = Server::start(move |request| served.answer(request));
    let scratch = Scratch::with(Settings { concurrent_downloads: 1, ..settings() });
    let (transfer, resolved, mut reported) = scratch.transfer(&server).await;
    let readers: Vec<_> = resolved.manifest.layers.iter().map(|layer| transfer.open(layer)).collect();
    drop(transfer);
    for mut reader in readers {
        tokio::task::spawn_blocking(move || read(&mut reader).unwrap()).await.unwrap();
    }
    let mut stages = vec![Vec::new(), Vec::new()];
    while let Some(report) = reported.recv().await {
        let index = resolved.manifest.layers.iter().position(|layer| layer.digest == report.layer).unwrap();
        let stage = match report.progress {
            Progress::Downloading { current, total } => {
                assert!(current <= total);
                "downloading"
            }
            Progress::Waiting => "waiting",
            Progress::Verifying => "verifying",
            Progress::Complete => "complete",
            other => panic!("{other:?}"),
        };
        if stages[index].last() != Some(&stage) {
            stages[index].push(stage);
        }
    }
    for stages in &stages {
        assert_eq!(stages[stages.len() - 2..], ["verifying", "complete"], "{stages:?}");
    }
    // With one transfer at a time the second request comes behind the whole first answer.
    assert_eq!(server.requests("/blobs/").len(), 2);
}

#[tokio::test]
async fn the_lies_of_one_registry_do_not_fail_the_pull_from_another() {
    let served = Served::new(&[400_000]);
    let layer = served.layers[0].clone();
    let honest = {
        let served = served.clone();
        Server::start(move |request| served.answer(request))
    };
    let liar = Server::start(move |request| match served.is_layer(request) {
        true => Answer::new(200, vec![0; served.layers[0].len()]),
        false => served.answer(request),
    });
    let scratch = Scratch::new();
    let (wrong, resolved, _wrong) = scratch.transfer(&liar).await;
    let (right, _, _right) = scratch.transfer(&honest).await;
    let descriptor = &resolved.manifest.layers[0];
    // The second one begins while the first one runs.
    let (mut one, mut two) = (wrong.open(descriptor), right.open(descriptor));
    let one = tokio::task::spawn_blocking(move || read(&mut one));
    let two = tokio::task::spawn_blocking(move || read(&mut two));
    assert!(one.await.unwrap().is_err());
    assert!(two.await.unwrap().unwrap() == layer);
}

#[tokio::test]
async fn what_a_transfer_brought_is_thrown_away_unless_others_read_it() {
    let served = Served::new(&[100_000]);
    let layer = served.layers[0].clone();
    let server = Server::start(move |request| served.answer(request));
    let scratch = Scratch::new();
    let (transfer, resolved, _reported) = scratch.transfer(&server).await;
    let descriptor = &resolved.manifest.layers[0];
    let mut reader = transfer.open(descriptor);
    assert!(bridge::blocking(move || read(&mut reader)).await.unwrap() == layer);
    assert_eq!(scratch.partials(), 1);
    transfer.discard().await;
    assert_eq!(scratch.partials(), 0);

    let (ours, _, _ours) = scratch.transfer(&server).await;
    let (theirs, _, _theirs) = scratch.transfer(&server).await;
    drop(ours.open(descriptor));
    let mut reader = theirs.open(descriptor);
    ours.discard().await;
    assert!(bridge::blocking(move || read(&mut reader)).await.unwrap() == layer, "it was not given up, or began anew");
}

#[tokio::test]
async fn a_registry_that_restarts_is_asked_again() {
    let served = Served::new(&[100_000]);
    let expected = served.layers.clone();
    let asked = AtomicUsize::new(0);
    // It refuses connections three times, told by a redirect to where nobody listens.
    let server = Server::start(move |request| match served.is_layer(request) {
        true if asked.fetch_add(1, Ordering::SeqCst) < 3 => {
            Answer::new(307, "").with("Location", "http://127.0.0.1:1/nobody")
        }
        _ => served.answer(request),
    });
    assert!(Scratch::new().layers(&server).await.unwrap() == expected);
}

#[tokio::test]
async fn what_a_pull_has_brought_is_its_own_until_the_pull_is_over() {
    let served = Served::new(&[100_000]);
    let layer = served.layers[0].clone();
    let server = Server::start(move |request| served.answer(request));
    let scratch = Scratch::new();
    let (transfer, resolved, _reported) = scratch.transfer(&server).await;
    let (other, _, _other) = scratch.transfer(&server).await;
    let mut reader = transfer.open(&resolved.manifest.layers[0]);
    assert!(bridge::blocking(move || read(&mut reader)).await.unwrap() == layer);
    // Somebody prunes, and somebody else, to whom these bytes are no good, throws them away.
    scratch.registry.discard_cut(&scratch.content).unwrap();
    // Or a day goes by, in which nothing is added to it.
    let path = std::fs::read_dir(scratch.dir.path().join("partial")).unwrap().next().unwrap().unwrap().path();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 60 * 60);
    let grow_old = || std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    grow_old();
    scratch.registry.discard_stale(&scratch.content).unwrap();
    drop(other.open(&resolved.manifest.layers[0]));
    other.discard().await;
    assert!(
        scratch.content.verified(&digest(&layer), layer.len() as u64).is_some(),
        "another layer of the image may still come"
    );
    drop(transfer);
    grow_old();
    scratch.registry.discard_stale(&scratch.content).unwrap();
    assert_eq!(scratch.partials(), 0);
}

#[tokio::test]
async fn a_wrong_length_spoils_nothing_that_another_pull_has_brought() {
    let served = Served::new(&[100_000]);
    let layer = served.layers[0].clone();
    // Whoever asks for more than there is gets it.
    let server =
        Server::start(move |request| match served.is_layer(request) && request.from() >= served.layers[0].len() {
            true => Answer::new(206, "x").with("Content-Range", format!("bytes {0}-{0}/*", request.from())),
            false => served.answer(request),
        });
    let scratch = Scratch::new();
    let (transfer, resolved, _reported) = scratch.transfer(&server).await;
    let descriptor = &resolved.manifest.layers[0];
    let mut reader = transfer.open(descriptor);
    assert!(bridge::blocking(move || read(&mut reader)).await.unwrap() == layer);
    for size in [descriptor.size - 1, descriptor.size + 1] {
        let (wrong, _, _wrong) = scratch.transfer(&server).await;
        let mut reader = wrong.open(&Descriptor { size, ..descriptor.clone() });
        assert!(bridge::blocking(move || read(&mut reader)).await.is_err());
        assert!(matches!(*wrong.failure().unwrap(), RegistryError::LayerDigest { .. }));
        wrong.discard().await;
    }
    let expected = Expected { digest: Some(digest(&layer)), size: Some(layer.len() as u64) };
    scratch.content.verified(&digest(&layer), layer.len() as u64).unwrap().commit(&expected, Sync::Later).unwrap();
    assert!(scratch.content.read(&digest(&layer), 1 << 20).unwrap() == layer);
}

#[tokio::test]
async fn credentials_that_have_left_a_host_do_not_come_back_to_it() {
    let back = Arc::new(OnceLock::<String>::new());
    let way = back.clone();
    let elsewhere = Server::start(move |_| Answer::new(307, "").with("Location", way.get().unwrap().clone()));
    let there = format!("http://{}/x", elsewhere.host());
    let served = Served::new(&[1000]);
    let layer = served.layers[0].clone();
    let server = Server::start(move |request| match request.header("authorization") {
        _ if request.path == "/secret" => Answer::new(200, served.layers[0].clone()),
        None => Answer::new(401, "{}").with("WWW-Authenticate", "Basic realm=\"r\""),
        Some(_) if served.is_layer(request) || request.path == "/web" => {
            Answer::new(307, "").with("Location", there.clone())
        }
        Some(_) => served.answer(request),
    });
    back.set(format!("http://{}/secret", server.host())).unwrap();
    let registry = Registry::new(settings());
    let name = reference(&server.host(), "r:1");
    let me = Credentials::Basic { username: "me".into(), password: "secret".into() };
    let session = registry.session(&name, me).await.unwrap();
    let resolved = session.resolve(&name, &Wanted::parse("linux/amd64").unwrap()).await.unwrap();
    let scratch = Scratch::new();
    let (reports, _reported) = mpsc::channel(64);
    let transfer = Transfer::new(session, &scratch.content, reports);
    let mut reader = transfer.open(&resolved.manifest.layers[0]);
    assert!(bridge::blocking(move || read(&mut reader)).await.unwrap() == layer);
    let address = WebAddress::parse(&format!("http://me:secret@{}/web", server.host())).unwrap();
    registry.fetch(&address).await.unwrap();
    let asked = server.requests("/secret");
    assert_eq!(asked.iter().map(|request| request.header("authorization")).collect::<Vec<_>>(), [None, None]);
}

#[tokio::test]
async fn a_port_that_is_none_is_said_to_be_none() {
    let registry = Registry::new(settings());
    let refused = registry.session(&reference("127.0.0.1:99999", "r:1"), Credentials::Anonymous).await.unwrap_err();
    let said = errdefs::chain(&refused);
    assert!(said.ends_with("dial tcp: address 99999: invalid port"), "{said}");
}
