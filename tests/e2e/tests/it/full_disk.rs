//! The disk under the data root is full: errors say so, containers go on, and all works again when there is room.

use testkit::disk::SmallDisk;
use testkit::images::Archive;
use testkit::process::{DEADLINE, until};
use testkit::registry::{Served, Server};
use testkit::{Cli, Daemon};

use crate::support::At;

/// What every refusal says: the system's words.
const SENTENCE: &str = "no space left on device";

/// How large the disk is: some of what is loaded, and a log of many lines.
const MEBIBYTES: u64 = 64;

/// Prints numbered lines of half a kilobyte until SIGTERM.
const WRITER: &str = "trap \"echo bye; exit 23\" TERM; x=$(printf %0500d 0); i=0; \
                      while :; do echo n$i-$x; i=$((i+1)); [ $((i%10)) -gt 0 ] || usleep 2000; done";

/// How many lines are written while the disk is full: more than the log's writer holds back.
const LINES_WHILE_FULL: usize = 10_000;

/// A daemon whose data root is on a small disk, with busybox; each is dropped before what it stands on.
struct Small {
    daemon: Daemon,
    disk: SmallDisk,
    /// Which has `r:1`.
    registry: Server,
}

/// Bytes of an image of a registry: more than a disk leaves that is full.
const PULLED_BYTES: usize = 4_000_000;

fn on_small_disk(test: impl Fn(&mut Small)) {
    if testkit::skip::without_root() {
        return;
    }
    let disk = SmallDisk::new(MEBIBYTES).unwrap();
    let data = disk.path().join("data").display().to_string();
    let served = Served::new(&[PULLED_BYTES, 100]);
    let registry = Server::start(move |request| served.answer(request));
    let mut small = Small { daemon: Daemon::start_with(&["--data-root", &data]).unwrap(), disk, registry };
    if small.daemon.is_foreign() {
        testkit::skip::report("this is about a daemon of the test's own");
        return;
    }
    small.daemon.load(Archive::Busybox).unwrap();
    test(&mut small);
    let Small { daemon, disk, .. } = small;
    daemon.finish().unwrap();
    disk.check().unwrap();
}

#[test]
fn privileged_a_full_disk_is_named_and_nothing_is_lost() {
    on_small_disk(|small| {
        for cli in small.daemon.clis() {
            println!("with {cli:?}");
            let pull = format!("pull {}/r:1", small.registry.host());
            begin(&At { daemon: &small.daemon, cli });
            small.disk.fill().unwrap();
            At { daemon: &small.daemon, cli }.fails(&pull, 1, SENTENCE);
            refused(&At { daemon: &small.daemon, cli });
            small.daemon.kill9().unwrap();
            small.daemon.restart().unwrap();
            works_without_room(&At { daemon: &small.daemon, cli });
            small.disk.free().unwrap();
            At { daemon: &small.daemon, cli }.ok(&pull);
            At { daemon: &small.daemon, cli }.ok(&pull.replace("pull", "rmi"));
            works(&At { daemon: &small.daemon, cli });
        }
    });
}

/// What there is when the disk becomes full.
fn begin(at: &At<'_>) {
    at.start("runs", "busybox sleep 1000");
    at.start("ends", "busybox sleep 1000");
    at.ok("run --network none --name ended busybox echo said");
    at.ok("create --network none --name made busybox echo made");
    at.ok("tag busybox other");
}

/// What needs room says that there is none, and leaves nothing.
fn refused(at: &At<'_>) {
    at.fails(&format!("load -i {}", Archive::Layers.path().unwrap().display()), 1, SENTENCE);
    at.fails("create --network none --name new busybox true", 1, SENTENCE);
    at.fails("run --network none --name new busybox true", 125, SENTENCE);
    at.fails("run --rm --network none --name new busybox true", 125, SENTENCE);
    at.fails("run --rm --network none -v named:/v busybox true", 125, SENTENCE);
    at.fails("volume create named", 1, SENTENCE);
    // Overlayfs would make a read-only root of it.
    at.fails("start -a made", 1, SENTENCE);
    assert_eq!(at.ok("volume ls -q"), "");
    assert_eq!(at.ok("images -q").lines().count(), 2, "busybox has two names");
    assert_eq!(at.ok("ps -a --format '{{.Names}}'"), "made\nended\nends\nruns");
}

