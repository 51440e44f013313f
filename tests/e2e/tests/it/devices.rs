//! Devices of the host, and limits on them.

use std::fs;
use std::time::Duration;

use testkit::images::Archive;
use testkit::{Cli, Daemon};

use crate::support::{At, cgroup, each, on_both, ours, unified};

#[test]
fn privileged_devices_are_there_with_what_they_allow() {
    on_both(|at| {
        let see = |flags: &str, script: &str| at.run(&format!("{flags} busybox sh -c '{script}'"));
        assert_eq!(see("--device /dev/fuse", "stat -c %F:%t:%T /dev/fuse"), "character special file:a:e5");
        assert_eq!(see("--device /dev/null:/dev/mine", "echo x > /dev/mine; stat -c %t:%T /dev/mine"), "1:3");
        // Nodes of a directory lie below its place.
        assert_eq!(see("--device /dev/net:/dev/mynet", "ls /dev/mynet"), "tun");
        assert_eq!(see("", "ls /dev/fuse 2>&1 || true"), "ls: /dev/fuse: No such file or directory");
        // A node is there; whether it opens is the controller's to say.
        let open = "(: < /dev/fuse) 2>/dev/null && echo yes || echo no";
        assert_eq!(see("--device /dev/fuse:/dev/fuse:r", open), "yes");
        assert_eq!(see("--device /dev/fuse:/dev/fuse:m", open), "no");
        let make = "mknod /f c 10 229 && (: < /f) 2>/dev/null && echo yes || echo no";
        assert_eq!(see("", make), "no");
        assert_eq!(see("--device-cgroup-rule 'c 10:229 r'", make), "yes");
    });
}

#[test]
fn privileged_devices_are_refused_in_dockers_words() {
    on_both(|at| {
        for (flags, code, sentence) in [
            (
                "--device /dev/nosuch",
                127,
                "error gathering device information while adding custom device \"/dev/nosuch\": no such file or directory",
            ),
            (
                "--device /etc/passwd:/dev/x",
                125,
                "error gathering device information while adding custom device \"/etc/passwd\": not a device node",
            ),
            ("--device-write-bps /dev/nosuch:1mb", 127, "stat /dev/nosuch: no such file or directory"),
            ("--device-read-bps x", 125, "invalid argument \"x\" for \"--device-read-bps\" flag: bad format: x"),
            ("--device-cgroup-rule x", 125, "invalid device cgroup format 'x'"),
            ("--memory-swappiness 101", 125, "invalid value: 101. Valid memory swappiness range is 0-100"),
        ] {
            at.fails(&format!("run --rm --network none {flags} busybox true"), code, sentence);
        }
        let name = at.name("devices");
        at.ok(&format!("create --name {name} --device /dev/null --device-cgroup-rule 'c 1:11 r' busybox"));
        let devices = at.inspect(&name, "{{json .HostConfig.Devices}} {{json .HostConfig.DeviceCgroupRules}}");
        let expected =
            r#"[{"PathOnHost":"/dev/null","PathInContainer":"/dev/null","CgroupPermissions":"rwm"}] ["c 1:11 r"]"#;
        assert_eq!(devices, expected);
        at.remove(&name);
    });
}

/// What is written to the controllers' files; which there are is the kernel's matter, and the daemon says what is not.
#[test]
fn privileged_limits_reach_their_controllers() {
    on_both(|at| {
        if unified() {
            return testkit::skip::report("the files have other names on version 2");
        }
        let name = at.name("limits");
        let flags = "--device-read-bps /dev/loop0:1mb --device-write-iops /dev/loop0:7 --cpu-period 50000 --cpu-quota 25000 \
                     --cpuset-cpus 0 --memory-reservation 20m --memory 40m --memory-swappiness 5";
        at.start(&name, &format!("{flags} busybox sleep 1000"));
        let read = |controller: &str, file: &str| {
            fs::read_to_string(cgroup(at, &name, controller).join(file)).unwrap().trim().to_owned()
        };
        assert_eq!(read("blkio", "blkio.throttle.read_bps_device"), "7:0 1048576");
        assert_eq!(read("blkio", "blkio.throttle.write_iops_device"), "7:0 7");
        assert_eq!(
            (read("cpu", "cpu.cfs_period_us"), read("cpu", "cpu.cfs_quota_us")),
            ("50000".into(), "25000".into())
        );
        assert_eq!(read("cpuset", "cpuset.cpus"), "0");
        assert_eq!(read("memory", "memory.soft_limit_in_bytes"), "20971520");
        assert_eq!(read("memory", "memory.swappiness"), "5");
        let shown = at.inspect(&name, "{{json .HostConfig.BlkioDeviceReadBps}} {{json .HostConfig.BlkioWeightDevice}}");
        assert_eq!(shown, r#"[{"Path":"/dev/loop0","Rate":1048576}] []"#);
        at.remove(&name);
        let weighed = at.line("run --rm --network none --blkio-weight 20 busybox true");
        let sentence =
            "WARNING: Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.";
        let has_weight = fs::metadata("/sys/fs/cgroup/blkio/blkio.weight").is_ok();
        assert_eq!(weighed.stderr.contains(sentence), !has_weight, "{weighed:?}");
    });
}

#[test]
fn privileged_the_parent_cgroup_is_the_users_choice() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let (name, parent) = (at.name("child"), at.name("parent"));
        at.start(&name, &format!("--cgroup-parent ../{parent} busybox sleep 1000"));
        let own = cgroup(&at, &name, "pids");
        let id = at.inspect(&name, "{{.Id}}");
        assert!(own.ends_with(format!("{parent}/{id}")), "{own:?}");
        at.remove(&name);
        let gone = || (!own.exists()).then_some(());
        testkit::process::until("the end of the cgroup", Duration::from_secs(10), gone).unwrap();
        for entry in fs::read_dir("/sys/fs/cgroup").unwrap() {
            // The parent stays, as with dockerd: it may have been somebody's.
            let _ = fs::remove_dir(entry.unwrap().path().join(&parent));
        }
    });
}

