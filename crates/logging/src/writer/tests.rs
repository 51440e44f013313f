use super::*;
use crate::{FileOptions, Format, Log, LogOptions, RemoteOptions, Rotation, SyslogOptions, Target};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::BTreeMap;
use std::path::Path;

fn rotation(max_size_bytes: Option<u64>, max_files: u32) -> Rotation {
    Rotation { max_size_bytes, max_files, compress: false }
}

fn file(path: &Path, rotation: Rotation) -> FileOptions {
    let (path, attrs) = (path.to_owned(), BTreeMap::new());
    FileOptions { path, format: Format::Json, rotation, attrs, buffer_max_bytes: None }
}

fn open(file: FileOptions) -> Log {
    Log::open(&LogOptions { file: Some(file), remote: None }).unwrap()
}

/// Lets the writer go on until `done` says so; fails after ten seconds.
fn turn_until(writer: &mut Log, mut done: impl FnMut(&mut Log) -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done(writer) {
        assert!(Instant::now() < end, "nothing moves");
        let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        poll(&mut [PollFd::new(&writer.fd(), PollFlags::IN)], Some(&timeout)).unwrap();
        writer.drain();
    }
}

fn close(mut writer: Log) {
    writer.close();
    turn_until(&mut writer, Log::is_closed);
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
    let mut writer = open(file(&path, rotation(None, 1)));
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
    let mut writer = open(FileOptions { attrs, ..file(&path, rotation(None, 1)) });
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
    let mut writer = open(file(&path, rotation(Some(1 << 20), 100)));
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
        let path = if number == 0 { path.clone() } else { crate::file::rotated(&path, number) };
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
        let mut writer = open(file(&path, rotation(Some(10), max_files)));
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
    let mut writer = open(file(&path, rotation(None, 1)));
    writer.write(Stream::Stdout, b"whole\n");
    close(writer);
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("{\"log\":\"to\n{\"log\":\"whole"));
}

#[test]
fn what_a_failed_disk_does_not_take_is_counted() {
    // Every write to it fails with ENOSPC.
    let mut writer = open(file(Path::new("/dev/full"), rotation(None, 1)));
    let chunk = "a line\n".repeat(1000);
    let mut lines = 0;
    // The buffer fills, then two seconds without progress pass, then lines are dropped without holding anybody up.
    while lines < 100_000 {
        writer.write(Stream::Stdout, chunk.as_bytes());
        lines += 1000;
        turn_until(&mut writer, |writer| !writer.is_full());
    }
    writer.close();
    turn_until(&mut writer, Log::is_closed);
    assert_eq!(writer.take_lost(), 100_000);
    assert_eq!(writer.take_lost(), 0);
}

#[test]
fn what_finds_no_room_is_dropped_where_nobody_may_wait() {
    let options = FileOptions { buffer_max_bytes: Some(100), ..file(Path::new("/dev/full"), rotation(None, 1)) };
    let mut log = open(options);
    for _ in 0..1000 {
        log.write(Stream::Stdout, &b"0123456789\n".repeat(100));
        assert!(!log.is_full());
    }
    log.close();
    turn_until(&mut log, Log::is_closed);
    // The words about lines that are missing are lost, too.
    let lost = log.take_lost();
    assert!((100_000..100_010).contains(&lost), "{lost}");
}

#[test]
fn rotated_files_are_compressed_meanwhile_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let rotation = Rotation { compress: true, ..rotation(Some(1 << 20), 100) };
    let mut log = open(FileOptions { format: Format::Compact, ..file(&path, rotation) });
    for begin in (0..200_000).step_by(1000) {
        let chunk: String = (begin..begin + 1000).map(|number| format!("line {number}\n")).collect();
        log.write(Stream::Stdout, chunk.as_bytes());
        turn_until(&mut log, |log| !log.is_full());
    }
    close(log);
    let packed = (1..10).filter(|number| crate::file::rotated_packed(&path, *number).exists()).count();
    assert!(packed >= 2, "{packed}");
    assert!(!dir.path().join("log.gz.tmp").exists());
    for (tail, first) in [(None, 0), (Some(150_000), 50_000), (Some(5), 199_995)] {
        let options = crate::ReadOptions { format: Format::Compact, tail, ..Default::default() };
        let (mut reader, mut text) = (crate::Reader::open(&path, options).unwrap(), Vec::new());
        let end = reader.read(|entry| {
            entry.append_text(&mut text);
            true
        });
        assert_eq!(end.unwrap(), crate::Progress::End);
        let expected: String = (first..200_000).map(|number| format!("line {number}\n")).collect();
        assert!(text == expected.as_bytes(), "{tail:?}");
    }
}

fn syslog(network: &str, address: &str) -> RemoteOptions {
    let (network, address, tag) = (network.to_owned(), address.to_owned(), "tag".to_owned());
    let options = SyslogOptions { network, address, tag, facility: 3, ..SyslogOptions::default() };
    RemoteOptions { target: Target::Syslog(options), buffer_max_bytes: None }
}

