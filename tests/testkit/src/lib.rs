//! What end-to-end tests need, so that a test is the few lines that say what it is about.
//!
//! - [`Daemon`]: a `longshored` of the test's own in scratch directories; dropping it removes its containers, ends it
//!   and panics when mounts, cgroups or processes stay behind. With `LONGSHORE_TEST_HOST` set it is a handle of a
//!   running Docker daemon instead: the same tests then say what Docker does.
//! - [`OnDemand`]: an instance whose daemon is started by the command line.
//! - [`Cli`]: both command lines, ours and Docker's; every test runs its lines through each that is there.
//! - [`Pty`]: a program with a terminal that the test types on; [`Piped`]: one with pipes.
//! - [`Events`]: the daemon's events, to wait for.
//! - [`firewalld`]: one on a bus of its own.
//! - [`http`]: requests written by hand, for what no client would send.
//! - [`images`]: archives to load, made from Debian's busybox.
//! - [`certificates`]: an authority, a server and clients.
//! - [`disk`]: a file system small enough to be filled.
//! - [`leaks`]: what an instance has on the machine, found from outside.
//! - [`mutate`]: hostile input made from good input, for a bounded time, with a seed.
//! - [`Passage`]: somebody between a client and the daemon, who tells how far a client has come.
//! - [`registry`]: registries to pull from, good ones and others.
//! - [`ssh`]: a host behind ssh.
//! - [`skip`]: tests that cannot run here are counted as skipped, never as passed.
//! - [`paths`], [`process`]: the work tree; commands with a deadline.
//!
//! Functions return [`anyhow::Result`]; tests `unwrap` it. Nothing sleeps: waits end with the fact or at a deadline.

pub mod certificates;
pub mod daemon;
pub mod disk;
pub mod events;
pub mod firewalld;
pub mod http;
pub mod images;
pub mod leaks;
pub mod mutate;
pub mod passage;
pub mod paths;
pub mod piped;
pub mod process;
pub mod pty;
pub mod registry;
pub mod skip;
pub mod ssh;

pub use certificates::Certificates;
pub use daemon::{Cli, Daemon, OnDemand};
pub use events::Events;
pub use firewalld::Firewalld;
pub use passage::Passage;
pub use piped::Piped;
pub use process::Output;
pub use pty::Pty;
