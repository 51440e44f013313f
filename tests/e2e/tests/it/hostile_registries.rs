//! Registries that lie: refused in words that say what is wrong, with nothing written elsewhere and nothing kept.

use std::fs;
use std::path::Path;

use serde_json::json;
use testkit::images::plan::{Entry, Kind};
use testkit::images::write;
use testkit::process::until;
use testkit::registry::{Answer, Request, Served, Server, digest};
use testkit::{Cli, Daemon};

use crate::hostile_images::{SWEPT_WITHIN, kept};
use crate::support::{At, ours};

/// How the registry answers: what it should say, and what it was asked.
type Lie = fn(&Served, &Request) -> Option<Answer>;

/// A layer, told as `lie` likes; nothing else is changed.
fn of_layer(served: &Served, request: &Request, lie: impl Fn(Vec<u8>) -> Answer) -> Option<Answer> {
    served.is_layer(request).then(|| lie(served.answer(request).body))
}

/// Pulls from a registry that lies so.
fn pull(at: &At<'_>, served: Served, lie: Lie) -> (Server, testkit::Output) {
    let server = Server::start(move |request| lie(&served, request).unwrap_or_else(|| served.answer(request)));
    let output = at.line(&format!("pull {}/r:1", server.host()));
    (server, output)
}

/// Runs `test` with a daemon of ours that gives up soon.
fn impatient(test: impl Fn(&Daemon)) {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::start_with(&["--max-download-attempts", "2"]).unwrap();
    if daemon.is_foreign() {
        return testkit::skip::report("this is about a daemon of the test's own");
    }
    test(&daemon);
}

/// What was half there goes in the background.
fn nothing_stays(daemon: &Daemon, what: &str, before: &std::collections::BTreeSet<String>) {
    let same = until("the stores are as before", SWEPT_WITHIN, || (kept(daemon) == *before).then_some(()));
    same.unwrap_or_else(|err| {
        panic!("{what}: {err}: {:?}", kept(daemon).symmetric_difference(before).collect::<Vec<_>>())
    });
}

/// Lies, and what is said of each.
const LIES: &[(&str, Lie, &str)] = &[
    (
        "a layer of other bytes",
        |served, request| of_layer(served, request, |bytes| Answer::new(200, vec![b'x'; bytes.len()])),
        "filesystem layer verification failed for digest sha256:",
    ),
    (
        "a layer that is another layer",
        |served, request| of_layer(served, request, |_| Answer::new(200, Served::new(&[77]).layers[0].clone())),
        "filesystem layer verification failed for digest sha256:",
    ),
    (
        "a layer with bytes behind its end",
        |served, request| of_layer(served, request, |bytes| Answer::new(200, [bytes, b"more".repeat(9)].concat())),
        "filesystem layer verification failed for digest sha256:",
    ),
    (
        "a layer without an end",
        |served, request| of_layer(served, request, |_| Answer { endless: true, ..Answer::new(200, "") }),
        "filesystem layer verification failed for digest sha256:",
    ),
    (
        "a manifest without an end",
        |_, request| request.path.contains("manifests").then(|| Answer { endless: true, ..Answer::new(200, "") }),
        "the answer is longer than 4194304 bytes",
    ),
    (
        "a manifest that is no JSON",
        |_, request| {
            let answer = || Answer::new(200, "nonsense").with("Content-Type", testkit::registry::served::MANIFEST);
            request.path.contains("manifests").then(answer)
        },
        "decode the manifest: ",
    ),
    (
        "a configuration of other bytes",
        |served, request| {
            (request.path.contains("blobs") && !served.is_layer(request))
                .then(|| Answer::new(200, "{\"os\":\"linux\"}"))
        },
        "image config verification failed for digest sha256:",
    ),
    (
        "a layer that is always somewhere else",
        |served, request| {
            of_layer(served, request, |_| Answer::new(307, "").with("Location", "/v2/r/blobs/again")).or_else(|| {
                request.path.ends_with("again").then(|| Answer::new(307, "").with("Location", "/v2/r/blobs/again"))
            })
        },
        "stopped after 10 redirects",
    ),
    (
        "a layer in a file of this machine",
        |served, request| of_layer(served, request, |_| Answer::new(307, "").with("Location", "file:///etc/passwd")),
        "invalid address \"file:///etc/passwd\"",
    ),
];

