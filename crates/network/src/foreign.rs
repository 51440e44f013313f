//! Forward chains of others that drop what they do not know: Docker's and ufw's, for two.
//!
//! An accept of ours is final in our own chains alone. So where such a chain is, ours mark what they accept, and one rule, the
//! first of that chain, accepts what has the mark. Neither our bridges nor their addresses are named there: it never has to change.
//!
//! ```text
//!   forward, priority -400   table longshore-<key>: accept, and mark     (or drop)
//!   forward, any later one   their chain: marked -> accept;  ...         (policy drop)
//!   postrouting, -300        table longshore-<key>: the mark goes again
//! ```
//! The rule is known by its comment, `longshore-<key>`. Where the mode `host-firewall` is on there is none: the host's rules decide.
//! Other instances of ours mark likewise and let the mark pass, so nothing is placed in their tables.

use netlink::nft::expression::{self as rule, Expression, Verdict};
use netlink::nft::guest::{self, ForwardChain, GuestTransaction, TableFamily};
use netlink::nft::watch::{Change, Changed};
use netlink::{NetlinkError, Socket};

/// The bit by which what we have accepted is known, from our forward chain until the packet has been routed. All instances use the
/// same one. None of the usual owners of bits has it: Kubernetes (14, 15), Tailscale (16 to 23), Calico (from 16 on, set anew).
pub(crate) const MARK: u32 = 1 << 27;

/// How the tables of all instances begin.
const TABLES_OF_OURS: &str = "longshore-";

/// A chain of somebody else's that drops what is forwarded, unless one of its rules accepts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChain {
    /// Family, table and chain as nft(8) writes them: `ip filter FORWARD`.
    pub chain: String,
    /// Whether what our containers send and get passes it.
    pub passage: Passage,
}

/// What we have done about a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Our rule is in it.
    Placed,
    /// Nothing: the host's rules decide (`host-firewall`).
    Left,
    /// The kernel refused our rule.
    Refused,
}

/// What is due after others have changed the packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    Nothing,
    /// To look at the chains of others.
    Look,
    /// To write our own tables anew, too.
    Rewrite,
}

/// The chains of others, as they were found last.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// Of our tables, and the comment of our rules.
    name: String,
    host_firewall: bool,
    chains: Vec<ForeignChain>,
    /// The tables in which something of ours may be.
    tables: Vec<String>,
}

/// What is to be done in one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    insert: bool,
    delete: Vec<u64>,
}

impl Foreign {
    pub(crate) fn new(name: String, host_firewall: bool) -> Foreign {
        Foreign { name, host_firewall, chains: Vec::new(), tables: Vec::new() }
    }

    /// All forward chains but our own.
    pub(crate) fn look(&self, socket: &mut Socket) -> Vec<ForwardChain> {
        let found = guest::forward_chains(socket).unwrap_or_else(|err| {
            tracing::warn!(err = errdefs::chain(&err), "forward chains of others are not seen");
            Vec::new()
        });
        found.into_iter().filter(|chain| chain.table != self.name).collect()
    }

    /// Whether our chains have to mark what they accept.
    pub(crate) fn needs_mark(&self, found: &[ForwardChain]) -> bool {
        found.iter().any(|chain| chain.drops && (!self.host_firewall || is_of_ours(chain)))
    }

    /// Places our rule where it is missing, and takes it out where nobody needs it any more.
    pub(crate) fn settle(&mut self, socket: &mut Socket, found: &[ForwardChain], ipv6: bool) {
        let mut steps = Vec::with_capacity(found.len());
        for chain in found {
            match guest::rules_with(socket, chain, &self.name) {
                Ok(handles) => steps.push((chain, plan(self.wants(chain, ipv6), handles))),
                Err(err) => tracing::warn!(%chain, err = errdefs::chain(&err), "the rules of a chain are not seen"),
            }
        }
        let refused = self.apply(socket, &steps);
        let shown =
            |chain: &&ForwardChain| chain.drops && !is_of_ours(chain) && (ipv6 || chain.family != TableFamily::Ip6);
        self.chains = found.iter().filter(shown).map(|chain| self.shown(chain, refused.contains(&chain))).collect();
        self.tables = found.iter().map(|chain| chain.table.clone()).collect();
    }

    /// Takes our rules out of all chains of others.
    pub(crate) fn remove(&mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let mut change = GuestTransaction::default();
        for chain in self.look(socket) {
            for handle in guest::rules_with(socket, &chain, &self.name)? {
                change.delete(&chain, handle);
            }
        }
        self.chains.clear();
        change.commit(socket)
    }

    /// The chains of others that drop.
    pub(crate) fn chains(&self) -> &[ForeignChain] {
        &self.chains
    }

    /// What a change of somebody else's asks for.
    pub(crate) fn due(&self, change: &Change) -> Due {
        match change {
            Change::Lost => Due::Rewrite,
            Change::Of { table, .. } if *table == self.name => Due::Rewrite,
            Change::Of { what: Changed::Table | Changed::BaseChain, .. } => Due::Look,
            Change::Of { table, what: Changed::Removed } if self.tables.contains(table) => Due::Look,
            Change::Of { .. } => Due::Nothing,
        }
    }

