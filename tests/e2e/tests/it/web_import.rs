//! `import` from an address of the web: what comes, what is refused, and who leaves.

use std::fs;

use testkit::images::plan::Entry;
use testkit::images::write;
use testkit::process::until;
use testkit::registry::{Answer, Request, Server};
use testkit::{Daemon, http};

use crate::hostile_images::{SWEPT_WITHIN, kept};
use crate::support::{on_both, ours};

fn root() -> Vec<u8> {
    let big: String = (0..200_000).map(|number| format!("{number:x}")).collect();
    write::layer_tar(&[Entry::dir("etc", 0o755), Entry::file("etc/where", "web\n"), Entry::file("big", &big)]).unwrap()
}

/// A server of one tar, and of everything that can go wrong.
fn server() -> Server {
    let tar = root();
    Server::start(move |request: &Request| match request.path.split('?').next().unwrap() {
        "/root.tar" => Answer::new(200, tar.clone()),
        "/deep/relative" => Answer::new(302, "").with("Location", "../root.tar"),
        "/moved" => Answer::new(301, "").with("Location", "root.tar"),
        "/round" => Answer::new(302, "").with("Location", "/round"),
        "/secret" if request.header("authorization") == Some("Basic bWU6aHVzaA==") => Answer::new(200, tar.clone()),
        "/secret" => Answer::new(401, "who are you?"),
        "/cut" => Answer { cut: Some(tar.len() / 2), ..Answer::new(200, tar.clone()) },
        "/hang" => Answer { length: Some(1 << 40), hang: true, ..Answer::new(200, tar[..tar.len() / 2].to_vec()) },
        "/garbage" => Answer::new(200, "x".repeat(2000)),
        "/endless-refusal" => Answer { endless: true, ..Answer::new(503, "") },
        _ => Answer::new(404, " no such thing \n"),
    })
}

#[test]
fn privileged_a_root_comes_from_an_address_of_the_web() {
    on_both(|at| {
        if at.daemon.is_foreign() {
            return testkit::skip::report("a foreign daemon may be in a network of its own");
        }
        let (server, image) = (server(), at.image("web"));
        let address = format!("http://{}/root.tar", server.host());
        let told = at.ok(&format!("import -c 'CMD [\"cat\",\"/etc/where\"]' {address} {image}:1"));
        let (first, id) = told.split_once('\n').unwrap();
        assert_eq!(first, format!("Downloading from {address}"));
        assert_eq!(at.inspect(&format!("{image}:1"), "{{.Id}} {{.Comment}}"), format!("{id} Imported from {address}"));
        for (path, tag) in [("moved", 2), ("deep/relative", 3)] {
            at.ok(&format!("import -m why http://{}/{path} {image}:{tag}", server.host()));
            assert_eq!(at.inspect(&format!("{image}:{tag}"), "{{.Comment}}"), "why");
        }
        assert!(server.requests("root.tar").iter().all(|request| request.header("authorization").is_none()));
        at.ok(&format!("rmi {image}:1 {image}:2 {image}:3"));
    });
}

/// The stream of an import over the API; its status.
fn post(daemon: &Daemon, query: &str) -> (u16, String) {
    let answer = http::request(daemon.socket(), "POST", &format!("/v1.51/images/create?{query}"), None).unwrap();
    (answer.status, answer.text())
}

#[test]
fn privileged_an_import_from_the_web_is_told_in_dockers_lines() {
    ours(|daemon| {
        let server = server();
        let host = server.host();
        let (status, lines) = post(daemon, &format!("fromSrc={host}/root.tar&repo=told"));
        let length = root().len();
        assert_eq!(status, 200);
        assert!(lines.starts_with(&format!("{{\"status\":\"Downloading from http://{host}/root.tar\"}}\n")), "{lines}");
        let whole = format!(
            "{{\"status\":\"Importing\",\"progressDetail\":{{\"current\":{length},\"total\":{length}}},\"progress\":\"[===="
        );
        assert!(lines.contains(&whole), "{lines}");
        let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert!(last["status"].as_str().unwrap().starts_with("sha256:"), "{lines}");
        // A password is for the server alone.
        let (status, lines) = post(daemon, &format!("fromSrc=http://me:hush@{host}/secret&repo=secret"));
        assert_eq!(status, 200, "{lines}");
        let shown = format!("http://me:xxxxx@{host}/secret");
        assert!(lines.contains(&shown) && !lines.contains("hush"), "{lines}");
        let inspected = daemon.get("/images/secret/json").unwrap().json().unwrap();
        assert_eq!(inspected["Comment"], format!("Imported from {shown}"));
    });
}

