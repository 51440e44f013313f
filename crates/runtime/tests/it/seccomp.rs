//! The system-call filter: what it does to programs, and listeners that decide in its place.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use sys::seccomp::{Decision, Listener, Notification};

use super::fixture::Bundle;

/// What was said of a process, and the calls that came from it.
pub(crate) struct Heard {
    pub(crate) state: Value,
    pub(crate) numbers: Vec<i32>,
}

/// Decides the calls of so many processes, one after the other, until they are gone.
pub(crate) fn agent(path: &Path, processes: usize, decide: fn(&Notification) -> Decision) -> JoinHandle<Vec<Heard>> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || (0..processes).map(|_| hear(&listener, decide)).collect())
}

fn hear(listener: &UnixListener, decide: fn(&Notification) -> Decision) -> Heard {
    use std::io::Read;
    use std::os::fd::AsFd;
    let (mut stream, _) = listener.accept().unwrap();
    let (mut first, mut fds) = ([0; 4096], Vec::new());
    let length = sys::socket::receive(stream.as_fd(), &mut first, &mut fds).unwrap();
    let mut text = first[..length].to_vec();
    // One state for each connection, which is closed then.
    stream.read_to_end(&mut text).unwrap();
    assert_eq!(fds.len(), 1);
    let calls = Listener(fds.remove(0));
    let mut numbers = Vec::new();
    loop {
        let mut polled = [PollFd::new(&calls.0, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut polled, None)).unwrap();
        if !polled[0].revents().contains(PollFlags::IN) {
            return Heard { state: serde_json::from_slice(&text).unwrap(), numbers };
        }
        // Its caller may have been killed meanwhile.
        let Ok(call) = calls.receive() else { continue };
        numbers.push(call.number);
        let _ = calls.answer(call.id, decide(&call));
    }
}

/// mkdir answers EDQUOT, which nothing else does here; all else is as it would be.
pub(crate) fn no_mkdir(call: &Notification) -> Decision {
    let is_mkdir = if cfg!(target_arch = "x86_64") { [83, 258] } else { [34, 34] };
    if is_mkdir.contains(&call.number) { Decision::Error(122) } else { Decision::Continue }
}

pub(crate) fn notifying(bundle: &Bundle, names: &[&str], no_new_privileges: bool) -> Value {
    let mut config = bundle.config.clone();
    config["process"]["noNewPrivileges"] = json!(no_new_privileges);
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": bundle.path("agent"),
        "listenerMetadata": "opaque",
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
    });
    config
}

#[test]
fn privileged_a_listener_decides_the_calls_of_containers_and_of_execs() {
    for no_new_privileges in [false, true] {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        bundle.config = notifying(&bundle, &["mkdir", "mkdirat"], no_new_privileges);
        let agent = agent(&bundle.path("agent"), 1, no_mkdir);
        bundle.ok(&["create", "--pid-file", "pid"]);
        let created: i32 = fs::read_to_string(bundle.path("pid")).unwrap().parse().unwrap();
        bundle.ok(&["delete", "-f"]);
        let heard = agent.join().unwrap().remove(0).state;
        let expected = json!({
            "ociVersion": heard["ociVersion"],
            "fds": ["seccompFd"],
            "pid": created,
            "metadata": "opaque",
            "state": {
                "ociVersion": heard["ociVersion"],
                "id": bundle.id,
                "status": "creating",
                "pid": created,
                "bundle": bundle.dir.path(),
                "annotations": {"org.example": "kept"},
            },
        });
        assert_eq!(heard, expected);
        fs::remove_file(bundle.path("agent")).unwrap();
    }
}

#[test]
fn privileged_an_exec_has_a_listener_of_its_own() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config = notifying(&bundle, &["mkdir", "mkdirat"], false);
    let container = agent(&bundle.path("agent"), 1, no_mkdir);
    bundle.ok(&["run", "-d"]);
    fs::remove_file(bundle.path("agent")).unwrap();
    let execs = agent(&bundle.path("agent"), 2, no_mkdir);
    for flags in [&["exec"][..], &["exec", "--no-new-privs"]] {
        let words = [flags, &[&bundle.id, "mkdir", "/tmp/made"]].concat();
        let done = bundle.run(&words);
        assert_eq!(
            (done.code, done.stderr.as_str()),
            (Some(1), "mkdir: can't create directory '/tmp/made': Disk quota exceeded\n")
        );
    }
    let pid = bundle.state()["pid"].clone();
    for heard in execs.join().unwrap() {
        assert_eq!((&heard.state["state"]["status"], &heard.state["state"]["pid"]), (&json!("running"), &pid));
        assert_ne!(heard.state["pid"], pid);
        assert!(!heard.numbers.is_empty());
    }
    bundle.ok(&["delete", "-f"]);
    assert!(container.join().unwrap()[0].numbers.is_empty());
    bundle.assert_gone();
}

