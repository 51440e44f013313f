//! What can go wrong with networks.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use errdefs::ErrorKind;
use netlink::NetlinkError;
use rustix::io::Errno;

use crate::egress::{EgressError, EgressPolicyError};
use crate::options::OptionError;
use crate::parent::ParentError;
use crate::ports::{Protocol, Published};
use crate::subnet::{Obstacle, Subnet};
use crate::sysctl::InterfaceError;

/// Why a published port cannot be had. The sentences are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another container has it.
    #[error("Bind for {address}:{port} failed: port is already allocated")]
    Allocated {
        /// Of which protocol.
        protocol: Protocol,
        /// The address on which it is taken.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// The container publishes it twice.
    #[error("failed to listen on {} socket: address already in use", .0.to_string().to_uppercase())]
    Twice(Protocol),
    /// Every port of the range is another container's.
    #[error("all ports are allocated")]
    Exhausted,
    /// The container has no address of the family, or it is ::1, where no rule leads to a container: it would take a relay.
    #[error(
        "publishing a port on {0} for this container takes a relay, which there is for TCP and UDP alone: publish SCTP on an address \
         of a family that the container has, and not on [::1]"
    )]
    NeedsRelay(IpAddr),
    /// The range ends before it begins.
    #[error("invalid port range: {first}-{last}")]
    InvalidRange {
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// Another program has it, or the address is not one of this machine.
    #[error("failed to bind host port for {binding}")]
    Bind {
        /// The binding, as dockerd writes it.
        binding: String,
        /// The port that was tried.
        tried: Published,
        /// The system's reason.
        source: SystemReason,
    },
    /// As [`PortError::Bind`], for a port out of a range.
    #[error("failed to bind host port {port} for {binding}")]
    BindInRange {
        /// The port that was tried last.
        port: u16,
        /// The binding, as dockerd writes it.
        binding: String,
        /// The same.
        tried: Published,
        /// The system's reason.
        source: SystemReason,
    },
}

/// The system's reason in the words that dockerd passes on, which are the C library's in lower case without a number.
#[derive(Debug)]
pub struct SystemReason(pub io::Error);

impl fmt::Display for SystemReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match Errno::from_io_error(&self.0) {
            // glibc says it with "already", musl without; clients look for the sentence.
            Some(Errno::ADDRINUSE) => "address already in use",
            Some(Errno::ADDRNOTAVAIL) => "cannot assign requested address",
            Some(Errno::ACCESS) => "permission denied",
            Some(Errno::BUSY) => "device or resource busy",
            Some(Errno::EXIST) => "file exists",
            Some(Errno::INVAL) => "invalid argument",
            Some(Errno::NETDOWN) => "network is down",
            Some(Errno::NODEV) => "no such device",
            Some(Errno::OPNOTSUPP) => "operation not supported",
            Some(Errno::RANGE) => "numerical result out of range",
            _ => return self.0.fmt(f),
        };
        f.write_str(words)
    }
}

impl std::error::Error for SystemReason {}

/// Why [`crate::Networks::join`] failed. Nothing is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A published port cannot be had.
    #[error("driver failed programming external connectivity on endpoint {name} ({id})")]
    Ports {
        /// The endpoint's name, which is the container's.
        name: String,
        /// The endpoint's id.
        id: String,
        /// Why.
        source: PortError,
    },
    /// All addresses of the network are taken.
    #[error("no available {family} addresses on this network's address pools: {name} ({network})")]
    AddressesExhausted {
        /// IPv4 or IPv6.
        family: &'static str,
        /// The network's name.
        name: String,
        /// The network's id.
        network: String,
    },
    /// The wanted address is another container's, or reserved.
    #[error("Address already in use")]
    AddressTaken,
    /// An address that was to be valid on the link alone is not of that kind.
    #[error("invalid link local IP address: {0}")]
    NotLinkLocal(IpAddr),
    /// The wanted address does not belong to the network.
    #[error("invalid address {address}: It does not belong to any of this network's subnets")]
    AddressOutside {
        /// The address.
        address: IpAddr,
    },
    /// The container is on the network already.
    #[error("endpoint with name {name} already exists in network {network}")]
    Joined {
        /// The container's name.
        name: String,
        /// The network's name.
        network: String,
    },
    /// There is no such network, or no longer.
    #[error("network {0} not found")]
    NoNetwork(String),
    /// The network is a configuration for others.
    #[error("cannot create endpoint on configuration-only network")]
    Configuration,
    /// The kernel allows a bridge 1,023 ports.
    #[error("bridge {bridge} is full: it has the 1023 ports that the kernel allows")]
    BridgeFull {
        /// The bridge's name.
        bridge: String,
    },
    /// The network's parent is gone, or the kernel puts nothing on top of it.
    #[error(transparent)]
    Parent(ParentError),
    /// Its policy cannot be kept.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// Its interface has settings that the kernel does not have, or not take.
    #[error(transparent)]
    Interface(InterfaceError),
    /// The network could not be set up.
    #[error("set up the bridge network")]
    Network(#[source] NetworkError),
}

