//! Answer to `GET /longshore/exposure`, which Docker does not have: who reaches which port of which container.

use serde::{Deserialize, Serialize};

/// From where a port is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// From this machine alone.
    #[default]
    Host,
    /// By certain interfaces of this machine, or addresses of it.
    Networks,
    /// From wherever this machine, or the container, is reached.
    Everybody,
}

/// A port of a container, and an address at which somebody else than its neighbours reaches it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExposedPort {
    /// The container's id, 64 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The network by which it is reached; `host` for this machine's own.
    pub network: String,
    /// The container's port, `80/tcp`; `*` for all that listen.
    pub port: String,
    /// `ipv4` or `ipv6`; both where it is empty.
    pub family: String,
    /// The address and port to connect to: of this machine, or the container's own.
    pub address: String,
    /// How it leads to the container: `rule`, `relay` or `direct`.
    pub by: String,
    /// From where it is reached.
    pub reach: Reach,
    /// The interfaces and addresses by which, `eth0 10.9.0.1/24`, as far as they are known.
    pub interfaces: Vec<String>,
    /// The same in words.
    pub reached_from: String,
}
