//! Who is on the bridge, in memory.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use crate::addresses::{Addresses, NoAddress};
use crate::firewall::Redirection;
use crate::hold::{Hold, hold};
use crate::ports::Ports;
use crate::record::EndpointRecord;
use crate::subnet::Subnet;

/// An endpoint and what is held for it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: EndpointRecord,
    pub(super) holds: Vec<Hold>,
}

impl Entry {
    /// Where its published ports lead.
    pub(super) fn redirections(&self) -> Vec<Redirection> {
        self.record.ports.iter().map(|published| (*published, self.record.address)).collect()
    }
}

/// Who is on the bridge, and what is given out.
#[derive(Debug)]
pub(super) struct Endpoints {
    entries: HashMap<String, Entry>,
    /// Containers whose join or leave is under way.
    busy: HashSet<String>,
    /// What the packet filter has, or is about to have, of each container.
    pub(super) published: HashMap<String, Vec<Redirection>>,
    /// None until the network is known.
    addresses: Option<Addresses>,
    pub(super) ports: Ports,
}

impl Endpoints {
    pub(super) fn new(any_ports: (u16, u16), records: Vec<EndpointRecord>) -> Endpoints {
        let mut ports = Ports::new(any_ports);
        records.iter().flat_map(|record| &record.ports).for_each(|published| ports.note(published));
        let entry = |record: EndpointRecord| (record.container.clone(), Entry { record, holds: Vec::new() });
        let entries: HashMap<_, _> = records.into_iter().map(entry).collect();
        let redirections = |(container, entry): (&String, &Entry)| (container.clone(), entry.redirections());
        let published = entries.iter().map(redirections).filter(|(_, list)| !list.is_empty()).collect();
        Endpoints { entries, busy: HashSet::new(), published, addresses: None, ports }
    }

    /// Says which addresses there are; those of the endpoints are taken.
    pub(super) fn set_network(&mut self, gateway: Subnet, range: Option<Subnet>) {
        let mut addresses = Addresses::new(gateway, range, gateway.address);
        for entry in self.entries.values() {
            // One outside of a network that was changed meanwhile is in nobody's way.
            let _ = addresses.take(Some(entry.record.address));
        }
        self.addresses = Some(addresses);
    }

    /// Takes an address for a container; `None` if it is on the network or about to be.
    pub(super) fn take_address(
        &mut self,
        container: &str,
        wanted: Option<Ipv4Addr>,
    ) -> Option<Result<Ipv4Addr, NoAddress>> {
        if self.entries.contains_key(container) || self.busy.contains(container) {
            return None;
        }
        let taken = self.addresses.as_mut().map_or(Err(NoAddress::Exhausted), |addresses| addresses.take(wanted));
        if taken.is_ok() {
            self.busy.insert(container.to_owned());
        }
        Some(taken)
    }

    pub(super) fn record(&self, container: &str) -> Option<&EndpointRecord> {
        self.entries.get(container).map(|entry| &entry.record)
    }

    pub(super) fn insert(&mut self, container: String, entry: Entry) {
        self.busy.remove(&container);
        self.entries.insert(container, entry);
    }

    /// Takes an endpoint out. What it had stays taken until [`Endpoints::release`].
    pub(super) fn remove(&mut self, container: &str) -> Option<Entry> {
        let entry = self.entries.remove(container)?;
        self.busy.insert(container.to_owned());
        Some(entry)
    }

    /// Takes an endpoint out with all that it had.
    pub(super) fn forget(&mut self, container: &str) {
        if let Some(entry) = self.remove(container) {
            self.published.remove(container);
            self.release(&entry.record);
        }
    }

    /// Gives back what an endpoint had.
    pub(super) fn release(&mut self, record: &EndpointRecord) {
        self.busy.remove(&record.container);
        record.ports.iter().for_each(|published| self.ports.release(published));
        if let Some(addresses) = &mut self.addresses {
            addresses.release(record.address);
        }
    }

    /// Holds the ports of endpoints from an earlier daemon again, where nobody does.
    pub(super) fn hold_again(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| entry.holds.is_empty()) {
            for published in &entry.record.ports {
                match hold(published).and_then(|held| held.map(|held| held.seal().map(|()| held)).transpose()) {
                    Ok(held) => entry.holds.extend(held),
                    // Whoever stayed beside the container holds it. Or another program was quicker while no daemon ran:
                    // the redirection wins over it.
                    Err(errno) => tracing::debug!(%errno, ?published, "a published port could not be held again"),
                }
            }
        }
    }

    pub(super) fn redirections(&self) -> Vec<Redirection> {
        self.published.values().flatten().copied().collect()
    }

    pub(super) fn containers(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    pub(super) fn interfaces(&self) -> HashSet<String> {
        self.entries.values().map(|entry| entry.record.interface.clone()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.busy.is_empty()
    }
}
