//! From Create to the shim's own end.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use shim_api::{Answer, Call, ExitRecord, Fact, VERSION};

use crate::fixture::{Shim, output};

#[test]
fn privileged_a_container_runs_and_its_exit_is_recorded_and_told() {
    let mut shim = Shim::new("exit 3");
    shim.create();
    assert!(!shim.cgroups().is_empty());
    let state = shim.start();
    let recorded = std::fs::read(shim.run_dir().join("state.json")).unwrap();
    assert_eq!(serde_json::from_slice::<shim_api::RunState>(&recorded).unwrap(), state);
    assert!(state.started && state.pid_start_ticks > 0 && state.started_at_nanos > 0);
    let exit = shim.finish();
    assert_eq!((exit.exit_code, exit.oom_killed), (3, false));
    assert!(exit.exited_at_nanos >= exit.started_at_nanos);
    let recorded = std::fs::read(shim.run_dir().join("exit.json")).unwrap();
    assert_eq!(serde_json::from_slice::<ExitRecord>(&recorded).unwrap(), exit);
}

#[test]
fn privileged_pipelined_requests_are_answered_in_order() {
    let mut shim = Shim::new("echo hello");
    let create = Call::Create(Box::new(shim.task.clone()));
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    shim.daemon.send(Call::Hello { version: VERSION }, &[]);
    shim.daemon.send(create, &[]);
    shim.daemon.send(Call::Attach(output()), &[std::os::fd::AsFd::as_fd(&theirs)]);
    let start = shim.daemon.send(Call::Start, &[]);
    drop(theirs);
    assert!(matches!(shim.daemon.reply(start), Ok(Answer::Started(_))));
    assert_eq!(crate::fixture::Client::new(ours).rest_unframed(), ("hello\n".into(), String::new()));
    assert_eq!(shim.finish().exit_code, 0);
}

#[test]
fn privileged_a_container_is_born_into_its_network_and_its_ports_are_held_until_it_ends() {
    let namespace = std::thread::spawn(|| {
        sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    let namespace = namespace.join().unwrap();
    let (mut held, theirs) = UnixStream::pair().unwrap();
    held.set_nonblocking(true).unwrap();
    let mut shim = Shim::new("read line");
    shim.task.open_stdin = true;
    shim.task.joins_network = true;
    let create = Call::Create(Box::new(shim.task.clone()));
    let create = shim.daemon.send(create, &[namespace.as_fd(), theirs.as_fd()]);
    assert!(matches!(shim.daemon.reply(create), Ok(Answer::Created { .. })));
    drop(theirs);
    let hello = shim.daemon.call(Call::Hello { version: VERSION });
    assert!(hello.is_ok());
    let state = shim.start();
    let own = std::fs::metadata(format!("/proc/{}/ns/net", state.pid)).unwrap().ino();
    assert_eq!(own, namespace.metadata().unwrap().ino());
    assert_eq!(held.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    shim.daemon.call(Call::Signal { signal: 9 }).unwrap();
    assert_eq!(shim.daemon.exited().exit_code, 137);
    assert_eq!(held.read(&mut [0]).unwrap(), 0, "who hears of the end finds the ports free");
    shim.wait();
}

#[test]
fn privileged_every_daemon_is_lent_what_is_kept_for_it_until_the_end() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut shim = Shim::new("read line");
    (shim.task.open_stdin, shim.task.lends) = (true, 2);
    let missing = shim.daemon.send(Call::Create(Box::new(shim.task.clone())), &[theirs.as_fd()]);
    assert_eq!(shim.daemon.reply(missing).unwrap_err().kind, errdefs::ErrorKind::InvalidArgument);
    let mut shim = Shim::new("read line");
    (shim.task.open_stdin, shim.task.lends) = (true, 1);
    let create = shim.daemon.send(Call::Create(Box::new(shim.task.clone())), &[theirs.as_fd()]);
    assert!(matches!(shim.daemon.reply(create), Ok(Answer::Created { .. })));
    drop(theirs);
    shim.start();
    // What is kept later takes the place of what was kept before.
    for text in [&b"first"[..], b"second"] {
        let mut later = shim.connect();
        assert_eq!(later.call(Call::Lend), Ok(Answer::Lent { descriptors: 1 }));
        let mut lent = UnixStream::from(later.descriptors.pop().unwrap());
        std::io::Write::write_all(&mut lent, text).unwrap();
        let mut buffer = [0; 16];
        let count = ours.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], text);
        drop(lent);
        let (new, theirs) = UnixStream::pair().unwrap();
        let kept = shim.daemon.send(Call::Keep, &[theirs.as_fd()]);
        assert_eq!(shim.daemon.reply(kept), Ok(Answer::Done));
        drop(theirs);
        assert_eq!(ours.read(&mut buffer).unwrap(), 0);
        ours = new;
        ours.set_nonblocking(true).unwrap();
    }
    shim.daemon.call(Call::Hello { version: VERSION }).unwrap();
    shim.daemon.call(Call::Signal { signal: 9 }).unwrap();
    assert_eq!(shim.daemon.exited().exit_code, 137);
    assert_eq!(ours.read(&mut [0]).unwrap(), 0, "nothing is kept beyond the end");
    shim.wait();
}

