//! Where an answer leads: the addresses that it gives for its own question.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::wire::{A, AAAA, HEADER_BYTES, NAME_BYTES, counts, question, record};

const CNAME: u16 = 5;
const INTERNET: u16 = 1;
/// How many pointers one name goes by at most: each leads to a label at least in what anybody means, and a name has 127 (RFC 1035, 3.1).
const POINTERS_MAX: usize = 127;
/// How many names stand for one another at most before an address: what resolvers follow (unbound and the C library, 11 to 16).
const CHAIN_MAX: usize = 16;

/// An address, and for how many seconds it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// Where it leads.
    pub address: IpAddr,
    /// The time to live: the shortest of the records that lead there.
    pub ttl_seconds: u32,
}

/// A name as labels, in small letters.
type Name = Vec<u8>;

/// The addresses in the answer that belong to the name asked for, by whatever names stand for it. What belongs to other names, or
/// cannot be read, is passed over.
pub fn leads(reply: &[u8]) -> Vec<Lead> {
    let mut leads = Vec::new();
    // Follows every name that stands for the one asked for, with the shortest time on the way.
    let Some((asked, records)) = read(reply) else { return leads };
    let mut times: BTreeMap<&Name, u32> = [(&asked, u32::MAX)].into();
    for _ in 0..CHAIN_MAX {
        let before = times.len();
        for Record { owner, ttl_seconds, value } in &records {
            if let (Some(time), Value::Name(target)) = (times.get(owner).copied(), value) {
                times.entry(target).or_insert(time.min(*ttl_seconds));
            }
        }
        if times.len() == before {
            break;
        }
    }
    for Record { owner, ttl_seconds, value } in &records {
        if let (Some(time), Value::Address(address)) = (times.get(owner), value) {
            leads.push(Lead { address: *address, ttl_seconds: *time.min(ttl_seconds) });
        }
    }
    leads
}

/// What matters of a record.
struct Record {
    owner: Name,
    ttl_seconds: u32,
    value: Value,
}

enum Value {
    Address(IpAddr),
    Name(Name),
}

/// The name asked for, and the records of the answer as far as they can be read.
fn read(reply: &[u8]) -> Option<(Name, Vec<Record>)> {
    let [1, answers, ..] = counts(reply)? else { return None };
    let (asked, mut at) = (name(reply, HEADER_BYTES)?, question(reply)?.end);
    let mut records = Vec::new();
    for _ in 0..answers {
        let Some(head) = record(reply, at) else { break };
        let start = at;
        at = head.end;
        let value = match head.kind {
            _ if head.class != INTERNET => None,
            A => <[u8; 4]>::try_from(&reply[head.value..head.end]).ok().map(|octets| Value::Address(octets.into())),
            AAAA => <[u8; 16]>::try_from(&reply[head.value..head.end]).ok().map(|octets| Value::Address(octets.into())),
            CNAME => name(reply, head.value).map(Value::Name),
            _ => None,
        };
        if let (Some(value), Some(owner)) = (value, name(reply, start)) {
            // A time of more than 31 bits is none (RFC 2181, 8).
            let ttl_seconds = if head.ttl_seconds >> 31 == 0 { head.ttl_seconds } else { 0 };
            records.push(Record { owner, ttl_seconds, value });
        }
    }
    Some((asked, records))
}

