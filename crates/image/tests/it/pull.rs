//! Images whose layers come one by one.

use std::collections::BTreeSet;
use std::io::{self, Cursor, Read};
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use image::{LoadEvent, Loaded, PullError, PullEvent, PulledImage, Store};
use oci::Digest;
use oci::image::{Descriptor, Manifest};
use serde_json::json;

use crate::archive::{config, digest, docker, gzip, layer, tar, zstd};
use crate::{Scratch, leftovers, names};

/// An image as a registry has it.
struct Remote {
    image: PulledImage,
    blobs: Vec<Vec<u8>>,
}

fn describe(bytes: &[u8]) -> Descriptor {
    let (media_type, size) = ("x".to_owned(), bytes.len() as u64);
    Descriptor { media_type, digest: digest(bytes), size, annotations: Default::default(), platform: None }
}

fn remote_with(blobs: Vec<Vec<u8>>, config: Vec<u8>) -> Remote {
    let manifest = json!({
        "schemaVersion": 2, "config": describe(&config),
        "layers": blobs.iter().map(|blob| describe(blob)).collect::<Vec<_>>(),
    });
    let manifest_bytes = manifest.to_string().into_bytes();
    let parsed: Manifest = serde_json::from_slice(&manifest_bytes).unwrap();
    let descriptor = describe(&manifest_bytes);
    let names = ["h:1/r:1".to_owned(), format!("h:1/r@{}", descriptor.digest)];
    let references = names.iter().map(|name| name.parse().unwrap()).collect();
    Remote {
        image: PulledImage {
            config,
            manifest: parsed,
            descriptor,
            manifest_bytes,
            references,
            index: None,
            parent: None,
        },
        blobs,
    }
}

fn remote(layers: &[Vec<u8>]) -> Remote {
    remote_with(layers.iter().map(|layer| gzip(layer)).collect(), config(layers, ""))
}

fn three() -> Vec<Vec<u8>> {
    vec![layer(&[("a", "1"), ("d/b", "1")]), layer(&[("d/.wh.b", "")]), layer(&[("e", "2")])]
}

/// Puts the bytes where a transfer puts them.
fn arrive(store: &Store, blob: &[u8]) {
    let mut partial = store.content().partial(&digest(blob)).unwrap();
    let have = partial.size() as usize;
    partial.write(&blob[have..]).unwrap();
}

impl Remote {
    fn blob(&self, wanted: &Digest) -> Vec<u8> {
        self.blobs.iter().find(|blob| digest(blob) == *wanted).unwrap().clone()
    }

    fn pull(&self, store: &Store) -> (Result<Loaded, PullError>, Vec<PullEvent>) {
        let events = Mutex::new(Vec::new());
        let fetch = |layer: &Descriptor| {
            let blob = self.blob(&layer.digest);
            arrive(store, &blob);
            Cursor::new(blob)
        };
        let pulled = store.pull(self.image.clone(), fetch, &|event| events.lock().unwrap().push(event));
        (pulled, events.into_inner().unwrap())
    }
}

/// Bytes that do not get shorter.
fn noise(length: usize) -> Vec<u8> {
    let next = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    std::iter::successors(Some(1), next).map(|state| (state >> 56) as u8).take(length).collect()
}

fn complete(events: &[PullEvent]) -> usize {
    events.iter().filter(|event| matches!(event, PullEvent::Complete(_))).count()
}

fn exists(events: &[PullEvent]) -> usize {
    events.iter().filter(|event| matches!(event, PullEvent::Exists(_))).count()
}

#[test]
fn privileged_a_pulled_image_has_its_names_its_manifest_and_its_layers() {
    let scratch = Scratch::new();
    let remote = remote(&three());
    let (pulled, events) = remote.pull(&scratch.store);
    assert_eq!((complete(&events), exists(&events)), (3, 0));
    let wanted: Vec<_> = events.iter().take(3).collect();
    assert!(wanted.iter().all(|event| matches!(event, PullEvent::Wanted(_))), "{events:?}");
    let id = pulled.unwrap().id;
    // Again: nothing to fetch, nothing to say.
    let (again, events) = remote.pull(&scratch.store);
    assert_eq!((again.unwrap().id, events), (id.clone(), vec![]));
    let scratch = scratch.reopened();
    let record = scratch.store.get(&id).unwrap();
    assert_eq!(record.repo_tags(), ["h:1/r:1"]);
    assert_eq!(record.repo_digests(), [format!("h:1/r@{}", remote.image.descriptor.digest)]);
    assert_eq!(record.manifest, Some(remote.image.descriptor.clone()));
    assert_eq!(record.layer_blobs.len(), 3);
    let top = scratch.store.snapshots().layer(&record.chain[2]);
    assert_eq!(std::fs::read(top.join("e")).unwrap(), b"2");
    assert_eq!(std::fs::read_dir(scratch.dir.path().join("content/partial")).unwrap().count(), 0);
}