/// What may be better in a minute: what came is kept for the next pull.
const OUTAGES: &[(&str, Lie, &str)] = &[
    (
        "a layer on a host where nobody is",
        |served, request| of_layer(served, request, |_| Answer::new(307, "").with("Location", "http://127.0.0.1:1/x")),
        "connect: connection refused",
    ),
    (
        "errors of a registry that is out of order",
        |served, request| of_layer(served, request, |_| Answer::new(500, "internal")),
        "received unexpected HTTP status: 500",
    ),
];

#[test]
fn privileged_lies_are_refused_and_nothing_stays() {
    impatient(|daemon| {
        let before = kept(daemon);
        for cli in daemon.clis() {
            for (what, lie, sentence) in LIES {
                let (_server, output) = pull(&At { daemon, cli }, Served::new(&[100_000, 10]), *lie);
                assert_eq!(output.code, 1, "{what}: {output:?}");
                assert!(output.stderr.contains(sentence), "{what}: {}", output.stderr);
                nothing_stays(daemon, what, &before);
            }
        }
    });
}

#[test]
fn privileged_after_an_outage_the_next_pull_needs_the_rest_only() {
    impatient(|daemon| {
        let before = kept(daemon);
        let at = At { daemon, cli: Cli::Longshore };
        for (what, lie, sentence) in OUTAGES {
            let served = Served::new(&[100_000, 10]);
            let (_server, output) = pull(&at, served.clone(), *lie);
            assert_eq!(output.code, 1, "{what}: {output:?}");
            assert!(output.stderr.contains(sentence), "{what}: {}", output.stderr);
            let is_part = |path: &String| path.contains("/content/partial/");
            let only_parts = || kept(daemon).difference(&before).all(is_part).then_some(());
            until("only parts of layers are kept", SWEPT_WITHIN, only_parts).unwrap();
            let (server, output) = pull(&at, served, |_, _| None);
            assert_eq!(output.code, 0, "{output:?}");
            at.ok(&format!("rmi {}/r:1", server.host()));
            nothing_stays(daemon, what, &before);
        }
    });
}

#[test]
fn privileged_with_the_last_image_goes_what_cut_pulls_have_brought() {
    impatient(|daemon| {
        let before = kept(daemon);
        let at = At { daemon, cli: Cli::Longshore };
        let (_server, output) = pull(&at, Served::new(&[100_000, 10]), |served, request| match request.from() {
            0 => of_layer(served, request, |bytes| Answer { cut: Some(bytes.len() / 2), ..Answer::new(200, bytes) }),
            _ => of_layer(served, request, |_| Answer::new(500, "internal")),
        });
        assert_eq!(output.code, 1, "{output:?}");
        assert!(kept(daemon).iter().any(|path| path.contains("/content/partial/")));
        daemon.load(testkit::images::Archive::Busybox).unwrap();
        at.ok("rmi busybox");
        nothing_stays(daemon, "no image is left", &before);
    });
}

#[test]
fn privileged_what_a_digest_names_is_that_or_nothing() {
    ours(|daemon| {
        let before = kept(daemon);
        let (good, other) = (Served::new(&[10]), Served::new(&[20]));
        let named = digest(&good.manifest);
        let server = Server::start(move |request| match request.path.contains("/manifests/") {
            true => Answer::new(200, other.manifest.clone()).with("Content-Type", other.media_type.clone()),
            false => good.answer(request),
        });
        let at = At { daemon, cli: Cli::Longshore };
        at.fails(&format!("pull {}/r@{named}", server.host()), 1, "manifest verification failed for digest sha256:");
        nothing_stays(daemon, "another manifest", &before);
    });
}

#[test]
fn privileged_a_layer_that_is_cut_every_few_bytes_comes_in_the_end() {
    ours(|daemon| {
        let before = kept(daemon);
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let (server, output) = pull(&at, Served::new(&[300_000, 5_000]), |served, request| {
                let cut = |_| Answer { cut: Some(40_000), ..served.answer(request) };
                of_layer(served, request, cut)
            });
            assert_eq!(output.code, 0, "{output:?}");
            assert!(server.requests("/blobs/").iter().filter(|request| request.from() > 0).count() >= 7);
            at.ok(&format!("rmi {}/r:1", server.host()));
            nothing_stays(daemon, "a layer in pieces", &before);
        }
    });
}

