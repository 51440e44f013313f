//! Volumes that are mounts of their own: memory, directories and devices of the host, shares.

use std::fs;
use std::path::Path;

use testkit::disk::SmallDisk;
use testkit::process::{DEADLINE, until};

use crate::support::{At, on_both, ours};

/// The mount table of the machine has this place.
fn is_mounted(place: &str) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().any(|line| line.split(' ').nth(4) == Some(place))
}

fn until_unmounted(place: &str) {
    until("the unmount", DEADLINE, || (!is_mounted(place)).then_some(())).unwrap();
}

fn mountpoint(at: &At<'_>, volume: &str) -> String {
    at.ok(&format!("volume inspect -f {{{{.Mountpoint}}}} {volume}"))
}

#[test]
fn privileged_a_volume_in_memory_is_shared_while_somebody_runs_and_gone_after() {
    on_both(|at| {
        let (data, one, two) = (at.name("data"), at.name("one"), at.name("two"));
        at.ok(&format!("volume create -d local -o type=tmpfs -o device=tmpfs -o o=size=1m,uid=1000,mode=750 {data}"));
        let options = at.ok(&format!("volume inspect -f '{{{{json .Options}}}}' {data}"));
        assert_eq!(options, "{\"device\":\"tmpfs\",\"o\":\"size=1m,uid=1000,mode=750\",\"type\":\"tmpfs\"}");
        at.start(&one, &format!("-v {data}:/v busybox sleep 1000"));
        assert_eq!(at.ok(&format!("exec {one} stat -c '%u %a' /v")), "1000 750");
        at.ok(&format!("exec {one} sh -c 'echo kept >/v/file'"));
        at.start(&two, &format!("-v {data}:/v busybox sleep 1000"));
        assert_eq!(at.ok(&format!("exec {two} cat /v/file")), "kept");
        at.fails(&format!("exec {two} dd if=/dev/zero of=/v/large bs=1M count=2"), 1, "No space left");
        // The first that had it mounted leaves; it stays for the second.
        at.remove(&one);
        assert_eq!(at.ok(&format!("exec {two} cat /v/file")), "kept");
        at.fails(&format!("volume rm {data}"), 1, "volume is in use - [");
        // Stopped, nobody has it mounted any more: what was in memory is gone.
        at.ok(&format!("stop -t 0 {two}"));
        at.ok(&format!("start {two}"));
        assert_eq!(at.ok(&format!("exec {two} ls /v")), "");
        at.remove(&two);
        at.ok(&format!("volume rm {data}"));
    });
}

#[test]
fn privileged_a_mount_is_there_as_long_as_somebody_runs_and_outlives_the_daemon() {
    ours(|daemon| {
        let (data, one, two) = (daemon.name("data"), daemon.name("one"), daemon.name("two"));
        let place = {
            let at = At { daemon, cli: testkit::Cli::Longshore };
            at.ok(&format!("volume create -o type=tmpfs -o device=tmpfs {data}"));
            let place = mountpoint(&at, &data);
            assert!(!is_mounted(&place));
            at.start(&one, &format!("-v {data}:/v busybox sleep 1000"));
            at.ok(&format!("exec {one} sh -c 'echo kept >/v/file'"));
            assert!(is_mounted(&place));
            place
        };
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli: testkit::Cli::Longshore };
        at.start(&two, &format!("-v {data}:/v busybox sleep 1000"));
        assert_eq!(at.ok(&format!("exec {two} cat /v/file")), "kept");
        at.remove(&one);
        assert!(is_mounted(&place));
        at.remove(&two);
        until_unmounted(&place);
        at.ok(&format!("volume rm {data}"));
    });
}

#[test]
fn privileged_a_mount_whose_container_ended_without_a_daemon_goes_with_the_next_one() {
    ours(|daemon| {
        let (data, one) = (daemon.name("data"), daemon.name("one"));
        let (place, pid) = {
            let at = At { daemon, cli: testkit::Cli::Longshore };
            at.ok(&format!("volume create -o type=tmpfs -o device=tmpfs {data}"));
            at.start(&one, &format!("-v {data}:/v busybox sleep 1000"));
            (mountpoint(&at, &data), at.inspect(&one, "{{.State.Pid}}"))
        };
        daemon.kill9().unwrap();
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let process = format!("/proc/{}", pid.as_raw_nonzero());
        until("the container's end", DEADLINE, || (!Path::new(&process).exists()).then_some(())).unwrap();
        assert!(is_mounted(&place));
        daemon.restart().unwrap();
        let at = At { daemon, cli: testkit::Cli::Longshore };
        until_unmounted(&place);
        at.remove(&one);
        at.ok(&format!("volume rm {data}"));
    });
}

