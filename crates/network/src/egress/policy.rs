//! What a policy says: `deny,allow=example.org:443,allow=10.0.0.0/8`. Pure.
//!
//! ```text
//! policy  = "allow" | [ "deny," ] item *( "," item ) | "deny"
//! item    = "allow=" ( name ":" ports | address [ ":" ports ] )
//! name    = [ "*." ] label *( "." label )
//! address = IPv4[/PREFIX] | IPv6[/PREFIX] | "[" IPv6[/PREFIX] "]"       ports only behind brackets, or IPv4
//! ports   = PORT [ "-" PORT ] [ "/tcp" | "/udp" ]
//! ```

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use errdefs::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::ports::Protocol;
use crate::subnet::Subnet;

/// The label of a container, and the option of a network, that holds its policy.
pub const EGRESS: &str = "longshore.egress";

/// How many items a policy has at most: the packet filter has some elements for each.
const ITEMS_MAX: usize = 256;
/// How long a name is at most, and each of its labels (RFC 1035, 2.3.4), without the dot of the root.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;
/// How many ports a range of a name has at most: the packet filter has an element for each of them, and for each address.
const PORTS_MAX: u16 = 64;
/// How much of an item an error repeats.
const SHOWN_MAX: usize = 80;

/// Where containers may begin connections to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EgressPolicy {
    /// What is allowed; `None` where everything is.
    items: Option<Vec<Item>>,
}

/// One thing that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Addresses; all protocols and ports of them if none are named.
    Address { subnet: Subnet, ports: Option<Ports> },
    /// What a name leads to.
    Name { pattern: Pattern, ports: Ports },
}

/// Ports of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) protocol: Protocol,
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// A name, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// In small letters, without a dot at its end.
    name: String,
    below: bool,
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid egress policy: {item:?}: {fault}")]
pub struct EgressPolicyError {
    /// The part that is wrong, or its beginning.
    pub item: String,
    /// What is wrong with it.
    pub fault: EgressFault,
}

/// What is wrong with a part of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressFault {
    /// Neither a word of the language nor an item.
    #[error("expected deny, allow, or allow=DESTINATION")]
    Word,
    /// `allow` beside other words.
    #[error("allow without a destination stands alone: nothing is denied then")]
    AllowBeside,
    /// `deny` behind the first place.
    #[error("deny stands first, and once")]
    DenyLater,
    /// A name that no host has.
    #[error("not a name of a host, nor an address")]
    Name,
    /// A star that is not the whole first label of a name.
    #[error("a star stands for whole labels at the beginning of a name: *.example.org")]
    Star,
    /// A name without ports.
    #[error("a name needs a port: NAME:PORT[-PORT][/tcp|/udp]")]
    NoPort,
    /// Ports that are none.
    #[error("not a port, or a range of ports, from 1 to 65535")]
    Port,
    /// A wide range of a name's.
    #[error("a range of ports has 64 ports at most where it is a name's")]
    Wide,
    /// Another protocol.
    #[error("the protocol is tcp or udp")]
    Protocol,
    /// An address that is none, or its prefix.
    #[error("not an address with the length of a prefix")]
    Address,
    /// More than [`ITEMS_MAX`].
    #[error("a policy has 256 destinations at most")]
    TooMany,
}

impl EgressPolicyError {
    fn new(item: &str, fault: EgressFault) -> EgressPolicyError {
        EgressPolicyError { item: item.chars().take(SHOWN_MAX).collect(), fault }
    }

    /// Always the caller's mistake.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

impl EgressPolicy {
    /// Whether it says anything at all.
    pub fn restricts(&self) -> bool {
        self.items.is_some()
    }

    /// Whether names are to be looked up for it.
    pub fn has_names(&self) -> bool {
        self.items().iter().any(|item| matches!(item, Item::Name { .. }))
    }

    /// Whether a name may be looked up; in small letters, without a dot at its end.
    pub fn allows_name(&self, name: &str) -> bool {
        !self.restricts() || self.ports_of(name).next().is_some()
    }

    pub(crate) fn items(&self) -> &[Item] {
        self.items.as_deref().unwrap_or_default()
    }

