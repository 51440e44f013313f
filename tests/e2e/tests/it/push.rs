//! Images to registries: Debian's own, and one in memory that says what came.

use std::sync::Arc;

use testkit::images::plan::Entry;
use testkit::images::write::{self, Compression};
use testkit::registry::{Answer, Debian, Received, Served, Server, digest};
use testkit::{Cli, Events, images};

use crate::support::{At, on_both, ours};

/// busybox as a registry has it, but one of this test's own: no daemon has its layer.
fn busybox(compression: Compression) -> Served {
    let mut image = images::busybox().unwrap();
    image.layers[0].push(Entry::file("pushed", std::thread::current().name().unwrap()));
    Served::of_layout(&write::oci_layout(&image, compression).unwrap()).unwrap()
}

/// The digits of the only layer's tar, as clients are told of it.
fn layer_id(served: &Served) -> String {
    let config = served.blobs.values().find(|blob| blob.starts_with(b"{\"architecture")).expect("a configuration");
    let config: serde_json::Value = serde_json::from_slice(config).unwrap();
    config["rootfs"]["diff_ids"][0].as_str().unwrap()[7..19].to_owned()
}

/// A registry in memory, and what it has.
fn in_memory() -> (Server, Arc<Received>) {
    let received = Arc::new(Received::default());
    let state = received.clone();
    (Server::start(move |request| state.answer(request)), received)
}

/// Without the progress of the bytes.
fn lines(told: &str) -> Vec<&str> {
    told.lines().filter(|line| !line.contains("Waiting")).collect()
}

#[test]
fn privileged_what_is_pulled_is_pushed_mounted_and_found_again() {
    let registry = Debian::start().unwrap();
    let served = busybox(Compression::Gzip);
    registry.push(&served, "from").unwrap();
    let layer = layer_id(&served);
    on_both(|at| {
        let host = registry.host();
        let path = at.image("to");
        let (from, to) = (format!("{host}/from:1"), format!("{host}/{path}"));
        at.ok(&format!("pull -q {from}"));
        at.ok(&format!("tag {from} {to}"));
        let told = at.ok(&format!("push {to}"));
        let told = lines(&told);
        let head = format!("The push refers to repository [{to}]");
        assert_eq!(told[..3], ["Using default tag: latest", &head, &format!("{layer}: Preparing")], "{told:?}");
        assert_eq!(told[3], format!("{layer}: Mounted from from"));
        let digested = at.inspect(&to, "{{join .RepoDigests \" \"}}");
        let manifest = digested.split(' ').find_map(|name| name.strip_prefix(&format!("{to}@"))).expect("its new name");
        let last = format!("latest: digest: {manifest} size: ");
        assert!(told.len() == 5 && told[4].starts_with(&last), "{told:?}");
        if !at.daemon.is_foreign() {
            assert_eq!(manifest, digest(&served.manifest), "the digest on push is the digest on pull");
        }
        let again = at.ok(&format!("push {to}:latest"));
        assert_eq!(
            lines(&again)[..3],
            [&head, &format!("{layer}: Preparing"), &format!("{layer}: Layer already exists")]
        );
        assert_eq!(at.ok(&format!("image push -q {to}:latest")), format!("{to}:latest"));
        at.ok(&format!("rmi {from} {to}:latest"));
        at.ok(&format!("pull -q {to}@{manifest}"));
        assert_eq!(at.run(&format!("{to}@{manifest} cat /pushed")), std::thread::current().name().unwrap());
        at.ok(&format!("rmi {to}@{manifest}"));
    });
}

#[test]
fn privileged_every_tag_is_pushed_and_told_as_an_event() {
    let source = Debian::start().unwrap();
    let served = busybox(Compression::Gzip);
    source.push(&served, "from").unwrap();
    on_both(|at| {
        let (server, received) = in_memory();
        let (from, to) = (format!("{}/from:1", source.host()), format!("{}/to", server.host()));
        at.ok(&format!("pull -q {from}"));
        for tag in ["a", "b"] {
            at.ok(&format!("tag {from} {to}:{tag}"));
        }
        let mut events = Events::subscribe_to(at.daemon.socket(), "image", &to).unwrap();
        let told = at.ok(&format!("push -a {to}"));
        let sentences: Vec<_> = lines(&told).into_iter().map(|line| line.split(" sha256:").next().unwrap()).collect();
        let layer = layer_id(&served);
        let of_layer = |word: &str| format!("{layer}: {word}");
        let expected = [
            format!("The push refers to repository [{to}]"),
            of_layer("Preparing"),
            of_layer("Pushed"),
            "a: digest:".to_owned(),
            of_layer("Preparing"),
            of_layer("Layer already exists"),
            "b: digest:".to_owned(),
        ];
        assert_eq!(sentences, expected, "{told}");
        let there = received.repository("to");
        let manifest = &there.manifests["a"];
        assert_eq!((manifest, there.manifests.len(), there.blobs.len()), (&there.manifests["b"], 3, 2));
        let event = events.until("push").unwrap();
        assert_eq!((&event["id"], &event["Actor"]["Attributes"]["name"]), (&to.clone().into(), &to.clone().into()));
        at.ok(&format!("rmi {from} {to}:a {to}:b"));
    });
}

