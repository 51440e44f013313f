//! The specification itself.

use std::collections::BTreeMap;
use std::path::Path;

use engine_api::container::Config;
use engine_api::exec::ExecCreate;
use engine_api::host_config::HostConfig;
use engine_api::paths::clean;
use oci::ContainerId;
use oci::runtime::{
    BlockIo, ConsoleSize, CpuLimits, Linux, MemoryLimits, Mount, PidsLimit, Process, Resources, Rlimit, Root, Spec,
};

use crate::device::HostDevices;
use crate::facts::{CgroupLayout, HostFacts};
use crate::points::Point;
use crate::validate::InvalidRequest;
use crate::{capability, device, mounts, namespaces, security};

/// The version of the runtime specification that we write.
const OCI_VERSION: &str = "1.2.0";

/// `PATH` where neither image nor request set it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Length of the scheduling period behind `--cpus`, the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// The resource limits that can be set, as `--ulimit` names them (docker/go-units).
pub(crate) const RLIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Where the engine has put a container's things.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// The container.
    pub id: &'a ContainerId,
    /// How its root is mounted, from `snapshot`.
    pub root_mounts: &'a [Mount],
    /// What else is mounted, with the sources of volumes.
    pub points: &'a [Point],
    /// Its /etc/hostname, on the host.
    pub hostname_path: &'a Path,
    /// Its /etc/hosts, on the host.
    pub hosts_path: &'a Path,
    /// Its /etc/resolv.conf, on the host.
    pub resolv_conf_path: &'a Path,
    /// The init program, on the host; without one `--init` is refused.
    pub init_path: Option<&'a Path>,
    /// The cgroup above the container's, `/longshore-<key>`.
    pub cgroup_parent: &'a str,
    /// The compiled system-call filter; absent where the container has none.
    pub seccomp_program: Option<&'a Path>,
    /// What it gets of the host's devices.
    pub devices: &'a HostDevices,
    /// Whether read-only binds leave what is mounted below them writable, as before API 1.44.
    pub flat_read_only: bool,
}

/// What the shim is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The specification.
    pub spec: Spec,
    /// `user[:group]` to be resolved inside the root; absent for root.
    pub user: Option<String>,
    /// More groups, names or numbers.
    pub groups: Vec<String>,
}

/// Plans one start of a container from its record: a merged `config` with a host name, and a normalized `host`.
pub fn plan(
    config: &Config,
    host: &HostConfig,
    facts: &HostFacts,
    placement: &Placement,
) -> Result<Planned, InvalidRequest> {
    let init = mounts::has_init(host, facts);
    if init && placement.init_path.is_none() {
        return Err(InvalidRequest::NotOffered { option: "--init without an installed init program" });
    }
    let spec = Spec {
        oci_version: OCI_VERSION.to_owned(),
        process: Process { args: command(config, init)?, ..process(config, host, facts)? },
        root: Root { readonly: host.readonly_rootfs, mounts: placement.root_mounts.to_vec(), ..Root::default() },
        hostname: if host.uts_mode == "host" { String::new() } else { config.hostname.clone() },
        domainname: if host.uts_mode == "host" { String::new() } else { config.domainname.clone() },
        mounts: mounts::mounts(host, facts, placement)?,
        hooks: None,
        annotations: host.annotations.clone().unwrap_or_default(),
        linux: linux(host, facts, placement)?,
    };
    Ok(Planned {
        spec,
        user: Some(config.user.clone()).filter(|user| !user.is_empty()),
        groups: host.group_add.clone().unwrap_or_default(),
    })
}

/// A process added to a running container. Who it runs as: [`exec_user`].
pub fn plan_exec(
    config: &Config,
    host: &HostConfig,
    exec: &ExecCreate,
    facts: &HostFacts,
) -> Result<Process, InvalidRequest> {
    let args = exec.cmd.clone().filter(|cmd| !cmd.is_empty()).ok_or(InvalidRequest::NoExecCommand)?;
    let mut process = process(&Config { tty: exec.tty, ..config.clone() }, host, facts)?;
    process.args = args;
    process.env = override_env(process.env, exec.env.as_deref().unwrap_or_default());
    process.console_size = exec.console_size.filter(|_| exec.tty).and_then(console_size);
    if !exec.working_dir.is_empty() {
        process.cwd.clone_from(&exec.working_dir);
    }
    if exec.privileged {
        process.capabilities = Some(capability::everything(facts));
    }
    Ok(process)
}

