//! From a query to what becomes of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::{A, AAAA, MX, PTR, Query, Record, Transport, Unreadable, refuse_unread};
use crate::zone::Zone;

/// What becomes of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// This is its answer.
    Reply(Vec<u8>),
    /// Others have to be asked.
    Forward(Query<'a>),
    /// It gets none.
    Ignore,
}

impl Zone {
    /// What a query of `container` becomes. `chance`, a random number, chooses their order where several have the name;
    /// `keeps_words` is whether names of one label are not for upstreams, because the client's own `ndots` has it complete them.
    pub fn answer<'a>(
        &self,
        container: &str,
        bytes: &'a [u8],
        transport: Transport,
        chance: u64,
        keeps_words: bool,
    ) -> Verdict<'a> {
        let query = match Query::parse(bytes, transport) {
            Ok(query) => query,
            Err(Unreadable::Ignore) => return Verdict::Ignore,
            Err(Unreadable::Refuse(refusal)) => return Verdict::Reply(refuse_unread(bytes, refusal)),
        };
        let Some(name) = query.name.as_deref().filter(|_| query.is_internet()) else {
            return Verdict::Forward(query);
        };
        if let Some(records) = self.records(container, name, query.kind, chance) {
            return Verdict::Reply(query.reply(&records));
        }
        if keeps_words && matches!(query.kind, A | AAAA) && !name.contains('.') {
            return Verdict::Reply(query.reply(&[]));
        }
        Verdict::Forward(query)
    }

    /// The records of a name that is ours; `None` if it is not.
    fn records(&self, container: &str, name: &str, kind: u16, chance: u64) -> Option<Vec<Record>> {
        match kind {
            A | AAAA => {
                let mut addresses = self.addresses(container, name)?;
                addresses.retain(|address| address.is_ipv4() == (kind == A));
                shuffle(&mut addresses, chance);
                Some(addresses.into_iter().map(Record::Address).collect())
            }
            // The name is there and says nothing of mail: who asks then tries its address (RFC 5321, 5.1).
            MX => self.addresses(container, name).map(|_| Vec::new()),
            PTR => Some(vec![Record::Name(self.name_of(container, reversed(name)?)?)]),
            _ => None,
        }
    }
}

/// Every order is as likely as the others, as with dockerd. Taking turns would not do: a client's questions for the two
/// families of addresses alternate, so that each kind would find the same one first each time.
fn shuffle(addresses: &mut [IpAddr], mut chance: u64) {
    for last in (1..addresses.len()).rev() {
        let rest = last as u64 + 1;
        addresses.swap(last, last - (chance % rest) as usize);
        chance /= rest;
    }
}

/// The address that a name below in-addr.arpa or ip6.arpa stands for.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(parts) = name.strip_suffix(".in-addr.arpa") {
        let mut parts: Vec<&str> = parts.split('.').collect();
        parts.reverse();
        return parts.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let mut address: u128 = 0;
    let digits: Vec<&str> = name.strip_suffix(".ip6.arpa")?.split('.').collect();
    for digit in digits.iter().rev() {
        let value = u128::from_str_radix(digit, 16).ok().filter(|_| digit.len() == 1)?;
        address = address << 4 | value;
    }
    (digits.len() == 32).then(|| IpAddr::V6(Ipv6Addr::from_bits(address)))
}

#[cfg(test)]
mod tests;
