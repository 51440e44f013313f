//! How the host runs a container: everything that does not travel with the image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json;

/// The `HostConfig` object. Absent slices and maps are kept apart from empty ones, because `inspect` shows which.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `HOST:CONTAINER[:options]`, `VOLUME:CONTAINER[:options]`.
    pub binds: Option<Vec<String>>,
    /// Where the client wrote the id.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// Where the output goes.
    pub log_config: LogConfig,
    /// `default`, `bridge`, `none`, `host`, `container:ID` or a network's name.
    pub network_mode: String,
    /// Published ports by `PORT/PROTOCOL`.
    pub port_bindings: Option<BTreeMap<String, Option<Vec<PortBinding>>>>,
    /// When it is started again.
    pub restart_policy: RestartPolicy,
    /// Removed when it ends.
    pub auto_remove: bool,
    /// Driver of the volumes in `binds`.
    pub volume_driver: String,
    /// Containers whose volumes it shares.
    pub volumes_from: Option<Vec<String>>,
    /// The terminal's first size: height, width. Numbers above 65535 are no error.
    pub console_size: [u64; 2],
    /// Free-form metadata, given to the runtime.
    #[serde(skip_serializing_if = "json::is_unset")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Capabilities on top of the default ones.
    pub cap_add: Option<Vec<String>>,
    /// Default capabilities that it does not get.
    pub cap_drop: Option<Vec<String>>,
    /// `private` or `host`.
    pub cgroupns_mode: String,
    /// Name servers.
    pub dns: Option<Vec<String>>,
    /// Options of resolv.conf.
    pub dns_options: Option<Vec<String>>,
    /// Search domains.
    pub dns_search: Option<Vec<String>>,
    /// `NAME:ADDRESS`.
    pub extra_hosts: Option<Vec<String>>,
    /// More groups.
    pub group_add: Option<Vec<String>>,
    /// `private`, `shareable`, `none`, `host`, `container:ID`.
    pub ipc_mode: String,
    /// A cgroup to share.
    pub cgroup: String,
    /// `NAME:ALIAS`.
    pub links: Option<Vec<String>>,
    /// -1000 to 1000.
    pub oom_score_adj: i64,
    /// Empty, `host` or `container:ID`.
    pub pid_mode: String,
    /// All capabilities and devices.
    pub privileged: bool,
    /// Publish all exposed ports.
    pub publish_all_ports: bool,
    /// The root is read-only.
    pub readonly_rootfs: bool,
    /// `no-new-privileges`, `seccomp=...`, `apparmor=...`, `label=...`.
    pub security_opt: Option<Vec<String>>,
    /// Options of the storage driver.
    #[serde(skip_serializing_if = "json::is_unset")]
    pub storage_opt: Option<BTreeMap<String, String>>,
    /// tmpfs mounts: path to options.
    #[serde(skip_serializing_if = "json::is_unset")]
    pub tmpfs: Option<BTreeMap<String, String>>,
    /// Empty or `host`.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// Empty or `host`.
    pub userns_mode: String,
    /// Bytes of /dev/shm; 0 for 64 MiB.
    pub shm_size: i64,
    /// Kernel parameters.
    #[serde(skip_serializing_if = "json::is_unset")]
    pub sysctls: Option<BTreeMap<String, String>>,
    /// The OCI runtime's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    /// Windows only; `default` is accepted.
    pub isolation: String,
    /// Relative processor weight; 0 for 1024.
    pub cpu_shares: i64,
    /// Bytes; 0 for no limit.
    pub memory: i64,
    /// Billionths of a processor; 0 for no limit.
    pub nano_cpus: i64,
    /// The parent cgroup.
    pub cgroup_parent: String,
    /// 10 to 1000; 0 for the default.
    pub blkio_weight: u16,
    /// Per device.
    pub blkio_weight_device: Option<Vec<WeightDevice>>,
    /// Per device.
    pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
    /// Per device.
    pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
    /// Per device.
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
    /// Per device.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds in a period.
    pub cpu_quota: i64,
    /// Microseconds.
    pub cpu_realtime_period: i64,
    /// Microseconds.
    pub cpu_realtime_runtime: i64,
    /// `0-2,4`.
    pub cpuset_cpus: String,
    /// `0-2,4`.
    pub cpuset_mems: String,
    /// Devices of the host.
    pub devices: Option<Vec<DeviceMapping>>,
    /// Rules of the device controller.
    pub device_cgroup_rules: Option<Vec<String>>,
    /// Devices by driver and capability.
    pub device_requests: Option<Vec<DeviceRequest>>,
    /// Bytes of buffers of TCP (version 1 only, and no kernel of today minds it).
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_zero")]
    pub kernel_memory_tcp: i64,
    /// Bytes; soft limit.
    pub memory_reservation: i64,
    /// Bytes of memory and swap; -1 for no limit.
    pub memory_swap: i64,
    /// 0 to 100.
    pub memory_swappiness: Option<i64>,
    /// Whether the OOM killer is off.
    pub oom_kill_disable: Option<bool>,
    /// Number of tasks; 0 or -1 for no limit.
    pub pids_limit: Option<i64>,
    /// Resource limits.
    pub ulimits: Option<Vec<Ulimit>>,
    /// Windows only.
    pub cpu_count: i64,
    /// Windows only.
    pub cpu_percent: i64,
    /// Windows only.
    #[serde(rename = "IOMaximumIOps")]
    pub io_maximum_iops: u64,
    /// Windows only.
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,
    /// Mounts in the long form.
    #[serde(skip_serializing_if = "json::is_unset")]
    pub mounts: Option<Vec<Mount>>,
    /// Hidden paths; absent for the default ones.
    pub masked_paths: Option<Vec<String>>,
    /// Read-only paths; absent for the default ones.
    pub readonly_paths: Option<Vec<String>>,
    /// Whether an init program is process 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
}

