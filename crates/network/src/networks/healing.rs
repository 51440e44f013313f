//! What others do to the packet filter, and what is done about it.

use std::os::fd::{AsFd, BorrowedFd};

use netlink::nft::watch::Watch;

use super::{Networks, lock, ports};
use crate::error::NetworkError;
use crate::firewalld::FirewalldState;
use crate::foreign::{Due, ForeignChain};
use crate::legacy::{self, LegacyChain};

/// Who hears what others change in the packet filter. Its descriptor is readable when [`Healer::heal`] is due.
#[derive(Debug)]
pub struct Healer {
    watch: Watch,
    /// What was told and is not made good yet.
    due: Due,
}

impl Healer {
    /// Begins to listen, in the calling thread's network namespace. Blocks while somebody changes the packet filter.
    pub fn listen(networks: &Networks) -> Result<Healer, NetworkError> {
        Ok(Healer { watch: lock(&networks.firewall).watch()?, due: Due::Nothing })
    }

    /// Reads what has been told, and makes good what others have changed of ours. After an error the same is due still: call it
    /// again, although nothing is readable. Blocks only as long as the kernel works.
    pub fn heal(&mut self, networks: &Networks) -> Result<(), NetworkError> {
        let wired = lock(&networks.wired).clone();
        let mut firewall = lock(&networks.firewall);
        let guarded = *lock(&networks.guarded);
        // Where that fails everything may be different.
        let told = firewall.told(&mut self.watch);
        self.due = self.due.max(*told.as_ref().unwrap_or(&Due::Rewrite));
        // Without it nothing of ours is there but a guard, perhaps; whoever needs it first writes everything.
        if let Some(wired) = wired {
            firewall.heal(self.due, &networks.rules(&wired.record), || networks.state().redirections())?;
            if self.due == Due::Rewrite {
                firewall.replace_egress()?;
                ports::forget_stranded(&mut firewall, &networks.state().redirections(), &networks.route)?;
            }
        } else if self.due == Due::Rewrite {
            firewall.guard_alone(guarded)?;
        }
        if self.due != Due::Nothing {
            networks.firewalld.look();
        }
        self.due = Due::Nothing;
        told?;
        Ok(())
    }
}

impl AsFd for Healer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

/// Chains of others that drop what is forwarded, as they were when somebody last changed something.
pub fn foreign_chains(networks: &Networks) -> Vec<ForeignChain> {
    lock(&networks.firewall).foreign_chains().to_vec()
}

/// What is known of the machine's firewalld.
pub fn firewalld_state(networks: &Networks) -> FirewalldState {
    networks.firewalld.state()
}

/// Chains of iptables-legacy that drop what containers send or get, as they are now. Nobody tells of their changes.
pub fn legacy_chains(networks: &Networks) -> Vec<LegacyChain> {
    let Some(wired) = lock(&networks.wired).clone() else { return Vec::new() };
    let rules = networks.rules(&wired.record);
    let bridges: Vec<_> = rules.bridges.iter().filter(|one| !one.internal).map(|one| one.bridge.clone()).collect();
    legacy::chains(&bridges, rules.has_ipv6())
}
