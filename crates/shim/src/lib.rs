//! The parent of one container: makes it, carries its streams, writes its log, records how it ended.
//!
//! `longshore-shim --dir <run dir> <container id>`, with one end of a socket pair to the daemon as descriptor 3, which may be
//! absent. The protocol and the files are `shim-api`'s.
//!
//! ```text
//!   daemons --- [server] frames, descriptors --+            +-- [exit] state.json, exit.json
//!                                              |            |
//!                                        [event_loop] --- [calls] --- [container] --- [join] --- [exec] ...
//!                                              |                          |
//!   clients === [client] queue, framing ======== [streams] ==== pipes or terminal
//!                  [queue] memory, then a file     |   [stdin] bounded, before the process's input
//!                  [detach] keys                 log (crate `logging`, on the second thread)
//! ```
//!
//! One loop around poll(2), one thread; the log's second thread never allocates, because `exec` clones this process.
//! Every descriptor is non-blocking: nothing that a container, a client, a daemon or the disk does or leaves undone
//! stops the loop; an exec's process that its container stops on the way is given up after ten seconds ([join]).
//! Backpressure instead of loss: a client's queue grows to a cap, then the container's output is not read until the client
//! reads on or has stalled for ten seconds; so with a log that a slow disk cannot take.
//!
//! ```text
//!   empty --Create--> created --Start--> running --its end--> draining --log and readers have all--> told --> cleaned up
//! ```
//!
//! *Told*: `exit.json` is in place and `Exited` was posted. *Cleaned up*: the cgroups are gone, the socket and all daemons'
//! connections are closed, which is how a daemon knows. The process lives on while a slow client still has output to get.
//!
//! A client that is to get what was logged before gets that from the daemon, and is held until then: [streams::hold].
//!
//! A container that ran out of memory goes on without the process that was killed for it: [oom] tells of that at once.
//!
//! Memory is what a container costs: requests are dropped when they are answered, buffers are small until much comes and
//! go back to the kernel in the first quiet moment, together with the pages of the program itself.
//!
//! A container can be written to files, and made from them: [checkpoint].
//!
//! Containers of other runtimes are [foreign]'s: the same streams, log and exit, over an OCI command line.
//!
//! Deliberately not here: restarts, names, networks, deciding anything about a container's life.

mod calls;
mod checkpoint;
mod client;
mod container;
mod detach;
mod event_loop;
mod exec;
mod exit;
mod foreign;
mod join;
mod log;
mod oom;
mod queue;
mod server;
mod stdin;
mod streams;
mod unread;

pub use event_loop::{Arguments, ShimError, run};

/// Is the daemon's relay instead of a shim: see crate `relay`.
pub fn relay(dir: &std::path::Path) -> Result<(), ShimError> {
    // First of all: whatever opens a descriptor could get the inherited one's number.
    let first = sys::fd::inherited(3);
    ::relay::run(dir, first, ::relay::LINGER).map_err(ShimError::Process)
}
