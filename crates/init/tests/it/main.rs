//! The program itself, run as a child; as PID 1 it behaves the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

fn init(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-init"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn code(arguments: &[&str]) -> Option<i32> {
    init(arguments).output().unwrap().status.code()
}

#[test]
fn the_commands_status_is_its_own() {
    assert_eq!(code(&["--", "/bin/sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(code(&["--", "nosuch"]), Some(127));
    assert_eq!(code(&["/etc/passwd"]), Some(126));
    assert_eq!(code(&[]), Some(1));
}

#[test]
fn a_failure_reads_as_tinis() {
    let output = init(&["/nosuch"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "[FATAL tini (7)] exec /nosuch failed: No such file or directory\n");
}

fn signal(child: &Child, signal: i32) {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    sys::signal::send(pidfd.as_fd(), signal).unwrap();
}

#[test]
fn signals_reach_the_command() {
    let script = "trap 'echo hup' HUP; trap 'echo term; exit 5' TERM; echo ready; while :; do read x; done";
    let mut child = init(&["bash", "-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let stdin = child.stdin.take();
    assert_eq!(lines.next().as_deref(), Some("ready"));
    signal(&child, 1);
    assert_eq!(lines.next().as_deref(), Some("hup"));
    signal(&child, 15);
    assert_eq!(lines.next().as_deref(), Some("term"));
    assert_eq!(child.wait().unwrap().code(), Some(5));
    drop(stdin);
}

#[test]
fn privileged_orphans_are_reaped() {
    // In a PID namespace of its own, where it is PID 1 and gets the orphan; the command sees the orphan go.
    let script = "(sleep 0 & echo $! > /dev/fd/3) 3>&1 | { read pid; \
                  while [ -e /proc/$pid ]; do :; done; echo gone; }";
    let program = env!("CARGO_BIN_EXE_longshore-init");
    let arguments = ["--pid", "--fork", "--mount-proc", program, "--", "bash", "-c", script];
    let mut child = Command::new("unshare").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "gone\n");
    assert!(child.wait().unwrap().success());
}
