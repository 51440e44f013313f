//! What survives the daemon: one small file per endpoint, and one for the bridge.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use netlink::link::Mac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stdx::fs::{Durability, remove_if_exists, write_atomic};

use crate::egress::EgressPolicy;
use crate::error::NetworkError;
use crate::parent::Lent;
use crate::ports::{PortRequest, Protocol, Published};
use crate::subnet::Subnet;

/// A container's endpoints, as far as they must be known to go on with them or to remove them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub(crate) struct SandboxRecord {
    pub(crate) container: String,
    pub(crate) sandbox_id: String,
    pub(crate) ports: Vec<Published>,
    /// In the order of joining.
    pub(crate) endpoints: Vec<EndpointRecord>,
    /// All ports that are to be published, of who may have to have others when another network has the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) wanted: Vec<PortRequest>,
    /// Its own policy, beside those of its networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) egress: Option<EgressPolicy>,
    /// The ports that are open to who links to it, where neighbours do not reach each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) exposed: Vec<(Protocol, u16)>,
    /// The ids of the containers that it links to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) links: Vec<String>,
    /// Whether the relay leads from ::1 what rules lead from all other addresses of IPv6, so that it has the sockets of such ports.
    #[serde(default)]
    pub(crate) relays_loopback: bool,
}

/// A container's endpoint on one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    /// Which network: [`crate::DEFAULT`] or the id of a user's.
    pub(crate) network: String,
    /// That one's name.
    pub(crate) network_name: String,
    /// Whether that one leads nowhere.
    pub(crate) internal: bool,
    pub(crate) endpoint_id: String,
    #[serde(default, rename = "address")]
    pub(crate) ipv4: Option<Ipv4Addr>,
    #[serde(default)]
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// More addresses of the interface, which are nobody's to give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) link_local: Vec<IpAddr>,
    /// None where it is not its own.
    pub(crate) mac: Option<Mac>,
    /// The end of the veth pair on the host; empty where there is none.
    pub(crate) interface: String,
    /// That one's number, which unlike its name nobody can change; where there is none, that of the link in the container.
    pub(crate) interface_index: u32,
    /// The name of the link in the container.
    pub(crate) inner: String,
    /// Whether all of it is in the container: no rule of this machine leads there.
    #[serde(default)]
    pub(crate) inside: bool,
    /// What the link has on this machine, of one that comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lent: Option<Lent>,
    /// Of all networks the one of the highest priority has the gateway.
    pub(crate) gateway_priority: i64,
    /// Whether published ports are opened at its own address instead of published on this machine's, by IPv4 and by IPv6.
    #[serde(default)]
    pub(crate) routed: [bool; 2],
}

impl SandboxRecord {
    /// The endpoint whose network has the way out for IPv4, and to which ports of such addresses lead: the highest priority,
    /// then the first name, as with dockerd. Networks that lead nowhere have none.
    pub(crate) fn gateway(&self) -> Option<&EndpointRecord> {
        self.outward(|endpoint| endpoint.ipv4.is_some())
    }

    /// Likewise for IPv6; it may be another one.
    pub(crate) fn gateway_of_ipv6(&self) -> Option<&EndpointRecord> {
        self.outward(|endpoint| endpoint.ipv6.is_some())
    }

    fn outward(&self, has_family: impl Fn(&EndpointRecord) -> bool) -> Option<&EndpointRecord> {
        let outward = self.endpoints.iter().filter(|endpoint| !endpoint.internal && has_family(endpoint));
        outward.min_by_key(|endpoint| (std::cmp::Reverse(endpoint.gateway_priority), endpoint.network_name.as_str()))
    }

    /// Both, by their networks: what decides on routes and ports.
    pub(crate) fn gateways(&self) -> [Option<&str>; 2] {
        [self.gateway(), self.gateway_of_ipv6()].map(|endpoint| endpoint.map(|one| one.network.as_str()))
    }

    /// Of these the ones to which published ports lead: where others than this machine lead outward, none do.
    pub(crate) fn publishers(&self) -> [Option<&EndpointRecord>; 2] {
        [self.gateway(), self.gateway_of_ipv6()].map(|endpoint| endpoint.filter(|one| !one.inside))
    }

