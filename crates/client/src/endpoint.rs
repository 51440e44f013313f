//! Where a daemon listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::ssh::{SshError, SshHost};

/// Address of a daemon, as `-H` and DOCKER_HOST state it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `unix:///run/longshore.sock`
    Unix(PathBuf),
    /// `tcp://host:port`, plain or with TLS.
    Tcp(String),
    /// `ssh://user@host`
    Ssh(SshHost),
}

/// Why a text is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No such scheme.
    #[error("invalid bind address ({0}): unsupported proto '{1}'")]
    Scheme(String, String),
    /// Nothing follows the scheme.
    #[error("unable to parse docker host `{0}`")]
    Format(String),
    /// We do not offer that transport yet.
    #[error("connecting by {0} is not supported yet: DOCKER_HOST={0}://...")]
    Unsupported(String),
    /// It names no host that ssh could reach.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

impl Endpoint {
    /// The address as Go's client writes it: the path of a socket stands where a host does.
    pub fn url(&self) -> String {
        let host = match self {
            Endpoint::Unix(path) => path.display().to_string(),
            Endpoint::Tcp(address) => address.clone(),
            // Nobody resolves it: the name that Docker's client uses.
            Endpoint::Ssh(_) => "docker.example.com".to_owned(),
        };
        let mut url = "http://".to_owned();
        for byte in host.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' => {
                    url.push(byte as char);
                }
                _ => url.push_str(&format!("%{byte:02X}")),
            }
        }
        url
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Tcp(address) => write!(f, "tcp://{address}"),
            Endpoint::Ssh(host) => write!(f, "{host}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        if scheme == "ssh" {
            return Ok(Endpoint::Ssh(rest.parse()?));
        }
        if rest.is_empty() {
            return Err(EndpointError::Format(text.to_owned()));
        }
        match scheme {
            "unix" => Ok(Endpoint::Unix(PathBuf::from(rest))),
            "tcp" | "http" => Ok(Endpoint::Tcp(with_port(rest.trim_end_matches('/')))),
            "https" | "npipe" | "fd" => Err(EndpointError::Unsupported(scheme.to_owned())),
            _ => Err(EndpointError::Scheme(text.to_owned(), scheme.to_owned())),
        }
    }
}

/// Docker's port without TLS is 2375.
fn with_port(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((_, port)) if !port.contains(']') => address.to_owned(),
        _ => format!("{address}:2375"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_printed() {
        for (typed, printed) in [
            ("unix:///run/a.sock", "unix:///run/a.sock"),
            ("tcp://a", "tcp://a:2375"),
            ("127.0.0.1:5", "tcp://127.0.0.1:5"),
            ("tcp://[::1]:7/", "tcp://[::1]:7"),
            ("ssh://me@a:22/run/x.sock", "ssh://me@a:22/run/x.sock"),
        ] {
            assert_eq!(typed.parse::<Endpoint>().unwrap().to_string(), printed);
        }
        let url = |typed: &str| typed.parse::<Endpoint>().unwrap().url();
        assert_eq!(url("unix:///run/a b.sock"), "http://%2Frun%2Fa%20b.sock");
        assert_eq!(url("tcp://[::1]:7"), "http://[::1]:7");
        for bad in ["unix://", "ssh://", "x://y"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
