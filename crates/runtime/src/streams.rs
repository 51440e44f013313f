//! Standard streams of a process in the foreground that has no terminal.
//!
//! A process may open /dev/stdout again, and truncate the file behind it; a user of its own becomes the owner of what it
//! gets. So files, devices and terminals of the host stay with us, as under runc: the process has a pipe instead, and we
//! carry the bytes. A pipe or a socket of the caller's goes on as it is, which costs nothing, and so does the null device,
//! in whose place the process has its own.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat, fstatfs, makedev};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// Streams that are carried.
#[derive(Debug, Default)]
pub(crate) struct Streams(Vec<Carried>);

/// One of them.
#[derive(Debug)]
struct Carried {
    own: BorrowedFd<'static>,
    /// Our end; gone when there is nothing more to carry.
    pipe: Option<OwnedFd>,
    /// Whether it goes to the process.
    is_input: bool,
    /// Bytes on the way.
    buffer: VecDeque<u8>,
}

/// As many bytes as a pipe holds (pipe(7)).
const CHUNK: usize = 64 << 10;

impl Streams {
    /// The streams of the process, and those of them that are carried. `first` is the lowest number that they may have.
    pub(crate) fn split(first: i32) -> io::Result<(Streams, [OwnedFd; 3])> {
        let mut streams = Streams::default();
        let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        let mut one = |own: BorrowedFd<'static>, is_input: bool| -> io::Result<OwnedFd> {
            if goes_on(own)? {
                return Ok(rustix::io::fcntl_dupfd_cloexec(own, first)?);
            }
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            let (ours, theirs) = if is_input { (writer, reader) } else { (reader, writer) };
            fcntl_setfl(&ours, fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
            streams.0.push(Carried { own, pipe: Some(ours), is_input, buffer: VecDeque::new() });
            Ok(theirs)
        };
        let [input, output, error] = own;
        let theirs = [one(input, true)?, one(output, false)?, one(error, false)?];
        Ok((streams, theirs))
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> Vec<PollFd<'_>> {
        self.0.iter().filter_map(Carried::interest).collect()
    }

    /// Carries what there is. Blocks for our own streams at most, which were ready.
    pub(crate) fn carry(&mut self) -> io::Result<()> {
        self.0.iter_mut().try_for_each(Carried::carry)
    }

    /// Carries what the process has written before its end; whoever still has its streams goes on without us.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.0.iter_mut().filter(|one| !one.is_input).try_for_each(Carried::drain)
    }
}

impl Carried {
    fn interest(&self) -> Option<PollFd<'_>> {
        let pipe = self.pipe.as_ref()?.as_fd();
        let (from, to) = if self.is_input { (self.own, pipe) } else { (pipe, self.own) };
        Some(match self.buffer.is_empty() {
            true => PollFd::from_borrowed_fd(from, PollFlags::IN),
            false => PollFd::from_borrowed_fd(to, PollFlags::OUT),
        })
    }

    fn carry(&mut self) -> io::Result<()> {
        let is_ready = match self.interest() {
            Some(wanted) => rustix::event::poll(&mut [wanted], Some(&rustix::event::Timespec::default()))? > 0,
            None => false,
        };
        if is_ready {
            self.step();
        }
        Ok(())
    }

    /// Reads once, or writes once.
    fn step(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let (from, to) = if self.is_input { (self.own, pipe.as_fd()) } else { (pipe.as_fd(), self.own) };
        let goes_on = if self.buffer.is_empty() { fill(from, &mut self.buffer) } else { empty(to, &mut self.buffer) };
        if !goes_on {
            // The other end learns by this that nobody writes, or reads, any more, as under runc.
            self.pipe = None;
        }
    }

    /// No more than is there now: whoever still has the other end may go on writing for ever.
    fn drain(&mut self) -> io::Result<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        let mut left = usize::try_from(rustix::io::ioctl_fionread(pipe)?).unwrap_or(usize::MAX);
        while self.pipe.is_some() && (left > 0 || !self.buffer.is_empty()) {
            if self.buffer.is_empty() {
                self.step();
                left = left.saturating_sub(self.buffer.len());
            } else {
                // Where our own stream does not block, its reader is waited for here.
                let mut wanted = [PollFd::from_borrowed_fd(self.own, PollFlags::OUT)];
                rustix::io::retry_on_intr(|| rustix::event::poll(&mut wanted, None))?;
                self.step();
            }
        }
        Ok(())
    }
}

/// Whether a process may have a stream of ours itself.
fn goes_on(own: BorrowedFd<'_>) -> io::Result<bool> {
    /// linux/magic.h: a pipe without a name in any directory.
    const PIPEFS_MAGIC: u64 = 0x5049_5045;
    let stat = fstat(own)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => true,
        FileType::Fifo => fstatfs(own)?.f_type as u64 == PIPEFS_MAGIC,
        FileType::CharacterDevice => stat.st_rdev == makedev(1, 3),
        _ => false,
    })
}

/// Reads once; false at the end, and where nothing can be read.
fn fill(from: BorrowedFd<'_>, buffer: &mut VecDeque<u8>) -> bool {
    let mut bytes = vec![0; CHUNK];
    let read = rustix::io::read(from, &mut bytes);
    buffer.extend(&bytes[..read.unwrap_or(0)]);
    matches!(read, Ok(1..) | Err(Errno::AGAIN | Errno::INTR))
}

/// Writes once; false when nobody reads any more, or nothing can be written.
fn empty(to: BorrowedFd<'_>, buffer: &mut VecDeque<u8>) -> bool {
    let written = rustix::io::write(to, buffer.as_slices().0);
    buffer.drain(..written.unwrap_or(0));
    matches!(written, Ok(_) | Err(Errno::AGAIN | Errno::INTR))
}
