//! `GET /longshore/exposure`: who reaches which port of which container.
//!
//! ```text
//! survey    where published ports lead, the networks of each container, this machine's addresses
//! judge     who reaches what (pure)
//! ```
//! Told is what our own rules, the relay and the links let through. A firewall of the machine's owner, or of the network
//! around it, may let less through, and neighbours on a container's own networks more: they are what `network inspect` shows.

use std::net::{IpAddr, SocketAddr};

use engine_api::exposure::{ExposedPort, Reach};
use errdefs::ErrorKind;
use network::{DriverKind, GatewayMode, NetworkError, PortAccess, Subnet, UserNetwork};

use crate::Engine;
use crate::container::Container;
use crate::networking::Mode;
use crate::registry::LookupError;

/// Why it is not known who reaches what.
#[derive(Debug, thiserror::Error)]
pub enum ExposureError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The kernel does not tell this machine's addresses.
    #[error("list the addresses of this machine")]
    Addresses(#[source] NetworkError),
}

impl ExposureError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ExposureError::Lookup(err) => err.kind(),
            ExposureError::Addresses(_) => ErrorKind::Internal,
        }
    }
}

/// A running container, as far as it matters who reaches it.
#[derive(Clone, Debug, Default)]
struct Subject {
    id: String,
    name: String,
    /// It has this machine's own network.
    on_host: bool,
    ports: Vec<PortAccess>,
    lans: Vec<Lan>,
}

/// A network of it.
#[derive(Clone, Debug)]
struct Lan {
    name: String,
    /// The link on top of which the container is somebody else's neighbour; none of a bridge.
    parent: Option<String>,
    modes: [GatewayMode; 2],
    leads_nowhere: bool,
    addresses: Vec<IpAddr>,
}

/// Who reaches the ports of one running container, or of all.
pub async fn exposure(engine: &Engine, name: Option<&str>) -> Result<Vec<ExposedPort>, ExposureError> {
    let containers = match name.filter(|name| !name.is_empty()) {
        Some(name) => vec![engine.containers.find(name)?],
        None => engine.containers.all(),
    };
    engine.networking.settled().await;
    let engine = engine.clone();
    bridge::blocking(move || {
        let Some(networks) = engine.networking.bridge() else {
            // Those with this machine's own network are there all the same.
            return Ok(containers.iter().flat_map(|one| judge(&survey(&engine, one, &[]), &[])).collect());
        };
        let host = network::host_addresses(networks).map_err(ExposureError::Addresses)?;
        let users = networks.user_networks();
        let users: Vec<&UserNetwork> = users.iter().map(AsRef::as_ref).collect();
        let mut exposed: Vec<_> =
            containers.iter().flat_map(|one| judge(&survey(&engine, one, &users), &host)).collect();
        exposed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(exposed)
    })
    .await
}

fn survey(engine: &Engine, container: &Container, users: &[&UserNetwork]) -> Subject {
    let (name, running, place) = {
        let live = container.live();
        (live.name.clone(), live.state.is_running(), live.place.clone())
    };
    let id = container.id().to_string();
    let on_host = running && matches!(Mode::of(&container.definition), Mode::Host);
    let Some(place) = place.filter(|_| running) else { return Subject { id, name, on_host, ..Subject::default() } };
    let lan = |endpoint: &network::Endpoint| {
        let user = users.iter().find(|network| network.id == endpoint.network);
        let parent = user.and_then(|network| network.driver.parent()).map(|parent| parent.parent.clone());
        Lan {
            name: user.map_or_else(|| endpoint.network.clone(), |network| network.name.clone()),
            parent: parent.filter(|_| endpoint.driver != DriverKind::Bridge),
            modes: user.map_or([GatewayMode::Nat; 2], |network| network.gateway_modes()),
            leads_nowhere: endpoint.internal,
            addresses: endpoint.addresses().collect(),
        }
    };
    let ports = engine.networking.bridge().map(|networks| network::port_accesses(networks, &id)).unwrap_or_default();
    Subject { id, name, on_host, ports, lans: place.endpoints.iter().map(lan).collect() }
}

