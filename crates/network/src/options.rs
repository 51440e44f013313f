//! The options of a bridge network, as users give them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use errdefs::ErrorKind;

const NAME: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const GATEWAY_MODES: [&str; 2] =
    ["com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"];
const INHIBIT: &str = "com.docker.network.bridge.inhibit_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";
const PREFIX: &str = "com.docker.network.container_iface_prefix";
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
/// All of them stand in one rule, of which each takes two expressions: the kernel has 128 (NFT_RULE_MAXEXPRS).
const TRUSTED_MAX: usize = 32;
/// What would change a network and does nothing here.
const NOT_OFFERED: [&str; 1] = ["com.docker.network.host_ipv4"];

/// How the containers of a bridge network and everybody else reach each other, by one family of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// Containers leave with the host's address, and are reached by ports of the host.
    #[default]
    Nat,
    /// Likewise, and whoever has a route to them reaches all their ports.
    NatUnprotected,
    /// Containers have their own addresses everywhere; whoever has a route to them reaches the published ports.
    Routed,
    /// The bridge has no address: this machine is not on the network. Of internal networks alone.
    Isolated,
}

impl std::str::FromStr for GatewayMode {
    type Err = ();

    fn from_str(text: &str) -> Result<GatewayMode, ()> {
        match text {
            "" | "nat" => Ok(GatewayMode::Nat),
            "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
            "routed" => Ok(GatewayMode::Routed),
            "isolated" => Ok(GatewayMode::Isolated),
            _ => Err(()),
        }
    }
}

impl std::fmt::Display for GatewayMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            GatewayMode::Nat => "nat",
            GatewayMode::NatUnprotected => "nat-unprotected",
            GatewayMode::Routed => "routed",
            GatewayMode::Isolated => "isolated",
        })
    }
}

/// What the options come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The wanted name of the bridge.
    pub(crate) bridge: Option<String>,
    /// The largest packet in bytes, if it is not the default one.
    pub(crate) mtu: Option<u32>,
    pub(crate) icc: bool,
    pub(crate) masquerade: bool,
    pub(crate) host_address: Option<Ipv4Addr>,
    /// What the names of interfaces in containers begin with.
    pub(crate) prefix: Option<String>,
}

/// Why options are refused. The texts are dockerd's, numbers and truth values in the words of its language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// A number or a truth value is none.
    #[error("failed to parse {option} value: {value} (strconv.{parser}: parsing {value:?}: invalid syntax)")]
    Syntax {
        /// Which option.
        option: &'static str,
        /// As given.
        value: String,
        /// What was to be read.
        parser: &'static str,
    },
    /// The largest packet cannot have this size.
    #[error("invalid MTU number: {0}")]
    Mtu(i64),
    /// An address is none.
    #[error("failed to parse {HOST_BINDING} value: {0} (nil ip)")]
    Address(String),
    /// There is no such mode.
    #[error("failed to parse {option} value: {mode} (unknown gateway mode {mode})")]
    GatewayMode {
        /// Which option.
        option: &'static str,
        /// As given.
        mode: String,
    },
    /// Somebody else than the network's containers is to be on it.
    #[error("gateway mode 'isolated' can only be used for an internal network")]
    NotInternal,
    /// The kernel takes no interface of such a name.
    #[error("numerical result out of range")]
    LongName,
    /// More links are named than a rule can speak of.
    #[error("{TRUSTED} names {0} interfaces, the most are {TRUSTED_MAX}")]
    ManyTrusted(usize),
    /// Longshore does not do this.
    #[error("network option {option}={value} is not supported by Longshore yet")]
    NotOffered {
        /// Which option.
        option: String,
        /// As given.
        value: String,
    },
}

impl OptionError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OptionError::LongName | OptionError::NotInternal => ErrorKind::Internal,
            OptionError::NotOffered { .. } => ErrorKind::NotImplemented,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// Reads options. Those that nobody knows are kept for whoever looks at the network, as with dockerd.
pub(crate) fn parse(given: &BTreeMap<String, String>) -> Result<Options, OptionError> {
    for option in GATEWAY_MODES {
        let mode = given.get(option).map_or("", String::as_str);
        if mode.parse::<GatewayMode>().is_err() {
            return Err(OptionError::GatewayMode { option, mode: mode.to_owned() });
        }
    }
    // Read where it counts.
    truth_or(given, INHIBIT, "false")?;
    if let Some((option, value)) = given.iter().find(|(name, _)| NOT_OFFERED.contains(&name.as_str())) {
        return Err(OptionError::NotOffered { option: option.clone(), value: value.clone() });
    }
    let trusted = trusted_interfaces(given).len();
    if trusted > TRUSTED_MAX {
        return Err(OptionError::ManyTrusted(trusted));
    }
    let text = |option| given.get(option).filter(|value| !value.is_empty()).cloned();
    let bridge = text(NAME);
    if bridge.as_ref().is_some_and(|name| name.len() > netlink::link::NAME_MAX) {
        return Err(OptionError::LongName);
    }
    Ok(Options {
        bridge,
        mtu: mtu(given)?,
        icc: truth(given, ICC)?,
        masquerade: truth(given, MASQUERADE)?,
        host_address: host_address(given)?,
        prefix: text(PREFIX),
    })
}