#[test]
fn privileged_a_layer_that_stays_cut_is_refused_and_the_next_pull_needs_the_rest_only() {
    impatient(|daemon| {
        let before = kept(daemon);
        let served = Served::new(&[100_000]);
        let (layer, name) = (digest(&served.layers[0]), |server: &Server| format!("{}/r:1", server.host()));
        let at = At { daemon, cli: Cli::Longshore };
        let (_, output) = pull(&at, served.clone(), |served, request| {
            // Nothing comes behind the first half.
            let half = |bytes: Vec<u8>| match request.from() {
                0 => Answer { cut: Some(50_000), ..Answer::new(200, bytes) },
                _ => Answer { cut: Some(0), ..served.answer(request) },
            };
            of_layer(served, request, half)
        });
        assert_eq!((output.code, output.stderr.contains("unexpected EOF")), (1, true), "{output:?}");
        let (server, output) = pull(&at, served, |_, _| None);
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(server.requests(&layer)[0].from(), 50_000);
        at.ok(&format!("rmi {}", name(&server)));
        nothing_stays(daemon, "a layer in two halves", &before);
    });
}

#[test]
fn privileged_credentials_are_not_shown_to_the_host_of_a_redirect() {
    ours(|daemon| {
        let served = Served::new(&[1000]);
        let elsewhere = {
            let served = served.clone();
            Server::start(move |request| served.answer(request))
        };
        let (there, all) = (elsewhere.host(), served.clone());
        let server = Server::start(move |request| match request.header("authorization") {
            None => Answer::new(401, "{}").with("WWW-Authenticate", "Basic realm=\"here\""),
            Some(_) if all.is_layer(request) => {
                Answer::new(307, "").with("Location", format!("http://{there}{}", request.path))
            }
            Some(_) => all.answer(request),
        });
        let config = daemon.scratch().home().join(".docker");
        fs::create_dir_all(&config).unwrap();
        let auth = json!({ "auths": { server.host(): { "auth": "dXNlcjpzZWNyZXQ=" } } });
        fs::write(config.join("config.json"), auth.to_string()).unwrap();
        let at = At { daemon, cli: Cli::Longshore };
        at.ok(&format!("pull {}/r:1", server.host()));
        let asked = elsewhere.requests("");
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].header("authorization"), None);
        at.ok(&format!("rmi {}/r:1", server.host()));
    });
}

#[test]
fn privileged_layers_from_registries_stay_where_they_belong() {
    ours(|daemon| {
        let before = kept(daemon);
        let target = daemon.scratch().write("target", "before\n").unwrap();
        let outside = daemon.scratch().path().display().to_string();
        let link = |path: &str, to: &str| Entry::new(path, 0o777, Kind::Symlink(to.to_owned()));
        let hard = |path: &str, to: &str| Entry::new(path, 0o644, Kind::Hardlink(to.to_owned()));
        let at = At { daemon, cli: Cli::Longshore };
        let dir = || vec![Entry::dir("d", 0o755)];
        let to_host = vec![hard("h", &target.display().to_string())];
        for (what, lower, upper, refusal) in [
            ("a link, a file in it", vec![link("d", &outside)], vec![Entry::file("d/target", "evil")], ""),
            ("a link up", vec![link("d", "../../../../../..")], vec![Entry::file("d/longshore-evil", "evil")], ""),
            // What they name is not in the image.
            ("a hard link to the host", dir(), to_host, "create \"h\" of layer: no such file"),
            (
                "a hard link up",
                dir(),
                vec![hard("d/h", "../../../../../../../etc/passwd")],
                "invalid entry \"d/h\" in layer",
            ),
            ("a whiteout through a link", vec![link("d", &outside)], vec![Entry::whiteout("d", "target")], ""),
            ("an opaque link", vec![link("d", &outside)], vec![Entry::opaque("d")], ""),
        ] {
            let layers = [lower, upper].map(|entries| write::layer_tar(&entries).unwrap());
            let (server, output) = pull(&at, Served::of_tars(&layers), |_, _| None);
            if refusal.is_empty() {
                assert_eq!(output.code, 0, "{what}: {output:?}");
                at.ok(&format!("rmi {}/r:1", server.host()));
            } else {
                let sentence = format!("failed to register layer: {refusal}");
                assert_eq!((output.code, output.stderr.contains(&sentence)), (1, true), "{what}: {output:?}");
            }
            assert_eq!(fs::read_to_string(&target).unwrap(), "before\n", "{what}");
            for place in [Path::new("/"), daemon.scratch().path(), &daemon.scratch().data_root()] {
                assert!(!place.join("longshore-evil").exists(), "{what}: {}", place.display());
            }
            nothing_stays(daemon, what, &before);
        }
    });
}
