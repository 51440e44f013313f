//! How much containers and volumes may hold: `--storage-opt size=` and `-o size=`. That needs quotas for projects, which few
//! machines have: `cargo xtask vm sizes` starts one.

use std::fs::File;
use std::process::Command;

use sys::quota::FileSystem;
use testkit::disk::{Kind, SmallDisk};
use testkit::images::Archive;
use testkit::process::{DEADLINE, run, until};
use testkit::{Cli, Daemon};

use crate::support::{At, on_both, ours};

/// A daemon whose files are on a file system that keeps limits.
fn on(kind: Kind, options: &[&str], test: impl Fn(&mut Daemon, &SmallDisk)) {
    let disk = SmallDisk::with_projects(kind).expect("this kernel has no quotas: run `cargo xtask vm sizes`");
    let data = disk.path().join("data").display().to_string();
    let mut daemon = Daemon::start_with(&[&["--data-root", &data], options].concat()).unwrap();
    daemon.load(Archive::Busybox).unwrap();
    test(&mut daemon, &disk);
    daemon.finish().unwrap();
    if kind == Kind::Ext4 {
        // Of the accounts, too.
        disk.check().unwrap();
    }
}

fn at(daemon: &Daemon) -> At<'_> {
    At { daemon, cli: Cli::Longshore }
}

/// A line that writes so many MiB to a file.
fn write(path: &str, mebibytes: u32) -> String {
    format!("dd if=/dev/zero of={path} bs=1M count={mebibytes}")
}

/// Runs a line that needs more room than there is: XFS says ENOSPC, ext4 EDQUOT.
fn is_full(at: &At<'_>, line: &str, code: i32) {
    let output = at.line(line);
    let told = output.stderr.to_lowercase();
    let sentences = ["no space left on device", "disk quota exceeded", "quota exceeded"];
    assert!(output.code == code && sentences.iter().any(|text| told.contains(text)), "{line}: {output:?}");
}

/// What `df` tells of a path: how large the file system is, in KiB.
fn size_kib(at: &At<'_>, container: &str, path: &str) -> u64 {
    let told = at.ok(&format!("exec {container} df -kP {path}"));
    told.lines().nth(1).and_then(|line| line.split_whitespace().nth(1)).and_then(|size| size.parse().ok()).unwrap()
}

/// Projects that still have a limit, ours and others'.
fn limited(disk: &SmallDisk) -> usize {
    let file_system = FileSystem::of(File::open(disk.path()).unwrap().into()).unwrap();
    let (mut from, mut found) = (1, 0);
    while let Some(account) = file_system.next_account(from).unwrap() {
        found += usize::from(account.limit_bytes > 0);
        from = account.project + 1;
    }
    found
}

