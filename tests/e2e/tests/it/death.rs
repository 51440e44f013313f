//! The daemon dies, again and again, and nobody notices.

use std::fs;
use std::path::Path;

use testkit::{Cli, Daemon, Events, Passage, Piped, Pty};

use crate::support::{At, ours};

/// How often the daemon is killed.
const KILLS: usize = 20;

/// Prints a counter for ever, about fifty lines a second.
const COUNTER: &str = "i=0; while :; do echo n$i; i=$((i+1)); usleep 20000; done";

/// The same until SIGTERM; then the last number is followed by `bye`.
const STOPPED_COUNTER: &str =
    "trap \"echo bye; exit 23\" TERM; i=0; while :; do echo n$i; i=$((i+1)); usleep 20000; done";

fn at(daemon: &Daemon, cli: Cli) -> At<'_> {
    At { daemon, cli }
}

#[test]
fn privileged_heavy_twenty_deaths_of_the_daemon_lose_nothing() {
    ours(|daemon| twenty_containers(daemon, KILLS));
}

#[test]
fn privileged_quick_two_deaths_of_the_daemon_lose_nothing() {
    ours(|daemon| twenty_containers(daemon, 2));
}

/// What runs: 12 writers, 4 that end while the daemon is dead, one that is restarted, one idle, and a terminal for each
/// command line with its client attached.
fn twenty_containers(daemon: &mut Daemon, kills: usize) {
    let shared = daemon.shared_dir().unwrap().expect("a daemon of our own sees our directories");
    let terminals = start_all(daemon, shared.path());
    for kill in 0..kills {
        daemon.kill9().unwrap();
        // While nobody is there, a container ends.
        if kill * 4 % kills == 0 {
            fs::write(shared.path().join(format!("end{}", kill * 4 / kills)), "").unwrap();
        }
        daemon.restart().unwrap();
    }
    for number in 0..4 {
        fs::write(shared.path().join(format!("end{number}")), "").unwrap();
    }
    check_ended(daemon);
    check_terminals(daemon, terminals);
    check_writers(daemon);
    check_restarted(daemon, shared.path());
}

fn start_all(daemon: &Daemon, shared: &Path) -> Vec<(Cli, Pty)> {
    let us = at(daemon, Cli::Longshore);
    for number in 0..12 {
        us.start(&format!("writer{number}"), &format!("busybox sh -c '{STOPPED_COUNTER}'"));
    }
    for number in 0..4 {
        let script = format!("while [ ! -e /s/end{number} ]; do usleep 10000; done; exit {}", 40 + number);
        us.start(&format!("ending{number}"), &format!("-v {}:/s busybox sh -c '{script}'", shared.display()));
    }
    // Each life ends when there is a new file, and leaves one of its own.
    let script = "touch /s/life-$(ls /s | grep -c life); n=$(ls /s | grep -c life); \
                  while [ ! -e /s/again$n ]; do usleep 10000; done; exit 1";
    us.start("again", &format!("--restart always -v {}:/s busybox sh -c '{script}'", shared.display()));
    us.start("idle", "busybox sleep 1000");
    daemon
        .clis()
        .into_iter()
        .map(|cli| {
            let name = format!("terminal-{cli:?}").to_lowercase();
            let mut pty =
                at(daemon, cli).pty(&format!("run -it --network none --name {name} busybox sh -c '{COUNTER}'"));
            pty.read_until("n5\r\n").unwrap();
            (cli, pty)
        })
        .collect()
}

/// Those that ended while the daemon was dead have their own exit codes.
fn check_ended(daemon: &Daemon) {
    let us = at(daemon, Cli::Longshore);
    for number in 0..4 {
        assert_eq!(us.ok(&format!("wait ending{number}")), (40 + number).to_string());
        assert_eq!(us.inspect(&format!("ending{number}"), "{{.State.Status}}"), "exited");
    }
    // All others still run, and are within reach.
    let running = us.ok("ps --format {{.Names}}");
    assert_eq!(running.lines().count(), 14 + daemon.clis().len(), "{running}");
    for cli in daemon.clis() {
        for name in ["writer0", "idle", "again"] {
            assert_eq!(at(daemon, cli).ok(&format!("exec {name} echo in")), "in");
        }
    }
}

