//! The log.

use std::collections::BTreeMap;

use logging::json_file::{ReadOptions, Reader, Step, Stream};
use shim_api::{Answer, Call, LogTarget};

use crate::fixture::Shim;

fn target(shim: &Shim, max_size_bytes: Option<u64>) -> LogTarget {
    LogTarget { path: shim.dir.path().join("json.log"), max_size_bytes, max_files: 50, attrs: BTreeMap::new() }
}

fn read(shim: &Shim) -> Vec<(Stream, String)> {
    let mut reader = Reader::open(&shim.dir.path().join("json.log"), ReadOptions::default()).unwrap();
    let mut entries = Vec::new();
    while let Step::Entry(entry) = reader.next_entry().unwrap() {
        entries.push((entry.stream, String::from_utf8(entry.log).unwrap()));
    }
    entries
}

#[test]
fn privileged_the_log_has_every_line_when_the_exit_is_told() {
    let mut shim = Shim::new("echo out; printf 'no end'; echo err >&2");
    shim.task.log = Some(target(&shim, None));
    shim.create();
    shim.start();
    shim.daemon.exited();
    let mut entries = read(&shim);
    entries.sort_by_key(|(stream, _)| *stream == Stream::Stderr);
    let expected = [(Stream::Stdout, "out\n"), (Stream::Stdout, "no end"), (Stream::Stderr, "err\n")];
    assert!(entries.iter().map(|(stream, text)| (*stream, text.as_str())).eq(expected), "{entries:?}");
    shim.wait();
}

#[test]
fn privileged_a_flood_is_logged_whole_and_rotated() {
    let mut shim = Shim::new("seq 1 100000");
    shim.task.log = Some(target(&shim, Some(1 << 20)));
    shim.create();
    shim.start();
    assert_eq!(shim.finish().exit_code, 0);
    let numbers = read(&shim).into_iter().map(|(_, text)| text.trim().parse::<u32>().unwrap());
    assert!(numbers.eq(1..=100_000));
    assert!(shim.dir.path().join("json.log.5").exists());
}

#[test]
fn privileged_an_exec_beside_the_log_thread_works() {
    let mut shim = Shim::new("yes");
    shim.task.log = Some(LogTarget { max_files: 1, ..target(&shim, Some(1 << 20)) });
    shim.create();
    shim.start();
    for number in 0..20 {
        let process = crate::fixture::process("true");
        let task =
            shim_api::ExecTask { exec_id: number.to_string(), process, user: None, groups: vec![], attach: None };
        let started = shim.daemon.call(Call::Exec(Box::new(task)));
        assert!(matches!(started, Ok(Answer::ExecStarted { .. })), "{started:?}");
    }
    assert_eq!(shim.daemon.call(Call::Signal { signal: 9 }), Ok(Answer::Done));
    assert_eq!(shim.finish().exit_code, 137);
}
