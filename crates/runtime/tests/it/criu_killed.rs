//! Checkpoints and restores that come to no good end.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::criu::{COUNTER, FILES, assert_gone, bundle, running, wait_for_more, words};
use super::fixture::{Bundle, wait_until};

/// CRIU, in the middle of writing memory to somebody who does not answer.
struct Held {
    runtime: Child,
    criu: Pid,
    page_server: TcpStream,
}

fn hold_checkpoint(bundle: &Bundle) -> Held {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let words = words(&[&["checkpoint", "--page-server", &address], &FILES, &[bundle.id.as_str()]]);
    let errors = fs::File::create(bundle.path("errors")).unwrap();
    let runtime = bundle.command(&words).stderr(errors).spawn().unwrap();
    let (mut page_server, _) = listener.accept().unwrap();
    // The first question: from here on it waits.
    page_server.read_exact(&mut [0; 8]).unwrap();
    let criu = child_of(&runtime).unwrap();
    Held { runtime, criu, page_server }
}

fn child_of(process: &Child) -> Option<Pid> {
    let pid = process.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    Pid::from_raw(children.split_whitespace().next()?.parse().unwrap())
}

#[test]
fn privileged_a_container_survives_a_criu_that_is_killed() {
    let Some(bundle) = bundle(&["sh", "-c", COUNTER]) else { return };
    running(&bundle);
    let mut held = hold_checkpoint(&bundle);
    kill_process(held.criu, Signal::KILL).unwrap();
    assert_eq!(held.runtime.wait().unwrap().code(), Some(1));
    let text = fs::read_to_string(bundle.path("errors")).unwrap();
    let log = bundle.path("work/dump.log").display().to_string();
    assert_eq!(text, format!("criu ended with status 137 before its work was done (log file: {log})\n"));
    assert_eq!(bundle.status(), "running");
    wait_for_more(&bundle);
    // Another one finds nothing in its way.
    bundle.ok(&words(&[&["checkpoint"], &FILES]));
    bundle.ok(&words(&[&["restore", "-d"], &FILES]));
    wait_for_more(&bundle);
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_a_container_survives_a_checkpoint_whose_runtime_is_killed() {
    let Some(bundle) = bundle(&["sh", "-c", COUNTER]) else { return };
    running(&bundle);
    let mut held = hold_checkpoint(&bundle);
    held.runtime.kill().unwrap();
    held.runtime.wait().unwrap();
    drop(held.page_server);
    wait_until("running", || bundle.status() == "running");
    wait_for_more(&bundle);
    bundle.ok(&words(&[&["checkpoint", "--leave-running"], &FILES]));
    wait_for_more(&bundle);
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}

/// A bundle with a checkpoint, and a hook that holds its restore until the file is gone.
fn checkpointed() -> Option<Bundle> {
    let mut bundle = bundle(&["sh", "-c", COUNTER])?;
    running(&bundle);
    bundle.ok(&words(&[&["checkpoint"], &FILES]));
    let script = "touch held; while [ -e held ]; do sleep 0.01; done";
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]});
    bundle.config["hooks"] = json!({"createRuntime": [hook]});
    Some(bundle)
}

fn hold_restore(bundle: &Bundle) -> Child {
    let words = words(&[&["restore", "-d"], &FILES, &[bundle.id.as_str()]]);
    let runtime = bundle.command(&words).spawn().unwrap();
    wait_until("held", || bundle.path("held").exists());
    assert_eq!(bundle.status(), "creating");
    runtime
}

