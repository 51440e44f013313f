//! The digest on push is the digest on pull: indexes with what is said about their images, whole and in part.

use testkit::registry::{Debian, Served, digest};

use crate::platforms::{busybox, of_arm64};
use crate::support::{At, each, ours};

/// Two registries, of which the first has an index of both platforms as `r:1`, and its digest.
struct Two {
    first: Debian,
    second: Debian,
    here: Served,
    index: String,
}

impl Two {
    fn start(platforms: &[&str]) -> Two {
        let (first, second) = (Debian::start().unwrap(), Debian::start().unwrap());
        let (here, there) = (busybox(), of_arm64());
        let image = |platform: &&str| if *platform == "amd64" { &here } else { &there };
        let images: Vec<_> = platforms.iter().map(|platform| (*platform, image(platform))).collect();
        let served = Served::attested(&images);
        first.push(&served, "r").unwrap();
        let index = digest(&served.manifests["1"]);
        Two { first, second, here, index }
    }

    fn name(&self) -> String {
        format!("{}/r:1", self.first.host())
    }

    /// A tag of the second registry for the image.
    fn elsewhere(&self, at: &At<'_>, name: &str) -> String {
        let other = format!("{}/{}:1", self.second.host(), at.image(name));
        at.ok(&format!("tag {} {other}", self.name()));
        other
    }
}

const NOTE: &str = "Not all multiplatform-content is present and only the available single-platform image was pushed";

/// The digest under which something was pushed.
fn pushed(told: &str) -> &str {
    let line = told.lines().find_map(|line| line.split_once(": digest: ")).expect("a digest is told");
    line.1.split(' ').next().unwrap()
}

#[test]
fn privileged_an_index_with_attestations_is_pushed_whole() {
    let two = Two::start(&["amd64"]);
    ours(|daemon| {
        each(daemon, |at| {
            let name = two.name();
            at.ok(&format!("pull -q {name}"));
            let listed = at.daemon.get(&format!("/v1.48/images/{name}/json?manifests=1")).unwrap().json().unwrap();
            let kinds: Vec<_> = listed["Manifests"].as_array().unwrap().iter().collect();
            assert_eq!((&kinds[1]["Kind"], &kinds[1]["Available"]), (&"attestation".into(), &true.into()), "{listed}");
            assert_eq!(kinds[1]["AttestationData"]["For"], digest(&two.here.manifest));
            let copy = two.elsewhere(at, "copy");
            let told = at.ok(&format!("push {copy}"));
            assert!(pushed(&told) == two.index && !told.contains(NOTE), "{told}");
            let again = at.ok(&format!("push {copy}"));
            assert_eq!(pushed(&again), two.index);
            // From there it comes whole, too, and the next daemon has all of it.
            at.ok(&format!("rmi {name} {copy}"));
            at.ok(&format!("pull -q {copy}"));
            let third = format!("{}/{}:1", two.first.host(), at.image("third"));
            at.ok(&format!("tag {copy} {third}"));
            assert_eq!(pushed(&at.ok(&format!("push {third}"))), two.index);
            assert!(at.inspect(&third, "{{json .RepoDigests}}").contains(&format!("@{}", two.index)));
            let single = at.ok(&format!("push --platform linux/amd64 {third}"));
            assert_eq!(pushed(&single), digest(&two.here.manifest), "a platform goes without its index");
            at.ok(&format!("rmi {copy} {third}"));
        });
    });
}

#[test]
fn privileged_what_is_here_of_an_index_goes_whole_or_alone_and_that_is_told() {
    let two = Two::start(&["amd64", "arm64"]);
    ours(|daemon| {
        each(daemon, |at| {
            let name = two.name();
            at.ok(&format!("pull -q {name}"));
            let copy = two.elsewhere(at, "copy");
            let told = at.ok(&format!("push {copy}"));
            let manifest = digest(&two.here.manifest);
            assert_eq!(pushed(&told), manifest, "{told}");
            assert!(told.contains(NOTE) && told.contains(&two.index), "{told}");
            // Where the rest is already, a tag is the index.
            let same = format!("{}/r:2", two.first.host());
            at.ok(&format!("tag {name} {same}"));
            let told = at.ok(&format!("push {same}"));
            assert!(pushed(&told) == two.index && !told.contains(NOTE), "{told}");
            // And once all is here, everywhere.
            at.ok(&format!("rmi {copy} {same}"));
            at.ok(&format!("pull -q --platform linux/arm64 {name}"));
            let copy = two.elsewhere(at, "whole");
            let told = at.ok(&format!("push {copy}"));
            assert!(pushed(&told) == two.index && !told.contains(NOTE), "{told}");
            at.ok(&format!("rmi {copy} {name}"));
        });
    });
}

