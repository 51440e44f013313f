//! `checkpoint` and `start --checkpoint`, with a real CRIU.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::process::{DEADLINE, until};
use testkit::{Daemon, http, paths, skip};

use crate::support::{At, each, ours};

/// Counts for ever.
const COUNTER: &str = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done";

/// The directory of a CRIU; nothing on a machine without one.
fn criu() -> Option<PathBuf> {
    let found = paths::program_of("criu", "criu").ok().and_then(|program| Some(program.parent()?.to_owned()));
    if found.is_none() {
        skip::report("needs criu, which `cargo xtask test` unpacks");
    }
    found
}

/// Runs `test` with a daemon that finds CRIU and each command line.
fn with_criu(test: impl Fn(&At<'_>)) {
    if skip::without_root() {
        return;
    }
    let Some(directory) = criu() else { return };
    if std::env::var_os(testkit::daemon::HOST_VARIABLE).is_some() {
        return skip::report("dockerd has checkpoints in its experimental mode alone");
    }
    let daemon = Daemon::start_finding(&directory, &[]).unwrap();
    each(&daemon, test);
    daemon.finish().unwrap();
}

/// The numbers that the counter has logged: without a gap, and none twice.
fn counted(at: &At<'_>, name: &str) -> usize {
    let text = at.ok(&format!("logs {name}"));
    let lines: Vec<&str> = text.lines().collect();
    let expected: Vec<String> = (0..lines.len()).map(|number| number.to_string()).collect();
    assert_eq!(lines, expected);
    lines.len()
}

fn counts_on(at: &At<'_>, name: &str) {
    let before = counted(at, name);
    until("it counts on", DEADLINE, || (counted(at, name) > before + 2).then_some(())).unwrap();
}

#[test]
fn privileged_a_container_goes_on_where_it_was() {
    with_criu(|at| {
        for network in ["none", "host", "bridge"] {
            let name = at.name(network);
            at.ok(&format!("run -d --network {network} --name {name} -v /data -m 64m busybox sh -c '{COUNTER}'"));
            counts_on(at, &name);
            let mut events = at.events(&name);
            assert_eq!(at.ok(&format!("checkpoint create {name} one")), "one");
            let state = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
            assert_eq!(at.inspect(&name, state).trim(), "exited 137", "{network}");
            let actions = events.actions_until("checkpoint").unwrap();
            assert!(actions.contains(&"die".to_owned()), "{actions:?}");
            assert_eq!(at.ok(&format!("checkpoint ls {name}")), "CHECKPOINT NAME\none");
            let before = counted(at, &name);
            assert_eq!(at.ok(&format!("start --checkpoint one {name}")), "");
            assert_eq!(at.inspect(&name, "{{.State.Status}}"), "running");
            until("it counts on", DEADLINE, || (counted(at, &name) > before + 2).then_some(())).unwrap();
            // Processes are added to it as to any other, and it is stopped like any other.
            assert_eq!(at.ok(&format!("exec {name} sh -c 'hostname; ls -d /data'")).lines().last(), Some("/data"));
            if network == "bridge" {
                let address = at.inspect(&name, "{{.NetworkSettings.IPAddress}}");
                let shown = at.ok(&format!("exec {name} ip -4 addr show eth0"));
                assert!(!address.is_empty() && shown.contains(&format!("inet {address}/")), "{shown}");
            }
            // From the same files once more, after an ordinary end.
            at.ok(&format!("stop -t 0 {name}"));
            at.ok(&format!("start --checkpoint one {name}"));
            assert_eq!(at.inspect(&name, "{{.State.Status}}"), "running");
            at.ok(&format!("checkpoint rm {name} one"));
            assert_eq!(at.ok(&format!("checkpoint ls {name}")), "CHECKPOINT NAME");
            at.remove(&name);
        }
    });
}

#[test]
fn privileged_one_that_is_left_running_goes_on_and_so_does_its_copy() {
    with_criu(|at| {
        let name = at.name("left");
        at.start(&name, &format!("--restart always busybox sh -c '{COUNTER}'"));
        counts_on(at, &name);
        let place = at.daemon.scratch().path().join(format!("places-{:?}", at.cli));
        let dir = format!("--checkpoint-dir {}", place.display());
        assert_eq!(at.ok(&format!("checkpoint create --leave-running {dir} {name} two")), "two");
        assert!(place.join("two/pstree.img").exists());
        counts_on(at, &name);
        assert_eq!(at.ok(&format!("checkpoint ls {dir} {name}")), "CHECKPOINT NAME\ntwo");
        assert_eq!(at.ok(&format!("checkpoint ls {name}")), "CHECKPOINT NAME");
        // Its policy does not start one that ends with its checkpoint.
        at.ok(&format!("checkpoint create {name} three"));
        assert_eq!(at.inspect(&name, "{{.State.Status}} {{.RestartCount}}"), "exited 0");
        at.ok(&format!("start {dir} --checkpoint two {name}"));
        assert_eq!(at.inspect(&name, "{{.State.Status}}"), "running");
        at.ok(&format!("checkpoint rm {dir} {name} two"));
        assert!(fs::read_dir(&place).unwrap().next().is_none());
        at.remove(&name);
    });
}

#[test]
fn privileged_clients_are_attached_to_what_was_restored() {
    with_criu(|at| {
        let name = at.name("talk");
        at.start(&name, "-i busybox sh -c 'read one; read two; echo err >&2; echo got $one $two; exit 3'");
        at.ok(&format!("checkpoint create {name} one"));
        let mut client = at.spawn(&format!("start -ai --checkpoint one {name}"));
        client.send(b"a\nb\n").unwrap();
        // The end of the input, which `wait` makes, is that of this client: the errors have to be out before.
        client.read_until("got a b\n").unwrap();
        let output = client.wait().unwrap();
        assert_eq!((output.code, output.stderr.as_str()), (3, "err\n"));
        // A terminal is one again.
        let terminal = at.name("terminal");
        at.start(&terminal, "-it busybox sh -c 'read line; tty; stty size; exit 4'");
        at.ok(&format!("checkpoint create {terminal} one"));
        let mut client = at.pty(&format!("start -ai --checkpoint one {terminal}"));
        client.send(b"x\r").unwrap();
        client.read_until("/dev/pts/0").unwrap();
        assert_eq!(client.wait().unwrap().1, 4);
        at.remove(&name);
        at.remove(&terminal);
    });
}

#[test]
fn privileged_checkpoints_survive_the_daemon_and_go_with_their_container() {
    if skip::without_root() {
        return;
    }
    let Some(directory) = criu() else { return };
    let mut daemon = Daemon::start_finding(&directory, &[]).unwrap();
    if daemon.is_foreign() {
        return skip::report("needs a daemon that can be killed");
    }
    let name = daemon.name("survivor");
    let cli = testkit::Cli::Longshore;
    {
        let at = At { daemon: &daemon, cli };
        at.start(&name, &format!("busybox sh -c '{COUNTER}'"));
        counts_on(&at, &name);
        at.ok(&format!("checkpoint create {name} one"));
        at.ok(&format!("start --checkpoint one {name}"));
    }
    daemon.kill9().unwrap();
    daemon.restart().unwrap();
    let at = At { daemon: &daemon, cli };
    counts_on(&at, &name);
    // The shim of the daemon before writes it once more.
    at.ok(&format!("checkpoint create {name} two"));
    assert_eq!(at.ok(&format!("checkpoint ls {name}")), "CHECKPOINT NAME\none\ntwo");
    at.ok(&format!("start --checkpoint two {name}"));
    counts_on(&at, &name);
    at.remove(&name);
    daemon.finish().unwrap();
}

#[test]
fn privileged_what_cannot_be_written_goes_on() {
    with_criu(|at| {
        let name = at.name("connected");
        // CRIU writes no connection without being told to.
        let listening = "until netstat -tln | grep -q :80; do usleep 10000; done";
        let connected = format!("sleep 1000 | nc -l -p 80 & ({listening}; sleep 1000 | nc 127.0.0.1 80) &");
        at.start(&name, &format!("busybox sh -c '{connected} {COUNTER}'"));
        let established = || at.ok(&format!("exec {name} netstat -tn")).contains("ESTABLISHED").then_some(());
        until("they are connected", DEADLINE, established).unwrap();
        let sentence = format!("Cannot checkpoint container {name}: criu failed: type DUMP errno ");
        at.fails(&format!("checkpoint create {name} one"), 1, &sentence);
        assert_eq!(at.ok(&format!("checkpoint ls {name}")), "CHECKPOINT NAME");
        counts_on(at, &name);
        // Its policy counts again.
        assert_eq!(at.inspect(&name, "{{.State.Status}}"), "running");
        at.remove(&name);
    });
}

#[test]
fn privileged_one_that_stands_still_is_written_too() {
    with_criu(|at| {
        let (owner, name) = (at.name("owner"), at.name("guest"));
        at.ok(&format!("run -d --ipc shareable --name {owner} busybox sleep 1000"));
        let shared = format!("--network container:{owner} --ipc container:{owner}");
        let script = "echo kept > /t/file; touch /dev/shm/file; exec sleep 1000";
        at.ok(&format!("run -d {shared} --tmpfs /t --read-only --init --name {name} busybox sh -c '{script}'"));
        let written = || (at.line(&format!("exec {name} cat /dev/shm/file")).code == 0).then_some(());
        until("the files are there", DEADLINE, written).unwrap();
        at.ok(&format!("pause {name}"));
        at.ok(&format!("checkpoint create {name} one"));
        assert_eq!(at.inspect(&name, "{{.State.Status}}"), "exited");
        at.ok(&format!("start --checkpoint one {name}"));
        assert_eq!(
            at.ok(&format!("exec {name} sh -c 'cat /t/file; ls /dev/shm; ip link | grep -c eth0'")),
            "kept\nfile\n1"
        );
        at.remove(&name);
        at.remove(&owner);
    });
}

#[test]
fn privileged_refusals_are_dockerds() {
    with_criu(|at| {
        let name = at.name("refused");
        let id = at.ok(&format!("run -d --network none --name {name} busybox sh -c '{COUNTER}'"));
        let request =
            |method, path: &str, body: Option<&str>| http::request(at.daemon.socket(), method, path, body).unwrap();
        let checkpoints = format!("/containers/{name}/checkpoints");
        let create = |name: &str| {
            let body = format!(r#"{{"CheckpointID":"{name}"}}"#);
            let answer = request("POST", &checkpoints, Some(&body));
            (answer.status, answer.message())
        };
        assert_eq!(create("good-one"), (201, String::new()));
        let exists = "checkpoint with name good-one already exists for container";
        assert_eq!(create("good-one"), (500, format!("cannot checkpoint container {name}: {exists} {name}")));
        for bad in ["", "a", "../..", "a/b"] {
            let sentence = format!("Invalid checkpoint ID ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
            assert_eq!(create(bad), (500, sentence));
        }
        let missing = |which: &str, of: &str| (500, format!("checkpoint {which} does not exist for container {of}"));
        let answer = request("DELETE", &format!("{checkpoints}/nosuch"), None);
        assert_eq!((answer.status, answer.message()), missing("nosuch", &name));
        let answer = request("GET", &format!("{checkpoints}?dir=/no/such"), None);
        assert_eq!((answer.status, answer.message()), missing("", &name));
        assert_eq!(request("GET", &checkpoints, None).text().trim(), r#"[{"Name":"good-one"}]"#);
        assert_eq!(request("DELETE", &format!("{checkpoints}/good-one"), None).status, 204);
        assert_eq!(request("GET", &checkpoints, None).text().trim(), "[]");
        for (method, path) in
            [("GET", "/containers/nosuch/checkpoints"), ("DELETE", "/containers/nosuch/checkpoints/x")]
        {
            assert_eq!(request(method, path, None).status, 404, "{path}");
        }
        at.ok(&format!("stop -t 0 {name}"));
        assert_eq!(create("good-one"), (409, format!("container {id} is not running")));
        let answer = request("POST", &format!("/containers/{name}/start?checkpoint=nosuch"), None);
        assert_eq!((answer.status, answer.message()), missing("nosuch", &format!("/{name}")));
        assert_eq!(at.inspect(&name, "{{.State.Status}}"), "exited");
        at.fails(&format!("start --checkpoint one {name} other"), 1, "you cannot restore multiple containers at once");
        // A directory that CRIU has not written is no checkpoint: it is neither shown, nor removed, nor read.
        let place = at.daemon.scratch().path().join(format!("others-{:?}", at.cli));
        fs::create_dir_all(place.join("precious")).unwrap();
        fs::write(place.join("precious/file"), "").unwrap();
        let query = format!("dir={}", place.display());
        assert_eq!(request("GET", &format!("{checkpoints}?{query}"), None).text().trim(), "[]");
        let answer = request("DELETE", &format!("{checkpoints}/precious?{query}"), None);
        assert_eq!((answer.status, answer.message()), missing("precious", &name));
        assert!(place.join("precious/file").exists());
        let line = format!("start --checkpoint-dir {} --checkpoint precious {name}", place.display());
        at.fails(&line, 1, &format!("checkpoint precious does not exist for container /{name}"));
        // One that calls itself one.
        fs::write(place.join("precious/inventory.img"), "").unwrap();
        at.fails(&line, 1, "OCI runtime restore failed: ");
        at.ok(&format!("start {name}"));
        at.remove(&name);
    });
}

#[test]
fn privileged_one_that_removes_itself_is_not_written_away() {
    with_criu(|at| {
        let name = at.name("passing");
        at.start(&name, &format!("--rm busybox sh -c '{COUNTER}'"));
        let sentence = format!("container {name} is removed when it ends, and its checkpoint with it: ");
        at.fails(&format!("checkpoint create {name} one"), 1, &sentence);
        counts_on(at, &name);
        at.ok(&format!("checkpoint create --leave-running {name} one"));
        let place = at.daemon.scratch().path().join(format!("passing-{:?}", at.cli));
        at.ok(&format!("checkpoint create --checkpoint-dir {} {name} one", place.display()));
        assert!(place.join("one/inventory.img").exists());
        let gone = || (at.line(&format!("inspect {name}")).code == 1).then_some(());
        until("it is removed", DEADLINE, gone).unwrap();
        // The head of the table comes with what is below it.
        let output = at.line(&format!("checkpoint ls {name}"));
        assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    });
}

/// A CRIU that waits: it makes the file `held` beside it, and goes on when there is a file `go`.
fn slow_criu(real: &Path, directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(directory).unwrap();
    let (here, real) = (directory.display(), real.join("criu"));
    let script = format!(
        "#!/bin/sh\n[ -e {here}/go ] || : > {here}/held\nwhile [ ! -e {here}/go ]; do sleep 0.01; done\nexec {} \"$@\"\n",
        real.display()
    );
    fs::write(directory.join("criu"), script).unwrap();
    fs::set_permissions(directory.join("criu"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs `test` with a container that has a policy, and the directory of a CRIU that waits.
fn with_slow_criu(test: impl FnOnce(&mut Daemon, &str, &Path)) {
    if skip::without_root() {
        return;
    }
    let Some(real) = criu() else { return };
    let place = tempfile::tempdir().unwrap();
    slow_criu(&real, place.path());
    let mut daemon = Daemon::start_finding(place.path(), &[]).unwrap();
    if daemon.is_foreign() {
        return;
    }
    let name = daemon.name("slow");
    let at = At { daemon: &daemon, cli: testkit::Cli::Longshore };
    at.start(&name, &format!("--restart always busybox sh -c 'i=0; while [ ! -e /end ]; do {BODY}; done'"));
    test(&mut daemon, &name, place.path());
    At { daemon: &daemon, cli: testkit::Cli::Longshore }.remove(&name);
    daemon.finish().unwrap();
}

/// What the slow container does all the time.
const BODY: &str = "i=$((i+1)); echo $i; sleep 0.05";

fn held(place: &Path) {
    until("CRIU is about to write", DEADLINE, || place.join("held").exists().then_some(())).unwrap();
}

#[test]
fn privileged_a_checkpoint_outlives_the_daemon_that_began_it() {
    with_slow_criu(|daemon, name, place| {
        let cli = testkit::Cli::Longshore;
        let client = At { daemon, cli }.spawn(&format!("checkpoint create {name} one"));
        held(place);
        daemon.kill9().unwrap();
        assert_ne!(client.wait().unwrap().code, 0);
        fs::write(place.join("go"), "").unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli };
        let ended = || (at.inspect(name, "{{.State.Status}}").trim() == "exited").then_some(());
        until("it has ended", DEADLINE, ended).unwrap();
        let listed = || (at.ok(&format!("checkpoint ls {name}")) == "CHECKPOINT NAME\none").then_some(());
        until("it has its name", DEADLINE, listed).unwrap();
        // Neither now nor by the next daemon.
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli };
        assert_eq!(at.inspect(name, "{{.State.Status}} {{.RestartCount}}").trim(), "exited 0");
        let lines = at.ok(&format!("logs {name}")).lines().count();
        at.ok(&format!("start --checkpoint one {name}"));
        let goes_on = || (at.ok(&format!("logs {name}")).lines().count() > lines + 2).then_some(());
        until("it counts on", DEADLINE, goes_on).unwrap();
        let text = at.ok(&format!("logs {name}"));
        assert!(text.lines().enumerate().all(|(at, line)| line == (at + 1).to_string()), "{text}");
    });
}

#[test]
fn privileged_one_that_ends_while_it_is_written_is_started_again() {
    with_slow_criu(|daemon, name, place| {
        let at = At { daemon, cli: testkit::Cli::Longshore };
        let client = at.spawn(&format!("checkpoint create {name} one"));
        held(place);
        // Who wants something of it meanwhile does not wait for the end of that.
        let busy = format!("container {name} is being checkpointed");
        at.fails(&format!("pause {name}"), 1, &busy);
        at.fails(&format!("rename {name} {name}-other"), 1, &busy);
        at.fails(&format!("update -m 64m {name}"), 1, &busy);
        at.fails(&format!("commit {name}"), 1, &busy);
        at.fails(&format!("rm {name}"), 1, &busy);
        let process = PathBuf::from(format!("/proc/{}", at.inspect(name, "{{.State.Pid}}").trim()));
        at.ok(&format!("exec {name} touch /end"));
        until("it has ended", DEADLINE, || (!process.exists()).then_some(())).unwrap();
        // CRIU comes too late.
        fs::write(place.join("go"), "").unwrap();
        let output = client.wait().unwrap();
        assert_eq!(output.code, 1, "{}", output.stderr);
        let again = || (at.inspect(name, "{{.RestartCount}}").trim() != "0").then_some(());
        until("its policy starts it again", DEADLINE, again).unwrap();
        assert_eq!(at.ok(&format!("checkpoint ls {name}")), "CHECKPOINT NAME");
    });
}

#[test]
fn privileged_one_that_is_restarted_while_it_is_written_runs_again() {
    with_slow_criu(|daemon, name, place| {
        let at = At { daemon, cli: testkit::Cli::Longshore };
        let before = at.inspect(name, "{{.State.Pid}}");
        let client = at.spawn(&format!("checkpoint create {name} one"));
        held(place);
        let process = PathBuf::from(format!("/proc/{}", before.trim()));
        let restart = at.spawn(&format!("restart -t 0 {name}"));
        until("it has ended", DEADLINE, || (!process.exists()).then_some(())).unwrap();
        fs::write(place.join("go"), "").unwrap();
        assert_eq!(client.wait().unwrap().code, 1);
        assert_eq!(restart.wait().unwrap().code, 0);
        assert_eq!(at.inspect(name, "{{.State.Status}}").trim(), "running");
    });
}

#[test]
fn privileged_what_cannot_be_named_is_kept_and_found() {
    with_slow_criu(|daemon, name, place| {
        let at = At { daemon, cli: testkit::Cli::Longshore };
        let files = place.join("files");
        let client = at.spawn(&format!("checkpoint create --checkpoint-dir {} {name} one", files.display()));
        held(place);
        // Somebody else takes the name.
        fs::create_dir_all(files.join("one/others")).unwrap();
        fs::write(place.join("go"), "").unwrap();
        let output = client.wait().unwrap();
        let left = format!("it has ended, and what was written is left in {}/.", files.display());
        assert!(output.code == 1 && output.stderr.contains(&left), "{}", output.stderr);
        let entries: Vec<PathBuf> = fs::read_dir(&files).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(entries.iter().any(|path| path.join("inventory.img").exists()), "{entries:?}");
        assert_eq!(at.inspect(name, "{{.State.Status}} {{.RestartCount}}").trim(), "exited 0");
        // The user gives it a name.
        let written = entries.iter().find(|path| path.join("inventory.img").exists()).unwrap();
        fs::rename(written, files.join("two")).unwrap();
        at.ok(&format!("start --checkpoint-dir {} --checkpoint two {name}", files.display()));
        assert_eq!(at.inspect(name, "{{.State.Status}}").trim(), "running");
    });
}

#[test]
fn privileged_without_criu_it_says_so() {
    // Where the machine has one of its own there is nothing to see.
    if paths::program("criu").is_some() {
        return skip::report("this machine has criu");
    }
    ours(|daemon| {
        let at = At { daemon, cli: testkit::Cli::Longshore };
        let name = at.name("poor");
        at.start(&name, "busybox sleep 1000");
        let sentence = "checkpoints need CRIU, which is not in the PATH of longshored";
        at.fails(&format!("checkpoint create {name} one"), 1, sentence);
        let body = r#"{"CheckpointID":"one"}"#;
        let answer = daemon.post(&format!("/containers/{name}/checkpoints"), body).unwrap();
        assert_eq!((answer.status, answer.message().as_str()), (501, sentence));
        assert_eq!(at.ok(&format!("checkpoint ls {name}")), "CHECKPOINT NAME");
        at.ok(&format!("stop -t 0 {name}"));
        at.fails(&format!("start --checkpoint one {name}"), 1, sentence);
        at.remove(&name);
    });
}
