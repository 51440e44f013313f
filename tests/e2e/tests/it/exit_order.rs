//! In which order clients hear of a container's end: its output first.

use std::io::{BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use testkit::http::{self, Response};
use testkit::process::DEADLINE;
use testkit::{Cli, Daemon};

use crate::support::{At, attach, demultiplex, ours};

/// Whether there is something to read within that time.
fn is_readable(stream: &UnixStream, within: Duration) -> bool {
    let within = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
    poll(&mut [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)], Some(&within)).unwrap() == 1
}

/// Asks for the end of a container; the answer has begun, and its body is still to come.
fn wait(daemon: &Daemon, name: &str) -> (Response, BufReader<UnixStream>) {
    let mut stream = http::connect(daemon.socket()).unwrap();
    let head = "HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    write!(stream, "POST /v1.50/containers/{name}/wait?condition=next-exit {head}").unwrap();
    let mut reader = BufReader::new(stream);
    let head = http::read_head(&mut reader).unwrap();
    (head, reader)
}

/// Whether the body has begun within that time.
fn is_told((_, reader): &(Response, BufReader<UnixStream>), within: Duration) -> bool {
    !reader.buffer().is_empty() || is_readable(reader.get_ref(), within)
}

/// One that says something and ends, with a client that has not read what it says; and who waits for its end.
fn spoken(at: &At<'_>, name: &str) -> (BufReader<UnixStream>, (Response, BufReader<UnixStream>)) {
    let output = attach(at, name);
    let waiting = wait(at.daemon, name);
    assert_eq!(at.daemon.post(&format!("/containers/{name}/start"), "").unwrap().status, 204);
    assert!(is_readable(output.get_ref(), DEADLINE), "{name} has said nothing");
    (output, waiting)
}

/// How long the news of an exit waits for who has not read yet: the shim's number.
const LINGERS: Duration = Duration::from_millis(100);

#[test]
fn privileged_wait_does_not_overtake_the_last_output() {
    // dockerd is merely slower.
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let name = at.name("quick");
        at.ok(&format!("create --network none --name {name} busybox echo hello"));
        for round in 0..200 {
            let begin = Instant::now();
            let (output, mut waiting) = spoken(&at, &name);
            // Late enough for the news to overtake it: without a client they come within two milliseconds.
            let told = is_told(&waiting, Duration::from_millis(10));
            // Who reads that late has been waited for long enough.
            assert!(!told || begin.elapsed() > LINGERS, "round {round}: told before the output was read");
            assert_eq!(demultiplex(output), b"hello\n");
            let answer = http::read_body(&mut waiting.1, &waiting.0).unwrap();
            assert_eq!(String::from_utf8(answer).unwrap().trim(), r#"{"StatusCode":0}"#);
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_who_never_reads_delays_the_exit_for_a_moment_only() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let name = at.name("unread");
        at.ok(&format!("create --network none --name {name} busybox echo hello"));
        let rounds: Vec<Duration> = (0..5)
            .map(|_| {
                let (mut output, mut waiting) = spoken(&at, &name);
                let begin = Instant::now();
                waiting.1.read_to_end(&mut Vec::new()).unwrap();
                let taken = begin.elapsed();
                // Late, but nothing is lost.
                let mut text = Vec::new();
                output.read_to_end(&mut text).unwrap();
                assert!(text.ends_with(b"hello\n"));
                taken
            })
            .collect();
        // A busy machine may be slow, but not in every round.
        assert!(rounds.iter().min().unwrap() < &Duration::from_millis(250), "{rounds:?}");
        at.remove(&name);
    });
}
