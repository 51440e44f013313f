//! Container logs on disk: Docker's `json-file`, written by a shim and read by the daemon.
//!
//! ```text
//!   <id>-json.log      one line for each line of output, {"log":"text\n","stream":"stdout","time":"2026-..Z"}
//!   <id>-json.log.1    the one before, after a rotation; .2 is older, and so on
//! ```
//!
//! Writing ([`json_file::Writer`]): the owner's thread cuts output into lines, encodes them ([`json_file::line`]) and appends
//! them to a bounded buffer; a second thread swaps that buffer against an empty one and writes it, many lines with one call,
//! rotating between lines. So a slow disk never holds up the owner, who sees [`json_file::Writer::is_full`] and stops
//! producing; a disk that makes no progress for two seconds costs lines, which are counted and named in the log later.
//! **The second thread never allocates**: its owner forks, and a copy made while the allocator is locked would hang.
//!
//! Reading ([`json_file::Reader`]): no thread and no lock. A reader holds its file open, so a rotation takes nothing away
//! from it, and finds the next file by the place of its own among the rotated ones. A follower has a descriptor to await.
//!
//! Deliberately not here: other log drivers, compression, and who may read a log.

pub mod json_file;