impl JoinError {
    /// What a caller can do about it. dockerd answers 500 to a port that is taken.
    pub fn kind(&self) -> ErrorKind {
        match self {
            JoinError::NotLinkLocal(_) | JoinError::AddressOutside { .. } => ErrorKind::InvalidArgument,
            JoinError::NoNetwork(_) => ErrorKind::NotFound,
            JoinError::Joined { .. } | JoinError::AddressTaken | JoinError::Configuration => ErrorKind::Forbidden,
            JoinError::Parent(err) => err.kind(),
            JoinError::Egress(err) => err.kind(),
            JoinError::Ports { .. }
            | JoinError::AddressesExhausted { .. }
            | JoinError::BridgeFull { .. }
            | JoinError::Interface(_)
            | JoinError::Network(_) => ErrorKind::Internal,
        }
    }
}

impl From<NetworkError> for JoinError {
    fn from(err: NetworkError) -> JoinError {
        match err {
            NetworkError::Parent(err) => JoinError::Parent(err),
            NetworkError::Interface(err) => JoinError::Interface(err),
            err => JoinError::Network(err),
        }
    }
}

/// Why a network could not be made. Nothing is left behind then. The sentences are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Another network has the name.
    #[error("network with name {0} already exists")]
    Exists(String),
    /// Another network of this instance has some of its addresses.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    Overlap,
    /// The pools have nothing that is free.
    #[error("all predefined address pools have been fully subnetted{}", aside(in_the_way))]
    Exhausted {
        /// What is.
        in_the_way: Option<Obstacle>,
    },
    /// The gateway cannot have this address.
    #[error("failed to allocate gateway ({0}): Address already in use")]
    GatewayTaken(IpAddr),
    /// There is none to be had.
    #[error("failed to allocate gateway (): no available addresses on this pool")]
    NoGateway,
    /// An address that nobody is to get is somebody's.
    #[error("failed to allocate secondary ip address ({name}:{address}): Address already in use")]
    AuxiliaryTaken {
        /// Its name.
        name: String,
        /// The address.
        address: IpAddr,
    },
    /// Another network has a bridge of this name.
    #[error(
        "cannot create network {id} ({bridge}): conflicts with network {other} ({bridge}): networks have same bridge name"
    )]
    BridgeTaken {
        /// The id that the network would have had.
        id: String,
        /// The bridge.
        bridge: String,
        /// The other network's id.
        other: String,
    },
    /// There is no configuration of this name.
    #[error("configuration network {0:?} does not exist")]
    NoConfiguration(String),
    /// A bridge has one range of addresses of a family, its configuration more.
    #[error("bridge driver doesn't support multiple subnets")]
    ManySubnets,
    /// An option says nothing.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// It cannot have its parent.
    #[error(transparent)]
    Parent(#[from] ParentError),
    /// Its policy is none.
    #[error(transparent)]
    Egress(#[from] EgressPolicyError),
    /// It cannot be kept.
    #[error(transparent)]
    EgressKept(EgressError),
    /// The network could not be set up or recorded.
    #[error("set up the network")]
    Network(#[source] NetworkError),
}

impl From<NetworkError> for CreateError {
    fn from(err: NetworkError) -> CreateError {
        match err {
            NetworkError::Parent(err) => CreateError::Parent(err),
            err => CreateError::Network(err),
        }
    }
}

/// Behind dockerd's sentence.
fn aside(found: &Option<Obstacle>) -> String {
    found.as_ref().map(|obstacle| format!(" ({obstacle})")).unwrap_or_default()
}

impl CreateError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CreateError::Exists(_) => ErrorKind::Conflict,
            CreateError::NoConfiguration(_) => ErrorKind::NotFound,
            CreateError::Overlap | CreateError::BridgeTaken { .. } | CreateError::ManySubnets => ErrorKind::Forbidden,
            CreateError::Exhausted { .. } => ErrorKind::InvalidArgument,
            CreateError::GatewayTaken(_) | CreateError::NoGateway | CreateError::AuxiliaryTaken { .. } => {
                ErrorKind::Internal
            }
            CreateError::Option(err) => err.kind(),
            CreateError::Parent(err) => err.kind(),
            CreateError::Egress(err) => err.kind(),
            CreateError::EgressKept(err) => err.kind(),
            CreateError::Network(err) => err.kind(),
        }
    }
}

