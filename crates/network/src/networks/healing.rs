//! What others do to the packet filter, and what is done about it.

use std::os::fd::{AsFd, BorrowedFd};

use netlink::nft::watch::Watch;

use super::{Networks, lock};
use crate::error::NetworkError;
use crate::foreign::ForeignChain;

/// Who hears what others change in the packet filter. Its descriptor is readable when [`Healer::heal`] is due.
#[derive(Debug)]
pub struct Healer {
    watch: Watch,
}

impl Healer {
    /// Begins to listen, in the calling thread's network namespace.
    pub fn listen(networks: &Networks) -> Result<Healer, NetworkError> {
        Ok(Healer { watch: lock(&networks.firewall).watch()? })
    }

    /// Reads what has been told, and makes good what others have changed of ours. Blocks only as long as the kernel works.
    pub fn heal(&mut self, networks: &Networks) -> Result<(), NetworkError> {
        let wired = lock(&networks.wired).clone();
        let mut firewall = lock(&networks.firewall);
        let due = firewall.told(&mut self.watch)?;
        // Without it nothing of ours is there; whoever needs it first writes everything.
        let Some(wired) = wired else { return Ok(()) };
        Ok(firewall.heal(due, &networks.rules(&wired.record), || networks.state().redirections())?)
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