/// What needs none works, before the death of a daemon and after.
fn works_without_room(at: &At<'_>) {
    assert_eq!(at.ok("ps -a --format '{{.Names}}'"), "made\nended\nends\nruns");
    assert_eq!(at.ok("images -q").lines().count(), 2, "busybox has two names");
    assert_eq!(at.ok("exec runs echo in"), "in");
    assert_eq!(at.ok("logs ended"), "said");
    at.ok("stop -t 0 ends");
    assert_eq!(at.inspect("ends", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    at.ok("rm ended");
    at.ok("rm -f ends");
    at.ok("rmi other");
    assert_eq!(at.ok("ps -a --format '{{.Names}}'"), "made\nruns");
}

/// There is room again.
fn works(at: &At<'_>) {
    assert_eq!(at.ok("exec runs echo in"), "in");
    assert_eq!(at.ok("start -a made"), "made");
    at.ok(&format!("load -i {}", Archive::Layers.path().unwrap().display()));
    assert_eq!(at.run("busybox echo out"), "out");
    at.ok("rmi layers");
    at.ok("rm -f made runs");
}

#[test]
fn privileged_output_goes_on_when_the_log_cannot_and_lost_lines_are_counted() {
    on_small_disk(|small| {
        let at = At { daemon: &small.daemon, cli: Cli::Longshore };
        at.start("writer", &format!("busybox sh -c '{WRITER}'"));
        let mut events = at.events("writer");
        let mut attached = at.spawn("attach --sig-proxy=false writer");
        attached.read_until("-000").unwrap();
        small.disk.fill().unwrap();
        let last = at.ok("logs -n 1 writer");
        let last: usize = last[1..last.find('-').unwrap()].parse().unwrap();
        attached.read_until(&format!("n{}-", last + LINES_WHILE_FULL)).unwrap();
        assert_eq!(at.ok("exec writer echo in"), "in");
        // From here on nobody may keep it from being written but the disk.
        let attached = std::thread::spawn(move || attached.wait());
        small.disk.free().unwrap();
        let lost = events.until("log_lost").unwrap();
        assert_ne!(lost["Actor"]["Attributes"]["lines"], "0", "{lost}");
        at.ok("stop writer");
        assert_eq!(at.inspect("writer", "{{.State.ExitCode}}"), "23");
        let attached = attached.join().unwrap().unwrap();
        assert!(attached.stdout.ends_with("bye\n"), "{} {}", attached.code, attached.stderr);
        check_log(&at);
        at.ok("rm writer");
    });
}

/// Every line is in the log once, or counted as missing where it would be.
fn check_log(at: &At<'_>) {
    // The sentence about what is missing is on the other stream, and the order between both is the log's.
    let log = std::fs::read_to_string(at.inspect("writer", "{{.LogPath}}")).unwrap();
    let (mut next, mut missing) = (0, 0);
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("no line is torn");
        let text = line["log"].as_str().expect("a line of output");
        if let Some(rest) = text.strip_prefix("longshore: ") {
            let lines: usize = rest[..rest.find(' ').unwrap()].parse().unwrap();
            (next, missing) = (next + lines, missing + lines);
        } else if text != "bye\n" {
            assert!(text.starts_with(&format!("n{next}-")), "after n{next} comes {text}");
            next += 1;
        }
    }
    assert!(log.contains("bye") && missing > 0, "{missing} lines are missing");
}

#[test]
fn privileged_copies_of_volumes_and_prunes_stand_a_full_disk() {
    on_small_disk(|small| {
        {
            let at = At { daemon: &small.daemon, cli: Cli::Longshore };
            at.start("user", "-v data:/v busybox sleep 1000");
            at.ok("exec user dd if=/dev/zero of=/v/large bs=1M count=3");
            at.ok("volume snapshot create data first");
            at.ok("run --network none --name ended busybox true");
            at.ok("volume create unused");
        }
        let archive = small.daemon.scratch().path().join("volume.tar");
        At { daemon: &small.daemon, cli: Cli::Longshore }.ok(&format!("volume export -o {} data", archive.display()));
        // What it was copied to goes behind the client's back, and would leave room for another one.
        let volumes = small.disk.path().join("data/volumes");
        let names = || std::fs::read_dir(&volumes).unwrap().map(|entry| entry.unwrap().file_name());
        let none = || names().all(|name| !name.as_encoded_bytes().starts_with(b".")).then_some(());
        until("the copy is gone", DEADLINE, none).unwrap();
        small.disk.fill().unwrap();
        let at = At { daemon: &small.daemon, cli: Cli::Longshore };
        for line in ["volume clone data copy", "volume snapshot create data second", "volume export data"] {
            at.fails(line, 1, SENTENCE);
            assert_eq!(at.ok("exec user echo goes on"), "goes on");
        }
        at.fails(&format!("volume import copy {}", archive.display()), 1, SENTENCE);
        assert_eq!(at.ok("volume ls -q"), "data\nunused");
        assert_eq!(at.ok("volume snapshot ls -q data"), "first");
        at.ok("system df -v");
        // What only removes needs no room.
        assert!(at.ok("volume prune -a -f").starts_with("Deleted Volumes:\nunused\n"));
        assert!(at.ok("container prune -f").starts_with("Deleted Containers:\n"));
        small.disk.free().unwrap();
        assert_eq!(at.ok("volume clone data copy"), "copy");
        at.ok("stop -t 0 user");
        assert_eq!(at.ok("volume snapshot restore data first"), "first");
        at.remove("user");
        at.ok("volume rm data copy");
    });
}

/// Every other verb that changes something: what needs room says that there is none, what needs none works.
#[test]
fn privileged_every_verb_stands_a_full_disk() {
    on_small_disk(|small| {
        for cli in small.daemon.clis() {
            println!("with {cli:?}");
            let file = small.daemon.scratch().path().join("file");
            std::fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
            begin(&At { daemon: &small.daemon, cli });
            At { daemon: &small.daemon, cli }.ok(&format!("export -o {}.tar runs", file.display()));
            small.disk.fill().unwrap();
            let at = At { daemon: &small.daemon, cli };
            let names = at.ok("ps -a --format '{{.Names}} {{.Status}}'");
            verbs_without_room(&at, &file.display().to_string());
            assert_eq!(names.lines().count(), at.ok("ps -aq").lines().count(), "{names}");
            small.daemon.kill9().unwrap();
            small.daemon.restart().unwrap();
            small.disk.free().unwrap();
            let at = At { daemon: &small.daemon, cli };
            let file = file.display();
            at.ok("start runs");
            at.ok(&format!("cp {file} runs:/file"));
            at.ok("commit runs committed");
            at.ok(&format!("import {file}.tar imported"));
            at.ok("rename made renamed");
            assert_eq!(at.ok("start -a renamed"), "made");
            at.ok("update -m 100m --memory-swap 100m runs");
            at.ok("rmi committed imported other");
            at.ok("rm -f runs ends ended renamed");
        }
    });
}

fn verbs_without_room(at: &At<'_>, file: &str) {
    // The last one cannot record its next run: it stays ended.
    let needs_room = format!(
        "cp {file} runs:/file; commit runs committed; import {file}.tar imported; rename made renamed; \
         update -m 100m --memory-swap 100m runs; update --restart always runs; restart -t 0 ends"
    );
    let needs_none = "exec runs true; exec -d runs true; pause runs; unpause runs; top runs; stats --no-stream runs; \
                      diff runs; logs ended; tag busybox again; rmi again; system df; events --until 0s; ps -as; \
                      stop -t 0 runs; wait ended";
    needs_room.split("; ").for_each(|line| at.fails(line, 1, SENTENCE));
    needs_none.split("; ").for_each(|line| drop(at.ok(line)));
    at.fails("start runs", 1, SENTENCE);
    assert_eq!(at.inspect("made", "{{.HostConfig.Memory}} {{.Name}} {{.State.Status}}"), "0 /made created");
    assert_eq!(at.inspect("runs", "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}"), "0 no");
}
