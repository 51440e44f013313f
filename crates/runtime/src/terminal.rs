//! A terminal in the foreground: bytes between our own streams and the container's terminal.
//!
//! Our own terminal, if a stream is one, is in raw mode meanwhile: every key is a byte for the container, whose terminal
//! makes signals, echoes and line ends of them. (runc leaves the line ends to our own terminal; but the container's cannot
//! be told so before its program may have written.) Our own streams may be files as long as there is a terminal of ours
//! somewhere: without one nobody could reach a program that waits for keys.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci::runtime::ConsoleSize;
use oci_runtime::SystemError;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::error::CommandError;

/// A container's terminal, whose master is ours, beside our own.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: OwnedFd,
    own: Option<Own>,
    /// On the way to the container.
    input: VecDeque<u8>,
    /// On the way from it.
    output: VecDeque<u8>,
    input_ended: bool,
    output_ended: bool,
}

/// Our own terminal, and how it was. Dropping it gives it its mode back.
#[derive(Debug)]
pub(crate) struct Own {
    terminal: OwnedFd,
    before: Termios,
}

/// Bytes that are on the way at most, one way: what a pipe takes without blocking (pipe(7), PIPE_BUF).
const CHUNK: usize = 4096;

impl Terminal {
    /// Shows what `master` is the master of on our own terminal, if there is one.
    pub(crate) fn begin(master: OwnedFd, own: Option<Own>) -> io::Result<Terminal> {
        rustix::fs::fcntl_setfl(&master, rustix::fs::fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        let (input, output) = (VecDeque::new(), VecDeque::new());
        let terminal = Terminal { master, own, input, output, input_ended: false, output_ended: false };
        terminal.resize();
        Ok(terminal)
    }

    /// Gives the container's terminal the size of ours.
    pub(crate) fn resize(&self) {
        let Some(own) = &self.own else { return };
        // It may have gone meanwhile: then there is nobody who looks.
        let _ = tcgetwinsize(&own.terminal).and_then(|size| tcsetwinsize(&self.master, size));
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> Vec<PollFd<'_>> {
        let mut wanted = Vec::new();
        let (input, output) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        let mut master = PollFlags::empty();
        if self.input.is_empty() && !self.input_ended {
            wanted.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
        }
        if !self.input.is_empty() {
            master |= PollFlags::OUT;
        }
        if self.output.is_empty() && !self.output_ended {
            master |= PollFlags::IN;
        }
        if !self.output.is_empty() {
            wanted.push(PollFd::from_borrowed_fd(output, PollFlags::OUT));
        }
        // Not where nothing is to be done: its end would wake us for ever.
        if !master.is_empty() && !self.output_ended {
            wanted.push(PollFd::from_borrowed_fd(self.master.as_fd(), master));
        }
        wanted
    }

    /// Carries what there is. Blocks for standard output at most, which was ready, and for standard input never.
    pub(crate) fn carry(&mut self) -> io::Result<()> {
        if self.input.is_empty() && !self.input_ended && is_readable(rustix::stdio::stdin())? {
            // A terminal that hung up is at its end, too.
            self.input_ended = !fill(rustix::stdio::stdin(), &mut self.input)?;
        }
        if !self.input.is_empty() {
            match rustix::io::write(&self.master, self.input.as_slices().0) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Nobody has it open: what is typed now is for nobody (pty(7)), and the container goes on.
                Err(Errno::IO) => self.input.clear(),
                Err(err) => return Err(err.into()),
            }
        }
        if self.output.is_empty() && !self.output_ended {
            self.output_ended = !fill(self.master.as_fd(), &mut self.output)?;
        }
        if !self.output.is_empty() && is_ready(rustix::stdio::stdout(), PollFlags::OUT)? {
            self.write_output()?;
        }
        Ok(())
    }

    /// Carries what the processes have written before their end.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        loop {
            while !self.output.is_empty() {
                // Where standard output does not block, its reader is waited for here.
                let mut wanted = [PollFd::from_borrowed_fd(rustix::stdio::stdout(), PollFlags::OUT)];
                rustix::io::retry_on_intr(|| rustix::event::poll(&mut wanted, None))?;
                self.write_output()?;
            }
            // Whoever still has the terminal open may go on without us.
            if self.output_ended || !fill(self.master.as_fd(), &mut self.output)? || self.output.is_empty() {
                return Ok(());
            }
        }
    }

    fn write_output(&mut self) -> io::Result<()> {
        match rustix::io::write(rustix::stdio::stdout(), self.output.as_slices().0) {
            Ok(written) => drop(self.output.drain(..written)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nobody reads any more: the container is not held up for that.
            Err(Errno::PIPE | Errno::IO) => self.output.clear(),
            Err(err) => return Err(err.into()),
        }
        Ok(())
    }
}

impl Own {
    /// Puts the first stream that is a terminal, or the controlling one, into raw mode. Before the container's program runs:
    /// what it shows is not for our terminal to change.
    pub(crate) fn take() -> Result<Own, CommandError> {
        let taken = Own::of(Own::find().map_err(|err| CommandError::NoTerminal { source: SystemError(err) })?);
        taken.map_err(CommandError::system("take over the terminal"))
    }

    fn find() -> io::Result<OwnedFd> {
        let streams = [rustix::stdio::stderr(), rustix::stdio::stdout(), rustix::stdio::stdin()];
        match streams.into_iter().find(|stream| isatty(stream)) {
            Some(stream) => stream.try_clone_to_owned(),
            None => File::options().read(true).write(true).open("/dev/tty").map(Into::into),
        }
    }

    fn of(terminal: OwnedFd) -> io::Result<Own> {
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Own { terminal, before })
    }

    /// Its size, for the container's before anybody asks for that.
    pub(crate) fn size(&self) -> Option<ConsoleSize> {
        let size = tcgetwinsize(&self.terminal).ok()?;
        Some(ConsoleSize { height: size.ws_row.into(), width: size.ws_col.into() })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // If it is gone nobody misses its mode.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Reads once; false at the end.
fn fill(from: BorrowedFd<'_>, buffer: &mut VecDeque<u8>) -> io::Result<bool> {
    let mut bytes = [0; CHUNK];
    match rustix::io::read(from, &mut bytes) {
        // EIO is the end of a terminal.
        Ok(0) | Err(Errno::IO) => Ok(false),
        Ok(length) => {
            buffer.extend(&bytes[..length]);
            Ok(true)
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(true),
        Err(err) => Err(err.into()),
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    is_ready(fd, PollFlags::IN)
}

/// Whether it is, or is at its end.
fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<bool> {
    let now = rustix::event::Timespec::default();
    Ok(rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&now))? > 0)
}
