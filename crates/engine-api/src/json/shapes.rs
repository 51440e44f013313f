//! The shapes of all bodies (moby `api/types`), in the order in which clients send their fields.

use super::shape::{Document, Field, Shape};
use crate::auth::AuthConfig;
use crate::checkpoint::CheckpointCreate;
use crate::container::CreateRequest;
use crate::exec::{ExecCreate, ExecStart};
use crate::network::{NetworkConnect, NetworkCreate, NetworkDisconnect};
use crate::published_ports::PortsRequest;
use crate::update::UpdateRequest;
use crate::volume::VolumeCreate;
use Shape::{Array, Bool, List, Map, Number, Object, Text, Words};

impl Document for CreateRequest {
    const PREFIX: &'static str = "";
    const SHAPE: Shape = Object("container.CreateRequest", CREATE);
}

impl Document for AuthConfig {
    const PREFIX: &'static str = "AuthConfig";
    const SHAPE: Shape = Object("registry.AuthConfig", AUTH);
}

impl Document for CheckpointCreate {
    const PREFIX: &'static str = "CreateOptions";
    const SHAPE: Shape = Object("checkpoint.CreateOptions", CHECKPOINT_CREATE);
}

impl Document for ExecCreate {
    const PREFIX: &'static str = "ExecOptions";
    const SHAPE: Shape = Object("container.ExecOptions", EXEC_CREATE);
}

impl Document for ExecStart {
    const PREFIX: &'static str = "ExecStartOptions";
    const SHAPE: Shape = Object("container.ExecStartOptions", EXEC_START);
}

impl Document for NetworkCreate {
    const PREFIX: &'static str = "CreateRequest";
    const SHAPE: Shape = Object("network.CreateRequest", NETWORK_CREATE);
}

impl Document for NetworkConnect {
    const PREFIX: &'static str = "ConnectOptions";
    const SHAPE: Shape = Object("network.ConnectOptions", NETWORK_CONNECT);
}

impl Document for NetworkDisconnect {
    const PREFIX: &'static str = "DisconnectOptions";
    const SHAPE: Shape = Object("network.DisconnectOptions", NETWORK_DISCONNECT);
}

impl Document for UpdateRequest {
    const PREFIX: &'static str = "UpdateConfig";
    const SHAPE: Shape = Object("container.UpdateConfig", UPDATE);
}

impl Document for PortsRequest {
    const PREFIX: &'static str = "PortsRequest";
    const SHAPE: Shape = Object("container.PortsRequest", PORTS_REQUEST);
}

impl Document for VolumeCreate {
    const PREFIX: &'static str = "CreateOptions";
    const SHAPE: Shape = Object("volume.CreateOptions", VOLUME_CREATE);
}

pub(super) const TEXT: Shape = Text("string");
const TEXTS: Shape = List("[]string", &TEXT);
const LISTS_OF_TEXTS: Shape = List("[][]string", &TEXTS);
const TEXT_BY_NAME: Shape = Map("map[string]string", &TEXT);
const PORTS_REQUEST: &[Field] =
    &[("Add", PORT_MAP), ("Remove", PORT_MAP), ("Limits", Object("container.UpdateConfig", UPDATE))];
const NOTHING: Shape = Object("struct {}", &[]);

const INT: Shape = Number("int", i64::MIN as i128, i64::MAX as i128);
const INT64: Shape = Number("int64", i64::MIN as i128, i64::MAX as i128);
const UINT: Shape = Number("uint", 0, u64::MAX as i128);
const UINT64: Shape = Number("uint64", 0, u64::MAX as i128);
const UINT16: Shape = Number("uint16", 0, u16::MAX as i128);
const FILE_MODE: Shape = Number("fs.FileMode", 0, u32::MAX as i128);
const DURATION: Shape = Number("time.Duration", i64::MIN as i128, i64::MAX as i128);

const TERMINAL_SIZE: Shape = Array("[2]uint", 2, &UINT);

