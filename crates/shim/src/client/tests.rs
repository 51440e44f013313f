//! Clients without a container.

use super::*;
use std::io::Read;
use std::os::unix::net::UnixStream;

fn client(wants: Attach) -> (Client, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Client::new(ours.into(), wants, false), theirs)
}

/// Whether it is so already.
fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut polled = [rustix::event::PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).unwrap() == 1
}

#[test]
fn only_wanted_streams_are_framed_and_end_with_the_end() {
    let (mut client, mut theirs) = client(Attach { stdout: true, ..Attach::default() });
    client.send(Stream::Stdout, b"out", true, Path::new("/"));
    client.send(Stream::Stderr, b"err", true, Path::new("/"));
    client.finish();
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"\x01\0\0\0\0\0\0\x03out");
    client.greeted();
    assert!(client.is_gone());
}

#[test]
fn the_exit_waits_a_moment_for_who_has_not_read() {
    let (mut client, mut theirs) = client(Attach { stdout: true, ..Attach::default() });
    client.send(Stream::Stdout, b"out", false, Path::new("/"));
    let now = Instant::now();
    assert_eq!(client.delays_exit_until(now), None);
    client.finish();
    let until = client.delays_exit_until(now).unwrap();
    assert!(until >= now + LINGERS && until <= Instant::now() + LINGERS);
    assert!(client.interest(true).is_none() && !is_readable(client.awaited().unwrap()));
    // Half of it is not all of it.
    theirs.read_exact(&mut [0; 2]).unwrap();
    client.greeted();
    assert!(!client.is_gone());
    client.give_up(until);
    assert!(client.is_gone() && client.delays_exit_until(now).is_none());
    assert_eq!(theirs.read(&mut [0; 2]).unwrap(), 1);
}

#[test]
fn the_exit_waits_for_nobody_who_has_read() {
    let (mut client, mut theirs) = client(Attach { stdout: true, ..Attach::default() });
    client.send(Stream::Stdout, b"out", false, Path::new("/"));
    theirs.read_exact(&mut [0; 3]).unwrap();
    client.finish();
    assert!(client.is_gone());
}

#[test]
fn the_exit_waits_no_longer_for_who_hangs_up() {
    let (mut client, theirs) = client(Attach { stdout: true, ..Attach::default() });
    client.send(Stream::Stdout, b"out", false, Path::new("/"));
    client.finish();
    drop(theirs);
    assert!(is_readable(client.awaited().unwrap()));
    client.greeted();
    assert!(client.is_gone());
}

#[test]
fn output_comes_when_the_head_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let head = Attach { stdout: true, preamble: b"head".to_vec(), ..Attach::default() };
    let (mut client, mut theirs) = client(head);
    client.greet(dir.path());
    assert!(client.awaited().is_none());
    client.send(Stream::Stdout, b"out", true, dir.path());
    client.finish();
    // There is room, but that is not what it waits for.
    assert!(!client.interest(true).unwrap().contains(PollFlags::OUT) && !client.is_gone());
    assert!(!is_readable(client.awaited().unwrap()));
    let mut buffer = [0; 64];
    assert_eq!(theirs.read(&mut buffer).unwrap(), 4);
    assert!(is_readable(client.awaited().unwrap()));
    client.greeted();
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"\x01\0\0\0\0\0\0\x03out");
    client.greeted();
    assert!(client.is_gone() && client.awaited().is_none());
}

#[test]
fn who_reads_nothing_after_the_end_is_given_up_late() {
    let dir = tempfile::tempdir().unwrap();
    let (mut client, theirs) = client(Attach { stdout: true, ..Attach::default() });
    for _ in 0..10 {
        client.send(Stream::Stdout, &[7; 1 << 20], false, dir.path());
    }
    let begin = Instant::now();
    client.finish();
    let deadline = client.stall_deadline().unwrap();
    assert!(deadline >= begin + ABANDONED_AFTER && !client.holds_up());
    client.give_up(deadline - Duration::from_millis(1));
    assert!(!client.is_gone());
    client.give_up(deadline);
    assert!(client.is_gone());
    drop(theirs);
}

#[test]
fn what_is_left_stays_in_the_socket_when_we_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut client, mut theirs) = client(Attach { stdout: true, ..Attach::default() });
    let sent: Vec<u8> = (0..5_000_000_u32).map(|n| n as u8).collect();
    for piece in sent.chunks(100_000) {
        client.send(Stream::Stdout, piece, false, dir.path());
    }
    client.finish();
    client.give_up(client.stall_deadline().unwrap());
    assert!(client.is_gone());
    drop(client);
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).unwrap();
    assert!(got == sent);
}

#[test]
fn who_is_held_gets_everything_at_its_release() {
    let dir = tempfile::tempdir().unwrap();
    let (mut client, mut theirs) = client(Attach { stdout: true, stdin: true, hold: Some(7), ..Attach::default() });
    client.send(Stream::Stdout, b"one", true, dir.path());
    client.finish();
    theirs.set_nonblocking(true).unwrap();
    assert!(theirs.read(&mut [0; 10]).is_err() && client.interest(true).is_none_or(|flags| flags.is_empty()));
    assert!(!client.release(8, b"") && !client.is_gone());
    assert!(client.release(7, b"input"));
    assert!(matches!(client.take_already_read(), Received::Input(bytes) if bytes == b"input"));
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"\x01\0\0\0\0\0\0\x03one");
    client.greeted();
    assert!(client.is_gone() && !client.release(7, b""));
}

#[test]
fn who_is_not_released_is_let_go() {
    let (mut client, theirs) = client(Attach { stdout: true, hold: Some(7), ..Attach::default() });
    client.send(Stream::Stdout, b"one", true, Path::new("/"));
    let deadline = client.stall_deadline().unwrap();
    assert!(client.delays_exit_until(Instant::now()).is_some_and(|until| until < deadline));
    client.give_up(deadline);
    assert!(client.is_gone() && !client.release(7, b""));
    drop(theirs);
}

#[test]
fn what_a_slow_client_has_not_read_is_kept_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (mut client, mut theirs) = client(Attach { stderr: true, ..Attach::default() });
    let sent: Vec<u8> = (0..2_000_000_u32).map(|n| n as u8).collect();
    for piece in sent.chunks(10_007) {
        client.send(Stream::Stderr, piece, false, dir.path());
    }
    client.finish();
    let (mut got, mut buffer) = (Vec::new(), [0; 65_536]);
    while !client.is_gone() {
        let count = theirs.read(&mut buffer).unwrap();
        got.extend_from_slice(&buffer[..count]);
        client.greeted();
    }
    theirs.read_to_end(&mut got).unwrap();
    assert!(got == sent);
}