#[test]
fn privileged_a_restore_whose_criu_is_killed_leaves_nothing() {
    let Some(mut bundle) = checkpointed() else { return };
    let mut runtime = hold_restore(&bundle);
    kill_process(child_of(&runtime).unwrap(), Signal::KILL).unwrap();
    fs::remove_file(bundle.path("held")).unwrap();
    assert_eq!(runtime.wait().unwrap().code(), Some(1));
    assert!(bundle.logged().contains("criu ended with status 137 before its work was done"));
    assert_gone(&bundle);
    bundle.config["hooks"] = json!({});
    bundle.ok(&words(&[&["restore", "-d"], &FILES]));
    wait_for_more(&bundle);
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_a_restore_whose_runtime_is_killed_leaves_nothing_that_delete_does_not_find() {
    let Some(bundle) = checkpointed() else { return };
    let mut runtime = hold_restore(&bundle);
    runtime.kill().unwrap();
    runtime.wait().unwrap();
    fs::remove_file(bundle.path("held")).unwrap();
    // What it has made sees that it has gone, and ends.
    wait_until("unlocked", || {
        let done = bundle.run(&["state", &bundle.id]);
        done.code == Some(1) || done.stdout.contains("\"stopped\"")
    });
    bundle.ok(&["delete", "--force"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_a_restore_that_fails_leaves_nothing() {
    let Some(mut bundle) = checkpointed() else { return };
    let restore = words(&[&["restore", "-d"], &FILES]);
    bundle.config["hooks"] = json!({"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no; exit 1"]}]});
    let text = bundle.err(&restore);
    assert_eq!(text, "longshore-runtime restore failed: hooks.prestart[0]: /bin/sh ended with status 1, output: no");
    assert_gone(&bundle);
    bundle.config["hooks"] = json!({});
    // A mount that nobody has told CRIU of.
    let mounts = bundle.config["mounts"].clone();
    bundle.config["mounts"] = json!([{"destination": "/data", "source": "/nosuch", "options": ["bind"]}]);
    let text = bundle.err(&restore);
    assert!(text.ends_with("source: /nosuch: no such file or directory"), "{text}");
    assert_gone(&bundle);
    bundle.config["mounts"] = mounts;
    let text = bundle.err(&["restore", "-d", "--image-path", "nosuch"]);
    let nosuch = bundle.path("nosuch").display().to_string();
    let why = format!("is no checkpoint: open {nosuch}/descriptors.json: no such file or directory");
    assert_eq!(text, format!("longshore-runtime restore failed: --image-path {nosuch} {why}"));
    fs::write(bundle.path("images/pstree.img"), "nothing").unwrap();
    let text = bundle.err(&restore);
    assert!(text.starts_with("longshore-runtime restore failed: criu failed: type RESTORE errno "), "{text}");
    assert!(text.ends_with(&format!("(log file: {})", bundle.path("work/restore.log").display())), "{text}");
    fs::write(bundle.path("images/descriptors.json"), "{").unwrap();
    assert!(bundle.err(&restore).starts_with("longshore-runtime restore failed: read "));
    assert_gone(&bundle);
}

#[test]
fn privileged_what_the_hooks_of_a_restore_started_ends_with_one_that_fails() {
    let Some(mut bundle) = checkpointed() else { return };
    let noted = bundle.path("noted");
    let hook = |script: &str| json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]});
    bundle.config["hooks"] = hook(&format!("sleep 1000 & echo $! > {}", noted.display()));
    // Everything is there by then.
    let text = bundle.err(&words(&[&["restore", "-d", "--pid-file", "missing/pid"], &FILES]));
    assert!(text.contains("--pid-file: write "), "{text}");
    let pid = fs::read_to_string(&noted).unwrap();
    let stat = || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    wait_until("the end of what the hook has started", || stat().is_empty() || stat().contains(") Z "));
    assert_gone(&bundle);
    // One that takes its own container away.
    let program = format!("{} --root {}", env!("CARGO_BIN_EXE_longshore-runtime"), bundle.path("root").display());
    bundle.config["hooks"] = hook(&format!("{program} delete -f {}; echo $? > {}", bundle.id, noted.display()));
    let text = bundle.err(&words(&[&["restore", "-d"], &FILES]));
    assert!(text.ends_with("container was deleted by a hook of its own"), "{text}");
    assert_gone(&bundle);
}

#[test]
fn privileged_without_criu_it_is_named() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let path = bundle.path("empty");
    let output = bundle.command(&["checkpoint", &bundle.id]).env("PATH", &path).output().unwrap();
    let text = "exec: \"criu\": executable file not found in $PATH";
    assert_eq!(String::from_utf8(output.stderr).unwrap().trim_end(), text);
    assert_eq!(bundle.status(), "running");
    bundle.ok(&["delete", "-f"]);
    // podman asks so whether it can be done at all, and whether for containers of a pod.
    assert_eq!(bundle.run(&["checkpoint", "--help"]).code, Some(0));
    assert!(bundle.run(&["restore", "--help"]).stdout.contains("--lsm-mount-context"));
    assert_eq!(bundle.run(&["checkpoint", "--parent-path", "/x", "y"]).code, Some(1));
    assert_eq!(bundle.logged(), "--parent-path must be relative");
    for (flag, takes) in [
        ("--empty-ns=ipc", "network"),
        ("--manage-cgroups-mode=all", "soft, full, strict or ignore"),
        ("--page-server=x", "ADDRESS:PORT, an address with colons in brackets"),
        ("--status-fd=99", "the number of a descriptor that is open for writing"),
    ] {
        assert_eq!(bundle.run(&["checkpoint", flag, "y"]).code, Some(1));
        let (name, value) = flag[2..].split_once('=').unwrap();
        assert_eq!(bundle.logged(), format!("invalid value {value:?} for flag -{name}, which takes {takes}"));
    }
}
