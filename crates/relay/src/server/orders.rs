//! What daemons ask for.

use std::io;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::Relay;
use super::ranges::{self, Origin};
use crate::{Ask, LIST_MAX, Reply, Rule, VERSION};

/// Does what a daemon asks for, with the sockets that came along.
pub(super) fn obey(relay: &mut Relay, ask: Ask, mut sockets: Vec<OwnedFd>) -> Reply {
    let done = match ask {
        Ask::List => return list(relay, Bound::Unbounded),
        Ask::ListBehind(id) => return list(relay, Bound::Excluded(&id)),
        Ask::Remove(id) => return remove(relay, &[id]),
        Ask::RemoveAll(ids) => return remove(relay, &ids),
        Ask::Put(rule) => relay.put(rule, sockets.pop()),
        Ask::PutAll(rules) => put_all(relay, rules, sockets),
        Ask::Steer => {
            // Perhaps nothing comes after all.
            if relay.rules.is_empty() && !relay.linger.is_zero() {
                relay.idle_since = Some(Instant::now());
            }
            ranges::steer(relay).map(drop)
        }
        Ask::Replace { gone, put, inherit } => match put.len() == sockets.len() {
            true => {
                let put = put.into_iter().zip(sockets.into_iter().map(Origin::Socket));
                let inherit = inherit.into_iter().map(|(rule, id)| (rule, Origin::Heir(id)));
                ranges::replace(relay, &gone, put.chain(inherit).collect())
            }
            false => Err(wrong_count(sockets.len(), put.len())),
        },
    };
    done.map_or_else(|err| Reply::Refused(err.to_string()), |()| Reply::Done)
}

fn list(relay: &Relay, from: Bound<&str>) -> Reply {
    let rules = relay.rules.range::<str, _>((from, Bound::Unbounded)).take(LIST_MAX);
    Reply::Rules { version: VERSION, rules: rules.map(|(_, served)| served.rule.clone()).collect() }
}

/// All of them, or those before one that cannot be served.
fn put_all(relay: &mut Relay, rules: Vec<Rule>, sockets: Vec<OwnedFd>) -> io::Result<()> {
    if rules.len() != sockets.len() {
        return Err(wrong_count(sockets.len(), rules.len()));
    }
    rules.into_iter().zip(sockets).try_for_each(|(rule, socket)| relay.put(rule, Some(socket)))
}

fn wrong_count(sockets: usize, rules: usize) -> io::Error {
    io::Error::other(format!("{sockets} sockets came with {rules} ports"))
}

fn remove(relay: &mut Relay, ids: &[String]) -> Reply {
    for id in ids {
        if let Some(served) = relay.rules.remove(id) {
            ranges::lead_no_longer(relay, &served);
            relay.retire(&served);
        }
    }
    relay.forget_flows();
    if let (Some(last), 1) = (relay.rules.values().next(), relay.rules.len()) {
        // It may have all connections.
        relay.await_again(last);
    }
    if !relay.rules.is_empty() {
        return Reply::Done;
    }
    relay.idle_since = Some(Instant::now());
    if !relay.linger.is_zero() {
        return Reply::Done;
    }
    // Before the daemon hears of it, which may start another relay at once: that one's would go instead.
    _ = std::fs::remove_file(crate::socket_path(&relay.dir));
    Reply::Ends
}
