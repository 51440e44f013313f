//! A running program with pipes, for tests that talk with it while it runs.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::process::{self, DEADLINE, Output};

/// A running program; its standard error is collected, its standard output is read by the test.
#[derive(Debug)]
pub struct Piped {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    seen: Vec<u8>,
    errors: Option<JoinHandle<Vec<u8>>>,
}

impl Piped {
    /// Starts `command`.
    pub fn spawn(command: &mut Command) -> Result<Piped> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().context("piped")?);
        let mut stderr = child.stderr.take().context("piped")?;
        let errors = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What came before a failed read is still what the program said.
            let _ = stderr.read_to_end(&mut bytes);
            bytes
        });
        Ok(Piped { child, input, output, seen: Vec::new(), errors: Some(errors) })
    }

    /// Writes to its standard input.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.input.as_mut().context("its input is closed")?.write_all(bytes)?)
    }

    /// Ends its standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Reads its standard output until `text` has appeared after what earlier calls returned; answers all up to it.
    pub fn read_until(&mut self, text: &str) -> Result<String> {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(read) = process::take_until(&mut self.seen, text) {
                return Ok(read);
            }
            if !self.read_more(end)? {
                bail!("no {text:?} on standard output, only {:?}", String::from_utf8_lossy(&self.seen));
            }
        }
    }

    /// Sends `signal` to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(rustix::process::kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Whether it has ended; it can still be waited for.
    pub fn ended(&self) -> Result<bool> {
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        process::readable(pidfd.as_fd(), Duration::ZERO)
    }

    /// Ends its input, waits for it, and answers the rest of its output with its exit code.
    pub fn wait(mut self) -> Result<Output> {
        self.input = None;
        let end = Instant::now() + DEADLINE;
        while self.read_more(end)? {}
        let status = process::wait(&mut self.child, end.saturating_duration_since(Instant::now()))?;
        let errors = self.errors.take().context("waited once")?.join().unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Output { stdout: text(&self.seen), stderr: text(&errors), code: process::code(status) })
    }

    fn read_more(&mut self, end: Instant) -> Result<bool> {
        if !process::readable(self.output.as_fd(), end.saturating_duration_since(Instant::now()))? {
            return Ok(false);
        }
        let mut buffer = [0; 65536];
        let count = self.output.read(&mut buffer)?;
        self.seen.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // The child may have ended and been waited for: then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_talked_with_signalled_and_waited_for() {
        let mut command = Command::new("bash");
        command.args(["-c", "trap 'echo trapped; exit 5' TERM; read x; echo bad >&2; echo got-$x; read y"]);
        let mut piped = Piped::spawn(&mut command).unwrap();
        piped.send(b"word\n").unwrap();
        assert_eq!(piped.read_until("got-word\n").unwrap(), "got-word\n");
        assert!(!piped.ended().unwrap());
        piped.signal(Signal::TERM).unwrap();
        process::until("the program's end", DEADLINE, || piped.ended().unwrap().then_some(())).unwrap();
        let output = piped.wait().unwrap();
        assert_eq!(output, Output { stdout: "trapped\n".into(), stderr: "bad\n".into(), code: 5 });
    }
}
