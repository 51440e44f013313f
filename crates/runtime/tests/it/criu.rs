//! Containers that are written to files and made again, by a real CRIU.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};

use rustix::fs::{Mode, chmod};
use serde_json::{Value, json};
use testkit::{paths, skip};

use super::fixture::{Bundle, wait_until};
use super::terminal::{master, socket};

/// A bundle whose commands find CRIU; nothing on a machine without one.
pub(super) fn bundle(args: &[&str]) -> Option<Bundle> {
    let Ok(criu) = paths::program_of("criu", "criu") else {
        skip::report("needs criu, which `cargo xtask test` unpacks");
        return None;
    };
    let mut bundle = Bundle::new(args);
    bundle.programs = Some(criu.parent().unwrap().to_owned());
    Some(bundle)
}

/// Counts into a file that it holds open, for ever.
pub(super) const COUNTER: &str = "i=0; exec 5>/tmp/out; while :; do i=$((i+1)); echo $i >&5; sleep 0.01; done";

pub(super) const FILES: [&str; 4] = ["--image-path", "images", "--work-path", "work"];

pub(super) fn words<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

/// What the counter has written: 1, 2, 3 and so on without a gap, however often it was stopped.
fn counted(bundle: &Bundle) -> usize {
    let text = fs::read_to_string(bundle.path("rootfs/tmp/out")).unwrap_or_default();
    let lines: Vec<_> = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).collect();
    let expected: Vec<_> = (1..=lines.len()).map(|number| number.to_string()).collect();
    assert_eq!(lines, expected);
    lines.len()
}

pub(super) fn wait_for_more(bundle: &Bundle) {
    let before = counted(bundle);
    wait_until("counted", || counted(bundle) > before + 2);
}

pub(super) fn running(bundle: &Bundle) {
    bundle.ok(&["run", "-d"]);
    wait_until("counted", || counted(bundle) > 2);
}

/// Whether nothing of a container is left, except what has been written to files.
pub(super) fn assert_gone(bundle: &Bundle) {
    bundle.assert_gone();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(bundle.dir.path().to_str().unwrap()), "{table}");
}

