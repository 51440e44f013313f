//! `--network`: a name, or `name=NAME,alias=A,ip=...`.

use std::collections::BTreeMap;

use engine_api::container::EndpointSettings;
use serde_json::{Map, Value, json};

use super::mount;
use crate::args::Parsed;

/// Why a network is wrong. The texts are docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No `=` in the long form.
    #[error("invalid field {0}")]
    Field(String),
    /// No such key.
    #[error("invalid field key {0}")]
    Key(String),
    /// A driver's option without a name.
    #[error("invalid key value pair format in driver options")]
    DriverOption,
    /// A priority that is no number.
    #[error("invalid gw-priority ({0}): invalid syntax")]
    Priority(String),
    /// The long form does not name it.
    #[error("network name/id is not specified")]
    NoTarget,
    /// `--network ''`
    #[error("no name set for network")]
    NoName,
    /// Two networks of one name.
    #[error("network {0:?} is specified multiple times")]
    Twice(String),
    /// Other names, where there is nobody to ask for them.
    #[error("network-scoped aliases are only supported for user-defined networks")]
    Aliases,
    /// Not six, eight or twenty bytes in hex.
    #[error("{0} is not a valid mac address")]
    MacAddress(String),
    /// The same, said twice.
    #[error("conflicting options: cannot specify both {0}")]
    Both(&'static str),
    /// Networks that exclude each other.
    #[error("conflicting options: cannot attach both user-defined and non-user-defined network-modes")]
    Mixed,
}

/// A network and the container's place in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachment {
    /// Which network.
    pub name: String,
    /// The container's place in it.
    pub endpoint: EndpointSettings,
}

/// Reads one value of the flag.
pub fn parse(text: &str) -> Result<Attachment, NetworkError> {
    if !is_long(text) {
        return Ok(Attachment { name: text.to_owned(), ..Attachment::default() });
    }
    let mut attachment = Attachment::default();
    for field in mount::fields(text) {
        let lower = field.to_lowercase();
        match lower.split_once('=') {
            Some((key, value)) if !key.is_empty() => set(&mut attachment, key.trim(), value.trim())?,
            _ => return Err(NetworkError::Field(field)),
        }
    }
    if attachment.name.is_empty() { Err(NetworkError::NoTarget) } else { Ok(attachment) }
}

/// Whether there is a word on both sides of an equals sign.
fn is_long(text: &str) -> bool {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = text.as_bytes();
    text.match_indices('=').any(|(at, _)| at > 0 && is_word(bytes.get(at - 1)) && is_word(bytes.get(at + 1)))
}

fn set(attachment: &mut Attachment, key: &str, value: &str) -> Result<(), NetworkError> {
    let endpoint = &mut attachment.endpoint;
    match key {
        "name" => attachment.name = value.to_owned(),
        "alias" => endpoint.aliases.get_or_insert_default().push(value.to_owned()),
        "ip" => address(endpoint, "IPv4Address", json!(value)),
        "ip6" => address(endpoint, "IPv6Address", json!(value)),
        "link-local-ip" => {
            let known = endpoint.ipam_config.as_ref().and_then(|ipam| ipam["LinkLocalIPs"].as_array());
            let addresses: Vec<Value> = known.into_iter().flatten().cloned().chain([json!(value)]).collect();
            address(endpoint, "LinkLocalIPs", Value::Array(addresses));
        }
        "mac-address" => endpoint.mac_address = value.to_owned(),
        "driver-opt" => match value.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                let options = endpoint.driver_opts.get_or_insert_default();
                options.insert(name.trim().to_owned(), value.trim().to_owned());
            }
            _ => return Err(NetworkError::DriverOption),
        },
        "gw-priority" => {
            endpoint.gw_priority = value.parse().map_err(|_| NetworkError::Priority(value.to_owned()))?;
        }
        _ => return Err(NetworkError::Key(key.to_owned())),
    }
    Ok(())
}

fn address(endpoint: &mut EndpointSettings, key: &str, value: Value) {
    endpoint.ipam_config.get_or_insert_with(|| Value::Object(Map::new()))[key] = value;
}

/// The network whose name is the container's network mode; values were checked when read.
pub fn mode(given: &[String]) -> String {
    let first = given.first().and_then(|text| parse(text).ok());
    first.map_or_else(|| "default".to_owned(), |attachment| attachment.name)
}

