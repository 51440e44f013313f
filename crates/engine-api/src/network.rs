//! Networks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::EndpointSettings;
use crate::json::null_as_default;

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// 64 hex digits.
    pub id: String,
    /// RFC 3339.
    pub created: String,
    /// `local`.
    pub scope: String,
    /// `bridge`, `host`, `null`.
    pub driver: String,
    /// Whether it has IPv4.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Whether it has IPv6.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Its addresses.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// It leads nowhere.
    pub internal: bool,
    /// Containers may join by themselves.
    pub attachable: bool,
    /// It is a cluster's entrance.
    pub ingress: bool,
    /// The network that its configuration is taken from.
    pub config_from: ConfigFrom,
    /// It is nothing but a configuration.
    pub config_only: bool,
    /// Containers that are on it, by id.
    #[serde(deserialize_with = "null_as_default")]
    pub containers: BTreeMap<String, Member>,
    /// Options of the driver.
    #[serde(deserialize_with = "null_as_default")]
    pub options: BTreeMap<String, String>,
    /// Free-form metadata.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
}

/// The addresses of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    /// `default`.
    pub driver: String,
    /// Options of that driver.
    pub options: Option<BTreeMap<String, String>>,
    /// Ranges of addresses; null where there are none.
    pub config: Option<Vec<IpamConfig>>,
}

/// A range of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    /// `10.0.0.0/8`.
    pub subnet: String,
    /// The part of it that is given out.
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// The host's own address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Addresses that nobody gets, by name.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

/// `POST /networks/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkCreate {
    /// Its name.
    pub name: String,
    /// `bridge` if empty.
    pub driver: String,
    /// `local` if empty.
    pub scope: String,
    /// Whether it has IPv4; it has if nothing is said.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    /// Whether it has IPv6.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    /// Its addresses.
    #[serde(rename = "IPAM")]
    pub ipam: Option<Ipam>,
    /// It leads nowhere.
    pub internal: bool,
    /// Containers may join by themselves.
    pub attachable: bool,
    /// It is a cluster's entrance.
    pub ingress: bool,
    /// It is nothing but a configuration.
    pub config_only: bool,
    /// The network that its configuration is taken from.
    pub config_from: Option<ConfigFrom>,
    /// Options of the driver.
    #[serde(deserialize_with = "null_as_default")]
    pub options: BTreeMap<String, String>,
    /// Free-form metadata.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
}

/// Answer to `POST /networks/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkCreated {
    /// 64 hex digits.
    pub id: String,
    /// Always empty.
    pub warning: String,
}

/// `POST /networks/{}/connect`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkConnect {
    /// Name or id.
    pub container: String,
    /// What the container wants there.
    pub endpoint_config: Option<EndpointSettings>,
}

/// `POST /networks/{}/disconnect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkDisconnect {
    /// Name or id.
    pub container: String,
    /// Also where the network or the container is gone.
    pub force: bool,
}

/// Where a network's configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigFrom {
    /// A network's name; empty for its own.
    pub network: String,
}

/// A container on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Member {
    /// The container's name.
    pub name: String,
    /// 64 hex digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Its Ethernet address.
    pub mac_address: String,
    /// Its address and the length of the prefix.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// Likewise; empty for none.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}
