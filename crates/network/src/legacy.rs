//! Forward chains of iptables-legacy that drop: netlink neither shows nor tells of them, and no rule of ours can be placed there
//! without writing the whole table anew. So they are told alone, when somebody asks.

use std::collections::BTreeSet;
use std::fs;

use sys::iptables::FilterTable;

/// A chain FORWARD of iptables-legacy that drops what it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyChain {
    /// The program that changes it.
    pub program: &'static str,
    /// Our bridges about which it has no rule that accepts all that comes from them, or none about all that goes to them.
    pub bridges: Vec<String>,
}

/// The chains that drop what some of these bridges' containers send or get. Reads files of /proc; costs a call for each family
/// of which there is a table.
pub(crate) fn chains(bridges: &[String], ipv6: bool) -> Vec<LegacyChain> {
    let families = [("iptables-legacy", "ip_tables_names", false), ("ip6tables-legacy", "ip6_tables_names", true)];
    let mut chains = Vec::new();
    for (program, names, of_ipv6) in families.into_iter().filter(|(_, _, of_ipv6)| ipv6 || !of_ipv6) {
        // To ask for a table that is not there would make it.
        let names = fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
        if !names.lines().any(|name| name == "filter") {
            continue;
        }
        match sys::iptables::filter_table(of_ipv6) {
            Ok(table) => chains.extend(shut(&table, of_ipv6, bridges).map(|bridges| LegacyChain { program, bridges })),
            Err(err) => tracing::debug!(%err, program, "look at the chain FORWARD"),
        }
    }
    chains
}

/// Where things are in an entry (struct ipt_entry, struct ip6t_entry).
struct Layout {
    /// Names of links: where the packet comes from; the other one is 16 bytes behind.
    interface: usize,
    /// The masks of both, 32 bytes behind that; then protocol and flags.
    rest: std::ops::Range<usize>,
    /// Where it is written where the target begins, and behind that the next entry.
    target_offset: usize,
    /// The length of an entry without matches.
    bytes: usize,
}

const IPV4: Layout = Layout { interface: 16, rest: 80..84, target_offset: 88, bytes: 112 };
const IPV6: Layout = Layout { interface: 64, rest: 128..133, target_offset: 140, bytes: 168 };

/// Verdicts of the kernel's own target, which are written as -1 less (linux/netfilter/x_tables.h).
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
/// struct xt_entry_target, before the verdict.
const TARGET_BYTES: usize = 32;
const NAME_BYTES: usize = 16;

/// The bridges that a chain with the policy to drop is shut to; nothing if it does not drop.
fn shut(table: &FilterTable, ipv6: bool, bridges: &[String]) -> Option<Vec<String>> {
    let layout = if ipv6 { &IPV6 } else { &IPV4 };
    let entries = |at: usize| table.entries.get(at..);
    if verdict(entries(table.forward_policy)?, layout)? != DROP {
        return None;
    }
    let (mut from, mut to) = (BTreeSet::new(), BTreeSet::new());
    let mut at = table.forward;
    while at < table.forward_policy {
        let entry = entries(at)?;
        match accepted(entry, layout) {
            Some((Some(link), None)) => drop(from.insert(link)),
            Some((None, Some(link))) => drop(to.insert(link)),
            Some((None, None)) => return None,
            _ => {}
        }
        let next = usize::from(u16_at(entry, layout.target_offset + 2)?);
        at += Some(next).filter(|next| *next > 0)?;
    }
    let is_shut = |bridge: &&String| !from.contains(bridge.as_str()) || !to.contains(bridge.as_str());
    let shut: Vec<String> = bridges.iter().filter(is_shut).cloned().collect();
    Some(shut).filter(|shut| !shut.is_empty())
}

/// The links from which and to which an entry accepts everything, whatever else it is.
fn accepted<'a>(entry: &'a [u8], layout: &Layout) -> Option<(Option<&'a str>, Option<&'a str>)> {
    let all_addresses = entry.get(..layout.interface)?.iter().all(|byte| *byte == 0);
    let all_else = entry.get(layout.rest.clone())?.iter().all(|byte| *byte == 0);
    let has_matches = usize::from(u16_at(entry, layout.target_offset)?) != layout.bytes;
    if !all_addresses || !all_else || has_matches || verdict(entry, layout)? != ACCEPT {
        return None;
    }
    let name = |at: usize| {
        let bytes = entry.get(at..at + NAME_BYTES)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        // A mask that ends with the name means all links whose names begin so.
        let whole = *entry.get(at + 2 * NAME_BYTES + end)? != 0;
        let name = std::str::from_utf8(&bytes[..end]).ok()?;
        (end == 0 || whole).then_some(Some(name).filter(|name| !name.is_empty()))
    };
    Some((name(layout.interface)?, name(layout.interface + NAME_BYTES)?))
}

