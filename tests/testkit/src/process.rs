//! Commands with a deadline, and waiting for facts.

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

/// How long one command of a test may take. Far above what any needs, so that a slow machine is no failure.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How many times slower than usual this machine is: a number, for machines without KVM. Scales what is [`patient`].
pub const SLOWNESS_VARIABLE: &str = "LONGSHORE_TEST_SLOWNESS";

/// A time within which something must happen, on this machine. [`DEADLINE`] is long enough for any.
pub fn patient(usually: Duration) -> Duration {
    let times = std::env::var(SLOWNESS_VARIABLE).ok().and_then(|text| text.parse().ok());
    usually * times.unwrap_or(1)
}

/// What a command printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, invalid UTF-8 replaced.
    pub stderr: String,
    /// The exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
}

impl Output {
    /// Standard output without surrounding white space; an error unless the command ended with 0.
    pub fn success(&self) -> Result<&str> {
        if self.code != 0 {
            bail!("exit code {}, stderr: {}", self.code, self.stderr.trim());
        }
        Ok(self.stdout.trim())
    }
}

/// Runs `command` with `stdin` as its standard input; kills it and fails after [`DEADLINE`].
pub fn run(command: &mut Command, stdin: &[u8]) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let mut input = child.stdin.take().context("stdin is piped")?;
    let (stdout, stderr) = (child.stdout.take().context("piped")?, child.stderr.take().context("piped")?);
    std::thread::scope(|scope| {
        // A program that ends without reading its input closes the pipe: not this function's business.
        scope.spawn(move || input.write_all(stdin).is_ok());
        let stdout = scope.spawn(|| read_all(stdout));
        let stderr = scope.spawn(|| read_all(stderr));
        let status = wait(&mut child, DEADLINE).with_context(|| format!("{command:?}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let stdout = text(stdout.join().expect("reading a pipe does not panic")?);
        let stderr = text(stderr.join().expect("reading a pipe does not panic")?);
        Ok(Output { code: code(status?), stdout, stderr })
    })
}

/// Waits for `child`; kills it and fails when it still runs after `deadline`.
pub fn wait(child: &mut Child, deadline: Duration) -> Result<ExitStatus> {
    let pidfd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    if !readable(std::os::fd::AsFd::as_fd(&pidfd), deadline)? {
        child.kill()?;
        child.wait()?;
        bail!("still running after {deadline:?}");
    }
    Ok(child.wait()?)
}

/// Whether `fd` becomes readable within `timeout`; also true when its other end is gone.
pub fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> Result<bool> {
    let timeout = Timespec::try_from(timeout)?;
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))? > 0)
}

/// The exit code a shell would show.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Asks `fact` until it answers; fails after `deadline`, naming `what`.
///
/// For facts that nobody announces, such as a directory of cgroupfs that is gone.
pub fn until<T>(what: &str, deadline: Duration, mut fact: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = fact() {
            return Ok(value);
        }
        if Instant::now() > end {
            bail!("not within {deadline:?}: {what}");
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Takes everything up to and with the first `text` off `seen`.
pub(crate) fn take_until(seen: &mut Vec<u8>, text: &str) -> Option<String> {
    let at = seen.windows(text.len()).position(|window| window == text.as_bytes())?;
    let rest = seen.split_off(at + text.len());
    Some(String::from_utf8_lossy(&std::mem::replace(seen, rest)).into_owned())
}

fn read_all(mut from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_its_input_outputs_and_code() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat; echo problem >&2; exit 3"]);
        let output = run(&mut command, b"text").unwrap();
        assert_eq!(output, Output { stdout: "text".into(), stderr: "problem\n".into(), code: 3 });
        assert!(output.success().is_err());
    }

    #[test]
    fn a_signal_is_128_and_its_number() {
        assert_eq!(run(Command::new("sh").args(["-c", "kill -9 $$"]), b"").unwrap().code, 137);
    }

    #[test]
    fn a_deadline_ends_the_child() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(wait(&mut child, Duration::from_millis(1)).is_err());
        assert!(child.try_wait().unwrap().is_some());
    }

    #[test]
    fn until_answers_with_the_fact_or_its_name() {
        let mut left = 3;
        let counted = until("three", DEADLINE, || {
            left -= 1;
            (left == 0).then_some(left)
        });
        assert_eq!(counted.unwrap(), 0);
        let failed = until("never", Duration::ZERO, || None::<()>).unwrap_err();
        assert!(failed.to_string().contains("never"));
    }
}
