//! Netlink: what the kernel is told about links, addresses, routes, packet filters and tracked connections.
//!
//! - [`Socket`]: one netlink socket, in the network namespace of the thread that opened it. It sends many [`Request`]s
//!   as one batch and reads one acknowledgement, so that a whole change costs one `sendmsg` and one `recvmsg`.
//! - [`link`], [`address`], [`route`], [`neighbour`]: requests and dumps of rtnetlink(7).
//! - [`nft`]: one transaction of nf_tables, which is applied whole or not at all.
//! - [`conntrack`]: forgetting tracked connections.
//! - [`listeners`]: sockets of TCP that listen, or are bound.
//! - [`log`]: packets that rules have told of.
//! - [`message`]: the encoder and the decoder under all of them.
//!
//! rtnetlink batches are **not** transactions: the kernel goes on after a refused request. [`Socket::apply`] answers the
//! first refusal by the name of its request; undoing is the caller's. nf_tables batches are transactions.
//!
//! Nothing here decides anything or keeps state but a socket and its sequence number. Everything blocks only as long as
//! the kernel works on the request: answers are in the socket's queue when `sendmsg` returns.

mod error;
mod family;
mod socket;

pub mod address;
pub mod conntrack;
pub mod link;
pub mod listeners;
pub mod log;
pub mod message;
pub mod neighbour;
pub mod nft;
pub mod route;

pub use error::{NetlinkError, Refusal};
pub use socket::{Protocol, Request, Socket, requests_sent};
