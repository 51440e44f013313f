//! Containers and clients that do not move: nobody else waits for them.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use testkit::{http, process};

use crate::support::{At, attach, cgroup, demultiplex, on_both, ours};
use testkit::Cli;

/// How long the lines of [`others_work`] may take together on a slow machine; a line that waits for the stuck one takes
/// longer.
const OTHERS: Duration = Duration::from_secs(9);

/// Lists, looks at the stuck one, and lets another container live, beside it.
fn others_work(at: &At<'_>, stuck: &str) {
    let start = Instant::now();
    assert!(at.ok("ps --format {{.Names}}").contains(stuck));
    assert_eq!(at.inspect(stuck, "{{.State.Running}}"), "true");
    assert_eq!(at.run("busybox echo beside"), "beside");
    let other = at.name("other");
    at.start(&other, "busybox sleep 1000");
    assert_eq!(at.ok(&format!("exec {other} echo in")), "in");
    at.ok(&format!("stop -t 0 {other}"));
    at.ok(&format!("rm {other}"));
    assert!(start.elapsed() < process::patient(OTHERS), "{:?}", start.elapsed());
}

/// Freezes a container behind the daemon's back.
fn freeze(at: &At<'_>, name: &str) {
    let dir = cgroup(at, name, "freezer");
    let (file, frozen) =
        if dir.join("freezer.state").exists() { ("freezer.state", "FROZEN") } else { ("cgroup.freeze", "1") };
    fs::write(dir.join(file), frozen).unwrap();
    process::until("the container is frozen", process::DEADLINE, || {
        fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim() == frozen).then_some(())
    })
    .unwrap();
}

#[test]
fn privileged_a_frozen_container_blocks_nobody_and_can_be_killed_and_removed() {
    on_both(|at| {
        let name = at.name("frozen");
        at.start(&name, "busybox sleep 1000");
        freeze(at, &name);
        others_work(at, &name);
        at.ok(&format!("kill {name}"));
        assert_eq!(at.ok(&format!("wait {name}")), "137");
        at.ok(&format!("start {name}"));
        freeze(at, &name);
        at.ok(&format!("rm -f {name}"));
        at.fails(&format!("container inspect {name}"), 1, "No such container");
        at.start(&name, "busybox sleep 1000");
        freeze(at, &name);
        at.ok(&format!("stop -t 1 {name}"));
        assert_eq!(at.inspect(&name, "{{.State.ExitCode}}"), "137");
        at.remove(&name);
    });
}

/// Mounts a file system that nobody serves and reads a file of it. The shell keeps the descriptor 3 and waits; the reader
/// must not have it, or the connection would live as long as the reader.
const DEAD_MOUNT: &str = "exec 3<>/dev/fuse; mkdir /dead; \
    mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 dead /dead && echo mounted && cat /dead/file 3>&-; echo over";

#[test]
fn privileged_a_process_waiting_on_a_dead_fuse_mount_blocks_nobody() {
    on_both(|at| {
        let name = at.name("dead");
        let mut events = at.events(&name);
        let mut run = at.spawn(&format!("run --privileged --network none --name {name} busybox sh -c '{DEAD_MOUNT}'"));
        run.read_until("mounted\n").unwrap();
        // The first words may be here before the daemon knows that it started them.
        events.until("start").unwrap();
        let pid: i32 = at.inspect(&name, "{{.State.Pid}}").parse().unwrap();
        let mut server = fuse_server(pid);
        introduce(&mut server);
        // The request for the file is read and never answered: from now on not even SIGKILL ends that process.
        let mut request = [0; 65536];
        assert!(server.read(&mut request).unwrap() > 0);
        others_work(at, &name);
        // Whoever wants to bind something of that mount waits alone: more of them than the daemon has threads for clients.
        let dead = format!("/proc/{pid}/root/dead");
        let creates: Vec<_> = (0..8)
            .map(|n| at.spawn(&format!("create --network none --mount type=bind,source={dead}/{n},target=/x busybox")))
            .collect();
        for _ in &creates {
            assert!(process::readable(server.as_fd(), process::DEADLINE).unwrap(), "a create does not reach the mount");
            assert!(server.read(&mut request).unwrap() > 0);
        }
        others_work(at, &name);
        let mut removal = at.spawn(&format!("rm -f {name}"));
        removal.close_input();
        assert_eq!(at.run("busybox echo during the removal"), "during the removal");
        assert!(at.line("ps -a").code == 0);
        // The end of the connection sets the process free.
        drop(server);
        assert_eq!(run.wait().unwrap().code, 137);
        for create in creates {
            assert_ne!(create.wait().unwrap().code, 0);
        }
        let removed = removal.wait().unwrap();
        if removed.code != 0 {
            // Docker gives up after ten seconds; then the second try does it.
            println!("the first try: {}", removed.stderr);
            at.remove(&name);
        }
    });
}