#[test]
fn privileged_the_unpacking_of_a_layer_is_told_ten_times_a_second_and_at_its_end() {
    let scratch = Scratch::new();
    let remote = remote(&[tar(&[("noise".into(), noise(20 * 1024 * 1024))])]);
    let begin = Instant::now();
    let (pulled, events) = remote.pull(&scratch.store);
    pulled.unwrap();
    let told: Vec<(u64, u64)> = events
        .iter()
        .filter_map(|event| match event {
            PullEvent::Extracting { current, total, .. } => Some((*current, *total)),
            _ => None,
        })
        .collect();
    assert!(told.last().is_some_and(|(current, total)| current == total), "{told:?}");
    let most = begin.elapsed().as_millis() / 100 + 2;
    assert!(told.len() as u128 <= most, "{} times", told.len());
}

#[test]
fn privileged_layers_that_are_there_are_not_fetched() {
    let scratch = Scratch::new();
    let mut layers = three();
    remote(&layers[..2]).pull(&scratch.store).0.unwrap();
    layers.push(layer(&[("f", "3")]));
    let (pulled, events) = remote(&layers).pull(&scratch.store);
    pulled.unwrap();
    assert_eq!((exists(&events), complete(&events)), (2, 2));
    // At another place: above another layer.
    let moved = vec![layer(&[("z", "")]), layers[2].clone(), layers[2].clone()];
    let (pulled, events) = remote(&moved).pull(&scratch.store);
    assert_eq!(scratch.store.get(&pulled.unwrap().id).unwrap().chain.len(), 3);
    assert_eq!((exists(&events), complete(&events)), (2, 1));
}

#[test]
fn privileged_a_layer_of_an_archive_serves_an_image_of_a_registry() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &three(), "archive")).unwrap();
    let remote = remote(&three());
    let (pulled, events) = remote.pull(&scratch.store);
    let record = scratch.store.get(&pulled.unwrap().id).unwrap();
    assert_eq!(exists(&events), 3);
    // Its manifest names compressed layers that are not here.
    assert_eq!((record.manifest.clone(), record.repo_digests().len()), (None, 1));
    assert!(matches!(scratch.events(&docker(Some("a:1"), &three(), "archive"))[..], [LoadEvent::Loaded(_)]));
}

#[test]
fn privileged_what_is_wrong_leaves_nothing() {
    let layers = three();
    let bomb = tar(&[("zeros".into(), vec![0; 200 * 1024 * 1024])]);
    let other =
        |config: serde_json::Value| remote_with(layers.iter().map(|l| gzip(l)).collect(), config.to_string().into());
    let ids: Vec<Digest> = layers.iter().map(|layer| digest(layer)).collect();
    let mut broken = gzip(&layers[0]);
    let middle = broken.len() / 2;
    broken[middle] ^= 0xff;
    for (remote, expected) in [
        (remote_with(vec![zstd(&bomb)], config(&[bomb], "")), "it inflates to more than any layer of its size"),
        (remote_with(vec![broken], config(&layers[..1], "")), "failed to register layer"),
        (
            remote_with(vec![gzip(&layers[1])], config(&layers[..1], "")),
            "layers from manifest don't match image configuration",
        ),
        (
            remote_with(vec![gzip(&layers[1])], config(&layers, "")),
            "layers from manifest don't match image configuration",
        ),
        (other(json!({"os": "linux"})), "invalid rootfs in image configuration"),
        (
            other(json!({"os": "windows", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ids}})),
            "image operating system \"windows\" cannot be used on this platform: operating system is not supported",
        ),
    ] {
        let scratch = Scratch::new();
        let err = errdefs::chain(&remote.pull(&scratch.store).0.unwrap_err());
        assert!(err.contains(expected), "{err}");
        assert!(scratch.store.list().is_empty());
        assert!(leftovers(scratch.dir.path()).is_empty(), "{:?}", leftovers(scratch.dir.path()));
    }
}

