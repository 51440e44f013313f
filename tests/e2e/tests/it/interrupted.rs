//! Commands that are interrupted while they wait: the status says by which signal, as with docker's client, and the shell
//! goes on with its line.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::process::Signal;
use testkit::images::plan::{Entry, Image, Kind};
use testkit::images::write::docker_archive;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Output, Piped};

use crate::support::{At, on_both};

/// What a daemon answers before it is asked for anything that takes time.
const INSPECT: &str = r#"{"Id":"x","Name":"/x","State":{"Running":false},"Config":{"Tty":false},"HostConfig":{}}"#;

/// A daemon that is asked and never answers: `asked` hears of it.
fn silent_daemon(socket: &Path) -> Receiver<()> {
    let (sender, asked) = channel();
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            // A client that goes is the end of a conversation, not of the test.
            std::thread::spawn(move || _ = converse(&stream, &sender));
        }
    });
    asked
}

fn converse(stream: &UnixStream, asked: &Sender<()>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while let Some(request) = lines.next() {
        let request = request?;
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let path = request.split(' ').nth(1).unwrap_or_default();
        let body = match path {
            _ if path.ends_with("/_ping") => "",
            _ if path.ends_with("/containers/x/json") => INSPECT,
            _ => {
                // The test may have what it wants already.
                let _ = asked.send(());
                continue;
            }
        };
        let head = "HTTP/1.1 200 OK\r\nApi-Version: 1.50\r\nOstype: linux\r\nServer: Docker/28.5.2 (linux)\r\n";
        write!(&mut &*stream, "{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}

/// Sends a signal to a command that waits for the silent daemon.
fn interrupted(at: &At<'_>, line: &str, signal: Signal) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("silent.sock");
    let file = scratch.path().join("file");
    fs::write(&file, [0; 10240]).unwrap();
    let asked = silent_daemon(&socket);
    let mut command = at.command(&line.replace("FILE", file.to_str().unwrap()));
    command.env_remove("DOCKER_CONTEXT").env("DOCKER_HOST", format!("unix://{}", socket.display()));
    println!("{line} ({signal:?})");
    let client = Piped::spawn(&mut command).unwrap();
    asked.recv_timeout(DEADLINE).expect("a request");
    client.signal(signal).unwrap();
    client.wait().unwrap()
}

#[test]
fn privileged_whoever_waits_for_a_daemon_ends_with_the_signals_status() {
    on_both(|at| {
        for line in [
            "load -i FILE",
            "import FILE x:y",
            "cp FILE x:/x",
            "cp x:/x FILE",
            "container prune -f",
            "image prune -f",
            "network prune -f",
            "system prune -f",
            "volume prune -f",
            "pull x",
        ] {
            for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
                let output = interrupted(at, line, signal);
                // Docker's client waits for SIGINT twice here, and by what comes first it is a signal or a request that was
                // cancelled, which is no error (docker/cli cli/command/container/cp.go, `copyFromContainer`).
                let may_succeed = at.cli == Cli::Docker && line == "cp x:/x FILE" && signal == Signal::INT;
                let ended = output.code == code || may_succeed && output.code == 0;
                assert!(ended, "{line} {signal:?}: {output:?}");
                // Docker's client may log that it could not pack the rest.
                let may_tell = at.cli == Cli::Docker && line == "cp FILE x:/x";
                assert!(may_tell || output.stderr.is_empty(), "{line} {signal:?}: {output:?}");
            }
        }
        let output = interrupted(at, "start x y", Signal::TERM);
        let said = |name: &str| format!("/containers/{name}/start\": \n");
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains(&said("x")) && output.stderr.contains(&said("y")), "{output:?}");
        assert!(output.stderr.ends_with("\nError: failed to start containers: x, y\n"), "{output:?}");
        // Docker's client goes on by itself to the registry, which it then cannot reach.
        if at.cli == Cli::Longshore {
            let output = interrupted(at, "login -u a -p b 127.0.0.1:1", Signal::INT);
            assert!(output.code == 130 && output.stderr.lines().count() == 1, "{output:?}");
        }
    });
}

#[test]
fn privileged_a_question_that_is_interrupted_is_answered_with_no() {
    on_both(|at| {
        for line in ["container prune", "image prune", "network prune", "system prune", "volume prune"] {
            for signal in [Signal::INT, Signal::TERM] {
                let mut client = at.spawn(line);
                client.read_until("[y/N] ").unwrap();
                client.signal(signal).unwrap();
                // The end of its input would be an answer, too.
                until("its end", DEADLINE, || client.ended().unwrap().then_some(())).unwrap();
                let output = client.wait().unwrap();
                assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{line} {signal:?}: {output:?}");
                assert!(output.stdout.ends_with('\n'), "{line} {signal:?}: {output:?}");
            }
        }
    });
}

/// An end of the answer alone would be taken for success.
#[test]
fn privileged_a_daemon_that_ends_amid_a_load_says_so() {
    let layer = vec![Entry::new("big", 0o644, Kind::File(vec![b'x'; 4_000_000]))];
    let image = Image { tag: "cut:1".into(), layers: vec![layer], command: vec!["/big".into()], volumes: vec![] };
    let archive = docker_archive(&image).unwrap();
    crate::support::ours(|daemon| {
        for cli in daemon.clis() {
            let mut load = At { daemon, cli }.spawn("load");
            load.send(&archive[..archive.len() / 2]).unwrap();
            // It has been heard of when the daemon reads it.
            until("a layer on its way", DEADLINE, || {
                let ingests = fs::read_dir(daemon.scratch().data_root().join("content/ingest")).ok()?;
                ingests.flatten().next().map(drop)
            })
            .unwrap();
            daemon.stop().unwrap();
            load.close_input();
            let output = load.wait().unwrap();
            assert_eq!((output.code, output.stderr.trim()), (1, "the daemon is shutting down"), "{cli:?}");
            daemon.restart().unwrap();
        }
    });
}
