//! A daemon that has nothing to do does nothing.

use std::fs;
use std::io::{BufReader, Write};
use std::time::{Duration, Instant};

use testkit::{Cli, http};

use crate::support::{At, ours};

/// How long it must have done nothing.
///
/// Longer than any period a timer of ours might have; that nothing happens cannot be waited for in another way.
const QUIET: Duration = Duration::from_secs(5);

/// Until when: what follows the last command (threads that leave, memory that is given back) takes some 15 s.
const DEADLINE: Duration = Duration::from_secs(90);

/// How often the threads of a process have run.
fn runs(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok());
    let count = |text: String| -> u64 {
        let lines = text.lines().filter_map(|line| line.split_once("_ctxt_switches:"));
        lines.map(|(_, count)| count.trim().parse::<u64>().unwrap()).sum()
    };
    status.map(count).sum()
}

#[test]
fn privileged_an_idle_daemon_with_containers_does_not_wake() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let names = ["one", "two", "three"].map(|name| at.name(name));
        for name in &names {
            at.ok(&format!("run -d --name {name} --network none busybox sleep 1000"));
        }
        let pid = daemon.pid().unwrap();
        let begin = Instant::now();
        let (mut known, mut since) = (runs(pid), Instant::now());
        while since.elapsed() < QUIET {
            assert!(begin.elapsed() < DEADLINE, "the daemon has run {known} times and goes on");
            std::thread::sleep(QUIET / 20);
            let now = runs(pid);
            if now != known {
                (known, since) = (now, Instant::now());
            }
        }
        for name in &names {
            at.ok(&format!("rm -f {name}"));
        }
    });
}

/// Of the files that are mapped, the KiB that are in the process's memory.
fn mapped_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The same while `ask` keeps the daemon busy: the most of many looks, since any of them may come late.
fn busy_kib(pid: u32, mut ask: impl FnMut()) -> u64 {
    let looks = (0..10).map(|_| {
        ask();
        mapped_kib(pid)
    });
    looks.max().unwrap()
}

#[test]
fn privileged_an_idle_daemon_keeps_little_of_its_program_in_memory() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let pid = daemon.pid().unwrap();
        at.ok("run --rm --network none busybox true");
        let busy = busy_kib(pid, || {
            at.ok("run --rm --network none busybox true");
        });
        let rests = || (mapped_kib(pid) < busy / 2).then_some(());
        testkit::process::until("it rests", DEADLINE, rests).unwrap();
        // And everything works as before.
        at.ok("run --rm --network none busybox true");
        testkit::process::until("it rests again", DEADLINE, rests).unwrap();
    });
}

/// Clients that stay, and ask now and then, and one that is told of all that happens.
#[test]
fn privileged_a_daemon_rests_between_the_requests_of_a_client_that_stays() {
    ours(|daemon| {
        let pid = daemon.pid().unwrap();
        let mut follower = http::connect(daemon.socket()).unwrap();
        follower.write_all(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        assert_eq!(http::read_head(&mut BufReader::new(&follower)).unwrap().status, 200);
        let mut client = BufReader::new(http::connect(daemon.socket()).unwrap());
        let mut ask = || {
            for path in ["/info", "/images/json", "/containers/json?all=1", "/networks", "/volumes", "/system/df"] {
                write!(client.get_mut(), "GET {path} HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
                assert_eq!(http::read_response(&mut client).unwrap().status, 200, "{path}");
            }
        };
        for _ in 0..2 {
            let busy = busy_kib(pid, &mut ask);
            let rests = || (mapped_kib(pid) < busy * 3 / 4).then_some(());
            testkit::process::until("it rests", DEADLINE, rests).unwrap();
            // Not because the client was sent away, which would have been told as well.
            ask();
        }
    });
}