    fn wants(&self, chain: &ForwardChain, ipv6: bool) -> bool {
        chain.drops && !self.host_firewall && !is_of_ours(chain) && (ipv6 || chain.family != TableFamily::Ip6)
    }

    fn shown(&self, chain: &ForwardChain, refused: bool) -> ForeignChain {
        let passage = match (self.host_firewall, refused) {
            (true, _) => Passage::Left,
            (false, true) => Passage::Refused,
            (false, false) => Passage::Placed,
        };
        ForeignChain { chain: chain.to_string(), passage }
    }

    /// All in one transaction; where somebody refuses (a table may have an owner), each chain by itself. Answers who refused.
    fn apply<'a>(&self, socket: &mut Socket, steps: &[(&'a ForwardChain, Step)]) -> Vec<&'a ForwardChain> {
        let commit = |socket: &mut Socket, steps: &[(&ForwardChain, Step)]| {
            let mut change = GuestTransaction::default();
            for (chain, step) in steps {
                step.delete.iter().for_each(|handle| change.delete(chain, *handle));
                if step.insert {
                    change.insert(chain, &accept_marked(chain), &self.name);
                }
            }
            change.commit(socket)
        };
        if commit(socket, steps).is_ok() {
            return Vec::new();
        }
        let mut refused = Vec::new();
        for one in steps.chunks(1) {
            if let Err(err) = commit(socket, one) {
                let chain = one[0].0;
                tracing::warn!(%chain, err = errdefs::chain(&err), "packets of containers are dropped by a chain of others");
                refused.push(chain);
            }
        }
        refused
    }
}

fn plan(wanted: bool, handles: Vec<u64>) -> Step {
    let kept = usize::from(wanted).min(handles.len());
    Step { insert: wanted && handles.is_empty(), delete: handles[kept..].to_vec() }
}

/// They let the mark pass by themselves.
fn is_of_ours(chain: &ForwardChain) -> bool {
    chain.table.starts_with(TABLES_OF_OURS)
}

/// `meta mark & MARK == MARK counter accept`; in the chains of iptables in its own form, without which it could neither show nor save
/// them rightly.
fn accept_marked(chain: &ForwardChain) -> Vec<Expression> {
    let is_of_iptables =
        chain.family != TableFamily::Inet && (chain.table.as_str(), chain.name.as_str()) == ("filter", "FORWARD");
    let mut rule = match is_of_iptables {
        true => vec![Expression::IptablesMark { bits: MARK }],
        false => rule::has_mark(MARK).to_vec(),
    };
    rule.extend([Expression::Count, Expression::Verdict(Verdict::Accept)]);
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: TableFamily, table: &str, drops: bool) -> ForwardChain {
        ForwardChain { family, table: table.to_owned(), name: "FORWARD".to_owned(), drops }
    }

    #[test]
    fn a_chain_has_one_rule_of_ours_or_none() {
        let step = |insert, delete: &[u64]| Step { insert, delete: delete.to_vec() };
        assert_eq!(plan(true, vec![]), step(true, &[]));
        assert_eq!(plan(true, vec![7]), step(false, &[]));
        assert_eq!(plan(true, vec![7, 8, 9]), step(false, &[8, 9]));
        assert_eq!(plan(false, vec![]), step(false, &[]));
        assert_eq!(plan(false, vec![7, 8]), step(false, &[7, 8]));
    }

    #[test]
    fn rules_are_wanted_where_somebody_drops_what_we_have() {
        let (ours, host) =
            (Foreign::new("longshore-1".to_owned(), false), Foreign::new("longshore-1".to_owned(), true));
        let drops = chain(TableFamily::Ip, "filter", true);
        assert!(ours.wants(&drops, false) && ours.needs_mark(std::slice::from_ref(&drops)));
        assert!(!host.wants(&drops, false) && !host.needs_mark(&[drops]));
        let accepts = chain(TableFamily::Ip, "filter", false);
        assert!(!ours.wants(&accepts, true) && !ours.needs_mark(&[accepts]));
        let of_ipv6 = chain(TableFamily::Ip6, "filter", true);
        assert!(!ours.wants(&of_ipv6, false) && ours.wants(&of_ipv6, true));
        // Another instance's guard accepts the mark, which is all that it takes.
        let other = chain(TableFamily::Ip, "longshore-2", true);
        assert!(
            !ours.wants(&other, true) && ours.needs_mark(std::slice::from_ref(&other)) && host.needs_mark(&[other])
        );
    }

    #[test]
    fn what_others_change_is_looked_at_as_far_as_it_may_concern_us() {
        let foreign = Foreign { tables: vec!["filter".to_owned()], ..Foreign::new("longshore-1".to_owned(), false) };
        let due = |table: &str, what| foreign.due(&Change::Of { table: table.to_owned(), what });
        assert_eq!(due("longshore-1", Changed::Other), Due::Rewrite);
        assert_eq!(foreign.due(&Change::Lost), Due::Rewrite);
        assert_eq!(due("new", Changed::BaseChain), Due::Look);
        assert_eq!(due("filter", Changed::Removed), Due::Look);
        assert_eq!(due("nat", Changed::Removed), Due::Nothing);
        assert_eq!(due("filter", Changed::Other), Due::Nothing);
    }
}
