//! Who is called what: networks, their members, and who may ask about which.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// A container's place on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The container.
    pub container: String,
    /// What others on the network call it. The first is the one that an address is called.
    pub names: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// What the container itself calls others there: its own word, and the name it stands for.
    pub links: BTreeMap<String, String>,
    /// Which of its networks is asked first: the highest.
    pub priority: i64,
}

/// All networks. Names are compared without regard to case, as names of the DNS are.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    networks: HashMap<String, Network>,
    /// The networks of each container in the order in which they are asked.
    clients: HashMap<String, Vec<Membership>>,
}

#[derive(Clone, Debug, Default)]
struct Network {
    name: String,
    internal: bool,
    members: usize,
    names: HashMap<String, Vec<Owner>>,
    reverse: HashMap<IpAddr, Vec<(String, String)>>,
}

/// Who has a name, and where it leads.
#[derive(Clone, Debug)]
struct Owner {
    container: String,
    addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug)]
struct Membership {
    network: String,
    endpoint: Endpoint,
}

impl Zone {
    /// A container is on a network, or is there otherwise than before.
    pub fn connect(&mut self, network_id: &str, network_name: &str, internal: bool, endpoint: Endpoint) {
        self.disconnect(network_id, &endpoint.container);
        let network = self.networks.entry(network_id.to_owned()).or_default();
        network_name.clone_into(&mut network.name);
        network.internal = internal;
        network.members += 1;
        let mut names: Vec<String> = endpoint.names.iter().map(|name| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let owner = Owner { container: endpoint.container.clone(), addresses: endpoint.addresses.clone() };
            network.names.entry(name).or_default().push(owner);
        }
        if let Some(first) = endpoint.names.first() {
            for address in &endpoint.addresses {
                let named = (endpoint.container.clone(), first.clone());
                network.reverse.entry(*address).or_default().push(named);
            }
        }
        let memberships = self.clients.entry(endpoint.container.clone()).or_default();
        memberships.push(Membership { network: network_id.to_owned(), endpoint });
        let networks = &self.networks;
        // dockerd's order of endpoints: priority, networks that lead somewhere, names.
        memberships.sort_by_cached_key(|one| {
            let network = networks.get(&one.network);
            let (internal, name) = (network.is_some_and(|one| one.internal), network.map(|one| one.name.clone()));
            (Reverse(one.endpoint.priority), internal, name)
        });
    }

    /// A container is not on a network any more.
    pub fn disconnect(&mut self, network_id: &str, container: &str) {
        let Some(memberships) = self.clients.get_mut(container) else { return };
        let Some(at) = memberships.iter().position(|one| one.network == network_id) else { return };
        let gone = memberships.remove(at);
        if memberships.is_empty() {
            self.clients.remove(container);
        }
        let Some(network) = self.networks.get_mut(network_id) else { return };
        network.forget(&gone.endpoint);
        if network.members == 0 {
            self.networks.remove(network_id);
        }
    }

    /// A container is nowhere any more.
    pub fn forget(&mut self, container: &str) {
        let memberships = self.clients.get(container).into_iter().flatten();
        let networks: Vec<String> = memberships.map(|one| one.network.clone()).collect();
        networks.iter().for_each(|network| self.disconnect(network, container));
    }

    /// Whether a container is on a network with names.
    pub fn knows(&self, container: &str) -> bool {
        self.clients.contains_key(container)
    }

    /// Whether a container is on a network that leads out: else the host's servers are not asked for it.
    pub fn leads_out(&self, container: &str) -> bool {
        self.of(container).any(|(network, _)| !network.internal)
    }

    /// Where a name leads for a container; `None` where nobody has it.
    pub(crate) fn addresses(&self, container: &str, name: &str) -> Option<Vec<IpAddr>> {
        // `a.b.c` is a name here; or `a.b` in the network `c`; or `a` in the network `b.c`.
        let dots = name.rmatch_indices('.').map(|(at, _)| (&name[..at], Some(&name[at + 1..])));
        let readings = std::iter::once((name, None)).chain(dots);
        readings.into_iter().find_map(|(name, network)| {
            self.look_up(container, name, network, true).or_else(|| self.look_up(container, name, network, false))
        })
    }

    /// What an address is called for a container, with its network behind it.
    pub(crate) fn name_of(&self, container: &str, address: IpAddr) -> Option<String> {
        self.of(container).find_map(|(network, _)| {
            let (_, name) = network.reverse.get(&address)?.first()?;
            Some(format!("{name}.{}", network.name))
        })
    }

    fn of(&self, container: &str) -> impl Iterator<Item = (&Network, &Endpoint)> {
        let memberships = self.clients.get(container).into_iter().flatten();
        memberships.filter_map(|one| Some((self.networks.get(&one.network)?, &one.endpoint)))
    }

    fn look_up(&self, container: &str, name: &str, within: Option<&str>, linked: bool) -> Option<Vec<IpAddr>> {
        let networks = self.of(container);
        let mut networks =
            networks.filter(|(network, _)| within.is_none_or(|within| network.name.eq_ignore_ascii_case(within)));
        networks.find_map(|(network, endpoint)| {
            let links = &mut endpoint.links.iter();
            let link = links.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, target)| target.as_str());
            // The container's own word for somebody hides another one's name, on that network.
            match (linked, link) {
                (true, Some(target)) => network.addresses(target),
                (false, None) => network.addresses(name),
                _ => None,
            }
        })
    }
}

impl Network {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let owners = self.names.get(&name.to_ascii_lowercase())?;
        let mut addresses: Vec<IpAddr> = Vec::with_capacity(owners.len());
        for address in owners.iter().flat_map(|owner| &owner.addresses) {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        // One that has no address is nobody yet.
        (!addresses.is_empty()).then_some(addresses)
    }

    fn forget(&mut self, endpoint: &Endpoint) {
        self.members -= 1;
        for name in endpoint.names.iter().map(|name| name.to_ascii_lowercase()) {
            if let Some(owners) = self.names.get_mut(&name) {
                owners.retain(|owner| owner.container != endpoint.container);
                if owners.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        for address in &endpoint.addresses {
            if let Some(named) = self.reverse.get_mut(address) {
                named.retain(|(container, _)| *container != endpoint.container);
                if named.is_empty() {
                    self.reverse.remove(address);
                }
            }
        }
    }
}
