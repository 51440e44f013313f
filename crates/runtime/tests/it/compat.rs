//! What other programs have always been given by runc: statuses and sentences of its command line, its sockets' messages, and
//! profiles from before newer system calls. The expected values are runc 1.3.6's, the program's name aside.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::fixture::Bundle;

/// The status, and what standard error says.
fn check(bundle: &Bundle, cases: &[(&[&str], i32, &str)]) {
    for (words, code, text) in cases {
        bundle.assert_says(words, *code, text);
        if !text.is_empty() {
            assert_eq!(bundle.logged(), *text);
        }
    }
}

#[test]
fn privileged_statuses_and_sentences_are_runcs_in_every_state() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    let missing = "container does not exist";
    check(
        &bundle,
        &[
            (&["state", "ID"], 1, missing),
            (&["start", "ID"], 1, missing),
            (&["kill", "ID"], 1, missing),
            (&["pause", "ID"], 1, missing),
            (&["ps", "ID"], 1, missing),
            (&["delete", "ID"], 1, missing),
            (&["delete", "--force", "ID"], 0, ""),
            (&["exec", "ID", "true"], 255, "exec failed: container does not exist"),
            (&["create", "ID"], 0, ""),
            (&["list"], 0, ""),
            (&["create", "ID"], 1, "longshore-runtime create failed: container with given ID already exists"),
            (&["resume", "ID"], 1, "container not paused"),
            (&["start", "ID"], 0, ""),
            (&["start", "ID"], 1, "cannot start an already running container"),
            (&["exec", "ID", "sh", "-c", "exit 7"], 7, ""),
            (&["exec", "ID", "sh", "-c", "kill -9 $$"], 137, ""),
            (&["exec", "ID"], 255, "exec failed: exec args cannot be empty"),
            (&["kill", "ID", "0"], 0, ""),
            (&["pause", "ID"], 0, ""),
            (&["pause", "ID"], 1, "container not running: it is paused already"),
            (
                &["exec", "ID", "true"],
                255,
                "exec failed: cannot exec in a paused container (use --ignore-paused to override)",
            ),
            (&["resume", "ID"], 0, ""),
            (&["kill", "ID", "FOO"], 1, "unknown signal \"FOO\", must be a name as SIGTERM or a number from 0 to 64"),
            (&["kill", "--all", "ID", "KILL"], 0, ""),
        ],
    );
    let running = format!("cannot delete container {} that is not stopped: running", bundle.id);
    bundle.wait_for_status("stopped");
    check(
        &bundle,
        &[
            (&["kill", "ID", "KILL"], 1, "container not running"),
            (&["kill", "--all", "ID", "KILL"], 0, ""),
            (&["pause", "ID"], 1, "container not running"),
            (&["resume", "ID"], 1, "container not paused"),
            (&["exec", "ID", "true"], 255, "exec failed: cannot exec in a stopped container"),
            (&["start", "ID"], 1, "cannot start a container that has stopped"),
            (&["delete", "ID"], 0, ""),
            (&["run", "-d", "ID"], 0, ""),
            (&["delete", "ID"], 1, running.as_str()),
            (&["delete", "-f", "ID"], 0, ""),
        ],
    );
    bundle.assert_gone();
}

