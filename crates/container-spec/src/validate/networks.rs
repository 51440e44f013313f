//! Whether the networks that a container is to be in go together, and with its network mode.
//!
//! dockerd looks at a part of this when the container starts, and at another one not at all; then what was asked for is
//! silently not done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use engine_api::container::EndpointSettings;

use super::{EndpointFault, InvalidRequest, NetworksFault};

/// The option with an endpoint's settings of the kernel's, with commas between.
pub const ENDPOINT_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

type Endpoints = BTreeMap<String, EndpointSettings>;

/// Refuses what the networks that are always there offer nobody.
pub(super) fn validate_endpoints(mode: &str, endpoints: &Endpoints) -> Result<(), InvalidRequest> {
    for (name, endpoint) in endpoints.iter().filter(|(name, _)| is_predefined(name)) {
        let name = name_of(mode, name);
        let mut faults = Vec::new();
        let ipam = endpoint.ipam_config.as_ref();
        let has = |key: &str| ipam.and_then(|ipam| ipam[key].as_str()).is_some_and(|address| !address.is_empty());
        let addresses = ["IPv4Address", "IPv6Address"].into_iter().filter(|key| has(key)).count();
        if addresses > 0 {
            faults.push(EndpointFault::Address);
        }
        if endpoint.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
            faults.push(EndpointFault::Alias);
        }
        // `default` is no network whose addresses could be looked at.
        if name != "default" {
            faults.extend(std::iter::repeat_n(EndpointFault::Subnet, addresses));
        }
        if !faults.is_empty() {
            return Err(InvalidRequest::Endpoint { network: name.to_owned(), faults });
        }
    }
    Ok(())
}

fn is_predefined(name: &str) -> bool {
    matches!(name, "default" | "bridge" | "host" | "none")
}

/// Where the mode is the default one, so is the network of that name.
fn name_of<'a>(mode: &str, name: &'a str) -> &'a str {
    if matches!(mode, "" | "default") && name == "default" { "bridge" } else { name }
}

/// What is wrong with an endpoint's settings, on a network that `user_defined` or not.
///
/// Whether a user's network has the addresses is not looked at.
pub fn validate_endpoint(endpoint: &EndpointSettings, user_defined: bool) -> Vec<EndpointFault> {
    let mut faults = Vec::new();
    let text = |key: &str| endpoint.ipam_config.as_ref().and_then(|ipam| ipam[key].as_str()).unwrap_or_default();
    let (ipv4, ipv6) = (text("IPv4Address"), text("IPv6Address"));
    if !user_defined {
        if !ipv4.is_empty() || !ipv6.is_empty() {
            faults.push(EndpointFault::Address);
        }
        if endpoint.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
            faults.push(EndpointFault::Alias);
        }
    }
    if !ipv4.is_empty() && !ipv4.parse::<Ipv4Addr>().is_ok_and(|address| !address.is_unspecified()) {
        faults.push(EndpointFault::Ipv4(ipv4.to_owned()));
    }
    if !ipv6.is_empty() && !ipv6.parse::<Ipv6Addr>().is_ok_and(|address| !address.is_unspecified()) {
        faults.push(EndpointFault::Ipv6(ipv6.to_owned()));
    }
    let link_local = endpoint.ipam_config.as_ref().and_then(|ipam| ipam["LinkLocalIPs"].as_array());
    for one in link_local.into_iter().flatten() {
        let text = one.as_str().unwrap_or_default();
        if !text.parse::<IpAddr>().is_ok_and(|address| !address.is_unspecified()) {
            faults.push(EndpointFault::LinkLocal(text.to_owned()));
        }
    }
    let sysctls = endpoint.driver_opts.as_ref().and_then(|options| options.get(ENDPOINT_SYSCTLS));
    let unknown = sysctls.into_iter().flat_map(|all| all.split(',')).filter(|one| !is_of_interface(one));
    faults.extend(unknown.map(|one| EndpointFault::Sysctl(one.to_owned())));
    faults
}

/// Whether a text could be `net.ipv4.conf.IFNAME.forwarding=1`. Docker's command line writes options in small letters.
fn is_of_interface(sysctl: &str) -> bool {
    match sysctl.splitn(5, '.').collect::<Vec<_>>()[..] {
        [_, family, _, interface, _] => {
            matches!(family, "ipv4" | "ipv6" | "mpls") && matches!(interface, "IFNAME" | "ifname")
        }
        _ => false,
    }
}

