//! The Engine API over HTTP: the face of the engine.
//!
//! ```text
//!                    +-- first request hijacks (attach, exec) --- own few lines --+
//! Server::accept -> front                                                         +-> router -> handlers -> engine::ops
//!                    +-- anything else -- hyper -- later request upgrades --------+
//! ```
//!
//! - [`mod@front`] reads the first head of a connection and decides; [`mod@chunked`] helps it.
//! - [`mod@serve`] owns connections: counts them, ends them, gives away those that are hijacked;
//!   [`mod@caught`] keeps a panic to the one request that made it.
//! - [`mod@refusal`] is what Go's HTTP server refuses before any handler is asked.
//! - [`mod@router`] is the one table of routes; [`mod@query`] and [`mod@request`] are what a handler is given.
//! - [`mod@handlers`] decode, call one operation, encode: nothing is decided there.
//! - [`mod@hijack`], [`mod@upload`], [`mod@response`] are the three ways of bytes: both directions, in, and out;
//!   [`mod@download`] is the way out for threads that block.
//! - [`mod@buildkit`] is gRPC on connections that were taken over, for builds.
//! - [`mod@websocket`] is a fourth, for browsers that attach.
//! - [`mod@metrics`] is a server of its own, for Prometheus.
//! - [`mod@status`] is the one table from an error's kind to an HTTP status.
//!
//! When a client goes away, its handler or stream is dropped; operations that change something protect themselves
//! (`engine`, "Cancellation"). Nothing here is locked, and no state is kept but the number of open connections.
//!
//! Not here: listeners and their files (`daemon`), API versions (`engine-api::versions`), sentences of operations (the
//! `Display` of their errors in `engine`).

mod buildkit;
mod caught;
mod chunked;
mod download;
mod front;
mod handlers;
mod hijack;
pub mod metrics;
mod query;
mod refusal;
mod request;
mod response;
mod rewound;
mod router;
mod serve;
mod status;
mod upload;
mod websocket;

pub use serve::{Client, Server};
