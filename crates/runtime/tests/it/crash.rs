//! A runtime that is killed at any instant: `delete --force` takes away whatever it had made.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use testkit::mutate::{Mutator, rounds};

use super::fixture::Bundle;
use super::leftovers::{adopt_orphans, wait_and_reap, wait_for_nothing_left};

/// Commands that change something, each with what must have been done before.
const COMMANDS: [(&[&str], &[&str]); 6] = [
    (&[], &["create"]),
    (&["create"], &["start"]),
    (&[], &["run"]),
    (&["run", "-d"], &["exec"]),
    (&["run", "-d"], &["delete", "--force"]),
    (&["create"], &["delete"]),
];

/// Runs one command, and kills it after a part of the time that it took the last time.
fn kill_one(bundle: &Bundle, mutator: &mut Mutator, took: &mut [Duration; COMMANDS.len()]) {
    let number = mutator.below(COMMANDS.len());
    let (before, command) = COMMANDS[number];
    if !before.is_empty() {
        bundle.ok(before);
    }
    let program: &[&str] = if command == ["exec"] { &["sh", "-c", "sleep 1000"] } else { &[] };
    let words = [command, &[&bundle.id], program].concat();
    let begun = Instant::now();
    let mut child = bundle.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Up to a fifth more than it takes.
    let until = begun + took[number] * mutator.below(1200) as u32 / 1000;
    while Instant::now() < until && child.try_wait().unwrap().is_none() {
        std::hint::spin_loop();
    }
    if child.try_wait().unwrap().is_none() {
        child.kill().unwrap();
        wait_and_reap(&mut child);
    } else {
        // The machine's mood changes.
        took[number] = begun.elapsed();
    }
    let mut delete = bundle.command(&["delete", "--force", &bundle.id]).spawn().unwrap();
    assert!(wait_and_reap(&mut delete).success(), "{command:?} after {:?} of {:?}", until - begun, took[number]);
    wait_for_nothing_left(bundle);
    // Nothing but what serves the next container.
    let left: Vec<_> = fs::read_dir(bundle.path("root")).into_iter().flatten().flatten().collect();
    assert!(left.iter().all(|entry| entry.file_name() == ".seccomp"), "{left:?}");
}

/// Commands that do not end by themselves are given the time of those that do.
fn first_guess() -> [Duration; COMMANDS.len()] {
    [Duration::from_millis(20); COMMANDS.len()]
}

#[test]
fn privileged_a_runtime_killed_at_any_instant_leaves_nothing_that_delete_does_not_find() {
    adopt_orphans();
    let bundle = Bundle::new(&["sleep", "1000"]);
    let (mut mutator, mut took) = (Mutator::new(u64::from(std::process::id())), first_guess());
    for _ in 0..300 {
        kill_one(&bundle, &mut mutator, &mut took);
    }
}

#[test]
fn privileged_slow_killed_runtimes_leave_nothing_that_delete_does_not_find() {
    adopt_orphans();
    let bundle = Bundle::new(&["sleep", "1000"]);
    let mut took = first_guess();
    rounds(|mutator| kill_one(&bundle, mutator, &mut took));
}
