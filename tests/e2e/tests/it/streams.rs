//! What clients of the API get of attach and exec, byte for byte.

use std::io::{BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, http};

use crate::support::{At, on_both, ours};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";

/// Runs `test` with one daemon, ours or Docker's.
fn once(test: impl Fn(&At<'_>)) {
    if !testkit::skip::without_root() {
        let daemon = Daemon::with_busybox().unwrap();
        let cli = daemon.clis()[0];
        test(&At { daemon: &daemon, cli });
    }
}

/// Sends a request on a connection; what it becomes is read from the answer.
fn send(stream: &mut UnixStream, method: &str, path: &str, headers: &str, body: &str) {
    let length = body.len();
    let head = format!(
        "{method} /v1.51{path} HTTP/1.1\r\nHost: docker\r\n{headers}Content-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
}

/// A connection that was upgraded, and the type of its stream.
fn hijack(daemon: &Daemon, path: &str, body: &str) -> (BufReader<UnixStream>, String) {
    let mut stream = http::connect(daemon.socket()).unwrap();
    send(&mut stream, "POST", path, UPGRADE, body);
    let mut reader = BufReader::new(stream);
    let head = http::read_head(&mut reader).unwrap();
    assert_eq!(head.status, 101, "{path}");
    let kind = head.header("content-type").unwrap().rsplit_once('.').unwrap().1.to_owned();
    (reader, kind)
}

/// Output and error of a multiplexed stream, as far as they came.
fn parted(mut bytes: &[u8]) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if head[0] == 1 { &mut out } else { &mut err }.extend_from_slice(&rest[..length.min(rest.len())]);
        bytes = rest.get(length..).unwrap_or_default();
    }
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn post(daemon: &Daemon, path: &str, body: &str) -> http::Response {
    http::request(daemon.socket(), "POST", &format!("/v1.51{path}"), Some(body)).unwrap()
}

/// Makes an exec; answers its id.
fn exec(daemon: &Daemon, name: &str, body: &str) -> String {
    let made = post(daemon, &format!("/containers/{name}/exec"), body);
    assert_eq!(made.status, 201, "{body}: {}", made.text());
    made.json().unwrap()["Id"].as_str().unwrap().to_owned()
}

fn inspect(daemon: &Daemon, id: &str) -> Value {
    daemon.get(&format!("/exec/{id}/json")).unwrap().json().unwrap()
}

/// What comes of a whole exec: its stream, the type of it, and its inspection afterwards.
fn run(daemon: &Daemon, name: &str, body: &str, start: &str) -> (Vec<u8>, String, Value) {
    let id = exec(daemon, name, body);
    let (mut reader, kind) = hijack(daemon, &format!("/exec/{id}/start"), start);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    let ended = || Some(inspect(daemon, &id)).filter(|shown| shown["Running"] == false);
    (bytes, kind, until("it has ended", DEADLINE, ended).unwrap())
}

#[test]
fn privileged_attach_with_logs_misses_nothing_and_gets_nothing_twice() {
    // dockerd loses what comes between both.
    ours(|daemon| {
        let daemon: &Daemon = daemon;
        let at = At { daemon, cli: Cli::Longshore };
        for driver in ["json-file", "local"] {
            let name = at.name(driver);
            let script = "printf begin; seq 400000; seq 400001 700000; sleep 1000";
            at.ok(&format!("run -d --network none --log-driver {driver} --name {name} busybox sh -c '{script}'"));
            let expected: String =
                std::iter::once("begin".to_owned()).chain((1..=700_000).map(|n| format!("{n}\n"))).collect();
            std::thread::scope(|scope| {
                for _ in 0..6 {
                    let path = format!("/containers/{name}/attach?logs=1&stream=1&stdout=1&stderr=1");
                    let (mut reader, _) = hijack(daemon, &path, "");
                    let expected = &expected;
                    scope.spawn(move || {
                        let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 16]);
                        while !bytes.ends_with(b"700000\n") {
                            let count = reader.read(&mut piece).unwrap();
                            assert!(count > 0, "the stream ends too early");
                            bytes.extend_from_slice(&piece[..count]);
                        }
                        let (out, err) = parted(&bytes);
                        let wrong = out.lines().zip(expected.lines()).position(|(got, wanted)| got != wanted);
                        assert!(out == *expected && err.is_empty(), "{} bytes, line {wrong:?} differs", out.len());
                    });
                }
            });
            at.remove(&name);
        }
    });
}

