//! Volumes exported, imported, cloned, and brought back to what they were: what only we have.

use std::fs;
use std::path::Path;

use testkit::Cli;
use testkit::process::{DEADLINE, until};

use crate::support::{At, ours};

fn at(daemon: &testkit::Daemon) -> At<'_> {
    At { daemon, cli: Cli::Longshore }
}

/// Everything that a file system keeps of the files at `/v`: names, kinds, modes, owners, times, links, contents, xattrs.
const LOOK: &str = "cd /v && find . | sort | while read f; do stat -c %n:%F:%a:%u:%g:%Y:%h:%s:%t $f; done; \
                    cat a sub/link; stat -c %b hole";

const FILL: &str = "cd /v && echo content >a && mkdir -m 750 sub && ln a sub/link && ln -s /nowhere dead && mkfifo -m 600 p \
                    && dd if=/dev/zero of=hole bs=1 count=1 seek=10000000 && chown 12:34 sub && chmod 4755 a && chmod 1770 . \
                    && chown 5:6 .";

#[test]
fn privileged_copies_keep_everything() {
    ours(|daemon| {
        let at = at(daemon);
        at.run(&format!("-v src:/v busybox sh -c '{FILL}'"));
        let place = at.ok("volume inspect -f {{.Mountpoint}} src");
        rustix::fs::setxattr(Path::new(&place).join("a"), "user.color", b"blue", rustix::fs::XattrFlags::empty())
            .unwrap();
        let original = at.run(&format!("-v src:/v busybox sh -c '{LOOK}'"));
        assert!(original.contains("./sub/link:regular file:4755:0:0"), "{original}");
        assert_eq!(at.ok("volume clone src cloned"), "cloned");
        let archive = daemon.scratch().path().join("src.tar");
        at.ok(&format!("volume export -o {} src", archive.display()));
        assert!(fs::metadata(&archive).unwrap().len() < 1_000_000, "holes were written");
        assert_eq!(at.ok(&format!("volume import imported {}", archive.display())), "imported");
        for name in ["cloned", "imported"] {
            assert_eq!(at.run(&format!("-v {name}:/v busybox sh -c '{LOOK}'")), original, "{name}");
            let place = at.ok(&format!("volume inspect -f {{{{.Mountpoint}}}} {name}"));
            let mut value = [0; 8];
            let length = rustix::fs::getxattr(Path::new(&place).join("a"), "user.color", &mut value).unwrap();
            assert_eq!(&value[..length], b"blue", "{name}");
        }
        // A pipe of the two, as one would copy to another machine.
        let exported = at.command("volume export src").output().unwrap();
        assert!(exported.status.success());
        assert_eq!(at.with_input("volume import piped", &exported.stdout).code, 0);
        assert_eq!(at.run(&format!("-v piped:/v busybox sh -c '{LOOK}'")), original);
        at.ok("volume rm src cloned imported piped");
    });
}

#[test]
fn privileged_what_cannot_be_copied_is_told_and_leaves_nothing() {
    ours(|daemon| {
        let at = at(daemon);
        at.ok("volume create one");
        at.ok("volume create two");
        at.fails("volume clone one two", 1, "volume two already exists");
        at.fails("volume clone none three", 1, "get none: no such volume");
        at.fails("volume clone one x", 1, "volume name is too short");
        at.fails("volume export none", 1, "get none: no such volume");
        at.fails("volume snapshot restore one none", 1, "volume one has no snapshot none");
        at.fails("volume snapshot rm one none", 1, "volume one has no snapshot none");
        at.fails("volume snapshot create one ../x", 1, "includes invalid characters");
        at.fails("volume snapshot grow one", 1, "unknown action \"grow\": create, ls, restore or rm");
        let output =
            at.with_input("volume import three", b"this is no archive, and long enough to be none of them at all");
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains("import volume three"), "{output:?}");
        assert_eq!(at.ok("volume ls -q"), "one\ntwo");
        let left = || {
            let entries = fs::read_dir(daemon.scratch().data_root().join("volumes")).unwrap();
            entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).count()
        };
        until("the sweep", DEADLINE, || (left() == 0).then_some(())).unwrap();
        at.ok("volume create -o type=tmpfs -o device=tmpfs memory");
        at.fails(
            "volume snapshot create memory",
            1,
            "volume memory is a mount of \"tmpfs\": it has no snapshots, but it can be cloned",
        );
        at.ok("volume clone memory copied");
        at.ok("volume rm one two memory copied");
    });
}

