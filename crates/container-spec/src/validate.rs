//! What is refused at `create`, in Docker's words; and what this version does not offer, by name.

mod networks;
mod offered;
mod resources;

use std::fmt;
use std::path::Path;

use engine_api::container::{Config, NetworkingConfig};
use engine_api::host_config::HostConfig;

use crate::facts::HostFacts;
use crate::{bind, capability, device, files, log, mounts, points, ports, security, signal};

pub(crate) use resources::validate as limits;

pub use error::{EndpointFault, InvalidRequest, MountFault, NetworksFault, listed};
pub use networks::{ENDPOINT_SYSCTLS, validate_endpoint};

mod error;

/// What the user should know of a request that is honoured all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The kernel keeps no account of swap.
    NoSwapLimit,
    /// Swappiness is a v1 matter.
    NoSwappiness,
    /// The OOM killer is a v1 matter.
    NoOomKillDisable,
    /// Without the OOM killer a container without a limit can take all memory.
    OomKillDisabledWithoutLimit,
    /// Ports of a container on the host network are the host's.
    PortsOnHostNetwork,
    /// The kernel cannot weigh or limit block I/O in this way.
    NoBlockIo {
        /// What it cannot.
        what: &'static str,
        /// What of the request is left out.
        discarded: &'static str,
    },
    /// A share of all processors is a Windows matter.
    CpuPercent,
    /// Images as mounts are new.
    ImageMount,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Warning::NoBlockIo { what, discarded } => {
                return write!(
                    f,
                    "Your kernel does not support {what} or the cgroup is not mounted. {discarded} discarded."
                );
            }
            Warning::NoSwapLimit => {
                "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited \
                 without swap."
            }
            Warning::NoSwappiness => {
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory \
                 swappiness discarded."
            }
            Warning::NoOomKillDisable => "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
            Warning::OomKillDisabledWithoutLimit => {
                "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
                 running out of resources."
            }
            Warning::PortsOnHostNetwork => "Published ports are discarded when using host network mode",
            Warning::CpuPercent => "linux does not support CPU percent. Percent discarded.",
            Warning::ImageMount => "Image mount is an experimental feature",
        };
        f.write_str(text)
    }
}

/// Checks a request as the client sent it, before anything is merged into it.
///
/// Whether bind sources exist is not looked at: see [`points::bind_sources`] and [`missing_bind_source`].
pub fn validate(
    config: &Config,
    host: &HostConfig,
    networking: Option<&NetworkingConfig>,
    facts: &HostFacts,
) -> Result<Vec<Warning>, InvalidRequest> {
    // The order is dockerd's: of two mistakes it names the same one.
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(InvalidRequest::HostnameWithHostUts);
    }
    validate_config(config)?;
    validate_host(host, facts)?;
    let mut warnings = resources::validate(host, facts)?;
    validate_network(config, host)?;
    validate_modes(host)?;
    for destination in host.tmpfs.iter().flatten().map(|(destination, _)| destination) {
        mounts::check_destination(destination).map_err(InvalidRequest::TmpfsDestination)?;
    }
    let endpoints = networking.and_then(|networking| networking.endpoints_config.as_ref());
    endpoints.map_or(Ok(()), |endpoints| networks::validate_endpoints(&host.network_mode, endpoints))?;
    offered::validate(host, facts)?;
    endpoints.map_or(Ok(()), |endpoints| networks::validate_together(&host.network_mode, endpoints))?;
    log::validate(&host.log_config)?;
    security::parse(host, facts)?;
    points::own_points(host)?;
    for raw in host.volumes_from.iter().flatten() {
        bind::parse_volumes_from(raw)?;
    }
    mounts::check_tmpfs(host)?;
    device::rules(host, &[])?;
    validate_sysctls(host)?;
    validate_ulimits(host)?;
    warnings.extend(network_warning(host));
    let mounts_image = host.mounts.iter().flatten().any(|mount| mount.kind == "image");
    warnings.extend(mounts_image.then_some(Warning::ImageMount));
    Ok(warnings)
}

