//! Who is on which network, in memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink::Socket;

use crate::addresses::{Addresses, NoAddress};
use crate::firewall::Redirection;
use crate::hold::{Hold, hold};
use crate::later::Later;
use crate::parent::Lent;
use crate::ports::{Ports, Published};
use crate::record::{EndpointRecord, SandboxRecord};

/// A container's endpoints and what is held for them.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: SandboxRecord,
    pub(super) holds: Vec<Hold>,
    /// A socket in the container's namespace, of one that has links there which nothing on this machine belongs to.
    pub(super) inside: Option<Socket>,
    /// It has left, and the kernel has something of it still: what it had is nobody else's until that is gone.
    pub(super) left: bool,
}

impl Entry {
    /// One without any endpoint.
    pub(super) fn new(container: &str) -> Entry {
        let record = SandboxRecord {
            container: container.to_owned(),
            sandbox_id: stdx::id::random_hex::<32>(),
            ports: Vec::new(),
            endpoints: Vec::new(),
            wanted: Vec::new(),
            egress: None,
            exposed: Vec::new(),
            links: Vec::new(),
            relays_loopback: false,
        };
        Entry { record, holds: Vec::new(), inside: None, left: false }
    }

    /// What holds its ports.
    pub(super) fn held(&self) -> HashMap<&Published, &Hold> {
        self.holds.iter().map(|held| (held.published(), held)).collect()
    }

    /// Where its published ports lead.
    pub(super) fn redirections(&self) -> Vec<Redirection> {
        self.redirections_of(&self.record.ports)
    }

    /// Where these ports would lead if it published them.
    pub(super) fn redirections_of(&self, ports: &[Published]) -> Vec<Redirection> {
        let to = |published: &Published| Some((*published, self.record.ruled_target(published)?));
        ports.iter().filter_map(to).collect()
    }

    /// Takes the ports out that lead nowhere any more, and releases what holds them.
    pub(super) fn release_unled(&mut self, is_relayed: impl Fn(&Published) -> bool) -> Vec<Published> {
        let Entry { record, holds, .. } = self;
        // What rules led to one family is nothing that a relay could listen to: its socket drops packets.
        let leads = |published: &Published| match record.relayed_target(published) {
            Some(_) => is_relayed(published),
            None => record.ruled_target(published).is_some(),
        };
        holds.extract_if(.., |hold| !leads(hold.published())).for_each(Hold::release);
        let (kept, gone) = record.ports.iter().copied().partition(leads);
        record.ports = kept;
        gone
    }
}

/// The addresses of one endpoint.
pub(super) type Pair = (Option<Ipv4Addr>, Option<Ipv6Addr>);