/// The attached clients saw every number once; a new client sees the next ones, and keys still detach.
fn check_terminals(daemon: &Daemon, terminals: Vec<(Cli, Pty)>) {
    for (cli, pty) in terminals {
        let at = at(daemon, cli);
        let name = format!("terminal-{cli:?}").to_lowercase();
        let mut second = at.pty(&format!("attach {name}"));
        let first = second.read_until("\r\n").unwrap();
        second.read_until("\r\n").unwrap();
        second.send(b"\x10\x11").unwrap();
        second.wait().unwrap();
        assert!(first.contains('n'), "{cli:?}: {first}");
        at.ok(&format!("kill {name}"));
        let (rest, code) = pty.wait().unwrap();
        assert_numbers(&rest, 6, &format!("the terminal of {cli:?}"));
        // Docker's command line asks one daemon only; ours asks its successors.
        if cli == Cli::Longshore {
            assert_eq!(code, 137, "the terminal of {cli:?}");
        }
        assert_eq!(at.inspect(&name, "{{.State.ExitCode}}"), "137", "{cli:?}");
    }
}

/// Every log has every line once, up to the last words.
fn check_writers(daemon: &Daemon) {
    let us = at(daemon, Cli::Longshore);
    for number in 0..12 {
        let name = format!("writer{number}");
        us.ok(&format!("stop {name}"));
        assert_eq!(us.inspect(&name, "{{.State.ExitCode}}"), "23", "{name}");
        let logged = us.line(&format!("logs {name}")).stdout;
        let numbers = logged.strip_suffix("bye\n").unwrap_or_else(|| panic!("{name} has no last words: {logged:?}"));
        assert_numbers(numbers, 0, &name);
    }
}

/// The lines of `text` are n`first` and so on, each once.
fn assert_numbers(text: &str, first: usize, whose: &str) {
    let lines = text.lines().filter(|line| line.starts_with('n'));
    let mut next = first;
    for line in lines {
        assert_eq!(line.trim(), format!("n{next}"), "{whose}");
        next += 1;
    }
    assert!(next > first + 10, "{whose} has only {} numbers", next - first);
}

/// A policy still works, and a stop still ends it.
fn check_restarted(daemon: &Daemon, shared: &Path) {
    let us = at(daemon, Cli::Longshore);
    let mut events = Events::subscribe(daemon.socket(), "again").unwrap();
    fs::write(shared.join("again1"), "").unwrap();
    events.until("die").unwrap();
    events.until("start").unwrap();
    assert_eq!(us.inspect("again", "{{.RestartCount}} {{.State.Running}}"), "1 true");
    us.ok("stop -t 0 again");
    assert_eq!(us.inspect("again", "{{.State.Status}}"), "exited");
}

#[test]
fn privileged_attached_clients_have_the_exit_code_from_a_later_daemon() {
    ours(|daemon| {
        let shared = daemon.shared_dir().unwrap().expect("a daemon of our own sees our directories");
        let script = "read go; echo in; while [ ! -e /s/$0 ]; do usleep 10000; done; echo out; exit 7";
        let line = |verb: &str, name: &str, end: &str| {
            let volume = format!("-v {}:/s", shared.path().display());
            format!("{verb} -i --network none --name {name} {volume} busybox sh -c '{script}' {end}")
        };
        let us = at(daemon, Cli::Longshore);
        us.ok(&line("create", "started", "dead"));
        us.ok(&line("run -d", "attached", "later"));
        let mut clients = [
            line("run --rm", "gone", "dead"),
            line("run", "dead", "dead"),
            line("run", "later", "later"),
            line("run --rm", "removed", "later"),
            "start -ai started".to_owned(),
            "attach attached".to_owned(),
        ]
        .map(|line| us.spawn(&line));
        for client in &mut clients {
            client.send(b"go\n").unwrap();
            client.read_until("in\n").unwrap();
        }
        let pids = ["dead", "started", "gone"].map(|name| us.inspect(name, "{{.State.Pid}}"));
        daemon.kill9().unwrap();
        fs::write(shared.path().join("dead"), "").unwrap();
        pids.iter().for_each(|pid| await_end(pid));
        daemon.restart().unwrap();
        fs::write(shared.path().join("later"), "").unwrap();
        for client in clients {
            let output = client.wait().unwrap();
            assert_eq!((output.stdout.as_str(), output.code), ("out\n", 7), "{}", output.stderr);
        }
        // The next daemon has removed it at its start, perhaps before its client asked for the exit code.
        at(daemon, Cli::Longshore).fails("container inspect gone", 1, "No such container: gone");
    });
}

