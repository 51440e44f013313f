//! What a container sees of itself and of the host: a table of facts, without what differs from run to run.

use crate::support::{At, on_both, unified};

/// Mounts as `point type options`, one line for all cgroup hierarchies; masked paths are another test's.
fn mounts(at: &At<'_>, flags: &str) -> Vec<String> {
    let text = at.run(&format!("{flags} busybox cat /proc/self/mountinfo"));
    let mut lines: Vec<String> = text.lines().filter_map(mount).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

fn mount(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split(' ').collect();
    let separator = fields.iter().position(|field| *field == "-")?;
    let (point, options, kind) = (fields[4], fields[5], fields[separator + 1]);
    // Kernels that can have inode numbers of 64 bits in a tmpfs say so.
    let superblock = fields[separator + 3].trim_end_matches(",inode64");
    Some(match (point, kind) {
        (_, "cgroup") => format!("/sys/fs/cgroup/* cgroup {options}"),
        // A read-only mount of it is all that counts; runc makes the file system read-only, too.
        ("/sys", _) => format!("{point} {kind} {options}"),
        // runc leaves the directory of the hierarchies writable.
        ("/sys/fs/cgroup", "tmpfs") => format!("{point} {kind}"),
        // Paths of the image, and of the file system that the daemon keeps its files on.
        ("/" | "/etc/resolv.conf" | "/etc/hostname" | "/etc/hosts", _) => format!("{point} {options}"),
        // Not every kernel has it.
        ("/proc/sysrq-trigger", _) => return None,
        _ if masked().any(|path| path == point) => return None,
        _ => format!("{point} {kind} {options} {superblock}"),
    })
}

/// In every container.
const USUAL: [&str; 9] = [
    "/ rw,relatime",
    "/dev tmpfs rw,nosuid rw,size=65536k,mode=755",
    "/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime rw",
    "/dev/pts devpts rw,nosuid,noexec,relatime rw,gid=5,mode=620,ptmxmode=666",
    "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime rw,size=65536k",
    "/etc/hostname rw,relatime",
    "/etc/hosts rw,relatime",
    "/etc/resolv.conf rw,relatime",
    "/proc proc rw,nosuid,nodev,noexec,relatime rw",
];

/// In those without privileges.
const PROTECTED: [&str; 5] = [
    "/proc/bus proc ro,nosuid,nodev,noexec,relatime rw",
    "/proc/fs proc ro,nosuid,nodev,noexec,relatime rw",
    "/proc/irq proc ro,nosuid,nodev,noexec,relatime rw",
    "/proc/sys proc ro,nosuid,nodev,noexec,relatime rw",
    "/sys sysfs ro,nosuid,nodev,noexec,relatime",
];

/// The usual mounts, `more` and those of cgroups.
fn expected(more: &[&str], cgroup_access: &str) -> Vec<String> {
    let fixed = USUAL.iter().chain(more).map(|&mount| mount.to_owned());
    fixed.chain(cgroups(cgroup_access)).collect()
}

/// Mounts of cgroups, with the first of their options.
fn cgroups(access: &str) -> Vec<String> {
    if unified() {
        return vec![format!("/sys/fs/cgroup cgroup2 {access},nosuid,nodev,noexec,relatime rw")];
    }
    vec!["/sys/fs/cgroup tmpfs".to_owned(), format!("/sys/fs/cgroup/* cgroup {access},nosuid,nodev,noexec,relatime")]
}

#[test]
fn privileged_the_mounts_are_dockers() {
    on_both(|at| {
        assert_eq!(mounts(at, ""), expected(&PROTECTED, "ro"));
        assert_eq!(mounts(at, "--privileged"), expected(&["/sys sysfs rw,nosuid,nodev,noexec,relatime"], "rw"));
        let read_only = mounts(at, "--read-only");
        assert_eq!(read_only[0], "/ ro,relatime");
    });
}

/// What moby 28 hides from a container.
fn masked() -> impl Iterator<Item = &'static str> {
    "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi \
     /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware"
        .split_whitespace()
}

