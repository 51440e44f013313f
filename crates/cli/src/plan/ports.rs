//! `--publish` and `--expose`: docker's language of ports (go-connections `nat`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use engine_api::host_config::PortBinding;
use engine_api::ports;
use oci::image::Empty;

/// Why flags name no ports. The texts are docker's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// `-p 1.2.3:80:80`
    #[error("invalid IP address: {0}")]
    Address(String),
    /// `-p 80:`
    #[error("no port specified: {0}<empty>")]
    NoPort(String),
    /// `-p 80:x`
    #[error("invalid containerPort: {0}")]
    Container(String),
    /// `-p x:80`
    #[error("invalid hostPort: {0}")]
    Host(String),
    /// `-p 1-2:1-3`
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// In the container.
        container: String,
        /// On the host.
        host: String,
    },
    /// `-p 80/x`
    #[error("invalid proto: {0}")]
    Protocol(String),
    /// `--expose 1:2`
    #[error("invalid port format for --expose: {0}")]
    Expose(String),
    /// `--expose 3-2`
    #[error("invalid range format for --expose: {text}, error: {reason}")]
    ExposeRange {
        /// As given.
        text: String,
        /// Part of docker's sentence.
        reason: RangeError,
    },
    /// The long form of `-p` with a field that has no value.
    #[error("invalid publish opts format (should be name=value but got '{0}')")]
    Field(String),
}

/// Why a text is no range of ports. The texts are docker's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Nothing.
    #[error("empty string specified for ports")]
    Empty,
    /// No port's number.
    #[error(transparent)]
    Number(#[from] ports::PortError),
    /// It ends before it begins.
    #[error("invalid range specified for port: {0}")]
    Backwards(String),
}

/// What a container serves and publishes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// `80/tcp`, whether published or not.
    pub exposed: BTreeMap<String, Empty>,
    /// Where they are published.
    pub bindings: BTreeMap<String, Option<Vec<PortBinding>>>,
}

/// Reads all values of both flags.
pub fn parse(publish: &[String], expose: &[String]) -> Result<Ports, PortError> {
    let mut ports = Ports::default();
    for text in publish {
        let short = if text.contains('=') { shortened(text)? } else { text.clone() };
        for (port, binding) in published(&short)? {
            ports.exposed.insert(port.clone(), Empty {});
            ports.bindings.entry(port).or_default().get_or_insert_default().push(binding);
        }
    }
    for text in expose {
        if text.contains(':') {
            return Err(PortError::Expose(text.clone()));
        }
        let (range_text, protocol) = split_protocol(text);
        let (first, last) =
            range(range_text).map_err(|reason| PortError::ExposeRange { text: text.clone(), reason })?;
        ports.exposed.extend((first..=last).map(|port| (format!("{port}/{protocol}"), Empty {})));
    }
    Ok(ports)
}

/// `published=8080,target=80,protocol=tcp`, the long form, in the short one.
fn shortened(text: &str) -> Result<String, PortError> {
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            // docker's client takes any other name and does nothing with it.
            Some((name, _)) if !name.is_empty() => {}
            _ => return Err(PortError::Field(field.to_owned())),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

/// `[[ADDRESS:]HOST_PORT[-LAST]:]PORT[-LAST][/PROTOCOL]`.
fn published(text: &str) -> Result<Vec<(String, PortBinding)>, PortError> {
    let (front, container) = text.rsplit_once(':').unwrap_or(("", text));
    let (address, host) = front.rsplit_once(':').unwrap_or(("", front));
    let (container, protocol) = split_protocol(container);
    let address = match address.strip_prefix('[').and_then(|address| address.strip_suffix(']')) {
        Some(bare) => bare,
        None => address,
    };
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(PortError::Address(address.to_owned()));
    }
    if container.is_empty() {
        return Err(PortError::NoPort(text.to_owned()));
    }
    let (first, last) = range(container).map_err(|_| PortError::Container(container.to_owned()))?;
    let hosts = match host {
        "" => None,
        host => Some(range(host).map_err(|_| PortError::Host(host.to_owned()))?),
    };
    // Of a range of the host's ports the daemon chooses one, if there is but one port to publish.
    let as_many = |(host_first, host_last): (u16, u16)| host_last - host_first == last - first;
    if first != last && hosts.is_some_and(|hosts| !as_many(hosts)) {
        return Err(PortError::Ranges { container: container.to_owned(), host: host.to_owned() });
    }
    if !matches!(protocol.to_ascii_lowercase().as_str(), "tcp" | "udp" | "sctp") {
        return Err(PortError::Protocol(protocol.to_owned()));
    }
    let binding = |port: u16| {
        let host_port = match hosts {
            None => String::new(),
            Some((host_first, host_last)) if first == last && host_first != host_last => {
                format!("{host_first}-{host_last}")
            }
            Some((host_first, _)) => (host_first + (port - first)).to_string(),
        };
        (format!("{port}/{protocol}"), PortBinding { host_ip: address.to_owned(), host_port })
    };
    Ok((first..=last).map(binding).collect())
}