/// Who reaches what of a container, on a machine with these addresses. Pure.
fn judge(subject: &Subject, host: &[(String, Subnet)]) -> Vec<ExposedPort> {
    let row = |port: String, address: String, family: &str| ExposedPort {
        id: subject.id.clone(),
        name: subject.name.clone(),
        port,
        address,
        family: family.to_owned(),
        ..ExposedPort::default()
    };
    let mut rows: Vec<ExposedPort> =
        subject.ports.iter().map(|access| published(access, subject, host, &row)).collect();
    for lan in subject.lans.iter().filter(|lan| !lan.leads_nowhere) {
        for address in &lan.addresses {
            let open = lan.modes[usize::from(address.is_ipv6())] == GatewayMode::NatUnprotected;
            let (reach, words, interfaces) = match &lan.parent {
                Some(parent) => {
                    (Reach::Networks, format!("the neighbours of {parent}, this machine apart"), vec![parent.clone()])
                }
                None if open => (Reach::Everybody, routes(*address), Vec::new()),
                None => continue,
            };
            let direct = row("*".to_owned(), address.to_string(), family(*address));
            let (network, by) = (lan.name.clone(), "direct".to_owned());
            rows.push(ExposedPort { network, by, reach, interfaces, reached_from: words, ..direct });
        }
    }
    if subject.on_host {
        let (network, by) = ("host".to_owned(), "direct".to_owned());
        let words = "as far as its programs listen: it has this machine's own network".to_owned();
        let interfaces = outward(host, |_| true);
        let own = row("*".to_owned(), "*".to_owned(), "");
        rows.push(ExposedPort { network, by, reach: Reach::Everybody, interfaces, reached_from: words, ..own });
    }
    rows
}

fn published(
    access: &PortAccess,
    subject: &Subject,
    host: &[(String, Subnet)],
    row: &impl Fn(String, String, &str) -> ExposedPort,
) -> ExposedPort {
    let PortAccess { published, to, relayed } = *access;
    let port = format!("{}/{}", published.container_port, published.protocol);
    let network = subject.lans.iter().find(|lan| lan.addresses.contains(&to)).map(|lan| lan.name.clone());
    let network = network.unwrap_or_default();
    if published.is_opened() {
        let row = row(port, SocketAddr::new(to, published.container_port).to_string(), family(to));
        let (by, reached_from) = ("direct".to_owned(), routes(to));
        return ExposedPort { network, by, reach: Reach::Everybody, reached_from, ..row };
    }
    let here = published.host_address;
    let row = row(port, SocketAddr::new(here, published.host_port).to_string(), family(here));
    let by = if relayed { "relay" } else { "rule" }.to_owned();
    let same_family = |one: &Subnet| one.address.is_ipv4() == here.is_ipv4();
    let (reach, interfaces, reached_from) = if here.is_loopback() {
        (Reach::Host, Vec::new(), "this machine alone".to_owned())
    } else if here.is_unspecified() {
        let interfaces = outward(host, same_family);
        let words =
            if interfaces.is_empty() { "everybody who reaches this machine".to_owned() } else { interfaces.join(", ") };
        (Reach::Everybody, interfaces, words)
    } else {
        let interfaces = outward(host, |one| one.address == here);
        match interfaces.first() {
            Some(interface) => (Reach::Networks, vec![interface.clone()], interface.clone()),
            // One of our bridges has it, or nobody any more.
            None => (Reach::Networks, Vec::new(), format!("whoever reaches {here}")),
        }
    };
    ExposedPort { network, by, reach, interfaces, reached_from, ..row }
}

fn routes(address: IpAddr) -> String {
    format!("everybody with a route to {address}")
}

