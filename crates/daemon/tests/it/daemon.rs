//! A daemon of the test's own, ended with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// How long anything may take; many times what it takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// The directory of an instance: `d.sock`, `d.pid`, `data`, `exec`, `daemon.json`, `log`.
pub(crate) struct Scratch(TempDir);

/// A running daemon; killed when dropped.
pub(crate) struct Daemon(Child);

/// What a program that has ended has said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Scratch {
    /// An empty directory, with a configuration that says nothing.
    pub(crate) fn new() -> Scratch {
        let scratch = Scratch(tempfile::tempdir().unwrap());
        scratch.write("daemon.json", "{}");
        scratch
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file into the directory.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The daemon on this directory, not started; of flags that name the same, the last one counts.
    pub(crate) fn longshored(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshored"));
        for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--config-file", "daemon.json")] {
            command.arg(flag).arg(self.path(name));
        }
        // Never run here: no container is made.
        command.args(["--shim-path", "/bin/true", "--init-path", "/bin/true"]).args(flags);
        command.stdin(Stdio::null());
        command
    }

    /// Starts the daemon on `d.sock`; answers when it listens.
    pub(crate) fn start(&self, flags: &[&str]) -> Daemon {
        let mut command = self.longshored(flags);
        command.arg("-H").arg(format!("unix://{}", self.path("d.sock"))).arg("--pidfile").arg(self.path("d.pid"));
        self.spawn(command)
    }

    /// Starts the daemon on a socket that is passed as systemd passes it, by a shell that knows its own process id.
    pub(crate) fn start_with_socket(&self, listener: &UnixListener) -> Daemon {
        let daemon = self.longshored(&["-H", "fd://"]);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\""]);
        command.arg(daemon.get_program()).args(daemon.get_args());
        command.stdin(OwnedFd::from(listener.try_clone().unwrap()));
        self.spawn(command)
    }

    /// Whether the daemon on `d.sock` answers.
    pub(crate) fn ping(&self) -> bool {
        ping(UnixStream::connect(self.path("d.sock")).unwrap())
    }

    /// A connection over which this request was sent.
    pub(crate) fn open(&self, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.path("d.sock")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// What is answered to a GET on `d.sock`, head and body.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        let request = format!("GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
        self.open(&request).read_to_string(&mut answer).unwrap();
        answer
    }

    /// The address and port in the log's line with this; `tell` ends with the first part of the address.
    pub(crate) fn listens(&self, tell: &str) -> String {
        self.wait_for_log(tell);
        let log = fs::read_to_string(self.path("log")).unwrap();
        let (before, behind) = log.split_once(tell).unwrap();
        let first = tell.rsplit(' ').next().unwrap();
        assert!(before.len() < log.len());
        format!("{first}{}", behind.split('"').next().unwrap().trim_end_matches('\\'))
    }

    /// Waits until the daemon has written this to its log.
    pub(crate) fn wait_for_log(&self, wanted: &str) {
        let end = Instant::now() + DEADLINE;
        while !fs::read_to_string(self.path("log")).unwrap().contains(wanted) {
            assert!(Instant::now() < end, "no {wanted:?} in the log");
            std::thread::yield_now();
        }
    }

    fn spawn(&self, mut command: Command) -> Daemon {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        command.args(["--ready-fd", "1"]).stdout(Stdio::piped()).stderr(log);
        let mut daemon = Daemon(command.spawn().unwrap());
        let mut ready = Vec::new();
        // The end of the pipe comes with the readiness, not with the end of the daemon.
        daemon.0.stdout.take().unwrap().read_to_end(&mut ready).unwrap();
        assert_eq!(ready, b"1", "{}", fs::read_to_string(self.path("log")).unwrap());
        daemon
    }
}

impl Daemon {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits for its end; answers its exit code, if it has one.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let pidfd =
            rustix::process::pidfd_open(Pid::from_child(&self.0), rustix::process::PidfdFlags::empty()).unwrap();
        let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let deadline = DEADLINE.try_into().unwrap();
        assert_eq!(rustix::event::poll(&mut polled, Some(&deadline)).unwrap(), 1, "the daemon did not end");
        self.0.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended already cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end.
pub(crate) fn output(mut command: Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Whether the API answers on this connection.
pub(crate) fn ping(mut stream: impl Read + Write) -> bool {
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line == "HTTP/1.1 200 OK\r\n"
}
