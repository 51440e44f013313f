//! A terminal: typing, sizes, keys that detach, keys that interrupt.

use testkit::{Cli, Daemon, Pty};

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
fn privileged_a_resize_reaches_the_program() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    for cli in daemon.clis() {
        let script = "trap 'stty size' WINCH; echo ready; while :; do read -r line; done";
        let mut pty = run(&daemon, cli, &["--rm", "busybox", "sh", "-c", script]);
        pty.read_until("ready").unwrap();
        pty.resize(40, 120).unwrap();
        // The shell runs the trap when its read returns.
        pty.send(b"\r").unwrap();
        pty.read_until("40 120").unwrap();
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
