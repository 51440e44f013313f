//! What is to be asked of firewalld. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// The zone of all bridges: Docker's, which an installed Docker shares with us.
pub(super) const ZONE: &str = "docker";
/// What lets pass what is forwarded to that zone.
pub(super) const POLICY: &str = "docker-forwarding";

/// Something of firewalld's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is in force.
    InForce,
    /// It is kept on disk, and not in force before a reload.
    Kept,
    /// It is not there.
    Missing,
    /// This firewalld is too old to know of such things.
    Unknown,
}

/// What has to be done so that zone and policy are in force, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Founding {
    pub(super) add_zone: bool,
    pub(super) add_policy: bool,
    /// What is kept on disk is to be put in force.
    pub(super) reload: bool,
}

impl Founding {
    /// `reloaded` says that this firewalld has been reloaded by us for what was only kept: it is not asked for it again and again.
    pub(super) fn plan(zone: Presence, policy: Presence, reloaded: bool) -> Founding {
        let add_zone = zone == Presence::Missing;
        let add_policy = policy == Presence::Missing;
        let kept = zone == Presence::Kept || policy == Presence::Kept;
        Founding { add_zone, add_policy, reload: kept && !reloaded }
    }

    /// Whether firewalld is to be reloaded, once the zone has been added where that was due, and the policy perhaps. One that refuses
    /// the policy, and is asked for it again and again, is not: each reload writes all rules of the machine anew.
    pub(super) fn needs_reload(&self, policy_added: bool) -> bool {
        self.add_zone || self.add_policy && policy_added || self.reload
    }
}

/// What has to be done about the bridges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) add: Vec<String>,
    pub(super) remove: Vec<String>,
    /// Bridges that somebody has put into another zone, and which.
    pub(super) elsewhere: Vec<(String, String)>,
}

impl Moves {
    /// `ours` are those that may be there because of us, `present` the interfaces of the zone, `zones` the zones of those wanted that are
    /// not there, where they have any.
    pub(super) fn plan(
        wanted: &BTreeSet<String>,
        ours: &BTreeSet<String>,
        present: &BTreeSet<String>,
        zones: &BTreeMap<String, String>,
    ) -> Moves {
        let mut moves = Moves::default();
        for bridge in wanted.difference(present) {
            match zones.get(bridge) {
                Some(zone) => moves.elsewhere.push((bridge.clone(), zone.clone())),
                None => moves.add.push(bridge.clone()),
            }
        }
        moves.remove = ours.difference(wanted).filter(|bridge| present.contains(*bridge)).cloned().collect();
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::Presence::{InForce, Kept, Missing, Unknown};
    use super::*;

    #[test]
    fn zone_and_policy_are_made_once_and_a_reload_puts_them_in_force() {
        let check = |zone, policy, reloaded, add_zone, add_policy, reload| {
            let planned = Founding::plan(zone, policy, reloaded);
            let is = (planned.add_zone, planned.add_policy, planned.needs_reload(planned.add_policy));
            assert_eq!(is, (add_zone, add_policy, reload), "{zone:?} {policy:?} {reloaded}");
        };
        check(InForce, InForce, false, false, false, false);
        check(Missing, Missing, false, true, true, true);
        check(InForce, Missing, true, false, true, true);
        check(Missing, Unknown, false, true, false, true);
        check(InForce, Unknown, false, false, false, false);
        check(Kept, InForce, false, false, false, true);
        check(Kept, Kept, true, false, false, false);
        // Somebody has taken it away meanwhile.
        check(Missing, Kept, true, true, false, true);
        assert!(!Founding::plan(InForce, Missing, false).needs_reload(false), "the policy is refused each time");
        assert!(Founding::plan(Missing, Missing, false).needs_reload(false), "the zone is new");
    }

    #[test]
    fn bridges_come_and_go_and_stay_where_others_have_put_them() {
        let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        let plan = |wanted: &[&str], ours: &[&str], present: &[&str], zones: &[(&str, &str)]| {
            let zones = zones.iter().map(|(bridge, zone)| ((*bridge).to_owned(), (*zone).to_owned())).collect();
            Moves::plan(&set(wanted), &set(ours), &set(present), &zones)
        };
        assert_eq!(plan(&["a", "b"], &[], &["a"], &[]), Moves { add: names(&["b"]), ..Moves::default() });
        // Of those that are there only ours go, and only if they are still there.
        let gone = plan(&["a"], &["a", "b", "c"], &["a", "b", "docker0"], &[]);
        assert_eq!(gone, Moves { remove: names(&["b"]), ..Moves::default() });
        let trusted = plan(&["a", "b"], &[], &[], &[("a", "trusted")]);
        let elsewhere = vec![("a".to_owned(), "trusted".to_owned())];
        assert_eq!(trusted, Moves { add: names(&["b"]), elsewhere, ..Moves::default() });
        assert_eq!(plan(&[], &[], &["docker0"], &[]), Moves::default());
    }
}