/// The sentence for a bind mount whose source is absent and must not be made.
pub fn missing_bind_source(path: &Path) -> InvalidRequest {
    InvalidRequest::Mount { kind: "bind".to_owned(), fault: MountFault::SourceMissing(path.display().to_string()) }
}

fn validate_config(config: &Config) -> Result<(), InvalidRequest> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(InvalidRequest::WorkingDir { path: config.working_dir.clone() });
    }
    if !config.stop_signal.is_empty() && signal::parse_signal(&config.stop_signal).is_none() {
        return Err(InvalidRequest::Signal { signal: config.stop_signal.clone() });
    }
    if let Some(entry) = config.env.iter().flatten().find(|entry| entry.is_empty() || entry.starts_with('=')) {
        return Err(InvalidRequest::Env { entry: entry.clone() });
    }
    crate::health::validate(config.healthcheck.as_ref())?;
    // A NUL can reach neither the kernel nor a file name; the runtime could only fail later and less clearly.
    let words = config.env.iter().chain(&config.cmd).chain(&config.entrypoint).flatten();
    let words = words.chain(config.volumes.iter().flatten().map(|(path, _)| path));
    let mut texts = words.chain([&config.hostname, &config.domainname, &config.working_dir, &config.user]);
    match texts.any(|text| text.contains('\0')) {
        true => Err(InvalidRequest::NulByte),
        false => Ok(()),
    }
}

fn validate_host(host: &HostConfig, facts: &HostFacts) -> Result<(), InvalidRequest> {
    let restarts = !matches!(host.restart_policy.name.as_str(), "" | "no");
    if host.auto_remove && restarts {
        return Err(InvalidRequest::AutoRemoveWithRestart);
    }
    for mount in host.mounts.iter().flatten() {
        bind::check_mount(mount)?;
    }
    host.extra_hosts.iter().flatten().try_for_each(|entry| validate_extra_host(entry))?;
    ports::publications(&Config::default(), host)?;
    restart_policy(host)?;
    capability::capabilities(host, facts)?;
    if !host.isolation.is_empty() && !host.isolation.eq_ignore_ascii_case("default") {
        return Err(InvalidRequest::Isolation { isolation: host.isolation.clone() });
    }
    match host.annotations.iter().flatten().any(|(name, _)| name.is_empty()) {
        true => Err(InvalidRequest::EmptyAnnotation),
        false => Ok(()),
    }
}

/// What is wrong with links of the host's network.
pub const HOST_LINKS: &str = "host type networking can't be used with links. This would result in undefined behavior";

/// Who lives in another container's network takes it as it is.
fn validate_network(config: &Config, host: &HostConfig) -> Result<(), InvalidRequest> {
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if host.network_mode == "host" && given(&host.links) {
        return Err(InvalidRequest::Conflict { options: HOST_LINKS });
    }
    let Some(container) = host.network_mode.strip_prefix("container:") else { return Ok(()) };
    if container.is_empty() {
        return Err(InvalidRequest::NetworkContainer);
    }
    let publishes = host.publish_all_ports || host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty());
    let conflicts = [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (
            given(&host.links),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (given(&host.dns), "dns and the network mode"),
        (given(&host.extra_hosts), "custom host-to-IP mapping and the network mode"),
        (!config.mac_address.is_empty(), "mac-address and the network mode"),
        (publishes, "port publishing and the container type network mode"),
        (
            config.exposed_ports.as_ref().is_some_and(|ports| !ports.is_empty()),
            "port exposing and the container type network mode",
        ),
    ];
    match conflicts.into_iter().find(|(conflict, _)| *conflict) {
        Some((_, options)) => Err(InvalidRequest::Conflict { options }),
        None => Ok(()),
    }
}