/// The shell's descriptor of the connection, as one of ours. While the reader runs the shell keeps it under another number.
fn fuse_server(pid: i32) -> File {
    let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let taken: OwnedFd = process::until("the shell has the connection", process::DEADLINE, || {
        let mut entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let fuse = entries.find(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.ends_with("fuse")))?;
        let number = fuse.file_name().to_str()?.parse().ok()?;
        rustix::process::pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok()
    })
    .unwrap();
    File::from(taken)
}

/// Answers FUSE_INIT (linux/fuse.h, fuse_out_header and fuse_init_out of version 7.31): without it no request is sent.
fn introduce(server: &mut File) {
    let mut request = [0; 65536];
    let length = server.read(&mut request).unwrap();
    assert!(length >= 40 && request[4] == 26, "FUSE_INIT comes first");
    let mut answer = vec![0; 16 + 64];
    answer[0..4].copy_from_slice(&80u32.to_ne_bytes());
    answer[8..16].copy_from_slice(&request[8..16]);
    answer[16..20].copy_from_slice(&7u32.to_ne_bytes());
    answer[20..24].copy_from_slice(&31u32.to_ne_bytes());
    // FUSE_PARALLEL_DIROPS: one look-up that waits does not keep the next ones from being asked.
    answer[28..32].copy_from_slice(&(1u32 << 18).to_ne_bytes());
    // max_write: 4096, the least.
    answer[36..40].copy_from_slice(&4096u32.to_ne_bytes());
    server.write_all(&answer).unwrap();
}

#[test]
fn privileged_a_client_that_does_not_read_delays_nobody_and_loses_nothing() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let name = at.name("unread");
        // Few lines of many bytes: what counts are the bytes that nobody reads.
        let line = "0123456789abcdef".repeat(32);
        let script = format!("read go; yes {line} | head -n 10000; echo end; exit 3");
        at.ok(&format!("create -i --network none --name {name} busybox sh -c '{script}'"));
        // Attached before the start, so that nothing comes before it.
        let lazy = attach(&at, &name);
        let mut reading = at.spawn(&format!("start -ai {name}"));
        reading.send(b"go\n").unwrap();
        let expected = format!("{line}\n").repeat(10_000) + "end\n";
        let output = reading.wait().unwrap();
        assert!(output.stdout == expected, "the reading client has {} bytes", output.stdout.len());
        assert_eq!(output.code, 3);
        assert!(at.line(&format!("logs {name}")).stdout == expected, "the log");
        // Now it reads, and everything is there.
        let late = demultiplex(lazy);
        assert!(late == expected.as_bytes(), "the late client has {} bytes", late.len());
        at.remove(&name);
    });
}

#[test]
fn privileged_who_has_read_the_answer_to_an_attach_misses_nothing() {
    on_both(|at| {
        let name = at.name("echo");
        at.ok(&format!("run -d -i --network none --name {name} busybox cat"));
        let mut input = http::connect(at.daemon.socket()).unwrap();
        let upgrade = "Host: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0";
        write!(input, "POST /v1.50/containers/{name}/attach?stream=1&stdin=1 HTTP/1.1\r\n{upgrade}\r\n\r\n").unwrap();
        assert_eq!(http::read_head(&mut BufReader::new(input.try_clone().unwrap())).unwrap().status, 101);
        for round in 0..50 {
            let mut output = attach(at, &name);
            let word = format!("{round:03}\n");
            // As soon as it can: whoever passes the connection on may still be at it.
            input.write_all(word.as_bytes()).unwrap();
            let mut frame = [0; 12];
            output.read_exact(&mut frame).unwrap();
            assert_eq!(&frame[8..], word.as_bytes());
        }
        at.remove(&name);
    });
}
