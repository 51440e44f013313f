//! What a container costs. With the program of the `static` profile in LONGSHORE_SHIM the promised numbers are checked.

use std::collections::BTreeMap;

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
        let last = shims.last().unwrap();
        let path = format!("/proc/{}/smaps_rollup", last.child.pid.as_raw_nonzero());
        let rollup = std::fs::read_to_string(path).unwrap();
        if shipped {
            println!("{count} shims: {} KiB each", field(&rollup, "Pss:"));
            assert!(field(&rollup, "Pss:") <= promised, "{count} shims:\n{rollup}");
        }
        assert!(field(&rollup, "Private_Dirty:") < DEBUG_DIRTY_KIB, "{rollup}");
        shims.into_iter().for_each(kill);
    }
}

/// A shim whose container has written a line to its log and to a client that left again.
fn idle() -> Shim {
    let mut shim = Shim::new("echo up; sleep 1000");
    let path = shim.dir.path().join("json.log");
    shim.task.log = Some(LogTarget { path, max_size_bytes: None, max_files: 1, attrs: BTreeMap::new() });
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
