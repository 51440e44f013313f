//! A terminal: typing, sizes, keys that detach, keys that interrupt.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, Pty};

use crate::support::{At, on_both, ours};

/// `run -it` and `rest` on a terminal of 33 rows and 99 columns.
fn run(daemon: &Daemon, cli: Cli, rest: &[&str]) -> Pty {
    let mut command = daemon.command(cli).expect("a command line");
    command.args(["run", "-it", "--network", "none"]).args(rest);
    Pty::spawn(&command, 33, 99).expect("a terminal")
}

#[test]
fn privileged_a_shell_on_a_terminal_has_its_size_and_ends_with_its_code() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    for cli in daemon.clis() {
        let mut pty = run(&daemon, cli, &["--rm", "busybox", "sh"]);
        pty.read_until("/ # ").unwrap();
        pty.send(b"tty; stty size; echo $TERM\r").unwrap();
        pty.read_until("/dev/pts/0").unwrap();
        pty.read_until("33 99").unwrap();
        pty.read_until("xterm").unwrap();
        pty.read_until("/ # ").unwrap();
        pty.send(b"exit 7\r").unwrap();
        assert_eq!(pty.wait().unwrap().1, 7, "{cli:?}");
    }
}

#[test]
fn privileged_the_first_thing_a_program_sees_is_the_right_size() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    for cli in daemon.clis() {
        let pty = run(&daemon, cli, &["--rm", "busybox", "stty", "size"]);
        let (shown, code) = pty.wait().unwrap();
        assert_eq!((shown.trim(), code), ("33 99", 0), "{cli:?}");
    }
}

#[test]
fn privileged_a_resize_reaches_the_program() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    for cli in daemon.clis() {
        // `wait` returns for a trapped signal, whenever it comes.
        let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 600 & wait; done";
        let mut pty = run(&daemon, cli, &["--rm", "busybox", "sh", "-c", script]);
        pty.read_until("ready").unwrap();
        // Docker's client watches its terminal only from a moment after the start: what it misses is said again.
        let mut told = |_| {
            pty.resize(40, 119).unwrap();
            pty.resize(40, 120).unwrap();
            pty.read_until_within("40 120", Duration::from_secs(1)).unwrap().is_some()
        };
        assert!((0..20).any(&mut told), "{cli:?}");
        pty.send(b"\x03").unwrap();
        assert_eq!(pty.wait().unwrap().1, 130, "{cli:?}");
    }
}

#[test]
fn privileged_ctrl_p_ctrl_q_leaves_the_container_running() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    for cli in daemon.clis() {
        let name = daemon.name("detached");
        let mut pty = run(&daemon, cli, &["--name", &name, "busybox", "sh"]);
        pty.read_until("/ # ").unwrap();
        pty.send(b"\x10\x11").unwrap();
        let (printed, code) = pty.wait().unwrap();
        assert_eq!(code, 0, "{cli:?}: {printed}");
        let state = daemon.cli(cli, &["inspect", "-f", "{{.State.Running}}", &name]).unwrap();
        assert_eq!(state.success().unwrap(), "true", "{cli:?}");
        // Back again: the same shell answers.
        let mut command = daemon.command(cli).unwrap();
        command.args(["attach", &name]);
        let mut pty = Pty::spawn(&command, 33, 99).unwrap();
        pty.send(b"echo back-$((40+2)); exit 5\r").unwrap();
        pty.read_until("back-42").unwrap();
        assert_eq!(pty.wait().unwrap().1, 5, "{cli:?}");
        daemon.cli(cli, &["rm", "-f", &name]).unwrap().success().unwrap();
    }
}

