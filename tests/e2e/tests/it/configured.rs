//! What daemon.json says of containers that say nothing themselves.

use testkit::Cli;

use crate::support::{At, ours};

/// Runs `test` with a daemon of this daemon.json.
fn with(text: &str, test: impl Fn(&At<'_>)) {
    ours(|daemon| {
        daemon.scratch().write("daemon.json", text).unwrap();
        daemon.restart().unwrap();
        test(&At { daemon, cli: Cli::Longshore });
    });
}

#[test]
fn privileged_defaults_reach_containers() {
    let text = r#"{"default-ipc-mode":"shareable","default-cgroupns-mode":"private","default-shm-size":"1m",
        "dns":["9.9.9.9"],"dns-opts":["ndots:3"],"dns-search":["x.y"],"no-new-privileges":true,"init":true,
        "default-ulimits":{"nofile":{"Name":"nofile","Hard":200,"Soft":100}},"labels":["a=b"]}"#;
    with(text, |at| {
        let resolv = at.run("busybox cat /etc/resolv.conf");
        for line in ["nameserver 9.9.9.9", "search x.y", "options ndots:3"] {
            assert!(resolv.lines().any(|found| found == line), "{line} is not in {resolv}");
        }
        assert!(at.run("--dns 1.1.1.1 busybox cat /etc/resolv.conf").contains("nameserver 1.1.1.1"));
        assert!(at.run("busybox df -k /dev/shm").contains(" 1024 "));
        assert_eq!(at.run("busybox sh -c 'ulimit -n; ulimit -Hn'"), "100\n200");
        assert!(at.run("busybox grep NoNewPrivs /proc/self/status").ends_with('1'));
        assert!(at.run("busybox cat /proc/1/cmdline").contains("init"));
        at.start("silent", "busybox sleep 1000");
        let template =
            "{{.HostConfig.IpcMode}} {{.HostConfig.CgroupnsMode}} {{.HostConfig.ShmSize}} {{json .HostConfig.Dns}}";
        assert_eq!(at.inspect("silent", template), "shareable private 1048576 []");
        at.start("outspoken", "--ipc private --cgroupns host --shm-size 2m busybox sleep 1000");
        assert_eq!(at.inspect("outspoken", template), "private host 2097152 []");
        let info = at.ok("info -f '{{json .SecurityOptions}} {{json .Labels}}'");
        assert_eq!(info, r#"["name=seccomp,profile=builtin","name=cgroupns","name=no-new-privileges"] ["a=b"]"#);
    });
}

#[test]
fn privileged_a_profile_of_the_administrators_counts_for_all() {
    let status = "busybox grep Seccomp: /proc/self/status";
    with(r#"{"seccomp-profile":"unconfined"}"#, |at| {
        assert!(at.run(status).ends_with('0'));
        assert!(at.run(&format!("--security-opt seccomp=builtin {status}")).ends_with('2'));
        let shown = at.ok("info -f '{{json .SecurityOptions}} {{json .Warnings}}'");
        assert!(shown.contains("name=seccomp,profile=unconfined"), "{shown}");
        assert!(shown.contains("WARNING: daemon is not using the default seccomp profile"), "{shown}");
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("profile.json");
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#;
    std::fs::write(&path, profile).unwrap();
    with(&format!(r#"{{"seccomp-profile":"{}"}}"#, path.display()), |at| {
        at.fails("run --rm --network none busybox mkdir /x", 1, "Permission denied");
        at.run("--security-opt seccomp=unconfined busybox mkdir /x");
    });
}
