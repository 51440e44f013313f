//! Everything at once for some minutes, the daemon killed in between: nothing breaks, nothing is lost, nothing piles up.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon};

use crate::support::{At, ours};

/// How many seconds the soak takes; 180 if it is not set.
const SECONDS_VARIABLE: &str = "LONGSHORE_SOAK_SECONDS";

/// How long the daemon lives between two of its deaths.
const LIFE: Duration = Duration::from_secs(20);

/// How many clients work at the same time.
const CLIENTS: usize = 4;

/// What a daemon may have open more than after its first life: connections that are being closed, the database's files.
const SPARE_DESCRIPTORS: usize = 10;

/// What a container goes through; every line is one that a user types.
fn life(at: &At<'_>, client: usize, number: usize) {
    let name = format!("soak-{client}-{number}");
    assert_eq!(at.run(&format!("busybox echo {name}")), name);
    let code = at.line("run --rm --network none -i busybox sh -c 'cat; exit 5'").code;
    assert_eq!(code, 5);
    at.start(&name, "-m 64m --tmpfs /t busybox sh -c 'trap \"exit 3\" TERM; echo up; sleep 1000 & wait'");
    // Before that the signal would be lost: it is process 1.
    until("the trap is set", DEADLINE, || (at.ok(&format!("logs {name}")) == "up").then_some(())).unwrap();
    assert_eq!(at.ok(&format!("exec {name} sh -c 'echo in'")), "in");
    at.ok(&format!("stop -t 20 {name}"));
    assert_eq!(at.inspect(&name, "{{.State.ExitCode}} {{.State.Running}}"), "3 false");
    assert_eq!(at.ok(&format!("logs {name}")), "up");
    at.ok(&format!("start {name}"));
    assert!(at.ok("ps --format '{{.Names}}'").lines().any(|shown| shown == name));
    at.ok(&format!("kill {name}"));
    assert_eq!(at.ok(&format!("wait {name}")), "137");
    at.ok(&format!("rm {name}"));
}

#[test]
fn privileged_slow_soak_nothing_breaks_is_lost_or_piles_up() {
    ours(|daemon| {
        let seconds = std::env::var(SECONDS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(180);
        let end = Instant::now() + Duration::from_secs(seconds);
        let kept = At { daemon, cli: Cli::Longshore };
        kept.start("kept", "busybox sh -c 'i=0; while :; do echo $i; i=$((i+1)); usleep 5000; done'");
        let (lives, mut first) = (AtomicUsize::new(0), None);
        while Instant::now() < end {
            clients(daemon, (Instant::now() + LIFE).min(end), &lives);
            let now = weight(daemon);
            let (descriptors, threads) = *first.get_or_insert(now);
            assert!(
                now.0 <= descriptors + SPARE_DESCRIPTORS && now.1 <= threads + SPARE_DESCRIPTORS,
                "{now:?} {first:?}"
            );
            daemon.kill9().unwrap();
            daemon.restart().unwrap();
        }
        println!("{} lives", lives.load(Ordering::Relaxed));
        let at = At { daemon, cli: Cli::Longshore };
        assert_eq!(at.ok("ps -a --format '{{.Names}}'"), "kept", "the others are gone");
        at.ok("stop -t 0 kept");
        let log = at.ok("logs kept");
        assert!(log.lines().enumerate().all(|(number, line)| line == number.to_string()), "every line once");
        assert!(seconds < 10 || log.lines().count() > 100, "{} lines", log.lines().count());
    });
}

/// Clients that live containers' lives until the end of this one of the daemon's.
fn clients(daemon: &Daemon, end: Instant, lives: &AtomicUsize) {
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let failed = &failed;
            scope.spawn(move || {
                let cli = if client % 2 == 0 { Cli::Longshore } else { Cli::Docker };
                let Some(cli) = daemon.clis().into_iter().find(|present| *present == cli) else { return };
                let failing = Failing(failed);
                while Instant::now() < end && !failed.load(Ordering::Relaxed) {
                    life(&At { daemon, cli }, client, lives.fetch_add(1, Ordering::Relaxed));
                }
                std::mem::forget(failing);
            });
        }
    });
}

/// Has the other clients end when one panics.
struct Failing<'a>(&'a AtomicBool);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Open descriptors and threads of the daemon.
fn weight(daemon: &Daemon) -> (usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", daemon.pid().unwrap())).unwrap().count();
    (count("fd"), count("task"))
}