/// What the kernel's own target says; nothing for all others.
fn verdict(entry: &[u8], layout: &Layout) -> Option<i32> {
    let target = entry.get(usize::from(u16_at(entry, layout.target_offset)?)..)?;
    let is_own = *target.get(2)? == 0;
    let verdict = target.get(TARGET_BYTES..TARGET_BYTES + 4)?.try_into().ok().map(i32::from_ne_bytes);
    verdict.filter(|_| is_own)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry with the kernel's own target, as iptables writes it.
    fn entry(layout: &Layout, from: &str, to: &str, verdict: i32) -> Vec<u8> {
        let mut entry = vec![0; layout.bytes];
        for (at, name) in [(layout.interface, from), (layout.interface + NAME_BYTES, to)] {
            entry[at..at + name.len()].copy_from_slice(name.as_bytes());
            if !name.is_empty() {
                entry[at + 2 * NAME_BYTES..at + 2 * NAME_BYTES + name.len() + 1].fill(0xff);
            }
        }
        let (target, next) = (layout.bytes as u16, layout.bytes as u16 + 40);
        entry[layout.target_offset..layout.target_offset + 2].copy_from_slice(&target.to_ne_bytes());
        entry[layout.target_offset + 2..layout.target_offset + 4].copy_from_slice(&next.to_ne_bytes());
        entry.extend([40, 0]);
        entry.resize(layout.bytes + TARGET_BYTES, 0);
        entry.extend(verdict.to_ne_bytes());
        entry.resize(layout.bytes + 40, 0);
        entry
    }

    #[test]
    fn a_chain_that_drops_is_shut_to_bridges_without_a_rule_each_way() {
        for (layout, ipv6) in [(&IPV4, false), (&IPV6, true)] {
            let shut = |rules: &[(&str, &str, i32)], policy| {
                let input = entry(layout, "", "", ACCEPT);
                let rules: Vec<u8> =
                    rules.iter().flat_map(|(from, to, verdict)| entry(layout, from, to, *verdict)).collect();
                let (forward, forward_policy) = (input.len(), input.len() + rules.len());
                let entries = [input, rules, entry(layout, "", "", policy)].concat();
                let table = FilterTable { forward, forward_policy, entries };
                super::shut(&table, ipv6, &["br-1".to_owned(), "br-2".to_owned()]).map(|shut| shut.join(" "))
            };
            assert_eq!(shut(&[], ACCEPT), None);
            assert_eq!(shut(&[], DROP).as_deref(), Some("br-1 br-2"));
            let first = [("br-1", "", ACCEPT), ("", "br-1", ACCEPT)];
            assert_eq!(shut(&first, DROP).as_deref(), Some("br-2"));
            assert_eq!(shut(&first[..1], DROP).as_deref(), Some("br-1 br-2"));
            assert_eq!(shut(&[("br-1", "", DROP), ("br-1", "br-1", ACCEPT)], DROP).as_deref(), Some("br-1 br-2"));
            assert_eq!(shut(&[("", "", ACCEPT)], DROP), None);
            // A jump.
            assert_eq!(shut(&[("", "", 152)], DROP).as_deref(), Some("br-1 br-2"));
        }
    }

    #[test]
    fn a_table_that_contradicts_itself_is_none() {
        let entries = [entry(&IPV4, "", "", ACCEPT), entry(&IPV4, "", "", DROP)].concat();
        let whole = FilterTable { forward: 0, forward_policy: 152, entries };
        assert_eq!(shut(&whole, false, &["br-1".to_owned()]), None);
        for at in 0..whole.entries.len() {
            for byte in [0, 1, 255] {
                let mut wrong = whole.clone();
                wrong.entries[at] = byte;
                let _ = shut(&wrong, false, &["br-1".to_owned()]);
                wrong.entries.truncate(at);
                let _ = shut(&wrong, false, &["br-1".to_owned()]);
            }
        }
    }
}
