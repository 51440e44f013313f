//! Images from registries: Debian's own, and one that makes trouble on purpose.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use testkit::images::plan::Entry;
use testkit::images::write::{self, Compression};
use testkit::registry::{Answer, Debian, Request, Served, Server, digest};
use testkit::{Cli, Daemon, Events, images};

use crate::support::{At, on_both, ours};

/// busybox as a registry has it, but one of this test's own: no daemon has its layer.
fn busybox() -> Served {
    served(Compression::Gzip)
}

fn served(compression: Compression) -> Served {
    let mut image = images::busybox().unwrap();
    image.layers[0].push(Entry::file("pulled", std::thread::current().name().unwrap()));
    let mut served = Served::of_layout(&write::oci_layout(&image, compression).unwrap()).unwrap();
    served.manifests.insert("latest".to_owned(), served.manifest.clone());
    served
}

/// An image that cannot run here.
fn of_arm64() -> Served {
    let Served { layers, blobs, .. } = Served::new(&[9]);
    let config = blobs.into_values().find(|blob| blob.starts_with(b"{")).unwrap();
    let config = String::from_utf8(config).unwrap().replace("amd64", "arm64");
    Served::of(layers, config.as_bytes())
}

/// Runs `test` with each command line and a registry that has `busybox`.
fn with_registry(test: impl Fn(&At<'_>, &Debian)) {
    let registry = Debian::start().unwrap();
    registry.push(&busybox(), "busybox").unwrap();
    on_both(|at| test(at, &registry));
}

/// What a pull of one layer says, in lines, but for one that dockerd leaves out at times.
fn said(tag: &str, layer: &[u8], manifest: &[u8], name: &str) -> String {
    let layer = &digest(layer)[7..19];
    let (path, manifest) = (name.rsplit('/').next().unwrap(), digest(manifest));
    let path = path.split(':').next().unwrap();
    format!(
        "{tag}: Pulling from {path}\n{layer}: Pulling fs layer\n{layer}: Download complete\n\
         {layer}: Pull complete\nDigest: {manifest}\nStatus: Downloaded newer image for {name}\n{name}"
    )
}

fn without_verifying(told: &str) -> String {
    let lines = told.split_inclusive('\n').filter(|line| !line.ends_with(": Verifying Checksum\n"));
    lines.collect()
}

#[test]
fn privileged_an_image_is_pulled_told_and_known_by_its_digest() {
    with_registry(|at, registry| {
        let name = format!("{}/busybox", registry.host());
        let (served, latest) = (busybox(), format!("{name}:latest"));
        let manifest = digest(&served.manifest);
        let told = said("latest", &served.layers[0], &served.manifest, &latest);
        let pulled = without_verifying(&at.ok(&format!("pull {name}")));
        assert_eq!(pulled, format!("Using default tag: latest\n{told}"));
        let again = format!("Digest: {manifest}\nStatus: Image is up to date for {latest}\n{latest}");
        assert_eq!(at.ok(&format!("pull {latest}")), format!("latest: Pulling from busybox\n{again}"));
        assert_eq!(at.ok(&format!("image pull -q {latest}")), latest);
        assert_eq!(at.run(&format!("{name} echo hi")), "hi");
        let digests = at.inspect(&name, "{{json .RepoDigests}} {{json .RepoTags}}");
        assert_eq!(digests, format!("[\"{name}@{manifest}\"] [\"{latest}\"]"));
        let listed = at.ok(&format!("images --digests --format '{{{{.Tag}}}} {{{{.Digest}}}}' {name}"));
        assert_eq!(listed, format!("latest {manifest}"));
        assert_eq!(at.ok(&format!("rmi {name}")).lines().count(), 4, "tag, digest, image and layer");

        let by_digest = at.ok(&format!("pull {name}@{manifest}"));
        assert!(by_digest.starts_with(&format!("{name}@{manifest}: Pulling from busybox\n")), "{by_digest}");
        assert!(by_digest.ends_with(&format!("image for {name}@{manifest}\n{name}@{manifest}")), "{by_digest}");
        assert_eq!(at.run(&format!("{name}@{manifest} echo hi")), "hi");
        at.ok(&format!("rmi {name}@{manifest}"));
    });
}

#[test]
fn privileged_manifests_and_layers_of_every_kind_are_pulled() {
    let registry = Debian::start().unwrap();
    registry.push(&busybox().schema_2(), "schema2").unwrap();
    registry.push(&served(Compression::Zstd), "zstd").unwrap();
    registry.push(&Served::index(&[("amd64", &busybox()), ("arm64", &Served::new(&[9]))]), "index").unwrap();
    on_both(|at| {
        for repository in ["schema2", "zstd", "index"] {
            let name = format!("{}/{repository}:1", registry.host());
            if repository == "zstd" && at.daemon.is_foreign() {
                continue;
            }
            at.ok(&format!("pull -q {name}"));
            assert_eq!(at.run(&format!("{name} echo hi")), "hi");
            at.ok(&format!("rmi {name}"));
        }
    });
}

#[test]
fn privileged_every_tag_is_pulled() {
    with_registry(|at, registry| {
        let name = format!("{}/busybox", registry.host());
        let told = at.ok(&format!("pull -a {name}"));
        assert!(told.ends_with(&format!("Status: Downloaded newer image for {name}\n{name}")), "{told}");
        let mut tags: Vec<_> = ["1", "latest"].map(|tag| format!("{name}:{tag}")).into();
        assert!(tags.iter().all(|tag| told.contains(&format!("{}: Pulling from", &tag[name.len() + 1..]))), "{told}");
        let listed = at.inspect(&format!("{name}:1"), "{{join .RepoTags \" \"}}");
        let mut listed: Vec<_> = listed.split(' ').filter(|tag| tag.starts_with(&name)).collect();
        listed.sort_unstable();
        tags.sort_unstable();
        assert_eq!(listed, tags);
        at.fails(&format!("pull -a {name}:1"), 1, "tag can't be used with --all-tags/-a");
        at.ok(&format!("rmi {name}:1 {name}:latest"));
    });
}

#[test]
fn privileged_run_and_create_pull_as_they_are_told() {
    with_registry(|at, registry| {
        let name = format!("{}/busybox:1", registry.host());
        let served = busybox();
        let line = format!("run --rm --network none {name} echo hi");
        let missing = at.line(&line);
        let told = said("1", &served.layers[0], &served.manifest, &name);
        let told = told.strip_suffix(&format!("\n{name}")).unwrap();
        let expected = (0, "hi\n", format!("Unable to find image '{name}' locally\n{told}\n"));
        assert_eq!((missing.code, &missing.stdout[..], without_verifying(&missing.stderr)), expected);
        let present = at.line(&line);
        assert_eq!((&present.stdout[..], &present.stderr[..]), ("hi\n", ""), "what is there is not asked for");
        let always = at.line(&format!("run --rm --network none --pull always {name} echo hi"));
        assert_eq!(always.stdout, "hi\n");
        assert!(always.stderr.ends_with(&format!("Status: Image is up to date for {name}\n")), "{}", always.stderr);
        at.ok(&format!("rmi {name}"));

        at.fails(&line.replace("--rm", "--rm --pull never"), 125, &format!("No such image: {name}"));
        at.fails(&line.replace("--rm", "--pull sometimes"), 125, "invalid pull option: 'sometimes': must be one of");
        let quiet = at.line(&line.replace("--rm", "--rm -q"));
        assert_eq!((&quiet.stdout[..], &quiet.stderr[..]), ("hi\n", ""));
        at.ok(&format!("rmi {name}"));
        let container = at.name("made");
        let created = at.ok(&format!("create --network none --name {container} {name} true"));
        assert_eq!(created.len(), 64);
        at.ok(&format!("rm {container}"));
        at.ok(&format!("rmi {name}"));
    });
}

#[test]
fn privileged_platforms_are_chosen_and_missed() {
    let registry = Debian::start().unwrap();
    registry.push(&Served::index(&[("amd64", &busybox()), ("arm64", &of_arm64())]), "two").unwrap();
    registry.push(&Served::index(&[("s390x", &busybox())]), "other").unwrap();
    registry.push(&busybox(), "plain").unwrap();
    registry.push(&Served::new(&[11]), "strange").unwrap();
    on_both(|at| {
        let name = |path: &str| format!("{}/{path}:1", registry.host());
        at.ok(&format!("pull -q --platform linux/arm64 {}", name("two")));
        assert_eq!(at.inspect(&name("two"), "{{len .RootFS.Layers}} {{json .Config.Cmd}}"), "1 [\"x\"]");
        at.ok(&format!("rmi {}", name("two")));
        // What is there is for another platform than the one that is wanted.
        at.ok(&format!("pull -q --platform linux/amd64 {}", name("two")));
        let made = at.name("other-platform");
        let created = at.line(&format!("create --platform linux/arm64 --name {made} {}", name("two")));
        assert_eq!(created.code, 0, "{created:?}");
        assert!(
            created.stderr.starts_with(&format!("Unable to find image '{}' locally\n", name("two"))),
            "{created:?}"
        );
        assert_eq!(at.inspect(&made, "{{json .Config.Cmd}}"), "[\"x\"]");
        at.ok(&format!("rm {made}"));
        at.ok(&format!("rmi {}", name("two")));
        let absent = "no matching manifest for linux/amd64 in the manifest list entries";
        at.fails(&format!("pull {}", name("other")), 1, absent);
        let system = "operating system is not supported";
        at.fails(&format!("pull --platform windows/amd64 {}", name("strange")), 1, system);
        // What says nothing of platforms is pulled for what it is.
        for platform in ["linux/arm", "linux/arm/v7"] {
            let said = at.ok(&format!("pull --platform {platform} {}", name("plain")));
            let warning = format!(
                "WARNING: image with reference {} was found but its platform (linux/amd64) does not match the specified \
                 platform ({platform})",
                name("plain")
            );
            assert!(said.contains(&warning), "{said}");
        }
        at.ok(&format!("rmi {}", name("plain")));
        let wrong = "\"a/b/c/d\": cannot parse platform specifier: invalid argument";
        at.fails(&format!("pull --platform a/b/c/d {}", name("two")), 1, wrong);
    });
}

#[test]
fn privileged_what_cannot_be_pulled_is_told_in_dockers_words() {
    with_registry(|at, registry| {
        let host = registry.host();
        let unknown = "not found: manifest unknown: manifest unknown";
        for (line, code, sentence) in [
            (format!("pull {host}/busybox:none"), 1, format!("manifest for {host}/busybox:none {unknown}")),
            (format!("pull {host}/none"), 1, format!("manifest for {host}/none:latest {unknown}")),
            (format!("run {host}/none"), 125, format!("manifest for {host}/none:latest {unknown}")),
            (
                "pull A".to_owned(),
                1,
                "invalid reference format: repository name (library/A) must be lowercase".to_owned(),
            ),
            ("pull a:b:c".to_owned(), 1, "invalid reference format".to_owned()),
            ("pull scratch".to_owned(), 1, "'scratch' is a reserved name".to_owned()),
            // Nobody listens there.
            ("pull 127.0.0.1:1/a".to_owned(), 1, "dial tcp 127.0.0.1:1: connect: connection refused".to_owned()),
        ] {
            at.fails(&line, code, &sentence);
        }
    });
}

#[test]
fn privileged_a_registry_is_asked_what_a_name_means() {
    let (served, arm64) = (busybox(), of_arm64());
    let index = Served::index(&[("amd64", &served), ("arm64", &arm64)]);
    let (image, list) = (Server::start(move |request| served.answer(request)), Server::start(move |r| index.answer(r)));
    ours(|daemon| {
        let ask = |host: &str, name: &str| daemon.get(&format!("/v1.51/distribution/{host}/{name}/json")).unwrap();
        let answer = ask(&image.host(), "busybox");
        assert_eq!(answer.status, 200);
        let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(told["Platforms"], serde_json::json!([{"architecture": "amd64", "os": "linux"}]));
        let size = told["Descriptor"]["size"].as_u64().unwrap();
        assert!(told["Descriptor"]["digest"].as_str().unwrap().starts_with("sha256:") && size > 100, "{told}");
        let told: serde_json::Value = serde_json::from_slice(&ask(&list.host(), "busybox:1").body).unwrap();
        let platforms = told["Platforms"].as_array().unwrap();
        assert_eq!(
            platforms.iter().map(|one| one["architecture"].as_str().unwrap()).collect::<Vec<_>>(),
            ["amd64", "arm64"]
        );
        for (host, name, status, message) in [
            (image.host(), "busybox:none", 404, "manifest unknown: manifest unknown"),
            (
                "127.0.0.1:1".to_owned(),
                "a",
                500,
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            ),
            (image.host(), "A", 400, "invalid reference format: repository name (A) must be lowercase"),
        ] {
            let answer = ask(&host, name);
            let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!((answer.status, told["message"].as_str().unwrap()), (status, message));
        }
    });
}

/// Serves it to those who say who they are.
fn to_user(served: &Served, request: &Request) -> Answer {
    if request.header("authorization") == Some("Basic dXNlcjpzZWNyZXQ=") {
        return served.answer(request);
    }
    Answer::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#)
        .with("WWW-Authenticate", "Basic realm=\"here\"")
}

#[test]
fn privileged_credentials_of_the_users_configuration_are_shown() {
    let served = busybox();
    let server = Server::start(move |request| to_user(&served, request));
    on_both(|at| {
        let name = format!("{}/busybox:1", server.host());
        let config = at.daemon.scratch().home().join(".docker");
        fs::create_dir_all(&config).unwrap();
        for (auth, works) in [("dXNlcjpzZWNyZXQ=", true), ("dXNlcjpvdGhlcg==", false)] {
            let text = format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{auth}\"}}}}}}", server.host());
            fs::write(config.join("config.json"), text).unwrap();
            match works {
                true => {
                    at.ok(&format!("pull -q {name}"));
                    at.ok(&format!("rmi {name}"));
                    assert_eq!(at.run(&format!("{name} echo hi")), "hi");
                    at.ok(&format!("rmi {name}"));
                }
                // Docker's command line asks for another name then, and waits for ever.
                false if at.cli == Cli::Docker => {}
                false => at.fails(&format!("pull {name}"), 1, "unauthorized: who are you"),
            }
        }
        fs::remove_file(config.join("config.json")).unwrap();
        at.fails(&format!("pull {name}"), 1, "no basic auth credentials");
    });
}