/// What is not here is asked of the registry, and only its word that it has not got it makes one image of an index.
#[test]
fn privileged_a_registry_that_cannot_say_what_it_has_keeps_its_index() {
    use testkit::registry::{Answer, Request, Server};
    let served = Served::attested(&[("amd64", &busybox()), ("arm64", &of_arm64())]);
    let missing = digest(&of_arm64().manifest);
    ours(|daemon| {
        let at = At { daemon, cli: testkit::Cli::Longshore };
        for status in [401, 403, 429, 500, 503] {
            let (served, missing) = (served.clone(), missing.clone());
            let is_asked = move |request: &Request| request.method == "HEAD" && request.path.ends_with(&missing);
            let server = Server::start(move |request| match is_asked(request) {
                true => Answer::new(status, ""),
                false => served.answer(request),
            });
            let name = format!("{}/r:1", server.host());
            at.ok(&format!("pull -q {name}"));
            at.fails(&format!("push {name}"), 1, &format!("received unexpected HTTP status: {status} "));
            let written: Vec<_> = server.requests("").into_iter().filter(|one| one.method != "GET").collect();
            assert!(written.iter().all(|one| one.method == "HEAD"), "{status}: {written:?}");
            at.ok(&format!("rmi {name}"));
        }
    });
}

/// More images at once than the daemon has threads for work that blocks, each with what is said about it. The registry gives
/// no layer before it was asked for all of them.
#[test]
fn privileged_pulls_do_not_wait_for_each_other_however_many_they_are() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use testkit::registry::Server;
    const PULLS: usize = 80;
    let one = |number: usize| Served::attested(&[("amd64", &Served::new(&[1000 + number]))]);
    let all: Vec<_> = (0..PULLS).map(one).collect();
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let number = request.path.strip_prefix("/v2/r").and_then(|rest| rest.split('/').next()?.parse::<usize>().ok());
        let served = &all[number.unwrap_or(0)];
        let is_image = request.path.ends_with(&digest(&served.manifest));
        asked.fetch_add(usize::from(is_image), Ordering::Relaxed);
        if served.is_layer(request) {
            let everybody = || (asked.load(Ordering::Relaxed) >= PULLS).then_some(());
            // The pull that fails then says so.
            let _ = testkit::process::until("all pulls", testkit::process::DEADLINE, everybody);
        }
        served.answer(request)
    });
    ours(|daemon| {
        let socket = daemon.socket().to_owned();
        std::thread::scope(|scope| {
            let pull = |number| {
                let path = format!("/images/create?fromImage={}/r{number}&tag=1", server.host());
                let socket = &socket;
                scope.spawn(move || testkit::http::request(socket, "POST", &path, None).unwrap().text())
            };
            let pulls: Vec<_> = (0..PULLS).map(pull).collect();
            for pull in pulls {
                let told = pull.join().unwrap();
                assert!(told.contains("Status: Downloaded newer image"), "{told}");
            }
        });
        let listed = daemon.get("/v1.48/images/json?manifests=1").unwrap().json().unwrap();
        let is_whole = |one: &serde_json::Value| one["Kind"] == "attestation" && one["Available"] == true;
        let manifests = listed.as_array().unwrap().iter().filter_map(|image| image["Manifests"].as_array());
        assert_eq!(manifests.filter(|all| all.iter().any(is_whole)).count(), PULLS);
    });
}

#[test]
fn privileged_all_platforms_are_saved_and_come_back_with_their_index() {
    let two = Two::start(&["amd64", "arm64"]);
    ours(|daemon| {
        each(daemon, |at| {
            let (name, dir) = (two.name(), tempfile::tempdir().unwrap());
            at.ok(&format!("pull -q {name}"));
            at.ok(&format!("pull -q --platform linux/arm64 {name}"));
            let path = dir.path().join("all.tar").display().to_string();
            at.ok(&format!("save -o {path} {name}"));
            at.ok(&format!("rmi {name}"));
            assert_eq!(at.ok(&format!("load -i {path}")), format!("Loaded image: {name}"));
            for wanted in ["amd64", "arm64"] {
                let line = format!("image inspect -f '{{{{.Architecture}}}}' --platform linux/{wanted} {name}");
                assert_eq!(at.ok(&line), wanted);
            }
            assert_eq!(at.run(&format!("{name} echo here")), "here");
            let copy = two.elsewhere(at, "loaded");
            assert_eq!(pushed(&at.ok(&format!("push {copy}"))), two.index);
            let again = dir.path().join("again.tar");
            at.ok(&format!("save -o {} {name}", again.display()));
            assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap());
            at.ok(&format!("rmi {copy} {name}"));
            assert_eq!(at.ok(&format!("load --platform linux/arm64 -i {path}")), format!("Loaded image: {name}"));
            assert_eq!(at.ok(&format!("image inspect -f '{{{{.Architecture}}}}' {name}")), "arm64");
            at.ok(&format!("rmi {name}"));
        });
    });
}