    /// Where a port leads that is published on this address: IPv4 stays IPv4.
    pub(crate) fn target(&self, host: IpAddr) -> Option<IpAddr> {
        let [ipv4, ipv6] = self.publishers();
        match host {
            IpAddr::V4(_) => ipv4?.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => ipv6?.ipv6.map(IpAddr::V6),
        }
    }

    /// Whether ports that are published on addresses of this one's family are opened at the container's own address instead.
    pub(crate) fn is_routed(&self, host: IpAddr) -> bool {
        let at = usize::from(host.is_ipv6());
        self.publishers()[at].is_some_and(|endpoint| endpoint.routed[at])
    }

    /// Where rules lead from a published port, or the address at which they open it; none where they do not.
    pub(crate) fn ruled_target(&self, published: &Published) -> Option<IpAddr> {
        let host = published.host_address;
        // Packets to ::1 meet no rule.
        let by_rules = published.is_opened() == self.is_routed(host) && self.relay_target(host).is_none();
        self.target(host).filter(|_| by_rules)
    }

    /// Where the relay leads from a published port, perhaps beside rules; none where it does not.
    pub(crate) fn relayed_target(&self, published: &Published) -> Option<IpAddr> {
        let host = published.host_address;
        let loopback = self.relays_loopback
            && host == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            && published.protocol != Protocol::Sctp
            && !self.is_routed(host);
        let beside = || self.target(host).filter(|_| loopback);
        self.relay_target(host).or_else(beside).filter(|_| !published.is_opened())
    }

    /// Whether ports are shown that it exposes.
    pub(crate) fn exposes(&self) -> bool {
        match (self.gateway(), self.gateway_of_ipv6()) {
            // Networks that lead nowhere publish nothing.
            (None, None) => self.endpoints.is_empty(),
            (ipv4, ipv6) => ipv4.into_iter().chain(ipv6).any(|one| !one.inside),
        }
    }

    /// Keeps the ports that are to be published, if other networks may decide on them.
    pub(crate) fn note_wanted(&mut self, ports: &[PortRequest]) {
        if self.endpoints.len() > 1 || self.has_inside() {
            ports.clone_into(&mut self.wanted);
        }
    }

    /// Puts ports that came later where they would have been: each port's addresses of IPv4 first.
    pub(crate) fn sort_ports(&mut self) {
        self.ports.sort_by_key(|one| (one.container_port, one.protocol, one.host_address.is_ipv6()));
    }

    /// Whether any of its links is in the container alone.
    pub(crate) fn has_inside(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.inside)
    }

    /// The endpoint on a network.
    pub(crate) fn on(&self, network: &str) -> Option<&EndpointRecord> {
        self.endpoints.iter().find(|endpoint| endpoint.network == network)
    }
}

impl EndpointRecord {
    /// Its addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// A record as it is found: also that of a daemon which knew the default bridge alone.
#[derive(Deserialize)]
struct Written {
    container: String,
    sandbox_id: String,
    ports: Vec<Published>,
    #[serde(default)]
    endpoints: Vec<EndpointRecord>,
    #[serde(default)]
    wanted: Vec<PortRequest>,
    #[serde(default)]
    egress: Option<EgressPolicy>,
    #[serde(default)]
    exposed: Vec<(Protocol, u16)>,
    #[serde(default)]
    links: Vec<String>,
    #[serde(default)]
    relays_loopback: bool,
    #[serde(flatten)]
    only: Option<OnlyEndpoint>,
}

#[derive(Deserialize)]
struct OnlyEndpoint {
    endpoint_id: String,
    address: Ipv4Addr,
    mac: Mac,
    interface: String,
    interface_index: u32,
}

impl From<Written> for SandboxRecord {
    fn from(written: Written) -> SandboxRecord {
        let Written {
            container,
            sandbox_id,
            ports,
            mut endpoints,
            wanted,
            egress,
            exposed,
            links,
            relays_loopback,
            only,
        } = written;
        endpoints.extend(only.map(|one| EndpointRecord {
            network: crate::DEFAULT.to_owned(),
            network_name: crate::DEFAULT.to_owned(),
            internal: false,
            endpoint_id: one.endpoint_id,
            ipv4: Some(one.address),
            ipv6: None,
            link_local: Vec::new(),
            mac: Some(one.mac),
            interface: one.interface,
            interface_index: one.interface_index,
            inner: crate::sandbox::INTERFACE.to_owned(),
            inside: false,
            lent: None,
            gateway_priority: 0,
            routed: [false; 2],
        }));
        SandboxRecord { container, sandbox_id, ports, endpoints, wanted, egress, exposed, links, relays_loopback }
    }
}

/// The bridge network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BridgeRecord {
    pub(crate) id: String,
    /// The gateway's address, on the bridge.
    pub(crate) gateway: Ipv4Addr,
    pub(crate) prefix: u8,
    /// Likewise of IPv6, where the bridge has such addresses.
    #[serde(default)]
    pub(crate) of_ipv6: Option<Subnet>,
}

