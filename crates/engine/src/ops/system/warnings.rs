//! What `info` warns of: limits that this kernel lacks. The sentences are dockerd's (moby daemon/info_unix.go).

use engine_api::system::Info;
use network::{FirewalldState, ForeignChain, LegacyChain, Passage};

/// The warnings that follow from what `info` says of the machine.
pub(super) fn of_machine(info: &Info) -> Vec<String> {
    let v1 = info.cgroup_version == "1";
    let lacks = [
        (!info.memory_limit, "No memory limit support"),
        (!info.swap_limit, "No swap limit support"),
        // Version 2 has neither of these, and nobody can do anything about that.
        (!info.kernel_memory_tcp && v1, "No kernel memory TCP limit support"),
        (!info.oom_kill_disable && v1, "No oom kill disable support"),
        (!info.cpu_cfs_quota, "No cpu cfs quota support"),
        (!info.cpu_cfs_period, "No cpu cfs period support"),
        (!info.cpu_shares, "No cpu shares support"),
        (!info.cpu_set, "No cpuset support"),
        (!info.ipv4_forwarding, "IPv4 forwarding is disabled"),
    ];
    lacks.iter().filter(|(lacking, _)| *lacking).map(|(_, what)| format!("WARNING: {what}")).collect()
}

/// The warnings about chains of others that drop what containers send and get. These sentences are ours.
pub(super) fn of_chains(chains: &[ForeignChain]) -> impl Iterator<Item = String> {
    chains.iter().filter_map(|ForeignChain { chain, passage }| {
        let what = match passage {
            Passage::Placed => return None,
            Passage::Left => format!(
                "unless it has rules for them (host-firewall): for each bridge `nft insert rule {chain} iifname BRIDGE accept` and \
                 `nft insert rule {chain} oifname BRIDGE accept`, or switch host-firewall off"
            ),
            // Whoever owns the table adds it himself.
            Passage::Refused => "and lets nobody add a rule: have its owner add `meta mark & 0x08000000 == 0x08000000 accept`, \
                                 or make its policy accept"
                .to_owned(),
        };
        Some(format!("WARNING: nft chain {chain} drops what containers send and get, {what}"))
    })
}

/// The warnings about bridges that are not in our zone of firewalld. These sentences are ours, too.
pub(super) fn of_firewalld(state: &FirewalldState) -> impl Iterator<Item = String> {
    let fault = state.fault.as_ref().map(|fault| {
        format!("WARNING: firewalld may refuse what containers send and get: bridges cannot be put into its zone docker: {fault}")
    });
    let elsewhere = state.elsewhere.iter().map(|(bridge, zone)| {
        format!(
            "WARNING: firewalld has bridge {bridge} in the zone {zone}, which decides what its containers send and get: \
             `firewall-cmd --permanent --zone={zone} --remove-interface={bridge}` and `firewall-cmd --reload` leave it to the zone docker"
        )
    });
    fault.into_iter().chain(elsewhere)
}

/// The warning about a chain of iptables-legacy, in which no rule of ours can be placed.
pub(super) fn of_legacy(chain: &LegacyChain) -> String {
    let (program, bridges) = (chain.program, chain.bridges.join(", "));
    format!(
        "WARNING: chain FORWARD of {program} drops what containers on {bridges} send and get, unless it jumps to a rule that \
         accepts it: for each bridge `{program} -I FORWARD -i BRIDGE -j ACCEPT` and `{program} -I FORWARD -o BRIDGE -j ACCEPT`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_iptables_legacy_drops_is_told_with_what_to_do() {
        let bridges = ["br-1", "br-2"].map(str::to_owned).to_vec();
        let told = of_legacy(&LegacyChain { program: "ip6tables-legacy", bridges });
        assert!(
            told.starts_with("WARNING: chain FORWARD of ip6tables-legacy drops what containers on br-1, br-2 "),
            "{told}"
        );
        assert!(told.contains("`ip6tables-legacy -I FORWARD -o BRIDGE -j ACCEPT`"), "{told}");
    }

    #[test]
    fn what_keeps_bridges_out_of_our_zone_is_told() {
        let told = |state| of_firewalld(&state).collect::<Vec<_>>();
        assert_eq!(told(FirewalldState { running: true, ..FirewalldState::default() }), [""; 0]);
        let fault = FirewalldState { fault: Some("it does not answer".to_owned()), ..FirewalldState::default() };
        assert!(told(fault)[0].ends_with("into its zone docker: it does not answer"));
        let elsewhere = vec![("br0".to_owned(), "trusted".to_owned())];
        let told = told(FirewalldState { elsewhere, ..FirewalldState::default() });
        assert!(told[0].starts_with("WARNING: firewalld has bridge br0 in the zone trusted, "), "{told:?}");
        assert!(told[0].contains("`firewall-cmd --permanent --zone=trusted --remove-interface=br0`"), "{told:?}");
    }

    #[test]
    fn chains_that_drop_are_told_unless_our_rule_is_in_them() {
        let told = |passage| of_chains(&[ForeignChain { chain: "ip filter FORWARD".to_owned(), passage }]).next();
        assert_eq!(told(Passage::Placed), None);
        let start = "WARNING: nft chain ip filter FORWARD drops what containers send and get, ";
        let says = |passage, what: &str| {
            let told = told(passage).unwrap();
            assert!(told.starts_with(start) && told.contains(what), "{told}");
        };
        says(Passage::Left, "`nft insert rule ip filter FORWARD iifname BRIDGE accept`");
        says(Passage::Left, "or switch host-firewall off");
        says(Passage::Refused, "`meta mark & 0x08000000 == 0x08000000 accept`");
    }

    #[test]
    fn what_is_missing_is_told_in_dockerds_order() {
        let whole = Info {
            cgroup_version: "2".to_owned(),
            memory_limit: true,
            swap_limit: true,
            cpu_cfs_quota: true,
            cpu_cfs_period: true,
            cpu_shares: true,
            cpu_set: true,
            ipv4_forwarding: true,
            ..Info::default()
        };
        assert_eq!(of_machine(&whole), [""; 0]);
        let v1 = Info { cgroup_version: "1".to_owned(), swap_limit: false, ipv4_forwarding: false, ..whole };
        let wanted = [
            "WARNING: No swap limit support",
            "WARNING: No kernel memory TCP limit support",
            "WARNING: No oom kill disable support",
            "WARNING: IPv4 forwarding is disabled",
        ];
        assert_eq!(of_machine(&v1), wanted);
    }
}