#[test]
fn privileged_a_volume_goes_back_to_a_snapshot() {
    ours(|daemon| {
        let at = at(daemon);
        at.run("-v data:/v busybox sh -c 'echo one >/v/file'");
        assert_eq!(at.ok("volume snapshot create data first"), "first");
        at.fails("volume snapshot create data first", 1, "volume data already has a snapshot first");
        at.run("-v data:/v busybox sh -c 'echo two >/v/file; touch /v/new'");
        let named = at.ok("volume snapshot create data");
        assert_eq!(named.len(), "20260101T000000Z".len());
        let table = at.ok("volume snapshot ls data");
        assert_eq!(
            table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
            ["SNAPSHOT", "CREATED", "AT", "SIZE"]
        );
        assert_eq!(at.ok("volume snapshot ls -q data"), format!("{named}\nfirst"));
        at.start("user", "-v data:/v busybox sleep 1000");
        at.fails("volume snapshot restore data first", 1, "volume data is used by running containers - [");
        at.ok("stop -t 0 user");
        assert_eq!(at.ok("volume snapshot restore data first"), "first");
        at.ok("start user");
        assert_eq!(at.ok("exec user sh -c 'cat /v/file; ls /v'"), "one\nfile");
        at.remove("user");
        at.ok(&format!("volume snapshot restore data {named}"));
        assert_eq!(at.run("-v data:/v busybox cat /v/file"), "two");
        assert_eq!(at.ok(&format!("volume snapshot rm data first {named}")), format!("first\n{named}"));
        assert_eq!(at.ok("volume snapshot ls -q data"), "");
        at.ok("volume rm data");
    });
}

/// Whether the processes of a container stand still.
fn is_frozen(at: &At<'_>, name: &str) -> bool {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let (file, word) = if unified { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    let dir = crate::support::cgroup(at, name, "freezer");
    fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim() == word)
}

#[test]
fn privileged_a_copy_shows_one_moment_and_its_users_go_on() {
    ours(|daemon| {
        let at = at(daemon);
        // Two counters that are written one after the other: a copy that saw them move would show the second ahead.
        let count = "i=0; while :; do i=$((i+1)); echo $i >/v/first; echo $i >/v/second; done";
        at.start("writer", &format!("-v data:/v busybox sh -c '{count}'"));
        at.ok("exec writer sh -c 'while ! [ -s /v/second ]; do :; done; dd if=/dev/zero of=/v/large bs=1M count=30'");
        for round in 0..3 {
            at.ok(&format!("volume clone data copy{round}"));
            let read = |file: &str| at.run(&format!("-v copy{round}:/v busybox cat /v/{file}"));
            let (first, second) =
                (read("first").parse::<u64>().unwrap_or(0), read("second").parse::<u64>().unwrap_or(0));
            // A file that is being written may be empty at that moment.
            assert!(first == 0 || second == 0 || first == second || first == second + 1, "{first} {second}");
            assert!(!is_frozen(&at, "writer"));
        }
        at.remove("writer");
        at.ok("volume rm data copy0 copy1 copy2");
    });
}

#[test]
fn privileged_a_daemon_that_dies_while_it_copies_leaves_nothing_half_and_nobody_frozen() {
    ours(|daemon| {
        {
            let at = at(daemon);
            at.start("user", "-v data:/v busybox sleep 1000");
            at.ok("exec user sh -c 'i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo $i >/v/$i; done; dd if=/dev/zero of=/v/z bs=1M count=200'");
            let copying = at.spawn("volume clone data copy");
            until("the freeze", DEADLINE, || is_frozen(&at, "user").then_some(())).unwrap();
            drop(copying);
        }
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let at = at(daemon);
        assert_eq!(at.ok("exec user echo alive"), "alive");
        assert!(!is_frozen(&at, "user"));
        assert_eq!(at.inspect("user", "{{.State.Status}}"), "running");
        let names = at.ok("volume ls -q");
        // Killed after the rename, it is whole.
        if names != "data" {
            assert_eq!(names, "copy\ndata");
            assert_eq!(at.run("-v copy:/v busybox sh -c 'ls /v | wc -l'"), "4001");
            at.ok("volume rm copy");
        }
        at.remove("user");
        at.ok("volume rm data");
    });
}