#[test]
fn privileged_a_listener_decides_in_a_user_namespace_too() {
    for no_new_privileges in [false, true] {
        let mut bundle = Bundle::new(&["mkdir", "/tmp/made"]);
        bundle.config = notifying(&bundle, &["mkdir", "mkdirat"], no_new_privileges);
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        bundle.config["linux"]["uidMappings"] = ids.clone();
        bundle.config["linux"]["gidMappings"] = ids;
        let agent = agent(&bundle.path("agent"), 1, no_mkdir);
        let done = bundle.run(&["run", &bundle.id]);
        assert_eq!(done.stderr, "mkdir: can't create directory '/tmp/made': Disk quota exceeded\n");
        assert!(!agent.join().unwrap()[0].numbers.is_empty());
    }
}

/// Naive: sends the descriptor from the filtered process with sendmsg, and waits for itself for ever.
#[test]
fn privileged_every_call_but_write_can_be_left_to_a_listener() {
    let names =
        ["read", "close", "openat", "fcntl", "sendmsg", "recvmsg", "execve", "close_range", "dup3", "exit_group"];
    for no_new_privileges in [false, true] {
        let mut bundle = Bundle::new(&["true"]);
        bundle.config = notifying(&bundle, &names, no_new_privileges);
        let agent = agent(&bundle.path("agent"), 1, no_mkdir);
        bundle.ok(&["run"]);
        // The runtime's own in the container's process, and the program's.
        let execve = if cfg!(target_arch = "x86_64") { 59 } else { 221 };
        assert!(agent.join().unwrap()[0].numbers.contains(&execve));
        bundle.assert_gone();
    }
}

#[test]
fn privileged_listeners_that_cannot_be_told_are_named_and_leave_nothing() {
    let mut bundle = Bundle::new(&["true"]);
    let plain = notifying(&bundle, &["mkdir"], false);
    let missing = format!(
        "linux.seccomp.listenerPath {}: send the listener's descriptor: no such file or directory",
        bundle.path("agent").display()
    );
    for (path, value, text) in [
        ("listenerMetadata", json!("x"), missing.as_str()),
        ("listenerPath", json!(""), "linux.seccomp.listenerPath: SCMP_ACT_NOTIFY needs listenerPath, which is not set"),
        (
            "defaultAction",
            json!("SCMP_ACT_NOTIFY"),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action",
        ),
        (
            "syscalls",
            json!([{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]),
            "linux.seccomp.syscalls[0].action: SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            "flags",
            json!(["SECCOMP_FILTER_FLAG_X"]),
            "linux.seccomp.flags[0]: seccomp flag SECCOMP_FILTER_FLAG_X is not known, must be one of \
             SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_FILTER_FLAG_LOG, \
             SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ),
        ("architectures", json!(["SCMP_ARCH_PDP11"]), "SCMP_ARCH_X86, SCMP_ARCH_X86_64"),
    ] {
        bundle.config = plain.clone();
        bundle.config["linux"]["seccomp"][path] = value;
        let err = bundle.err(&["create"]);
        assert!(err.ends_with(text), "{err:?} does not end with {text:?}");
        bundle.assert_gone();
    }
    // Without a call for it nobody is told.
    bundle.config = plain;
    bundle.config["linux"]["seccomp"]["syscalls"] = json!([]);
    bundle.ok(&["run"]);
}

#[test]
fn privileged_each_action_does_what_it_says() {
    let mut bundle = Bundle::new(&["sh", "-c", "hostname new; echo $?"]);
    for (action, errno, stdout) in [
        ("SCMP_ACT_KILL", None, "159\n"),
        ("SCMP_ACT_KILL_THREAD", None, "159\n"),
        ("SCMP_ACT_KILL_PROCESS", None, "159\n"),
        ("SCMP_ACT_TRAP", None, "159\n"),
        ("SCMP_ACT_ERRNO", Some(95), "1\n"),
        // Nobody traces: ENOSYS.
        ("SCMP_ACT_TRACE", Some(7), "1\n"),
        // Made, and refused for lack of a capability.
        ("SCMP_ACT_LOG", None, "1\n"),
    ] {
        let mut rule = json!({"names": ["sethostname", "no_such_call"], "action": action});
        if let Some(errno) = errno {
            rule["errnoRet"] = json!(errno);
        }
        let flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
        bundle.config["linux"]["seccomp"] =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "syscalls": [rule]});
        let done = bundle.run(&["run", &bundle.id]);
        assert_eq!((done.code, done.stdout.as_str()), (Some(0), stdout), "{action}: {done:?}");
        let said = [
            ("SCMP_ACT_ERRNO", "Operation not supported"),
            ("SCMP_ACT_TRACE", "Function not implemented"),
            ("SCMP_ACT_LOG", "Operation not permitted"),
        ];
        if let Some((_, text)) = said.iter().find(|(named, _)| *named == action) {
            assert!(done.stderr.contains(text), "{action}: {done:?}");
        }
    }
}

#[test]
fn what_the_library_has_is_listed() {
    let bundle = Bundle::new(&["true"]);
    let features: Value = serde_json::from_str(&bundle.run(&["features"]).stdout).unwrap();
    let seccomp = &features["linux"]["seccomp"];
    let has = |list: &str, word: &str| seccomp[list].as_array().unwrap().contains(&json!(word));
    assert!(has("actions", "SCMP_ACT_NOTIFY") && has("archs", "SCMP_ARCH_RISCV64") && has("archs", "SCMP_ARCH_X32"));
    assert!(has("supportedFlags", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"));
}
