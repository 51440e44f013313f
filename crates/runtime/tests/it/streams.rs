//! Standard streams in the foreground, without a terminal.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

use super::fixture::Bundle;

/// Not root's.
const USER: u32 = 7;

fn owner(path: &Path) -> u32 {
    fs::metadata(path).unwrap().uid()
}

fn appending(path: &Path) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

/// A container whose program has an ordinary user.
fn bundle(args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(args);
    bundle.config["process"]["user"] = json!({"uid": USER, "gid": USER});
    bundle
}

const OPENS_AGAIN: &str = "cat; echo out >/dev/stdout; echo err >/dev/stderr";

#[test]
fn privileged_files_of_the_host_keep_their_owner_and_what_is_in_them() {
    let bundle = bundle(&["sh", "-c", OPENS_AGAIN]);
    let [input, log] = ["input", "log"].map(|name| bundle.path(name));
    fs::write(&input, "in\n").unwrap();
    let words = |container: bool| match container {
        true => vec!["run", &bundle.id],
        false => vec!["exec", &bundle.id, "sh", "-c", OPENS_AGAIN],
    };
    for container in [true, false] {
        fs::write(&log, "kept\n").unwrap();
        let mut command = bundle.command(&words(container));
        command.stdin(File::open(&input).unwrap()).stdout(appending(&log)).stderr(appending(&log));
        assert!(command.status().unwrap().success());
        let text = fs::read_to_string(&log).unwrap();
        let (head, mut rest) = (&text[..8.min(text.len())], text.lines().skip(2).collect::<Vec<_>>());
        rest.sort_unstable();
        assert_eq!((head, rest), ("kept\nin\n", vec!["err", "out"]), "{text}");
        assert_eq!((owner(&input), owner(&log)), (0, 0));
        if container {
            // For the one that is added.
            let mut lasting = bundle.command(&["run", "-d", &bundle.id]);
            let config = fs::read_to_string(bundle.path("config.json")).unwrap();
            fs::write(bundle.path("config.json"), config.replace(OPENS_AGAIN, "sleep 1000")).unwrap();
            assert!(lasting.status().unwrap().success());
        }
    }
    bundle.ok(&["delete", "-f"]);
}

#[test]
fn privileged_a_pid_file_is_for_everybody_whom_the_umask_lets() {
    let bundle = bundle(&["true"]);
    let script = "umask $2; \"$0\" --root root create --pid-file pid \"$1\" >/dev/null 2>&1 && stat -c %a pid";
    for (umask, mode) in [("022", "644\n"), ("077", "600\n")] {
        let mut command = bundle.command(&[]);
        let program = command.get_program().to_owned();
        command = std::process::Command::new("sh");
        command.args(["-c", script]).arg(program).args([&bundle.id, umask]).current_dir(bundle.dir.path());
        assert_eq!(String::from_utf8(command.stdin(Stdio::null()).output().unwrap().stdout).unwrap(), mode);
        bundle.ok(&["delete", "-f"]);
        fs::remove_file(bundle.path("pid")).unwrap();
    }
}

#[test]
fn privileged_devices_of_the_host_keep_their_owner() {
    let bundle = bundle(&["busybox", "head", "-c", "3"]);
    let done = bundle.command(&["run", &bundle.id]).stdin(File::open("/dev/zero").unwrap()).output().unwrap();
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(0), &b"\0\0\0"[..]));
    assert_eq!(owner(Path::new("/dev/zero")), 0);
}

#[test]
fn privileged_a_terminal_of_the_hosts_stays_the_hosts() {
    let bundle = bundle(&["sh", "-c", "test -t 0 || test -t 1 || echo none"]);
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let terminal = OpenOptions::new().read(true).write(true).open(&name).unwrap();
    let mut command = bundle.command(&["run", &bundle.id]);
    command.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    drop(command);
    // It goes with its master.
    let owner = owner(Path::new(&name));
    let mut shown = [0; 16];
    let length = File::from(master).read(&mut shown).unwrap();
    assert_eq!((&shown[..length], owner), (&b"none\r\n"[..], 0));
}

#[test]
fn privileged_much_goes_through_and_the_end_of_the_input_is_told() {
    let bundle = bundle(&["cat"]);
    let [input, output] = ["input", "output"].map(|name| bundle.path(name));
    let much: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    fs::write(&input, &much).unwrap();
    let mut command = bundle.command(&["run", &bundle.id]);
    let status = command.stdin(File::open(&input).unwrap()).stdout(File::create(&output).unwrap()).status().unwrap();
    assert!(status.success());
    assert!(fs::read(&output).unwrap() == much, "something is lost");
    // Likewise of a pipe, which is the program's own.
    let mut child = bundle.command(&["run", &bundle.id]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"typed");
}

#[test]
fn privileged_pipes_go_on_as_they_are() {
    let bundle = bundle(&["readlink", "/proc/self/fd/1"]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let stat = rustix::fs::fstat(&writer).unwrap();
    assert!(bundle.command(&["run", &bundle.id]).stdout(writer).status().unwrap().success());
    let mut shown = String::new();
    reader.read_to_string(&mut shown).unwrap();
    assert_eq!(shown, format!("pipe:[{}]\n", stat.st_ino));
}

#[test]
fn privileged_who_goes_on_writing_holds_nobody_up() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let log = bundle.path("log-of-exec");
    // Several, so that there is always something to read.
    let script = "echo first; for i in 1 2 3 4 5 6 7 8; do busybox yes & done; sleep 0.2";
    let mut command = bundle.command(&["exec", &bundle.id, "sh", "-c", script]);
    let status = command.stdout(File::create(&log).unwrap()).status().unwrap();
    assert!(status.success());
    let mut first = [0; 8];
    File::open(&log).unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first\ny\n");
    bundle.ok(&["delete", "-f"]);
}

#[test]
fn privileged_a_program_that_nobody_listens_to_ends() {
    let bundle = bundle(&["sh", "-c", "while echo more; do :; done; exit 3"]);
    // A file system that is full: what cannot be written is told by the end of the pipe. No signal ends a process 1.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = bundle.command(&["run", &bundle.id]).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(3));
}