/// The container's place in each network. What flags of their own say of it, they say of the first one.
pub fn endpoints(parsed: &Parsed) -> Result<BTreeMap<String, EndpointSettings>, NetworkError> {
    if !matches!(parsed.text("mac-address"), address if address.is_empty() || is_mac_address(address)) {
        return Err(NetworkError::MacAddress(parsed.text("mac-address").to_owned()));
    }
    let given = parsed.list("network");
    let mut endpoints = BTreeMap::new();
    if given.is_empty() {
        let mut attachment = Attachment { name: "default".to_owned(), ..Attachment::default() };
        add_flags(&mut attachment, parsed)?;
        check(&attachment.name, &attachment.endpoint)?;
        endpoints.insert(attachment.name, attachment.endpoint);
    }
    let (mut any_own, mut any_predefined) = (false, false);
    for (at, text) in given.iter().enumerate() {
        let mut attachment = parse(text)?;
        if at == 0 {
            add_flags(&mut attachment, parsed)?;
        }
        let Attachment { name, endpoint } = attachment;
        check(&name, &endpoint)?;
        any_own |= is_user_defined(&name);
        any_predefined |= !is_user_defined(&name);
        if endpoints.contains_key(&name) {
            return Err(NetworkError::Twice(name));
        }
        // A single network without options of its own is left to the network mode, as Docker's client does.
        if given.len() > 1 || endpoint != EndpointSettings::default() {
            endpoints.insert(name, endpoint);
        }
    }
    if any_own && any_predefined { Err(NetworkError::Mixed) } else { Ok(endpoints) }
}

/// `--ip`, `--network-alias` and their like.
fn add_flags(attachment: &mut Attachment, parsed: &Parsed) -> Result<(), NetworkError> {
    let user_defined = is_user_defined(&attachment.name);
    let endpoint = &mut attachment.endpoint;
    let ipam = endpoint.ipam_config.clone().unwrap_or_default();
    let aliases = [parsed.list("network-alias"), parsed.list("net-alias")].concat();
    let (links, link_local) = (parsed.list("link"), parsed.list("link-local-ip"));
    let (ip, ip6, mac) = (parsed.text("ip"), parsed.text("ip6"), parsed.text("mac-address"));
    let conflicts = [
        (!aliases.is_empty() && endpoint.aliases.is_some(), "--network-alias and per-network alias"),
        (!ip.is_empty() && !ipam["IPv4Address"].is_null(), "--ip and per-network IPv4 address"),
        (!ip6.is_empty() && !ipam["IPv6Address"].is_null(), "--ip6 and per-network IPv6 address"),
        (!mac.is_empty() && !endpoint.mac_address.is_empty(), "--mac-address and per-network MAC address"),
        (
            !link_local.is_empty() && !ipam["LinkLocalIPs"].is_null(),
            "--link-local-ip and per-network link-local IP addresses",
        ),
    ];
    if let Some((_, options)) = conflicts.into_iter().find(|(conflict, _)| *conflict) {
        return Err(NetworkError::Both(options));
    }
    if !aliases.is_empty() {
        endpoint.aliases = Some(aliases);
    }
    // On the default bridge a link is a matter of the host's configuration.
    if user_defined && !links.is_empty() {
        endpoint.links = Some(links.to_vec());
    }
    for (key, value) in [("IPv4Address", ip), ("IPv6Address", ip6)] {
        if !value.is_empty() {
            address(endpoint, key, json!(value));
        }
    }
    if !link_local.is_empty() {
        address(endpoint, "LinkLocalIPs", json!(link_local));
    }
    if !mac.is_empty() {
        mac.clone_into(&mut endpoint.mac_address);
    }
    Ok(())
}

fn check(name: &str, endpoint: &EndpointSettings) -> Result<(), NetworkError> {
    if name.trim().is_empty() {
        return Err(NetworkError::NoName);
    }
    if !is_user_defined(name) && endpoint.aliases.is_some() {
        return Err(NetworkError::Aliases);
    }
    match endpoint.mac_address.as_str() {
        "" => Ok(()),
        address if is_mac_address(address) => Ok(()),
        address => Err(NetworkError::MacAddress(address.to_owned())),
    }
}