#[test]
fn privileged_a_pull_is_an_event() {
    with_registry(|at, registry| {
        let name = format!("{}/busybox:1", registry.host());
        let mut events = Events::subscribe(at.daemon.socket(), &name).unwrap();
        at.ok(&format!("pull -q {name}"));
        let event = events.until("pull").unwrap();
        let path = name.strip_suffix(":1").unwrap();
        let told = (&event["Type"], &event["Actor"]["ID"], &event["Actor"]["Attributes"]["name"]);
        assert_eq!(told, (&"image".into(), &name[..].into(), &path.into()), "{event}");
        at.ok(&format!("rmi {name}"));
    });
}

#[test]
fn privileged_pulls_at_the_same_time_fetch_a_layer_once() {
    const CLIENTS: usize = 4;
    on_both(|at| {
        let served = Served::new(&[4_000_000, 300_000, 10]);
        let layers = served.layers.clone();
        let gate = Arc::new(RwLock::new(()));
        let closed = gate.clone();
        let server = Server::start(move |request| {
            if served.is_layer(request) {
                drop(closed.read());
            }
            served.answer(request)
        });
        let layers_wait = gate.write().unwrap();
        let name = format!("{}/r:1", server.host());
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| at.spawn(&format!("pull {name}"))).collect();
        for client in &mut clients {
            client.read_until("Pulling fs layer").unwrap();
        }
        drop(layers_wait);
        for client in clients {
            let output = client.wait().unwrap();
            assert_eq!(output.code, 0, "{}", output.stderr);
            assert_eq!(output.stdout.matches("Pull complete").count(), layers.len(), "{}", output.stdout);
        }
        for layer in &layers {
            let asked = server.requests(&digest(layer)).len();
            assert_eq!(asked, 1);
        }
        at.ok(&format!("rmi {name}"));
    });
}

