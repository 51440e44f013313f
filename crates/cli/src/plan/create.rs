//! `run` and `create`: from flags to the request.

use std::collections::BTreeMap;

use engine_api::container::{Config, CreateRequest, NetworkingConfig};
use engine_api::host_config::{DeviceMapping, DeviceRequest, HostConfig, LogConfig, Mount, RestartPolicy};
use oci::image::Empty;

use super::environment::{self, FileError};
use super::health::{self, HealthError};
use super::network::{self, NetworkError};
use super::ports::{self, PortError, Ports};
use super::security::{self, Security, SecurityError};
use super::volume::{self, Volume, VolumeError};
use super::{Surroundings, capabilities, devices, mount, values};
use crate::args::Parsed;

/// Why flags do not make a container. The texts are docker's.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A namespace mode that does not exist.
    #[error("--{flag}: invalid {name} mode")]
    Mode {
        /// The flag.
        flag: &'static str,
        /// What it chooses.
        name: &'static str,
    },
    /// Both flags contradict each other.
    #[error("conflicting options: cannot specify both --restart and --rm")]
    RestartAndRemove,
    /// `on-failure:x`
    #[error("invalid restart policy format: maximum retry count must be an integer")]
    RetryCount,
    /// `:3`
    #[error("invalid restart policy format: no policy provided before colon")]
    NoPolicy,
    /// Options for a driver that has none.
    #[error("invalid logging opts for driver {0}")]
    LogOptions(String),
    /// Swappiness outside of its range.
    #[error("invalid value: {0}. Valid memory swappiness range is 0-100")]
    Swappiness(i64),
    /// An option of the storage driver without a value.
    #[error("invalid storage option")]
    StorageOption,
    /// A device of more than three parts, or without a name.
    #[error("bad format for path: {0}")]
    DevicePath(String),
    /// Letters beyond `rwm`.
    #[error("bad mode specified: {0}")]
    DeviceMode(String),
    /// The path in the container is relative.
    #[error("{0} is not an absolute path")]
    DeviceRelative(String),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A health check.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// Ports.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A file of variables or labels.
    #[error(transparent)]
    File(#[from] FileError),
    /// A security option.
    #[error(transparent)]
    Security(#[from] SecurityError),
}

/// The request for `run [flags] IMAGE [COMMAND]`.
pub fn request(parsed: &Parsed, surroundings: &Surroundings<'_>) -> Result<CreateRequest, CreateError> {
    let volumes = volumes(parsed, surroundings)?;
    let security = security::parse(parsed.list("security-opt"), surroundings)?;
    let host = host_config(parsed, surroundings, volumes.binds, security)?;
    let networks = network::endpoints(parsed)?;
    let Ports { exposed, bindings } = ports::parse(parsed.list("publish"), parsed.list("expose"))?;
    // A map that nobody filled is left out by Go's client.
    let exposed_ports = (!exposed.is_empty()).then_some(exposed);
    let config = Config { exposed_ports, ..config(parsed, surroundings, volumes.anonymous)? };
    Ok(CreateRequest {
        config,
        host_config: Some(HostConfig { port_bindings: Some(bindings), ..host }),
        networking_config: Some(NetworkingConfig { endpoints_config: Some(networks) }),
    })
}

fn config(
    parsed: &Parsed,
    surroundings: &Surroundings<'_>,
    volumes: BTreeMap<String, Empty>,
) -> Result<Config, CreateError> {
    let text = |name: &str| parsed.text(name).to_owned();
    let attached = |stream: &str| parsed.list("attach").iter().any(|given| given.eq_ignore_ascii_case(stream));
    let outputs = parsed.list("attach").is_empty();
    let stdin = parsed.flag("interactive");
    let attach_stdin = attached("stdin") || stdin;
    let env = environment::variables(parsed.list("env-file"), parsed.list("env"), surroundings)?;
    let mut labels = environment::labels(parsed.list("label-file"), parsed.list("label"), surroundings)?;
    labels.extend(environment::egress(parsed.list("egress")));
    let (image, command) = parsed.positionals.split_first().unzip();
    Ok(Config {
        hostname: text("hostname"),
        domainname: text("domainname"),
        user: text("user"),
        attach_stdin,
        attach_stdout: attached("stdout") || outputs,
        attach_stderr: attached("stderr") || outputs,
        tty: parsed.flag("tty"),
        open_stdin: stdin,
        stdin_once: stdin && attach_stdin,
        env: none_if_empty(env),
        cmd: command.and_then(|command| none_if_empty(command.to_vec())),
        image: image.cloned().unwrap_or_default(),
        volumes: Some(volumes),
        healthcheck: health::check(parsed)?,
        working_dir: text("workdir"),
        entrypoint: parsed.given("entrypoint").then(|| vec![text("entrypoint")]),
        labels: Some(labels),
        stop_signal: text("stop-signal"),
        stop_timeout: parsed.int("stop-timeout"),
        ..Config::default()
    })
}

fn host_config(
    parsed: &Parsed,
    surroundings: &Surroundings<'_>,
    binds: Option<Vec<String>>,
    security: Security,
) -> Result<HostConfig, CreateError> {
    check_modes(parsed)?;
    let device_mappings = device_mappings(parsed)?;
    let storage_opt = storage_options(parsed.list("storage-opt"))?;
    let annotations: BTreeMap<String, String> =
        parsed.list("annotation").iter().map(|text| environment::pair(text)).collect();
    let text = |name: &str| parsed.text(name).to_owned();
    let list = |name: &str| none_if_empty(parsed.list(name).to_vec());
    let (cap_add, cap_drop) = capabilities::effective(parsed.list("cap-add"), parsed.list("cap-drop"));
    let restart_policy = restart_policy(parsed.text("restart"))?;
    let auto_remove = parsed.flag("rm");
    if auto_remove && !matches!(restart_policy.name.as_str(), "" | "no") {
        return Err(CreateError::RestartAndRemove);
    }
    let tmpfs: BTreeMap<String, String> = parsed.list("tmpfs").iter().map(|text| split_colon(text)).collect();
    let sysctls: BTreeMap<String, String> = parsed.list("sysctl").iter().map(|text| environment::pair(text)).collect();
    let unconfined = security.paths_unconfined.then(Vec::new);
    let host = HostConfig {
        binds,
        container_id_file: text("cidfile"),
        log_config: log_config(parsed)?,
        network_mode: network::mode(parsed.list("network")),
        publish_all_ports: parsed.flag("publish-all"),
        restart_policy,
        auto_remove,
        volume_driver: text("volume-driver"),
        volumes_from: list("volumes-from"),
        annotations: (!annotations.is_empty()).then_some(annotations),
        cap_add,
        cap_drop,
        cgroupns_mode: text("cgroupns"),
        dns: Some(parsed.list("dns").to_vec()),
        dns_options: Some(parsed.list("dns-option").to_vec()),
        dns_search: Some(parsed.list("dns-search").to_vec()),
        // Checked when read: what does not parse cannot come here.
        extra_hosts: none_if_empty(
            parsed.list("add-host").iter().filter_map(|it| values::extra_host(it).ok()).collect(),
        ),
        group_add: list("group-add"),
        ipc_mode: text("ipc"),
        links: list("link"),
        isolation: text("isolation"),
        storage_opt: (!storage_opt.is_empty()).then_some(storage_opt),
        pid_mode: text("pid"),
        privileged: parsed.flag("privileged"),
        readonly_rootfs: parsed.flag("read-only"),
        runtime: text("runtime"),
        security_opt: (!parsed.list("security-opt").is_empty()).then_some(security.options),
        tmpfs: (!tmpfs.is_empty()).then_some(tmpfs),
        uts_mode: text("uts"),
        userns_mode: text("userns"),
        sysctls: (!sysctls.is_empty()).then_some(sysctls),
        devices: Some(device_mappings),
        device_requests: none_if_empty(device_requests(parsed)),
        mounts: none_if_empty(mounts(parsed, surroundings)),
        masked_paths: unconfined.clone(),
        readonly_paths: unconfined,
        init: parsed.given("init").then(|| parsed.flag("init")),
        ..resources(parsed)?
    };
    Ok(host)
}

/// Limits; what Docker's client always sends as an empty list is an empty list here, too.
fn resources(parsed: &Parsed) -> Result<HostConfig, CreateError> {
    let int = |name: &str| parsed.int(name).unwrap_or(0);
    // Checked when read: what does not parse cannot come here.
    let bytes = |name: &str| values::bytes(parsed.text(name)).unwrap_or(0);
    let swap = if parsed.text("memory-swap") == "-1" { -1 } else { bytes("memory-swap") };
    let ulimits = parsed.list("ulimit").iter().filter_map(|text| values::ulimit(text).ok());
    // Go's client keeps them in a map: the last of a name counts.
    let ulimits: BTreeMap<String, _> = ulimits.map(|limit| (limit.name.clone(), limit)).collect();
    let swappiness = parsed.int("memory-swappiness").unwrap_or(-1);
    if !(-1..=100).contains(&swappiness) {
        return Err(CreateError::Swappiness(swappiness));
    }
    Ok(HostConfig {
        oom_score_adj: int("oom-score-adj"),
        shm_size: bytes("shm-size"),
        cpu_shares: int("cpu-shares"),
        memory: bytes("memory"),
        nano_cpus: values::nano_cpus(parsed.text("cpus")).unwrap_or(0),
        cpu_period: int("cpu-period"),
        cpu_quota: int("cpu-quota"),
        cpu_realtime_period: int("cpu-rt-period"),
        cpu_realtime_runtime: int("cpu-rt-runtime"),
        cpuset_cpus: parsed.text("cpuset-cpus").to_owned(),
        cpuset_mems: parsed.text("cpuset-mems").to_owned(),
        cgroup_parent: parsed.text("cgroup-parent").to_owned(),
        blkio_weight: values::unsigned_16(parsed.text("blkio-weight")).unwrap_or(0),
        blkio_weight_device: Some(all(parsed, "blkio-weight-device", devices::weight)),
        blkio_device_read_bps: Some(all(parsed, "device-read-bps", devices::bytes)),
        blkio_device_write_bps: Some(all(parsed, "device-write-bps", devices::bytes)),
        blkio_device_read_iops: Some(all(parsed, "device-read-iops", devices::rate)),
        blkio_device_write_iops: Some(all(parsed, "device-write-iops", devices::rate)),
        device_cgroup_rules: none_if_empty(parsed.list("device-cgroup-rule").to_vec()),
        memory_reservation: bytes("memory-reservation"),
        memory_swap: swap,
        memory_swappiness: Some(swappiness),
        oom_kill_disable: Some(parsed.flag("oom-kill-disable")),
        pids_limit: Some(int("pids-limit")),
        ulimits: Some(ulimits.into_values().collect()),
        ..HostConfig::default()
    })
}

/// All values of a flag. What does not parse was refused when it was read.
fn all<T, E>(parsed: &Parsed, flag: &str, read: fn(&str) -> Result<T, E>) -> Vec<T> {
    parsed.list(flag).iter().filter_map(|text| read(text).ok()).collect()
}

/// Devices by their paths.
fn device_mappings(parsed: &Parsed) -> Result<Vec<DeviceMapping>, CreateError> {
    parsed.list("device").iter().filter(|text| !devices::is_qualified(text)).map(|text| device(text)).collect()
}

/// GPUs, and devices by their qualified names.
fn device_requests(parsed: &Parsed) -> Vec<DeviceRequest> {
    let mut requests = all(parsed, "gpus", devices::gpus);
    let names: Vec<String> = parsed.list("device").iter().filter(|text| devices::is_qualified(text)).cloned().collect();
    if !names.is_empty() {
        let driver = "cdi".to_owned();
        requests.push(DeviceRequest { driver, device_ids: Some(names), ..DeviceRequest::default() });
    }
    requests
}

fn storage_options(options: &[String]) -> Result<BTreeMap<String, String>, CreateError> {
    let read = |text: &String| {
        let (name, value) = text.split_once('=').ok_or(CreateError::StorageOption)?;
        Ok((name.to_owned(), value.to_owned()))
    };
    options.iter().map(read).collect()
}

fn check_modes(parsed: &Parsed) -> Result<(), CreateError> {
    let container = |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    let bad = |flag, name| Err(CreateError::Mode { flag, name });
    let pid = parsed.text("pid");
    if !(matches!(pid, "" | "host") || container(pid)) {
        return bad("pid", "PID");
    }
    if !matches!(parsed.text("uts"), "" | "host") {
        return bad("uts", "UTS");
    }
    if !matches!(parsed.text("userns"), "" | "host") {
        return bad("userns", "USER");
    }
    if !matches!(parsed.text("cgroupns"), "" | "host" | "private") {
        return bad("cgroupns", "CGROUP");
    }
    Ok(())
}

/// `no`, `always`, `on-failure:3`; what is no policy is the daemon's to refuse.
pub fn restart_policy(text: &str) -> Result<RestartPolicy, CreateError> {
    let text = if text.is_empty() { "no" } else { text };
    let (name, count) = match text.split_once(':') {
        None => (text, "0"),
        Some(("", _)) => return Err(CreateError::NoPolicy),
        Some((name, "")) => (name, "0"),
        Some((name, count)) => (name, count),
    };
    let maximum_retry_count = count.parse().map_err(|_| CreateError::RetryCount)?;
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

fn log_config(parsed: &Parsed) -> Result<LogConfig, CreateError> {
    let kind = parsed.text("log-driver").to_owned();
    let options = parsed.list("log-opt");
    if kind == "none" && !options.is_empty() {
        return Err(CreateError::LogOptions(kind));
    }
    Ok(LogConfig { kind, config: Some(options.iter().map(|text| environment::pair(text)).collect()) })
}

/// `HOST[:CONTAINER[:rwm]]`, `HOST[:rwm]`.
fn device(text: &str) -> Result<DeviceMapping, CreateError> {
    let is_mode = |text: &str| {
        let once = |letter: char| text.matches(letter).count() <= 1;
        !text.is_empty() && text.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) && ['r', 'w', 'm'].into_iter().all(once)
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, mode) = match parts.as_slice() {
        [""] | ["", ..] | [_, _, _, _, ..] => return Err(CreateError::DevicePath(text.to_owned())),
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [_, _, mode] if !is_mode(mode) => return Err(CreateError::DeviceMode((*mode).to_owned())),
        [host, container, mode] => (*host, *container, *mode),
        [] => return Err(CreateError::DevicePath(text.to_owned())),
    };
    if !container.starts_with('/') {
        return Err(CreateError::DeviceRelative(container.to_owned()));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: container.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

/// What `-v` asks for.
struct Volumes {
    binds: Option<Vec<String>>,
    anonymous: BTreeMap<String, Empty>,
}

fn volumes(parsed: &Parsed, surroundings: &Surroundings<'_>) -> Result<Volumes, CreateError> {
    let (mut binds, mut anonymous) = (Vec::new(), BTreeMap::new());
    for text in parsed.list("volume") {
        let bind = match volume::parse(text)? {
            Volume::Anonymous(_) => {
                anonymous.insert(text.clone(), Empty {});
                continue;
            }
            Volume::Bind(host, behind) => format!("{}:{behind}", surroundings.absolute(host)),
            Volume::Named => text.clone(),
        };
        if !binds.contains(&bind) {
            binds.push(bind);
        }
    }
    Ok(Volumes { binds: none_if_empty(binds), anonymous })
}

fn mounts(parsed: &Parsed, surroundings: &Surroundings<'_>) -> Vec<Mount> {
    let absolute = |path: &str| surroundings.absolute(path);
    // Checked when read: what does not parse cannot come here.
    parsed.list("mount").iter().filter_map(|text| mount::parse(text, &absolute).ok()).collect()
}

fn split_colon(text: &str) -> (String, String) {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    (path.to_owned(), options.to_owned())
}

/// Go's client sends `null` for a list that nobody filled.
fn none_if_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests;
