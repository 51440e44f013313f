//! Containers that another OCI runtime runs: runc and crun, as daemon.json names them.

use std::fs;
use std::path::PathBuf;

use crate::support::{At, each, unified};
use testkit::{Cli, Daemon};

/// The runtimes that are on this machine, or were unpacked; ours as one that is always there.
fn runtimes(daemon: &Daemon) -> Vec<(&'static str, PathBuf)> {
    let found = ["runc", "crun"].map(|name| {
        if name == "crun" && is_hybrid() {
            // It takes no mixture of both versions of cgroups.
            return None;
        }
        Some((name, testkit::paths::program_of(name, name).ok()?))
    });
    let own = ("own", daemon.dist().join("longshore-runtime"));
    found
        .into_iter()
        .flatten()
        .map(|(name, path)| (if name == "runc" { "the-runc" } else { name }, path))
        .chain([own])
        .collect()
}

/// Whether controllers are on both versions of cgroups.
fn is_hybrid() -> bool {
    fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").is_ok_and(|text| !text.trim().is_empty())
}

fn with_runtimes(test: impl Fn(&At<'_>, &str)) {
    if testkit::skip::without_root() {
        return;
    }
    let probe = Daemon::start().unwrap();
    if probe.is_foreign() {
        return testkit::skip::report("this is about a daemon of the test's own");
    }
    let runtimes = runtimes(&probe);
    probe.finish().unwrap();
    let options: Vec<String> = runtimes
        .iter()
        .flat_map(|(name, path)| ["--add-runtime".to_owned(), format!("{name}={}", path.display())])
        .collect();
    let daemon = Daemon::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    daemon.load(testkit::images::Archive::Busybox).unwrap();
    each(&daemon, |at| runtimes.iter().for_each(|(name, _)| test(at, name)));
    daemon.finish().unwrap();
}

#[test]
fn privileged_other_runtimes_run_containers() {
    with_runtimes(|at, runtime| {
        let run = |rest: &str| at.run(&format!("--runtime {runtime} {rest}"));
        assert_eq!(run("busybox echo hello"), "hello", "{runtime}");
        assert_eq!(run("-u nobody busybox id -un"), "nobody", "{runtime}");
        assert_eq!(run("-t busybox tty"), "/dev/pts/0", "{runtime}");
        let output =
            at.line(&format!("run --rm --network none --runtime {runtime} busybox sh -c 'echo err >&2; exit 7'"));
        assert_eq!((output.code, output.stderr.as_str()), (7, "err\n"), "{runtime}");
        assert_eq!(run("busybox grep Seccomp: /proc/self/status"), "Seccomp:\t2", "{runtime}");
        let file = if unified() { "memory.max" } else { "memory/memory.limit_in_bytes" };
        assert_eq!(run(&format!("--memory 20m busybox cat /sys/fs/cgroup/{file}")), "20971520", "{runtime}");
        let missing = at.line(&format!("run --rm --network none --runtime {runtime} busybox nosuch"));
        assert_eq!(missing.code, 127, "{runtime}: {missing:?}");
        assert!(missing.stderr.contains("OCI runtime create failed: "), "{runtime}: {missing:?}");
    });
}

#[test]
fn privileged_other_runtimes_take_signals_and_execs() {
    with_runtimes(|at, runtime| {
        let name = at.name(runtime);
        let script = "trap \"echo caught; exit 3\" TERM; echo up; while :; do sleep 0.1; done";
        at.start(&name, &format!("--runtime {runtime} busybox sh -c '{script}'"));
        assert_eq!(at.inspect(&name, "{{.HostConfig.Runtime}} {{.State.Running}}"), format!("{runtime} true"));
        assert_eq!(at.ok(&format!("exec -e A=b -u nobody {name} sh -c 'echo $A; id -un'")), "b\nnobody", "{runtime}");
        assert_eq!(at.line(&format!("exec {name} sh -c 'exit 5'")).code, 5, "{runtime}");
        let missing = at.line(&format!("exec {name} nosuch"));
        assert_eq!(missing.code, 127, "{runtime}: {missing:?}");
        at.ok(&format!("kill -s TERM {name}"));
        assert_eq!(at.ok(&format!("wait {name}")), "3", "{runtime}");
        assert_eq!(at.ok(&format!("logs {name}")), "up\ncaught", "{runtime}");
        at.ok(&format!("start {name}"));
        at.remove(&name);
    });
}

#[test]
fn privileged_containers_of_other_runtimes_are_like_ours() {
    with_runtimes(|at, runtime| {
        let run = |rest: &str| at.line(&format!("run --rm --network none --runtime {runtime} {rest}"));
        for (rest, code, said) in [
            ("busybox /etc", 126, "/etc"),
            ("busybox /etc/passwd", 126, "permission denied"),
            ("-w /etc/passwd busybox true", 125, "Cannot mkdir: /etc/passwd is not a directory"),
            ("-u nosuch busybox true", 125, "unable to find user nosuch: no matching entries in passwd file"),
            ("--read-only busybox touch /x", 1, "Read-only file system"),
            ("-m 8m --memory-swap 8m busybox tail /dev/zero", 137, ""),
        ] {
            let output = run(rest);
            if runtime == "crun" && code == 126 {
                // In words of its own, in which nobody finds that it is about the program.
                assert!(matches!(output.code, 125 | 126), "{runtime} {rest}: {output:?}");
                continue;
            }
            assert_eq!(output.code, code, "{runtime} {rest}: {output:?}");
            assert!(output.stderr.contains(said), "{runtime} {rest}: {output:?}");
        }
        let name = at.name(runtime);
        let script = "trap \"echo term; exit 9\" TERM; echo up; while :; do sleep 0.1; done";
        let check = "--health-interval 50ms --health-cmd true";
        let mut events = at.events(&name);
        at.start(&name, &format!("--runtime {runtime} {check} busybox sh -c '{script}'"));
        events.until("health_status: healthy").unwrap();
        // Beside all those of health checks.
        for _ in 0..10 {
            assert_eq!(at.line(&format!("exec {name} nosuch")).code, 127, "{runtime}");
        }
        assert_eq!(at.ok(&format!("exec -t {name} tty")), "/dev/pts/0", "{runtime}");
        at.fails(&format!("exec -u nosuch {name} true"), 1, "unable to find user nosuch");
        at.ok(&format!("pause {name}"));
        at.fails(&format!("exec {name} true"), 1, "is paused");
        at.ok(&format!("unpause {name}"));
        at.ok(&format!("update -m 30m --memory-swap 60m {name}"));
        assert!(at.ok(&format!("top {name} -o pid,args")).contains("while :"), "{runtime}");
        at.ok(&format!("stop {name}"));
        let state = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}";
        assert_eq!(at.inspect(&name, state), "exited 9 false", "{runtime}");
        assert_eq!(at.ok(&format!("logs {name}")), "up\nterm", "{runtime}");
        if at.cli == Cli::Longshore {
            let why = at.ok(&format!("why {name}"));
            assert!(why.contains("It ended after it was asked to.") && !why.contains("health"), "{runtime}: {why}");
        }
        at.ok(&format!("start {name}"));
        at.ok(&format!("kill {name}"));
        assert_eq!(at.ok(&format!("wait {name}")), "137", "{runtime}");
        at.remove(&name);
    });
}