#[test]
fn privileged_attach_with_logs_waits_for_the_start_like_any_other() {
    once(|at| {
        let name = at.name("again");
        at.ok(&format!("create --network none --name {name} busybox echo word"));
        at.ok(&format!("start {name}"));
        at.ok(&format!("wait {name}"));
        let path = format!("/containers/{name}/attach?logs=1&stream=1&stdout=1");
        let (mut reader, _) = hijack(at.daemon, &path, "");
        let mut first = [0; 13];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(parted(&first).0, "word\n");
        at.ok(&format!("start {name}"));
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(parted(&rest).0, "word\n");
        at.remove(&name);
    });
}

#[test]
fn privileged_attach_with_logs_ends_with_a_run_that_was_over_before_it_was_read() {
    once(|at| {
        let name = at.name("slow");
        at.ok(&format!("create --network none --name {name} busybox seq 700000"));
        at.ok(&format!("start {name}"));
        at.ok(&format!("wait {name}"));
        let path = format!("/containers/{name}/attach?logs=1&stream=1&stdout=1");
        let (mut reader, _) = hijack(at.daemon, &path, "");
        // More than what fits between both of us: the daemon is still sending the log when the second run is over.
        let mut bytes = vec![0; 16];
        reader.read_exact(&mut bytes).unwrap();
        at.ok(&format!("start {name}"));
        at.ok(&format!("wait {name}"));
        reader.read_to_end(&mut bytes).unwrap();
        let run: String = (1..=700_000).map(|n| format!("{n}\n")).collect();
        let (out, _) = parted(&bytes);
        assert!(out == run.repeat(2), "{} bytes", out.len());
        at.remove(&name);
    });
}