/// Of which family forwarding was off until we switched it on, so that we keep this machine from routing for others. That stays so
/// until it starts anew, whether or not containers are there: forwarding, too, stays on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forwarding {
    pub(crate) ipv4: bool,
    /// Which is switched on for the first network with such addresses.
    pub(crate) ipv6: bool,
}

impl Forwarding {
    /// Any of them.
    pub(crate) fn is_any(self) -> bool {
        self.ipv4 || self.ipv6
    }
}

impl BridgeRecord {
    /// The bridge's addresses.
    pub(crate) fn gateways(&self) -> Vec<Subnet> {
        std::iter::once(Subnet::new(self.gateway, self.prefix)).chain(self.of_ipv6).collect()
    }
}

/// The directory of the records.
#[derive(Debug)]
pub(crate) struct Records {
    directory: PathBuf,
}

impl Records {
    pub(crate) fn new(directory: &Path) -> Records {
        Records { directory: directory.to_owned() }
    }

    /// All endpoints. A file that cannot be understood is set aside: its container then counts as not joined.
    pub(crate) fn endpoints(&self) -> Result<Vec<SandboxRecord>, NetworkError> {
        let directory = self.directory.join("endpoints");
        let entries = match fs::read_dir(&directory) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|source| record_error(&directory, source))?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| record_error(&directory, source))?.path();
            if path.extension().is_none() {
                records.extend(load(&path)?);
            }
        }
        Ok(records)
    }

    /// Removes what a writer left that was killed.
    pub(crate) fn sweep(&self) -> Result<(), NetworkError> {
        for entry in fs::read_dir(self.directory.join("endpoints")).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "tmp") {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    pub(crate) fn write_endpoint(&self, record: &SandboxRecord) -> Result<(), NetworkError> {
        self.write(&self.endpoint(&record.container), record)
    }

    pub(crate) fn remove_endpoint(&self, container: &str) -> Result<(), NetworkError> {
        remove(&self.endpoint(container))
    }

    pub(crate) fn bridge(&self) -> Result<Option<BridgeRecord>, NetworkError> {
        load(&self.directory.join("bridge.json"))
    }

    pub(crate) fn write_bridge(&self, record: &BridgeRecord) -> Result<(), NetworkError> {
        self.write(&self.directory.join("bridge.json"), record)
    }

    pub(crate) fn remove_bridge(&self) -> Result<(), NetworkError> {
        remove(&self.directory.join("bridge.json"))
    }

    /// None where nobody has switched anything on.
    pub(crate) fn guarded(&self) -> Result<Forwarding, NetworkError> {
        Ok(load(&self.directory.join("forwarding.json"))?.unwrap_or_default())
    }

    pub(crate) fn write_guarded(&self, guarded: Forwarding) -> Result<(), NetworkError> {
        self.write(&self.directory.join("forwarding.json"), &guarded)
    }

    fn endpoint(&self, container: &str) -> PathBuf {
        self.directory.join("endpoints").join(container)
    }

    fn write(&self, path: &Path, record: &impl Serialize) -> Result<(), NetworkError> {
        let bytes = serde_json::to_vec(record).expect("records have text keys only");
        match write_atomic(path, &bytes, Durability::ProcessDeath) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                // The first record of this boot.
                fs::create_dir_all(self.directory.join("endpoints")).map_err(|source| record_error(path, source))?;
                write_atomic(path, &bytes, Durability::ProcessDeath)
            }
            written => written,
        }
        .map_err(|source| record_error(path, source))
    }
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, NetworkError> {
    let bytes = match fs::read(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|source| record_error(path, source))?,
    };
    match serde_json::from_slice(&bytes) {
        Ok(record) => Ok(Some(record)),
        Err(err) => {
            tracing::warn!(path = %path.display(), %err, "a network record cannot be read and is set aside");
            let aside = path.with_extension("torn");
            fs::rename(path, &aside).map_err(|source| record_error(path, source))?;
            Ok(None)
        }
    }
}