/// Of what is refused nothing stays.
#[test]
fn privileged_sizes_are_refused_where_nobody_keeps_them() {
    let unkept = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";
    on_both(|at| {
        for (options, sentence) in [
            ("size=10m", unkept),
            ("size=0", unkept),
            ("size=lots", unkept),
            ("Size=lots", "invalid size: 'lots'"),
            ("Size=5zz", "invalid suffix: 'zz'"),
            ("Foo=1", "Unknown option foo"),
            ("foo", "invalid storage option"),
        ] {
            let name = at.name("refused");
            at.fails(&format!("run --name {name} --storage-opt {options} busybox true"), 125, sentence);
            assert!(at.line(&format!("inspect {name}")).code != 0, "{options}");
        }
        let name = at.name("volume");
        for (size, sentence) in [
            ("10m", "quota size requested but no quota support"),
            ("lots", "invalid size: 'lots'"),
            ("5zz", "invalid suffix: 'zz'"),
            ("1.2.3", "strconv.ParseFloat: parsing \"1.2.3\": invalid syntax"),
        ] {
            at.fails(&format!("volume create -o size={size} {name}"), 1, &format!("create {name}: {sentence}"));
        }
        at.ok(&format!("volume create -o size=0 {name}"));
        assert_eq!(at.ok(&format!("volume inspect -f '{{{{json .Options}}}}' {name}")), r#"{"size":"0"}"#);
        at.ok(&format!("volume rm {name}"));
    });
}

#[test]
fn privileged_a_daemon_that_is_to_limit_all_containers_and_cannot_does_not_start() {
    ours(|daemon| {
        let scratch = daemon.scratch().path();
        let mut other = Command::new(daemon.dist().join("longshored"));
        for name in ["data-root", "exec-root"] {
            other.arg(format!("--{name}={}", scratch.join(format!("other-{name}")).display()));
        }
        other.arg(format!("--host=unix://{}", scratch.join("other.sock").display()));
        other.arg(format!("--pidfile={}", scratch.join("other.pid").display()));
        let output = run(other.args(["--bridge=none", "--storage-opt=overlay2.size=10m"]), b"").unwrap();
        let sentence = "Storage option overlay2.size not supported. Filesystem does not support Project Quota: \
                        Filesystem does not support, or has not enabled quotas";
        assert!(output.code == 1 && output.stderr.contains(sentence), "{output:?}");
    });
}

#[test]
fn privileged_vm_containers_hold_so_much_and_no_more_on_ext4() {
    containers(Kind::Ext4);
}

#[test]
fn privileged_vm_containers_hold_so_much_and_no_more_on_xfs() {
    containers(Kind::Xfs);
}

fn containers(kind: Kind) {
    on(kind, &[], |daemon, disk| {
        let start = |name: &str, daemon: &Daemon| at(daemon).start(name, "--storage-opt size=4m busybox sleep 1000");
        start("one", daemon);
        assert_eq!(at(daemon).inspect("one", "{{json .HostConfig.StorageOpt}}"), r#"{"size":"4m"}"#);
        assert_eq!(size_kib(&at(daemon), "one", "/"), 4 << 10);
        at(daemon).ok(&format!("exec one {}", write("/file", 2)));
        // Found again by the next daemon, and by a container that starts again.
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        start("two", daemon);
        let at = at(daemon);
        is_full(&at, &format!("exec one {}", write("/more", 3)), 1);
        at.ok(&format!("exec two {}", write("/file", 2)));
        // One that is full to the last block may not start again: overlayfs wants some for itself.
        at.ok("exec one rm /more");
        at.ok("restart -t 0 one");
        is_full(&at, &format!("exec one {}", write("/more", 3)), 1);
        at.ok("exec one rm /more");
        at.ok(&format!("exec one {}", write("/more", 1)));
        // Root has no more of it than others, and who says nothing has no limit.
        at.ok(&format!("run --rm busybox {}", write("/file", 6)));
        at.ok(&format!("run --rm --storage-opt size=0 busybox {}", write("/file", 6)));
        is_full(&at, &format!("run --rm --storage-opt SIZE=1m busybox {}", write("/tmp/file", 2)), 1);
        at.fails("run --rm --storage-opt size=lots busybox true", 125, "invalid size: 'lots'");
        at.fails("run --rm --storage-opt size=1m --storage-opt foo=1 busybox true", 125, "Unknown option foo");
        at.ok("commit one copy");
        assert_eq!(at.run("copy stat -c %s /file"), "2097152");
        at.ok("rm -f one two");
        at.ok("rmi copy");
        until("limits go with their directories", DEADLINE, || {
            // What XFS forgets in the background is found by a later removal.
            at.run("busybox true");
            (limited(disk) == 0).then_some(())
        })
        .unwrap();
    });
}

#[test]
fn privileged_vm_all_containers_have_the_daemons_limit_on_ext4() {
    default(Kind::Ext4);
}

#[test]
fn privileged_vm_all_containers_have_the_daemons_limit_on_xfs() {
    default(Kind::Xfs);
}

fn default(kind: Kind) {
    on(kind, &["--storage-opt", "overlay2.size=4m"], |daemon, _| {
        let at = at(daemon);
        is_full(&at, &format!("run --name all busybox {}", write("/file", 6)), 1);
        assert_eq!(at.inspect("all", "{{json .HostConfig.StorageOpt}}"), "null");
        at.ok("rm all");
        at.ok(&format!("run --rm --storage-opt size=20m busybox {}", write("/file", 6)));
        at.ok(&format!("run --rm --storage-opt size=0 busybox {}", write("/file", 6)));
    });
}

#[test]
fn privileged_vm_volumes_hold_so_much_and_no_more_on_ext4() {
    volumes(Kind::Ext4);
}

#[test]
fn privileged_vm_volumes_hold_so_much_and_no_more_on_xfs() {
    volumes(Kind::Xfs);
}

fn volumes(kind: Kind) {
    on(kind, &[], |daemon, disk| {
        at(daemon).ok("volume create -o size=4m vol");
        assert_eq!(at(daemon).ok("volume inspect -f '{{json .Options}}' vol"), r#"{"size":"4m"}"#);
        at(daemon).start("has", "-v vol:/v busybox sleep 1000");
        assert_eq!(size_kib(&at(daemon), "has", "/v"), 4 << 10);
        at(daemon).ok(&format!("exec has {}", write("/v/file", 2)));
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let at = at(daemon);
        is_full(&at, &format!("exec has {}", write("/v/more", 3)), 1);
        at.ok("exec has rm /v/more");
        // Copies have the same limit, and do not count with the original.
        at.ok("volume clone vol copy");
        assert_eq!(at.ok("volume inspect -f '{{json .Options}}' copy"), r#"{"size":"4m"}"#);
        at.ok("volume snapshot create vol kept");
        at.ok("rm -f has");
        at.ok("volume snapshot restore vol kept");
        for name in ["vol", "copy"] {
            assert_eq!(at.run(&format!("-v {name}:/v busybox stat -c %s /v/file")), "2097152");
            is_full(&at, &format!("run --rm -v {name}:/v busybox {}", write("/v/more", 3)), 1);
            at.run(&format!("-v {name}:/v busybox {}", write("/v/more", 1)));
        }
        // What an image holds at the place counts, and has to fit.
        at.ok("volume create -o size=4m fits");
        assert_eq!(at.run("-v fits:/bin busybox /bin/busybox echo filled"), "filled");
        at.ok("volume create -o size=100k tight");
        is_full(&at, "run --rm -v tight:/bin busybox true", 125);
        assert_eq!(at.run("-v tight:/v busybox ls -A /v"), "");
        at.fails(
            "volume create -o size=1m -o type=tmpfs -o device=tmpfs memory",
            1,
            "create memory: size does not go with a device: it limits volumes that are directories of their own",
        );
        at.ok("volume rm vol copy fits tight");
        until("limits go with their directories", DEADLINE, || {
            at.run("busybox true");
            (limited(disk) == 0).then_some(())
        })
        .unwrap();
    });
}
