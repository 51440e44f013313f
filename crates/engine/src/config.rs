//! What the daemon tells the engine.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use engine_api::host_config::{HostConfig, LogConfig, Ulimit};
use registry_client::{Mirrors, Proxies};

use crate::changeable::Changeable;
use crate::ops::build::Limits;

/// What an engine is opened with; the daemon makes it of flags and daemon.json.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where images and containers are kept, `/var/lib/longshore`.
    pub data_root: PathBuf,
    /// Where running state is kept, `/run/longshore`; a tmpfs.
    pub exec_root: PathBuf,
    /// The program that stays beside every container.
    pub shim_path: PathBuf,
    /// The program behind `--init`.
    pub init_path: PathBuf,
    /// 8 hex digits that tell this engine's cgroups from those of others.
    pub instance_key: String,
    /// The parent of all containers' cgroups; `/longshore-<instance key>` if absent.
    pub cgroup_parent: Option<String>,
    /// Where output goes if a container does not say.
    pub default_log: LogConfig,
    /// Limits of containers that do not ask for others.
    pub default_ulimits: Vec<Ulimit>,
    /// Whether containers get an init program if they do not say.
    pub default_init: bool,
    /// Whether programs gain no privileges if the container does not say.
    pub no_new_privileges: bool,
    /// Name servers, options and domains of containers that name none.
    pub resolver: ResolverConfig,
    /// The profile of system calls of containers that name none; Docker's own if absent.
    pub seccomp: Option<SeccompConfig>,
    /// Whether clients are told that experimental features are on.
    pub experimental: bool,
    /// What `info` warns of: how far the API is open to others.
    pub api_warnings: Vec<String>,
    /// The default bridge; absent for none.
    pub network: Option<network::Config>,
    /// What may change while the engine runs.
    pub changeable: Changeable,
    /// Where files of vendors describe devices by name (CDI); later ones count before earlier ones.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// Other OCI runtimes, by the names that requests give them.
    pub runtimes: BTreeMap<String, RuntimeConfig>,
    /// Who runs containers that do not say; our own runtime if absent.
    pub default_runtime: Option<String>,
    /// What puts layers together; absent for what is found or works here.
    pub storage_driver: Option<String>,
    /// How much images may take; absent for as much as there is room for.
    pub image_budget: Option<ImageBudgetConfig>,
    /// What builds keep without being asked.
    pub build_cache: BuildCacheConfig,
    /// How much the own files of containers may take that do not say; absent for no limit.
    pub container_size_bytes: Option<u64>,
}

/// What of the build cache goes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildCacheConfig {
    /// Whether anything does.
    pub is_collected: bool,
    /// How much stays; nothing said is BuildKit's rule.
    pub limits: Limits,
}

impl Default for BuildCacheConfig {
    fn default() -> BuildCacheConfig {
        BuildCacheConfig { is_collected: true, limits: Limits::default() }
    }
}

/// How much all images may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageBudgetConfig {
    /// Above it images are removed.
    pub high_bytes: u64,
    /// Until it is kept.
    pub low_bytes: u64,
    /// Names of those that stay, in which `*` stands for any letters.
    pub pins: Vec<String>,
    /// What was used, pulled or made since stays: somebody may be about to use it.
    pub min_age: Duration,
}

/// Another OCI runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// The program, or its name in `PATH`.
    pub path: PathBuf,
    /// What stands before its command.
    pub args: Vec<String>,
}

/// What containers find in /etc/resolv.conf if they ask for nothing else; where empty, what the host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolverConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
    /// Domains in which names are looked up.
    pub search: Vec<String>,
}

/// A profile of system calls that an administrator has chosen for all containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeccompConfig {
    /// As `info` shows it: a path, or `unconfined`.
    pub name: String,
    /// The profile's text, or `unconfined`.
    pub profile: String,
}

impl ResolverConfig {
    /// A container's wishes with these where it has none. What is recorded of it stays as it was asked for.
    pub fn complete<'a>(&self, host: &'a HostConfig) -> Cow<'a, HostConfig> {
        if *self == ResolverConfig::default() {
            return Cow::Borrowed(host);
        }
        let mut host = host.clone();
        for (own, default) in [
            (&mut host.dns, &self.servers),
            (&mut host.dns_options, &self.options),
            (&mut host.dns_search, &self.search),
        ] {
            if own.as_ref().is_none_or(Vec::is_empty) && !default.is_empty() {
                *own = Some(default.clone());
            }
        }
        Cow::Owned(host)
    }
}

/// What an administrator decides about pulls; the default is dockerd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistriesConfig {
    /// Registries, `host[:port]` or ranges of addresses, that need no good certificate, nor TLS. Those on this machine
    /// never do.
    pub insecure: Vec<String>,
    /// Directories with `<host[:port]>/`, authorities and certificates for that registry.
    pub certificates: Vec<PathBuf>,
    /// What stands between us and registries.
    pub proxies: Proxies,
    /// Who is asked before a registry.
    pub mirrors: Mirrors,
    /// Layers in transfer at a time.
    pub concurrent_downloads: usize,
    /// How often a transfer is tried that does not get on.
    pub download_attempts: u32,
    /// Layers that are sent at a time.
    pub concurrent_uploads: usize,
}

impl Default for RegistriesConfig {
    fn default() -> RegistriesConfig {
        RegistriesConfig {
            insecure: Vec::new(),
            certificates: vec!["/etc/docker/certs.d".into()],
            proxies: Proxies::default(),
            mirrors: Mirrors::default(),
            concurrent_downloads: 3,
            download_attempts: 5,
            concurrent_uploads: 5,
        }
    }
}