fn remove(path: &Path) -> Result<(), NetworkError> {
    remove_if_exists(path).map_err(|source| record_error(path, source))
}

fn record_error(path: &Path, source: io::Error) -> NetworkError {
    NetworkError::Record { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, internal: bool, gateway_priority: i64) -> EndpointRecord {
        EndpointRecord {
            network: format!("id of {name}"),
            network_name: name.to_owned(),
            internal,
            endpoint_id: String::new(),
            ipv4: Some(Ipv4Addr::LOCALHOST),
            ipv6: None,
            link_local: Vec::new(),
            mac: None,
            interface: String::new(),
            interface_index: 0,
            inner: "eth0".to_owned(),
            inside: false,
            lent: None,
            gateway_priority,
            routed: [false; 2],
        }
    }

    #[test]
    fn the_gateway_is_that_of_the_highest_priority_or_the_first_name() {
        let gateway = |endpoints: &[EndpointRecord]| {
            let record = SandboxRecord {
                container: String::new(),
                sandbox_id: String::new(),
                ports: Vec::new(),
                endpoints: endpoints.to_vec(),
                wanted: Vec::new(),
                egress: None,
                exposed: Vec::new(),
                links: Vec::new(),
                relays_loopback: false,
            };
            record.gateway().map(|endpoint| endpoint.network_name.clone())
        };
        let (a, b, inside) = (endpoint("a", false, 0), endpoint("b", false, 0), endpoint("0", true, 9));
        assert_eq!(gateway(&[b.clone(), a.clone(), inside.clone()]).as_deref(), Some("a"));
        assert_eq!(gateway(&[a, endpoint("c", false, 1), b]).as_deref(), Some("c"));
        assert_eq!(gateway(&[inside]), None);
        assert_eq!(gateway(&[]), None);
    }

    #[test]
    fn each_family_has_a_gateway_of_its_own() {
        let (mut a, mut b) = (endpoint("a", false, 0), endpoint("b", false, 0));
        b.ipv6 = Some(Ipv6Addr::LOCALHOST);
        let record = |endpoints: &[EndpointRecord]| SandboxRecord {
            container: String::new(),
            sandbox_id: String::new(),
            ports: Vec::new(),
            endpoints: endpoints.to_vec(),
            wanted: Vec::new(),
            egress: None,
            exposed: Vec::new(),
            links: Vec::new(),
            relays_loopback: false,
        };
        assert_eq!(record(&[a.clone(), b.clone()]).gateways(), [Some("id of a"), Some("id of b")]);
        a.ipv4 = None;
        assert_eq!(record(&[a, b]).gateways(), [Some("id of b"), Some("id of b")]);
    }

    #[test]
    fn records_of_earlier_daemons_are_read() {
        let old = r#"{"container":"c","endpoint_id":"e","sandbox_id":"s","address":"172.17.0.2","mac":[2,0,0,0,0,1],
            "interface":"v0","interface_index":7,"ports":[]}"#;
        let record: SandboxRecord = serde_json::from_str(old).unwrap();
        assert_eq!(record.endpoints.len(), 1);
        assert_eq!((record.endpoints[0].interface_index, record.endpoints[0].network.as_str()), (7, "bridge"));
        let again: SandboxRecord = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(again, record);
    }
}