#[test]
fn privileged_a_pull_that_shares_nine_of_ten_layers_fetches_the_tenth() {
    on_both(|at| {
        let lengths: Vec<usize> = (0..9).map(|number| 20_000 + number).collect();
        let (first, second) =
            (Served::new(&[&lengths[..], &[30_000]].concat()), Served::new(&[&lengths[..], &[40_000]].concat()));
        assert_eq!(first.layers[..9], second.layers[..9]);
        assert_ne!(first.layers[9], second.layers[9]);
        let (one, two) = (first.clone(), second.clone());
        let server =
            Server::start(
                move |request| if request.path.contains("/two/") { two.answer(request) } else { one.answer(request) },
            );
        let names = ["one", "two"].map(|path| format!("{}/{path}:1", server.host()));
        at.ok(&format!("pull {}", names[0]));
        let told = at.ok(&format!("pull {}", names[1]));
        assert_eq!(
            (told.matches(": Already exists").count(), told.matches(": Pull complete").count()),
            (9, 1),
            "{told}"
        );
        for layer in &second.layers {
            assert_eq!(server.requests(&digest(layer)).len(), 1);
        }
        at.ok(&format!("rmi {} {}", names[0], names[1]));
    });
}

#[test]
fn privileged_an_interrupted_pull_ends_with_130_and_leaves_no_image() {
    on_both(|at| {
        let served = Served::new(&[100_000]);
        let server = Server::start(move |request| match served.is_layer(request) {
            true => Answer { length: Some(served.layers[0].len() as u64), hang: true, ..Answer::new(200, "") },
            false => served.answer(request),
        });
        let mut pulling = at.spawn(&format!("pull {}/r:1", server.host()));
        pulling.read_until("Pulling fs layer").unwrap();
        pulling.signal(rustix::process::Signal::INT).unwrap();
        let code = pulling.wait().unwrap().code;
        // Docker's client ends with 0 now and then: it forgets the signal where the call's own end is told first.
        assert!(code == 130 || at.cli == Cli::Docker && code == 0, "{code}");
        assert_eq!(at.ok(&format!("images -q {}/r", server.host())), "");
    });
}

