//! What can go wrong with networks.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use errdefs::ErrorKind;
use netlink::NetlinkError;

use crate::ports::{Protocol, Published};

/// Why a published port cannot be had. The sentences are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another container has it.
    #[error("Bind for {address}:{port} failed: port is already allocated")]
    Allocated {
        /// Of which protocol.
        protocol: Protocol,
        /// The address on which it is taken.
        address: Ipv4Addr,
        /// The port.
        port: u16,
    },
    /// Every port of the range is another container's.
    #[error("all ports are allocated")]
    Exhausted,
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
        match self.0.kind() {
            // glibc says it with "already", musl without; clients look for the sentence.
            io::ErrorKind::AddrInUse => f.write_str("address already in use"),
            io::ErrorKind::AddrNotAvailable => f.write_str("cannot assign requested address"),
            io::ErrorKind::PermissionDenied => f.write_str("permission denied"),
            _ => self.0.fmt(f),
        }
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
    #[error("no available IPv4 addresses on this network's address pools: bridge ({network})")]
    AddressesExhausted {
        /// The network's id.
        network: String,
    },
    /// The wanted address is another container's, or reserved.
    #[error("Address already in use")]
    AddressTaken,
    /// The wanted address does not belong to the network.
    #[error("invalid address {address}: It does not belong to any of this network's subnets")]
    AddressOutside {
        /// The address.
        address: Ipv4Addr,
    },
    /// The container is on the network already.
    #[error("endpoint with name {name} already exists in network bridge")]
    Joined {
        /// The container's name.
        name: String,
    },
    /// The kernel allows a bridge 1,023 ports.
    #[error("bridge {bridge} is full: it has the 1023 ports that the kernel allows")]
    BridgeFull {
        /// The bridge's name.
        bridge: String,
    },
    /// The network could not be set up.
    #[error("set up the bridge network")]
    Network(#[source] NetworkError),
}

impl JoinError {
    /// What a caller can do about it. dockerd answers 500 to a port that is taken.
    pub fn kind(&self) -> ErrorKind {
        match self {
            JoinError::AddressOutside { .. } => ErrorKind::InvalidArgument,
            JoinError::Joined { .. } | JoinError::AddressTaken => ErrorKind::Forbidden,
            JoinError::Ports { .. }
            | JoinError::AddressesExhausted { .. }
            | JoinError::BridgeFull { .. }
            | JoinError::Network(_) => ErrorKind::Internal,
        }
    }
}

impl From<NetworkError> for JoinError {
    fn from(err: NetworkError) -> JoinError {
        JoinError::Network(err)
    }
}

/// Why the network, a link or a rule could not be set up or taken away.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused it.
    #[error("configure the kernel's network")]
    Netlink(#[from] NetlinkError),
    /// A kernel setting could not be read or written.
    #[error("kernel setting {}", path.display())]
    Setting {
        /// Its file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A record could not be read, written or removed.
    #[error("record {}", path.display())]
    Record {
        /// Its file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A network namespace could not be made.
    #[error("make a network namespace")]
    Namespace {
        /// The system's reason.
        source: io::Error,
    },
    /// The thread that makes namespaces ahead is not there, or did not answer in time.
    #[error("no network namespace within {seconds} s")]
    NoSandbox {
        /// How long was waited.
        seconds: u64,
    },
    /// `--bridge` names a bridge that is not there, or has no IPv4 address.
    #[error("bridge {bridge} does not exist or has no IPv4 address")]
    NoBridge {
        /// Its name.
        bridge: String,
    },
    /// Every network of the pools overlaps a route or address of this machine.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    NoSubnet,
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
            NetworkError::NoBridge { .. } | NetworkError::NotABridge { .. } => ErrorKind::InvalidArgument,
            NetworkError::NoSandbox { .. } => ErrorKind::Unavailable,
            NetworkError::Netlink(_)
            | NetworkError::Setting { .. }
            | NetworkError::Record { .. }
            | NetworkError::Namespace { .. }
            | NetworkError::NoSubnet => ErrorKind::Internal,
        }
    }
}
