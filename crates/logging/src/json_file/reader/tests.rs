use super::*;
use std::io::Write;

fn line(number: usize) -> String {
    format!(r#"{{"log":"{number}\n","stream":"stdout","time":"2026-01-01T00:00:{number:02}Z"}}"#) + "\n"
}

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(line).collect()
}

/// The numbers that come until nothing comes, and what came then.
fn drain(reader: &mut Reader) -> (Vec<usize>, Step) {
    let mut numbers = Vec::new();
    loop {
        match reader.next_entry().unwrap() {
            Step::Entry(entry) => numbers.push(String::from_utf8(entry.log).unwrap().trim().parse().unwrap()),
            other => return (numbers, other),
        }
    }
}

fn at(second: u64) -> Option<SystemTime> {
    Some(Rfc3339::parse(&format!("2026-01-01T00:00:{second:02}Z")).unwrap().0)
}

#[test]
fn tail_since_and_until_go_across_rotated_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(dir.path().join("log.2"), lines(0..3)).unwrap();
    std::fs::write(dir.path().join("log.1"), lines(3..6)).unwrap();
    std::fs::write(&path, lines(6..8) + "{\"log\":\"torn").unwrap();
    let all = ReadOptions::default();
    for (options, expected) in [
        (all.clone(), 0..8),
        (ReadOptions { tail: Some(0), ..all.clone() }, 0..0),
        (ReadOptions { tail: Some(1), ..all.clone() }, 7..8),
        (ReadOptions { tail: Some(2), ..all.clone() }, 6..8),
        (ReadOptions { tail: Some(3), ..all.clone() }, 5..8),
        (ReadOptions { tail: Some(7), ..all.clone() }, 1..8),
        (ReadOptions { tail: Some(99), ..all.clone() }, 0..8),
        (ReadOptions { since: at(4), ..all.clone() }, 4..8),
        (ReadOptions { until: at(4), ..all.clone() }, 0..5),
        (ReadOptions { tail: Some(4), since: at(5), until: at(6), ..all.clone() }, 5..7),
    ] {
        let mut reader = Reader::open(&path, options.clone()).unwrap();
        assert_eq!(drain(&mut reader), (expected.collect(), Step::End), "{options:?}");
    }
}

#[test]
fn a_tail_longer_than_a_block_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let text: String = (0..5000).map(|n| line(0).replace("0\\n", &format!("{n}\\n"))).collect();
    std::fs::write(&path, text).unwrap();
    let mut reader = Reader::open(&path, ReadOptions { tail: Some(4321), ..ReadOptions::default() }).unwrap();
    assert_eq!(drain(&mut reader), ((679..5000).collect(), Step::End));
}

#[test]
fn entries_have_their_parts_and_rubbish_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let good = r#"{"log":"\ufffd\u003c\u2028","stream":"stderr","attrs":{"a":"b"},"time":"2026-01-01T00:00:01.5Z"}"#;
    std::fs::write(&path, format!("rubbish\n\n{{}}\n{good}\n")).unwrap();
    let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
    let Step::Entry(entry) = reader.next_entry().unwrap() else { panic!("no entry") };
    assert_eq!((entry.stream, entry.log), (Stream::Stderr, "\u{fffd}<\u{2028}".as_bytes().to_vec()));
    assert_eq!(entry.attrs, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    assert_eq!(reader.next_entry().unwrap(), Step::End);
}

#[test]
fn a_follower_gets_every_line_once_through_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let append = |text: &str| {
        File::options().append(true).create(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let rotate = || {
        for number in (0..3).rev() {
            let from = if number == 0 { path.clone() } else { rotated(&path, number) };
            // The older ones come to be only with the second and third rotation.
            let _ = std::fs::rename(from, rotated(&path, number + 1));
        }
    };
    let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
    assert_eq!(drain(&mut reader), (vec![], Step::Pending));
    append(&lines(0..2));
    append(&line(2)[..10]);
    assert_eq!(drain(&mut reader), (vec![0, 1], Step::Pending));
    append(&line(2)[10..]);
    append(&line(3));
    rotate();
    append(&line(4));
    rotate();
    append(&line(5));
    let timeout = rustix::time::Timespec { tv_sec: 5, tv_nsec: 0 };
    let watched = reader.watch_fd().unwrap();
    let flags = rustix::event::PollFlags::IN;
    assert_eq!(rustix::event::poll(&mut [rustix::event::PollFd::new(&watched, flags)], Some(&timeout)), Ok(1));
    assert_eq!(drain(&mut reader), (vec![2, 3, 4, 5], Step::Pending));
    append(&line(6));
    reader.stop_following();
    assert_eq!(drain(&mut reader), (vec![6], Step::End));
}
