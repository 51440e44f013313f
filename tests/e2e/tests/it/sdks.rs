//! What SDKs rely on and command lines do not: found by their own test suites (`cargo xtask sdk`).

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use testkit::{Cli, Daemon, http, process};

use crate::support::{At, ours};

/// Runs `test` with one daemon, by the API alone.
fn with_daemon(test: impl Fn(&At<'_>)) {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    test(&At { daemon: &daemon, cli: Cli::Docker });
}

/// Makes an exec; answers its id.
fn exec(at: &At<'_>, name: &str, tty: bool, command: &[&str]) -> String {
    let command = serde_json::to_string(command).unwrap();
    let body = format!(r#"{{"AttachStdout":true,"AttachStderr":true,"Tty":{tty},"Cmd":{command}}}"#);
    let made = at.daemon.post(&format!("/containers/{name}/exec"), &body).unwrap();
    assert_eq!(made.status, 201, "{}", made.text());
    made.json().unwrap()["Id"].as_str().unwrap().to_owned()
}

/// Asks for its start as SDKs do.
fn start(stream: &mut UnixStream, id: &str, tty: bool) {
    let body = format!(r#"{{"Detach":false,"Tty":{tty}}}"#);
    write!(
        stream,
        "POST /v1.44/exec/{id}/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

#[test]
fn privileged_the_stream_of_an_exec_is_as_its_client_asks_at_the_start() {
    with_daemon(|at| {
        let name = at.name("streams");
        at.start(&name, "busybox sleep 1000");
        for (made_tty, started_tty, kind, bytes) in [
            (false, false, "multiplexed", &b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n"[..]),
            (true, true, "raw", b"out\r\nerr\r\n"),
            (true, false, "multiplexed", b"\x01\0\0\0\0\0\0\x05out\r\n\x01\0\0\0\0\0\0\x05err\r\n"),
            (false, true, "raw", b"out\n"),
        ] {
            // Between the two the first is read, or they come in one piece.
            let id = exec(at, &name, made_tty, &["sh", "-c", "echo out; read go < /go; echo err >&2"]);
            at.ok(&format!("exec {name} sh -c 'rm -f /go; mkfifo /go'"));
            let mut stream = http::connect(at.daemon.socket()).unwrap();
            start(&mut stream, &id, started_tty);
            let mut reader = BufReader::new(stream);
            let head = http::read_head(&mut reader).unwrap();
            let shown = format!("application/vnd.docker.{kind}-stream");
            assert_eq!((head.status, head.header("content-type")), (101, Some(shown.as_str())));
            let first = if kind == "raw" { 4 } else { 12 };
            let mut got = vec![0; first];
            reader.read_exact(&mut got).unwrap();
            at.ok(&format!("exec {name} sh -c 'echo > /go'"));
            reader.read_to_end(&mut got).unwrap();
            assert_eq!(got, bytes, "{made_tty} {started_tty}");
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_output_does_not_lie_beside_the_head_of_its_answer() {
    // docker-py reads the head with a buffer, and the rest without it. dockerd is so slow that nothing is in there.
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Docker };
        let name = at.name("heads");
        at.start(&name, "busybox sleep 1000");
        let ping = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n";
        let refused = "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nope\": executable \
                       file not found in $PATH\r\n";
        for (command, output) in [(&["echo", "out"][..], "out\n"), (&["nope"], refused)] {
            for kept in [false, true] {
                let id = exec(&at, &name, false, command);
                let mut stream = http::connect(at.daemon.socket()).unwrap();
                if kept {
                    // On a connection that has served another request the head is written sooner.
                    stream.write_all(ping).unwrap();
                    http::read_response(&mut BufReader::new(&stream)).unwrap();
                }
                start(&mut stream, &id, false);
                let ended = || {
                    let exec = at.daemon.get(&format!("/exec/{id}/json")).unwrap().json().unwrap();
                    (exec["ExitCode"].is_number()).then_some(())
                };
                process::until("the exec ends", process::DEADLINE, ended).unwrap();
                let mut buffer = [0; 8192];
                let count = stream.read(&mut buffer).unwrap();
                let head = String::from_utf8_lossy(&buffer[..count]);
                assert!(head.starts_with("HTTP/1.1 101 ") && head.ends_with("\r\n\r\n"), "{kept} {head:?}");
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).unwrap();
                assert_eq!(String::from_utf8_lossy(&rest[8..]), output, "{kept}");
            }
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_the_log_does_not_lie_beside_the_head_of_its_answer() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Docker };
        let name = at.name("logged");
        at.ok(&format!("run --network none --name {name} busybox echo out"));
        for _ in 0..10 {
            let mut stream = http::connect(at.daemon.socket()).unwrap();
            write!(
                stream,
                "POST /containers/{name}/attach?logs=1&stdout=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\n\
                 Upgrade: tcp\r\nContent-Length: 0\r\n\r\n"
            )
            .unwrap();
            let mut buffer = [0; 8192];
            let count = stream.read(&mut buffer).unwrap();
            let head = String::from_utf8_lossy(&buffer[..count]);
            assert!(head.starts_with("HTTP/1.1 101 ") && head.ends_with("\r\n\r\n"), "{head:?}");
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"\x01\0\0\0\0\0\0\x04out\n");
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_an_export_that_nobody_reads_holds_up_neither_commit_nor_pause() {
    with_daemon(|at| {
        let name = at.name("unread");
        at.start(&name, "busybox sh -c 'head -c 8000000 /dev/zero > /large; sleep 1000'");
        at.ok(&format!("exec {name} sh -c 'until [ $(stat -c %s /large) = 8000000 ]; do :; done'"));
        let mut stream = http::connect(at.daemon.socket()).unwrap();
        write!(stream, "GET /containers/{name}/export HTTP/1.1\r\nHost: docker\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        assert_eq!(http::read_head(&mut reader).unwrap().status, 200);
        let post = |path: &str| at.daemon.post(path, "").unwrap();
        let committed = post(&format!("/commit?container={name}"));
        assert_eq!(committed.status, 201, "{}", committed.text());
        assert_eq!(post(&format!("/containers/{name}/pause")).status, 204);
        assert_eq!(post(&format!("/containers/{name}/unpause")).status, 204);
        assert_eq!(post(&format!("/containers/{name}/stop?t=0")).status, 204);
        drop(reader);
        at.remove(&name);
        at.ok(&format!("rmi {}", committed.json().unwrap()["Id"].as_str().unwrap()));
    });
}

#[test]
fn privileged_a_container_that_ends_meanwhile_can_be_committed() {
    with_daemon(|at| {
        let name = at.name("brief");
        for _ in 0..20 {
            at.ok(&format!("create --network none --name {name} busybox touch /test"));
            let post = |path: &str| at.daemon.post(path, "").unwrap();
            assert_eq!(post(&format!("/containers/{name}/start")).status, 204);
            let committed = post(&format!("/commit?container={name}"));
            assert_eq!(committed.status, 201, "{}", committed.text());
            at.remove(&name);
            at.ok(&format!("rmi {}", committed.json().unwrap()["Id"].as_str().unwrap()));
        }
    });
}

#[test]
fn privileged_a_process_without_a_terminal_is_resized_to_no_effect() {
    with_daemon(|at| {
        let name = at.name("bare");
        at.start(&name, "busybox sleep 1000");
        let resized = at.daemon.post(&format!("/containers/{name}/resize?h=10&w=20"), "").unwrap();
        assert_eq!((resized.status, resized.text().as_str()), (200, ""));
        at.remove(&name);
    });
}

#[test]
fn privileged_a_runtime_is_shown_as_it_was_asked_for() {
    with_daemon(|at| {
        let name = at.name("named");
        for runtime in ["runc", "io.containerd.runc.v2"] {
            at.start(&name, &format!("--runtime {runtime} busybox sleep 1000"));
            assert_eq!(at.inspect(&name, "{{.HostConfig.Runtime}} {{.State.Running}}"), format!("{runtime} true"));
            at.remove(&name);
        }
    });
}