#[test]
fn privileged_masked_paths_are_empty_and_read_only_paths_are_read_only() {
    on_both(|at| {
        for path in masked() {
            // What the kernel does not have needs no mask.
            let script = format!("if [ -d {path} ]; then ls -A {path}; elif [ -e {path} ]; then cat {path}; fi");
            assert_eq!(at.run(&format!("busybox sh -c '{script}'")), "", "{path}");
        }
        let script = "for f in /proc/sys/kernel/domainname /proc/irq/default_smp_affinity /sys/kernel/profiling; do \
                      [ -e $f ] && (echo x > $f) 2>&1; done";
        let output = at.line(&format!("run --rm --network none busybox sh -c '{script}'"));
        assert!(output.stdout.lines().count() >= 1, "{output:?}");
        assert!(output.stdout.lines().all(|line| line.ends_with("Read-only file system")), "{}", output.stdout);
    });
}

#[test]
fn privileged_the_devices_are_dockers_and_others_are_denied() {
    on_both(|at| {
        let listed = at.run(
            "busybox sh -c 'cd /dev; for f in *; do echo $f $(stat -c %F:%t:%T:%a:%u:%g $f) $(readlink $f); done'",
        );
        // Where the kernel has it.
        let core = std::path::Path::new("/proc/kcore").exists();
        let core = core.then_some("core symbolic link:0:0:777:0:0 /proc/kcore");
        let others = [
            "fd symbolic link:0:0:777:0:0 /proc/self/fd",
            "full character special file:1:7:666:0:0",
            "mqueue directory:0:0:1777:0:0",
            "null character special file:1:3:666:0:0",
            "ptmx symbolic link:0:0:777:0:0 pts/ptmx",
            "pts directory:0:0:755:0:0",
            "random character special file:1:8:666:0:0",
            "shm directory:0:0:1777:0:0",
            "stderr symbolic link:0:0:777:0:0 /proc/self/fd/2",
            "stdin symbolic link:0:0:777:0:0 /proc/self/fd/0",
            "stdout symbolic link:0:0:777:0:0 /proc/self/fd/1",
            "tty character special file:5:0:666:0:0",
            "urandom character special file:1:9:666:0:0",
            "zero character special file:1:5:666:0:0",
        ];
        assert_eq!(listed.lines().collect::<Vec<_>>(), core.into_iter().chain(others).collect::<Vec<_>>());
        // /dev/mem may be made, not opened.
        let output = at.line("run --rm --network none busybox sh -c 'mknod /tmp/m c 1 1 && cat /tmp/m'");
        assert_eq!(output.stderr, "cat: can't open '/tmp/m': Operation not permitted\n");
        // runc lets every container use TUN, where the kernel has it.
        let output = at.line("run --rm --network none busybox sh -c 'mknod /tmp/tun c 10 200 && cat /tmp/tun'");
        assert!(!output.stderr.contains("not permitted"), "{output:?}");
        assert_eq!(
            at.run("busybox sh -c 'head -c 4 /dev/zero | wc -c; echo x > /dev/null; head -c 4 /dev/urandom | wc -c'"),
            "4\n4"
        );
    });
}

#[test]
fn privileged_the_process_is_as_dockers() {
    on_both(|at| {
        let status = "grep -E \"^(Cap|Seccomp|NoNewPrivs|Groups)\" /proc/self/status";
        let default = "Groups:\t0 \nCapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                       CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1";
        assert_eq!(at.run(&format!("busybox sh -c '{status}'")), default);
        let user = "Groups:\t1000 \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
                    CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1";
        assert_eq!(at.run(&format!("-u 1000:1000 busybox sh -c '{status}'")), user);
        for (script, expected) in [
            ("echo $$; umask; cat /proc/self/oom_score_adj; cat /proc/self/setgroups", "1\n0022\n0\nallow"),
            ("ls /proc/self/fd", "0\n1\n2\n3"),
            ("cut -d\" \" -f 5,6 /proc/1/stat", "1 1"),
            (
                "exec grep -E \"^(SigBlk|SigIgn|ShdPnd)\" /proc/self/status",
                "ShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000",
            ),
            (
                "env | grep -v HOSTNAME | sort",
                "HOME=/root\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/\nSHLVL=1",
            ),
            ("stat -c %a:%u:%g / /proc /tmp", "755:0:0\n555:0:0\n1777:0:0"),
        ] {
            assert_eq!(at.run(&format!("busybox sh -c '{script}'")), expected, "{script}");
        }
    });
}

