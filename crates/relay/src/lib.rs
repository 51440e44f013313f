//! The relay: one process that serves the published ports to which no rule of the packet filter leads.
//!
//! Those are ports on [::1], for packets from there never leave the loopback interface, and ports of one family of addresses
//! whose container has only the other one. It outlives the daemon, and ends with its last port.
//!
//! ```text
//!   daemon --- Ask, a listening socket --->  [server]   client ==== pipes ==== container      TCP: [stream]
//!          <-- Reply ---------------------              client ==== datagrams = container     UDP: [datagram]
//! ```
//!
//! The sockets are the daemon's: bound before anything is started, so that a conflict is told as every other one. A message is one
//! packet of a unix socket of packets, JSON, with a descriptor for each new port. The first connection is descriptor 3; later daemons find
//! `relay.sock` in its directory (0700, below `<exec-root>`).
//!
//! ```text
//!   longshore-shim --relay <dir>
//! ```
//! It is a mode of the shim's program: static, small, started the same way, from the same sealed file.
//!
//! One thread, one epoll. Bytes of TCP go through pipes by splice(2) and are never copied into this process; a direction reads
//! again when the other end has taken all: memory is bounded by the pipes. At most [`LINKS_MAX`] connections, as far as there are
//! descriptors, half of them of one port where there are others, and [`FLOWS_MAX`] flows of datagrams, the oldest of which gives way. Who
//! is gone without a word is asked after 15 s, and again (keepalive). A rule that goes takes its connections along: its container's
//! address may be another's by then.
//!
//! A range of ports of TCP on all addresses of IPv6 is one rule, and one listening socket: the kernel leads connections to any of them
//! there ([`sys::steering`]), and tells which one was asked for. Where the kernel has no such thing, or this process may not use it, a
//! range is refused; who asks first ([`Client::steers`]) puts a rule for each port. A rule that goes for others of the same ports
//! ([`Client::replace`]) leaves them the connections that lead where they led.
//!
//! With its last port gone it waits for [`LINGER`], as long as a daemon is there: the next port would need another process.
//!
//! The two ends may be of different builds. [`VERSION`] grows with every change of the messages; a daemon speaks all earlier versions.
//! A relay that cannot begin answers why instead of obeying.
//!
//! Deliberately not here: which ports there are, and where they lead.

mod client;
mod datagram;
mod server;
mod stream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use client::{AskError, Client, Source};
pub use server::run;

/// The version of the messages that this build speaks. 2 has those about several rules, 3 ranges of ports.
pub const VERSION: u32 = 3;

/// How long a relay without ports stays beside a daemon.
///
/// Containers that come one after the other, each with a port, share one process then, whose start takes as long as all else that a
/// port costs. Well below the second within which everything of a removed container is gone.
pub const LINGER: Duration = Duration::from_millis(250);

/// Connections at once at most.
pub const LINKS_MAX: usize = 8192;
/// Flows of datagrams at once at most; one more ends the oldest one of the port that has the most.
pub const FLOWS_MAX: usize = 1024;
/// Rules at most, or a quarter of as many descriptors as a process may have: each takes some 600 bytes here, and a socket.
pub const RULES_MAX: usize = 32768;

/// Rules in one answer at most: who gets as many asks for those behind them.
const LIST_MAX: usize = 1024;
/// An answer at most: [`LIST_MAX`] rules of 150 bytes, the longest. Below the 208 KiB that the kernel lets a socket send (wmem_default).
const MESSAGE_MAX: usize = 160 << 10;
/// Rules in one question at most: each has a descriptor.
pub const RULES_AT_ONCE: usize = sys::socket::FDS_MAX;
/// A question at most.
const QUESTION_MAX: usize = 64 << 10;

/// A port that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The daemon's name for it.
    pub id: String,
    /// Whether it is UDP; TCP otherwise.
    pub udp: bool,
    /// Where it leads; of a range the first port.
    pub target: SocketAddr,
    /// The first and the last of several ports of TCP on all addresses of IPv6; each leads as far behind the target's port as it is
    /// behind the first one. Its socket may listen to any port. None: the port that its socket listens to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(u16, u16)>,
}

impl Rule {
    /// Where a port of its range leads.
    fn target_of(&self, port: u16) -> Option<SocketAddr> {
        let (first, last) = self.range?;
        let behind = (first..=last).contains(&port).then(|| port - first)?;
        Some(SocketAddr::new(self.target.ip(), self.target.port().checked_add(behind)?))
    }
}