/// The headers of a web socket's handshake.
const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A short frame as clients send it, with a mask of zeros.
fn masked(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x80 | kind, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

#[test]
fn privileged_a_web_socket_attaches() {
    once(|at| {
        let name = at.name("ws");
        at.ok(&format!("run -di --network none --name {name} busybox sh -c 'read a; echo $a; read a; echo $a >&2'"));
        for used in [false, true] {
            let mut stream = http::connect(at.daemon.socket()).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            if used {
                send(&mut stream, "GET", "/_ping", "", "");
                assert_eq!(http::read_response(&mut reader).unwrap().status, 200);
            }
            let path = format!("/containers/{name}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1");
            send(&mut stream, "GET", &path, HANDSHAKE, "");
            let head = http::read_head(&mut reader).unwrap();
            assert_eq!(head.status, 101);
            assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            stream.write_all(&[masked(9, b"there?"), masked(1, b"wo"), masked(2, b"rd\n")].concat()).unwrap();
            let (pong, word, end) = (b"\x8a\x06there?", b"\x82\x05word\n", b"\x88\x02\x03\xe8");
            // Both come from different sides.
            let mut got = vec![0; pong.len() + word.len()];
            reader.read_exact(&mut got).unwrap();
            assert!(got == [&pong[..], word].concat() || got == [&word[..], pong].concat(), "{got:?}");
            if used {
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest).unwrap();
                assert_eq!(rest, end);
            }
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_what_is_no_web_socket_is_refused() {
    once(|at| {
        let name = at.name("ws");
        at.ok(&format!("run -d --network none --name {name} busybox sleep 1000"));
        for (query, headers, status, text) in [
            ("stream=1", "", 400, "not websocket protocol"),
            ("stream=1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", 400, "mismatch challenge/response"),
            ("stream=1&detachKeys=foo", HANDSHAKE, 400, "{\"message\":\"Invalid detach keys (foo) provided\"}\n"),
        ] {
            let mut stream = http::connect(at.daemon.socket()).unwrap();
            send(&mut stream, "GET", &format!("/containers/{name}/attach/ws?{query}"), headers, "");
            let answer = http::read_response(&mut BufReader::new(stream)).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (status, text));
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_a_connection_that_served_requests_can_be_upgraded() {
    once(|at| {
        let name = at.name("used");
        at.ok(&format!("run -di --network none --name {name} busybox cat"));
        let used = || {
            let mut stream = http::connect(at.daemon.socket()).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for _ in 0..2 {
                send(&mut stream, "GET", "/_ping", "", "");
                assert_eq!(http::read_response(&mut reader).unwrap().status, 200);
            }
            (stream, reader)
        };
        let all = r#""AttachStdin":true,"AttachStdout":true,"AttachStderr":true"#;
        for (script, out, code) in [("cat; exit 3", "out one\ntwo\n", 3), ("exit 4", "out one\n", 4)] {
            let command = format!(r#"{{{all},"Cmd":["sh","-c","echo out one; {script}"]}}"#);
            let id = exec(at.daemon, &name, &command);
            let (mut stream, mut reader) = used();
            send(&mut stream, "POST", &format!("/exec/{id}/start"), UPGRADE, "{}");
            // What is sent before the answer is read counts, too; dockerd drops it.
            if at.daemon.is_foreign() {
                assert_eq!(http::read_head(&mut reader).unwrap().status, 101);
            }
            // It may have ended by itself.
            let _ = stream.write_all(b"two\n");
            if !at.daemon.is_foreign() {
                assert_eq!(http::read_head(&mut reader).unwrap().status, 101);
            }
            let _ = stream.shutdown(Shutdown::Write);
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            assert_eq!(parted(&bytes), (out.to_owned(), String::new()));
            let exit_code = || Some(inspect(at.daemon, &id)["ExitCode"].clone()).filter(|code| !code.is_null());
            assert_eq!(until("it has ended", DEADLINE, exit_code).unwrap(), code);
        }
        let id = exec(at.daemon, &name, &format!(r#"{{{all},"Cmd":["nosuch"]}}"#));
        let (mut stream, mut reader) = used();
        send(&mut stream, "POST", &format!("/exec/{id}/start"), UPGRADE, "{}");
        assert_eq!(http::read_head(&mut reader).unwrap().status, 101);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(parted(&bytes).0.contains("executable file not found"), "{bytes:?}");
        let (mut stream, mut reader) = used();
        send(&mut stream, "POST", &format!("/containers/{name}/attach?stream=1&stdin=1&stdout=1"), UPGRADE, "");
        assert_eq!(http::read_head(&mut reader).unwrap().status, 101);
        stream.write_all(b"echo\n").unwrap();
        let mut bytes = [0; 13];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(parted(&bytes).0, "echo\n");
        at.remove(&name);
    });
}

#[test]
fn privileged_whoever_has_read_the_answer_on_a_used_connection_misses_nothing() {
    once(|at| {
        let name = at.name("feeds");
        at.ok(&format!("run -di --network none --name {name} busybox cat"));
        let (feeder, _) = hijack(at.daemon, &format!("/containers/{name}/attach?stream=1&stdin=1"), "");
        let mut feed = feeder.get_ref();
        for number in 10..30 {
            let mut stream = http::connect(at.daemon.socket()).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            send(&mut stream, "GET", "/_ping", "", "");
            http::read_response(&mut reader).unwrap();
            send(&mut stream, "POST", &format!("/containers/{name}/attach?stream=1&stdout=1"), UPGRADE, "");
            assert_eq!(http::read_head(&mut reader).unwrap().status, 101);
            feed.write_all(format!("{number}\n").as_bytes()).unwrap();
            let mut bytes = [0; 11];
            reader.read_exact(&mut bytes).unwrap();
            assert_eq!(parted(&bytes).0, format!("{number}\n"));
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_execs_answer_as_dockerds_do() {
    once(|at| {
        let (daemon, name) = (at.daemon, at.name("answers"));
        at.ok(&format!("run -d --network none --name {name} busybox sleep 1000"));
        for (body, status, message) in [
            (r#"{"Cmd":["true"],"DetachKeys":"foo"}"#, 500, "Invalid escape keys (foo) provided"),
            (r#"{"Cmd":["true"],"User":"99999999999"}"#, 400, "uids and gids must be in range 0-2147483647"),
            (r#"{"Cmd":[]}"#, 400, "No exec command specified"),
        ] {
            let answer = post(daemon, &format!("/containers/{name}/exec"), body);
            assert_eq!((answer.status, answer.message().as_str()), (status, message), "{body}");
        }
        let prefix = "OCI runtime exec failed: exec failed:";
        let mount = "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path \
                     exists and is the expected type";
        let file = "unable to start container process: chdir to cwd (\"/etc/passwd\") set in config.json failed";
        for (dir, text, code) in [
            ("tmp", format!("{prefix} Cwd must be an absolute path\r\n"), 128),
            ("/etc/passwd", format!("{prefix} {file}: not a directory: {mount}\r\n"), 127),
        ] {
            let body = format!(r#"{{"AttachStdout":true,"Cmd":["pwd"],"WorkingDir":"{dir}"}}"#);
            let (bytes, _, after) = run(daemon, &name, &body, "{}");
            assert_eq!((parted(&bytes).0, &after["ExitCode"]), (text, &Value::from(code)), "{dir}");
        }
        // Who starts it says how its stream looks.
        let tty = r#"{"AttachStdout":true,"Tty":true,"Cmd":["tty"]}"#;
        let (bytes, kind, _) = run(daemon, &name, tty, r#"{"Tty":false}"#);
        assert_eq!((parted(&bytes).0.as_str(), kind.as_str()), ("/dev/pts/0\r\n", "multiplexed-stream"));
        let (bytes, kind, _) = run(daemon, &name, r#"{"AttachStdout":true,"Cmd":["tty"]}"#, r#"{"Tty":true}"#);
        assert_eq!((bytes.as_slice(), kind.as_str()), (&b"not a tty\n"[..], "raw-stream"));
        at.remove(&name);
    });
}

#[test]
fn privileged_execs_can_be_looked_at_and_resized_as_dockerds() {
    once(|at| {
        let (daemon, name) = (at.daemon, at.name("looks"));
        at.ok(&format!("run -d --network none --name {name} busybox sleep 1000"));
        let keys = r#"{"Cmd":["sleep","1000"],"AttachStdout":true,"DetachKeys":"x,ctrl-a"}"#;
        let id = exec(daemon, &name, keys);
        assert_eq!(inspect(daemon, &id)["DetachKeys"], "eAE=");
        let ids = || daemon.get(&format!("/containers/{name}/json")).unwrap().json().unwrap()["ExecIDs"].clone();
        assert_eq!(ids(), Value::from(vec![id.clone()]));
        let size = |path: &str| {
            let answer = post(daemon, &format!("{path}/resize?h=20&w=30"), "");
            (answer.status, answer.message())
        };
        let (reader, _) = hijack(daemon, &format!("/exec/{id}/start"), "{}");
        until("it runs", DEADLINE, || (inspect(daemon, &id)["Pid"] != 0).then_some(())).unwrap();
        // Without a terminal there is nothing to do.
        assert_eq!(size(&format!("/exec/{id}")), (200, String::new()));
        assert_eq!(size(&format!("/containers/{name}")), (200, String::new()));
        drop(reader);
        let ended = exec(daemon, &name, r#"{"Cmd":["true"],"AttachStdout":true,"Tty":true}"#);
        let (mut reader, _) = hijack(daemon, &format!("/exec/{ended}/start"), r#"{"Tty":true}"#);
        reader.read_to_end(&mut Vec::new()).unwrap();
        until("it ended", DEADLINE, || (inspect(daemon, &ended)["Running"] == false).then_some(())).unwrap();
        let sentence = format!("NotFound: process does not exist {ended}: not found");
        assert_eq!(size(&format!("/exec/{ended}")), (404, sentence));
        // What was not started ends with the container.
        let waits = exec(daemon, &name, r#"{"Cmd":["true"]}"#);
        at.ok(&format!("kill {name}"));
        let gone = format!("No such exec instance: {waits}");
        let answer = until("it is gone", DEADLINE, || {
            let answer = post(daemon, &format!("/exec/{waits}/start"), "{}");
            (answer.status == 404).then_some(answer)
        });
        assert_eq!(answer.unwrap().message(), gone);
        at.remove(&name);
    });
}

#[test]
fn privileged_two_hundred_execs_at_once_all_say_what_they_have_to_say() {
    ours(|daemon| {
        let daemon: &Daemon = daemon;
        let at = At { daemon, cli: Cli::Longshore };
        let name = at.name("many");
        at.ok(&format!("run -d --network none --name {name} busybox sleep 1000"));
        let one = |number: usize| {
            let script = format!("echo out {number}; echo err {number} >&2; exit {}", number % 100);
            let body = format!(r#"{{"AttachStdout":true,"AttachStderr":true,"Cmd":["sh","-c","{script}"]}}"#);
            let (bytes, _, after) = run(daemon, &name, &body, "{}");
            let (out, err) = parted(&bytes);
            assert_eq!((out, err), (format!("out {number}\n"), format!("err {number}\n")));
            assert_eq!((&after["ExitCode"], &after["Running"]), (&Value::from(number % 100), &Value::from(false)));
        };
        one(0);
        let top = at.ok(&format!("top {name}")).lines().count();
        let shim = at.inspect(&name, "{{.State.Pid}}").parse::<u32>().unwrap();
        let shim = std::fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
        let shim = shim.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned();
        let open = |pid: &str| std::fs::read_dir(Path::new("/proc").join(pid).join("fd")).unwrap().count();
        let daemon_pid = daemon.pid().unwrap().to_string();
        let before = (open(&daemon_pid), open(&shim));
        std::thread::scope(|scope| (0..200).for_each(|number| _ = scope.spawn(move || one(number))));
        until("descriptors are closed", DEADLINE, || {
            // One more of the shim: a container that has run for a moment is watched for want of memory.
            (open(&daemon_pid) <= before.0 && open(&shim) <= before.1 + 1).then_some(())
        })
        .unwrap();
        assert_eq!(at.ok(&format!("top {name}")).lines().count(), top);
        at.remove(&name);
    });
}

#[test]
fn privileged_clients_attach_side_by_side_and_without_input() {
    on_both(|at| {
        let name = at.name("several");
        let script = "exec 3<&0; while read a <&3; do echo got $a; done & while :; do echo tick; usleep 20000; done";
        at.ok(&format!("run -di --network none --name {name} busybox sh -c '{script}'"));
        let mut watchers: Vec<_> = (0..3).map(|_| at.spawn(&format!("attach --no-stdin {name}"))).collect();
        for watcher in &mut watchers {
            watcher.read_until("tick\n").unwrap();
            watcher.send(b"nothing\n").unwrap();
        }
        let mut typist = at.spawn(&format!("attach {name}"));
        typist.read_until("tick\n").unwrap();
        typist.send(b"one\n").unwrap();
        for watcher in &mut watchers {
            let seen = watcher.read_until("got one\n").unwrap();
            assert!(!seen.contains("nothing"), "{seen}");
        }
        typist.read_until("got one\n").unwrap();
        at.ok(&format!("kill {name}"));
        for watcher in watchers {
            assert!(!watcher.wait().unwrap().stdout.contains("nothing"));
        }
        at.remove(&name);
    });
}