#[test]
fn privileged_a_directory_of_the_host_is_filled_used_and_never_deleted() {
    on_both(|at| {
        let Some(dir) = at.daemon.shared_dir().unwrap() else { return };
        let (data, path) = (at.name("data"), dir.path().display().to_string());
        at.ok(&format!("volume create -o type=none -o device={path} -o o=bind {data}"));
        // What the image holds at its place goes there, as into any other volume.
        at.run(&format!("-v {data}:/etc busybox true"));
        assert!(dir.path().join("passwd").exists());
        assert!(at.run(&format!("-v {data}:/v busybox cat /v/passwd")).starts_with("root:"));
        // So does what is copied to a container that does not run.
        let name = at.name("stopped");
        at.ok(&format!("create --name {name} -v {data}:/v busybox"));
        assert_eq!(at.with_input(&format!("cp - {name}:/v"), &one_file()).code, 0);
        assert_eq!(fs::read_to_string(dir.path().join("new")).unwrap(), "new\n");
        at.remove(&name);
        at.ok(&format!("volume rm {data}"));
        assert!(dir.path().join("passwd").exists());
        // Read-only as the driver's option says.
        at.ok(&format!("volume create -o type=none -o device={path} -o o=bind,ro {data}"));
        at.fails(&format!("run --rm --network none -v {data}:/v busybox touch /v/x"), 1, "Read-only file system");
        at.ok(&format!("volume rm {data}"));
        assert!(dir.path().join("passwd").exists());
    });
}

/// An archive with a file `new`.
fn one_file() -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..3].copy_from_slice(b"new");
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(b"00000000004");
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(b"new\n");
    archive.resize(512 * 4, 0);
    archive
}

#[test]
fn privileged_a_device_of_the_host_is_mounted() {
    ours(|daemon| {
        let at = At { daemon, cli: testkit::Cli::Longshore };
        let disk = SmallDisk::new(4).unwrap();
        fs::write(disk.path().join("file"), "on the disk").unwrap();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = disk.path().display().to_string();
        let device = table.lines().find(|line| line.contains(&place)).and_then(|line| line.split(" - ext4 ").nth(1));
        let device = device.and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
        let data = at.name("data");
        at.ok(&format!("volume create -o type=ext4 -o device={device} -o o=noatime {data}"));
        assert_eq!(at.run(&format!("-v {data}:/v busybox cat /v/file")), "on the disk");
        let table = at.run(&format!("-v {data}:/v busybox grep ' /v ' /proc/mounts"));
        assert!(table.contains("/v ext4 rw,") && table.contains("noatime"), "{table}");
        at.ok(&format!("volume rm {data}"));
        disk.check().unwrap();
    });
}

#[test]
fn privileged_what_cannot_be_mounted_is_told_in_dockers_words() {
    on_both(|at| {
        let data = at.name("data");
        for (options, sentence) in [
            ("-o zz=none", "invalid option: \"zz\""),
            ("-o type=tmpfs", "missing required option: \"device\""),
            ("-o device=/tmp", "missing required option: \"type\""),
            ("-o o=size=1m", "missing required option: \"device\""),
            ("-o size=10m", "quota size requested but no quota support"),
            ("-o size=abc", "invalid size: 'abc'"),
        ] {
            at.fails(&format!("volume create {options} {data}"), 1, &format!("create {data}: {sentence}"));
        }
        for (options, code, what) in [
            ("-o type=tmpfs -o device=tmpfs -o o=bogus=1", 125, "mount tmpfs:PLACE, data: bogus=1: invalid argument"),
            ("-o type=ext4 -o device=/nosuchdev", 127, "mount /nosuchdev:PLACE: no such file or directory"),
            ("-o type=bogusfs -o device=x", 125, "mount x:PLACE: no such device"),
            (
                "-o type=nfs -o device=:/x -o o=addr=127.0.0.1,soft",
                125,
                "mount :/x:PLACE, data: addr=127.0.0.1,soft: no such device",
            ),
            (
                "-o type=none -o device=/nosuchdir -o o=bind",
                127,
                "mount /nosuchdir:PLACE, flags: 0x1000: no such file or directory",
            ),
        ] {
            at.ok(&format!("volume create {options} {data}"));
            let place = mountpoint(at, &data);
            let sentence = format!("error while mounting volume '{place}': failed to mount local volume: {what}");
            at.fails(
                &format!("run --rm --network none -v {data}:/v busybox true"),
                code,
                &sentence.replace("PLACE", &place),
            );
            at.ok(&format!("volume rm {data}"));
        }
        at.ok(&format!("volume create -o type=nfs -o device=:/x -o o=addr=no-such-host.invalid {data}"));
        let sentence = "error resolving passed in network volume address: lookup no-such-host.invalid";
        at.fails(&format!("run --rm --network none -v {data}:/v busybox true"), 125, sentence);
        at.ok(&format!("volume rm {data}"));
    });
}