/// Gives some bytes, then fails.
struct Cut(Cursor<Vec<u8>>);

impl Read for Cut {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("cut")),
            count => Ok(count),
        }
    }
}

#[test]
fn privileged_a_layer_that_does_not_come_ends_the_pull_and_other_bytes_are_noticed() {
    let scratch = Scratch::new();
    let remote = remote(&three());
    let cut = |layer: &Descriptor| Cut(Cursor::new(remote.blob(&layer.digest)[..20].to_vec()));
    let err = scratch.store.pull(remote.image.clone(), cut, &|_| {}).unwrap_err();
    assert!(errdefs::chain(&err).ends_with("cut"), "{err:?}");
    // The right tar in another compression than the one that was promised.
    let layers = three();
    let again = |layer: &Descriptor| {
        let index = remote.image.manifest.layers.iter().position(|other| other == layer).unwrap();
        Cursor::new(zstd(&layers[index]))
    };
    let err = scratch.store.pull(remote.image.clone(), again, &|_| {}).unwrap_err();
    assert!(matches!(err, PullError::Layer { .. }), "{err:?}");
    assert!(leftovers(scratch.dir.path()).is_empty());
}

/// Waits until the other end is dropped, and gives its bytes one at a time then.
struct Last(Cursor<Vec<u8>>, mpsc::Receiver<()>);

impl Read for Last {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // An error, as there is nobody who sends.
        let _ = self.1.recv();
        thread::yield_now();
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}