#[test]
fn what_cannot_be_understood_has_runcs_statuses() {
    let bundle = Bundle::new(&["true"]);
    check(
        &bundle,
        &[
            (&["nosuch"], 3, "No help topic for 'nosuch'"),
            (&["start"], 1, "longshore-runtime: \"start\" requires exactly 1 argument(s)"),
            (&["start", "a", "b"], 1, "longshore-runtime: \"start\" requires exactly 1 argument(s)"),
            (&["exec"], 1, "longshore-runtime: \"exec\" requires a minimum of 1 argument(s)"),
            (&["exec", "--nosuch", "x"], 1, "flag provided but not defined: -nosuch"),
            (&["create", "-b"], 1, "flag needs an argument: -bundle"),
            (
                &["create", "a b"],
                1,
                "longshore-runtime create failed: invalid container ID format: \"a b\" must be of letters, digits, _, +, - \
                 and .",
            ),
            (
                &["run", "-b", "/nosuch", "x"],
                1,
                "longshore-runtime run failed: --bundle: chdir /nosuch: no such file or directory",
            ),
        ],
    );
    let commands =
        "checkpoint create delete events exec kill list pause ps restore resume run spec start state update features";
    for command in commands.split(' ') {
        let [one, other] = [[command, "--help"], ["help", command]].map(|words| bundle.run(&words));
        assert_eq!((one.code, &one.stdout), (Some(0), &other.stdout), "{command}");
        assert!(one.stdout.starts_with(&format!("NAME:\n   longshore-runtime {command} - ")), "{}", one.stdout);
    }
    for words in [&["--help"][..], &["help"], &[]] {
        assert!(bundle.run(words).stdout.contains("GLOBAL OPTIONS:"));
    }
    std::fs::create_dir(bundle.path("root")).unwrap();
    assert_eq!(bundle.run(&["list", "-f", "json"]).stdout, "[]\n");
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_longshore-runtime")).args(["--criu", "/x", "list"]).output();
    let output = output.unwrap();
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stderr).contains("--criu is ignored"),
        "{output:?}"
    );
}

fn pidfd(listener: &UnixListener) -> (String, OwnedFd) {
    let (stream, _) = listener.accept().unwrap();
    let (mut bytes, mut fds) = ([0; 64], Vec::<OwnedFd>::new());
    let length = sys::socket::receive(stream.as_fd(), &mut bytes, &mut fds).unwrap();
    (String::from_utf8(bytes[..length].to_vec()).unwrap(), fds.remove(0))
}

#[test]
fn privileged_pidfds_go_through_sockets() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    let listener = UnixListener::bind(bundle.path("s")).unwrap();
    bundle.ok(&["create", "--pidfd-socket", "s"]);
    let (message, first) = pidfd(&listener);
    assert_eq!(message, "standard");
    bundle.ok(&["start"]);
    let done = bundle.run(&["exec", "-d", "--pidfd-socket", "s", &bundle.id, "sleep", "1000"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let (message, added) = pidfd(&listener);
    assert_eq!(message, "setns");
    for process in [added, first] {
        sys::signal::send(process.as_fd(), 9).unwrap();
        let deadline = std::time::Instant::now() + crate::fixture::DEADLINE;
        assert!(sys::wait::readable(process.as_fd(), deadline).unwrap());
    }
    bundle.wait_for_status("stopped");
    bundle.ok(&["delete"]);
    bundle.assert_gone();
}

/// A filter is loaded before privileges are dropped, so what comes after is under it: profiles are older than kernels.
#[test]
fn privileged_a_profile_that_knows_no_newer_system_calls_is_no_obstacle() {
    let newer = ["faccessat2", "close_range", "openat2", "clone3", "execveat", "statx"];
    for (no_new_privileges, denied) in [(false, &newer[..]), (true, &newer[..]), (false, &["faccessat2", "faccessat"])]
    {
        let mut bundle = Bundle::new(&["sh", "-c", "echo $(id -u) $HOOK; ls /proc/self/fd | wc -l"]);
        bundle.config["process"]["noNewPrivileges"] = no_new_privileges.into();
        bundle.config["linux"]["seccomp"]["syscalls"] = json!([{"names": denied, "action": "SCMP_ACT_ERRNO"}]);
        bundle.config["hooks"]["startContainer"] =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", "ls /proc/self/fd | wc -l > /tmp/hook"]}]);
        // wc's own standard streams, and the directory that ls reads.
        assert_eq!(bundle.ok(&["run"]), "0\n4\n", "{denied:?}");
        assert_eq!(std::fs::read_to_string(bundle.path("rootfs/tmp/hook")).unwrap(), "4\n");
    }
}