#[test]
fn privileged_without_a_terminal_t_is_refused_and_nothing_is_left() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    for cli in daemon.clis() {
        let name = daemon.name("no-terminal");
        let output = daemon.cli(cli, &["run", "-it", "--name", &name, "busybox", "true"]).unwrap();
        assert_eq!((output.code, output.stderr.as_str()), (1, "the input device is not a TTY\n"), "{cli:?}");
        let listed = daemon.cli(cli, &["ps", "-aq", "--filter", &format!("name={name}")]).unwrap();
        assert_eq!(listed.success().unwrap(), "", "{cli:?}");
    }
}

/// Only a container that is made by the same command would have nobody at its terminal.
#[test]
fn privileged_a_container_with_a_terminal_is_started_without_one() {
    on_both(|at| {
        let name = at.name("started-without");
        at.ok(&format!("create -it --network none --name {name} busybox echo hi"));
        let output = at.line(&format!("start -ai {name}"));
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        assert_eq!(at.ok(&format!("logs {name}")).trim(), "hi");
        at.remove(&name);
    });
}

/// Ended by the signal itself, a command would take the rest of the shell's line with it.
#[test]
fn privileged_an_interrupted_command_ends_with_a_status() {
    on_both(|at| {
        let name = at.name("interrupted");
        at.ok(&format!("run -d --network none --name {name} busybox sh -c 'echo up; sleep 1000'"));
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            for line in [format!("logs -f {name}"), format!("events --since 1 --filter container={name}")] {
                let mut child = at.command(&line).stdout(Stdio::piped()).spawn().unwrap();
                BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
                rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
                let status = testkit::process::wait(&mut child, DEADLINE).unwrap();
                // Between two events docker's own client takes the signal for the end of them, and ends well.
                let between = at.cli == Cli::Docker && line.starts_with("events") && status.code() == Some(0);
                assert!(between || status.code() == Some(code), "{line} {signal:?}: {status}");
            }
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_signals_to_the_command_line_reach_the_program() {
    on_both(|at| {
        let name = at.name("signals");
        let script =
            "trap \"echo got-int; exit 3\" INT; trap \"echo got-term; exit 4\" TERM; echo up; sleep 1000 & wait";
        for (signal, word, code) in [(Signal::INT, "got-int\n", 3), (Signal::TERM, "got-term\n", 4)] {
            let mut run = at.spawn(&format!("run --rm --network none --name {name} busybox sh -c '{script}'"));
            run.read_until("up\n").unwrap();
            run.signal(signal).unwrap();
            let output = run.wait().unwrap();
            assert_eq!((output.stdout.as_str(), output.code), (word, code), "{signal:?}");
        }
    });
}

/// What both command lines say of the third interruption.
const FORCED: &str = "\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n";

#[test]
fn privileged_the_third_interruption_ends_the_command_line() {
    on_both(|at| {
        let name = at.name("insist");
        let script = "trap \"echo got-int\" INT; trap \"echo got-term\" TERM; trap \"echo got-hup\" HUP; echo up; \
                      while :; do sleep 1000 & wait; done";
        let mut run = at.spawn(&format!("run --rm --network none --name {name} busybox sh -c '{script}'"));
        run.read_until("up\n").unwrap();
        // A hangup does not count.
        for (signal, word) in [(Signal::INT, "got-int\n"), (Signal::HUP, "got-hup\n"), (Signal::TERM, "got-term\n")] {
            run.signal(signal).unwrap();
            assert_eq!(run.read_until("\n").unwrap(), word);
        }
        run.signal(Signal::INT).unwrap();
        let output = run.wait().unwrap();
        assert_eq!((output.stderr.as_str(), output.code), (FORCED, 1));
        assert_eq!(at.inspect(&name, "{{.State.Running}}"), "true");
        at.remove(&name);
    });
}

#[test]
fn privileged_interruptions_end_the_command_line_of_a_daemon_that_does_not_answer() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let script = "while :; do echo up; sleep 1; done";
        at.start("running", &format!("busybox sh -c '{script}'"));
        at.ok(&format!("create --network none --name created busybox sh -c '{script}'"));
        let run = format!("run --network none --name new busybox sh -c '{script}'");
        for line in ["attach running", "start -a created", &run] {
            let mut command = at.spawn(line);
            command.read_until("up\n").unwrap();
            let frozen = Frozen::freeze(daemon.pid().unwrap());
            // Two of a kind may come as one.
            let insist = || {
                command.signal(Signal::INT).unwrap();
                command.ended().unwrap().then_some(())
            };
            until("the end of the command line", DEADLINE, insist).unwrap();
            drop(frozen);
            let output = command.wait().unwrap();
            assert_eq!((output.stderr.as_str(), output.code), (FORCED, 1));
        }
    });
}