#[test]
fn privileged_a_shell_goes_on_with_its_open_file() {
    let Some(bundle) = bundle(&["sh", "-c", COUNTER]) else { return };
    running(&bundle);
    bundle.ok(&words(&[&["checkpoint"], &FILES]));
    assert_gone(&bundle);
    assert!(bundle.path("images/pstree.img").exists() && bundle.path("work/dump.log").exists());
    let before = counted(&bundle);
    bundle.ok(&words(&[&["restore", "--detach", "--pid-file", "pid"], &FILES]));
    assert_eq!(bundle.status(), "running");
    let pid: Value = fs::read_to_string(bundle.path("pid")).unwrap().parse::<i32>().unwrap().into();
    assert_eq!(bundle.state()["pid"], pid);
    wait_until("counted", || counted(&bundle) > before + 2);
    // In its cgroup, with its filter and clocks, and processes can be added.
    assert!(bundle.cgroup().procs_with_below().contains(&(pid.as_i64().unwrap() as i32)));
    let done =
        bundle.run(&["exec", &bundle.id, "sh", "-c", "hostname; echo x > /proc/sys/vm/swappiness; hostname new"]);
    assert_eq!(done.stdout, "bundle\n", "{done:?}");
    assert!(done.stderr.contains("Read-only") && done.stderr.contains("Operation not supported"), "{done:?}");
    let clock = |process: &str| fs::read_link(format!("/proc/{process}/ns/time")).unwrap();
    assert_ne!(clock(&pid.to_string()), clock("self"));
    // A second time, with what the first one has left.
    bundle.ok(&words(&[&["checkpoint"], &FILES]));
    bundle.ok(&words(&[&["restore", "-d"], &FILES]));
    wait_for_more(&bundle);
    bundle.ok(&["delete", "--force"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_a_listener_answers_after_its_restore() {
    let Some(bundle) = bundle(&["busybox", "nc", "-ll", "-p", "7777", "-e", "/bin/hostname"]) else { return };
    bundle.ok(&["run", "-d"]);
    let ask = || bundle.run(&["exec", &bundle.id, "busybox", "nc", "127.0.0.1", "7777"]).stdout;
    wait_until("answer", || ask() == "bundle\n");
    bundle.ok(&words(&[&["checkpoint"], &FILES]));
    bundle.ok(&words(&[&["restore", "-d"], &FILES]));
    wait_until("answer again", || ask() == "bundle\n");
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_one_that_is_left_running_goes_on_and_so_does_its_copy_later() {
    let Some(bundle) = bundle(&["sh", "-c", COUNTER]) else { return };
    running(&bundle);
    bundle.ok(&words(&[&["checkpoint", "--leave-running"], &FILES]));
    assert_eq!(bundle.status(), "running");
    wait_for_more(&bundle);
    // A paused one is written, too, and stays paused.
    bundle.ok(&["pause"]);
    bundle.ok(&words(&[&["checkpoint", "--leave-running"], &FILES]));
    assert_eq!(bundle.status(), "paused");
    bundle.ok(&["resume"]);
    wait_for_more(&bundle);
    let text = bundle.err(&words(&[&["restore", "-d"], &FILES]));
    assert_eq!(text, "longshore-runtime restore failed: container with given ID already exists");
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_pipes_are_replaced_by_those_that_are_given() {
    let script = "while read line; do echo \"got $line\"; done; exit 7";
    let Some(bundle) = bundle(&["sh", "-c", script]) else { return };
    let begin = |words: &[&str]| -> Child {
        let words: Vec<_> = words.iter().copied().chain([bundle.id.as_str()]).collect();
        bundle.command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let say = |child: &mut Child, line: &str| child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    let hear = |child: &mut Child| {
        let mut text = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut text).unwrap();
        text
    };
    let mut first = begin(&["run"]);
    say(&mut first, "one\n");
    assert_eq!(hear(&mut first), "got one\n");
    bundle.ok(&words(&[&["checkpoint"], &FILES]));
    // As for any that is killed.
    assert_eq!(first.wait().unwrap().code(), Some(137));
    let descriptors = fs::read_to_string(bundle.path("images/descriptors.json")).unwrap();
    assert!(descriptors.starts_with("[\"pipe:[") && descriptors.contains("]\",\"pipe:["), "{descriptors}");
    let mut second = begin(&words(&[&["restore"], &FILES]));
    say(&mut second, "two\n");
    assert_eq!(hear(&mut second), "got two\n");
    drop(second.stdin.take());
    assert_eq!(second.wait().unwrap().code(), Some(7));
    assert_gone(&bundle);
}

#[test]
fn privileged_a_log_of_the_hosts_is_written_on() {
    let script = "for i in 1 2; do echo line; while ! busybox rm /tmp/go 2>/dev/null; do sleep 0.01; done; done";
    let Some(bundle) = bundle(&["sh", "-c", script]) else { return };
    let log = || File::options().append(true).create(true).open(bundle.path("container.log")).unwrap();
    let run = |words: &[&str]| {
        let words: Vec<_> = words.iter().copied().chain([bundle.id.as_str()]).collect();
        assert!(bundle.command(&words).stdout(log()).stderr(log()).status().unwrap().success());
    };
    let written = || fs::read_to_string(bundle.path("container.log")).unwrap();
    run(&["run", "-d"]);
    wait_until("line", || written() == "line\n");
    bundle.ok(&words(&[&["checkpoint"], &FILES]));
    log().write_all(b"between\n").unwrap();
    run(&words(&[&["restore", "-d"], &FILES]));
    File::create(bundle.path("rootfs/tmp/go")).unwrap();
    wait_until("line", || written() == "line\nbetween\nline\n");
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_a_file_that_is_not_appended_to_is_refused_and_the_container_goes_on() {
    let Some(bundle) = bundle(&["sh", "-c", COUNTER]) else { return };
    fs::write(bundle.path("out"), "line\n").unwrap();
    let file = File::options().write(true).open(bundle.path("out")).unwrap();
    let status = bundle.command(&["run", "-d", &bundle.id]).stdout(file).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    wait_for_more(&bundle);
    for flags in [&["checkpoint"][..], &["checkpoint", "--leave-running"]] {
        let text = bundle.err(&words(&[flags, &FILES]));
        let path = bundle.path("out");
        let said = format!("standard output is {}, a file of the host's with content that is not open", path.display());
        assert!(text.starts_with(&said), "{text}");
        assert_eq!(bundle.status(), "running");
        wait_for_more(&bundle);
    }
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_a_terminal_comes_through_the_socket_again() {
    let Some(mut bundle) = bundle(&["sh", "-c", "while read line; do echo got $line; done"]) else { return };
    bundle.config["process"]["terminal"] = json!(true);
    let (listener, path) = socket(&bundle);
    let console = ["-d", "--console-socket", path.to_str().unwrap()];
    let talk = |terminal: &mut File| {
        terminal.write_all(b"words\n").unwrap();
        let mut text = [0; 18];
        terminal.read_exact(&mut text).unwrap();
        assert_eq!(std::str::from_utf8(&text), Ok("words\r\ngot words\r\n"));
    };
    bundle.ok(&words(&[&["run"], &console]));
    let mut terminal = master(&listener);
    talk(&mut terminal);
    bundle.ok(&words(&[&["checkpoint"], &FILES]));
    drop(terminal);
    let missing = "longshore-runtime restore failed: cannot allocate tty if longshore-runtime will detach without setting \
                   console socket (process.terminal needs --console-socket)";
    assert_eq!(bundle.err(&words(&[&["restore", "-d"], &FILES])), missing);
    bundle.ok(&words(&[&["restore"], &console, &FILES]));
    talk(&mut master(&listener));
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_what_is_mounted_from_the_host_is_found_again() {
    let Some(mut bundle) = bundle(&["sh", "-c", COUNTER]) else { return };
    for directory in ["data/below", "rootfs/run"] {
        fs::create_dir_all(bundle.path(directory)).unwrap();
    }
    symlink("/run", bundle.path("rootfs/var")).unwrap();
    fs::write(bundle.path("hosts"), "hosts\n").unwrap();
    fs::write(bundle.path("data/below/file"), "file\n").unwrap();
    let bind = |source: &str, destination: &str| json!({"source": source, "destination": destination, "options": ["rbind", "ro"]});
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    // Relative to the bundle; through a link; of a file; one in another.
    mounts.extend([bind("data", "/var/data"), bind("hosts", "/etc/hosts"), bind("hosts", "/var/data/below/file")]);
    mounts.push(json!({"source": "cgroup", "type": "cgroup", "destination": "/sys/fs/cgroup", "options": ["ro"]}));
    bundle.config["process"]["cwd"] = json!("/tmp");
    running(&bundle);
    bundle.ok(&words(&[&["checkpoint"], &FILES]));
    // As on another machine, which has none of the places.
    fs::remove_file(bundle.path("rootfs/etc/hosts")).unwrap();
    fs::remove_dir(bundle.path("rootfs/run/data")).unwrap();
    bundle.ok(&words(&[&["restore", "-d"], &FILES]));
    let script = "cat /etc/hosts /run/data/below/file; touch /run/data/x; cat /sys/fs/cgroup/pids/pids.max || \
                  cat /sys/fs/cgroup/pids.max; ls /sys/fs/cgroup";
    let done = bundle.run(&["exec", &bundle.id, "sh", "-c", script]);
    assert!(done.stdout.starts_with("hosts\nhosts\n64\n"), "{done:?}");
    assert!(done.stdout.contains("memory\n") || done.stdout.contains("\nmemory.max\n"), "{done:?}");
    assert!(done.stderr.contains("Read-only file system"), "{done:?}");
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_a_user_namespace_is_restored() {
    let Some(mut bundle) = bundle(&["sh", "-c", COUNTER]) else { return };
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    (bundle.config["linux"]["uidMappings"], bundle.config["linux"]["gidMappings"]) = (ids.clone(), ids);
    bundle.config["linux"]["maskedPaths"] = json!(["/proc/keys"]);
    chmod(bundle.path("rootfs/tmp"), Mode::from_raw_mode(0o777)).unwrap();
    running(&bundle);
    bundle.ok(&words(&[&["checkpoint"], &FILES]));
    bundle.ok(&words(&[&["restore", "-d"], &FILES]));
    wait_for_more(&bundle);
    let pid = bundle.state()["pid"].as_i64().unwrap();
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    // Masked with the host's null device, as before.
    assert_eq!(
        bundle.run(&["exec", &bundle.id, "sh", "-c", "echo x > /dev/null; cat /proc/keys; id -u"]).stdout,
        "0\n"
    );
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_what_criu_cannot_write_is_named_and_the_container_goes_on() {
    let talk = "busybox nc -ll -p 7777 -e /bin/cat & \
                until busybox nc 127.0.0.1 7777 -e /bin/sleep 1000 2>/dev/null; do sleep 0.01; done & ";
    let Some(bundle) = bundle(&["sh", "-c", &format!("{talk}{COUNTER}")]) else { return };
    running(&bundle);
    let talks = || bundle.run(&["exec", &bundle.id, "cat", "/proc/net/tcp"]).stdout.contains(" 01 ");
    wait_until("talks", talks);
    let text = bundle.err(&words(&[&["checkpoint"], &FILES]));
    let log = bundle.path("work/dump.log");
    assert!(text.starts_with("criu failed: type DUMP errno ") && text.contains("tcp"), "{text}");
    assert!(text.ends_with(&format!("(log file: {})", log.display())) && log.exists(), "{text}");
    assert_eq!(bundle.status(), "running");
    wait_for_more(&bundle);
    bundle.ok(&words(&[&["checkpoint", "--tcp-established"], &FILES]));
    bundle.ok(&words(&[&["restore", "-d", "--tcp-established"], &FILES]));
    assert!(talks());
    wait_for_more(&bundle);
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}

#[test]
fn privileged_memory_is_written_before_the_rest_where_the_kernel_tells_what_has_changed_since() {
    let Some(bundle) = bundle(&["sh", "-c", COUNTER]) else { return };
    running(&bundle);
    let before = ["checkpoint", "--pre-dump", "--image-path", "before", "--work-path", "work"];
    let done = bundle.run(&words(&[&before, &[bundle.id.as_str()]]));
    assert_eq!(bundle.status(), "running");
    wait_for_more(&bundle);
    if done.code == Some(0) {
        assert!(bundle.path("before/pagemap-1.img").exists() && !bundle.path("before/files.img").exists());
        bundle.ok(&words(&[&["checkpoint", "--parent-path", "../before"], &FILES]));
        assert_eq!(fs::read_link(bundle.path("images/parent")).unwrap().to_str(), Some("../before"));
    } else {
        assert!(bundle.logged().starts_with("--pre-dump is not possible here: "), "{done:?}");
        bundle.ok(&words(&[&["checkpoint"], &FILES]));
    }
    bundle.ok(&words(&[&["restore", "-d"], &FILES]));
    wait_for_more(&bundle);
    bundle.ok(&["delete", "-f"]);
    assert_gone(&bundle);
}