/// Whom an exec runs as: its own user, else the container's; absent for root.
pub fn exec_user(config: &Config, exec: &ExecCreate) -> Option<String> {
    [&exec.user, &config.user].into_iter().find(|user| !user.is_empty()).cloned()
}

/// Entry point and arguments, behind the init program if there is one.
fn command(config: &Config, init: bool) -> Result<Vec<String>, InvalidRequest> {
    let own: Vec<String> = config.entrypoint.iter().chain(&config.cmd).flatten().cloned().collect();
    if own.is_empty() {
        return Err(InvalidRequest::NoCommand);
    }
    let before = if init { vec![mounts::INIT_PATH.to_owned(), "--".to_owned()] } else { Vec::new() };
    Ok(before.into_iter().chain(own).collect())
}

/// What the container's own process and its execs have in common; without arguments.
fn process(config: &Config, host: &HostConfig, facts: &HostFacts) -> Result<Process, InvalidRequest> {
    let security = security::parse(host, facts)?;
    Ok(Process {
        terminal: config.tty,
        console_size: Some(host.console_size).filter(|_| config.tty).and_then(console_size),
        env: environment(config),
        cwd: if config.working_dir.is_empty() { "/".to_owned() } else { clean(&config.working_dir) },
        capabilities: Some(capability::capabilities(host, facts)?),
        rlimits: rlimits(host, facts),
        no_new_privileges: security.no_new_privileges,
        apparmor_profile: security.apparmor_profile(facts).to_owned(),
        // Judged by `validate`: it is at most 1000.
        oom_score_adj: i32::try_from(host.oom_score_adj).ok(),
        ..Process::default()
    })
}

/// Height and width; 0 means unknown. The kernel's numbers have 16 bits, and runc takes the lower ones of those asked for.
fn console_size(size: [u64; 2]) -> Option<ConsoleSize> {
    let [height, width] = size.map(|number| number & u64::from(u16::MAX));
    (height != 0 && width != 0).then_some(ConsoleSize { height, width })
}

/// Docker's variables, then the container's, which win. `HOME` follows when the user is known.
fn environment(config: &Config) -> Vec<String> {
    let mut defaults = vec![format!("PATH={PATH}"), format!("HOSTNAME={}", config.hostname)];
    if config.tty {
        defaults.push("TERM=xterm".to_owned());
    }
    override_env(defaults, config.env.as_deref().unwrap_or_default())
}

/// Puts `own` over `defaults`: in the place of one of the same name, else behind; a name without a value removes it.
pub(crate) fn override_env(mut defaults: Vec<String>, own: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map_or(entry.to_owned(), |(name, _)| name.to_owned());
    // Positions are taken before anything is added: two of the same name in `own` both stay, as in Docker.
    let places: BTreeMap<String, usize> = defaults.iter().enumerate().map(|(at, entry)| (name(entry), at)).collect();
    for entry in own {
        match (places.get(&name(entry)), entry.contains('=')) {
            (Some(at), true) => defaults[*at].clone_from(entry),
            (Some(at), false) => defaults[*at].clear(),
            (None, true) => defaults.push(entry.clone()),
            (None, false) => {}
        }
    }
    defaults.retain(|entry| !entry.is_empty());
    defaults
}

fn rlimits(host: &HostConfig, facts: &HostFacts) -> Vec<Rlimit> {
    let own = host.ulimits.as_deref().unwrap_or_default();
    let asked = own.iter().map(|limit| (limit.name.as_str(), limit.soft, limit.hard));
    let defaults = facts.default_ulimits.iter().filter(|(name, _)| !own.iter().any(|limit| limit.name == **name));
    let all = asked.chain(defaults.map(|(name, (soft, hard))| (name.as_str(), *soft, *hard)));
    // -1 is no limit, and so is its bit pattern.
    all.map(|(name, soft, hard)| Rlimit {
        kind: format!("RLIMIT_{}", name.to_ascii_uppercase()),
        hard: hard as u64,
        soft: soft as u64,
    })
    .collect()
}

