//! The addresses of a new network: which range, gateway and set-aside address belongs to which subnet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use engine_api::network::{Ipam, IpamConfig};

use super::environment;
use crate::args::Parsed;

/// Why addresses do not go together. The texts are docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// There are more of them than subnets.
    #[error("every ip-range or gateway must have a corresponding subnet")]
    TooMany,
    /// One subnet lies in another one.
    #[error("multiple overlapping subnet configuration is not supported")]
    Overlap,
    /// A subnet is none.
    #[error("invalid subnet: invalid CIDR address: {0}")]
    Subnet(String),
    /// A range is none.
    #[error("invalid CIDR address: {0}")]
    Range(String),
    /// No subnet has it.
    #[error("no matching subnet for {kind} {text}")]
    NoSubnet {
        /// What it is.
        kind: &'static str,
        /// As given.
        text: String,
    },
    /// Two ranges of one subnet.
    #[error("cannot configure multiple ranges ({0}, {1}) on the same subnet ({2})")]
    Ranges(String, String, String),
    /// Two gateways of one subnet.
    #[error("cannot configure multiple gateways ({0}, {1}) for the same subnet ({2})")]
    Gateways(String, String, String),
}

/// Reads the flags of `network create`.
pub fn plan(parsed: &Parsed) -> Result<Ipam, IpamError> {
    let (wanted, ranges, gateways) =
        (strings(parsed, "subnet"), strings(parsed, "ip-range"), strings(parsed, "gateway"));
    let mut subnets: Vec<IpamConfig> = Vec::new();
    if wanted.len() < ranges.len().max(gateways.len()) {
        return Err(IpamError::TooMany);
    }
    for subnet in &wanted {
        for other in &subnets {
            if contains(subnet, &other.subnet)? || contains(&other.subnet, subnet)? {
                return Err(IpamError::Overlap);
            }
        }
        subnets.push(IpamConfig { subnet: subnet.clone(), ..IpamConfig::default() });
    }
    for range in &ranges {
        let (address, bits) = range.split_once('/').ok_or_else(|| IpamError::Range(range.clone()))?;
        if address.parse::<IpAddr>().is_err() || bits.parse::<u8>().is_err() {
            return Err(IpamError::Range(range.clone()));
        }
        let subnet = of(&mut subnets, "range", range)?;
        if !subnet.ip_range.is_empty() {
            return Err(IpamError::Ranges(range.clone(), subnet.ip_range.clone(), subnet.subnet.clone()));
        }
        subnet.ip_range.clone_from(range);
    }
    for gateway in &gateways {
        let subnet = of(&mut subnets, "gateway", gateway)?;
        if !subnet.gateway.is_empty() {
            return Err(IpamError::Gateways(gateway.clone(), subnet.gateway.clone(), subnet.subnet.clone()));
        }
        subnet.gateway.clone_from(gateway);
    }
    for text in parsed.list("aux-address") {
        let (name, address) = environment::pair(text);
        of(&mut subnets, "aux-address", &address)?.auxiliary_addresses.insert(name, address);
    }
    Ok(Ipam {
        driver: parsed.text("ipam-driver").to_owned(),
        options: Some(pairs(parsed, "ipam-opt")),
        config: Some(subnets),
    })
}

/// Texts separated by commas, several times.
pub fn strings(parsed: &Parsed, flag: &str) -> Vec<String> {
    parsed.list(flag).iter().flat_map(|text| text.split(',')).map(str::to_owned).collect()
}

/// `name=value`, several times.
pub fn pairs(parsed: &Parsed, flag: &str) -> BTreeMap<String, String> {
    parsed.list(flag).iter().map(|text| environment::pair(text)).collect()
}

/// The subnet that an address or a range lies in.
fn of<'a>(subnets: &'a mut [IpamConfig], kind: &'static str, text: &str) -> Result<&'a mut IpamConfig, IpamError> {
    let mut at = None;
    for (number, one) in subnets.iter().enumerate() {
        if contains(&one.subnet, text)? {
            at = Some(number);
        }
    }
    let at = at.ok_or_else(|| IpamError::NoSubnet { kind, text: text.to_owned() })?;
    Ok(&mut subnets[at])
}

/// Whether an address, or that of a range, lies in a subnet. What is no address lies in none.
fn contains(subnet: &str, text: &str) -> Result<bool, IpamError> {
    let invalid = || IpamError::Subnet(subnet.to_owned());
    let (address, bits) = subnet.split_once('/').ok_or_else(invalid)?;
    let (address, bits): (IpAddr, u32) =
        (address.parse().map_err(|_| invalid())?, bits.parse().map_err(|_| invalid())?);
    let Ok(other) = text.split('/').next().unwrap_or_default().parse::<IpAddr>() else { return Ok(false) };
    let same = |a: u128, b: u128, width: u32| match width.checked_sub(bits) {
        None => Err(invalid()),
        Some(free) => Ok(a.checked_shr(free).unwrap_or(0) == b.checked_shr(free).unwrap_or(0)),
    };
    match (address, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &[&str]) -> String {
        let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        let command = crate::args::tables::find("network create").expect("a command of the tables");
        let flag = |long: &str| command.all_flags().find(|flag| flag.long == long);
        let short = |short: char| command.all_flags().find(|flag| flag.short == Some(short));
        let parsed = crate::args::parse(&flag, &short, false, &line).unwrap();
        match plan(&parsed) {
            Ok(ipam) => serde_json::to_string(&ipam.config).unwrap().replace('"', ""),
            Err(err) => err.to_string(),
        }
    }

    #[test]
    fn addresses_find_their_subnets() {
        for (line, expected) in [
            (&[][..], "[]"),
            (
                &["--subnet=10.1.0.0/16", "--subnet", "10.2.0.0/16", "--gateway=10.2.0.9", "--ip-range=10.1.4.0/24"],
                "[{Subnet:10.1.0.0/16,IPRange:10.1.4.0/24},{Subnet:10.2.0.0/16,Gateway:10.2.0.9}]",
            ),
            (
                &["--subnet=10.1.0.0/16", "--aux-address=a=10.1.0.3"],
                "[{Subnet:10.1.0.0/16,AuxiliaryAddresses:{a:10.1.0.3}}]",
            ),
            (&["--gateway=10.2.0.9"], "every ip-range or gateway must have a corresponding subnet"),
            (&["--subnet=10.1.0.0/16,10.1.4.0/24"], "multiple overlapping subnet configuration is not supported"),
            (&["--subnet=10.1.0.0/16", "--gateway=10.2.0.9"], "no matching subnet for gateway 10.2.0.9"),
            (&["--subnet=10.1.0.0/16", "--ip-range=10.2.0.0/24"], "no matching subnet for range 10.2.0.0/24"),
            (&["--subnet=10.1.0.0/16", "--ip-range=x"], "invalid CIDR address: x"),
            (&["--subnet=x", "--gateway=10.2.0.9"], "invalid subnet: invalid CIDR address: x"),
            (&["--subnet=10.1.0.0/16", "--aux-address=a=10.2.0.3"], "no matching subnet for aux-address 10.2.0.3"),
        ] {
            assert_eq!(told(line), expected, "{line:?}");
        }
    }
}