/// The name at `start`, its pointers followed: each leads farther back, and not one behind the other without end.
fn name(bytes: &[u8], start: usize) -> Option<Name> {
    let (mut at, mut limit, mut name) = (start, start, Vec::new());
    let mut pointers = 0;
    loop {
        let length = *bytes.get(at)?;
        match length {
            0 => return Some(name),
            1..=63 => {
                let label = bytes.get(at..=at + usize::from(length))?;
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                at += label.len();
            }
            0xc0..=0xff => {
                let target = usize::from(length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
                pointers += 1;
                if target >= limit || pointers > POINTERS_MAX {
                    return None;
                }
                (at, limit) = (target, target);
            }
            _ => return None,
        }
        if name.len() >= NAME_BYTES {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(name: &str) -> Vec<u8> {
        let label = |label: &str| [&[label.len() as u8], label.as_bytes()].concat();
        name.split('.').flat_map(label).chain([0]).collect()
    }

    /// An answer about `asked` with these records: owner, type, time, value.
    fn answer(asked: &str, records: &[(Vec<u8>, u16, u32, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![7, 7, 0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
        bytes.extend(labels(asked));
        bytes.extend([0, 1, 0, 1]);
        for (owner, kind, ttl, value) in records {
            bytes.extend(owner);
            bytes.extend(kind.to_be_bytes());
            bytes.extend(INTERNET.to_be_bytes());
            bytes.extend(ttl.to_be_bytes());
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.extend(value);
        }
        bytes
    }

    fn told(reply: &[u8]) -> Vec<String> {
        leads(reply).iter().map(|lead| format!("{} {}", lead.address, lead.ttl_seconds)).collect()
    }

    #[test]
    fn an_answer_leads_where_its_own_names_lead() {
        let asked = || vec![0xc0, 12];
        let plain = answer("Example.org", &[(asked(), A, 300, vec![9, 9, 9, 1]), (asked(), A, 60, vec![9, 9, 9, 2])]);
        assert_eq!(told(&plain), ["9.9.9.1 300", "9.9.9.2 60"]);
        let ipv6 = answer(
            "example.org",
            &[(asked(), AAAA, 5, [[0x20, 1], [0; 2], [0; 2], [0; 2], [0; 2], [0; 2], [0; 2], [0, 1]].concat())],
        );
        assert_eq!(told(&ipv6), ["2001::1 5"]);
        // In whatever order, and the shortest time counts.
        let chain = answer(
            "www.example.org",
            &[
                (labels("edge.cdn.net"), A, 300, vec![9, 9, 9, 3]),
                (labels("CDN.net"), CNAME, 20, labels("edge.cdn.net")),
                (asked(), CNAME, 600, labels("cdn.net")),
                (labels("evil.net"), A, 300, vec![6, 6, 6, 6]),
            ],
        );
        assert_eq!(told(&chain), ["9.9.9.3 20"]);
        let circle =
            answer("a.org", &[(asked(), CNAME, 1, labels("b.org")), (labels("b.org"), CNAME, 1, labels("a.org"))]);
        assert_eq!(told(&circle), [""; 0]);
        let odd = answer("a.org", &[(asked(), A, 0x8000_0001, vec![9, 9, 9, 4]), (asked(), A, 60, vec![9; 5])]);
        assert_eq!(told(&odd), ["9.9.9.4 0"]);
    }

    #[test]
    fn what_cannot_be_read_leads_nowhere() {
        let whole = answer("a.org", &[(vec![0xc0, 12], A, 300, vec![9, 9, 9, 1])]);
        for length in 0..whole.len() {
            assert_eq!(told(&whole[..length]), [""; 0], "{length}");
        }
        // A pointer to itself, and one forward.
        let start = HEADER_BYTES + labels("a.org").len() + 4;
        for target in [start, start + 20] {
            assert_eq!(told(&answer("a.org", &[(vec![0xc0, target as u8], A, 300, vec![9, 9, 9, 1])])), [""; 0]);
        }
        // A stair of pointers, from each to the one before, in a record that nobody reads.
        let stair = |steps: usize| {
            let value = start + 12;
            let step = |number: usize| if number == 0 { 12 } else { value + 2 * (number - 1) };
            let pointer = |to: usize| [0xc0 | (to >> 8) as u8, to as u8];
            let stairs = (0..steps).flat_map(|number| pointer(step(number))).collect();
            let owner = pointer(step(steps)).to_vec();
            told(&answer("a.org", &[(vec![0xc0, 12], 16, 300, stairs), (owner, A, 300, vec![9, 9, 9, 1])]))
        };
        assert_eq!(stair(126), ["9.9.9.1 300"]);
        assert_eq!(stair(127), [""; 0]);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_run_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            leads(&bytes);
        }

        #[test]
        fn nor_does_one_that_begins_well(rest in proptest::collection::vec(prop_oneof![Just(0xc0_u8), Just(12), Just(0), any::<u8>()], 0..200)) {
            let mut bytes = answer("a.org", &[]);
            bytes[7] = 200;
            bytes.extend(rest);
            leads(&bytes);
        }
    }
}
