//! Forward chains of others that drop what they do not know: Docker's and ufw's, for two.
//!
//! An accept of ours is final in our own chains alone. So where such a chain is, ours mark what they accept, and one rule of
//! that chain accepts what has the mark. Neither our bridges nor their addresses are named there: it never has to change.
//!
//! ```text
//!   forward, priority -401   table longshore-<key>: whoever comes with the mark loses it
//!   forward, priority -400   table longshore-<key>: accept, and mark     (or drop)
//!   forward, priority -399   table longshore-<key>: marked -> accept     (policy drop; where we switched forwarding on)
//!   forward, any later one   their chain: marked -> accept;  ...         (policy drop)
//!   postrouting, -300        table longshore-<key>: the mark goes again
//! ```
//! The rule stands first, as Docker's do, but behind a jump to `DOCKER-USER`: there stand what the machine's owner wants to have
//! judged before any container's packet passes. It is known by its comment, `longshore-<key>`; with ` ipv4` behind it the rule
//! is about IPv4 alone, in a chain of both families while we have no table of IPv6, which would take a strange mark away.
//!
//! Where the mode `host-firewall` is on there is no rule: the host's rules decide. Other instances of ours mark likewise and let the
//! mark pass, so nothing is placed in their tables.

use netlink::nft::Family;
use netlink::nft::expression::{self as rule, Expression, Verdict};
use netlink::nft::guest::{self, ForwardChain, GuestRule, GuestTransaction, TableFamily};
use netlink::nft::watch::{Change, Changed};
use netlink::{NetlinkError, Socket};

/// The bit by which what we have accepted is known, from our forward chain until the packet has been routed. All instances use the
/// same one. None of the usual owners of bits has it: Kubernetes (14, 15), Tailscale (16 to 23), Calico (from 16 on, set anew).
pub(crate) const MARK: u32 = 1 << 27;

/// How the tables of all instances begin.
const TABLES_OF_OURS: &str = "longshore-";

/// Where Docker has people write what is to be judged before its own rules.
const CHAIN_OF_USERS: &str = "DOCKER-USER";
/// Behind the comment of a rule about IPv4 alone.
const OF_IPV4: &str = " ipv4";

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Step {
    /// The comment of the rule that is placed.
    insert: Option<String>,
    /// The rule behind which it is placed; before all others if there is none.
    behind: Option<u64>,
    delete: Vec<u64>,
}

/// The chains in which the kernel refused a step, and why.
type Refusals<'a> = Vec<(&'a ForwardChain, NetlinkError)>;

impl Foreign {
    pub(crate) fn new(name: String, host_firewall: bool) -> Foreign {
        Foreign { name, host_firewall, chains: Vec::new(), tables: Vec::new() }
    }

    /// All forward chains but our own.
    pub(crate) fn look(&self, socket: &mut Socket) -> Result<Vec<ForwardChain>, NetlinkError> {
        let found = guest::forward_chains(socket)?;
        Ok(found.into_iter().filter(|chain| chain.table != self.name).collect())
    }

    /// Whether our chains have to mark what they accept.
    pub(crate) fn needs_mark(&self, found: &[ForwardChain]) -> bool {
        found.iter().any(|chain| chain.drops && (!self.host_firewall || is_of_ours(chain)))
    }

    /// Places our rule where it is missing, and takes it out where nobody needs it any more. Refusals are told, and shown; an error
    /// is that the rules of a chain are not seen: the others' are settled all the same.
    pub(crate) fn settle(
        &mut self,
        socket: &mut Socket,
        found: &[ForwardChain],
        ipv6: bool,
    ) -> Result<(), NetlinkError> {
        let (steps, unseen) = self.steps(socket, found, |chain| self.comment(chain, ipv6));
        let refusals = apply(socket, &steps);
        for (chain, err) in &refusals {
            tracing::warn!(%chain, err = errdefs::chain(err), "packets of containers are dropped by a chain of others");
        }
        let is_settled = |chain: &&ForwardChain| !refusals.iter().chain(&unseen).any(|(one, _)| one == chain);
        let shown =
            |chain: &&ForwardChain| chain.drops && !is_of_ours(chain) && (ipv6 || chain.family != TableFamily::Ip6);
        self.chains = found.iter().filter(shown).map(|chain| self.shown(chain, is_settled(&chain))).collect();
        self.tables = found.iter().map(|chain| chain.table.clone()).collect();
        unseen.into_iter().next().map_or(Ok(()), |(_, err)| Err(err))
    }