    /// The ports that are allowed of a name's addresses.
    pub(crate) fn ports_of(&self, name: &str) -> impl Iterator<Item = Ports> {
        self.items().iter().filter_map(move |item| match item {
            Item::Name { pattern, ports } if pattern.matches(name) => Some(*ports),
            _ => None,
        })
    }
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        match self.below {
            false => name == self.name,
            true => name.strip_suffix(&self.name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

impl FromStr for EgressPolicy {
    type Err = EgressPolicyError;

    fn from_str(text: &str) -> Result<EgressPolicy, EgressPolicyError> {
        let mut items = Vec::new();
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        for (at, word) in words.iter().enumerate() {
            let failed = |fault| EgressPolicyError::new(word, fault);
            match *word {
                "allow" if words.len() == 1 => return Ok(EgressPolicy { items: None }),
                "allow" => return Err(failed(EgressFault::AllowBeside)),
                "deny" if at == 0 => {}
                "deny" => return Err(failed(EgressFault::DenyLater)),
                word => {
                    let destination = word.strip_prefix("allow=").ok_or_else(|| failed(EgressFault::Word))?;
                    items.push(item(destination.trim()).map_err(failed)?);
                }
            }
            if items.len() > ITEMS_MAX {
                return Err(failed(EgressFault::TooMany));
            }
        }
        Ok(EgressPolicy { items: Some(items) })
    }
}

impl TryFrom<String> for EgressPolicy {
    type Error = EgressPolicyError;

    fn try_from(text: String) -> Result<EgressPolicy, EgressPolicyError> {
        text.parse()
    }
}

impl From<EgressPolicy> for String {
    fn from(policy: EgressPolicy) -> String {
        policy.to_string()
    }
}

fn item(text: &str) -> Result<Item, EgressFault> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(EgressFault::Address)?;
        let subnet = subnet(address).filter(|subnet| subnet.address.is_ipv6()).ok_or(EgressFault::Address)?;
        let ports = match rest {
            "" => None,
            rest => Some(ports(rest.strip_prefix(':').ok_or(EgressFault::Address)?)?),
        };
        return Ok(Item::Address { subnet, ports });
    }
    if let Some(subnet) = subnet(text) {
        return Ok(Item::Address { subnet, ports: None });
    }
    // Two colons are an address of IPv6 that is none, or one that lacks its brackets.
    let (host, port) = match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => return Err(EgressFault::Address),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    if let Some(subnet) = subnet(host) {
        return Ok(Item::Address { subnet, ports: port.map(ports).transpose()? });
    }
    if host.contains('/') {
        return Err(EgressFault::Address);
    }
    let pattern = pattern(host)?;
    let ports = ports(port.ok_or(EgressFault::NoPort)?)?;
    if ports.last - ports.first >= PORTS_MAX { Err(EgressFault::Wide) } else { Ok(Item::Name { pattern, ports }) }
}

/// An address, alone or with a prefix, as the network of that prefix.
fn subnet(text: &str) -> Option<Subnet> {
    let alone = |address: IpAddr| Subnet::new(address, if address.is_ipv4() { 32 } else { 128 });
    let subnet = text.parse().map(alone).ok().or_else(|| text.parse().ok())?;
    Some(subnet.network())
}

fn ports(text: &str) -> Result<Ports, EgressFault> {
    let (range, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((range, "tcp")) => (range, Protocol::Tcp),
        Some((range, "udp")) => (range, Protocol::Udp),
        Some(_) => return Err(EgressFault::Protocol),
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|port: &u16| digits && *port > 0).ok_or(EgressFault::Port)
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err(EgressFault::Port) } else { Ok(Ports { protocol, first, last }) }
}

fn pattern(text: &str) -> Result<Pattern, EgressFault> {
    let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
    if name.contains('*') {
        return Err(EgressFault::Star);
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name that ends in a number is an address to many programs (WHATWG URL, 3.5), and no name to the DNS.
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let sound = name.len() <= NAME_MAX
        && name.split('.').all(is_label)
        && name.rsplit('.').next().is_some_and(|last| !is_number(last));
    if sound { Ok(Pattern { name, below }) } else { Err(EgressFault::Name) }
}

impl fmt::Display for EgressPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(items) = &self.items else { return f.write_str("allow") };
        f.write_str("deny")?;
        items.iter().try_for_each(|item| write!(f, ",allow={item}"))
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Address { subnet, ports: None } => write!(f, "{subnet}"),
            Item::Address { subnet, ports: Some(ports) } if subnet.address.is_ipv4() => write!(f, "{subnet}:{ports}"),
            Item::Address { subnet, ports: Some(ports) } => write!(f, "[{subnet}]:{ports}"),
            Item::Name { pattern, ports } => {
                write!(f, "{}{}:{ports}", if pattern.below { "*." } else { "" }, pattern.name)
            }
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}/{}", self.first, self.protocol),
            false => write!(f, "{}-{}/{}", self.first, self.last, self.protocol),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> Result<String, String> {
        text.parse().map(|policy: EgressPolicy| policy.to_string()).map_err(|err| err.to_string())
    }

