use super::*;
use rustix::event::{PollFd, PollFlags, poll};

fn rotation(max_size_bytes: Option<u64>, max_files: u32) -> Rotation {
    Rotation { max_size_bytes, max_files }
}

/// Lets the writer go on until `done` says so; fails after ten seconds.
fn turn_until(writer: &mut Writer, mut done: impl FnMut(&mut Writer) -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done(writer) {
        assert!(Instant::now() < end, "nothing moves");
        let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        poll(&mut [PollFd::new(&writer.fd(), PollFlags::IN)], Some(&timeout)).unwrap();
        writer.drain();
    }
}

fn close(mut writer: Writer) {
    writer.close();
    turn_until(&mut writer, Writer::is_closed);
}

/// The text of the log with every time replaced by `T`.
fn without_times(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| format!("{}T\"}}\n", &line[..line.find("\"time\":\"").unwrap() + 8]);
    text.lines().map(line).collect()
}

#[test]
fn output_becomes_lines_whatever_its_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path, rotation(None, 1), &BTreeMap::new()).unwrap();
    for piece in ["on", "e\ntwo\n\nthr", "ee\n"] {
        writer.write(Stream::Stdout, piece.as_bytes());
        writer.write(Stream::Stderr, b"e");
    }
    close(writer);
    let out = |log: &str, stream: &str| format!(r#"{{"log":"{log}","stream":"{stream}","time":"T"}}"#) + "\n";
    let expected =
        [r"one\n", r"two\n", r"\n", r"three\n"].map(|line| out(line, "stdout")).concat() + &out("eee", "stderr");
    assert_eq!(without_times(&path), expected);
    let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn a_long_line_becomes_pieces_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let attrs = BTreeMap::from([("a".into(), "<b>".into())]);
    let mut writer = Writer::open(&path, rotation(None, 1), &attrs).unwrap();
    writer.write(Stream::Stdout, &vec![b'x'; 40_000]);
    writer.write(Stream::Stdout, b"\n");
    close(writer);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lengths: Vec<usize> = lines.iter().map(|line| line["log"].as_str().unwrap().len()).collect();
    assert_eq!(lengths, [16_384, 16_384, 40_000 - 32_768 + 1]);
    assert!(lines.iter().all(|line| line["time"] == lines[0]["time"] && line["attrs"]["a"] == "<b>"));
    assert!(text.contains(r#""attrs":{"a":"\u003cb\u003e"},"time""#));
}

#[test]
fn a_burst_larger_than_the_buffer_arrives_whole_and_rotates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path, rotation(Some(1 << 20), 100), &BTreeMap::new()).unwrap();
    let mut number = 0;
    while number < 100_000 {
        let chunk: String = (number..number + 1000).map(|n| format!("line {n}\n")).collect();
        number += 1000;
        writer.write(Stream::Stdout, chunk.as_bytes());
        turn_until(&mut writer, |writer| !writer.is_full());
    }
    close(writer);
    let mut all = String::new();
    let files = std::fs::read_dir(dir.path()).unwrap().count() as u32;
    assert!(files > 5);
    for number in (0..files).rev() {
        let path = if number == 0 { path.clone() } else { super::super::rotated(&path, number) };
        let text = std::fs::read_to_string(path).unwrap();
        let longest = (1 << 20) + 100;
        assert!(text.len() < longest && (number == 0 || text.len() >= 1 << 20), "{} bytes", text.len());
        all += &text;
    }
    let found: Vec<String> = all.lines().map(|l| l[8..l.find("\\n").unwrap()].to_owned()).collect();
    assert!(found.iter().eq((0..100_000).map(|n| format!("line {n}")).collect::<Vec<_>>().iter()));
}

#[test]
fn only_so_many_files_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for max_files in [3, 1] {
        let mut writer = Writer::open(&path, rotation(Some(10), max_files), &BTreeMap::new()).unwrap();
        writer.write(Stream::Stdout, b"1\n2\n3\n4\n5\n");
        close(writer);
        assert!(without_times(&path).contains("5\\n"));
        assert_eq!(path.with_extension("1").exists(), max_files > 1 || dir.path().join("log.1").exists());
    }
    assert!(!dir.path().join("log.3").exists());
    assert!(without_times(&dir.path().join("log.2")).contains("3\\n"));
}

#[test]
fn a_torn_last_line_spoils_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "{\"log\":\"to").unwrap();
    let mut writer = Writer::open(&path, rotation(None, 1), &BTreeMap::new()).unwrap();
    writer.write(Stream::Stdout, b"whole\n");
    close(writer);
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("{\"log\":\"to\n{\"log\":\"whole"));
}

#[test]
fn what_a_failed_disk_does_not_take_is_counted() {
    // Every write to it fails with ENOSPC.
    let mut writer = Writer::open(Path::new("/dev/full"), rotation(None, 1), &BTreeMap::new()).unwrap();
    let chunk = "a line\n".repeat(1000);
    let mut lines = 0;
    // The buffer fills, then two seconds without progress pass, then lines are dropped without holding anybody up.
    while lines < 100_000 {
        writer.write(Stream::Stdout, chunk.as_bytes());
        lines += 1000;
        turn_until(&mut writer, |writer| !writer.is_full());
    }
    writer.close();
    turn_until(&mut writer, Writer::is_closed);
    assert_eq!(writer.take_lost(), 100_000);
    assert_eq!(writer.take_lost(), 0);
}