/// Refuses networks that exclude each other or the mode. dockerd does so when the container starts.
pub(super) fn validate_together(mode: &str, endpoints: &Endpoints) -> Result<(), InvalidRequest> {
    let names: BTreeSet<&str> = endpoints.keys().map(|name| name_of(mode, name)).collect();
    let mode = if matches!(mode, "" | "default") { "bridge" } else { mode };
    let others = || names.iter().any(|name| *name != mode);
    let has = |wanted: &str| names.contains(wanted);
    let fault = match mode {
        _ if !others() => return Ok(()),
        _ if has("default") => NetworksFault::Missing("default".to_owned()),
        "host" => NetworksFault::Shared,
        _ if has("host") => NetworksFault::Host,
        _ if names.len() > 1 && (has("none") || mode == "none") => NetworksFault::None,
        _ if has("none") || mode == "none" => NetworksFault::Mode,
        _ => return Ok(()),
    };
    Err(InvalidRequest::Networks(fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(names: &str) -> Endpoints {
        names.split_whitespace().map(|name| (name.to_owned(), EndpointSettings::default())).collect()
    }

    #[test]
    fn networks_go_together_or_are_refused_in_dockers_words() {
        let (none, host, shared) = (Some(NetworksFault::None), Some(NetworksFault::Host), Some(NetworksFault::Shared));
        let missing = Some(NetworksFault::Missing("default".to_owned()));
        for (mode, names, fault) in [
            ("", "", None),
            ("", "default", None),
            ("default", "bridge default", None),
            ("bridge", "bridge", None),
            ("none", "none", None),
            ("host", "host", None),
            ("none", "bridge none", none.clone()),
            ("bridge", "bridge none", none),
            ("default", "default host", host.clone()),
            ("none", "host none", host.clone()),
            ("none", "host", host),
            ("host", "bridge host", shared.clone()),
            ("host", "none", shared),
            ("none", "bridge", Some(NetworksFault::Mode)),
            ("default", "none", Some(NetworksFault::Mode)),
            ("a", "a b", None),
            ("a", "bridge", None),
            ("a", "a none", Some(NetworksFault::None)),
            ("host", "a", Some(NetworksFault::Shared)),
            ("none", "a", Some(NetworksFault::Mode)),
            ("none", "default", missing.clone()),
            ("bridge", "default", missing),
        ] {
            let told = validate_together(mode, &endpoints(names));
            let expected = fault.map_or(Ok(()), |fault| Err(InvalidRequest::Networks(fault)));
            assert_eq!(told, expected, "{mode} with {names}");
        }
    }

    #[test]
    fn predefined_networks_let_nobody_choose() {
        let told = |endpoint: &str| {
            let endpoint: EndpointSettings = serde_json::from_str(endpoint).unwrap();
            validate_endpoints("none", &[("none".to_owned(), endpoint)].into()).map_err(|err| err.to_string())
        };
        let prefix = "invalid config for network none: invalid endpoint settings:\n";
        let subnet =
            "user specified IP address is supported only when connecting to networks with user configured subnets";
        let address = "user specified IP address is supported on user defined networks only";
        let alias = "network-scoped alias is supported only for containers in user defined networks";
        assert_eq!(told("{\"IPAMConfig\":{\"IPv4Address\":\"\"}}"), Ok(()));
        assert_eq!(told("{\"Aliases\":[\"a\"]}"), Err(format!("{prefix}{alias}")));
        let addressed = told("{\"IPAMConfig\":{\"IPv4Address\":\"1.2.3.4\"}}");
        assert_eq!(addressed, Err(format!("{prefix}* {address}\n* {subnet}")));
    }

    #[test]
    fn settings_of_interfaces_are_told_from_others() {
        let settings = |text: &str| EndpointSettings {
            driver_opts: Some([(ENDPOINT_SYSCTLS.to_owned(), text.to_owned())].into()),
            ..EndpointSettings::default()
        };
        let faults = |text: &str| validate_endpoint(&settings(text), true);
        assert_eq!(faults("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.forwarding=0"), []);
        let unknown = ["net.ipv4.conf.eth0.forwarding=1", "a=b", "", "net.core.conf.IFNAME.x=1"];
        let expected: Vec<_> = unknown.iter().map(|one| EndpointFault::Sysctl((*one).to_owned())).collect();
        assert_eq!(faults(&unknown.join(",")), expected);
    }
}
