//! Terminals, whose master goes through a socket.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use serde_json::json;

use super::fixture::Bundle;

/// A socket in a directory so deep that its path is longer than an address.
pub(super) fn socket(bundle: &Bundle) -> (UnixListener, PathBuf) {
    let directory = bundle.path(&"deep".repeat(30));
    std::fs::create_dir(&directory).unwrap();
    let open = std::fs::File::open(&directory).unwrap();
    let near = format!("/proc/self/fd/{}/console", std::os::fd::AsRawFd::as_raw_fd(&open));
    (UnixListener::bind(near).unwrap(), directory.join("console"))
}

pub(super) fn master(listener: &UnixListener) -> std::fs::File {
    let (stream, _) = listener.accept().unwrap();
    let (mut bytes, mut fds) = ([0; 64], Vec::<OwnedFd>::new());
    let length = sys::socket::receive(stream.as_fd(), &mut bytes, &mut fds).unwrap();
    assert_eq!((&bytes[..length], fds.len()), (&b"/dev/ptmx"[..], 1));
    fds.remove(0).into()
}

/// All that is written to a terminal until its last process is gone.
fn read_all(mut master: std::fs::File) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 1024]);
    // EIO is the end of a terminal.
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn privileged_the_masters_of_terminals_go_through_sockets() {
    let mut bundle = Bundle::new(&["sh", "-c", "stty size; readlink /proc/self/fd/0; [ -t 1 ] && echo terminal"]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 11, "width": 22});
    let (listener, path) = socket(&bundle);
    bundle.ok(&["create", "--console-socket", path.to_str().unwrap()]);
    let container = master(&listener);
    bundle.ok(&["start"]);
    assert_eq!(read_all(container), "11 22\r\n/dev/pts/0\r\nterminal\r\n");
    bundle.wait_for_status("stopped");
    bundle.ok(&["delete"]);
    bundle.config["process"]["terminal"] = json!(false);
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let path = path.to_str().unwrap();
    let done =
        bundle.run(&["exec", "-t", "-d", "--console-socket", path, &bundle.id, "sh", "-c", "[ -t 0 ] && echo exec"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(read_all(master(&listener)), "exec\r\n");
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_a_terminal_that_nobody_shows_is_refused() {
    let mut bundle = Bundle::new(&["true"]);
    let needless = "longshore-runtime create failed: cannot use console socket if longshore-runtime will not detach or \
                    allocate tty (--console-socket needs process.terminal, and `run` and `exec` need --detach)";
    assert_eq!(bundle.err(&["create", "--console-socket", "nosuch"]), needless);
    bundle.config["process"]["terminal"] = json!(true);
    let missing = "longshore-runtime create failed: cannot allocate tty if longshore-runtime will detach without setting \
                   console socket (process.terminal needs --console-socket)";
    assert_eq!(bundle.err(&["create"]), missing);
    let text = bundle.err(&["create", "--console-socket", "nosuch"]);
    assert!(text.starts_with("longshore-runtime create failed: --console-socket: send the terminal to "), "{text}");
    bundle.assert_gone();
}
