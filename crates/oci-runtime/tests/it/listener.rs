//! Listeners of system calls that take their time.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use oci_runtime::{ExecOptions, Kept};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use sys::wait::{readable, wait};

use super::confinement::instruction;
use super::fixture::{Fixture, isolated, output_pipe};

/// Every call is allowed, but for umount2, which nobody makes: that is left to the listener.
fn notifying() -> Vec<u8> {
    let umount = if cfg!(target_arch = "x86_64") { 166 } else { 39 };
    [
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 1, umount),
        instruction(0x06, 0, 0, 0x7fc0_0000),
        instruction(0x06, 0, 0, 0x7fff_0000),
    ]
    .concat()
}

/// Connections until there is no room for another one.
fn fill(path: &std::path::Path) -> Vec<std::os::fd::OwnedFd> {
    let mut taken = Vec::new();
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        match connect(&socket, &SocketAddrUnix::new(path).unwrap()) {
            Ok(()) => taken.push(socket),
            Err(err) => {
                assert_eq!(err, Errno::AGAIN);
                return taken;
            }
        }
    }
}

#[test]
fn privileged_a_listener_that_does_not_accept_holds_up_nobody_else() {
    isolated(|| {
        let mut fixture = Fixture::new(&["sleep", "1000"]);
        let (program, path) = (fixture.dir.path().join("program"), fixture.dir.path().join("agent"));
        fs::write(&program, stdx::sealed::seal(&notifying())).unwrap();
        fixture.spec.linux.seccomp_program = Some(program);
        fixture.spec.linux.seccomp = Some(serde_json::json!({"listenerPath": path}));
        let agent = UnixListener::bind(&path).unwrap();
        let mut container = fixture.create(None, output_pipe().1).unwrap();
        container.start().unwrap();
        let others = fill(&path);
        let process = oci::runtime::Process { args: vec!["true".into()], ..fixture.spec.process.clone() };
        let options = ExecOptions { process: &process, user: None, stdio: output_pipe().1, kept: Kept::default() };
        let mut joining = container.join(options).unwrap();
        let before = joining.fd().as_raw_fd();
        let mut longest = Duration::ZERO;
        // Until somebody is on the way to the listener.
        while joining.fd().as_raw_fd() == before {
            assert!(readable(joining.fd(), joining.deadline()).unwrap());
            let now = Instant::now();
            assert!(joining.advance(now).is_none());
            longest = longest.max(now.elapsed());
        }
        // The listener's queue is full for ten seconds more: whoever asks meanwhile has an answer at once.
        assert!(joining.advance(Instant::now()).is_none());
        assert!(longest < Duration::from_secs(5), "{longest:?}");
        let accepted: Vec<UnixStream> = (0..=others.len()).map(|_| agent.accept().unwrap().0).collect();
        let executed = loop {
            assert!(readable(joining.fd(), joining.deadline()).unwrap());
            if let Some(done) = joining.advance(Instant::now()) {
                break done.unwrap();
            }
        };
        assert_eq!(wait(executed.pidfd.as_fd()).unwrap().code(), 0);
        drop(accepted);
        container.kill(9).unwrap();
        wait(container.pidfd.as_fd()).unwrap();
        container.destroy().unwrap();
    });
}
