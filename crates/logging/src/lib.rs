//! Container logs: written by a shim, read by the daemon; and what goes to syslog and the journal.
//!
//! ```text
//!   json-file   <id>-json.log              {"log":"text\n","stream":"stdout","time":"2026-..Z"}, a line for a line
//!   local       local-logs/container.log   oAbc..text: stream, moment, the bytes as they are; as compact as it gets
//!   syslog, journald                       a message for a line, and container-cached.log in the format of `local`
//!
//!   <file>.1    the one before, after a rotation; .2 is older, and so on. With compression .1.gz, .2.gz ([`packed`])
//! ```
//!
//! Writing ([`Log`]): the owner's thread cuts output into lines, encodes them ([`encoder`]) and appends them to a bounded
//! buffer; a second thread swaps that buffer against an empty one and writes it to its [`sink`], many lines with one call,
//! rotating between lines. So a slow disk never holds up the owner, who sees [`Log::is_full`] and stops producing; a disk or
//! a server that makes no progress for two seconds costs lines, which are counted and named in the log later. A log that
//! is never to hold up anybody (`mode=non-blocking`) drops lines that find no room, and counts them.
//! **The second thread never allocates**: its owner forks, and a copy made while the allocator is locked would hang. What it
//! needs to compress with it is given by the owner.
//!
//! Reading ([`Reader`]): no thread and no lock. A reader holds its file open, so a rotation takes nothing away from it, and
//! finds the next file by the place of its own among the rotated ones. A follower has a descriptor to await. A point in
//! time is found by halving, so that little of a large file is read.
//!
//! Deliberately not here: which driver a container has and what its options mean (`container-spec`), who may read a log.

mod buffer;
mod compact_line;
mod encoder;
mod file;
mod journald;
mod json_line;
mod log;
mod packed;
mod reader;
mod record;
mod remote;
mod sink;
mod syslog;
mod writer;

pub use encoder::Format;
pub use file::Rotation;
pub use log::{FileOptions, Log, LogOptions, OpenError, Place, RemoteOptions, Target};
pub use reader::{Entry, Progress, ReadError, ReadOptions, Reader};
pub use record::Stream;
pub use remote::DialError;
pub use syslog::{SyslogFormat, SyslogOptions};
