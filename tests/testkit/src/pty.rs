//! A program with a terminal of its own, and a test that types on it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::process::{self, DEADLINE};

/// A running program whose controlling terminal is held by the test.
#[derive(Debug)]
pub struct Pty {
    master: File,
    child: Child,
    seen: Vec<u8>,
}

impl Pty {
    /// Starts `command` on a new terminal of `rows` and `columns`.
    pub fn spawn(command: &Command, rows: u16, columns: u16) -> Result<Pty> {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        set_size(&master, rows, columns)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(
            &*name,
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        let child = with_terminal(command, slave)?.spawn().context("start the program on a terminal")?;
        Ok(Pty { master: File::from(master), child, seen: Vec::new() })
    }

    /// Types `keys`.
    pub fn send(&mut self, keys: &[u8]) -> Result<()> {
        Ok(self.master.write_all(keys)?)
    }

    /// Reads until `text` has appeared after what earlier calls returned; answers everything up to and with it.
    pub fn read_until(&mut self, text: &str) -> Result<String> {
        match self.read_until_within(text, DEADLINE)? {
            Some(read) => Ok(read),
            None => bail!("no {text:?} on the terminal, only {:?}", String::from_utf8_lossy(&self.seen)),
        }
    }

    /// As [`Pty::read_until`]; nothing if `text` does not appear within that time.
    pub fn read_until_within(&mut self, text: &str, within: Duration) -> Result<Option<String>> {
        let end = Instant::now() + within;
        loop {
            if let Some(read) = process::take_until(&mut self.seen, text) {
                return Ok(Some(read));
            }
            if !self.read_more(end)? {
                return Ok(None);
            }
        }
    }

    /// The process id of the program; it is setsid(1) no more once the program has printed anything.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives the terminal another size; the kernel tells the foreground processes by SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        set_size(self.master.as_fd(), rows, columns)
    }

    /// Waits until the program ends; answers what is left on the terminal and the exit code.
    pub fn wait(mut self) -> Result<(String, i32)> {
        let end = Instant::now() + DEADLINE;
        while self.read_more(end)? {}
        let status = process::wait(&mut self.child, end.saturating_duration_since(Instant::now()))?;
        Ok((String::from_utf8_lossy(&self.seen).into_owned(), process::code(status)))
    }

    /// Whether more came before `end`; a terminal without programs reads as EIO.
    fn read_more(&mut self, end: Instant) -> Result<bool> {
        let left = end.saturating_duration_since(Instant::now());
        if left == Duration::ZERO || !process::readable(self.master.as_fd(), left)? {
            return Ok(false);
        }
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(count) => {
                self.seen.extend_from_slice(&buffer[..count]);
                Ok(count > 0)
            }
            Err(rustix::io::Errno::IO) => Ok(false),
            Err(err) => Err(err).context("read the terminal"),
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // The child may have ended and been waited for: then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `command` under setsid(1), which makes standard input the controlling terminal before it starts the program.
fn with_terminal(command: &Command, slave: OwnedFd) -> Result<Command> {
    let mut wrapped = Command::new("setsid");
    wrapped.arg("--ctty").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped.env("TERM", "xterm");
    wrapped.stdin(Stdio::from(slave.try_clone()?)).stdout(Stdio::from(slave.try_clone()?)).stderr(Stdio::from(slave));
    Ok(wrapped)
}

fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_sees_a_controlling_terminal_its_size_keys_and_a_resize() {
        let mut command = Command::new("bash");
        // wait(1) is what a trapped signal interrupts; the end of the shell must not leave the sleep on the terminal.
        let script = "trap 'stty size; kill $!; exit 7' WINCH; stty size </dev/tty; \
                      read line; echo got-$line; sleep 1000 & wait";
        command.args(["-c", script]);
        let mut pty = Pty::spawn(&command, 33, 99).unwrap();
        pty.read_until("33 99").unwrap();
        pty.send(b"word\n").unwrap();
        pty.read_until("got-word").unwrap();
        pty.resize(40, 120).unwrap();
        let (rest, code) = pty.wait().unwrap();
        assert!(rest.contains("40 120"), "{rest:?}");
        assert_eq!(code, 7);
    }
}