/// A pull of which half a layer came before the daemon died.
struct Cut {
    server: Server,
    name: String,
    layer: Vec<u8>,
    partial: std::path::PathBuf,
    /// Whether the server goes on giving halves.
    half: Arc<AtomicBool>,
}

fn cut_pull(daemon: &mut testkit::Daemon) -> Cut {
    let served = Served::new(&[5_000_000]);
    let layer = served.layers[0].clone();
    let half = Arc::new(AtomicBool::new(true));
    let only_half = half.clone();
    let server = Server::start(move |request| {
        let whole = served.answer(request);
        match served.is_layer(request) && only_half.load(Ordering::Acquire) {
            true => Answer {
                length: Some(whole.body.len() as u64),
                body: whole.body[..2_500_000].into(),
                hang: true,
                ..whole
            },
            false => whole,
        }
    });
    let name = format!("{}/r:1", server.host());
    let partial = daemon.scratch().data_root().join("content/partial").join(&digest(&layer)[7..]);
    let pulling = At { daemon, cli: Cli::Longshore }.spawn(&format!("pull {name}"));
    testkit::process::until("half of it is there", testkit::process::DEADLINE, || {
        fs::metadata(&partial).ok().filter(|file| file.len() == 2_500_000)
    })
    .unwrap();
    daemon.kill9().unwrap();
    assert_ne!(pulling.wait().unwrap().code, 0);
    Cut { server, name, layer, partial, half }
}