fn split_protocol(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        None | Some((_, "")) => (text.trim_end_matches('/'), "tcp"),
        Some((port, protocol)) => (port, protocol),
    }
}

fn range(text: &str) -> Result<(u16, u16), RangeError> {
    match text.split_once('-') {
        _ if text.is_empty() => Err(RangeError::Empty),
        None => Ok(ports::number(text).map(|port| (port, port))?),
        Some((first, last)) => match (ports::number(first)?, ports::number(last)?) {
            (first, last) if first > last => Err(RangeError::Backwards(text.to_owned())),
            range => Ok(range),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(publish: &[&str], expose: &[&str]) -> Result<String, PortError> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let ports = parse(&owned(publish), &owned(expose))?;
        let bindings = ports.bindings.iter().flat_map(|(port, bindings)| {
            let bindings = bindings.iter().flatten();
            bindings.map(move |binding| format!("{}:{}:{port}", binding.host_ip, binding.host_port))
        });
        let exposed = ports.exposed.keys().filter(|port| !ports.bindings.contains_key(*port)).cloned();
        Ok(bindings.chain(exposed).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn ports_are_dockers() {
        for (publish, expected) in [
            ("80", "::80/tcp"),
            ("8080:80", ":8080:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1::80/tcp"),
            ("127.0.0.1:81:80/udp", "127.0.0.1:81:80/udp"),
            ("[::1]:81:80", "::1:81:80/tcp"),
            ("8000-8009:80", ":8000-8009:80/tcp"),
            ("8000-8001:80-81", ":8000:80/tcp :8001:81/tcp"),
            ("published=8080,target=80,protocol=udp", ":8080:80/udp"),
        ] {
            assert_eq!(shown(&[publish], &[]).unwrap(), expected);
        }
        assert_eq!(shown(&["80"], &["80", "90-91/udp"]).unwrap(), "::80/tcp 90/udp 91/udp");
    }

    #[test]
    fn refusals_are_dockers() {
        let refused = |publish: &str| shown(&[publish], &[]).unwrap_err().to_string();
        assert_eq!(refused("127.0.0.1:x:80"), "invalid hostPort: x");
        assert_eq!(refused("1:2:3:4"), "invalid IP address: 1:2");
        assert_eq!(refused("80:x"), "invalid containerPort: x");
        assert_eq!(refused("80:"), "no port specified: 80:<empty>");
        assert_eq!(refused("1-2:1-3"), "invalid ranges specified for container and host Ports: 1-3 and 1-2");
        assert_eq!(refused("80/x"), "invalid proto: x");
        assert_eq!(refused("published=1,foo=2"), "no port specified: 1:/tcp<empty>");
        assert_eq!(refused("a=b,c"), "invalid publish opts format (should be name=value but got 'c')");
        for (expose, reason) in [
            ("3-2", "invalid range specified for port: 3-2"),
            ("x", "strconv.ParseUint: parsing \"x\": invalid syntax"),
            ("+1", "strconv.ParseUint: parsing \"+1\": invalid syntax"),
            ("65536", "strconv.ParseUint: parsing \"65536\": value out of range"),
        ] {
            let wanted = format!("invalid range format for --expose: {expose}, error: {reason}");
            assert_eq!(shown(&[], &[expose]).unwrap_err().to_string(), wanted);
        }
        assert_eq!(shown(&[], &["1:2"]).unwrap_err().to_string(), "invalid port format for --expose: 1:2");
    }
}
