//! Everything at once for some minutes, the daemon killed in the middle of it: nothing breaks, nothing is lost, nothing is
//! stuck, nothing piles up.

mod client;
mod lives;

use std::cell::RefCell;
use std::fs;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::mutate::Mutator;
use testkit::{Cli, Daemon};

use self::client::{Client, Stage};
use self::lives::LIVES;
use crate::support::{At, ours};

/// How many seconds the soak takes; 180 if it is not set.
const SECONDS_VARIABLE: &str = "LONGSHORE_SOAK_SECONDS";

/// The short form, which runs with every change.
const MOMENT: Duration = Duration::from_secs(10);

/// How long the daemon lives between two of its deaths, at least and at most, in ms.
const LIFE_MS: (usize, usize) = (1_000, 8_000);

/// Deaths after which all clients come to rest, and what the daemon holds is looked at.
const DEATHS_TO_REST: usize = 4;

/// How long a daemon is left alone before that: long enough for something to pile up.
const UNDISTURBED: Duration = Duration::from_secs(10);

/// How many clients work at the same time.
const CLIENTS: usize = 8;

/// What a daemon may have open more than at the first rest: connections that are being closed, the database's files.
const SPARE_DESCRIPTORS: usize = 10;

#[test]
fn privileged_slow_soak_nothing_breaks_is_lost_or_piles_up() {
    let seconds = std::env::var(SECONDS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(180);
    soak(Duration::from_secs(seconds));
}

#[test]
fn privileged_a_moment_of_everything_at_once_with_deaths() {
    soak(MOMENT);
}

fn soak(time: Duration) {
    ours(|daemon| {
        let kept = At { daemon, cli: Cli::Longshore };
        kept.start("kept", "busybox sh -c 'i=0; while :; do echo $i; i=$((i+1)); usleep 5000; done'");
        let clis = daemon.clis();
        let stage = Stage {
            daemon: RwLock::new(daemon),
            calm: RwLock::new(()),
            changes: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            end: Instant::now() + time,
        };
        let lived = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (stage, lived, cli) = (&stage, &lived, clis[number % clis.len()]);
                scope.spawn(move || clients(stage, cli, number, lived));
            }
            let failing = Failing(&stage.failed);
            deaths(&stage);
            std::mem::forget(failing);
        });
        let deaths = stage.changes.into_inner() / 2;
        let daemon = stage.daemon.into_inner().unwrap();
        println!("{} lives, {deaths} deaths", lived.into_inner());
        assert!(deaths > 0, "it was killed");
        let at = At { daemon, cli: Cli::Longshore };
        alone(&at);
        at.ok("stop -t 0 kept");
        let log = at.ok("logs kept");
        assert!(log.lines().enumerate().all(|(number, line)| line == number.to_string()), "every line once");
        assert!(log.lines().count() > 100, "{} lines", log.lines().count());
    });
}

/// Nothing is there but what was there before all clients.
fn alone(at: &At<'_>) {
    assert_eq!(at.ok("ps -a --format '{{.Names}}'"), "kept");
    assert_eq!(at.ok("volume ls -q"), "");
    assert_eq!(at.ok("images -a --format '{{.Repository}}'"), "busybox");
}

/// One client after the other, until the end.
fn clients(stage: &Stage<'_>, cli: Cli, number: usize, lived: &AtomicUsize) {
    let failing = Failing(&stage.failed);
    let mut random = Mutator::new(number as u64);
    let mut life = 0;
    while stage.goes_on() {
        let calm = stage.calm.read().unwrap();
        life += 1;
        let (kind, live) = random.pick(LIVES);
        let client = Client {
            stage,
            cli,
            name: format!("{kind}-{number}-{life}"),
            changes: stage.changes.load(Ordering::SeqCst),
            typed: RefCell::default(),
        };
        if live(&client).is_ok() {
            lived.fetch_add(1, Ordering::Relaxed);
        } else {
            client.clean();
        }
        drop(calm);
    }
    std::mem::forget(failing);
}

/// Kills the daemon again and again; lets all come to rest now and then, and looks at what piled up.
fn deaths(stage: &Stage<'_>) {
    let mut random = Mutator::new(u64::from(std::process::id()));
    let mut first = None;
    while stage.goes_on() {
        for _ in 0..DEATHS_TO_REST {
            wait(stage, Duration::from_millis((LIFE_MS.0 + random.below(LIFE_MS.1 - LIFE_MS.0)) as u64));
            if stage.goes_on() {
                die(stage);
            }
        }
        wait(stage, UNDISTURBED);
        let _calm = stage.calm.write().unwrap();
        if stage.failed.load(Ordering::Relaxed) {
            return;
        }
        let daemon = stage.daemon.read().unwrap();
        alone(&At { daemon: &daemon, cli: Cli::Longshore });
        let now = weight(&daemon);
        let (descriptors, threads) = *first.get_or_insert(now);
        let spare = now.0 <= descriptors + SPARE_DESCRIPTORS && now.1 <= threads + SPARE_DESCRIPTORS;
        assert!(spare, "{now:?} {first:?}");
    }
}

/// Kills the daemon and starts it again. Counted before and after: a life may begin in between.
fn die(stage: &Stage<'_>) {
    stage.changes.fetch_add(1, Ordering::SeqCst);
    let mut daemon = stage.daemon.write().unwrap();
    daemon.kill9().unwrap();
    daemon.restart().unwrap();
    stage.changes.fetch_add(1, Ordering::SeqCst);
}

/// Waits, but not beyond the end.
fn wait(stage: &Stage<'_>, time: Duration) {
    let end = (Instant::now() + time).min(stage.end);
    while Instant::now() < end && stage.goes_on() {
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Has the others end when one panics.
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