/// Why an endpoint gets no address, and of which family.
pub(super) type NoPair = (NoAddress, &'static str);

/// Who is on which network, and what is given out.
#[derive(Debug)]
pub(super) struct Endpoints {
    entries: HashMap<String, Entry>,
    /// Containers whose join or leave is under way, and their networks.
    busy: HashMap<String, Vec<String>>,
    /// What the packet filter has, or is about to have, of each container that has any of it.
    pub(super) published: HashMap<String, Vec<Redirection>>,
    /// Of each network that is known.
    addresses: HashMap<String, Vec<Addresses>>,
    pub(super) ports: Ports,
    /// What holds ports of long ranges.
    later: Later,
}

impl Endpoints {
    pub(super) fn new(any_ports: (u16, u16), records: Vec<SandboxRecord>, later: Later) -> Endpoints {
        let mut ports = Ports::new(any_ports);
        records.iter().flat_map(|record| &record.ports).for_each(|published| ports.note(published));
        let entry = |record: SandboxRecord| {
            (record.container.clone(), Entry { record, holds: Vec::new(), inside: None, left: false })
        };
        let entries: HashMap<_, _> = records.into_iter().map(entry).collect();
        let redirections = |(container, entry): (&String, &Entry)| (container.clone(), entry.redirections());
        let published = entries.iter().map(redirections).filter(|(_, list)| !list.is_empty()).collect();
        Endpoints { entries, busy: HashMap::new(), published, addresses: HashMap::new(), ports, later }
    }

    /// Says which addresses a network has; those of its endpoints are taken.
    pub(super) fn set_network(&mut self, network: &str, mut addresses: Vec<Addresses>) {
        let endpoints = self.entries.values().filter_map(|entry| entry.record.on(network));
        for taken in endpoints.flat_map(EndpointRecord::addresses) {
            for family in addresses.iter_mut().filter(|family| family.is_ipv6() == taken.is_ipv6()) {
                // One outside of a network that was changed meanwhile is in nobody's way.
                let _ = family.take(Some(taken));
            }
        }
        self.addresses.insert(network.to_owned(), addresses);
    }

    /// Forgets the addresses of a network, so that nobody joins it any more, unless somebody is on it.
    pub(super) fn forget_unused(&mut self, network: &str) -> bool {
        // Before the bridges are set up no addresses are known, but the records are.
        let unused = self.addresses.get(network).is_none_or(|addresses| addresses.iter().all(Addresses::is_unused))
            && self.entries.values().all(|entry| entry.record.on(network).is_none())
            && !self.busy.values().flatten().any(|one| one == network);
        if unused {
            self.addresses.remove(network);
        }
        unused
    }

    /// A network is gone.
    pub(super) fn forget_network(&mut self, network: &str) {
        self.addresses.remove(network);
    }

    /// Begins the join of a container that is on no network and not about to be, to these networks.
    pub(super) fn begin<'a>(&mut self, container: &str, networks: impl Iterator<Item = &'a str>) -> bool {
        let free = !self.entries.contains_key(container) && !self.busy.contains_key(container);
        if free {
            self.busy.insert(container.to_owned(), networks.map(str::to_owned).collect());
        }
        free
    }

    /// Takes an address of each family that a network has; on an error none.
    pub(super) fn take_addresses(&mut self, network: &str, wanted: Pair) -> Result<Pair, NoPair> {
        let Some(families) = self.addresses.get_mut(network) else { return Err((NoAddress::Exhausted, "IPv4")) };
        let mut taken: Vec<IpAddr> = Vec::new();
        for (ipv6, named) in [(false, "IPv4"), (true, "IPv6")] {
            let wanted = if ipv6 { wanted.1.map(IpAddr::V6) } else { wanted.0.map(IpAddr::V4) };
            match take_one(families.iter_mut().filter(|family| family.is_ipv6() == ipv6), wanted) {
                Some(Ok(address)) => taken.push(address),
                // The network has no such addresses.
                None => {}
                Some(Err(reason)) => {
                    // Those of another range know nothing of it.
                    families.iter_mut().for_each(|family| taken.iter().for_each(|address| family.release(*address)));
                    return Err((reason, named));
                }
            }
        }
        let mut pair: Pair = (None, None);
        for address in taken {
            match address {
                IpAddr::V4(address) => pair.0 = Some(address),
                IpAddr::V6(address) => pair.1 = Some(address),
            }
        }
        Ok(pair)
    }

    /// Gives the addresses of an endpoint back.
    pub(super) fn release_addresses(&mut self, endpoint: &EndpointRecord) {
        for family in self.addresses.get_mut(&endpoint.network).into_iter().flatten() {
            // Those of the other family it does not know.
            endpoint.addresses().for_each(|address| family.release(address));
        }
    }

    /// Of a container that is on its networks.
    pub(super) fn record(&self, container: &str) -> Option<&SandboxRecord> {
        self.entries.get(container).filter(|entry| !entry.left).map(|entry| &entry.record)
    }

    /// Containers that have left, and of which the kernel has something still.
    pub(super) fn left(&self) -> Vec<String> {
        let left = self.entries.iter().filter(|(_, entry)| entry.left);
        left.map(|(container, _)| container.clone()).collect()
    }

    /// Keeps a socket in the namespace of a container, if that one needs it.
    pub(super) fn enter(&mut self, container: &str, socket: Socket) {
        if let Some(entry) = self.entries.get_mut(container) {
            entry.inside = Some(socket);
        }
    }

    /// What these containers have of the machine's.
    pub(super) fn lent(&self, containers: &[String]) -> Vec<Lent> {
        let records = containers.iter().filter_map(|container| Some(&self.entries.get(container)?.record));
        records.flat_map(|record| &record.endpoints).filter_map(|endpoint| endpoint.lent.clone()).collect()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &SandboxRecord> {
        self.all().map(|entry| &entry.record)
    }

    /// Of containers that are on their networks.
    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(|entry| !entry.left)
    }

    pub(super) fn insert(&mut self, container: String, entry: Entry) {
        self.busy.remove(&container);
        self.entries.insert(container, entry);
    }

    /// Takes a container out. What it had stays taken until [`Endpoints::release`].
    pub(super) fn remove(&mut self, container: &str) -> Option<Entry> {
        self.take_out(container, std::iter::empty())
    }

    /// Likewise of one that is about to be on these networks, too.
    pub(super) fn take_out<'a>(&mut self, container: &str, more: impl Iterator<Item = &'a str>) -> Option<Entry> {
        let entry = self.entries.remove(container)?;
        let on = entry.record.endpoints.iter().map(|endpoint| endpoint.network.clone());
        let networks = on.chain(more.map(str::to_owned)).collect();
        self.busy.insert(container.to_owned(), networks);
        Some(entry)
    }

    /// Says what the packet filter has of a container, or is about to have; answers what it had.
    pub(super) fn set_published(&mut self, container: &str, now: Vec<Redirection>) -> Vec<Redirection> {
        let before = match now.is_empty() {
            true => self.published.remove(container),
            false => self.published.insert(container.to_owned(), now),
        };
        before.unwrap_or_default()
    }

    /// Takes a container out with all that it had.
    pub(super) fn forget(&mut self, container: &str) {
        if let Some(entry) = self.remove(container) {
            self.published.remove(container);
            self.release(&entry.record);
        }
    }

    /// Gives a port back: no hold outlives it that is taken behind an answer.
    pub(super) fn give_back(&mut self, published: &Published) {
        self.later.release(published);
        self.ports.release(published);
    }

    /// Gives back what a container had.
    pub(super) fn release(&mut self, record: &SandboxRecord) {
        self.busy.remove(&record.container);
        record.ports.iter().for_each(|published| self.give_back(published));
        for endpoint in &record.endpoints {
            self.release_addresses(endpoint);
        }
    }

    /// Holds the ports of endpoints from an earlier daemon again, where nobody does.
    pub(super) fn hold_again(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| entry.holds.is_empty()) {
            let record = &entry.record;
            // The relay has the sockets of its own.
            let by_rules = |one: &&Published| !one.is_opened() && record.relayed_target(one).is_none();
            for published in record.ports.iter().filter(by_rules) {
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

    /// The network of each interface on the host.
    pub(super) fn interfaces(&self) -> HashMap<String, String> {
        let endpoints = self.entries.values().flat_map(|entry| &entry.record.endpoints);
        endpoints
            .filter(|endpoint| !endpoint.inside)
            .map(|endpoint| (endpoint.interface.clone(), endpoint.network.clone()))
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.busy.is_empty()
    }
}

/// Takes an address of one of these ranges: the wanted one where it belongs to one, or one of the first that has any. `None`
/// where there are no ranges.
fn take_one<'a>(
    ranges: impl Iterator<Item = &'a mut Addresses>,
    wanted: Option<IpAddr>,
) -> Option<Result<IpAddr, NoAddress>> {
    let mut refused = None;
    for range in ranges {
        match range.take(wanted) {
            Ok(address) => return Some(Ok(address)),
            // Of the range that it belongs to.
            Err(NoAddress::Taken) => return Some(Err(NoAddress::Taken)),
            Err(reason) => refused = Some(Err(reason)),
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_with_records_is_in_use_also_while_its_addresses_are_unknown() {
        let endpoint = EndpointRecord {
            network: "n".to_owned(),
            network_name: "name".to_owned(),
            internal: false,
            endpoint_id: String::new(),
            ipv4: Some(Ipv4Addr::new(10, 0, 0, 2)),
            ipv6: None,
            link_local: Vec::new(),
            mac: None,
            interface: String::new(),
            interface_index: 0,
            inner: "eth0".to_owned(),
            inside: false,
            lent: None,
            gateway_priority: 0,
            routed: [false; 2],
        };
        let record = SandboxRecord { endpoints: vec![endpoint], ..Entry::new("c").record };
        let mut state = Endpoints::new((49153, 65535), vec![record], Later::default());
        assert!(!state.forget_unused("n"));
        assert!(state.forget_unused("other"));
        state.forget("c");
        assert!(state.forget_unused("n"));
    }

    #[test]
    fn an_endpoint_has_both_addresses_or_none() {
        let mut state = Endpoints::new((49153, 65535), Vec::new(), Later::default());
        let family = |text: &str| {
            let gateway: crate::Subnet = text.parse().unwrap();
            Addresses::new(gateway, None, Some(gateway.address))
        };
        state.set_network("n", vec![family("10.0.0.1/24"), family("fd00::1/127")]);
        let first = state.take_addresses("n", (None, None));
        // A network of two addresses has none but its gateway's and its own.
        assert_eq!(first, Err((NoAddress::Exhausted, "IPv6")));
        state.set_network("n", vec![family("10.0.0.1/24"), family("fd00::1/64")]);
        let (ipv4, ipv6) = (Ipv4Addr::new(10, 0, 0, 2), "fd00::2".parse().unwrap());
        assert_eq!(state.take_addresses("n", (None, None)), Ok((Some(ipv4), Some(ipv6))));
        assert_eq!(state.take_addresses("n", (None, Some(ipv6))), Err((NoAddress::Taken, "IPv6")));
        assert_eq!(state.take_addresses("n", (Some(ipv4), None)), Err((NoAddress::Taken, "IPv4")));
        let third = Ipv4Addr::new(10, 0, 0, 3);
        assert_eq!(state.take_addresses("n", (None, None)).unwrap().0, Some(third), "nothing stayed taken");
    }

    #[test]
    fn of_several_ranges_the_first_that_has_an_address_counts() {
        let mut state = Endpoints::new((49153, 65535), Vec::new(), Later::default());
        let range = |text: &str| {
            let gateway: crate::Subnet = text.parse().unwrap();
            Addresses::new(gateway, None, Some(gateway.address))
        };
        state.set_network("n", vec![range("10.0.0.1/30"), range("10.0.1.1/30")]);
        let mut take = |wanted: Option<[u8; 4]>| state.take_addresses("n", (wanted.map(Ipv4Addr::from), None));
        let at = |address: [u8; 4]| Ok((Some(Ipv4Addr::from(address)), None));
        assert_eq!(take(Some([10, 0, 1, 2])), at([10, 0, 1, 2]));
        assert_eq!(take(Some([10, 0, 1, 2])), Err((NoAddress::Taken, "IPv4")));
        assert_eq!(take(Some([10, 0, 2, 2])), Err((NoAddress::Outside, "IPv4")));
        assert_eq!(take(None), at([10, 0, 0, 2]));
        assert_eq!(take(None), Err((NoAddress::Exhausted, "IPv4")));
    }
}