#[test]
fn privileged_the_next_daemon_goes_on_with_a_pull_where_the_last_one_died() {
    ours(|daemon| {
        let Cut { server, name, layer, partial, half } = cut_pull(daemon);
        half.store(false, Ordering::Release);
        daemon.restart().unwrap();
        let at = At { daemon, cli: Cli::Longshore };
        assert_eq!(at.ok("images -q --filter dangling=true"), "", "nothing half-made is listed");
        at.ok(&format!("pull {name}"));
        let from: Vec<_> = server.requests(&digest(&layer)).iter().map(Request::from).collect();
        assert_eq!(from, [0, 2_500_000]);
        assert!(!partial.exists());
        at.ok(&format!("rmi {name}"));
    });
}

#[test]
fn privileged_what_a_cut_pull_has_brought_is_shown_and_pruned() {
    ours(|daemon| {
        let before = daemon.get("/v1.51/system/df?type=image").unwrap().json().unwrap()["LayersSize"].as_i64().unwrap();
        let cut = cut_pull(daemon);
        daemon.restart().unwrap();
        let at = At { daemon, cli: Cli::Longshore };
        let told = daemon.get("/v1.51/system/df?type=image").unwrap().json().unwrap();
        assert_eq!(told["LayersSize"], before + 2_500_000);
        // Neither labels nor ages are a cut pull's.
        assert_eq!(at.ok("image prune -f --filter until=1s"), "Total reclaimed space: 0B");
        assert!(cut.partial.exists());
        let gone = at.ok("image prune -f");
        assert_eq!(gone, format!("Deleted Images:\ndeleted: {}\n\nTotal reclaimed space: 2.5MB", digest(&cut.layer)));
        assert!(!cut.partial.exists());
    });
}

fn layers_size(daemon: &Daemon) -> i64 {
    let told = daemon.get("/v1.51/system/df?type=image").unwrap().json().unwrap();
    told["LayersSize"].as_i64().unwrap()
}

