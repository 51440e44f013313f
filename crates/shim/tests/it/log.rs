//! The log.

use std::io::Write;

use logging::{Progress, ReadOptions, Reader, Stream};
use shim_api::{Answer, Call, Fact, LogTarget};

use crate::fixture::Shim;

fn target(shim: &Shim, max_size_bytes: Option<u64>) -> LogTarget {
    LogTarget { path: shim.dir.path().join("json.log"), max_size_bytes, max_files: 50, ..LogTarget::default() }
}

fn read(shim: &Shim) -> Vec<(Stream, String)> {
    read_file(&shim.dir.path().join("json.log"), ReadOptions::default())
}

fn read_file(path: &std::path::Path, options: ReadOptions) -> Vec<(Stream, String)> {
    let mut reader = Reader::open(path, options).unwrap();
    let mut entries = Vec::new();
    let progress = reader.read(|entry| {
        let mut text = Vec::new();
        entry.append_text(&mut text);
        entries.push((entry.stream, String::from_utf8(text).unwrap()));
        true
    });
    assert_eq!(progress.unwrap(), Progress::End);
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
        let task = shim_api::ExecTask {
            exec_id: number.to_string(),
            process,
            user: None,
            groups: vec![],
            attach: None,
            note: String::new(),
        };
        let started = shim.daemon.call(Call::Exec(Box::new(task)));
        assert!(matches!(started, Ok(Answer::ExecStarted { .. })), "{started:?}");
    }
    assert_eq!(shim.daemon.call(Call::Signal { signal: 9 }), Ok(Answer::Done));
    assert_eq!(shim.finish().exit_code, 137);
}

/// A file system of its own for the log, in no mount table: gone with the descriptor.
fn small_disk() -> std::os::fd::OwnedFd {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    };
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&context, "size", "4m").unwrap();
    fsconfig_create(&context).unwrap();
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

#[test]
fn privileged_lines_that_a_full_disk_did_not_take_are_counted_in_the_log_and_told() {
    use rustix::fs::inotify;
    let disk = small_disk();
    let disk = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&disk));
    let path = std::path::Path::new(&disk).join("json.log");
    let ballast = std::path::Path::new(&disk).join("ballast");
    std::fs::write(&ballast, vec![0; (4 << 20) - 8192]).unwrap();
    // 40,000 lines are 3 MB of log, and memory holds less than one: most find no room.
    let mut shim = Shim::new("seq 1 40000; echo full; read go; echo recovered");
    (shim.task.open_stdin, shim.task.stdin_once) = (true, true);
    shim.task.log = Some(LogTarget { path: path.clone(), ..target(&shim, None) });
    shim.create();
    let mut client = shim.daemon.attach(crate::fixture::everything());
    shim.start();
    client.await_text("full\n");
    let events = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&events, &path, inotify::WatchFlags::MODIFY).unwrap();
    std::fs::remove_file(&ballast).unwrap();
    // The log goes on by itself.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    assert!(sys::wait::readable(std::os::fd::AsFd::as_fd(&events), deadline).unwrap());
    // Told as soon as it is known, without any further output.
    let Fact::LogLost { lines, .. } = shim.daemon.fact() else { panic!("no fact about the log") };
    client.0.write_all(b"\n").unwrap();
    shim.finish();
    let logged: Vec<String> = read_file(&path, ReadOptions::default()).into_iter().map(|(_, text)| text).collect();
    let missing = format!("longshore: {lines} lines of output are missing here: the log could not be written\n");
    assert!(lines > 10_000 && logged.contains(&missing), "{lines}");
    // The lines of seq, "full" and "recovered", and the one about those that are missing.
    assert_eq!(logged.len() as u64 + lines, 40_003);
    assert_eq!(logged.last().map(String::as_str), Some("recovered\n"));
}

#[test]
fn privileged_the_journal_gets_every_line_and_a_file_keeps_them() {
    use std::os::unix::net::UnixDatagram;
    let mut shim = Shim::new("echo out; echo err >&2");
    let (socket, path) = (shim.dir.path().join("journal"), shim.dir.path().join("cached.log"));
    let journal = UnixDatagram::bind(&socket).unwrap();
    let fields = [("CONTAINER_NAME".to_owned(), "web".to_owned())].into();
    let kind = shim_api::LogServerKind::Journal { socket, fields };
    shim.task.log_server = Some(shim_api::LogServer { kind, buffer_max_bytes: None });
    shim.task.log = Some(LogTarget { path: path.clone(), compact: true, ..target(&shim, None) });
    shim.create();
    shim.start();
    assert_eq!(shim.finish().exit_code, 0);
    let mut buffer = [0; 4096];
    let mut messages: Vec<String> = (0..2)
        .map(|_| {
            let length = journal.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        })
        .collect();
    messages.sort_by_key(|message| message.contains("MESSAGE=out"));
    assert!(messages[0].starts_with("PRIORITY=3\nMESSAGE=err\nCONTAINER_NAME=web\n"), "{messages:?}");
    assert!(messages[1].starts_with("PRIORITY=6\nMESSAGE=out\nCONTAINER_NAME=web\n"), "{messages:?}");
    let options = ReadOptions { format: logging::Format::Compact, ..ReadOptions::default() };
    assert_eq!(read_file(&path, options).len(), 2);
}

#[test]
fn privileged_a_server_that_never_reads_stops_no_container() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut shim = Shim::new("seq 1 1000000 | sed s/$/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/; echo done >&2");
    let kind = shim_api::LogServerKind::Syslog {
        network: "tcp".to_owned(),
        address: server.local_addr().unwrap().to_string(),
        facility: 3,
        format: shim_api::SyslogFormat::Rfc5424,
        tag: "tag".to_owned(),
    };
    shim.task.log_server = Some(shim_api::LogServer { kind, buffer_max_bytes: None });
    shim.create();
    shim.start();
    // It waits for two seconds, and then goes on without its lines.
    let Fact::LogLost { lines, .. } = shim.daemon.fact() else { panic!("no fact about the log") };
    assert!(lines > 10_000, "{lines}");
    assert_eq!(shim.finish().exit_code, 0);
}