    #[test]
    fn policies_are_read() {
        for (text, canonical) in [
            ("allow", "allow"),
            ("deny", "deny"),
            ("deny,allow=example.org:443", "deny,allow=example.org:443/tcp"),
            ("allow=Example.ORG.:80-90/udp", "deny,allow=example.org:80-90/udp"),
            ("allow=*.example.org:443", "deny,allow=*.example.org:443/tcp"),
            ("allow=a:1-64", "deny,allow=a:1-64/tcp"),
            ("allow=10.0.0.1:1-65535", "deny,allow=10.0.0.1/32:1-65535/tcp"),
            ("allow=10.1.2.3", "deny,allow=10.1.2.3/32"),
            ("allow=10.1.2.3/8:22", "deny,allow=10.0.0.0/8:22/tcp"),
            ("allow=0.0.0.0/0", "deny,allow=0.0.0.0/0"),
            ("allow=fd00::1", "deny,allow=fd00::1/128"),
            ("allow=fd00::/8", "deny,allow=fd00::/8"),
            ("allow=[fd00::1]", "deny,allow=fd00::1/128"),
            ("allow=[fd00::1]:443", "deny,allow=[fd00::1/128]:443/tcp"),
            ("allow=[fd00::/8]:53/udp", "deny,allow=[fd00::/8]:53/udp"),
            ("deny, allow=a:1, allow=b:2", "deny,allow=a:1/tcp,allow=b:2/tcp"),
        ] {
            assert_eq!(told(text).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_told_with_the_item() {
        for (text, item, fault) in [
            ("", "", EgressFault::Word),
            ("deny,", "", EgressFault::Word),
            ("refuse", "refuse", EgressFault::Word),
            ("example.org:443", "example.org:443", EgressFault::Word),
            ("deny,allow", "allow", EgressFault::AllowBeside),
            ("allow=a:1,deny", "deny", EgressFault::DenyLater),
            ("deny,deny", "deny", EgressFault::DenyLater),
            ("allow=", "allow=", EgressFault::Name),
            ("allow=a b:1", "allow=a b:1", EgressFault::Name),
            ("allow=-a:1", "allow=-a:1", EgressFault::Name),
            ("allow=a..b:1", "allow=a..b:1", EgressFault::Name),
            ("allow=1.2.3:80", "allow=1.2.3:80", EgressFault::Name),
            ("allow=256.1.1.1:80", "allow=256.1.1.1:80", EgressFault::Name),
            ("allow=*:443", "allow=*:443", EgressFault::Star),
            ("allow=a.*.b:443", "allow=a.*.b:443", EgressFault::Star),
            ("allow=*a.b:443", "allow=*a.b:443", EgressFault::Star),
            ("allow=example.org", "allow=example.org", EgressFault::NoPort),
            ("allow=a:0", "allow=a:0", EgressFault::Port),
            ("allow=a:65536", "allow=a:65536", EgressFault::Port),
            ("allow=a:+80", "allow=a:+80", EgressFault::Port),
            ("allow=a:90-80", "allow=a:90-80", EgressFault::Port),
            ("allow=a:80-", "allow=a:80-", EgressFault::Port),
            ("allow=a:1-65", "allow=a:1-65", EgressFault::Wide),
            ("allow=a:80/sctp", "allow=a:80/sctp", EgressFault::Protocol),
            ("allow=10.0.0.0/33", "allow=10.0.0.0/33", EgressFault::Address),
            ("allow=fd00::1:443x", "allow=fd00::1:443x", EgressFault::Address),
            ("allow=[fd00::1", "allow=[fd00::1", EgressFault::Address),
            ("allow=[10.0.0.1]:80", "allow=[10.0.0.1]:80", EgressFault::Address),
            ("allow=[fd00::1]443", "allow=[fd00::1]443", EgressFault::Address),
        ] {
            let expected = EgressPolicyError { item: item.to_owned(), fault };
            assert_eq!(text.parse::<EgressPolicy>(), Err(expected), "{text}");
        }
        assert_eq!(
            told("deny,allow=\u{1b}[31m:1").unwrap_err(),
            "invalid egress policy: \"allow=\\u{1b}[31m:1\": not a name of a host, nor an address"
        );
        let many = "allow=a:1,".repeat(257);
        assert!(told(many.trim_end_matches(',')).unwrap_err().ends_with("256 destinations at most"));
        let long = format!("allow={}", "a".repeat(10_000));
        assert!(told(&long).unwrap_err().len() < 200);
    }

    #[test]
    fn names_match_whole_labels() {
        let policy: EgressPolicy = "allow=example.org:443,allow=*.example.net:80-81".parse().unwrap();
        for (name, allowed) in [
            ("example.org", true),
            ("www.example.org", false),
            ("example.net", false),
            ("a.example.net", true),
            ("a.b.example.net", true),
            ("badexample.net", false),
            (".example.net", false),
            ("example.org.evil.com", false),
            ("", false),
        ] {
            assert_eq!(policy.allows_name(name), allowed, "{name}");
        }
        let all: EgressPolicy = "allow".parse().unwrap();
        assert!(all.allows_name("anything") && !all.restricts());
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_panic_and_what_it_reads_it_reads_again(text in "(deny,)?(allow=)?[-a-z0-9.:/\\[\\]*,= ]{0,40}") {
            if let Ok(policy) = text.parse::<EgressPolicy>() {
                prop_assert_eq!(policy.to_string().parse::<EgressPolicy>().unwrap(), policy);
            }
        }

        #[test]
        fn every_text_has_an_answer(text in "\\PC{0,64}") {
            if let Err(err) = text.parse::<EgressPolicy>() {
                prop_assert!(err.item.chars().count() <= SHOWN_MAX);
            }
        }

        #[test]
        fn ports_are_what_was_written(first in 1_u16.., more in 0_u16..64, udp: bool) {
            let last = first.saturating_add(more);
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let text = format!("allow=x.y:{first}-{last}/{protocol}");
            let policy: EgressPolicy = text.parse().unwrap();
            prop_assert_eq!(policy.ports_of("x.y").collect::<Vec<_>>(), [Ports { protocol, first, last }]);
        }
    }
}
