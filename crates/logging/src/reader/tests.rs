use super::*;
use crate::file::rotated;
use crate::record::Stream;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

fn line(number: usize) -> String {
    format!(r#"{{"log":"{number}\n","stream":"stdout","time":"2026-01-01T00:00:{number:02}Z"}}"#) + "\n"
}

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(line).collect()
}

/// The numbers that come until nothing comes, and what came then.
fn drain(reader: &mut Reader) -> (Vec<usize>, Progress) {
    let mut numbers = Vec::new();
    let progress = reader.read(|entry| {
        numbers.push(text(entry).trim().parse().unwrap());
        true
    });
    (numbers, progress.unwrap())
}

fn text(entry: &Entry<'_>) -> String {
    let mut text = Vec::new();
    entry.append_text(&mut text);
    String::from_utf8(text).unwrap()
}

fn at(second: u64) -> Option<u64> {
    Some((1_767_225_600 + second) * 1_000_000_000)
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
        (ReadOptions { since_nanos: at(4), ..all.clone() }, 4..8),
        (ReadOptions { until_nanos: at(4), ..all.clone() }, 0..5),
        (ReadOptions { tail: Some(4), since_nanos: at(5), until_nanos: at(6), ..all.clone() }, 5..7),
    ] {
        let mut reader = Reader::open(&path, options.clone()).unwrap();
        assert_eq!(drain(&mut reader), (expected.collect(), Progress::End), "{options:?}");
    }
}

#[test]
fn a_tail_longer_than_a_block_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let text: String = (0..5000).map(|n| line(0).replace("0\\n", &format!("{n}\\n"))).collect();
    std::fs::write(&path, text).unwrap();
    let mut reader = Reader::open(&path, ReadOptions { tail: Some(4321), ..ReadOptions::default() }).unwrap();
    assert_eq!(drain(&mut reader), ((679..5000).collect(), Progress::End));
}

#[test]
fn entries_have_their_parts_and_rubbish_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let good = r#"{"log":"\ufffd\u003c\u2028","stream":"stderr","attrs":{"a":"b"},"time":"2026-01-01T00:00:01.5Z"}"#;
    std::fs::write(&path, format!("rubbish\n\n{{}}\n{good}\n")).unwrap();
    let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
    let mut seen = Vec::new();
    let end = reader.read(|entry| {
        seen.push((entry.stream, text(entry), entry.attrs()));
        true
    });
    let attrs = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    assert_eq!(seen, [(Stream::Stderr, "\u{fffd}<\u{2028}".to_owned(), attrs)]);
    assert_eq!(end.unwrap(), Progress::End);
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
    assert_eq!(drain(&mut reader), (vec![], Progress::Pending));
    append(&lines(0..2));
    append(&line(2)[..10]);
    assert_eq!(drain(&mut reader), (vec![0, 1], Progress::Pending));
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
    assert_eq!(drain(&mut reader), (vec![2, 3, 4, 5], Progress::Pending));
    append(&line(6));
    reader.stop_following();
    assert_eq!(drain(&mut reader), (vec![6], Progress::End));
}

#[test]
fn a_follower_that_ends_reads_the_files_of_a_last_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, lines(0..2)).unwrap();
    let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
    assert_eq!(drain(&mut reader), (vec![0, 1], Progress::Pending));
    std::fs::rename(&path, rotated(&path, 1)).unwrap();
    std::fs::write(&path, lines(2..4)).unwrap();
    reader.stop_following();
    assert_eq!(drain(&mut reader), (vec![2, 3], Progress::End));
}

#[test]
fn what_a_writer_left_that_was_killed_while_files_changed_places_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(rotated(&path, 3), lines(0..2)).unwrap();
    std::fs::write(rotated(&path, 1), lines(2..4)).unwrap();
    let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
    assert_eq!(drain(&mut reader), ((0..4).collect(), Progress::Pending));
    reader.stop_following();
    assert_eq!(drain(&mut reader), (vec![], Progress::End));
}

#[test]
fn a_gap_that_stays_holds_up_no_follower() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(rotated(&path, 2), lines(0..2)).unwrap();
    std::fs::write(&path, lines(2..4)).unwrap();
    let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
    assert_eq!(drain(&mut reader), ((0..4).collect(), Progress::Pending));
    std::fs::rename(rotated(&path, 2), rotated(&path, 3)).unwrap();
    std::fs::rename(&path, rotated(&path, 1)).unwrap();
    std::fs::write(&path, lines(4..6)).unwrap();
    assert_eq!(drain(&mut reader), (vec![4, 5], Progress::Pending));
}