/// What a daemon asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Ask {
    /// Serve this; a rule of that id is replaced, and keeps its socket unless one comes along.
    Put(Rule),
    /// Serve it no longer, and close its connections.
    Remove(String),
    /// Tell what is served.
    List,
    /// Tell what is served behind the rule of this id.
    ListBehind(String),
    /// Serve these, whose sockets come along in the same order.
    PutAll(Vec<Rule>),
    /// As [`Ask::Remove`], these.
    RemoveAll(Vec<String>),
    /// Whether ranges can be served: done, or refused with the reason.
    Steer,
    /// Serve other rules instead of some: those whose sockets come along in the same order, and those that have the socket of one that
    /// goes, by its id. Connections go on that lead where they did.
    Replace { gone: Vec<String>, put: Vec<Rule>, inherit: Vec<(Rule, String)> },
}

/// The answer to each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Reply {
    Done,
    /// It is done, and it was the last rule: this process ends. From version 2 on it does so without a word, later.
    Ends,
    Rules {
        /// The relay's [`VERSION`].
        version: u32,
        /// In the order of their ids.
        rules: Vec<Rule>,
    },
    Refused(String),
}

/// Where a later daemon finds the relay.
fn socket_path(dir: &Path) -> PathBuf {
    dir.join("relay.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let rule =
            Rule { id: "tcp [::1]:80".to_owned(), udp: false, target: "172.17.0.2:80".parse().unwrap(), range: None };
        let text = r#"{"id":"tcp [::1]:80","udp":false,"target":"172.17.0.2:80"}"#;
        let ask = |text: &str| serde_json::from_str::<Ask>(text).unwrap();
        assert_eq!(ask(&format!(r#"{{"Put":{text}}}"#)), Ask::Put(rule.clone()));
        assert_eq!(ask(r#"{"Remove":"a"}"#), Ask::Remove("a".to_owned()));
        assert_eq!(ask(r#""List""#), Ask::List);
        let reply = |text: &str| serde_json::from_str::<Reply>(text).unwrap();
        let rules = Reply::Rules { version: 1, rules: vec![rule] };
        // What later versions add is passed over.
        assert_eq!(reply(&format!(r#"{{"Rules":{{"version":1,"rules":[{text}],"more":0}}}}"#)), rules);
        assert_eq!(reply(r#"{"Refused":"why"}"#), Reply::Refused("why".to_owned()));
        assert_eq!((reply(r#""Done""#), reply(r#""Ends""#)), (Reply::Done, Reply::Ends));
        // Since version 2.
        assert_eq!(ask(&format!(r#"{{"PutAll":[{text}]}}"#)), Ask::PutAll(rules_of(&rules)));
        assert_eq!(ask(r#"{"RemoveAll":["a"]}"#), Ask::RemoveAll(vec!["a".to_owned()]));
        assert_eq!(ask(r#"{"ListBehind":"a"}"#), Ask::ListBehind("a".to_owned()));
        // And so it is written: a change of this line is another version.
        assert_eq!(serde_json::to_string(&rules).unwrap(), format!(r#"{{"Rules":{{"version":1,"rules":[{text}]}}}}"#));
        // Since version 3.
        let range = Rule { range: Some((80, 90)), ..rules_of(&rules).remove(0) };
        let with_range = format!(r#"{},"range":[80,90]}}"#, text.trim_end_matches('}'));
        assert_eq!(serde_json::to_string(&range).unwrap(), with_range);
        assert_eq!(ask(r#""Steer""#), Ask::Steer);
        let replace = Ask::Replace {
            gone: vec!["a".to_owned()],
            put: vec![range.clone()],
            inherit: vec![(range, "a".to_owned())],
        };
        let text = format!(r#"{{"Replace":{{"gone":["a"],"put":[{with_range}],"inherit":[[{with_range},"a"]]}}}}"#);
        assert_eq!((ask(&text), serde_json::to_string(&replace).unwrap()), (replace, text));
        let longest = Rule {
            id: "x".repeat(70),
            target: "[fd00:1111:2222:3333:4444:5555:6666:7777]:65535".parse().unwrap(),
            ..rules_of(&rules).remove(0)
        };
        let length = |rules: usize| serde_json::to_vec(&vec![longest.clone(); rules]).unwrap().len();
        // Around the rules stands the reply's own text.
        let around = serde_json::to_vec(&Reply::Rules { version: u32::MAX, rules: Vec::new() }).unwrap().len();
        assert!(length(LIST_MAX) + around <= MESSAGE_MAX && length(RULES_AT_ONCE) < QUESTION_MAX);
    }

    fn rules_of(reply: &Reply) -> Vec<Rule> {
        let Reply::Rules { rules, .. } = reply else { panic!("{reply:?}") };
        rules.clone()
    }
}
