//! What the daemon tells the engine.

use std::path::PathBuf;

use engine_api::host_config::{LogConfig, Ulimit};

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
    /// Size of /dev/shm where none is asked for; 64 MiB if absent.
    pub default_shm_size_bytes: Option<i64>,
    /// Whether containers get an init program if they do not say.
    pub default_init: bool,
    /// Whether programs gain no privileges if the container does not say.
    pub no_new_privileges: bool,
    /// The daemon's labels, shown by `info`.
    pub labels: Vec<String>,
    /// Whether `info` shows debug mode.
    pub debug: bool,
    /// The default bridge; absent for none.
    pub network: Option<network::Config>,
    /// How registries are reached.
    pub registries: RegistriesConfig,
}

/// What an administrator decides about pulls; the default is dockerd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistriesConfig {
    /// Registries, `host[:port]`, that need no good certificate, nor TLS. Those on this machine never do.
    pub insecure: Vec<String>,
    /// Layers in transfer at a time.
    pub concurrent_downloads: usize,
    /// How often a transfer is tried that does not get on.
    pub download_attempts: u32,
}

impl Default for RegistriesConfig {
    fn default() -> RegistriesConfig {
        RegistriesConfig { insecure: Vec::new(), concurrent_downloads: 3, download_attempts: 5 }
    }
}