/// `container.Config`, and what surrounds it.
const CREATE: &[Field] = &[
    ("Hostname", TEXT),
    ("Domainname", TEXT),
    ("User", TEXT),
    ("AttachStdin", Bool),
    ("AttachStdout", Bool),
    ("AttachStderr", Bool),
    ("ExposedPorts", Map("nat.PortSet", &NOTHING)),
    ("Tty", Bool),
    ("OpenStdin", Bool),
    ("StdinOnce", Bool),
    ("Env", TEXTS),
    ("Cmd", Words),
    ("Healthcheck", Object("v1.HealthcheckConfig", HEALTHCHECK)),
    ("ArgsEscaped", Bool),
    ("Image", TEXT),
    ("Volumes", Map("map[string]struct {}", &NOTHING)),
    ("WorkingDir", TEXT),
    ("Entrypoint", Words),
    ("NetworkDisabled", Bool),
    ("MacAddress", TEXT),
    ("OnBuild", TEXTS),
    ("Labels", TEXT_BY_NAME),
    ("StopSignal", TEXT),
    ("StopTimeout", INT),
    ("Shell", Words),
    ("HostConfig", Object("container.HostConfig", HOST_CONFIG)),
    ("NetworkingConfig", Object("network.NetworkingConfig", NETWORKING)),
];

const CHECKPOINT_CREATE: &[Field] = &[("CheckpointID", TEXT), ("CheckpointDir", TEXT), ("Exit", Bool)];

const HEALTHCHECK: &[Field] = &[
    ("Test", TEXTS),
    ("Interval", DURATION),
    ("Timeout", DURATION),
    ("StartPeriod", DURATION),
    ("StartInterval", DURATION),
    ("Retries", INT),
];

const HOST_CONFIG: &[Field] = &[
    ("Binds", TEXTS),
    ("ContainerIDFile", TEXT),
    ("LogConfig", Object("container.LogConfig", &[("Type", TEXT), ("Config", TEXT_BY_NAME)])),
    ("NetworkMode", Text("container.NetworkMode")),
    ("PortBindings", PORT_MAP),
    ("RestartPolicy", Object("container.RestartPolicy", RESTART_POLICY)),
    ("AutoRemove", Bool),
    ("VolumeDriver", TEXT),
    ("VolumesFrom", TEXTS),
    ("ConsoleSize", TERMINAL_SIZE),
    ("Annotations", TEXT_BY_NAME),
    ("CapAdd", Words),
    ("CapDrop", Words),
    ("CgroupnsMode", Text("container.CgroupnsMode")),
    ("Dns", TEXTS),
    ("DnsOptions", TEXTS),
    ("DnsSearch", TEXTS),
    ("ExtraHosts", TEXTS),
    ("GroupAdd", TEXTS),
    ("IpcMode", Text("container.IpcMode")),
    ("Cgroup", Text("container.CgroupSpec")),
    ("Links", TEXTS),
    ("OomScoreAdj", INT),
    ("PidMode", Text("container.PidMode")),
    ("Privileged", Bool),
    ("PublishAllPorts", Bool),
    ("ReadonlyRootfs", Bool),
    ("SecurityOpt", TEXTS),
    ("StorageOpt", TEXT_BY_NAME),
    ("Tmpfs", TEXT_BY_NAME),
    ("UTSMode", Text("container.UTSMode")),
    ("UsernsMode", Text("container.UsernsMode")),
    ("ShmSize", INT64),
    ("Sysctls", TEXT_BY_NAME),
    ("Runtime", TEXT),
    ("Isolation", Text("container.Isolation")),
    ("CpuShares", INT64),
    ("Memory", INT64),
    ("NanoCpus", INT64),
    ("CgroupParent", TEXT),
    ("BlkioWeight", UINT16),
    ("BlkioWeightDevice", List("[]*blkiodev.WeightDevice", &WEIGHT_DEVICE)),
    ("BlkioDeviceReadBps", THROTTLE_DEVICES),
    ("BlkioDeviceWriteBps", THROTTLE_DEVICES),
    ("BlkioDeviceReadIOps", THROTTLE_DEVICES),
    ("BlkioDeviceWriteIOps", THROTTLE_DEVICES),
    ("CpuPeriod", INT64),
    ("CpuQuota", INT64),
    ("CpuRealtimePeriod", INT64),
    ("CpuRealtimeRuntime", INT64),
    ("CpusetCpus", TEXT),
    ("CpusetMems", TEXT),
    ("Devices", List("[]container.DeviceMapping", &Object("container.DeviceMapping", DEVICE_MAPPING))),
    ("DeviceCgroupRules", TEXTS),
    ("DeviceRequests", List("[]container.DeviceRequest", &Object("container.DeviceRequest", DEVICE_REQUEST))),
    ("KernelMemory", INT64),
    ("KernelMemoryTCP", INT64),
    ("MemoryReservation", INT64),
    ("MemorySwap", INT64),
    ("MemorySwappiness", INT64),
    ("OomKillDisable", Bool),
    ("PidsLimit", INT64),
    ("Ulimits", List("[]*units.Ulimit", &ULIMIT)),
    ("CpuCount", INT64),
    ("CpuPercent", INT64),
    ("IOMaximumIOps", UINT64),
    ("IOMaximumBandwidth", UINT64),
    ("Mounts", List("[]mount.Mount", &Object("mount.Mount", MOUNT))),
    ("MaskedPaths", TEXTS),
    ("ReadonlyPaths", TEXTS),
    ("Init", Bool),
];

