//! Networks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// The host's own address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
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