#[test]
fn privileged_devices_by_name_are_what_their_vendors_describe() {
    if testkit::skip::without_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let described = dir.path().join("described").display().to_string();
    let daemon = Daemon::start_with(&["--cdi-spec-dir", &described]).unwrap();
    if daemon.is_foreign() {
        testkit::skip::report("this is about a directory of the test's own");
        return;
    }
    daemon.load(Archive::Busybox).unwrap();
    each(&daemon, |at| {
        let missing = "CDI device injection failed: unresolvable CDI devices vendor.com/class=one";
        at.fails("run --rm --device vendor.com/class=one busybox true", 125, missing);
        let gpus = "could not select device driver \"\" with capabilities: [[gpu]]";
        at.fails("run --rm --gpus all busybox true", 125, gpus);
        std::fs::create_dir_all(&described).unwrap();
        let one = "env: [SEEN=yes, PATH=/bin]\n    deviceNodes:\n    - path: /dev/other\n      hostPath: /dev/fuse\n      \
                   permissions: r\n    mounts:\n    - hostPath: /etc/hostname\n      containerPath: /there\n      \
                   options: [ro, bind]";
        for (file, kind) in [("a.yaml", "vendor.com/class"), ("b.yml", "nvidia.com/gpu")] {
            let text = format!(
                "cdiVersion: \"0.6.0\"\nkind: {kind}\ndevices:\n- name: one\n  containerEdits:\n    {one}\n\
                 - name: all\n  containerEdits:\n    env: [GPUS=all]\n"
            );
            std::fs::write(format!("{described}/{file}"), text).unwrap();
        }
        let program = "busybox sh -c 'echo $SEEN $PATH; test -s /there && echo mounted; (: < /dev/other) && echo reads; \
                       (: > /dev/other) 2>/dev/null && echo writes; true'";
        let printed = at.run(&format!("--device vendor.com/class=one {program}"));
        assert_eq!(printed, "yes /bin\nmounted\nreads", "it may be read alone");
        // Nobody says whose it is: then the user's, by number or by name.
        for (user, owner) in [("0", "0:0"), ("5:6", "5:6"), ("7", "7:0"), ("nobody", "")] {
            let program = "busybox sh -c 'stat -c %u:%g /dev/other; echo $(id -u):$(id -g)'";
            let told = at.run(&format!("-u {user} --device vendor.com/class=one {program}"));
            let (node, runs) = told.split_once('\n').unwrap();
            assert_eq!(node, runs, "{user}");
            assert!(owner.is_empty() || owner == node, "{user}: {node}");
        }
        assert_eq!(at.run("--gpus all busybox sh -c 'echo $GPUS'"), "all");
        let requests = at.ok(&format!("create --name {} --device vendor.com/class=one busybox", at.name("made")));
        let shown = at.inspect(&requests, "{{json .HostConfig.DeviceRequests}}");
        assert!(shown.contains(r#""Driver":"cdi","Count":0,"DeviceIDs":["vendor.com/class=one"]"#), "{shown}");
        at.remove(&requests);
        assert!(at.ok("info -f '{{json .CDISpecDirs}}'").contains("described"));
        let names = ["nvidia.com/gpu=all", "nvidia.com/gpu=one", "vendor.com/class=all", "vendor.com/class=one"];
        let lines = names.map(|name| format!("  cdi: {name}\n")).concat();
        assert!(at.ok("info").contains(&format!(" Discovered Devices:\n{lines} Swarm:")), "{}", at.ok("info"));
        std::fs::remove_dir_all(&described).unwrap();
    });
}