impl HostConfig {
    /// That of commands that a build runs in a network: what they print is the build's, and no log has it.
    pub fn of_build(network_mode: &str) -> HostConfig {
        HostConfig {
            log_config: LogConfig { kind: "none".to_owned(), ..LogConfig::default() },
            network_mode: network_mode.to_owned(),
            ..HostConfig::default()
        }
    }
}

/// Where the output of a container goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// The driver; empty for the daemon's default.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Its options.
    pub config: Option<BTreeMap<String, String>>,
}

/// Where a port is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Host address; empty for all.
    pub host_ip: String,
    /// Host port or range; empty for any.
    pub host_port: String,
}

/// When a container is started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// Empty, `no`, `always`, `unless-stopped`, `on-failure`.
    pub name: String,
    /// For `on-failure`; 0 for no bound.
    pub maximum_retry_count: i64,
}

/// A device of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceMapping {
    /// On the host.
    pub path_on_host: String,
    /// In the container.
    pub path_in_container: String,
    /// Some of `rwm`.
    pub cgroup_permissions: String,
}

/// The weight of a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WeightDevice {
    /// On the host.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

/// The rate of a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ThrottleDevice {
    /// On the host.
    pub path: String,
    /// Bytes or operations a second.
    pub rate: u64,
}

/// Devices that a driver chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceRequest {
    /// `cdi`, `nvidia`; empty for any that has the capabilities.
    pub driver: String,
    /// How many; -1 for all.
    pub count: i64,
    /// Which ones; with `cdi` their qualified names.
    #[serde(rename = "DeviceIDs")]
    pub device_ids: Option<Vec<String>>,
    /// Any of these lists, all of one.
    pub capabilities: Option<Vec<Vec<String>>>,
    /// Of the driver.
    pub options: Option<BTreeMap<String, String>>,
}

/// A resource limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// `nofile` and so on.
    pub name: String,
    /// -1 for no limit.
    pub hard: i64,
    /// -1 for no limit.
    pub soft: i64,
}

/// A mount in the long form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`, `npipe`, `cluster`, `image`.
    #[serde(rename = "Type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Host path or volume name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// In the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Whether it cannot be written.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// `consistent`, `cached`, `delegated` or `default`; means nothing on Linux.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub consistency: String,
    /// For `bind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// For `volume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// For `image`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_options: Option<ImageOptions>,
    /// For `tmpfs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
}

/// Options of a bind mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// `rprivate` and so on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub propagation: String,
    /// Leave out what is mounted below the source.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub non_recursive: bool,
    /// Make the source directory if it is missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub create_mountpoint: bool,
    /// Mounts below the source stay writable.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only_non_recursive: bool,
    /// Fail where mounts below the source cannot be made read-only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only_force_recursive: bool,
}

/// Options of a volume mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    /// A new volume stays empty, whatever the image holds at its place.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_copy: bool,
    /// Labels of the volume, if it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// What is mounted of the volume; empty for all of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
    /// Who makes the volume, if it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<DriverConfig>,
}

/// A volume's driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverConfig {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<BTreeMap<String, String>>,
}

/// Options of an image mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageOptions {
    /// What is mounted of the image; empty for all of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
}

/// Options of a tmpfs mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// Bytes; 0 for no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: i64,
    /// Permission bits; 0 for 1777.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub mode: u32,
    /// More options, each `[name]` or `[name, value]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<Vec<String>>>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}
