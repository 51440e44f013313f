//! What only version 2 of cgroups has. It needs a machine with no controller on version 1: `cargo xtask vm` starts one.

use std::fs;
use std::path::PathBuf;

use testkit::Cli;
use testkit::process::{DEADLINE, until};

use crate::support::{At, cgroup, on_both, ours, unified};

/// [`on_both`], on the right machine.
fn on_unified(test: impl Fn(&At<'_>)) {
    assert!(unified(), "this machine has controllers on version 1: run `cargo xtask vm cgroup2`");
    on_both(test);
}

/// `files` of `dir`, without the ends of their lines.
fn read(dir: &std::path::Path, files: &[&str]) -> Vec<String> {
    files.iter().map(|file| fs::read_to_string(dir.join(file)).unwrap_or_default().trim().to_owned()).collect()
}

#[test]
fn privileged_vm_a_container_sees_its_own_cgroup_as_the_root_and_cannot_write() {
    on_unified(|at| {
        let name = at.name("sees");
        at.start(&name, "--memory 32m busybox sleep 1000");
        let dir = cgroup(at, &name, "");
        assert!(dir.ends_with(at.inspect(&name, "{{.Id}}")), "{}", dir.display());
        let inside = |script: &str| at.ok(&format!("exec {name} sh -c '{script}'"));
        assert_eq!(inside("cat /proc/1/cgroup /proc/self/cgroup"), "0::/\n0::/");
        assert_eq!(inside("cat /sys/fs/cgroup/memory.max"), "33554432");
        assert_eq!(inside("head -n 1 /sys/fs/cgroup/cgroup.procs"), "1");
        for script in ["mkdir /sys/fs/cgroup/x", "echo max >/sys/fs/cgroup/memory.max"] {
            at.fails(&format!("exec {name} sh -c '{script}'"), 1, "Read-only file system");
        }
        assert_eq!(inside("cat /sys/fs/cgroup/cgroup.controllers"), read(&dir, &["cgroup.controllers"])[0]);
        at.remove(&name);
        assert!(!dir.exists());
    });
}

#[test]
fn privileged_vm_in_the_hosts_cgroup_namespace_a_container_sees_all() {
    on_unified(|at| {
        let name = at.name("host");
        at.start(&name, "--cgroupns host busybox sleep 1000");
        let seen = at.ok(&format!("exec {name} cat /proc/1/cgroup"));
        let path = seen.strip_prefix("0::").unwrap().to_owned();
        assert!(path.ends_with(&at.inspect(&name, "/{{.Id}}")), "{seen}");
        assert!(!at.ok(&format!("exec {name} cat /sys/fs/cgroup{path}/cgroup.procs")).is_empty());
        at.fails(&format!("exec {name} mkdir /sys/fs/cgroup{path}/x"), 1, "Read-only file system");
        assert_eq!(at.inspect(&name, "{{.HostConfig.CgroupnsMode}}"), "host");
        at.remove(&name);
        assert_eq!(at.run("busybox cat /proc/self/cgroup"), "0::/");
        at.start(&name, "busybox sleep 1000");
        assert_eq!(at.inspect(&name, "{{.HostConfig.CgroupnsMode}}"), "private");
        at.remove(&name);
    });
}

#[test]
fn privileged_vm_limits_are_in_the_files_of_version_2() {
    let files = ["memory.max", "cpu.max", "cpu.weight", "pids.max"];
    on_unified(|at| {
        let name = at.name("limits");
        for (flags, expected) in [
            ("", ["max", "max 100000", "100", "max"]),
            ("--memory 32m --cpus 0.5 --cpu-shares 512 --pids-limit 77", ["33554432", "50000 100000", "59", "77"]),
            ("--pids-limit -1 --cpu-shares 2", ["max", "max 100000", "1", "max"]),
            ("--cpus 2 --cpu-shares 262144", ["max", "200000 100000", "10000", "max"]),
        ] {
            at.start(&name, &format!("{flags} busybox sleep 1000"));
            assert_eq!(read(&cgroup(at, &name, ""), &files), expected, "{flags}");
            at.remove(&name);
        }
    });
}

#[test]
fn privileged_vm_swap_is_limited_apart_from_memory() {
    ours(|daemon| {
        assert!(unified());
        let at = At { daemon, cli: Cli::Longshore };
        for (flags, expected) in [
            // As dockerd: as much swap again as memory.
            ("--memory 32m", "33554432"),
            ("--memory 32m --memory-swap 48m", "16777216"),
            ("--memory 32m --memory-swap 32m", "0"),
            ("--memory 32m --memory-swap -1", "max"),
        ] {
            at.start("swap", &format!("{flags} busybox sleep 1000"));
            assert_eq!(read(&cgroup(&at, "swap", ""), &["memory.swap.max"]), [expected], "{flags}");
            at.remove("swap");
        }
    });
}

#[test]
fn privileged_vm_devices_are_kept_by_a_program() {
    on_unified(|at| {
        let script = "mknod /tmp/mem c 1 1; mknod /tmp/loop b 7 0; mknod /tmp/fuse c 10 229; mknod /tmp/null c 1 3; \
                      for one in mem loop fuse null; do dd if=/tmp/$one of=/dev/null bs=1 count=1 2>&1 | head -n 1; done";
        let denied = |one: &str| format!("dd: can't open '/tmp/{one}': Operation not permitted\n");
        let expected = ["mem", "loop", "fuse"].map(denied).concat() + "0+0 records in";
        assert_eq!(at.run(&format!("busybox sh -c '{script}'")), expected);
        // Also for what joins later.
        let name = at.name("joined");
        at.start(&name, "busybox sleep 1000");
        let exec = format!("exec --privileged {name} sh -c 'mknod /tmp/mem c 1 1; cat /tmp/mem'");
        at.fails(&exec, 1, "cat: can't open '/tmp/mem': Operation not permitted");
        at.remove(&name);
        assert_eq!(at.run("--privileged busybox sh -c 'head -c 1 /dev/mem | wc -c'"), "1");
    });
}

#[test]
fn privileged_vm_what_a_container_makes_below_its_cgroup_goes_with_it() {
    on_unified(|at| {
        let name = at.name("nested");
        // As an engine in a container does: its processes leave the root, which may then hand out controllers.
        let script = "cd /sys/fs/cgroup && mkdir -p init/deep other && echo 0 >init/deep/cgroup.procs && \
                      echo +memory +pids >cgroup.subtree_control && echo 5 >other/pids.max; \
                      (echo 0 >other/cgroup.procs; exec sleep 1000) & exec sleep 1000";
        at.start(&name, &format!("--privileged busybox sh -c '{script}'"));
        let dir = cgroup(at, &name, "");
        // The first process may be below already.
        let dir: PathBuf = dir.ancestors().find(|dir| dir.ends_with(at.inspect(&name, "{{.Id}}"))).unwrap().to_owned();
        until("processes are below", DEADLINE, || {
            let moved = read(&dir.join("other"), &["cgroup.procs", "pids.max"]);
            (!moved[0].is_empty() && moved[1] == "5").then_some(())
        })
        .unwrap();
        // Whoever joins comes where the first process is.
        assert_eq!(at.ok(&format!("exec {name} cat /proc/self/cgroup /proc/1/cgroup")), "0::/init/deep\n0::/init/deep");
        at.ok(&format!("kill {name}"));
        assert_eq!(at.ok(&format!("wait {name}")), "137");
        until("the cgroups are gone", DEADLINE, || (!dir.exists()).then_some(())).unwrap();
        at.remove(&name);
    });
}

#[test]
fn privileged_vm_only_containers_are_below_the_daemons_cgroup_and_have_every_controller() {
    ours(|daemon| {
        assert!(unified());
        let at = At { daemon, cli: Cli::Longshore };
        at.start("one", "busybox sleep 1000");
        let dir = cgroup(&at, "one", "");
        let parent = dir.parent().unwrap();
        assert_eq!(read(parent, &["cgroup.procs"]), [""], "no process beside the cgroups that have controllers");
        let enabled = read(parent, &["cgroup.subtree_control"]);
        for controller in ["cpu", "memory", "pids", "io"] {
            assert!(enabled[0].split(' ').any(|one| one == controller), "{controller}: {enabled:?}");
        }
        // The shim does not count as the container's, nor dies with the daemon's cgroup.
        let pid = at.inspect("one", "{{.State.Pid}}");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let shim = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
        assert_eq!(fs::read_to_string(format!("/proc/{shim}/cgroup")).unwrap(), "0::/\n");
        at.remove("one");
    });
}

#[test]
fn privileged_vm_info_tells_of_version_2() {
    on_unified(|at| {
        assert_eq!(at.ok("info -f '{{.CgroupVersion}} {{.CgroupDriver}}'"), "2 cgroupfs");
        let options = at.ok("info -f '{{json .SecurityOptions}}'");
        assert!(options.contains("\"name=cgroupns\""), "{options}");
        assert_eq!(
            at.ok("info -f '{{.MemoryLimit}} {{.PidsLimit}} {{.CPUShares}} {{.CPUSet}}'"),
            "true true true true"
        );
        assert_eq!(at.ok("info -f '{{.OomKillDisable}}'"), "false");
    });
}
