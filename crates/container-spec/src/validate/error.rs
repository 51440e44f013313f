//! The sentences.

use errdefs::ErrorKind;

use crate::log::{LogFault, LogStartFault};

/// Why a request is refused. The texts are dockerd's, as clients print them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// Neither request nor image name a program.
    #[error("no command specified")]
    NoCommand,
    /// An exec without a program.
    #[error("No exec command specified")]
    NoExecCommand,
    /// The option exists in Docker and not here.
    #[error("{option} is not supported yet")]
    NotOffered {
        /// As the command line or the API names it.
        option: &'static str,
    },
    /// Two options exclude each other.
    #[error("conflicting options: {options}")]
    Conflict {
        /// Both.
        options: &'static str,
    },
    /// What stands for a container is none.
    #[error("invalid network mode: invalid container format container:<name|id>")]
    NetworkContainer,
    /// A port or a range of ports is none.
    #[error("invalid port specification: {text:?}")]
    Port {
        /// As given.
        text: String,
    },
    /// The address that a port is published on is none.
    #[error("invalid IP address: {text}")]
    HostIp {
        /// As given.
        text: String,
    },
    /// A text holds a zero byte.
    #[error("invalid request: a value contains a NUL byte")]
    NulByte,
    /// The working directory is relative.
    #[error("the working directory '{path}' is invalid, it needs to be an absolute path")]
    WorkingDir {
        /// As given.
        path: String,
    },
    /// The stop signal is unknown.
    #[error("invalid signal: {signal}")]
    Signal {
        /// As given.
        signal: String,
    },
    /// A variable without a name.
    #[error("invalid environment variable: {entry}")]
    Env {
        /// As given.
        entry: String,
    },
    /// Removal and restart exclude each other.
    #[error("can't create 'AutoRemove' container with restart policy")]
    AutoRemoveWithRestart,
    /// A duration of the health check is negative, or too short for a timer.
    #[error("{field} in Healthcheck cannot be less than 1ms")]
    HealthcheckDuration {
        /// Which one.
        field: &'static str,
    },
    /// The health check may fail less than never.
    #[error("Retries in Healthcheck cannot be negative")]
    HealthcheckRetries,
    /// The restart policy is unknown.
    #[error(
        "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    )]
    RestartPolicy {
        /// As given.
        name: String,
    },
    /// A bound on restarts below zero.
    #[error("invalid restart policy: maximum retry count cannot be negative")]
    RestartRetriesNegative,
    /// A bound on restarts without `on-failure`.
    #[error("invalid restart policy: maximum retry count can only be used with 'on-failure'")]
    RestartRetriesUnused,
    /// Both of it.
    #[error("invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative")]
    RestartRetriesUnusedAndNegative,
    /// An extra host without name or address.
    #[error("bad format for add-host: {entry:?}")]
    ExtraHost {
        /// As given.
        entry: String,
    },
    /// An extra host's address is none.
    #[error("invalid IP address in add-host: {address:?}")]
    ExtraHostAddress {
        /// As given.
        address: String,
    },
    /// A capability that does not exist.
    #[error("invalid {list}: unknown capability: {name:?}")]
    UnknownCapability {
        /// `CapAdd` or `CapDrop`.
        list: &'static str,
        /// With its prefix.
        name: String,
    },
    /// A capability that we do not have ourselves.
    #[error(
        "invalid {list}: capability not supported by your kernel or not available in the current environment: {name:?}"
    )]
    UnavailableCapability {
        /// `CapAdd` or `CapDrop`.
        list: &'static str,
        /// With its prefix.
        name: String,
    },
    /// Isolation is a Windows matter.
    #[error("invalid isolation ({isolation}): linux only supports 'default'")]
    Isolation {
        /// As given.
        isolation: String,
    },
    /// An annotation without a name.
    #[error("invalid Annotations: the empty string is not permitted as an annotation key")]
    EmptyAnnotation,
    /// A namespace mode is unknown.
    #[error("invalid {namespace} mode: {mode}")]
    Mode {
        /// Which namespace.
        namespace: &'static str,
        /// As given.
        mode: String,
    },
    /// The host's UTS namespace has the host's name.
    #[error("conflicting options: hostname and the UTS mode")]
    HostnameWithHostUts,
    /// Settings of a container's place in a network that has no such place for it.
    #[error("invalid config for network {network}: invalid endpoint settings:\n{}", listed(faults))]
    Endpoint {
        /// Its name.
        network: String,
        /// What is wrong.
        faults: Vec<EndpointFault>,
    },
    /// Networks that exclude each other, or the network mode.
    #[error("failed to set up container networking: {0}")]
    Networks(NetworksFault),
    /// The OCI runtime is unknown.
    #[error("unknown or invalid runtime name: {name}")]
    Runtime {
        /// As given.
        name: String,
    },
    /// Less memory than a container needs to start.
    #[error("Minimum memory limit allowed is 6MB")]
    MemoryTooSmall,
    /// Memory and swap together are less than memory alone.
    #[error("Minimum memoryswap limit should be larger than memory limit, see usage")]
    SwapBelowMemory,
    /// Swap is limited and memory is not.
    #[error("You should always set the Memory limit when using Memoryswap limit, see usage")]
    SwapWithoutMemory,
    /// Swappiness outside of 0 to 100.
    #[error("Invalid value: {value}, valid memory swappiness range is 0-100")]
    Swappiness {
        /// As given.
        value: i64,
    },
    /// The soft limit is less than a container needs to start.
    #[error("Minimum memory reservation allowed is 6MB")]
    ReservationTooSmall,
    /// The soft limit is above the hard one.
    #[error("Minimum memory limit can not be less than memory reservation limit, see usage")]
    MemoryBelowReservation,
    /// Two ways to say the same.
    #[error("Conflicting options: Nano CPUs and CPU {other} cannot both be set")]
    CpusConflict {
        /// `Period` or `Quota`.
        other: &'static str,
    },
    /// More processors than there are.
    #[error("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")]
    CpusRange {
        /// How many there are.
        cpus: u32,
    },
    /// Shares below zero.
    #[error("invalid CPU shares ({shares}): value must be a positive integer")]
    CpuShares {
        /// As given.
        shares: i64,
    },
    /// A period that the kernel refuses.
    #[error("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")]
    CpuPeriod,
    /// A quota that the kernel refuses.
    #[error("CPU cfs quota can not be less than 1ms (i.e. 1000)")]
    CpuQuota,
    /// A cpuset that is no list.
    #[error("Invalid value {value} for cpuset {list}: invalid format: {value}")]
    Cpuset {
        /// As given.
        value: String,
        /// `cpus` or `mems`.
        list: &'static str,
    },
    /// A number in a cpuset that no machine has.
    #[error("Invalid value {value} for cpuset {list}: value of out range, maximum is 8192")]
    CpusetRange {
        /// The number.
        value: String,
        /// `cpus` or `mems`.
        list: &'static str,
    },
    /// More real time than there is.
    #[error("cpu real-time runtime cannot be higher than cpu real-time period")]
    RealtimeRuntime,
    /// A cpuset that names what is not there.
    #[error("Requested {what} are not available - requested {value}, available: {available}")]
    CpusetUnavailable {
        /// `CPUs` or `memory nodes`.
        what: &'static str,
        /// As given.
        value: String,
        /// What there is.
        available: String,
    },
    /// A weight that the kernel refuses.
    #[error("Range of blkio weight is from 10 to 1000")]
    BlockIoWeight,
    /// Limits of a whole system drive are a Windows matter.
    #[error("invalid option: QoS maximum {what} configuration is not supported on linux")]
    IoMaximum {
        /// `bandwidth` or `IOPs`.
        what: &'static str,
    },
    /// No container to link to.
    #[error("empty string specified for links")]
    LinkEmpty,
    /// More than a container and an alias.
    #[error("bad format for links: {raw}")]
    Link {
        /// As given.
        raw: String,
    },
    /// A size below zero.
    #[error("SHM size can not be less than 0")]
    ShmSize,
    /// Outside of the kernel's range.
    #[error("Invalid value {value}, range for oom score adj is [-1000, 1000]")]
    OomScore {
        /// As given.
        value: i64,
    },
    /// An unknown resource limit.
    #[error("invalid ulimit type: {name}")]
    Ulimit {
        /// As given.
        name: String,
    },
    /// A soft limit above the hard one.
    #[error("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    UlimitOrder {
        /// As given.
        soft: i64,
        /// As given.
        hard: i64,
    },
    /// A kernel parameter of the whole machine.
    #[error("sysctl {name:?} is not in a separate kernel namespace")]
    Sysctl {
        /// As given.
        name: String,
    },
    /// A kernel parameter of the network, which is the host's.
    #[error("sysctl {name:?} not allowed in host network namespace")]
    SysctlOfHostNetwork {
        /// As given.
        name: String,
    },
    /// A kernel parameter of the IPC namespace, which is the host's.
    #[error("sysctl {name:?} is not allowed in the hosts ipc namespace")]
    SysctlOfHostIpc {
        /// As given.
        name: String,
    },
    /// A device rule that is none.
    #[error("invalid device cgroup rule format: '{rule}'")]
    DeviceRule {
        /// As given.
        rule: String,
    },
    /// A bind that is no `SOURCE:TARGET[:OPTIONS]`.
    #[error("invalid volume specification: '{raw}'")]
    VolumeSpec {
        /// As given.
        raw: String,
    },
    /// A bind whose parts are wrong.
    #[error("invalid volume specification: '{raw}': invalid mount config for type {kind:?}: {fault}")]
    VolumeSpecMount {
        /// As given.
        raw: String,
        /// `bind` or `volume`.
        kind: String,
        /// What is wrong.
        fault: MountFault,
    },
    /// A bind's options are unknown or contradict each other.
    #[error("invalid mode: {mode}")]
    VolumeMode {
        /// As given.
        mode: String,
    },
    /// No container whose volumes are to be shared.
    #[error("volumes-from specification cannot be an empty string")]
    VolumesFromEmpty,
    /// Options of shared volumes that are none.
    #[error("invalid mode: {mode}")]
    VolumesFromMode {
        /// As given.
        mode: String,
    },
    /// Two mounts at one place.
    #[error("Duplicate mount point: {path}")]
    DuplicateMount {
        /// Where.
        path: String,
    },
    /// A long-form mount is wrong.
    #[error("invalid mount config for type {kind:?}: {fault}")]
    Mount {
        /// As given.
        kind: String,
        /// What is wrong.
        fault: MountFault,
    },
    /// A tmpfs at an impossible place.
    #[error("{0}")]
    TmpfsDestination(MountFault),
    /// A tmpfs option that Docker does not know.
    #[error("invalid tmpfs option {name:?}")]
    TmpfsOption {
        /// Its name.
        name: String,
    },
    /// An option that no storage driver has.
    #[error("Unknown option {name}")]
    StorageOption {
        /// Its name.
        name: String,
    },
    /// A size of a container's files, and a file system that cannot keep it.
    #[error(
        "--storage-opt is supported only for overlay over xfs with 'pquota' mount option, or over ext4 with 'prjquota'"
    )]
    NoProjectQuota,
    /// A size of a container's files that is none.
    #[error(transparent)]
    StorageSize(engine_api::size::SizeError),
    /// Two ways to be read-only that exclude each other.
    #[error("mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive")]
    ReadOnlyConflict,
    /// Recursive read-only was insisted on and the kernel cannot.
    #[error("rro is not supported: requires kernel >= 5.12")]
    ReadOnlyRecursive,
    /// A security option without a value.
    #[error("invalid --security-opt 1: {option:?}")]
    SecurityOptionFormat {
        /// As given.
        option: String,
    },
    /// An unknown security option, or one with a wrong value.
    #[error("invalid --security-opt 2: {option:?}")]
    SecurityOption {
        /// As given.
        option: String,
    },
    /// A profile, and a kernel without system-call filters.
    #[error("seccomp is not enabled in your kernel, cannot run a custom seccomp profile")]
    NoSeccomp,
    /// A log driver or an option of it.
    #[error(transparent)]
    Log(#[from] LogFault),
    /// A value of a log driver's option. Values are looked at by the start.
    #[error("failed to create task for container: failed to initialize logging driver")]
    LogStart(#[from] LogStartFault),
}

/// What is wrong with the settings of an endpoint. The networks that are always there let nobody choose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointFault {
    /// An address of the user's choice.
    #[error("user specified IP address is supported on user defined networks only")]
    Address,
    /// The same, where the network has no addresses of the user's choice.
    #[error("user specified IP address is supported only when connecting to networks with user configured subnets")]
    Subnet,
    /// Other names.
    #[error("network-scoped alias is supported only for containers in user defined networks")]
    Alias,
    /// It is no IPv4 address.
    #[error("invalid IPv4 address: {0}")]
    Ipv4(String),
    /// It is no IPv6 address.
    #[error("invalid IPv6 address: {0}")]
    Ipv6(String),
    /// It is no address.
    #[error("invalid link-local IP address: {0}")]
    LinkLocal(String),
    /// It is no setting of an interface.
    #[error(
        "unrecognised network interface sysctl '{0}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or \
         'mpls'"
    )]
    Sysctl(String),
    /// The network's addresses do not have it.
    #[error("no configured subnet or ip-range contain the IP address {0}")]
    Outside(String),
}

