//! How long a container takes that does nothing: `cargo run --release -p oci-runtime --example run-true [TIMES]`.
//!
//! Root, busybox in /bin, one thread. Prints minimum, median and maximum of wall time, in microseconds, by phase.
#![allow(clippy::unwrap_used, reason = "shares the tests' fixture")]

#[path = "../tests/it/fixture.rs"]
#[allow(dead_code)]
mod fixture;

use std::os::fd::AsFd;
use std::time::Instant;

fn main() {
    let times: usize = std::env::args().nth(1).and_then(|times| times.parse().ok()).unwrap_or(200);
    let mut samples: Vec<[u128; 4]> = (0..times).map(|_| sample()).collect();
    for (phase, name) in ["create", "start to exit", "destroy", "all"].into_iter().enumerate() {
        samples.sort_by_key(|sample| sample[phase]);
        let at = |index: usize| samples[index][phase];
        println!("{name:>14}: {:6} {:6} {:6} us", at(0), at(samples.len() / 2), at(samples.len() - 1));
    }
    let mut execs = execs(times);
    execs.sort_unstable();
    println!("{:>14}: {:6} {:6} {:6} us", "exec to exit", execs[0], execs[times / 2], execs[times - 1]);
}

/// The same program again and again in one running container.
fn execs(times: usize) -> Vec<u128> {
    let fixture = fixture::Fixture::new(&["sleep", "1000"]);
    let mut container = fixture.create(None, fixture::output_pipe().1).expect("create");
    container.start().expect("start");
    let args = vec!["true".to_owned()];
    let process = oci::runtime::Process { args, ..fixture.spec.process.clone() };
    let sample = || {
        let begin = Instant::now();
        fixture::exec(&container, &process).expect("exec");
        begin.elapsed().as_micros()
    };
    let samples = (0..times).map(|_| sample()).collect();
    container.kill(9).expect("kill");
    sys::wait::wait(container.pidfd.as_fd()).expect("wait");
    container.destroy().expect("destroy");
    samples
}

fn sample() -> [u128; 4] {
    let fixture = fixture::Fixture::new(&["true"]);
    let (_reader, stdio) = fixture::output_pipe();
    let begin = Instant::now();
    let mut container = fixture.create(None, stdio).expect("create");
    let created = Instant::now();
    container.start().expect("start");
    sys::wait::wait(container.pidfd.as_fd()).expect("wait");
    let ended = Instant::now();
    container.destroy().expect("destroy");
    let end = Instant::now();
    [created - begin, ended - created, end - ended, end - begin].map(|phase| phase.as_micros())
}