fn await_end(pid: &str) {
    let gone = || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    testkit::process::until("the container ended", testkit::process::DEADLINE, gone).unwrap();
}

#[test]
fn privileged_execs_are_known_to_a_later_daemon() {
    ours(|daemon| {
        let shared = daemon.shared_dir().unwrap().expect("a daemon of our own sees our directories");
        let us = at(daemon, Cli::Longshore);
        us.start("host", &format!("-v {}:/s busybox sleep 1000", shared.path().display()));
        let script = "read go; echo in; while [ ! -e /s/$0 ]; do usleep 10000; done; touch /s/$0-ended; exit 5";
        let mut clients = ["dead", "later"].map(|end| us.spawn(&format!("exec -i host sh -c '{script}' {end}")));
        for client in &mut clients {
            client.send(b"go\n").unwrap();
            client.read_until("in\n").unwrap();
        }
        let sized = "echo ready; while [ $(stty size | tr -d \" \") != 2143 ]; do usleep 10000; done; exit 4";
        let mut terminal = us.pty(&format!("exec -it host sh -c '{sized}'"));
        terminal.read_until("ready").unwrap();
        // This one is made by one daemon and started by the next.
        let body = r#"{"Cmd": ["sh", "-c", "touch /s/begun; exit 3"]}"#;
        let made = daemon.post("/v1.50/containers/host/exec", body).unwrap().json().unwrap();
        let made = made["Id"].as_str().unwrap();
        daemon.kill9().unwrap();
        fs::write(shared.path().join("dead"), "").unwrap();
        let ended = || shared.path().join("dead-ended").exists().then_some(());
        testkit::process::until("the exec ended", testkit::process::DEADLINE, ended).unwrap();
        daemon.restart().unwrap();
        fs::write(shared.path().join("later"), "").unwrap();
        for client in clients {
            let output = client.wait().unwrap();
            assert_eq!((output.code, output.stderr.as_str()), (5, ""));
        }
        terminal.resize(21, 43).unwrap();
        assert_eq!(terminal.wait().unwrap().1, 4);
        let started = daemon.post(&format!("/v1.50/exec/{made}/start"), r#"{"Detach": true}"#).unwrap();
        assert_eq!(started.status, 200, "{}", started.text());
        let shown = || daemon.get(&format!("/v1.50/exec/{made}/json")).unwrap().json().unwrap();
        let ended = || (shown()["ExitCode"] == 3).then_some(());
        testkit::process::until("the exec ended", testkit::process::DEADLINE, ended).unwrap();
        assert_eq!(shown()["ProcessConfig"]["arguments"][1], "touch /s/begun; exit 3");
        assert!(shared.path().join("begun").exists());
    });
}

#[test]
fn privileged_logs_are_followed_from_one_daemon_to_the_next() {
    ours(|daemon| {
        let us = at(daemon, Cli::Longshore);
        us.start("writer", &format!("busybox sh -c '{STOPPED_COUNTER}'"));
        us.start("terminal", "-t busybox sh -c 'echo ready; sleep 1000'");
        let mut raw = us.spawn("logs -f terminal");
        raw.read_until("ready").unwrap();
        let mut follower = us.spawn("logs -f writer");
        follower.read_until("n5\n").unwrap();
        let mut seen = String::new();
        for round in 0..3 {
            if round == 1 {
                daemon.stop().unwrap()
            } else {
                daemon.kill9().unwrap()
            }
            daemon.restart().unwrap();
            // It follows again when it has what was written since.
            let last = at(daemon, Cli::Longshore).ok("logs --tail 1 writer");
            seen += &follower.read_until(&format!("{last}\n")).unwrap();
        }
        // Three daemons may come and go before there is much to follow.
        if !seen.contains("n20\n") {
            seen += &follower.read_until("n20\n").unwrap();
        }
        at(daemon, Cli::Longshore).ok("stop writer");
        let output = follower.wait().unwrap();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        seen += &output.stdout;
        let numbers = seen.strip_suffix("bye\n").unwrap_or_else(|| panic!("{seen:?}"));
        assert_numbers(numbers, 6, "the follower");
        let output = raw.wait().unwrap();
        assert_eq!(output.code, 1);
        assert!(output.stderr.contains("the daemon ended while the log was followed"), "{}", output.stderr);
    });
}

#[test]
fn privileged_wait_asks_the_next_daemon() {
    ours(|daemon| {
        let shared = daemon.shared_dir().unwrap().expect("a daemon of our own sees our directories");
        let script = "while [ ! -e /s/end ]; do usleep 10000; done; exit 6";
        let us = at(daemon, Cli::Longshore);
        let names = ["stays", "gone"];
        us.start("stays", &format!("-v {}:/s busybox sh -c '{script}'", shared.path().display()));
        us.start("gone", &format!("--rm -v {}:/s busybox sh -c '{script}'", shared.path().display()));
        // A client that finds no daemon when it begins fails.
        let passage = Passage::to(daemon.socket()).unwrap();
        let clients = names.map(|name| {
            let mut command = us.command(&format!("wait {name}"));
            Piped::spawn(command.env("DOCKER_HOST", format!("unix://{}", passage.socket().display()))).unwrap()
        });
        // Each asks how the wait ends and, beside that, for the id.
        passage.until_answered(4).unwrap();
        let pids = names.map(|name| us.inspect(name, "{{.State.Pid}}"));
        daemon.kill9().unwrap();
        fs::write(shared.path().join("end"), "").unwrap();
        pids.iter().for_each(|pid| await_end(pid));
        daemon.restart().unwrap();
        for client in clients {
            let output = client.wait().unwrap();
            assert_eq!((output.stdout.as_str(), output.code), ("6\n", 0), "{}", output.stderr);
        }
    });
}

#[test]
fn privileged_a_policy_restarts_what_ended_while_the_daemon_was_dead() {
    ours(|daemon| {
        let shared = daemon.shared_dir().unwrap().expect("a daemon of our own sees our directories");
        let script =
            "test -e /s/again && exec sleep 1000; while [ ! -e /s/end ]; do usleep 10000; done; touch /s/again; exit 1";
        let volume = format!("-v {}:/s", shared.path().display());
        let start = |name: &str, policy: &str| {
            at(daemon, Cli::Longshore).start(name, &format!("{policy} {volume} busybox sh -c '{script}'"))
        };
        start("always", "--restart always");
        at(daemon, Cli::Longshore)
            .start("rm", &format!("--rm {volume} busybox sh -c 'while [ ! -e /s/end ]; do usleep 10000; done'"));
        let pids: Vec<String> =
            ["always", "rm"].map(|name| at(daemon, Cli::Longshore).inspect(name, "{{.State.Pid}}")).into();
        daemon.kill9().unwrap();
        fs::write(shared.path().join("end"), "").unwrap();
        pids.iter().for_each(|pid| await_end(pid));
        daemon.restart().unwrap();
        let us = at(daemon, Cli::Longshore);
        let running = || (us.line("inspect -f {{.State.Running}} always").stdout.trim() == "true").then_some(());
        testkit::process::until("it runs again", testkit::process::DEADLINE, running).unwrap();
        let removed = || (us.line("container inspect rm").code == 1).then_some(());
        testkit::process::until("--rm removed it", testkit::process::DEADLINE, removed).unwrap();
    });
}

#[test]
fn privileged_a_stopped_daemon_leaves_its_containers_running() {
    ours(|daemon| {
        at(daemon, Cli::Longshore).start("stays", "busybox sleep 1000");
        let pid = at(daemon, Cli::Longshore).inspect("stays", "{{.State.Pid}}");
        daemon.stop().unwrap();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        daemon.restart().unwrap();
        assert_eq!(
            at(daemon, Cli::Longshore).inspect("stays", "{{.State.Pid}} {{.State.Running}}"),
            format!("{pid} true")
        );
    });
}