fn is_user_defined(name: &str) -> bool {
    !matches!(name, "default" | "bridge" | "host" | "none") && !name.starts_with("container:")
}

/// Go's `net.ParseMAC`: `00:00:5e:00:53:01`, `00-00-5e-00-53-01`, `0000.5e00.5301`, and the longer kinds.
fn is_mac_address(text: &str) -> bool {
    let Some(separator) = text.chars().find(|c| !c.is_ascii_hexdigit()) else { return false };
    let (digits, counts) = match separator {
        ':' | '-' => (2, [6, 8, 20]),
        '.' => (4, [3, 4, 10]),
        _ => return false,
    };
    let groups: Vec<&str> = text.split(separator).collect();
    let is_group = |group: &&str| group.len() == digits && group.bytes().all(|byte| byte.is_ascii_hexdigit());
    counts.contains(&groups.len()) && groups.iter().all(is_group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(given: &[&str]) -> String {
        let given: Vec<String> = given.iter().map(|text| format!("--network={text}")).collect();
        told_of(&given)
    }

    fn told_of(line: &[String]) -> String {
        let command = crate::args::tables::find("run").expect("a command of the tables");
        let flag = |long: &str| command.all_flags().find(|flag| flag.long == long);
        let parsed = match crate::args::parse(&flag, &|_| None, false, line) {
            Ok(parsed) => parsed,
            Err(crate::args::ArgsError::Invalid { reason, .. }) => return reason.to_string(),
            Err(err) => return err.to_string(),
        };
        match endpoints(&parsed) {
            Ok(endpoints) => endpoints.into_keys().collect::<Vec<_>>().join(" "),
            Err(err) => err.to_string(),
        }
    }

    #[test]
    fn networks_are_read_as_docker_reads_them() {
        for (given, expected) in [
            (&[][..], "default"),
            (&["none"], ""),
            (&["name=none"], ""),
            (&["none", "host"], "host none"),
            (&["name=none,gw-priority=1"], "none"),
            (&["none", "none"], "network \"none\" is specified multiple times"),
            (
                &["none", "own"],
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ),
            (&[""], "no name set for network"),
            (&["alias=a"], "network name/id is not specified"),
            (&["name=none,foo=1"], "invalid field key foo"),
            (&["name=none,foo"], "invalid field foo"),
            (&["name=none,gw-priority=x"], "invalid gw-priority (x): invalid syntax"),
            (&["name=none,driver-opt=x"], "invalid key value pair format in driver options"),
            (&["name=none,alias=a"], "network-scoped aliases are only supported for user-defined networks"),
            (&["name=none,mac-address=1:2"], "1:2 is not a valid mac address"),
        ] {
            assert_eq!(told(given), expected, "{given:?}");
        }
    }

    #[test]
    fn flags_of_their_own_describe_the_first_network() {
        for (line, expected) in [
            (&["--ip=1.2.3.4"][..], "default"),
            (&["--mac-address=x"], "x is not a valid mac address"),
            (&["--network-alias=a"], "network-scoped aliases are only supported for user-defined networks"),
            (&["--network=own", "--network-alias=a", "--link=b", "--ip6=::1"], "own"),
            (
                &["--network=name=own,alias=a", "--net-alias=b"],
                "conflicting options: cannot specify both --network-alias and per-network alias",
            ),
            (
                &["--network=name=own,ip=1.2.3.4", "--ip=1.2.3.5"],
                "conflicting options: cannot specify both --ip and per-network IPv4 address",
            ),
        ] {
            let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(told_of(&line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_long_form_describes_the_endpoint() {
        let text =
            "name=N,alias=A,alias=b,ip=1.2.3.4,link-local-ip=169.254.1.1,mac-address=02:42:AC:11:00:02,driver-opt=x=Y";
        let Attachment { name, endpoint } = parse(text).unwrap();
        assert_eq!(name, "n");
        assert_eq!(endpoint.aliases, Some(vec!["a".to_owned(), "b".to_owned()]));
        let ipam = json!({"IPv4Address": "1.2.3.4", "LinkLocalIPs": ["169.254.1.1"]});
        assert_eq!((endpoint.ipam_config, endpoint.mac_address.as_str()), (Some(ipam), "02:42:ac:11:00:02"));
        assert_eq!(endpoint.driver_opts, Some([("x".to_owned(), "y".to_owned())].into()));
    }
}
