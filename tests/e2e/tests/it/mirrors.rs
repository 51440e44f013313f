//! Who is asked before a registry.

use std::process::Command;
use std::time::Duration;

use testkit::process::until;
use testkit::registry::{Answer, Served, Server};
use testkit::{Cli, Daemon};

use crate::support::{At, each, ours};

/// A registry that has `1` of every repository, and one of whom nothing is to be had.
fn good_and_bad() -> (Server, Server) {
    let served = Served::new(&[100, 7]);
    (Server::start(move |request| served.answer(request)), Server::start(|_| Answer::new(500, "no")))
}

/// Types `line` as somebody whose configuration has logins.
fn with_login(at: &At<'_>, line: &str, config: &std::path::Path) -> testkit::Output {
    let mut command: Command = at.command(line);
    command.env("DOCKER_CONFIG", config);
    testkit::process::run(&mut command, b"").unwrap()
}

#[test]
fn privileged_mirrors_of_the_hub_are_asked_in_order_and_see_no_credentials() {
    if testkit::skip::without_root() {
        return;
    }
    let (good, bad) = good_and_bad();
    let urls = [&bad, &good].map(|server| format!("http://{}/", server.host()));
    let daemon = Daemon::start_with(&["--registry-mirror", &urls[0], "--registry-mirror", &urls[1]]).unwrap();
    if daemon.is_foreign() {
        return testkit::skip::report("this is about a daemon of the test's own");
    }
    let config = tempfile::tempdir().unwrap();
    // somebody:secret
    let logins = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"c29tZWJvZHk6c2VjcmV0"}}}"#;
    std::fs::write(config.path().join("config.json"), logins).unwrap();
    each(&daemon, |at| {
        let pulled = with_login(at, "pull somebody/mirrored:1", config.path());
        let told = pulled.success().unwrap().to_owned();
        assert!(told.starts_with("1: Pulling from somebody/mirrored\n"), "{told}");
        assert!(told.ends_with("docker.io/somebody/mirrored:1"), "{told}");
        assert_eq!(at.inspect("somebody/mirrored:1", "{{json .RepoTags}}"), r#"["somebody/mirrored:1"]"#);
        at.ok("rmi somebody/mirrored:1");
        let shown = at.ok("info -f '{{json .RegistryConfig.Mirrors}}'");
        assert_eq!(shown, format!("[\"{}\",\"{}\"]", urls[0], urls[1]));
        assert!(at.ok("info").contains(&format!(" Registry Mirrors:\n  {}\n  {}\n", urls[0], urls[1])));
        assert!(!bad.requests("/v2/").is_empty(), "the first one is asked first");
        let asked: Vec<_> = [&bad, &good].iter().flat_map(|server| server.requests("")).collect();
        assert!(asked.iter().all(|request| request.header("authorization").is_none()));
    });
}

#[test]
fn privileged_a_registry_is_asked_when_no_mirror_does() {
    ours(|daemon| {
        let (good, bad) = good_and_bad();
        let tags = |tags: &str| Answer::new(200, format!(r#"{{"name":"r","tags":{tags}}}"#));
        let origin = Server::start({
            let served = Served::new(&[100, 7]);
            move |request| match request.path.contains("/tags/list") {
                true => tags(r#"["1"]"#),
                false => served.answer(request),
            }
        });
        // It knows of no tags.
        let tagless = Server::start(move |request| match &request.path[..] {
            "/v2/" => Answer::new(200, "{}"),
            path if path.contains("/tags/list") => tags("null"),
            _ => Answer::new(404, ""),
        });
        // Its configuration has fewer layers than its manifest.
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let served = Served::of(Served::new(&[5]).layers, config);
        let misfit = Server::start(move |request| served.answer(request));
        // It has the manifest, and of the layers nothing that is true.
        let served = Served::new(&[100, 7]);
        let liar = Server::start(move |request| match served.is_layer(request) {
            true => Answer::new(200, vec![b'x'; served.answer(request).body.len()]),
            false => served.answer(request),
        });
        let info = |daemon: &Daemon| daemon.get("/v1.47/info").unwrap().text();
        for (mirrors, pull, asks) in [
            (vec![&bad, &liar, &misfit], "pull", true),
            (vec![&tagless], "pull -a", true),
            (vec![&good], "pull", false),
        ] {
            let urls: Vec<String> = mirrors.iter().map(|server| format!("\"http://{}\"", server.host())).collect();
            let text = format!(r#"{{"registry-mirrors-by-host":{{"{}":[{}]}}}}"#, origin.host(), urls.join(","));
            daemon.scratch().write("daemon.json", &text).unwrap();
            let pid = daemon.pid().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
            let last = mirrors[mirrors.len() - 1].host();
            until("it is read", Duration::from_secs(20), || info(daemon).contains(&last).then_some(())).unwrap();
            let before = origin.requests("").len();
            let name = format!("{}/r:1", origin.host());
            for cli in daemon.clis() {
                let at = At { daemon, cli };
                at.ok(&format!("{pull} {}", if pull == "pull" { &name } else { name.trim_end_matches(":1") }));
                at.ok(&format!("rmi {name}"));
            }
            assert!(mirrors.iter().all(|mirror| !mirror.requests("/v2/").is_empty()));
            assert_eq!(origin.requests("").len() > before, asks);
        }
        // A push goes to the registry alone.
        let at = At { daemon, cli: Cli::Longshore };
        let (mirrored, name) = (good.requests("").len(), format!("{}/r:2", origin.host()));
        at.ok(&format!("tag busybox {name}"));
        at.line(&format!("push {name}"));
        at.ok(&format!("rmi {name}"));
        assert_eq!(good.requests("").len(), mirrored);
    });
}
