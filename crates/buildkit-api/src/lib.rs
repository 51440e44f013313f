//! What BuildKit's clients speak: gRPC over one connection that was HTTP/1 before.
//!
//! ```text
//! POST /grpc     client --- calls ------> server::serve --> a Service (`api-server`): Control, LLBBridge
//! POST /session  client <-- calls ------- channel::Channel <-- Session: files, logins, secrets of the client
//! ```
//!
//! - [`status`]: how a call ends; [`frame`]: messages in frames of HTTP/2, bounded.
//! - [`server`] answers calls of a client, [`channel`] makes calls to one. Every call of ours has one message one way.
//! - [`messages`]: the messages of which we read or write something, with these fields alone.
//! - [`session`]: sessions by id, while their connections live.
//! - [`files`]: the files of a directory of the client's (fsutil's protocol), [`sender`]: of one of ours, in a client;
//!   [`outputs`]: what a build came to, for the client; [`modes`]: modes as they write them; [`content`]: blobs in a
//!   directory of the client's, which come and go.
//!
//! The other end may be anybody: a message has at most [`frame::MESSAGE_MAX`] bytes, a directory at most
//! [`files::ENTRIES_MAX`] entries, and a path leads nowhere but down. Whoever waits for a client that has gone is told.
//!
//! One lock, around the map of sessions, held for no longer than a look at it. Nothing is on disk.
//!
//! Why not a framework: of gRPC a server and a client need the five bytes in front of a message and three trailers. `h2` has
//! the rest; with `prost` it brings eight crates instead of forty-odd.
//!
//! Deliberately not here: what a build is (`builder`, `engine`), what is answered (`api-server`).

pub mod channel;
pub mod content;
pub mod files;
pub mod frame;
pub mod messages;
pub mod modes;
pub mod outputs;
pub mod sender;
pub mod server;
pub mod session;
pub mod status;