#[test]
fn a_follower_gets_every_line_once_while_files_change_places_all_the_time() {
    use crate::file::{LogFile, Rotation};
    let numbered = |number: usize| line(0).replace("0\\n", &format!("{number}\\n"));
    for round in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // Few lines to a file, and as many files as there will be.
        let rotation = Rotation { max_size_bytes: Some(200), max_files: 120, compress: false };
        let mut file = LogFile::open(&path, rotation).unwrap();
        let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
        let writer = std::thread::spawn(move || {
            for number in 0..300 {
                let line = numbered(number);
                assert_eq!(file.write(line.as_bytes(), true, None).unwrap(), line.len());
            }
        });
        let mut numbers = Vec::new();
        while !writer.is_finished() {
            numbers.extend(drain(&mut reader).0);
        }
        writer.join().unwrap();
        reader.stop_following();
        numbers.extend(drain(&mut reader).0);
        assert!(numbers.iter().copied().eq(0..300), "round {round}: {numbers:?}");
    }
}

#[test]
fn a_point_in_time_is_found_without_reading_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let line = |number: u64| {
        let nanos = number * 1_000_000;
        format!(
            r#"{{"log":"{number}\n","stream":"stdout","time":"2026-01-01T00:0{}:{:02}.{:09}Z"}}"#,
            nanos / 60_000_000_000,
            nanos / 1_000_000_000 % 60,
            nanos % 1_000_000_000
        ) + "\n"
    };
    // Some 20 MB in three files, the middle one of rubbish and long lines, too.
    let part = |numbers: std::ops::Range<u64>| numbers.map(line).collect::<String>();
    std::fs::write(dir.path().join("log.2"), part(0..100_000)).unwrap();
    let long =
        format!(r#"{{"log":"{}150000\n","stream":"stdout","time":"2026-01-01T00:02:30.0Z"}}"#, " ".repeat(90_000))
            + "\n";
    std::fs::write(dir.path().join("log.1"), part(100_000..150_000) + "rubbish\n" + &long + &part(150_001..200_000))
        .unwrap();
    std::fs::write(&path, part(200_000..280_000)).unwrap();
    for since in [0_u64, 1, 50_000, 99_999, 100_000, 149_999, 150_000, 150_001, 199_999, 200_000, 279_999, 280_000] {
        let since_nanos = Some(1_767_225_600_000_000_000 + since * 1_000_000);
        let until_nanos = since_nanos.map(|since| since + 2_000_000);
        let mut reader =
            Reader::open(&path, ReadOptions { since_nanos, until_nanos, ..ReadOptions::default() }).unwrap();
        let expected = (since..since + 3).filter(|number| *number < 280_000).map(|number| number as usize).collect();
        assert_eq!(drain(&mut reader), (expected, Progress::End), "{since}");
        assert!(reader.read_bytes() < 1 << 20, "{since}: {} bytes", reader.read_bytes());
    }
    let mut reader = Reader::open(&path, ReadOptions { tail: Some(10), ..ReadOptions::default() }).unwrap();
    assert_eq!(drain(&mut reader), ((279_990..280_000).collect(), Progress::End));
    assert!(reader.read_bytes() < 1 << 18);
}

#[test]
fn a_reader_finds_its_file_though_it_was_compressed_meanwhile() {
    use crate::packed::{Packed, Packer};
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let append = |text: &str| {
        File::options().append(true).create(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let name = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    append(&lines(0..2));
    let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
    assert_eq!(drain(&mut reader), (vec![0, 1], Progress::Pending));
    append(&line(2));
    let (plain, packed) = (rotated(&path, 1), crate::file::rotated_packed(&path, 1));
    std::fs::rename(&path, &plain).unwrap();
    let mut packer = Packer::new();
    let packing = packer.begin(&name(&plain), &name(&packed), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    while packer.step(&packing).unwrap() == Packed::More {}
    std::fs::remove_file(&plain).unwrap();
    append(&line(3));
    assert_eq!(drain(&mut reader), (vec![2, 3], Progress::Pending));
    // Somebody who comes now reads the compressed one, too.
    let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
    assert_eq!(drain(&mut reader), ((0..4).collect(), Progress::End));
    let mut reader =
        Reader::open(&path, ReadOptions { tail: Some(2), since_nanos: at(3), ..ReadOptions::default() }).unwrap();
    assert_eq!(drain(&mut reader), (vec![3], Progress::End));
}
