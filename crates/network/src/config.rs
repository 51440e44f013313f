//! What the daemon's configuration says about networks.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use crate::subnet::{self, Subnet};

/// A range of addresses that networks are cut from (daemon.json `default-address-pools`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// The whole range.
    pub base: Subnet,
    /// The length of the prefix of each network cut from it, in bits.
    pub size: u8,
}

/// What the daemon's configuration says about the default bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Eight hex digits that tell instances on one machine apart; part of the name of everything made.
    pub instance_key: String,
    /// `--bridge`: a bridge that exists and has an address. We plug into it and change nothing else about it.
    pub bridge: Option<String>,
    /// `--bip`: the bridge's address and network.
    pub bip: Option<Subnet>,
    /// `--fixed-cidr`: the part of the network that containers get addresses from.
    pub fixed_cidr: Option<Subnet>,
    /// `--ipv6`: whether the bridge has addresses of IPv6, too; unless somebody names some, from the pools.
    pub ipv6: bool,
    /// `--bip6`: the bridge's address and network of IPv6.
    pub bip6: Option<Subnet>,
    /// `--fixed-cidr-v6`: likewise of IPv6; without `bip6` it is the bridge's network.
    pub fixed_cidr_v6: Option<Subnet>,
    /// `--default-gateway` and `--default-gateway-v6`: where containers on the bridge send what leaves its network, where
    /// that is not the bridge. One of each family at most.
    pub default_gateways: Vec<IpAddr>,
    /// `--mtu`: the largest packet in bytes; 0 means 1500.
    pub mtu: u32,
    /// `--ip-forward`: whether to switch forwarding on where it is off.
    pub ip_forward: bool,
    /// `--ip-masq`: whether containers reach other networks with the host's address.
    pub ip_masq: bool,
    /// `--icc`: whether containers on the bridge reach each other.
    pub icc: bool,
    /// `--host-firewall`: whether chains of others that drop what is forwarded are left as they are, and firewalld's zones.
    pub host_firewall: bool,
    /// The socket of the machine's D-Bus, on which firewalld may be; none if it is not to be asked for anything.
    pub system_bus: Option<PathBuf>,
    /// `--userland-proxy`: whether ports are published for containers that have no address of the host address's family.
    pub userland_proxy: bool,
    /// `--ip`: the host address that ports are published on when the request names none.
    pub host_address: Ipv4Addr,
    /// `--default-address-pool`; none of a family means Docker's.
    pub default_address_pools: Vec<AddressPool>,
    /// The 40 bits by which this site's addresses of IPv6 differ from those of others (RFC 4193).
    pub site: [u8; 5],
    /// Where records are kept: a directory that a reboot empties. Created when needed.
    pub state_dir: PathBuf,
    /// Where the networks are kept that users make; a file there. Created when needed.
    pub data_dir: PathBuf,
}

impl Config {
    /// dockerd's defaults.
    pub fn new(instance_key: impl Into<String>, state_dir: impl Into<PathBuf>) -> Config {
        let (instance_key, state_dir) = (instance_key.into(), state_dir.into());
        Config {
            site: site(&instance_key),
            instance_key,
            bridge: None,
            bip: None,
            fixed_cidr: None,
            ipv6: false,
            bip6: None,
            fixed_cidr_v6: None,
            default_gateways: Vec::new(),
            mtu: 0,
            ip_forward: true,
            ip_masq: true,
            icc: true,
            host_firewall: false,
            system_bus: None,
            userland_proxy: true,
            host_address: Ipv4Addr::UNSPECIFIED,
            default_address_pools: Vec::new(),
            data_dir: state_dir.clone(),
            state_dir,
        }
    }

    pub(crate) fn bridge_name(&self) -> String {
        self.bridge.clone().unwrap_or_else(|| format!("ls{}", self.instance_key))
    }

    pub(crate) fn table_name(&self) -> String {
        format!("longshore-{}", self.instance_key)
    }

    /// The beginning of the names of all veth pairs of this instance; six more characters make one unique.
    pub(crate) fn link_prefix(&self) -> String {
        format!("v{}", self.instance_key)
    }

    /// Where the containers of the default bridge send what leaves a network of it, whose bridge has this address.
    pub(crate) fn default_gateway(&self, bridge: Subnet) -> IpAddr {
        let of_family = |gateway: &&IpAddr| gateway.is_ipv4() == bridge.address.is_ipv4();
        self.default_gateways.iter().find(of_family).copied().unwrap_or(bridge.address)
    }

    /// What has to be part of a network of the default bridge, by its key.
    pub(crate) fn within(&self, network: Subnet) -> impl Iterator<Item = (&'static str, Subnet)> {
        let keys = if network.address.is_ipv4() {
            ["fixed-cidr", "default-gateway"]
        } else {
            ["fixed-cidr-v6", "default-gateway-v6"]
        };
        let range = if network.address.is_ipv4() { self.fixed_cidr } else { self.fixed_cidr_v6 };
        let of_family = |gateway: &&IpAddr| gateway.is_ipv4() == network.address.is_ipv4();
        let gateway =
            self.default_gateways.iter().find(of_family).map(|gateway| Subnet::new(*gateway, network.width()));
        keys.into_iter().zip([range, gateway]).filter_map(|(key, value)| Some((key, value?)))
    }

    /// The pools of IPv4.
    pub(crate) fn pools(&self) -> Vec<AddressPool> {
        self.pools_or(false, subnet::default_pools)
    }

    /// The pools of IPv6.
    pub(crate) fn pools_of_ipv6(&self) -> Vec<AddressPool> {
        self.pools_or(true, || vec![subnet::site_pool(self.site)])
    }

    fn pools_or(&self, ipv6: bool, default: impl FnOnce() -> Vec<AddressPool>) -> Vec<AddressPool> {
        let given = self.default_address_pools.iter().filter(|pool| pool.base.address.is_ipv6() == ipv6);
        let pools: Vec<_> = given.copied().collect();
        if pools.is_empty() { default() } else { pools }
    }

    pub(crate) fn mtu(&self) -> u32 {
        if self.mtu == 0 { 1500 } else { self.mtu }
    }
}

/// Where nothing better is known: instances of one machine differ at least.
fn site(instance_key: &str) -> [u8; 5] {
    let mut site = [0; 5];
    for (at, byte) in instance_key.bytes().enumerate() {
        site[at % 5] ^= byte.rotate_left(at as u32);
    }
    site
}
