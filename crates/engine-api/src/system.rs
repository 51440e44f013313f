//! The engine as the API tells it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Body of `GET /version`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    /// The product.
    pub platform: Platform,
    /// The programs it is made of.
    pub components: Vec<Component>,
    /// The engine's version.
    pub version: String,
    /// Newest API version.
    pub api_version: String,
    /// Oldest API version.
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    /// Commit it was built from.
    pub git_commit: String,
    /// Clients print it; we name our compiler here.
    pub go_version: String,
    /// Go's name of the operating system.
    pub os: String,
    /// Go's name of the processor.
    pub arch: String,
    /// `uname -r`.
    pub kernel_version: String,
    /// Whether experimental features are on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub experimental: bool,
    /// When it was built, RFC 3339.
    pub build_time: String,
}

/// The product.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Platform {
    /// Its name.
    pub name: String,
}

/// A program that the engine is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What else it says of itself.
    pub details: BTreeMap<String, String>,
}

/// Body of `GET /info`.
///
/// The parts that never change here (plugins, registries, swarm) are [`Value`]s, filled by the engine in Docker's shape.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Info {
    /// A random id, made when the data root was made.
    #[serde(rename = "ID")]
    pub id: String,
    /// All containers.
    pub containers: i64,
    /// Running ones.
    pub containers_running: i64,
    /// Paused ones.
    pub containers_paused: i64,
    /// All others.
    pub containers_stopped: i64,
    /// Images.
    pub images: i64,
    /// The storage driver.
    pub driver: String,
    /// What it says of itself.
    pub driver_status: Option<Vec<[String; 2]>>,
    /// Volume, network, authorization and log plugins.
    pub plugins: Value,
    /// Memory limits work.
    pub memory_limit: bool,
    /// Swap limits work.
    pub swap_limit: bool,
    /// Limits on the kernel's memory for TCP work.
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "std::ops::Not::not")]
    pub kernel_memory_tcp: bool,
    /// The CFS period can be set.
    pub cpu_cfs_period: bool,
    /// The CFS quota can be set.
    pub cpu_cfs_quota: bool,
    /// Processor weights work.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    /// Processor sets work.
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    /// Task limits work.
    pub pids_limit: bool,
    /// net.ipv4.ip_forward.
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// Debug mode.
    pub debug: bool,
    /// Open descriptors of the daemon.
    #[serde(rename = "NFd")]
    pub n_fd: i64,
    /// The OOM killer can be switched off.
    pub oom_kill_disable: bool,
    /// Go routines; our tasks.
    pub n_goroutines: i64,
    /// The present, RFC 3339.
    pub system_time: String,
    /// The default log driver.
    pub logging_driver: String,
    /// `cgroupfs`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// Clients that listen to events.
    pub n_events_listener: i64,
    /// `uname -r`.
    pub kernel_version: String,
    /// PRETTY_NAME of os-release.
    pub operating_system: String,
    /// VERSION_ID of os-release.
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// `uname -m`.
    pub architecture: String,
    /// Docker Hub's old address; clients expect it.
    pub index_server_address: String,
    /// Mirrors and insecure registries.
    pub registry_config: Value,
    /// Processors.
    #[serde(rename = "NCPU")]
    pub ncpu: i64,
    /// Bytes of memory.
    pub mem_total: i64,
    /// Always null.
    pub generic_resources: Option<Value>,
    /// The data root.
    pub docker_root_dir: String,
    /// Proxy for HTTP.
    pub http_proxy: String,
    /// Proxy for HTTPS.
    pub https_proxy: String,
    /// Hosts reached without a proxy.
    pub no_proxy: String,
    /// The host's name.
    pub name: String,
    /// The daemon's labels.
    pub labels: Vec<String>,
    /// Whether experimental features are on.
    pub experimental_build: bool,
    /// The engine's version.
    pub server_version: String,
    /// Runtimes by name.
    pub runtimes: Value,
    /// The default runtime.
    pub default_runtime: String,
    /// Swarm state.
    pub swarm: Value,
    /// Containers outlive the daemon; always true here.
    pub live_restore_enabled: bool,
    /// Windows only.
    pub isolation: String,
    /// The program behind `--init`.
    pub init_binary: String,
    /// Always empty: there is no containerd.
    pub containerd_commit: Value,
    /// Always empty: there is no runc.
    pub runc_commit: Value,
    /// Commit of the init program.
    pub init_commit: Value,
    /// `name=seccomp,profile=builtin` and so on.
    pub security_options: Vec<String>,
    /// Where networks come from, if the administrator says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_address_pools: Option<Value>,
    /// What filters packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall_backend: Option<Value>,
    /// Where CDI specifications are looked for.
    #[serde(rename = "CDISpecDirs")]
    pub cdi_spec_dirs: Option<Vec<String>>,
    /// Devices that can be asked for by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub discovered_devices: Vec<DiscoveredDevice>,
    /// What the user should know.
    pub warnings: Option<Vec<String>>,
}

/// A device that can be asked for by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiscoveredDevice {
    /// Who knows it: `cdi`.
    pub source: String,
    /// `vendor/class=name`.
    #[serde(rename = "ID")]
    pub id: String,
}