#[test]
fn privileged_the_namespaces_are_new_but_for_those_that_docker_shares() {
    on_both(|at| {
        let name = at.name("namespaces");
        at.start(&name, "busybox sleep 1000");
        let pid = at.inspect(&name, "{{.State.Pid}}");
        for kind in ["ipc", "mnt", "net", "pid", "uts"] {
            let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_ne!(link(&pid), link("self"), "{kind}");
        }
        for kind in ["user", "time"] {
            let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_eq!(link(&pid), link("self"), "{kind}");
        }
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/cgroup")).unwrap();
        assert_eq!(link(&pid) != link("self"), unified(), "cgroup");
        let id = at.inspect(&name, "{{.Id}}");
        let cgroups = at.ok(&format!("exec {name} cat /proc/1/cgroup"));
        assert_eq!(at.ok(&format!("exec {name} cat /proc/self/cgroup")), cgroups, "exec is in the same");
        if unified() {
            assert_eq!(cgroups, "0::/");
            return at.remove(&name);
        }
        // With version 1 the cgroup namespace is the host's: the path is whole.
        let limited = |line: &&str| {
            ["memory", "pids", "cpu", "devices", "freezer"].iter().any(|name| line.contains(&format!(":{name}:")))
        };
        let v1: Vec<_> = cgroups.lines().filter(limited).collect();
        assert!(v1.len() >= 4, "{cgroups}");
        assert!(v1.iter().all(|line| line.ends_with(&format!("/{id}"))), "{cgroups}");
        at.remove(&name);
    });
}

#[test]
fn privileged_programs_know_that_they_are_in_a_container() {
    on_both(|at| {
        assert_eq!(at.run("busybox stat -c '%a %s %u:%g %F' /.dockerenv"), "755 0 0:0 regular empty file");
    });
}

#[test]
fn privileged_old_tables_and_version_1_are_where_programs_look_for_them() {
    on_both(|at| {
        let look = "readlink /etc/mtab; head -c 1 /etc/mtab >/dev/null && echo read";
        let name = at.name("mtab");
        assert_eq!(at.ok(&format!("run --name {name} busybox sh -c '{look}'")), "/proc/mounts\nread");
        assert_eq!(at.ok(&format!("diff {name}")), "", "nobody is told of what a start makes");
        at.remove(&name);
        if std::path::Path::new("/sys/fs/cgroup/cpuset/cpuset.cpus").exists() {
            // A Java machine that does not find one of these takes the host's memory for its own.
            let mounts = at.run("busybox ls /sys/fs/cgroup");
            for controller in ["cpu", "cpuacct", "cpuset", "memory"] {
                assert!(mounts.split_whitespace().any(|mount| mount == controller), "{controller}: {mounts}");
            }
        }
    });
}

#[test]
fn privileged_system_calls_are_denied_as_dockers_profile_does() {
    on_both(|at| {
        for (script, expected) in [
            ("unshare -n true", "unshare: unshare(0x40000000): Operation not permitted"),
            ("mount -t tmpfs x /tmp", "mount: permission denied (are you root?)"),
            ("mkdir /tmp/a && chroot / true && echo chroot works", "chroot works"),
            ("hostname other", "hostname: sethostname: Operation not permitted"),
            ("swapoff /x", "swapoff: /x: Operation not permitted"),
        ] {
            let output = at.line(&format!("run --rm --network none busybox sh -c '{script} 2>&1'"));
            assert_eq!(output.stdout.trim(), expected, "{script}");
        }
    });
}
