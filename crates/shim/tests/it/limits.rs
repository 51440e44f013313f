//! Memory limits, and what the shim itself holds on to.

use oci::runtime::{MemoryLimits, Resources};
use shim_api::{Answer, Call, ExecTask, Fact};

use crate::fixture::{Shim, process};

/// A container of `script` that may use eight megabytes.
fn limited(script: &str) -> Shim {
    let mut shim = Shim::new(script);
    shim.task.open_stdin = true;
    let memory = MemoryLimits { limit: Some(8 << 20), swap: Some(8 << 20), ..MemoryLimits::default() };
    shim.task.spec.linux.resources = Some(Resources { memory: Some(memory), ..Resources::default() });
    shim.create();
    shim.start();
    shim
}

#[test]
fn privileged_a_container_without_memory_is_killed_and_says_so() {
    let mut shim = limited("exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    assert!(matches!(shim.daemon.fact(), Fact::Oom { .. }));
    let exit = shim.finish();
    assert_eq!((exit.exit_code, exit.oom_killed), (137, true));
}

#[test]
fn privileged_a_child_without_memory_leaves_the_containers_own_code() {
    let mut shim = limited("dd if=/dev/zero of=/dev/null bs=64M count=1; exit 3");
    assert!(matches!(shim.daemon.fact(), Fact::Oom { .. }));
    let exit = shim.finish();
    assert_eq!((exit.exit_code, exit.oom_killed), (3, true));
}

#[test]
fn privileged_a_kill_for_memory_is_told_while_the_container_goes_on() {
    let mut shim = limited("for n in 1 2; do read x; dd if=/dev/zero of=/dev/null bs=64M count=1; done; sleep 1000");
    let mut client = shim.daemon.attach(crate::fixture::everything());
    for _ in 0..2 {
        std::io::Write::write_all(&mut client.0, b"\n").unwrap();
        assert!(matches!(shim.daemon.fact(), Fact::Oom { .. }));
        client.await_text("Killed");
    }
    assert_eq!(shim.daemon.call(Call::Signal { signal: 9 }), Ok(Answer::Done));
    assert!(shim.finish().oom_killed);
}

#[test]
fn privileged_a_thousand_execs_leave_nothing() {
    let mut shim = Shim::new("yes");
    let path = shim.dir.path().join("json.log");
    let attrs = std::collections::BTreeMap::new();
    shim.task.log =
        Some(shim_api::LogTarget { path, max_size_bytes: Some(1 << 20), max_files: 1, attrs, ..Default::default() });
    shim.create();
    shim.start();
    let held = |shim: &Shim, what: &str| {
        let path = format!("/proc/{}/{what}", shim.child.pid.as_raw_nonzero());
        std::fs::read_dir(path).unwrap().count()
    };
    let mut before = 0;
    for number in 0..1000 {
        let (exec_id, process) = (number.to_string(), process("true"));
        let task = ExecTask { exec_id, process, user: None, groups: vec![], attach: None, note: String::new() };
        let started = shim.daemon.call(Call::Exec(Box::new(task)));
        assert!(matches!(started, Ok(Answer::ExecStarted { .. })), "{started:?}");
        while !matches!(shim.daemon.fact(), Fact::ExecExited { exit_code: 0, .. }) {}
        // The answer to another request: the turn of the exec's end is over.
        shim.daemon.call(Call::State).unwrap();
        before = if number == 0 { held(&shim, "fd") } else { before };
        assert!(held(&shim, "task") <= 2);
    }
    // One more: a container that has run for a moment is watched for want of memory. One less, now or then: the log is between
    // two files.
    assert!((before - 1..=before + 2).contains(&held(&shim, "fd")));
    assert_eq!(shim.daemon.call(Call::Signal { signal: 9 }), Ok(Answer::Done));
    assert_eq!(shim.finish().exit_code, 137);
}