#[test]
fn privileged_what_does_not_come_from_the_web_is_told_and_leaves_nothing() {
    ours(|daemon| {
        let server = server();
        let (host, before) = (server.host(), kept(daemon));
        let nowhere = "http://127.0.0.1:1/x";
        for (query, status, sentence) in [
            (
                format!("fromSrc=http://{host}/none"),
                404,
                format!("failed to GET http://{host}/none with status 404 X: no such thing"),
            ),
            (format!("fromSrc=http://{host}/secret"), 401, "with status 401 X: who are you?".to_owned()),
            (
                format!("fromSrc=http://{host}/round"),
                500,
                format!("Get \\\"http://{host}/round\\\": stopped after 10 redirects"),
            ),
            (
                format!("fromSrc={nowhere}"),
                500,
                format!("Get \\\"{nowhere}\\\": dial tcp 127.0.0.1:1: connect: connection refused"),
            ),
            (
                "fromSrc=ftp://h/x".to_owned(),
                500,
                "Get \\\"ftp://h/x\\\": unsupported protocol scheme \\\"ftp\\\"".to_owned(),
            ),
            ("fromSrc=http://h/%2525a%25".to_owned(), 400, "invalid URL escape \\\"%\\\"".to_owned()),
            ("fromSrc=http:///x".to_owned(), 500, "http: no Host in request URL".to_owned()),
            (format!("fromSrc=http://{host}/cut"), 200, "\"error\":\"unexpected EOF\"".to_owned()),
            (format!("fromSrc=http://{host}/garbage"), 200, "\"errorDetail\"".to_owned()),
            (
                format!("fromSrc=http://{host}/root.tar&repo=A"),
                400,
                "repository name (library/A) must be lowercase".to_owned(),
            ),
            (format!("fromSrc=http://{host}/root.tar&changes=ZZ"), 400, "ZZ".to_owned()),
        ] {
            let (actual, text) = post(daemon, &query);
            assert_eq!((actual, text.contains(&sentence)), (status, true), "{query}: {text} has no {sentence}");
            let same = || (kept(daemon) == before).then_some(());
            until("the stores are as before", SWEPT_WITHIN, same).unwrap();
        }
        // However much a server says, so much is told on.
        let (status, text) = post(daemon, &format!("fromSrc=http://{host}/endless-refusal"));
        assert!(status == 500 && text.len() < 20_000 && text.contains("with status 503 X: xxxx"), "{status}");
    });
}

#[test]
fn privileged_who_leaves_ends_the_download() {
    ours(|daemon| {
        let (server, before) = (server(), kept(daemon));
        let address = format!("http://{}/hang", server.host());
        for cli in daemon.clis() {
            let at = crate::support::At { daemon, cli };
            let importing = at.spawn(&format!("import {address} left"));
            let is_half_here = || (kept(daemon) != before).then_some(());
            until("a part is unpacked", SWEPT_WITHIN, is_half_here).unwrap();
            importing.signal(rustix::process::Signal::INT).unwrap();
            importing.wait().unwrap();
            until("the stores are as before", SWEPT_WITHIN, || (kept(daemon) == before).then_some(())).unwrap();
        }
        let sockets = fs::read_to_string(format!("/proc/{}/net/tcp", daemon.pid().unwrap())).unwrap();
        let port = server.host().rsplit(':').next().unwrap().parse::<u16>().unwrap();
        let open = format!(":{port:04X} 01 ");
        assert!(!sockets.contains(&open), "a connection is left:\n{sockets}");
    });
}