/// Limits, and the restart policy.
const UPDATE: &[Field] = &[
    ("CpuShares", INT64),
    ("Memory", INT64),
    ("NanoCpus", INT64),
    ("CgroupParent", TEXT),
    ("BlkioWeight", UINT16),
    ("CpuPeriod", INT64),
    ("CpuQuota", INT64),
    ("CpuRealtimePeriod", INT64),
    ("CpuRealtimeRuntime", INT64),
    ("CpusetCpus", TEXT),
    ("CpusetMems", TEXT),
    ("MemoryReservation", INT64),
    ("MemorySwap", INT64),
    ("MemorySwappiness", INT64),
    ("OomKillDisable", Bool),
    ("PidsLimit", INT64),
    ("RestartPolicy", Object("container.RestartPolicy", RESTART_POLICY)),
];

const PORT_MAP: Shape = Map("nat.PortMap", &List("[]nat.PortBinding", &PORT_BINDING));

const PORT_BINDING: Shape = Object("nat.PortBinding", &[("HostIp", TEXT), ("HostPort", TEXT)]);
const WEIGHT_DEVICE: Shape = Object("blkiodev.WeightDevice", &[("Path", TEXT), ("Weight", UINT16)]);
const THROTTLE_DEVICE: Shape = Object("blkiodev.ThrottleDevice", &[("Path", TEXT), ("Rate", UINT64)]);
const THROTTLE_DEVICES: Shape = List("[]*blkiodev.ThrottleDevice", &THROTTLE_DEVICE);
const ULIMIT: Shape = Object("units.Ulimit", &[("Name", TEXT), ("Hard", INT64), ("Soft", INT64)]);

const RESTART_POLICY: &[Field] = &[("Name", Text("container.RestartPolicyMode")), ("MaximumRetryCount", INT)];

const DEVICE_MAPPING: &[Field] = &[("PathOnHost", TEXT), ("PathInContainer", TEXT), ("CgroupPermissions", TEXT)];

const DEVICE_REQUEST: &[Field] = &[
    ("Driver", TEXT),
    ("Count", INT),
    ("DeviceIDs", TEXTS),
    ("Capabilities", LISTS_OF_TEXTS),
    ("Options", TEXT_BY_NAME),
];

const MOUNT: &[Field] = &[
    ("Type", Text("mount.Type")),
    ("Source", TEXT),
    ("Target", TEXT),
    ("ReadOnly", Bool),
    ("Consistency", Text("mount.Consistency")),
    ("BindOptions", Object("mount.BindOptions", BIND_OPTIONS)),
    ("VolumeOptions", Object("mount.VolumeOptions", VOLUME_OPTIONS)),
    ("ImageOptions", Object("mount.ImageOptions", &[("Subpath", TEXT)])),
    ("TmpfsOptions", Object("mount.TmpfsOptions", TMPFS_OPTIONS)),
    ("ClusterOptions", Object("mount.ClusterOptions", &[])),
];

const BIND_OPTIONS: &[Field] = &[
    ("Propagation", Text("mount.Propagation")),
    ("NonRecursive", Bool),
    ("CreateMountpoint", Bool),
    ("ReadOnlyNonRecursive", Bool),
    ("ReadOnlyForceRecursive", Bool),
];