    /// Takes our rules out of all chains of others, or out of all but those whose error it answers.
    pub(crate) fn remove(&mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let found = self.look(socket)?;
        let (steps, unseen) = self.steps(socket, &found, |_| None);
        let refusals = apply(socket, &steps);
        self.chains.clear();
        refusals.into_iter().chain(unseen).next().map_or(Ok(()), |(_, err)| Err(err))
    }

    /// What is to be done in each chain that is to have the rule with the comment `wanted`, or none.
    fn steps<'a>(
        &self,
        socket: &mut Socket,
        found: &'a [ForwardChain],
        wanted: impl Fn(&ForwardChain) -> Option<String>,
    ) -> (Vec<(&'a ForwardChain, Step)>, Refusals<'a>) {
        let (mut steps, mut unseen) = (Vec::with_capacity(found.len()), Vec::new());
        for chain in found {
            match guest::rules(socket, chain) {
                Ok(rules) => steps.push((chain, plan(wanted(chain), &self.name, &rules))),
                Err(err) => unseen.push((chain, err)),
            }
        }
        (steps, unseen)
    }

    /// The chains of others that drop.
    pub(crate) fn chains(&self) -> &[ForeignChain] {
        &self.chains
    }

    /// What a change of somebody else's asks for.
    pub(crate) fn due(&self, change: &Change) -> Due {
        match change {
            Change::Lost => Due::Rewrite,
            Change::Of { table, .. } if table.starts_with(&self.name) => Due::Rewrite,
            Change::Of { what: Changed::Table | Changed::BaseChain, .. } => Due::Look,
            Change::Of { table, what: Changed::Removed } if self.tables.contains(table) => Due::Look,
            Change::Of { .. } => Due::Nothing,
        }
    }

    fn wants(&self, chain: &ForwardChain, ipv6: bool) -> bool {
        chain.drops && !self.host_firewall && !is_of_ours(chain) && (ipv6 || chain.family != TableFamily::Ip6)
    }

    /// The comment of the rule that a chain is to have.
    fn comment(&self, chain: &ForwardChain, ipv6: bool) -> Option<String> {
        let of_both = chain.family == TableFamily::Inet && !ipv6;
        let comment = if of_both { format!("{}{OF_IPV4}", self.name) } else { self.name.clone() };
        self.wants(chain, ipv6).then_some(comment)
    }

    fn shown(&self, chain: &ForwardChain, settled: bool) -> ForeignChain {
        let passage = match (self.host_firewall, settled) {
            (true, _) => Passage::Left,
            (false, true) => Passage::Placed,
            (false, false) => Passage::Refused,
        };
        ForeignChain { chain: chain.to_string(), passage }
    }
}