/// The addresses by which others reach this machine, `eth0 10.9.0.1/24`.
fn outward(host: &[(String, Subnet)], is_meant: impl Fn(&Subnet) -> bool) -> Vec<String> {
    let link_local = |address: IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let others = host.iter().filter(|(_, one)| !one.address.is_loopback() && !link_local(one.address));
    others.filter(|(_, one)| is_meant(one)).map(|(name, one)| format!("{name} {one}")).collect()
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

#[cfg(test)]
mod tests {
    use network::{Protocol, Published};

    use super::*;

    fn access(host: &str, container_port: u16, to: &str, relayed: bool) -> PortAccess {
        let host: SocketAddr = host.parse().unwrap();
        let (host_address, host_port) = (host.ip(), host.port());
        let published = Published { protocol: Protocol::Tcp, container_port, host_address, host_port };
        PortAccess { published, to: to.parse().unwrap(), relayed }
    }

    fn lan(name: &str, mode: GatewayMode, parent: Option<&str>, addresses: &[&str]) -> Lan {
        Lan {
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            modes: [mode; 2],
            leads_nowhere: false,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn judged(subject: &Subject) -> Vec<String> {
        let address = |name: &str, text: &str| (name.to_owned(), text.parse::<Subnet>().unwrap());
        let host = [
            address("lo", "127.0.0.1/8"),
            address("eth0", "10.9.0.1/24"),
            address("eth1", "192.0.2.7/24"),
            address("eth0", "fd09::1/64"),
            address("eth0", "fe80::1/64"),
        ];
        let line = |row: ExposedPort| {
            format!("{} {} {} {} {:?} {}", row.port, row.family, row.address, row.by, row.reach, row.reached_from)
        };
        judge(subject, &host).into_iter().map(line).collect()
    }

    #[test]
    fn who_reaches_a_published_port_is_told_by_its_address() {
        let ports = [
            (access("127.0.0.1:8080", 80, "172.17.0.2", false), "ipv4 127.0.0.1:8080 rule Host this machine alone"),
            (access("[::1]:8080", 80, "172.17.0.2", true), "ipv6 [::1]:8080 relay Host this machine alone"),
            (
                access("0.0.0.0:8080", 80, "172.17.0.2", false),
                "ipv4 0.0.0.0:8080 rule Everybody eth0 10.9.0.1/24, eth1 192.0.2.7/24",
            ),
            (access("[::]:8080", 80, "172.17.0.2", true), "ipv6 [::]:8080 relay Everybody eth0 fd09::1/64"),
            (access("192.0.2.7:8080", 80, "172.17.0.2", false), "ipv4 192.0.2.7:8080 rule Networks eth1 192.0.2.7/24"),
            (
                access("172.18.0.1:8080", 80, "172.17.0.2", false),
                "ipv4 172.18.0.1:8080 rule Networks whoever reaches 172.18.0.1",
            ),
            // Opened at its own address.
            (
                access("0.0.0.0:0", 80, "10.7.0.2", false),
                "ipv4 10.7.0.2:80 direct Everybody everybody with a route to 10.7.0.2",
            ),
            (
                access("[::]:0", 80, "fd07::2", false),
                "ipv6 [fd07::2]:80 direct Everybody everybody with a route to fd07::2",
            ),
        ];
        for (access, wanted) in ports {
            let subject = Subject { ports: vec![access], ..Subject::default() };
            assert_eq!(judged(&subject), [format!("80/tcp {wanted}")]);
        }
    }

    #[test]
    fn who_reaches_all_ports_is_told_by_the_network() {
        let on = |lan: Lan| Subject { lans: vec![lan], ..Subject::default() };
        let own = &["10.7.0.2", "fd07::2"][..];
        let none = [""; 0];
        for mode in [GatewayMode::Nat, GatewayMode::Routed, GatewayMode::Isolated] {
            assert_eq!(judged(&on(lan("a", mode, None, own))), none, "{mode}: what is not published is nobody's");
        }
        let open = lan("a", GatewayMode::NatUnprotected, None, own);
        assert_eq!(
            judged(&on(open.clone())),
            [
                "* ipv4 10.7.0.2 direct Everybody everybody with a route to 10.7.0.2",
                "* ipv6 fd07::2 direct Everybody everybody with a route to fd07::2"
            ]
        );
        assert_eq!(judged(&on(Lan { leads_nowhere: true, ..open })), none);
        let beside = lan("m", GatewayMode::Nat, Some("eth0"), &own[..1]);
        assert_eq!(judged(&on(beside)), ["* ipv4 10.7.0.2 direct Networks the neighbours of eth0, this machine apart"]);
        let on_host = judged(&Subject { on_host: true, ..Subject::default() });
        assert!(on_host.len() == 1 && on_host[0].starts_with("*  * direct Everybody as far as"), "{on_host:?}");
    }

    #[test]
    fn a_port_is_that_of_the_network_to_which_it_leads() {
        let lans =
            vec![lan("a", GatewayMode::Nat, None, &["10.7.0.2"]), lan("b", GatewayMode::Nat, None, &["10.8.0.2"])];
        let ports = vec![access("0.0.0.0:80", 80, "10.8.0.2", false)];
        let rows = judge(&Subject { lans, ports, ..Subject::default() }, &[]);
        assert_eq!(
            (rows[0].network.as_str(), rows[0].reached_from.as_str()),
            ("b", "everybody who reaches this machine")
        );
    }
}