#[test]
fn privileged_pushes_that_cannot_be_are_refused_in_dockers_words() {
    on_both(|at| {
        let (server, _) = in_memory();
        let name = format!("{}/x", server.host());
        at.fails(&format!("push {name}"), 1, &format!("An image does not exist locally with the tag: {name}"));
        at.ok(&format!("tag busybox {name}:1"));
        at.fails(&format!("push {name}:2"), 1, &format!("tag does not exist: {name}:2"));
        at.fails(&format!("push -a {name}:1"), 1, "tag can't be used with --all-tags/-a");
        let digest = format!("sha256:{:064}", 1);
        at.fails(&format!("push {name}@{digest}"), 1, "cannot push a digest reference");
        at.fails(
            &format!("push --platform linux/arm64 {name}:1"),
            1,
            "does not match the specified platform (linux/arm64)",
        );
        at.fails(&format!("push --platform a/b/c/d {name}:1"), 1, "cannot parse platform specifier: invalid argument");
        at.ok("tag busybox 127.0.0.1:1/x:1");
        at.fails("push 127.0.0.1:1/x:1", 1, "dial tcp 127.0.0.1:1: connect: connection refused");
        at.ok(&format!("rmi {name}:1 127.0.0.1:1/x:1"));
    });
}

#[test]
fn privileged_a_registry_that_wants_a_login_says_so_and_gets_nothing() {
    let source = Debian::start().unwrap();
    source.push(&busybox(Compression::Gzip), "from").unwrap();
    on_both(|at| {
        let server = Server::start(|_| Answer::new(401, "{}").with("WWW-Authenticate", "Basic realm=\"r\""));
        let (from, to) = (format!("{}/from:1", source.host()), format!("{}/to:1", server.host()));
        at.ok(&format!("pull -q {from}"));
        at.ok(&format!("tag {from} {to}"));
        at.fails(&format!("push {to}"), 1, "no basic auth credentials");
        at.ok(&format!("rmi {from} {to}"));
    });
}

#[test]
fn privileged_an_image_of_any_compression_goes_as_it_came() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let source = Debian::start().unwrap();
        for compression in [Compression::Gzip, Compression::Zstd] {
            let served = busybox(compression);
            source.push(&served, "from").unwrap();
            let (server, received) = in_memory();
            let (from, to) = (format!("{}/from:1", source.host()), format!("{}/to:1", server.host()));
            at.ok(&format!("pull -q {from}"));
            at.ok(&format!("tag {from} {to}"));
            at.ok(&format!("push -q {to}"));
            let there = received.repository("to");
            assert_eq!(there.manifests["1"].1, served.manifest);
            assert_eq!(there.blobs.len(), 2);
            at.ok(&format!("rmi {from} {to}"));
        }
    });
}

#[test]
fn privileged_layers_without_a_compressed_form_are_compressed_once() {
    on_both(|at| {
        let (server, received) = in_memory();
        let (to, container) = (format!("{}/to", server.host()), at.name("made"));
        at.ok(&format!("run --name {container} --network none busybox sh -c 'echo made > /made'"));
        at.ok(&format!("commit {container} {to}:1"));
        at.remove(&container);
        let ends = |told: &str, word: &str| told.lines().filter(|line| line.ends_with(word)).count();
        let told = at.ok(&format!("push {to}:1"));
        assert_eq!(ends(&told, ": Pushed"), 2, "{told}");
        at.ok(&format!("tag {to}:1 {to}:2"));
        let again = at.ok(&format!("push {to}:2"));
        assert_eq!(ends(&again, ": Layer already exists"), 2, "{again}");
        let there = received.repository("to");
        assert_eq!(there.manifests["1"], there.manifests["2"], "the same image, the same manifest");
        assert_eq!(there.manifests["1"].0, "application/vnd.docker.distribution.manifest.v2+json");
        at.ok(&format!("rmi {to}:1 {to}:2"));
        // Whoever pulls compares every layer with what the image says of it.
        at.ok(&format!("pull -q {to}:1"));
        assert_eq!(at.run(&format!("{to}:1 cat /made")), "made");
        at.ok(&format!("rmi {to}:1"));
    });
}