/// All in one transaction; where somebody refuses (a table may have an owner), each chain by itself. Answers who refused.
fn apply<'a>(socket: &mut Socket, steps: &[(&'a ForwardChain, Step)]) -> Refusals<'a> {
    let commit = |socket: &mut Socket, steps: &[(&ForwardChain, Step)]| {
        let mut change = GuestTransaction::default();
        for (chain, step) in steps {
            if let Some(comment) = &step.insert {
                change.insert(chain, step.behind, &accept_marked(chain, comment.ends_with(OF_IPV4)), comment);
            }
            step.delete.iter().for_each(|handle| change.delete(chain, *handle));
        }
        change.commit(socket)
    };
    if commit(socket, steps).is_ok() {
        return Vec::new();
    }
    let alone = |one: &[(&'a ForwardChain, Step)]| Some((one[0].0, commit(socket, one).err()?));
    steps.chunks(1).filter_map(alone).collect()
}

/// The rule is right wherever it stands, but before the users' chain.
fn plan(wanted: Option<String>, name: &str, rules: &[GuestRule]) -> Step {
    let of_users = |rule: &GuestRule| rule.jumps_to.as_deref() == Some(CHAIN_OF_USERS);
    let behind = rules.iter().rposition(of_users);
    let is_ours = |comment: &str| matches!(comment.strip_prefix(name), Some("" | OF_IPV4));
    let ours = || rules.iter().enumerate().filter(|(_, rule)| rule.comment.as_deref().is_some_and(is_ours));
    let is_right = |at: usize, rule: &GuestRule| rule.comment == wanted && behind.is_none_or(|of_users| of_users < at);
    let kept = ours().find(|(at, rule)| is_right(*at, rule)).map(|(_, rule)| rule.handle);
    Step {
        behind: behind.map(|at| rules[at].handle),
        delete: ours().map(|(_, rule)| rule.handle).filter(|handle| Some(*handle) != kept).collect(),
        insert: wanted.filter(|_| kept.is_none()),
    }
}

/// They let the mark pass by themselves.
fn is_of_ours(chain: &ForwardChain) -> bool {
    chain.table.starts_with(TABLES_OF_OURS)
}

/// `[meta nfproto ipv4] meta mark & MARK == MARK counter accept`; in the chains of iptables in its own form, without which it could neither show nor save
/// them rightly.
fn accept_marked(chain: &ForwardChain, of_ipv4: bool) -> Vec<Expression> {
    let is_of_iptables =
        chain.family != TableFamily::Inet && (chain.table.as_str(), chain.name.as_str()) == ("filter", "FORWARD");
    let mut rule = if of_ipv4 { rule::is_of(Family::Ipv4).to_vec() } else { Vec::new() };
    match is_of_iptables {
        true => rule.push(Expression::IptablesMark { bits: MARK }),
        false => rule.extend(rule::has_mark(MARK)),
    }
    rule.extend([Expression::Count, Expression::Verdict(Verdict::Accept)]);
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: TableFamily, table: &str, drops: bool) -> ForwardChain {
        ForwardChain { family, table: table.to_owned(), name: "FORWARD".to_owned(), drops }
    }

    fn rule(handle: u64, comment: Option<&str>, jumps_to: Option<&str>) -> GuestRule {
        GuestRule { handle, comment: comment.map(str::to_owned), jumps_to: jumps_to.map(str::to_owned) }
    }

    fn step(insert: Option<&str>, behind: Option<u64>, delete: &[u64]) -> Step {
        Step { insert: insert.map(str::to_owned), behind, delete: delete.to_vec() }
    }

    #[test]
    fn a_chain_has_one_rule_of_ours_or_none() {
        let (all, of_ipv4) = (Some("longshore-1"), Some("longshore-1 ipv4"));
        let plan = |wanted: Option<&str>, rules: &[(u64, Option<&str>)]| {
            let rules: Vec<_> = rules.iter().map(|(handle, comment)| rule(*handle, *comment, Some("OTHER"))).collect();
            super::plan(wanted.map(str::to_owned), "longshore-1", &rules)
        };
        assert_eq!(plan(all, &[]), step(all, None, &[]));
        assert_eq!(plan(all, &[(6, None), (7, all)]), step(None, None, &[]));
        assert_eq!(plan(all, &[(7, all), (8, all), (9, all)]), step(None, None, &[8, 9]));
        assert_eq!(plan(None, &[(7, Some("theirs")), (8, Some("longshore-12"))]), step(None, None, &[]));
        assert_eq!(plan(None, &[(7, all), (8, of_ipv4)]), step(None, None, &[7, 8]));
        // While we have no table of IPv6, and again when we have one.
        assert_eq!(plan(of_ipv4, &[(7, all)]), step(of_ipv4, None, &[7]));
        assert_eq!(plan(all, &[(7, of_ipv4)]), step(all, None, &[7]));
    }

    #[test]
    fn the_rule_stands_behind_what_users_have_dockers_chain_for() {
        let ours = Some("longshore-1");
        let plan = |rules: &[GuestRule]| super::plan(ours.map(str::to_owned), "longshore-1", rules);
        let users = |handle| rule(handle, None, Some("DOCKER-USER"));
        let other = |handle| rule(handle, None, Some("DOCKER-FORWARD"));
        assert_eq!(plan(&[users(3), other(4)]), step(ours, Some(3), &[]));
        assert_eq!(plan(&[other(3), users(4), rule(5, ours, None)]), step(None, Some(4), &[]));
        assert_eq!(plan(&[rule(3, ours, None), users(4)]), step(ours, Some(4), &[3]));
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