/// Why a network could not be removed. The sentences are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none, or no longer.
    #[error("network {0} not found")]
    Missing(String),
    /// Containers are on it.
    #[error("error while removing network: network {name} has active endpoints ({})", endpoints.join(", "))]
    InUse {
        /// Its name.
        name: String,
        /// The endpoints, by name and id.
        endpoints: Vec<String>,
    },
    /// It is a configuration, of which a network was made that is there.
    #[error("error while removing network: configuration network {0:?} is in use")]
    Configures(String),
    /// What it has could not be taken away.
    #[error("remove the network")]
    Network(#[from] NetworkError),
}

impl RemoveError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RemoveError::Missing(_) => ErrorKind::NotFound,
            RemoveError::InUse { .. } | RemoveError::Configures(_) => ErrorKind::Forbidden,
            RemoveError::Network(err) => err.kind(),
        }
    }
}

/// Why the network, a link or a rule could not be set up or taken away.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused it.
    #[error("configure the kernel's network")]
    Netlink(#[from] NetlinkError),
    /// A link on top of which containers are to stand is not what it should be.
    #[error(transparent)]
    Parent(#[from] ParentError),
    /// An interface of a container's cannot be as it was asked for.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// A kernel setting could not be read or written.
    #[error("kernel setting {}", path.display())]
    Setting {
        /// Its file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The relay does not start, or does not serve a port.
    #[error("have a published port relayed")]
    Relay {
        /// The reason.
        source: relay::AskError,
    },
    /// The configuration says of the default bridge what cannot be of its network: its containers could not reach a gateway
    /// there, or have an address.
    #[error("{key} {value} is not in the default bridge's network {network}")]
    Stray {
        /// The key of daemon.json.
        key: &'static str,
        /// Its value.
        value: Subnet,
        /// The network.
        network: Subnet,
    },
    /// A record could not be read, written or removed.
    #[error("record {}", path.display())]
    Record {
        /// Its file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The networks that users made could not be read or written.
    #[error("records of networks in {}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// A network namespace could not be made.
    #[error("make a network namespace")]
    Namespace {
        /// The system's reason.
        source: io::Error,
    },
    /// Somebody else chooses a network in this network namespace, and does not end.
    #[error("another daemon of this host has been making a network for {seconds} s: is it stopped?")]
    Choosing {
        /// How long we waited.
        seconds: u64,
    },
    /// The thread that makes namespaces ahead is not there, or did not answer in time.
    #[error("no network namespace within {seconds} s")]
    NoSandbox {
        /// How long was waited.
        seconds: u64,
    },
    /// `--bridge` names a bridge that is not there. The sentence is dockerd's.
    #[error("bridge device with non default name {bridge} must be created manually")]
    NoBridge {
        /// Its name.
        bridge: String,
    },
    /// Likewise one that has no IPv4 address.
    #[error("bridge {bridge} has no IPv4 address")]
    NoIpv4 {
        /// Its name.
        bridge: String,
    },
    /// IPv6 is asked for on the bridge that `--bridge` names, which has no such address.
    #[error("bridge {bridge} has no IPv6 address")]
    NoIpv6 {
        /// Its name.
        bridge: String,
    },
    /// Every network of the pools overlaps a route or address of this machine.
    #[error(
        "could not find an available, non-overlapping {family} address pool among the defaults to assign to the network{}",
        aside(in_the_way)
    )]
    NoSubnet {
        /// IPv4 or IPv6.
        family: &'static str,
        /// What is in the way.
        in_the_way: Option<Obstacle>,
    },
    /// A link of the bridge's name is there and is no bridge.
    #[error("link {name} exists and is no bridge")]
    NotABridge {
        /// The link's name.
        name: String,
    },
}

impl NetworkError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            NetworkError::NoBridge { .. }
            | NetworkError::NoIpv4 { .. }
            | NetworkError::NoIpv6 { .. }
            | NetworkError::NotABridge { .. }
            | NetworkError::Stray { .. } => ErrorKind::InvalidArgument,
            NetworkError::NoSandbox { .. } => ErrorKind::Unavailable,
            NetworkError::Parent(err) => err.kind(),
            NetworkError::Netlink(_)
            | NetworkError::Interface(_)
            | NetworkError::Setting { .. }
            | NetworkError::Relay { .. }
            | NetworkError::Record { .. }
            | NetworkError::Store { .. }
            | NetworkError::Namespace { .. }
            | NetworkError::Choosing { .. }
            | NetworkError::NoSubnet { .. } => ErrorKind::Internal,
        }
    }
}