/// Bytes of the recipes of layers that wait.
fn recipes(daemon: &Daemon) -> usize {
    let found = fs::read_dir(daemon.scratch().data_root().join("content/ingest")).unwrap();
    found.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len() as usize).sum()
}

/// The length of the file in the layer that comes.
const FILE_BYTES: usize = 3_000_000;

/// A pull of two layers that was interrupted when one of them was unpacked; the other one did not come, and does when it may.
fn interrupted_pull(daemon: &Daemon) -> (Server, Served, Arc<AtomicBool>) {
    let served = Served::new(&[FILE_BYTES, 500_000]);
    let (held, answers) = (Arc::new(AtomicBool::new(true)), served.clone());
    let (hold, last) = (held.clone(), digest(&served.layers[1]));
    let server = Server::start(move |request| {
        let whole = answers.answer(request);
        match request.path.ends_with(&last) && hold.load(Ordering::Acquire) {
            true => Answer { length: Some(whole.body.len() as u64), body: Vec::new(), hang: true, ..whole },
            false => whole,
        }
    });
    let before = layers_size(daemon);
    let mut pulling = At { daemon, cli: Cli::Longshore }.spawn(&format!("pull {}/r:1", server.host()));
    pulling.read_until("Pull complete").unwrap();
    pulling.signal(rustix::process::Signal::INT).unwrap();
    assert_eq!(pulling.wait().unwrap().code, 130);
    let left = before + (served.layers[0].len() + FILE_BYTES) as i64;
    testkit::process::until("what it left is counted", testkit::process::DEADLINE, || {
        let recipe = recipes(daemon);
        (recipe > 0 && layers_size(daemon) == left + recipe as i64).then_some(())
    })
    .unwrap();
    (server, served, held)
}

#[test]
fn privileged_layers_of_an_interrupted_pull_are_neither_fetched_nor_unpacked_again() {
    ours(|daemon| {
        let (server, served, held) = interrupted_pull(daemon);
        held.store(false, Ordering::Release);
        let path = format!("/v1.51/images/create?fromImage={}/r&tag=1", server.host());
        let told = daemon.post(&path, "").unwrap().text();
        let said = |layer: &[u8], status: &str| {
            let id = format!("\"id\":\"{}\"", &digest(layer)[7..19]);
            told.lines().filter(|line| line.contains(&id) && line.contains(status)).count()
        };
        let [first, second] = &served.layers[..] else { panic!("two layers") };
        for (layer, requests, unpacked) in [(first, 1, false), (second, 2, true)] {
            assert_eq!(server.requests(&digest(layer)).len(), requests, "{told}");
            assert_eq!(said(layer, "Extracting") > 0, unpacked, "{told}");
            assert_eq!((said(layer, "Download complete"), said(layer, "Pull complete")), (1, 1), "{told}");
        }
        let at = At { daemon, cli: Cli::Longshore };
        let (name, container) = (format!("{}/r:1", server.host()), at.name("made"));
        at.ok(&format!("create --name {container} {name}"));
        let copied = daemon.scratch().home().join("f0");
        at.ok(&format!("cp {container}:/f0 {}", copied.display()));
        assert_eq!(fs::metadata(&copied).unwrap().len(), FILE_BYTES as u64);
        at.ok(&format!("rm {container}"));
        at.ok(&format!("rmi {name}"));
    });
}

#[test]
fn privileged_layers_of_an_interrupted_pull_are_pruned() {
    ours(|daemon| {
        let before = layers_size(daemon);
        let (_server, served, _) = interrupted_pull(daemon);
        let recipe = recipes(daemon);
        let pruned = daemon.post("/v1.51/images/prune", "").unwrap().json().unwrap();
        assert_eq!(pruned["SpaceReclaimed"], served.layers[0].len() + FILE_BYTES + recipe);
        assert_eq!(pruned["ImagesDeleted"], serde_json::json!([{ "Deleted": digest(&served.layers[0]) }]));
        assert_eq!(layers_size(daemon), before);
        let directories = ["new", "trash"].map(|name| daemon.scratch().data_root().join("snapshots").join(name));
        testkit::process::until("their directories are gone", testkit::process::DEADLINE, || {
            let empty =
                |path: &std::path::PathBuf| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
            directories.iter().all(empty).then_some(())
        })
        .unwrap();
    });
}