/// How containers and everybody else reach each other, by IPv4 and by IPv6.
pub(crate) fn gateway_modes(given: &BTreeMap<String, String>) -> [GatewayMode; 2] {
    GATEWAY_MODES.map(|option| given.get(option).and_then(|mode| mode.parse().ok()).unwrap_or_default())
}

/// Whether somebody else than the bridge has the gateway's address of IPv4.
pub(crate) fn inhibits_ipv4(given: &BTreeMap<String, String>) -> bool {
    truth_or(given, INHIBIT, "false").unwrap_or_default()
}

/// The links of this machine whose neighbours reach published ports at the containers' own addresses, each once. What no link can be
/// called is none.
pub(crate) fn trusted_interfaces(given: &BTreeMap<String, String>) -> Vec<String> {
    let names = given.get(TRUSTED).map_or("", String::as_str).split(':');
    let could_be = |name: &&str| !name.is_empty() && name.len() <= netlink::link::NAME_MAX;
    let names: BTreeSet<&str> = names.filter(could_be).collect();
    names.into_iter().map(str::to_owned).collect()
}

fn mtu(given: &BTreeMap<String, String>) -> Result<Option<u32>, OptionError> {
    let Some(value) = given.get(MTU) else { return Ok(None) };
    let syntax = || OptionError::Syntax { option: MTU, value: value.clone(), parser: "Atoi" };
    let number: i64 = value.parse().map_err(|_| syntax())?;
    match u32::try_from(number) {
        Err(_) => Err(OptionError::Mtu(number)),
        Ok(0) => Ok(None),
        Ok(mtu) => Ok(Some(mtu)),
    }
}

fn truth(given: &BTreeMap<String, String>, option: &'static str) -> Result<bool, OptionError> {
    truth_or(given, option, "true")
}

fn truth_or(given: &BTreeMap<String, String>, option: &'static str, default: &str) -> Result<bool, OptionError> {
    match given.get(option).map_or(default, String::as_str) {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        value => Err(OptionError::Syntax { option, value: value.to_owned(), parser: "ParseBool" }),
    }
}

fn host_address(given: &BTreeMap<String, String>) -> Result<Option<Ipv4Addr>, OptionError> {
    let Some(value) = given.get(HOST_BINDING) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| OptionError::Address(value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(option: &str, value: &str) -> Result<Options, String> {
        parse(&[(option.to_owned(), value.to_owned())].into()).map_err(|err| err.to_string())
    }

    #[test]
    fn options_are_read_as_docker_reads_them() {
        let plain = parse(&BTreeMap::new()).unwrap();
        assert_eq!((plain.icc, plain.masquerade, plain.mtu), (true, true, None));
        assert_eq!(told("foo", "bar").unwrap(), plain);
        assert!(!told(ICC, "F").unwrap().icc);
        assert!(!told(MASQUERADE, "0").unwrap().masquerade);
        assert_eq!(told(MTU, "1400").unwrap().mtu, Some(1400));
        assert_eq!(told(NAME, "lab0").unwrap().bridge.as_deref(), Some("lab0"));
        let modes = [GatewayMode::Nat, GatewayMode::NatUnprotected, GatewayMode::Routed, GatewayMode::Isolated];
        for (at, option) in GATEWAY_MODES.into_iter().enumerate() {
            for mode in modes {
                assert_eq!(told(option, &mode.to_string()), Ok(plain.clone()));
                let read = gateway_modes(&[(option.to_owned(), mode.to_string())].into());
                assert_eq!((read[at], read[1 - at]), (mode, GatewayMode::Nat));
            }
        }
        let named = [(TRUSTED.to_owned(), ":eth0::eth1:a-name-that-no-link-has".to_owned())].into();
        assert_eq!(trusted_interfaces(&named), ["eth0", "eth1"]);
        assert!(inhibits_ipv4(&[(INHIBIT.to_owned(), "1".to_owned())].into()) && !inhibits_ipv4(&BTreeMap::new()));
        assert_eq!(told(HOST_BINDING, "127.0.0.1").unwrap().host_address, Some(Ipv4Addr::LOCALHOST));
        for (option, value, text) in [
            (
                MTU,
                "x",
                "failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing \"x\": invalid syntax)",
            ),
            (MTU, "-4", "invalid MTU number: -4"),
            (
                ICC,
                "x",
                "failed to parse com.docker.network.bridge.enable_icc value: x (strconv.ParseBool: parsing \"x\": \
                 invalid syntax)",
            ),
            (HOST_BINDING, "x", "failed to parse com.docker.network.bridge.host_binding_ipv4 value: x (nil ip)"),
            (
                GATEWAY_MODES[0],
                "zz",
                "failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: zz (unknown gateway mode zz)",
            ),
            (NAME, "waytoolongbridgename", "numerical result out of range"),
            (
                INHIBIT,
                "x",
                "failed to parse com.docker.network.bridge.inhibit_ipv4 value: x (strconv.ParseBool: parsing \"x\": \
                 invalid syntax)",
            ),
            (
                NOT_OFFERED[0],
                "10.0.0.1",
                "network option com.docker.network.host_ipv4=10.0.0.1 is not supported by Longshore yet",
            ),
        ] {
            assert_eq!(told(option, value), Err(text.to_owned()), "{option}={value}");
        }
    }
}