#[test]
fn privileged_a_network_that_does_not_come_is_an_error() {
    let mut shim = Shim::new("true");
    shim.task.joins_network = true;
    let failure = shim.daemon.call(Call::Create(Box::new(shim.task.clone()))).unwrap_err();
    assert_eq!(failure.message, "request needs 1 descriptors and has 0");
    shim.wait();
}

#[test]
fn privileged_what_cannot_be_created_is_told_and_leaves_nothing() {
    let mut shim = Shim::new("");
    shim.task.spec.process.args = vec!["nosuch".into()];
    let failure = shim.daemon.call(Call::Create(Box::new(shim.task.clone()))).unwrap_err();
    assert_eq!(failure.exit_code, 127);
    assert!(failure.message.ends_with(r#"exec: "nosuch": executable file not found in $PATH"#), "{}", failure.message);
    shim.wait();
}

#[test]
fn a_shim_without_daemon_and_container_ends() {
    let mut shim = Shim::new("");
    shim.daemon.socket.shutdown(std::net::Shutdown::Both).unwrap();
    shim.wait();
}

#[test]
fn privileged_a_signal_ends_it_even_when_frozen() {
    let mut shim = Shim::new("sleep 1000");
    shim.create();
    shim.start();
    let hierarchies = cgroup::Hierarchies::detect().unwrap();
    let group = cgroup::Cgroup::open(&hierarchies, std::path::Path::new(&shim.task.spec.linux.cgroups_path)).unwrap();
    group.freeze(std::time::Duration::from_secs(10)).unwrap();
    assert_eq!(shim.daemon.call(Call::Signal { signal: 9 }), Ok(Answer::Done));
    assert_eq!(shim.finish().exit_code, 137);
}

#[test]
fn privileged_a_later_daemon_finds_the_container_and_rubbish_hurts_nobody() {
    let mut shim = Shim::new("read line; exit $line");
    (shim.task.open_stdin, shim.task.stdin_once) = (true, true);
    shim.create();
    let mut client = shim.daemon.attach(crate::fixture::everything());
    let state = shim.start();
    shim.daemon.socket.shutdown(std::net::Shutdown::Both).unwrap();
    let mut mad = shim.connect();
    std::io::Write::write_all(&mut mad.socket, &[0xff; 64]).unwrap();
    assert_eq!(std::io::Read::read(&mut mad.socket, &mut [0; 1]).unwrap(), 0);
    shim.daemon = shim.connect();
    let hello = shim.daemon.call(Call::Hello { version: VERSION }).unwrap();
    assert_eq!(hello, Answer::Hello { version: VERSION, state: Some(state), execs: vec![] });
    std::io::Write::write_all(&mut client.0, b"5\n").unwrap();
    assert!(matches!(shim.daemon.fact(), Fact::Exited { exit, .. } if exit.exit_code == 5));
    shim.wait();
}

#[test]
fn privileged_without_any_daemon_the_record_remains() {
    let mut shim = Shim::new("read line; exit 4");
    (shim.task.open_stdin, shim.task.stdin_once) = (true, true);
    shim.create();
    let client = shim.daemon.attach(crate::fixture::everything());
    shim.start();
    shim.daemon.socket.shutdown(std::net::Shutdown::Both).unwrap();
    drop(client);
    shim.wait();
    let recorded = std::fs::read(shim.run_dir().join("exit.json")).unwrap();
    assert_eq!(serde_json::from_slice::<ExitRecord>(&recorded).unwrap().exit_code, 4);
}