#[test]
fn privileged_runtimes_are_told_and_refused_by_name() {
    with_runtimes(|at, runtime| {
        let shown = at.ok("info --format '{{json .Runtimes}}'");
        assert!(shown.contains(&format!("\"{runtime}\":{{\"path\":")), "{shown}");
        at.fails("run --rm --runtime foo busybox true", 125, "unknown or invalid runtime name: foo");
        // Docker's default is our own, and keeps the name.
        let name = at.name("default");
        at.ok(&format!("create --name {name} --runtime runc busybox"));
        assert_eq!(at.inspect(&name, "{{.HostConfig.Runtime}}"), "runc");
        at.remove(&name);
    });
}

#[test]
fn privileged_other_runtimes_mount_images() {
    with_runtimes(|at, runtime| {
        at.daemon.load(testkit::images::Archive::Layers).unwrap();
        let run = |rest: &str, program: &str| {
            at.run(&format!("--runtime {runtime} --mount type=image,source=layers,target=/a{rest} busybox {program}"))
        };
        assert_eq!(run("", "ls /a/opaque"), "visible", "{runtime}");
        assert_eq!(run(",image-subpath=opaque", "ls /a"), "visible", "{runtime}");
        assert_eq!(run("", "sh -c 'touch /a/new 2>/dev/null || echo refused'"), "refused", "{runtime}");
    });
}