/// Bytes, and what is dropped with them.
struct First(Cursor<Vec<u8>>, #[expect(dead_code, reason = "its end is what counts")] mpsc::Sender<()>);

impl Read for First {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

#[test]
fn privileged_the_failure_that_is_told_is_the_first_not_that_of_the_layers_that_it_ended() {
    let scratch = Scratch::new();
    let blobs = vec![gzip(&tar(&[("noise".into(), noise(100_000))])), gzip(&layer(&[("a", "1")]))[..20].to_vec()];
    let remote = remote_with(blobs, config(&three()[..2], ""));
    let (dropped, alone) = mpsc::channel();
    let mut ends = (Some(dropped), Some(alone));
    let fetch = |layer: &Descriptor| -> Box<dyn Read + Send> {
        let bytes = Cursor::new(remote.blob(&layer.digest));
        match layer.digest == remote.image.manifest.layers[0].digest {
            true => Box::new(Last(bytes, ends.1.take().unwrap())),
            false => Box::new(First(bytes, ends.0.take().unwrap())),
        }
    };
    let err = scratch.store.pull(remote.image.clone(), fetch, &|_| {}).unwrap_err();
    let text = errdefs::chain(&err);
    assert!(text.starts_with("failed to register layer: ") && !text.contains("another layer"), "{text}");
}

/// Never comes: fails when so many others have told that they are whole.
struct Late(mpsc::Receiver<()>, usize);

impl Read for Late {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        for _ in 0..self.1 {
            self.0.recv().unwrap();
        }
        Err(io::Error::other("cut"))
    }
}

/// Pulls until all layers but the last are unpacked, and is cut then.
fn cut_pull(scratch: &Scratch, remote: &Remote) -> PullError {
    let (whole, others) = mpsc::channel();
    let (whole, mut others) = (Mutex::new(whole), Some(others));
    let (last, before) = remote.blobs.split_last().unwrap();
    let fetch = |layer: &Descriptor| -> Box<dyn Read + Send> {
        if layer.digest == digest(last) {
            return Box::new(Late(others.take().unwrap(), before.len()));
        }
        let blob = remote.blob(&layer.digest);
        arrive(&scratch.store, &blob);
        Box::new(Cursor::new(blob))
    };
    let tell = |event| {
        if let PullEvent::Complete(_) = event {
            whole.lock().unwrap().send(()).unwrap();
        }
    };
    scratch.store.pull(remote.image.clone(), fetch, &tell).unwrap_err()
}

/// Which layers were unpacked, each once: several are at the same time, and tell of it in turns.
fn unpacked(events: &[PullEvent]) -> BTreeSet<&Digest> {
    events
        .iter()
        .filter_map(|event| match event {
            PullEvent::Extracting { layer, .. } => Some(layer),
            _ => None,
        })
        .collect()
}

#[test]
fn privileged_layers_of_a_cut_pull_are_not_unpacked_again() {
    let scratch = Scratch::new();
    let remote = remote(&three());
    let err = cut_pull(&scratch, &remote);
    assert!(errdefs::chain(&err).ends_with("cut"), "{err:?}");
    let recipes = image::cut_bytes(&scratch.store) - 2;
    assert!(recipes > 0, "of two files, in the first layer, and of the recipes of both");
    let blobs: Vec<Digest> = remote.blobs.iter().map(|blob| digest(blob)).collect();
    let (pulled, events) = remote.pull(&scratch.store);
    assert_eq!((unpacked(&events), complete(&events)), (BTreeSet::from([&blobs[2]]), 3));
    assert_eq!(image::cut_bytes(&scratch.store), 0);
    let record = scratch.store.get(&pulled.unwrap().id).unwrap();
    assert_eq!(record.layer_blobs, blobs, "what it came in is kept as ever");
    let roots: Vec<_> = record.chain.iter().map(|layer| scratch.store.snapshots().layer(layer)).collect();
    assert_eq!(names(&roots[0].join("d")).len(), 1);
    // Its recipes are its own: the tars come back.
    let held = image::hold(&scratch.store, &record.id).unwrap();
    for (index, tar) in three().iter().enumerate() {
        let mut again = Vec::new();
        held.layer_tar(index, &mut again).unwrap();
        assert_eq!(&again, tar);
    }
    drop(held);
    scratch.store.remove("h:1/r:1", image::RemoveOptions { force: false, prune_parents: true }, &[]).unwrap();
    assert!(leftovers(scratch.dir.path()).is_empty());
}

#[test]
fn privileged_a_layer_of_a_cut_pull_waits_until_its_blob_is_read_to_its_end() {
    let scratch = Scratch::new();
    let remote = remote(&three()[..2]);
    cut_pull(&scratch, &remote);
    let bytes = image::cut_bytes(&scratch.store);
    assert!(bytes > 2, "of two files and a recipe");
    let cut = |layer: &Descriptor| Cut(Cursor::new(remote.blob(&layer.digest)[..20].to_vec()));
    for _ in 0..2 {
        let err = scratch.store.pull(remote.image.clone(), cut, &|_| {}).unwrap_err();
        assert!(errdefs::chain(&err).ends_with("cut"), "{err:?}");
        assert_eq!(image::cut_bytes(&scratch.store), bytes);
    }
    assert_eq!(unpacked(&remote.pull(&scratch.store).1), BTreeSet::from([&digest(&remote.blobs[1])]));
}

#[test]
fn privileged_layers_of_a_cut_pull_go_when_nobody_wants_them() {
    let scratch = Scratch::new();
    let remote = remote(&three());
    cut_pull(&scratch, &remote);
    let first = digest(&remote.blobs[0]);
    assert_eq!(image::discard_cut(&scratch.store, |_, age| age > image::CUT_KEPT), 0);
    let bytes = image::cut_bytes(&scratch.store);
    let gone = image::discard_cut(&scratch.store, |blob, _| *blob == first);
    assert!(gone > 2, "a file and a recipe");
    assert_eq!(image::cut_bytes(&scratch.store), bytes - gone);
    assert_eq!(leftovers(scratch.dir.path()).len(), 2, "the other one's directory and recipe");
    image::discard_cut(&scratch.store, |_, _| true);
    assert!(leftovers(scratch.dir.path()).is_empty());
    // Those of a dead process are nobody's.
    cut_pull(&scratch, &remote);
    let scratch = scratch.reopened();
    assert!(leftovers(scratch.dir.path()).is_empty());
    assert_eq!(unpacked(&remote.pull(&scratch.store).1).len(), 3);
}

#[test]
fn privileged_a_layer_that_is_made_to_fill_the_disk_does_not_wait() {
    let scratch = Scratch::new();
    let bomb = layer(&[("zeros", &"0".repeat(5_000_000))]);
    cut_pull(&scratch, &remote(&[bomb, layer(&[("a", "1")])]));
    assert_eq!(image::cut_bytes(&scratch.store), 0);
    assert!(leftovers(scratch.dir.path()).is_empty());
}

/// A few letters of a tar make many directories, which no length of a file tells.
#[test]
fn privileged_a_layer_of_directories_alone_does_not_wait() {
    let scratch = Scratch::new();
    let deep = |number: usize| (format!("{number}/{}file", "a/".repeat(60)), Vec::new());
    let bomb = tar(&(0..40).map(deep).collect::<Vec<_>>());
    assert!(bomb.len() < 1024 * 1024, "{}", bomb.len());
    cut_pull(&scratch, &remote(&[bomb, layer(&[("a", "1")])]));
    assert!(leftovers(scratch.dir.path()).is_empty());
}

#[test]
fn privileged_a_blob_that_another_image_has_recorded_meanwhile_is_this_ones_too() {
    let scratch = Scratch::new();
    let shared = layer(&[("shared", "1")]);
    let (one, two) = (remote(&[layer(&[("one", "1")]), shared.clone()]), remote(&[layer(&[("two", "2")]), shared]));
    let first = Mutex::new(None);
    let fetch = |wanted: &Descriptor| {
        let blob = two.blob(&wanted.digest);
        arrive(&scratch.store, &blob);
        let one = &one;
        let (first, scratch) = (&first, &scratch);
        // Whoever reads the last byte finds that the other image has been recorded.
        BeforeEnd {
            blob: Cursor::new(blob),
            before_end: Some(move || {
                first.lock().unwrap().get_or_insert_with(|| one.pull(&scratch.store).0.unwrap());
            }),
        }
    };
    let pulled = scratch.store.pull(two.image.clone(), fetch, &|_| {}).unwrap();
    for (remote, id) in [(&one, &first.lock().unwrap().as_ref().unwrap().id), (&two, &pulled.id)] {
        let record = scratch.store.get(id).unwrap();
        assert_eq!(record.manifest, Some(remote.image.descriptor.clone()));
        assert_eq!(record.layer_blobs, remote.blobs.iter().map(|blob| digest(blob)).collect::<Vec<_>>());
    }
}

/// A blob whose end comes after something else has been done.
struct BeforeEnd<F> {
    blob: Cursor<Vec<u8>>,
    before_end: Option<F>,
}

impl<F: FnOnce()> Read for BeforeEnd<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read(buffer)?;
        if count == 0
            && let Some(before) = self.before_end.take()
        {
            before();
        }
        Ok(count)
    }
}