fn validate_extra_host(entry: &str) -> Result<(), InvalidRequest> {
    match entry.split_once(':') {
        Some(("", _)) | None => Err(InvalidRequest::ExtraHost { entry: entry.to_owned() }),
        Some((_, files::HOST_GATEWAY)) => Ok(()),
        Some((_, address)) if address.parse::<std::net::IpAddr>().is_err() => {
            Err(InvalidRequest::ExtraHostAddress { address: address.to_owned() })
        }
        Some(_) => Ok(()),
    }
}

pub(crate) fn restart_policy(host: &HostConfig) -> Result<(), InvalidRequest> {
    let retries = host.restart_policy.maximum_retry_count;
    match host.restart_policy.name.as_str() {
        "on-failure" | "on-unhealthy" if retries < 0 => Err(InvalidRequest::RestartRetriesNegative),
        "on-failure" | "on-unhealthy" => Ok(()),
        "" | "no" | "always" | "unless-stopped" => match retries {
            0 => Ok(()),
            ..0 => Err(InvalidRequest::RestartRetriesUnusedAndNegative),
            _ => Err(InvalidRequest::RestartRetriesUnused),
        },
        name => Err(InvalidRequest::RestartPolicy { name: name.to_owned() }),
    }
}

fn validate_modes(host: &HostConfig) -> Result<(), InvalidRequest> {
    let container = |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    let modes: [(&'static str, &str, &[&str], bool); 5] = [
        ("IPC", &host.ipc_mode, &["", "private", "shareable", "host", "none"], container(&host.ipc_mode)),
        ("PID", &host.pid_mode, &["", "host"], container(&host.pid_mode)),
        ("UTS", &host.uts_mode, &["", "host"], false),
        ("user namespace", &host.userns_mode, &["", "host"], false),
        ("cgroup namespace", &host.cgroupns_mode, &["", "private", "host"], false),
    ];
    match modes.iter().find(|(_, mode, known, container)| !known.contains(mode) && !container) {
        Some((namespace, mode, ..)) => Err(InvalidRequest::Mode { namespace, mode: mode.to_string() }),
        None => Ok(()),
    }
}

/// Only what belongs to a namespace of the container may be set: everything else is the machine's (runc
/// libcontainer/configs/validate, `sysctl`).
fn validate_sysctls(host: &HostConfig) -> Result<(), InvalidRequest> {
    for (name, _) in host.sysctls.iter().flatten() {
        // The kernel takes both separators, and so must the comparison.
        let dotted = name.replace('/', ".");
        let is_ipc = oci::names::IPC_SYSCTLS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
        let is_net = dotted.starts_with("net.");
        let is_own_domain = dotted == "kernel.domainname" && host.uts_mode != "host";
        let name = name.clone();
        if name.contains("..") || !(is_ipc || is_net || is_own_domain) {
            return Err(InvalidRequest::Sysctl { name });
        }
        if is_ipc && host.ipc_mode == "host" {
            return Err(InvalidRequest::SysctlOfHostIpc { name });
        }
        if is_net && host.network_mode == "host" {
            return Err(InvalidRequest::SysctlOfHostNetwork { name });
        }
    }
    Ok(())
}

fn validate_ulimits(host: &HostConfig) -> Result<(), InvalidRequest> {
    for limit in host.ulimits.iter().flatten() {
        if !crate::plan::RLIMITS.contains(&limit.name.as_str()) {
            return Err(InvalidRequest::Ulimit { name: limit.name.clone() });
        }
        if limit.hard != -1 && (limit.soft > limit.hard || limit.soft == -1) {
            return Err(InvalidRequest::UlimitOrder { soft: limit.soft, hard: limit.hard });
        }
    }
    Ok(())
}

fn network_warning(host: &HostConfig) -> Option<Warning> {
    match host.network_mode.as_str() {
        "host" if host.port_bindings.iter().flatten().next().is_some() => Some(Warning::PortsOnHostNetwork),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
