//! What few people try and scripts meet: the same codes, words and fields as dockerd's.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon};

use crate::support::{At, on_both, ours};

/// What dockerd adds to its runtime's words.
const KINDS: &str = "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the \
                     specified host path exists and is the expected type";

#[test]
fn privileged_directories_and_files_do_not_take_the_place_of_one_another() {
    on_both(|at| {
        let name = at.name("kinds");
        for (flags, mounted, place) in [
            ("-v /etc/hostname:/bin", "/etc/hostname", "/bin"),
            ("-v /etc:/etc/passwd", "/etc", "/etc/passwd"),
            ("-v /etc:/etc/hostname", "/etc", "/etc/hostname"),
            ("-v /etc:/etc/hosts", "/etc", "/etc/hosts"),
            ("--mount type=tmpfs,dst=/etc/resolv.conf", "tmpfs", "/etc/resolv.conf"),
            ("--tmpfs /etc/hostname", "tmpfs", "/etc/hostname"),
            ("--tmpfs /bin/busybox", "tmpfs", "/bin/busybox"),
        ] {
            let words =
                format!("error mounting \"{mounted}\" to rootfs at \"{place}\": mount src={mounted}, dst={place}");
            let line = format!("run --name {name} --network none {flags} busybox true");
            let output = at.line(&line);
            assert_eq!(output.code, 125, "{line}: {output:?}");
            assert!(output.stderr.contains(&words) && output.stderr.contains(KINDS), "{line}: {output:?}");
            at.fails(&format!("start {name}"), 1, KINDS);
            assert_eq!(at.inspect(&name, "{{.State.Status}} {{.State.ExitCode}}"), "created 127", "{line}");
            at.remove(&name);
        }
        // A file does, also over those of the engine's.
        at.ok(&format!("run --rm --name {name} --network none -v /etc/passwd:/etc/hosts busybox grep root /etc/hosts"));
    });
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn privileged_a_port_is_published_once_by_one_container_too() {
    on_both(|at| {
        let (name, port) = (at.name("twice"), free_port());
        for flags in [
            format!("-p {port}:80 -p {port}:80"),
            format!("-p 127.0.0.1:{port}:80 -p {port}:80"),
            "-p 80 -p 80".to_owned(),
        ] {
            let line = format!("run -d --name {name} {flags} busybox sleep 1000");
            at.fails(&line, 125, "failed to listen on TCP socket: address already in use");
            assert_eq!(at.inspect(&name, "{{.State.ExitCode}}"), "128", "{line}");
            at.remove(&name);
        }
        at.ok(&format!("run -d --name {name} -p {port}:80/udp -p {port}:80/udp -p {port}:0 busybox sleep 1000"));
        let shown = at.ok(&format!("port {name}"));
        for wanted in [format!("0/tcp -> 0.0.0.0:{port}"), format!("80/udp -> 0.0.0.0:{port}")] {
            assert!(shown.lines().any(|line| line == wanted), "{wanted}: {shown}");
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_who_has_ended_says_which_network_it_was_on() {
    on_both(|at| {
        for network in ["bridge", "host", "none"] {
            let name = at.name(network);
            let id = at.ok(&format!("network inspect -f {{{{.Id}}}} {network}"));
            let template = format!("{{{{.NetworkSettings.Networks.{network}.NetworkID}}}}");
            at.ok(&format!("create --name {name} --network {network} busybox sleep 1000"));
            assert_eq!(at.inspect(&name, &template), "", "{network}");
            at.ok(&format!("start {name}"));
            assert_eq!(at.inspect(&name, &template), id, "{network}");
            at.ok(&format!("stop -t 0 {name}"));
            assert_eq!(at.inspect(&name, &template), id, "{network}");
            let listed = at.daemon.get("/containers/json?all=1").unwrap().json().unwrap();
            let names = |one: &&Value| one["Names"][0].as_str() == Some(&format!("/{name}"));
            let listed = listed.as_array().unwrap().iter().find(names).unwrap().clone();
            assert_eq!(listed["NetworkSettings"]["Networks"][network]["NetworkID"], *id, "{network}");
            at.remove(&name);
        }
    });
}

#[test]
fn privileged_who_shares_a_network_shows_its_owners_name_and_files() {
    on_both(|at| {
        let (owner, guest) = (at.name("owner"), at.name("guest"));
        let shown = "{{.Config.Hostname}} {{.HostnamePath}} {{.HostsPath}} {{.ResolvConfPath}}";
        at.ok(&format!("run -d --name {owner} -h lends busybox sleep 1000"));
        at.ok(&format!("create --name {guest} --network container:{owner} busybox sleep 1000"));
        let id = at.inspect(&guest, "{{.Id}}");
        assert_eq!(at.inspect(&guest, shown).trim_end(), &id[..12]);
        at.ok(&format!("start {guest}"));
        let theirs = at.inspect(&owner, shown);
        assert!(theirs.starts_with("lends /"), "{theirs}");
        assert_eq!(at.inspect(&guest, shown), theirs);
        at.ok(&format!("stop -t 0 {guest}"));
        assert_eq!(at.inspect(&guest, shown), theirs);
        at.remove(&guest);
        at.remove(&owner);
    });
}

#[test]
fn privileged_bindings_that_are_null_stay_null() {
    on_both(|at| {
        let name = at.name("null");
        let body =
            r#"{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"PortBindings":{"80/tcp":null,"81/tcp":[]}}}"#;
        let made = at.daemon.post(&format!("/containers/create?name={name}"), body).unwrap();
        assert_eq!(made.status, 201, "{}", made.text());
        let shown = "{{json .HostConfig.PortBindings}} {{json .NetworkSettings.Ports}} {{json .Config.ExposedPorts}}";
        let wanted = r#"{"80/tcp":null,"81/tcp":[]} {} null"#;
        assert_eq!(at.inspect(&name, shown), wanted);
        at.ok(&format!("start {name}"));
        assert_eq!(at.inspect(&name, shown), wanted);
        at.remove(&name);
    });
}

#[test]
fn privileged_copies_that_lead_nowhere_say_so_as_docker_does() {
    on_both(|at| {
        let (name, scratch) = (at.name("copies"), tempfile::tempdir().unwrap());
        let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink(path("gone/deep"), path("dead")).unwrap();
        std::os::unix::fs::symlink("dead", path("deader")).unwrap();
        std::os::unix::fs::symlink("file", path("live")).unwrap();
        at.ok(&format!("create --name {name} --network none busybox true"));
        let (file, dead, deader, live, gone) = (path("file"), path("dead"), path("deader"), path("live"), path("gone"));
        for (line, said) in [
            (format!("cp {file}/ {name}:/x"), "not a directory\n".to_owned()),
            (format!("cp {file}/. {name}:/x"), "not a directory\n".to_owned()),
            (format!("cp {live}/ {name}:/x"), "not a directory\n".to_owned()),
            (format!("cp -L {dead} {name}:/x"), format!("lstat {gone}: no such file or directory\n")),
            (format!("cp -L {deader} {name}:/x"), format!("lstat {gone}: no such file or directory\n")),
            (format!("cp {dead}/ {name}:/x"), format!("lstat {gone}: no such file or directory\n")),
            (format!("cp {name}:/etc/passwd {file}/"), format!("stat {file}/: not a directory\n")),
        ] {
            let output = at.line(&line);
            assert_eq!((output.code, output.stderr), (1, said), "{line}");
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_flags_that_are_old_or_need_files_say_so() {
    on_both(|at| {
        let line = |value: &str| {
            format!("run --rm --network none --mount type=bind,src=/etc,dst=/x,bind-nonrecursive{value} busybox true")
        };
        let output = at.line(&line("=true"));
        let warning = "level=warning msg=\"bind-nonrecursive is deprecated, use bind-recursive=disabled instead\"\n";
        assert!(output.code == 0 && output.stderr.ends_with(warning), "{output:?}");
        assert!(output.stderr.starts_with("time=\""), "{output:?}");
        let output = at.line(&line(""));
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        // Also for a socket of this machine.
        at.fails("--tls version", 1, "Failed to initialize: unable to resolve docker endpoint: open ");
        at.fails("--tls version", 1, "ca.pem: no such file or directory\n");
    });
}

/// A container's first process, and its shim, which is that one's parent.
fn processes(at: &At<'_>, name: &str) -> (Pid, Pid) {
    let pid = at.inspect(name, "{{.State.Pid}}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    let parse = |text: &str| Pid::from_raw(text.parse().unwrap()).unwrap();
    (parse(&pid), parse(parent))
}

/// The shim stands still while the container's program dies and a client asks for something: the daemon has not heard of
/// the end when it passes the request on, whatever the shim then does first.
fn asked_at_the_end(at: &At<'_>, line: &str) -> testkit::Output {
    let name = at.name("ends");
    at.start(&name, "-t busybox sleep 1000");
    let (program, shim) = processes(at, &name);
    kill_process(shim, Signal::STOP).unwrap();
    kill_process(program, Signal::KILL).unwrap();
    let stat = |pid: Pid| fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    until("the program's death", DEADLINE, || stat(program).contains(") Z ").then_some(())).unwrap();
    let client = at.spawn(&line.replace("NAME", &name));
    // The request is with the shim when there is something for it to read.
    let asked = until("the request", DEADLINE, || client.ended().unwrap().then_some(()).or_else(|| is_asked(shim)));
    asked.unwrap();
    kill_process(shim, Signal::CONT).unwrap();
    let output = client.wait().unwrap();
    at.remove(&name);
    output
}

/// Whether the shim has been asked something: bytes wait for it on a socket, which `ss` asks the kernel for.
fn is_asked(shim: Pid) -> Option<()> {
    let sockets = Command::new("ss").args(["-xpnH"]).output().unwrap();
    let own = format!("pid={},", shim.as_raw_nonzero());
    let waits = |line: &&str| line.contains(&own) && line.split_whitespace().nth(2).is_some_and(|bytes| bytes != "0");
    String::from_utf8_lossy(&sockets.stdout).lines().find(waits).map(drop)
}

#[test]
fn privileged_who_asks_at_the_end_of_a_container_hears_that_it_is_not_running() {
    ours(|daemon: &mut Daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        for line in ["exec NAME true", "exec -d NAME true", "kill -s TERM NAME", "kill -s USR1 NAME", "pause NAME"] {
            let output = asked_at_the_end(&at, line);
            let said = format!("{}{}", output.stdout, output.stderr);
            // A signal that comes too late is one that was sent, as with dockerd.
            let may_succeed = line.starts_with("kill");
            assert!(may_succeed && output.code == 0 || said.contains(" is not running"), "{line}: {output:?}");
            assert!(!said.contains("shim") && !said.contains("unable to start"), "{line}: {output:?}");
        }
    });
}