const ROOT: &str = "LONGSHORE_TEST_PULL_INTO";

fn big() -> Remote {
    let text = "x".repeat(2_000_000);
    remote(&[layer(&[("a", &text)]), layer(&[("b", &text)]), layer(&[("c", "2")])])
}

/// The process that is killed: not a test by itself.
#[test]
fn child_pulls() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let store = Store::open(root.as_ref()).unwrap();
    println!("open");
    big().pull(&store).0.unwrap();
}

#[test]
fn privileged_a_pull_killed_at_any_moment_is_whole_or_absent() {
    for step in 0..20u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "pull::child_pulls", "--test-threads=1", "--nocapture"])
            .env(ROOT, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = io::BufRead::lines(io::BufReader::new(child.stdout.take().unwrap()));
        assert!(lines.any(|line| line.unwrap().ends_with("open")));
        // Not a wait for anything: the moments of death must be spread over the whole pull.
        let end = Instant::now() + Duration::from_micros(step * step * 200);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.torn().is_empty(), "{:?}", store.torn());
        store.sweep().unwrap();
        if store.list().is_empty() {
            assert!(leftovers(dir.path()).is_empty(), "{:?}", leftovers(dir.path()));
        } else {
            let record = store.resolve("h:1/r:1").unwrap();
            assert_eq!(std::fs::read(store.snapshots().layer(&record.chain[2]).join("c")).unwrap(), b"2");
        }
        // Whatever was left serves the next attempt.
        assert_eq!(big().pull(&store).0.unwrap().references.len(), 2);
    }
}
