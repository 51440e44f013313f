//! The tables of egress policies, changed through the same socket: what we change ourselves is no change of others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use netlink::NetlinkError;

use super::Firewall;
use crate::egress::{EgressError, Guarded};

impl Firewall {
    /// A container has these endpoints with a policy, and no others.
    pub(crate) fn set_egress(&mut self, container: &str, guarded: Vec<Guarded>) -> Result<(), NetlinkError> {
        self.egress.set(&mut self.socket, container, guarded)
    }

    /// Takes over what an earlier process has left.
    pub(crate) fn restore_egress(&mut self, endpoints: HashMap<String, Vec<Guarded>>) -> Result<(), NetlinkError> {
        self.egress.restore(&mut self.socket, endpoints)
    }

    /// Writes all of it anew.
    pub(crate) fn replace_egress(&mut self) -> Result<(), NetlinkError> {
        self.egress.replace(&mut self.socket)
    }

    /// Opens what a name has led to, for a container.
    pub(crate) fn open_egress(
        &mut self,
        (container, name): (&str, &str),
        addresses: &[(IpAddr, Duration)],
    ) -> Result<(), EgressError> {
        self.egress.open(&mut self.socket, (container, name), addresses)
    }

    /// Tells a group of packets of what is denied.
    pub(crate) fn tell_denials(&mut self, group: u16) -> Result<(), NetlinkError> {
        self.egress.tell_to(&mut self.socket, group)
    }
}
