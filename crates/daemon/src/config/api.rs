//! What the settings say about how the API is served: hosts, TLS, metrics.

use std::net::IpAddr;

use super::{ConfigError, list, path, switch, text};
use crate::config::defaults;
use crate::listen::Host;
use crate::settings::Given;
use crate::tls::Tls;

/// Where to listen, each place once.
pub(super) fn hosts(given: &Given) -> Result<Vec<Host>, ConfigError> {
    let mut hosts = Vec::new();
    for text in list(given, "host") {
        let host = Host::parse(text)?;
        if let Host::Tcp(address) = &host
            && !is_decided(given)
            && !is_local(address)
        {
            return Err(ConfigError::InsecureTcp(text.clone()));
        }
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    if hosts.is_empty() {
        hosts.push(Host::Unix(defaults::SOCKET.into()));
    }
    Ok(hosts)
}

/// Whether anything was said about TLS: "no" is an answer, silence is none.
fn is_decided(given: &Given) -> bool {
    switch(given, "tls").or(switch(given, "tlsverify")).is_some()
}

/// Whether only this machine can connect there. Names but the one are not looked up: they may change.
fn is_local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// TLS on TCP. As in dockerd, whoever names `tlsverify` at all gets TLS, and TLS alone verifies clients, too.
pub(super) fn tls(given: &Given) -> Result<Option<Tls>, ConfigError> {
    let verify = switch(given, "tlsverify");
    if verify.is_none() && switch(given, "tls") != Some(true) {
        return Ok(None);
    }
    Ok(Some(Tls {
        verify: verify.unwrap_or(true),
        ca: path(given, "tlscacert")?,
        certificate: path(given, "tlscert")?,
        key: path(given, "tlskey")?,
    }))
}

/// What users should know about who can reach the API; `info` shows it. The sentences are dockerd's.
pub(super) fn warnings(hosts: &[Host], tls: Option<&Tls>) -> Vec<String> {
    let lack = match tls {
        None => "encryption",
        Some(tls) if !tls.verify => "TLS client verification",
        Some(_) => return Vec::new(),
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let addresses = hosts.iter().filter_map(|host| match host {
        Host::Tcp(address) => Some(address),
        Host::Unix(_) | Host::Systemd(_) => None,
    });
    addresses
        .map(|address| {
            format!("[DEPRECATION NOTICE]: API is accessible on {scheme}://{address} without {lack}.{ATTACK_SURFACE}")
        })
        .collect()
}

const ATTACK_SURFACE: &str = "
         Access to the remote API is equivalent to root access on the host. Refer
         to the 'Docker daemon attack surface' section in the documentation for
         more information: https://docs.docker.com/go/attack-surface/
In future versions this will be a hard failure preventing the daemon from starting! Learn more at: https://docs.docker.com/go/api-security/";

/// Where metrics are served.
pub(super) fn metrics(given: &Given) -> Result<Option<String>, ConfigError> {
    let Some(address) = text(given, "metrics-addr") else { return Ok(None) };
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(_) => Ok(Some(address.to_owned())),
        None => Err(ConfigError::MetricsAddress(address.to_owned())),
    }
}
