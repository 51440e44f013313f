//! The driver `syslog`.

use super::fault::{LogFault, LogStartFault};
use super::options::Options;

/// Its options.
pub(super) const OPTIONS: [&str; 12] = [
    "env",
    "env-regex",
    "labels",
    "labels-regex",
    "syslog-address",
    "syslog-facility",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
    "tag",
    "syslog-format",
];

/// The port where none is given.
const PORT: &str = "514";

/// By their numbers (RFC 5424, 6.2.1).
const FACILITIES: [&str; 12] =
    ["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"];

/// Where messages go, and what they say of us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyslogServer {
    /// `unix`, `unixgram`, `tcp` or `udp`; empty for the server of this machine.
    pub network: String,
    /// A path, or `host:port`.
    pub address: String,
    /// The facility's number.
    pub facility: u8,
    /// How messages look.
    pub format: SyslogFormat,
    /// Whose they are.
    pub tag: String,
}

/// How messages look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyslogFormat {
    /// For a server on this machine, without its name.
    #[default]
    Unix,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424.
    Rfc5424,
    /// RFC 5424 with microseconds.
    Rfc5424Micro,
}

/// Checks the values, which Docker does for this driver when the container is made.
pub(super) fn check(options: &Options<'_>) -> Result<(), LogFault> {
    address(options)?;
    facility(options)?;
    format(options).map(drop)
}

/// Everything together.
pub(super) fn server(options: &Options<'_>, tag: String) -> Result<SyslogServer, LogStartFault> {
    let (network, address) = address(options)?;
    Ok(SyslogServer { network, address, facility: facility(options)?, format: format(options)?, tag })
}

fn address(options: &Options<'_>) -> Result<(String, String), LogFault> {
    let given = options.get("syslog-address").unwrap_or_default();
    if given.is_empty() {
        return Ok(Default::default());
    }
    let (scheme, rest) = given.split_once("://").unwrap_or(("", given));
    match scheme {
        "unix" | "unixgram" => Ok((scheme.to_owned(), rest.to_owned())),
        "udp" | "tcp" => {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let fault = |reason: String| LogFault::SyslogAddress { address: given.to_owned(), reason };
            if host.starts_with('[') && !host.contains(']') {
                return Err(fault("missing ']' in host".to_owned()));
            }
            let port = host.rsplit_once(':').filter(|(before, _)| !before.contains(':') || before.ends_with(']'));
            Ok((
                scheme.to_owned(),
                match port {
                    Some((_, port)) if !port.bytes().all(|byte| byte.is_ascii_digit()) => {
                        return Err(fault(format!("invalid port \":{port}\" after host")));
                    }
                    Some(_) => host.to_owned(),
                    None => format!("{host}:{PORT}"),
                },
            ))
        }
        "tcp+tls" => Err(LogFault::SyslogTls),
        scheme => Err(LogFault::SyslogScheme { scheme: scheme.to_owned() }),
    }
}

fn facility(options: &Options<'_>) -> Result<u8, LogFault> {
    let given = options.get("syslog-facility").unwrap_or_default();
    if given.is_empty() {
        return Ok(3);
    }
    if let Some(number) = FACILITIES.iter().position(|name| *name == given) {
        return Ok(number as u8);
    }
    let local = given.strip_prefix("local").and_then(|digit| digit.parse::<u8>().ok()).filter(|digit| *digit < 8);
    let number = given.parse::<u8>().ok().filter(|number| *number <= 23);
    local.map(|digit| 16 + digit).or(number).ok_or(LogFault::SyslogFacility)
}

fn format(options: &Options<'_>) -> Result<SyslogFormat, LogFault> {
    match options.get("syslog-format").unwrap_or_default() {
        "" => Ok(SyslogFormat::Unix),
        "rfc3164" => Ok(SyslogFormat::Rfc3164),
        "rfc5424" => Ok(SyslogFormat::Rfc5424),
        "rfc5424micro" => Ok(SyslogFormat::Rfc5424Micro),
        _ => Err(LogFault::SyslogFormat),
    }
}