/// A registry that has lost what is said about an image: the image is as good without.
#[test]
fn privileged_a_pull_does_not_fail_for_what_is_said_beside_it() {
    use testkit::registry::{Answer, Server};
    let served = Served::attested(&[("amd64", &busybox())]);
    let statement = served.blobs.iter().find(|(_, blob)| blob.starts_with(b"{\"_type\"")).unwrap().0.clone();
    let manifest = served.manifests.iter().find(|(_, bytes)| String::from_utf8_lossy(bytes).contains("in-toto"));
    let manifest = manifest.unwrap().0.clone();
    for (lost, answer) in [
        (statement.clone(), Answer::new(404, "{}")),
        (manifest.clone(), Answer::new(404, "{}")),
        (statement, Answer::new(200, "lies")),
        (manifest, Answer::new(200, "lies")),
    ] {
        let served = served.clone();
        let server = Server::start(move |request| match request.path.ends_with(&lost) {
            true => answer.clone(),
            false => served.answer(request),
        });
        ours(|daemon| {
            let at = At { daemon, cli: testkit::Cli::Longshore };
            let name = format!("{}/r:1", server.host());
            at.ok(&format!("pull -q {name}"));
            assert_eq!(at.run(&format!("{name} echo here")), "here");
            at.ok(&format!("pull -q {name}"));
            at.ok(&format!("rmi {name}"));
        });
    }
}

/// What is no image is refused, and what refers to another manifest is known there when it is pushed elsewhere.
#[test]
fn privileged_artifacts_are_refused_and_what_refers_to_others_goes_with_its_subject() {
    use testkit::registry::{Answer, Received, Server};
    let made = |from: &str, to: &str| {
        let mut served = busybox();
        let text = String::from_utf8(served.manifest.clone()).unwrap().replacen(from, to, 1);
        let manifest = text.into_bytes();
        served.manifests = [("1".into(), manifest.clone()), (digest(&manifest), manifest.clone())].into();
        Served { manifest, ..served }
    };
    let artifact = made("vnd.oci.image.config.v1", "vnd.oci.empty.v1");
    let subject = format!(r#""subject":{{"mediaType":"m","digest":"{}","size":7}},"config":"#, digest(b"subject"));
    let refers = made("\"config\":", &subject);
    let (first, second) = (artifact, refers.clone());
    let [artifacts, referring] = [first, second].map(|served| Server::start(move |request| served.answer(request)));
    let received = std::sync::Arc::new(Received::default());
    let state = received.clone();
    // One repository there lets nobody write the list of what refers to others.
    let is_list = |path: &str| path.contains("unlisted") && path.contains("/sha256-");
    let target = Server::start(move |request| match request.method == "PUT" && is_list(&request.path) {
        true => Answer::new(403, "no list"),
        false => state.answer(request),
    });
    ours(|daemon| {
        each(daemon, |at| {
            let refused = format!("pull {}/r:1", artifacts.host());
            at.fails(&refused, 1, "unsupported media type application/vnd.oci.empty.v1+json");
            let (name, copy) = (format!("{}/r:1", referring.host()), format!("{}/{}:1", target.host(), at.image("r")));
            at.ok(&format!("pull -q {name}"));
            at.ok(&format!("tag {name} {copy}"));
            assert_eq!(pushed(&at.ok(&format!("push {copy}"))), digest(&refers.manifest));
            let there = received.repository(&at.image("r"));
            let (_, list) = &there.manifests[&digest(b"subject").replace(':', "-")];
            assert!(String::from_utf8_lossy(list).contains(&digest(&refers.manifest)));
            let other = format!("{}/{}:1", target.host(), at.image("unlisted"));
            at.ok(&format!("tag {name} {other}"));
            let told = at.ok(&format!("push {other}"));
            assert!(told.contains("WARNING") && told.contains("not listed") && told.contains("no list"), "{told}");
            assert_eq!(pushed(&told), digest(&refers.manifest));
            let recorded = at.inspect(&other, "{{json .RepoDigests}}");
            let repository = other.strip_suffix(":1").unwrap();
            assert!(recorded.contains(&format!("{repository}@{}", digest(&refers.manifest))), "{recorded}");
            at.ok(&format!("rmi {name} {copy} {other}"));
        });
    });
}
