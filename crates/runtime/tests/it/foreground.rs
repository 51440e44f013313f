//! Terminals in the foreground: the test is who sits before one.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Termios, tcgetattr};
use serde_json::json;

use super::fixture::{Bundle, DEADLINE, wait_until};

/// A terminal, and a program that runs on it.
struct Session {
    terminal: sys::terminal::Pair,
    program: Child,
    shown: String,
    before: Termios,
}

impl Session {
    fn begin(bundle: &Bundle, words: &[&str]) -> Session {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = sys::terminal::pair(rustix::pty::openpt(flags).unwrap()).unwrap();
        sys::terminal::resize(&terminal.master, 30, 100).unwrap();
        let before = tcgetattr(&terminal.slave).unwrap();
        let runtime = bundle.command(words);
        // As the leader of a session, whose terminal it is.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(runtime.get_program()).args(runtime.get_args()).current_dir(bundle.dir.path());
        let stream = || Stdio::from(terminal.slave.try_clone().unwrap());
        let program = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        Session { terminal, program, shown: String::new(), before }
    }

    fn type_in(&self, keys: &str) {
        rustix::io::write(&self.terminal.master, keys.as_bytes()).unwrap();
    }

    /// Reads on until this was shown; what was shown before it is forgotten.
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            assert!(Instant::now() < deadline, "{text:?} is not in {:?}", self.shown);
            self.read();
        }
    }

    fn read(&mut self) {
        let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let mut fds = [PollFd::new(&self.terminal.master, PollFlags::IN)];
        if poll(&mut fds, Some(&moment)).unwrap() > 0 {
            let mut buffer = [0; 1024];
            let length = rustix::io::read(&self.terminal.master, &mut buffer).unwrap();
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal.slave).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for the program's end, after which the terminal must be as before; its status.
    fn end(mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            self.read();
            match self.program.try_wait().unwrap() {
                Some(status) => break status.code(),
                None => assert!(Instant::now() < deadline, "{:?}", self.shown),
            }
        };
        let after = tcgetattr(&self.terminal.slave).unwrap();
        let modes = |termios: &Termios| (termios.local_modes, termios.input_modes, termios.output_modes);
        assert_eq!(modes(&after), modes(&self.before));
        status
    }
}

const ECHOING: &str =
    "stty size; while read a; do case $a in size) stty size;; end) exit 7;; *) echo \"<$a>\";; esac; done";

#[test]
fn privileged_what_is_typed_reaches_the_container_and_its_size_follows() {
    let mut bundle = Bundle::new(&["sh", "-c", ECHOING]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 11, "width": 22});
    let mut session = Session::begin(&bundle, &["run", &bundle.id]);
    session.expect("30 100\r\n");
    assert!(session.is_raw());
    session.type_in("hello\r");
    // Once as it is typed, by the container's terminal alone, and once from the program.
    session.expect("hello\r\n<hello>\r\n");
    assert!(!session.shown.contains("hello"));
    sys::terminal::resize(&session.terminal.master, 40, 120).unwrap();
    wait_until("the new size", || {
        session.type_in("size\r");
        session.expect("\r\n");
        session.expect("\r\n");
        session.type_in("size\r");
        session.expect("size\r\n");
        session.read();
        session.shown.contains("40 120")
    });
    session.type_in("end\r");
    assert_eq!(session.end(), Some(7));
    bundle.assert_gone();
}

#[test]
fn privileged_keys_that_make_signals_make_them_in_the_container_and_signals_go_on() {
    let mut bundle =
        Bundle::new(&["sh", "-c", "trap 'echo term; exit 9' TERM; echo on; while :; do sleep 1 & wait; done"]);
    bundle.config["process"]["terminal"] = json!(true);
    let mut session = Session::begin(&bundle, &["run", &bundle.id]);
    session.expect("on\r\n");
    let mut added = Session::begin(&bundle, &["exec", "-t", &bundle.id, "sh", "-c", "echo in; sleep 1000"]);
    added.expect("in\r\n");
    added.type_in("\x03");
    assert_eq!(added.end(), Some(130));
    let program = rustix::process::Pid::from_child(&session.program);
    rustix::process::kill_process(program, rustix::process::Signal::TERM).unwrap();
    session.expect("term\r\n");
    assert_eq!(session.end(), Some(9));
    bundle.assert_gone();
}

#[test]
fn privileged_a_terminal_is_given_back_when_the_start_fails() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["hooks"] = json!({"poststart": [{"path": "/bin/false"}]});
    let session = Session::begin(&bundle, &["run", &bundle.id]);
    assert_eq!(session.end(), Some(1));
    bundle.assert_gone();
}

#[test]
fn privileged_streams_that_are_no_terminals_are_carried_to_one() {
    let script = "[ -t 0 ] && [ -t 1 ] && echo terminal; stty size; read a; echo \"<$a>\"; exit 3";
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 11, "width": 22});
    fs::write(bundle.path("in"), "typed\n").unwrap();
    let out = File::create(bundle.path("out")).unwrap();
    // The terminal is that of the session; none of the streams is one.
    let (mut command, _terminal) = session_with_files(&bundle, "in", &["run", &bundle.id]);
    assert_eq!(command.stdout(OwnedFd::from(out)).status().unwrap().code(), Some(3));
    let text = fs::read_to_string(bundle.path("out")).unwrap();
    // Somewhere before the end is the terminal's echo.
    let text: String = text.split_inclusive('\n').filter(|line| *line != "typed\r\n").collect();
    assert_eq!(text, "terminal\r\n30 100\r\n<typed>\r\n");
    bundle.assert_gone();
}

/// The program with a file for its input and no stream that is a terminal, in a session that has one all the same, and that
/// terminal's master.
pub(crate) fn session_with_files(bundle: &Bundle, input: &str, words: &[&str]) -> (Command, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let pair = sys::terminal::pair(rustix::pty::openpt(flags).unwrap()).unwrap();
    sys::terminal::resize(&pair.master, 30, 100).unwrap();
    let runtime = bundle.command(words);
    let mut command = Command::new("setsid");
    command
        .args(["--ctty", "--wait", "sh", "-c", "exec \"$@\" <\"$0\"", input])
        .arg(runtime.get_program())
        .args(runtime.get_args());
    command.current_dir(bundle.dir.path()).stdin(Stdio::from(pair.slave));
    (command, pair.master)
}

#[test]
fn privileged_a_terminal_that_nobody_could_reach_is_refused() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    let why = "process.terminal (or --tty) needs a terminal, and there is none here: open /dev/tty: \
               no such device or address";
    bundle.ok(&["run", "-d"]);
    let said = without_terminal(&bundle, &["exec", "-t", &bundle.id, "true"]);
    assert_eq!(said, (Some(255), format!("exec failed: {why}\n")));
    bundle.ok(&["delete", "-f"]);
    bundle.config["process"]["terminal"] = json!(true);
    let said = without_terminal(&bundle, &["run", &bundle.id]);
    assert_eq!(said, (Some(1), format!("longshore-runtime run failed: {why}\n")));
    bundle.assert_gone();
}

/// The program in a session that has none, and no stream that is one: its status, and what it says.
fn without_terminal(bundle: &Bundle, words: &[&str]) -> (Option<i32>, String) {
    let runtime = bundle.command(words);
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(runtime.get_program()).args(runtime.get_args()).current_dir(bundle.dir.path());
    let output = command.stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}
