//! Waiting for a process in its stead: signals go on to it, its terminal is shown on ours or its streams are carried, and its
//! status becomes ours.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use oci::runtime::Process;
use oci_runtime::{Stdio, SystemError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use sys::signal::{SignalFd, SignalSet, set_mask};
use sys::wait::Exit;

use crate::error::CommandError;
use crate::given::{Given, GivenError};
use crate::streams::Streams;
use crate::terminal::{Own, Terminal};

/// Signals on their way to a process.
#[derive(Debug)]
struct Forwarding(SignalFd);

/// Not forwarded: the news of our own children; those that a program's own mistakes raise; and those of a terminal's
/// background, which concern this process alone (signal(7)).
const OWN: [Signal; 8] =
    [Signal::CHILD, Signal::PIPE, Signal::ILL, Signal::BUS, Signal::FPE, Signal::SEGV, Signal::TTIN, Signal::TTOU];

/// Of our own terminal; the container's makes its own of it.
const WINDOW_CHANGED: i32 = Signal::WINCH.as_raw();

/// What is taken over of ours for a process that is waited for.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: Forwarding,
    own: Option<Own>,
    /// Whether it has a terminal that we show.
    shown: bool,
    /// Without one.
    streams: Streams,
}

/// What goes between a process and us.
#[derive(Debug)]
enum Between {
    Terminal(Terminal),
    Streams(Streams),
}

impl Foreground {
    /// Takes signals over, and our own terminal for a process that has one; its size becomes the process's.
    pub(crate) fn begin(process: &mut Process) -> Result<Foreground, CommandError> {
        let signals = Forwarding::begin().map_err(CommandError::system("take over signals"))?;
        let shown = process.terminal;
        let own = shown.then(Own::take).transpose()?;
        process.console_size = own.as_ref().and_then(Own::size).or(process.console_size);
        Ok(Foreground { signals, own, shown, streams: Streams::default() })
    }

    /// The process's streams.
    pub(crate) fn stdio(&mut self, given: &Given) -> Result<Stdio, GivenError> {
        if self.shown {
            return Ok(Stdio::Terminal);
        }
        let split = Streams::split(given.first_free()).map_err(SystemError);
        let (streams, theirs) = split.map_err(|source| GivenError::Streams { source })?;
        self.streams = streams;
        Ok(Stdio::Fds(theirs))
    }

    /// Carries everything between the process and us until its end.
    pub(crate) fn wait(self, process: BorrowedFd<'_>, master: Option<OwnedFd>) -> Result<Exit, CommandError> {
        let terminal = master.filter(|_| self.shown).map(|master| Terminal::begin(master, self.own)).transpose();
        let terminal = terminal.map_err(CommandError::system("show the terminal"))?;
        let between = terminal.map_or(Between::Streams(self.streams), Between::Terminal);
        self.signals.wait(process, between).map_err(CommandError::system("wait for the process"))
    }
}

impl Between {
    fn interest(&self) -> Vec<PollFd<'_>> {
        match self {
            Between::Terminal(terminal) => terminal.interest(),
            Between::Streams(streams) => streams.interest(),
        }
    }

    fn carry(&mut self) -> io::Result<()> {
        match self {
            Between::Terminal(terminal) => terminal.carry(),
            Between::Streams(streams) => streams.carry(),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Between::Terminal(terminal) => terminal.finish(),
            Between::Streams(streams) => streams.finish(),
        }
    }
}

impl Forwarding {
    /// Holds signals back from now on, so that none is lost until there is a process.
    fn begin() -> io::Result<Forwarding> {
        let set = OWN.iter().fold(SignalSet::all(), |set, signal| set.without(signal.as_raw()));
        set_mask(set)?;
        SignalFd::open(set).map(Forwarding)
    }

    /// Passes signals on, and what is typed and shown, until the process, a child of ours, has ended.
    fn wait(&self, process: BorrowedFd<'_>, mut between: Between) -> io::Result<Exit> {
        loop {
            let mut fds = vec![PollFd::from_borrowed_fd(process, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
            fds.extend(between.interest());
            rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
            if let Some(exit) = sys::wait::try_wait(process)? {
                between.finish()?;
                return Ok(exit);
            }
            between.carry()?;
            while let Some(signal) = self.0.read()? {
                match &between {
                    Between::Terminal(terminal) if signal == WINDOW_CHANGED => terminal.resize(),
                    // If it has ended, the next turn tells.
                    _ => drop(sys::signal::send(process, signal)),
                }
            }
        }
    }
}
