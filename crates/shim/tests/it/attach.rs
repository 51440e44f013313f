//! Clients of the container's streams.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use shim_api::{Answer, Attach, Call, Fact};

use crate::fixture::{Shim, everything, output};

#[test]
fn privileged_streams_are_told_apart() {
    let mut shim = Shim::new("echo out; echo err >&2");
    shim.create();
    let mut both = shim.daemon.attach(output());
    let mut errors = shim.daemon.attach(Attach { stderr: true, ..Attach::default() });
    shim.start();
    assert_eq!(both.rest_unframed(), ("out\n".into(), "err\n".into()));
    assert_eq!(errors.rest_unframed(), (String::new(), "err\n".into()));
    assert_eq!(shim.finish().exit_code, 0);
}

#[test]
fn privileged_a_greeting_comes_before_everything_else() {
    let mut shim = Shim::new("echo out");
    shim.create();
    let mut client = shim.daemon.attach(Attach { preamble: b"HTTP/1.1 101\r\n\r\n".to_vec(), ..output() });
    shim.start();
    let mut bytes = Vec::new();
    client.0.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"HTTP/1.1 101\r\n\r\n\x01\0\0\0\0\0\0\x04out\n");
    assert_eq!(shim.finish().exit_code, 0);
}

#[test]
fn privileged_input_goes_in_and_its_end_too() {
    let mut shim = Shim::new("cat");
    (shim.task.open_stdin, shim.task.stdin_once) = (true, true);
    shim.create();
    let mut client = shim.daemon.attach(Attach { already_read: b"first ".to_vec(), ..everything() });
    shim.start();
    let text = "more than a pipe holds ".repeat(20_000);
    let mut writer = client.0.try_clone().unwrap();
    let input = text.clone();
    let thread = std::thread::spawn(move || {
        writer.write_all(input.as_bytes()).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let (out, _) = client.rest_unframed();
    thread.join().unwrap();
    assert!(out == format!("first {text}"), "{} bytes", out.len());
    assert_eq!(shim.finish().exit_code, 0);
}

#[test]
fn privileged_a_client_that_never_reads_delays_nobody() {
    // Ten megabytes: more than sockets and memory hold.
    let mut shim = Shim::new("yes 0123456789abcde | head -c 10000000");
    shim.create();
    let mut idle = shim.daemon.attach(output());
    let mut busy = shim.daemon.attach(output());
    shim.start();
    assert_eq!(busy.rest_unframed().0.len(), 10_000_000);
    assert_eq!(shim.daemon.exited().exit_code, 0);
    // Nor does it lose anything, once it reads.
    assert_eq!(idle.rest_unframed().0.len(), 10_000_000);
    shim.wait();
}

#[test]
fn privileged_a_client_that_never_reads_keeps_no_shim() {
    let mut shim = Shim::new("yes 0123456789abcde | head -c 4000000");
    shim.create();
    let mut idle = shim.daemon.attach(output());
    shim.start();
    assert_eq!(shim.finish().exit_code, 0);
    // It is never too late to read.
    assert_eq!(idle.rest_unframed().0.len(), 4_000_000);
}

#[test]
fn privileged_who_is_held_gets_what_the_log_will_have_later() {
    let mut shim = Shim::new("printf begun; read a; echo late >&2; read a; echo end");
    let path = shim.dir.path().join("json.log");
    shim.task.log = Some(shim_api::LogTarget { path: path.clone(), max_files: 1, ..Default::default() });
    shim.task.open_stdin = true;
    shim.create();
    let mut typist = shim.daemon.attach(everything());
    shim.start();
    typist.await_text("begun");
    typist.0.write_all(b"go\n").unwrap();
    typist.await_text("late");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut held = crate::fixture::Client::new(ours);
    let seq = shim.daemon.send(Call::Attach(Attach { hold: Some(5), ..output() }), &[theirs.as_fd()]);
    let Ok(Answer::Held { logged_until_nanos: Some(_) }) = shim.daemon.reply(seq) else { panic!("it is not held") };
    // What the answer speaks of can be read.
    assert!(std::fs::read_to_string(&path).unwrap().contains(r#"{"log":"late\n","stream":"stderr""#));
    let release = |hold| Call::Release { hold, already_read: Vec::new() };
    assert!(shim.daemon.call(release(4)).is_err());
    assert_eq!(shim.daemon.call(release(5)), Ok(Answer::Done));
    drop(theirs);
    typist.0.write_all(b"go\n").unwrap();
    assert_eq!(held.rest_unframed(), ("begunend\n".into(), String::new()));
    assert_eq!(shim.finish().exit_code, 0);
}

#[test]
fn privileged_a_terminal_has_a_size_and_detaches() {
    let mut shim = Shim::new("echo ready; read a; stty size; read b; exit 6");
    shim.task.spec.process.terminal = true;
    shim.task.open_stdin = true;
    shim.create();
    let keys = Attach { detach_keys: vec![16, 17], ..everything() };
    let mut client = shim.daemon.attach(keys.clone());
    shim.start();
    client.await_text("ready");
    let resize = Call::Resize { exec_id: None, height: 33, width: 77 };
    assert_eq!(shim.daemon.call(resize), Ok(Answer::Done));
    client.0.write_all(b"go\n").unwrap();
    client.await_text("33 77");
    client.0.write_all(&[16]).unwrap();
    client.0.write_all(&[17]).unwrap();
    client.rest();
    assert!(matches!(shim.daemon.fact(), Fact::Detached { exec_id: None, .. }));
    let mut second = shim.daemon.attach(keys);
    second.0.write_all(b"end\n").unwrap();
    assert_eq!(shim.finish().exit_code, 6);
}
