//! `ADD` of what lies at an address of the web.

use testkit::Output;
use testkit::images::plan::Entry;
use testkit::images::write;
use testkit::registry::{Answer, Request, Server};

use crate::build::context;
use crate::buildx::plugged;
use crate::support::{At, on_both};

const WHEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A server of a file that it knows again, one of a date alone, one that it knows nothing of, and an archive.
fn server() -> Server {
    let tar = write::layer_tar(&[Entry::file("inside", "packed\n")]).unwrap();
    Server::start(move |request: &Request| match request.path.split('?').next().unwrap() {
        "/a/known" if request.header("if-none-match") == Some("\"v1\"") => Answer::new(304, ""),
        "/a/known" => Answer::new(200, "known\n").with("ETag", "\"v1\"").with("Last-Modified", WHEN),
        "/dated" if request.header("if-modified-since") == Some(WHEN) => Answer::new(304, ""),
        "/dated" => Answer::new(200, "dated\n").with("Last-Modified", WHEN),
        "/plain" => Answer::new(200, "plain\n"),
        "/moved" => Answer::new(302, "").with("Location", "/plain"),
        "/away" => Answer::new(302, "").with("Location", "file:///etc/passwd"),
        "/x.tar" => Answer::new(200, tar.clone()),
        _ => Answer::new(404, "gone"),
    })
}

fn dockerfile(server: &Server, lines: &str) -> String {
    format!("FROM busybox\n{}", lines.replace("WEB", &format!("http://{}", server.host())))
}

fn build(at: &At<'_>, image: &str, text: &str) -> Output {
    let directory = context(&[("Dockerfile", text), ("file", "f\n")]);
    let mut command = at.daemon.command(at.cli).unwrap();
    command.env("DOCKER_BUILDKIT", "0").args(["build", "-t", image]).arg(directory.path());
    testkit::process::run(&mut command, b"").unwrap()
}

/// Runs a test against our own daemon, which shares the network with the test.
pub(crate) fn on_ours(test: impl Fn(&At<'_>)) {
    on_both(|at| match at.daemon.is_foreign() {
        true => testkit::skip::report("a foreign daemon may be in a network of its own"),
        false => test(at),
    });
}

#[test]
fn privileged_files_of_the_web_are_added_as_they_are() {
    on_ours(|at| {
        let (server, image) = (server(), at.image("added"));
        let text = dockerfile(
            &server,
            "ADD WEB/a/known WEB/plain?x=/y /to/\nADD WEB/x.tar /kept/\nADD --unpack=true WEB/x.tar /unpacked/\n\
             ADD --chown=3:4 --chmod=751 WEB/moved /moved\nADD file WEB/plain /mixed/\n",
        );
        let output = build(at, &image, &text);
        assert_eq!(output.code, 0, "{output:?}");
        let run = |line: &str| at.run(&format!("{image} {line}"));
        assert_eq!(
            run("cat /to/known /to/plain /moved /unpacked/inside /mixed/file /mixed/plain"),
            "known\nplain\nplain\npacked\nf\nplain"
        );
        assert_eq!(run("stat -c %a-%u-%g-%Y /to/known"), "600-0-0-784111777");
        assert_eq!(run("stat -c %a-%u-%g-%Y /to/plain"), "600-0-0-0");
        assert_eq!(run("stat -c %a-%u-%g /moved"), "751-3-4");
        assert_eq!(run("ls /kept"), "x.tar");
        at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_what_a_server_knows_again_is_not_sent_again() {
    on_ours(|at| {
        let (server, image) = (server(), at.image("again"));
        let text = dockerfile(&server, "ADD WEB/a/known /\nADD WEB/dated /\n");
        assert_eq!(build(at, &image, &text).code, 0);
        let again = build(at, &image, &text);
        assert_eq!(again.stdout.matches("Using cache").count(), 2, "{again:?}");
        let asked = |path: &str| server.requests(path).len();
        assert_eq!((asked("/a/known"), asked("/dated")), (2, 2));
        // Another step needs the bytes, which nobody kept.
        let other = build(at, &image, &text.replace("known /\n", "known /other\n"));
        assert_eq!((other.code, asked("/a/known")), (0, 4), "{other:?}");
        assert_eq!(at.run(&format!("{image} cat /other")), "known");
        // What is known comes when it is needed; what has come for that step already does not come once more.
        let both = build(at, &image, &dockerfile(&server, "ADD WEB/a/known WEB/plain /to/\n"));
        assert_eq!((both.code, asked("/plain")), (0, 1), "{both:?}");
        // Who forgets the steps forgets what the server said.
        at.ok("builder prune -f");
        assert_eq!(build(at, &image, &text).code, 0);
        let asked = server.requests("/dated");
        assert!(asked.last().is_some_and(|request| request.header("if-modified-since").is_none()));
        at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_what_does_not_come_or_is_something_else_is_told() {
    on_ours(|at| {
        let (server, image) = (server(), at.image("wrong"));
        let sum = "sha256:".to_owned() + &"0".repeat(64);
        let plain = "sha256:ae8b4b8a7b4b9e4c";
        for (line, wanted) in [
            ("ADD WEB/gone /", "ADD failed: failed to GET WEB/gone with status 404 X: gone"),
            ("ADD WEB/away /", "ADD failed: Get \"WEB/away\""),
            (&format!("ADD --checksum={sum} WEB/plain /"), "ADD failed: digest mismatch sha256:"),
            (&format!("ADD --checksum={plain} WEB/plain /"), "invalid checksum digest length"),
            (&format!("ADD --checksum={sum} file /"), "checksum requires HTTP(S) or Git sources"),
            (
                &format!("ADD --checksum={sum} WEB/plain WEB/plain /"),
                "checksum can't be specified for multiple sources",
            ),
            ("COPY WEB/plain /", "COPY failed: source can't be a URL for COPY"),
            ("ADD WEB/x.git#main /", "ADD failed: failed to fetch remote WEB/x.git: git stderr:"),
        ] {
            let output = build(at, &image, &dockerfile(&server, &format!("{line}\n")));
            let wanted = wanted.replace("WEB", &format!("http://{}", server.host()));
            assert!(output.code == 1 && output.stderr.contains(&wanted), "{wanted} in {output:?}");
        }
    });
}

#[test]
fn privileged_buildx_adds_from_the_web() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("a foreign daemon may be in a network of its own");
        }
        let (server, image) = (server(), plugged.at.image("webx"));
        let directory = context(&[("Dockerfile", &dockerfile(&server, "ADD WEB/plain /plain\n"))]);
        let told = plugged.build(&image, &directory, "");
        assert!(told.contains(&format!("ADD http://{}/plain /plain\n", server.host())), "{told}");
        assert_eq!(plugged.at.run(&format!("{image} cat /plain")), "plain");
        plugged.at.ok(&format!("rmi {image}"));
        let directory = context(&[("Dockerfile", &dockerfile(&server, "ADD WEB/gone /plain\n"))]);
        let told = plugged.fails(&directory, "");
        assert!(told.ends_with("failed to load cache key: invalid response status 404\n"), "{told}");
    });
}