#[test]
fn a_line_is_a_message_to_syslog_and_is_kept_beside_it() {
    use std::os::unix::net::UnixDatagram;
    let dir = tempfile::tempdir().unwrap();
    let (path, socket) = (dir.path().join("cache"), dir.path().join("dev-log"));
    let server = UnixDatagram::bind(&socket).unwrap();
    let file = FileOptions { format: Format::Compact, ..file(&path, rotation(None, 1)) };
    let remote = Some(syslog("unixgram", socket.to_str().unwrap()));
    let mut log = Log::open(&LogOptions { file: Some(file), remote }).unwrap();
    log.write(Stream::Stdout, b"one\n\ntwo");
    log.write(Stream::Stderr, b"three\n");
    close(log);
    let mut messages = Vec::new();
    server.set_nonblocking(true).unwrap();
    let mut buffer = [0; 1000];
    while let Ok(length) = server.recv(&mut buffer) {
        messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    let pid = std::process::id();
    let ends = [(30, "one"), (27, "three"), (30, "two")]
        .map(|(priority, text)| (format!("<{priority}>"), format!(" tag[{pid}]: {text}\n")));
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(messages.iter().zip(&ends).all(|(text, (begin, end))| text.starts_with(begin) && text.ends_with(end)));
    assert_eq!(std::fs::read(&path).unwrap().iter().filter(|byte| **byte == b'\n').count(), 4);
}

#[test]
fn a_server_that_never_reads_costs_its_lines_and_holds_up_nobody() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let file = FileOptions { format: Format::Compact, ..file(&path, rotation(None, 1)) };
    let mut log = Log::open(&LogOptions { file: Some(file), remote: Some(syslog("tcp", &address)) }).unwrap();
    let chunk = format!("{}\n", "x".repeat(999)).repeat(100);
    // More than sockets and buffers hold.
    for _ in 0..200 {
        log.write(Stream::Stdout, chunk.as_bytes());
        turn_until(&mut log, |log| !log.is_full());
    }
    close_counting(log, |lost| assert!((5_000..20_000).contains(&lost), "{lost}"));
    // The file beside it has all of them.
    let kept = std::fs::read(&path).unwrap().iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(kept, 20_000);
}

fn close_counting(mut log: Log, check: impl FnOnce(u64)) {
    log.close();
    turn_until(&mut log, Log::is_closed);
    check(log.take_lost());
}

#[test]
fn a_server_that_comes_back_gets_what_follows() {
    use std::io::{BufRead, BufReader};
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let remote = Some(syslog("tcp", &address.to_string()));
    let mut log = Log::open(&LogOptions { file: None, remote }).unwrap();
    let (connection, _) = server.accept().unwrap();
    let mut lines = BufReader::new(connection).lines();
    log.write(Stream::Stdout, b"first\n");
    let line = lines.next().unwrap().unwrap();
    assert!(line.starts_with("<30>") && line.ends_with(&format!(" tag[{}]: first", std::process::id())), "{line}");
    drop(lines);
    // What goes into a connection that breaks is lost without anybody's knowing: so on and on, until there is another one.
    server.set_nonblocking(true).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    let next = loop {
        log.write(Stream::Stdout, b"again\n");
        match server.accept() {
            Ok((connection, _)) => break connection,
            Err(_) => assert!(Instant::now() < end),
        }
    };
    next.set_nonblocking(false).unwrap();
    let line = BufReader::new(next).lines().next().unwrap().unwrap();
    assert!(line.ends_with(": again"), "{line}");
    close(log);
}

#[test]
fn the_journal_gets_long_messages_as_files() {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixDatagram;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("journal");
    let server = UnixDatagram::bind(&socket).unwrap();
    // A variable of the container may be longer than any datagram.
    let fields = BTreeMap::from([("LONG".to_owned(), "x".repeat(300_000))]);
    let remote = RemoteOptions { target: Target::Journal { socket, fields }, buffer_max_bytes: None };
    let mut log = Log::open(&LogOptions { file: None, remote: Some(remote) }).unwrap();
    log.write(Stream::Stderr, b"text\n");
    close(log);
    let (mut bytes, mut files) = ([0; 16], Vec::new());
    assert_eq!(sys::socket::receive(server.as_fd(), &mut bytes, &mut files).unwrap(), 0);
    let file = std::fs::File::from(files.pop().unwrap());
    let mut text = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut text, 0).unwrap();
    assert!(text.starts_with(b"PRIORITY=3\nMESSAGE=text\nLONG=xxx") && text.len() > 300_000);
}

#[test]
fn who_is_not_there_is_told_in_gos_words() {
    let refused = |network: &str, address: &str| {
        let remote = Some(syslog(network, address));
        Log::open(&LogOptions { file: None, remote }).err().unwrap().to_string()
    };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(refused("tcp", &free), format!("dial tcp {free}: connect: connection refused"));
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent").display().to_string();
    assert_eq!(refused("unix", &absent), format!("dial unix {absent}: connect: no such file or directory"));
}

#[test]
fn a_mark_parts_what_came_before_from_what_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = open(FileOptions { format: Format::Compact, ..file(&path, rotation(None, 1)) });
    log.write(Stream::Stdout, b"before\nunfinished");
    let place = log.mark().unwrap();
    assert_eq!(log.pending().collect::<Vec<_>>(), [(Stream::Stdout, &b"unfinished"[..])]);
    turn_until(&mut log, |log| log.has_reached(place));
    log.write(Stream::Stdout, b" line\nafter\n");
    close(log);
    let options =
        crate::ReadOptions { format: Format::Compact, until_nanos: Some(place.nanos()), ..Default::default() };
    let (mut reader, mut text) = (crate::Reader::open(&path, options).unwrap(), Vec::new());
    reader
        .read(|entry| {
            entry.append_text(&mut text);
            true
        })
        .unwrap();
    assert_eq!(text, b"before\n");
}