fn linux(host: &HostConfig, facts: &HostFacts, placement: &Placement) -> Result<Linux, InvalidRequest> {
    Ok(Linux {
        namespaces: namespaces::namespaces(host),
        devices: device::nodes(host, facts, &placement.devices.granted),
        cgroups_path: format!("{}/{}", placement.cgroup_parent, placement.id),
        resources: Some(Resources {
            devices: device::rules(host, &placement.devices.granted)?,
            memory: memory(host, facts),
            cpu: processors(host),
            pids: host.pids_limit.map(|limit| PidsLimit { limit: Some(if limit > 0 { limit } else { -1 }) }),
            block_io: block_io(host, placement),
            ..Resources::default()
        }),
        seccomp_program: placement.seccomp_program.map(Path::to_owned),
        mount_table: true,
        rootfs_propagation: mounts::root_propagation(placement.points).to_owned(),
        sysctl: sysctls(host, facts),
        masked_paths: host.masked_paths.clone().unwrap_or_default(),
        readonly_paths: host.readonly_paths.clone().unwrap_or_default(),
        ..Linux::default()
    })
}

fn memory(host: &HostConfig, facts: &HostFacts) -> Option<MemoryLimits> {
    let limits = MemoryLimits {
        limit: Some(host.memory).filter(|limit| *limit > 0),
        reservation: Some(host.memory_reservation).filter(|limit| *limit > 0),
        swap: Some(host.memory_swap).filter(|limit| *limit > 0),
        kernel_tcp: Some(host.kernel_memory_tcp).filter(|limit| *limit > 0),
        swappiness: host.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
        disable_oom_killer: host.oom_kill_disable.filter(|_| facts.cgroup == CgroupLayout::V1),
        ..MemoryLimits::default()
    };
    Some(limits).filter(|limits| *limits != MemoryLimits::default())
}

pub(crate) fn processors(host: &HostConfig) -> Option<CpuLimits> {
    let from_cpus = host.nano_cpus > 0;
    let limits = CpuLimits {
        shares: u64::try_from(host.cpu_shares).ok().filter(|shares| *shares > 0),
        quota: match from_cpus {
            // In 128 bits: a machine with very many processors must not overflow.
            true => i64::try_from(i128::from(host.nano_cpus) * i128::from(CPU_PERIOD_US) / 1_000_000_000).ok(),
            false => Some(host.cpu_quota).filter(|quota| *quota != 0),
        },
        period: match from_cpus {
            true => Some(CPU_PERIOD_US),
            false => u64::try_from(host.cpu_period).ok().filter(|period| *period != 0),
        },
        realtime_runtime: Some(host.cpu_realtime_runtime).filter(|runtime| *runtime != 0),
        realtime_period: u64::try_from(host.cpu_realtime_period).ok().filter(|period| *period != 0),
        cpus: host.cpuset_cpus.clone(),
        mems: host.cpuset_mems.clone(),
        ..CpuLimits::default()
    };
    Some(limits).filter(|limits| *limits != CpuLimits::default())
}

fn block_io(host: &HostConfig, placement: &Placement) -> Option<BlockIo> {
    let weight = Some(host.blkio_weight).filter(|weight| *weight != 0);
    let limits = BlockIo { weight, ..placement.devices.block_io.clone() };
    Some(limits).filter(|limits| *limits != BlockIo::default())
}

/// Docker's parameters for a network namespace of the container's own, then the request's.
fn sysctls(host: &HostConfig, facts: &HostFacts) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    if host.network_mode != "host" && facts.network_sysctls {
        // Echo sockets without CAP_NET_RAW, and low ports without CAP_NET_BIND_SERVICE.
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
    }
    sysctls.extend(host.sysctls.clone().unwrap_or_default());
    sysctls
}

#[cfg(test)]
mod tests;
