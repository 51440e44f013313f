//! Projects of one instance on one file system.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use errdefs::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use sys::quota::{Account, FileSystem};

/// How many projects an instance has.
const COUNT: u32 = 1 << 16;

/// Where the ranges of instances begin: administrators count from 1, and so does Docker.
const FIRST: u32 = 0x1000_0000;

/// How many ranges there are, below what some tools take for negative.
const RANGES: u32 = (i32::MAX as u32 - FIRST) / COUNT;

/// Why nothing below a directory can be limited.
#[derive(Debug, thiserror::Error)]
pub enum Unlimited {
    /// There are no quotas, or they are not in force. The text is dockerd's.
    #[error("Filesystem does not support, or has not enabled quotas")]
    NoQuotas,
    /// Somebody has put the directory, and what is made in it, into a project.
    #[error("the directory belongs to project {0}, which is somebody else's")]
    Project(u32),
    /// The system says no.
    #[error("look for quotas")]
    Io(#[from] io::Error),
}

impl Unlimited {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Hands out limits in one file system. The only one who does for its instance.
#[derive(Debug)]
pub struct Projects {
    file_system: FileSystem,
    device: u64,
    range: Range<u32>,
    /// Where the search for the next one begins.
    next: Mutex<u32>,
}

impl Projects {
    /// For what lies below `root`, by the instance of that key. Changes nothing.
    pub fn open(root: &Path, key: u32) -> Result<Projects, Unlimited> {
        let directory = open(root)?;
        let device = fstat(&directory).map_err(io::Error::from)?.st_dev;
        // File systems without projects answer with an error.
        let member = sys::quota::membership(&directory).map_err(|_| Unlimited::NoQuotas)?;
        let file_system = FileSystem::of(directory)?;
        if !file_system.keeps_limits() {
            return Err(Unlimited::NoQuotas);
        }
        if member.inherited && member.project != 0 {
            return Err(Unlimited::Project(member.project));
        }
        let range = range(key);
        Ok(Projects { file_system, device, next: Mutex::new(range.start), range })
    }

    /// Whether `path` lies in the same file system.
    pub fn covers(&self, path: &Path) -> bool {
        open(path).and_then(|directory| Ok(fstat(directory)?.st_dev)).is_ok_and(|device| device == self.device)
    }

    /// From now on these directories, which are empty, hold at most so many bytes, together.
    ///
    /// Where it fails, a directory may have joined a project that has no limit any more: remove it.
    pub fn limit(&self, directories: &[&Path], bytes: u64) -> io::Result<()> {
        let opened = directories.iter().map(|path| open(path)).collect::<io::Result<Vec<_>>>()?;
        let mut next = self.lock();
        let project = self.choose(*next)?;
        self.file_system.limit(project, bytes)?;
        let joined = opened.iter().try_for_each(|directory| sys::quota::join(directory, project));
        match &joined {
            Ok(()) => *next = project + 1,
            // A limit without files is taken back by `reclaim`, too; what is reported is why it came to nothing.
            Err(_) => _ = self.file_system.limit(project, 0),
        }
        joined
    }

    /// Takes back the limits of projects that have no files any more; answers how many.
    pub fn reclaim(&self) -> io::Result<usize> {
        let _choosing = self.lock();
        let (mut from, mut reclaimed) = (self.range.start, 0);
        while let Some(account) = self.file_system.next_account(from)?.filter(|one| self.range.contains(&one.project)) {
            if account.limit_bytes != 0 && account.used_inodes == 0 && account.used_bytes == 0 {
                self.file_system.limit(account.project, 0)?;
                reclaimed += 1;
            }
            from = account.project + 1;
        }
        Ok(reclaimed)
    }

    /// What the project of `directory` may have, and has; none if it belongs to none.
    pub fn account(&self, directory: &Path) -> io::Result<Option<Account>> {
        match sys::quota::membership(open(directory)?)?.project {
            0 => Ok(None),
            project => self.file_system.account(project).map(Some),
        }
    }

    /// The first one from `from` on, and around, of which nobody has heard.
    fn choose(&self, from: u32) -> io::Result<u32> {
        for project in (from..self.range.end).chain(self.range.start..from) {
            if is_unknown(&self.file_system.account(project)?) {
                return Ok(project);
            }
        }
        Err(Errno::USERS.into())
    }

    fn lock(&self) -> MutexGuard<'_, u32> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the empty directory `to` count with `from`, if that has a project of its own.
pub fn share(from: &Path, to: &Path) -> io::Result<()> {
    match sys::quota::membership(open(from)?)? {
        member if member.inherited && member.project != 0 => sys::quota::join(open(to)?, member.project),
        _ => Ok(()),
    }
}

fn range(key: u32) -> Range<u32> {
    let start = FIRST + (key % RANGES) * COUNT;
    start..start + COUNT
}

fn is_unknown(account: &Account) -> bool {
    *account == Account { project: account.project, ..Account::default() }
}

fn open(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, directory, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_apart_and_within_bounds() {
        for (key, start) in
            [(0, FIRST), (1, FIRST + COUNT), (RANGES - 1, FIRST + (RANGES - 1) * COUNT), (RANGES, FIRST)]
        {
            assert_eq!(range(key), start..start + COUNT);
        }
        assert!((0..=RANGES).chain([u32::MAX]).all(|key| range(key).end <= i32::MAX as u32));
    }

    #[test]
    fn only_what_nobody_has_heard_of_is_free() {
        let account = |change: fn(&mut Account)| {
            let mut account = Account { project: 7, ..Account::default() };
            change(&mut account);
            account
        };
        assert!(is_unknown(&account(|_| {})));
        for known in [
            account(|account| account.limit_bytes = 512),
            account(|account| account.used_bytes = 512),
            account(|account| account.used_inodes = 1),
            account(|account| account.other_limit = true),
        ] {
            assert!(!is_unknown(&known), "{known:?}");
        }
    }

    #[test]
    fn where_nothing_is_limited_one_is_told_why() {
        let told = Projects::open(Path::new("/proc"), 1).unwrap_err();
        assert_eq!(told.to_string(), "Filesystem does not support, or has not enabled quotas");
        assert!(matches!(Projects::open(Path::new("/nosuch"), 1), Err(Unlimited::Io(_))));
        assert!(share(Path::new("/proc"), Path::new("/proc")).is_err());
    }
}
