//! What a container costs. With the program of the `static` profile in LONGSHORE_SHIM the promised numbers are checked.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use shim_api::{Answer, Call, LogTarget};

use crate::fixture::{Shim, output};

/// Proportional kibibytes of one shim beside no other, and of each of twenty.
const PROMISED_PSS_KIB: [(usize, u64); 2] = [(1, 768), (20, 256)];

/// The bound for debug builds, which are linked dynamically: enough to see that a buffer was kept.
const DEBUG_DIRTY_KIB: u64 = 1024;

#[test]
fn privileged_idle_shims_are_small() {
    let shipped = std::env::var_os("LONGSHORE_SHIM").is_some();
    for (count, promised) in PROMISED_PSS_KIB {
        let shims: Vec<Shim> = (0..count).map(|_| idle()).collect();
        let small = |rollup: &str| {
            (!shipped || field(rollup, "Pss:") <= promised) && field(rollup, "Private_Dirty:") < DEBUG_DIRTY_KIB
        };
        for shim in &shims {
            let rollup = settled(shim, small);
            println!("one of {count} shims: {} KiB", field(&rollup, "Pss:"));
            assert!(small(&rollup), "{count} shims:\n{rollup}");
        }
        shims.into_iter().for_each(kill);
    }
}

/// The shim's memory once it is `small`, or at the deadline: it gives back what its start needed only after a
/// moment without anything to do, which on a busy machine begins late.
fn settled(shim: &Shim, small: impl Fn(&str) -> bool) -> String {
    let path = format!("/proc/{}/smaps_rollup", shim.child.pid.as_raw_nonzero());
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let rollup = std::fs::read_to_string(&path).unwrap();
        let look_again = (Instant::now() + Duration::from_millis(100)).min(deadline);
        // The kernel announces no such thing as less memory; the shim's end would be one, though.
        if small(&rollup)
            || sys::wait::readable(shim.child.pidfd.as_fd(), look_again).unwrap()
            || Instant::now() >= deadline
        {
            return rollup;
        }
    }
}

/// A shim whose container has written a line to its log and to a client that left again.
fn idle() -> Shim {
    let mut shim = Shim::new("echo up; sleep 1000");
    let path = shim.dir.path().join("json.log");
    shim.task.log = Some(LogTarget { path, max_size_bytes: None, max_files: 1, ..LogTarget::default() });
    shim.create();
    let mut client = shim.daemon.attach(output());
    shim.start();
    client.await_text("up");
    shim
}

fn kill(mut shim: Shim) {
    assert_eq!(shim.daemon.call(Call::Signal { signal: 9 }), Ok(Answer::Done));
    assert_eq!(shim.finish().exit_code, 137);
}

fn field(rollup: &str, name: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