const VOLUME_OPTIONS: &[Field] = &[
    ("NoCopy", Bool),
    ("Labels", TEXT_BY_NAME),
    ("Subpath", TEXT),
    ("DriverConfig", Object("mount.Driver", &[("Name", TEXT), ("Options", TEXT_BY_NAME)])),
];

const TMPFS_OPTIONS: &[Field] = &[("SizeBytes", INT64), ("Mode", FILE_MODE), ("Options", LISTS_OF_TEXTS)];

const NETWORKING: &[Field] =
    &[("EndpointsConfig", Map("map[string]*network.EndpointSettings", &Object("network.EndpointSettings", ENDPOINT)))];

const ENDPOINT: &[Field] = &[
    ("IPAMConfig", Object("network.EndpointIPAMConfig", IPAM)),
    ("Links", TEXTS),
    ("Aliases", TEXTS),
    ("MacAddress", TEXT),
    ("DriverOpts", TEXT_BY_NAME),
    ("GwPriority", INT),
    ("NetworkID", TEXT),
    ("EndpointID", TEXT),
    ("Gateway", TEXT),
    ("IPAddress", TEXT),
    ("IPPrefixLen", INT),
    ("IPv6Gateway", TEXT),
    ("GlobalIPv6Address", TEXT),
    ("GlobalIPv6PrefixLen", INT),
    ("DNSNames", TEXTS),
];

const IPAM: &[Field] = &[("IPv4Address", TEXT), ("IPv6Address", TEXT), ("LinkLocalIPs", TEXTS)];

const EXEC_CREATE: &[Field] = &[
    ("User", TEXT),
    ("Privileged", Bool),
    ("Tty", Bool),
    ("ConsoleSize", TERMINAL_SIZE),
    ("AttachStdin", Bool),
    ("AttachStderr", Bool),
    ("AttachStdout", Bool),
    ("Detach", Bool),
    ("DetachKeys", TEXT),
    ("Env", TEXTS),
    ("WorkingDir", TEXT),
    ("Cmd", TEXTS),
];

const EXEC_START: &[Field] = &[("Detach", Bool), ("Tty", Bool), ("ConsoleSize", TERMINAL_SIZE)];

const VOLUME_CREATE: &[Field] = &[
    ("ClusterVolumeSpec", Object("volume.ClusterVolumeSpec", &[])),
    ("Driver", TEXT),
    ("DriverOpts", TEXT_BY_NAME),
    ("Labels", TEXT_BY_NAME),
    ("Name", TEXT),
];

const NETWORK_CREATE: &[Field] = &[
    ("Driver", TEXT),
    ("Scope", TEXT),
    ("EnableIPv4", Bool),
    ("EnableIPv6", Bool),
    ("IPAM", Object("network.IPAM", NETWORK_IPAM)),
    ("Internal", Bool),
    ("Attachable", Bool),
    ("Ingress", Bool),
    ("ConfigOnly", Bool),
    ("ConfigFrom", Object("network.ConfigReference", &[("Network", TEXT)])),
    ("Options", TEXT_BY_NAME),
    ("Labels", TEXT_BY_NAME),
    ("Name", TEXT),
];

const NETWORK_IPAM: &[Field] = &[
    ("Driver", TEXT),
    ("Options", TEXT_BY_NAME),
    ("Config", List("[]network.IPAMConfig", &Object("network.IPAMConfig", NETWORK_RANGE))),
];

const NETWORK_RANGE: &[Field] =
    &[("Subnet", TEXT), ("IPRange", TEXT), ("Gateway", TEXT), ("AuxiliaryAddresses", TEXT_BY_NAME)];

const NETWORK_CONNECT: &[Field] =
    &[("Container", TEXT), ("EndpointConfig", Object("network.EndpointSettings", ENDPOINT))];

const NETWORK_DISCONNECT: &[Field] = &[("Container", TEXT), ("Force", Bool)];

const AUTH: &[Field] = &[
    ("username", TEXT),
    ("password", TEXT),
    ("auth", TEXT),
    ("serveraddress", TEXT),
    ("identitytoken", TEXT),
    ("registrytoken", TEXT),
];
