//! What the settings say about the default bridge.

use std::net::{IpAddr, Ipv4Addr};

use network::{Config, Subnet};

use super::{ConfigError, in_range, list, number, pools, switch, text};
use crate::settings::Given;

/// The longest prefix whose network has addresses for a bridge and a container.
const BIP_PREFIX_MAX: u8 = 30;

/// Pure; `None` for `--bridge=none`. Key and directory are the caller's to fill in.
pub(super) fn plan(given: &Given) -> Result<Option<Config>, ConfigError> {
    let bridge = text(given, "bridge");
    let bip = text(given, "bip").map(bip).transpose()?;
    let bip6 = text(given, "bip6").map(|text| subnet_of_ipv6("bip6", text)).transpose()?;
    if bridge == Some("none") {
        return Ok(None);
    }
    if bridge.is_some() && bip.is_some() {
        return Err(ConfigError::BridgeAnd("bip"));
    }
    if bridge.is_some() && bip6.is_some() {
        return Err(ConfigError::BridgeAnd("bip6"));
    }
    let defaults = Config::new("", "");
    Ok(Some(Config {
        bridge: bridge.map(str::to_owned),
        bip,
        fixed_cidr: text(given, "fixed-cidr").map(|text| subnet("fixed-cidr", text)).transpose()?,
        ipv6: switch(given, "ipv6").unwrap_or(defaults.ipv6),
        bip6,
        fixed_cidr_v6: text(given, "fixed-cidr-v6").map(|text| subnet_of_ipv6("fixed-cidr-v6", text)).transpose()?,
        default_gateways: default_gateways(given)?,
        mtu: number(given, "mtu").map(mtu).transpose()?.unwrap_or(defaults.mtu),
        ip_forward: switch(given, "ip-forward").unwrap_or(defaults.ip_forward),
        ip_masq: switch(given, "ip-masq").unwrap_or(defaults.ip_masq),
        icc: switch(given, "icc").unwrap_or(defaults.icc),
        host_firewall: switch(given, "host-firewall").unwrap_or(defaults.host_firewall),
        userland_proxy: switch(given, "userland-proxy").unwrap_or(defaults.userland_proxy),
        host_address: text(given, "ip").map(address).transpose()?.unwrap_or(defaults.host_address),
        default_address_pools: pools::plan(list(given, "default-address-pool"))?,
        ..defaults
    }))
}

fn default_gateways(given: &Given) -> Result<Vec<IpAddr>, ConfigError> {
    let mut gateways = Vec::new();
    for (key, ipv6) in [("default-gateway", false), ("default-gateway-v6", true)] {
        let Some(value) = text(given, key) else { continue };
        let gateway = value.parse().ok().filter(|address: &IpAddr| address.is_ipv6() == ipv6);
        gateways.push(gateway.ok_or_else(|| ConfigError::DefaultGateway { key, value: value.to_owned() })?);
    }
    Ok(gateways)
}

fn mtu(mtu: i64) -> Result<u32, ConfigError> {
    if mtu < 0 { Err(ConfigError::Mtu(mtu)) } else { in_range("mtu", mtu) }
}

fn address(text: &str) -> Result<Ipv4Addr, ConfigError> {
    text.parse().map_err(|_| ConfigError::Address(text.to_owned()))
}

/// The bridge's address, beside which its network has room for others.
fn bip(text: &str) -> Result<Subnet, ConfigError> {
    let bip = subnet("bip", text)?;
    let is_hosts = match bip.address {
        IpAddr::V4(address) => !address.is_unspecified() && !address.is_loopback() && !address.is_multicast(),
        IpAddr::V6(_) => false,
    };
    let has_room = bip.prefix <= BIP_PREFIX_MAX && bip.address != bip.last();
    if is_hosts && has_room { Ok(bip) } else { Err(ConfigError::Bip(text.to_owned())) }
}

/// One of IPv4.
fn subnet(key: &'static str, text: &str) -> Result<Subnet, ConfigError> {
    let subnet: Option<Subnet> = text.parse().ok();
    let of_ipv4 = subnet.filter(|subnet| subnet.address.is_ipv4());
    of_ipv4.ok_or_else(|| ConfigError::Subnet { key, value: text.to_owned() })
}

/// Likewise of IPv6.
fn subnet_of_ipv6(key: &'static str, text: &str) -> Result<Subnet, ConfigError> {
    let subnet: Option<Subnet> = text.parse().ok();
    let of_ipv6 = subnet.filter(|subnet| subnet.address.is_ipv6());
    of_ipv6.ok_or_else(|| ConfigError::SubnetOfIpv6 { key, value: text.to_owned() })
}
