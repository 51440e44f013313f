//! A client of D-Bus: calls, their answers, and signals, over one socket. Blocking, with a deadline.
//!
//! ```text
//!   Connection::open   connect, prove who we are, Hello           (a bus; somebody who listens himself wants no Hello)
//!   call               send, then read until the answer is there  (signals that come meanwhile are kept)
//!   read               one message, which may be a signal; those that were kept are had by kept_signals
//! ```
//! Written by hand because the crates for it are asynchronous or bring threads, and those who use it have one thread and start
//! in a millisecond: what is needed are nine types, calls, and reading an answer's texts and numbers.
//!
//! Deliberately not here: objects of our own, descriptors in messages, values of an answer that are neither texts nor numbers.
//!
//! Nothing is locked, nothing is on disk, no thread is started.

mod address;
mod connection;
mod wire;

pub use address::{system_bus, unix_path};
pub use connection::{BusError, Connection, Signal};
pub use wire::{Body, Call, Value};
