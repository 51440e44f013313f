//! The Engine API from the client's side.
//!
//! A [`Client`] knows one [`Endpoint`] and keeps one connection alive for ordinary requests, so that the handful of
//! calls behind `longshore run` costs one connect. What takes a connection for itself (attach, exec, events, wait) opens
//! one of its own:
//!
//! ```text
//! Client::call    ---- request, whole answer ------------------------> kept-alive connection (hyper)
//! Client::stream  ---- request, answer read piece by piece ----------> connection of its own (hyper)
//! Client::hijack  ---- request, then raw bytes in both directions ---> connection of its own (hijack.rs: hyper's client
//!                                                                      does not take `200 OK` for an upgrade, Docker does)
//! ```
//!
//! - [`endpoint`]: where the daemon listens. [`transport`]: connections; `transport::unix` is the only place that knows
//!   unix sockets.
//! - [`tls`] and [`ssh`]: the two ways to daemons on other machines.
//! - [`on_demand`]: starts the daemon when nothing listens on the default local socket.
//! - [`container`], [`checkpoint`], [`exec`], [`image`], [`volume`], [`network`], [`registry`],
//!   [`system`]: the calls, one function each.
//! - [`session`]: what the daemon asks while it builds, in BuildKit's protocol (crate `buildkit-api`).
//! - [`frame`], [`lines`]: the two encodings of streams.
//!
//! Version negotiation costs no round trip: paths carry our newest version, and a daemon that calls it too new says in
//! the same sentence which one it takes. Deliberately not here: printing, terminals, the decision what to do.

pub mod build;
pub mod call;
pub mod checkpoint;
pub mod container;
pub mod endpoint;
pub mod error;
pub mod exec;
pub mod frame;
pub mod hijack;
pub mod image;
pub mod lines;
pub mod live;
pub mod network;
pub mod on_demand;
pub mod query;
pub mod registry;
pub mod session;
pub mod ssh;
pub mod system;
pub mod tls;
pub mod transport;
pub mod volume;

pub use call::{Client, Options};
pub use endpoint::Endpoint;
pub use error::ClientError;
