//! Names of containers on user-defined networks: what a query is answered.
//!
//! ```text
//!   query ---> Query::parse ---> Zone::answer(client) ---> Verdict::Reply     a name of ours: at once
//!                                                    \---> Verdict::Forward   everything else
//!   Verdict::Forward ---> Exchange: the same bytes under another id, for an upstream
//!   upstream's bytes ---> Exchange::judge ---> final, failed (ask the next), cut (ask over TCP), unrelated (not for us)
//! ```
//!
//! - [`Zone`]: who is on which network under which names; changed as containers come and go, so that an answer is never
//!   older than the last change.
//! - [`Query`], [`Refusal`]: the messages of RFC 1035, as far as a server needs them that forwards what it does not know.
//! - [`Exchange`]: one forwarded query, and what is believed of what comes back.
//! - [`leads`]: the addresses that an answer gives, for who has to know before the client does.
//! - [`HostServers`], [`NameServer`]: the name servers of the host, read again when its file changes.
//!
//! What is answered and how is Docker's way, to the letter: a time to live of 600 seconds, "recursion available" and never
//! "authoritative", no answer (and no error) for the address family that a name does not have, names of a network with
//! `.network` behind them. What is forwarded is passed on byte by byte: only the id is ours. So records that nobody here
//! knows, options of EDNS and signatures arrive as they were sent, and nobody's odd record can stop its answer.
//!
//! Nothing here opens a socket, waits, or knows the time: that is crate `engine`'s (`names`). Every message, every list and
//! every loop is bounded by the message's own length, which is below 64 KiB.

mod answer;
mod lead;
mod servers;
mod upstream;
mod wire;
mod zone;

pub use answer::Verdict;
pub use lead::{Lead, leads};
pub use servers::{HostServers, NameServer, RESOLV_CONF, SERVERS_MAX, host_file, name_servers};
pub use upstream::{Exchange, Judgement};
pub use wire::{Query, Refusal, Transport};
pub use zone::{Endpoint, Zone};
