//! Kills for want of memory, told as they happen.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use cgroup::{Cgroup, OomEvents};
use rustix::event::PollFlags;

/// A container that lives for less is not watched, which spares it six system calls: its end tells.
const WATCH_AFTER: Duration = Duration::from_millis(50);

/// Watches one container's cgroup.
#[derive(Default)]
pub(crate) struct OomWatch {
    begin_at: Option<Instant>,
    events: Option<OomEvents>,
    /// Something has happened that was not taken yet.
    news: bool,
    told: bool,
}

impl OomWatch {
    /// The container runs from now on.
    pub(crate) fn started(&mut self, now: Instant) {
        self.begin_at = Some(now + WATCH_AFTER);
    }

    /// What to await, and for what.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.events.as_ref().map(|events| (events.as_fd(), events.poll_flags()))
    }

    /// When [`OomWatch::settle`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.begin_at
    }

    /// The descriptor is ready.
    pub(crate) fn ready(&mut self) {
        match self.events.as_mut().map(OomEvents::take) {
            Some(Ok(news)) => self.news |= news,
            // The cgroup is gone: nothing more comes, and the descriptor would be ready for ever.
            Some(Err(_)) => self.events = None,
            None => {}
        }
    }

    /// Begins when it is time, and says so.
    pub(crate) fn settle(&mut self, now: Instant, cgroup: &Cgroup) -> bool {
        let begins = self.begin_at.take_if(|at| now >= *at).is_some();
        if begins {
            // Without a memory controller there is nothing to watch.
            self.events = cgroup.oom_events().ok();
            self.ready();
        }
        begins
    }

    /// Whether there is something to tell.
    pub(crate) fn take_news(&mut self) -> bool {
        self.told |= self.news;
        std::mem::take(&mut self.news)
    }

    /// At the end: whether a kill that the record knows of was not told.
    pub(crate) fn is_untold(&self, killed: bool) -> bool {
        killed && !self.told
    }
}