/// A process that does not run until this goes.
struct Frozen(Pid);

impl Frozen {
    fn freeze(pid: u32) -> Frozen {
        let pid = Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        Frozen(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        rustix::process::kill_process(self.0, Signal::CONT).unwrap();
    }
}

#[test]
fn privileged_signals_reach_the_program_only_with_sig_proxy() {
    on_both(|at| {
        let name = at.name("no-proxy");
        let script = "trap \"echo got-term\" TERM; trap \"echo got-usr1; exit 5\" USR1; echo up; \
                      while :; do sleep 1000 & wait; done";
        let mut run = at.spawn(&format!("run --sig-proxy=false --network none --name {name} busybox sh -c '{script}'"));
        run.read_until("up\n").unwrap();
        run.signal(Signal::TERM).unwrap();
        at.ok(&format!("kill -s USR1 {name}"));
        assert_eq!(at.ok(&format!("wait {name}")), "5");
        assert_eq!(at.ok(&format!("logs {name}")), "up\ngot-usr1");
        drop(run);
        at.remove(&name);
    });
}

#[test]
fn privileged_other_keys_detach_when_they_are_named() {
    on_both(|at| {
        let name = at.name("keys");
        let mut pty = at.pty(&format!("run -it --network none --detach-keys ctrl-x,z --name {name} busybox sh"));
        pty.read_until("/ # ").unwrap();
        // The first key alone belongs to the program as soon as another one follows it.
        pty.send(b"echo a\x10\x11b\r").unwrap();
        pty.read_until("/ # ").unwrap();
        pty.send(b"\x18z").unwrap();
        assert_eq!(pty.wait().unwrap().1, 0);
        assert_eq!(at.inspect(&name, "{{.State.Running}}"), "true");
        at.remove(&name);
    });
}

#[test]
fn privileged_two_terminals_see_the_same_program() {
    on_both(|at| {
        let name = at.name("two");
        let mut first = at.pty(&format!("run -it --rm --network none --name {name} busybox sh"));
        first.read_until("/ # ").unwrap();
        let mut second = at.pty(&format!("attach {name}"));
        second.send(b"echo from-$((1+1))\r").unwrap();
        second.read_until("from-2").unwrap();
        first.read_until("from-2").unwrap();
        first.send(b"exit 6\r").unwrap();
        assert_eq!(first.wait().unwrap().1, 6);
        assert_eq!(second.wait().unwrap().1, 6);
    });
}

#[test]
fn privileged_the_terminal_is_given_back_as_it_was() {
    on_both(|at| {
        let run = "run -it --rm --network none busybox true".to_owned();
        let program = at.command("").get_program().to_owned();
        // The shell around it shows the terminal's modes before and after.
        let mut command = at.command("");
        let script = format!(
            "before=$(stty -g); {} {run}; [ \"$before\" = \"$(stty -g)\" ] && echo same-modes",
            program.display()
        );
        command = shell(&command, &script);
        let mut pty = testkit::Pty::spawn(&command, 33, 99).unwrap();
        pty.read_until("same-modes").unwrap();
    });
}

/// `sh -c SCRIPT` with the environment of `like`.
fn shell(like: &std::process::Command, script: &str) -> std::process::Command {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]);
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}
