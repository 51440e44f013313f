//! Limits on what directories hold: the writable layer of a container, the files of a volume.
//!
//! The kernel keeps them where the file system has quotas for projects (XFS mounted with `pquota`, ext4 with `prjquota`):
//! a limited directory belongs to a project of its own, and so does what is made in it.
//!
//! ```text
//!   limit: choose a project that nobody has -> give it the limit -> the empty directories join it
//!   the directories are deleted, by whoever made them
//!   reclaim: projects of ours with a limit and without a file lose the limit, and may be chosen again
//! ```
//! **The file system is the record.** Which project a directory belongs to is in its inode, and what a project has and may
//! have is in the file system's own account: a daemon that is killed at any point leaves at worst a limit without files, which
//! the next [`Projects::reclaim`] takes back. A project is chosen only if that account knows nothing of it, neither files nor
//! limits, so ids of other programs on the same file system are left alone, and ours as long as one file of theirs is there,
//! in sight or waiting for its deletion. Each instance begins in a range of its own.
//!
//! A file cannot be renamed or linked into a directory of another project (EXDEV). Hence directories join while they are
//! empty, below a parent that passes on no project; and where somebody has put the whole store into a project there are no
//! limits of ours ([`Unlimited::Project`]).
//!
//! One lock covers choosing and joining, so that [`Projects::reclaim`] never sees half of it. Blocks. Deliberately not here:
//! limits on numbers of files, usage in time, and who asked for what.

mod obedience;
mod projects;

pub use obedience::obeying;
pub use projects::{Projects, Unlimited, share};