/// One fault as it is, several as a list: dockerd's form.
pub fn listed<T: ToString>(faults: &[T]) -> String {
    match faults {
        [fault] => fault.to_string(),
        faults => faults.iter().map(|fault| format!("* {}", fault.to_string())).collect::<Vec<_>>().join("\n"),
    }
}

/// Why networks do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworksFault {
    /// The host's network, and a namespace of its own.
    #[error("cannot connect container to host network - container must be created in host network mode")]
    Host,
    /// Another network, and the host's namespace.
    #[error(
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )]
    Shared,
    /// No network, and another one.
    #[error("container cannot be connected to multiple networks with one of the networks in private (none) mode")]
    None,
    /// Another network than the network mode's.
    #[error("HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")]
    Mode,
    /// A network that does not exist: `default` is only a mode.
    #[error("network {0} not found")]
    Missing(String),
}

/// What is wrong with one mount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountFault {
    /// A field is missing.
    #[error("field {0} must not be empty")]
    Missing(&'static str),
    /// A field does not go with the type.
    #[error("field {0} must not be specified")]
    Extra(&'static str),
    /// It would hide the whole container.
    #[error("invalid specification: destination can't be '/'")]
    Root,
    /// A relative path.
    #[error("invalid mount path: '{0}' mount path must be absolute")]
    Relative(String),
    /// An unknown mount propagation.
    #[error("invalid propagation mode: {0}")]
    Propagation(String),
    /// The source is not there.
    #[error("bind source path does not exist: {0}")]
    SourceMissing(String),
    /// A volume that nobody could have filled.
    #[error("must not set ReadOnly mode when using anonymous volumes")]
    AnonymousReadOnly,
    /// A part of a volume that is empty.
    #[error("must not set Subpath when using anonymous volumes")]
    AnonymousSubpath,
    /// A part of a volume that is not in it.
    #[error("subpath must be a relative path within the volume")]
    Subpath,
    /// An unknown type.
    #[error("mount type unknown")]
    Kind,
    /// An option of a tmpfs that is not allowed.
    #[error("invalid option: {0}")]
    Option(String),
    /// An option of a tmpfs with no words or too many.
    #[error("invalid option array length")]
    OptionLength,
}

impl InvalidRequest {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            InvalidRequest::NotOffered { .. } => ErrorKind::NotImplemented,
            InvalidRequest::Log(fault) if fault.is_not_offered() => ErrorKind::NotImplemented,
            InvalidRequest::Networks(NetworksFault::Missing(_)) => ErrorKind::NotFound,
            // dockerd 28 answers these with 500, and clients that compare statuses have learnt so.
            InvalidRequest::VolumeSpec { .. }
            | InvalidRequest::VolumeSpecMount { .. }
            | InvalidRequest::VolumeMode { .. }
            | InvalidRequest::LinkEmpty
            | InvalidRequest::Link { .. }
            | InvalidRequest::SecurityOptionFormat { .. }
            | InvalidRequest::SecurityOption { .. }
            | InvalidRequest::StorageOption { .. }
            | InvalidRequest::StorageSize(_)
            | InvalidRequest::NoProjectQuota => ErrorKind::Internal,
            _ => ErrorKind::InvalidArgument,
        }
    }
}
