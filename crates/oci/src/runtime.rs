//! `config.json`: what a container is made of (runtime-spec v1.3 config.md and config-linux.md).
//!
//! Written by `container-spec` and by other engines, applied by `oci-runtime`. Fields that nothing here can honour are absent
//! (`linux.intelRdt`, those of other platforms): `longshore-runtime` refuses them by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

mod execution;
mod resources;

pub use execution::{
    CpuAffinity, IoPriority, IoPriorityClass, MemoryPolicy, MemoryPolicyFlag, MemoryPolicyMode, NetDevice, Personality,
    PersonalityDomain, Scheduler, SchedulerFlag, SchedulerPolicy, TimeOffset, TimeOffsets,
};
pub use resources::*;

/// The version of the specification whose every field is known here.
pub const VERSION: &str = "1.3.0";

/// The whole contract.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Version of the specification, `1.3.0`.
    pub oci_version: String,
    /// The container's first process.
    pub process: Process,
    /// The root file system.
    pub root: Root,
    /// The host name in the container's UTS namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// The NIS domain name in the container's UTS namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// What is mounted, in order.
    pub mounts: Vec<Mount>,
    /// Programs that are run at points of the container's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Free-form metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The Linux part.
    pub linux: Linux,
}

/// Programs that are run at points of the container's life (runtime-spec config.md, "POSIX-platform Hooks").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// As `create_runtime`, and before them; deprecated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// Once the environment is made, before the root is changed; in the runtime's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// After these; in the container's namespaces, with the runtime's paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// Before the program is executed; in the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// After the program was executed; in the runtime's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// After the container was deleted; in the runtime's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// All of them with the specification's names, in the order in which they run.
    pub fn by_name(&self) -> [(&'static str, &[Hook]); 6] {
        [
            ("prestart", &self.prestart),
            ("createRuntime", &self.create_runtime),
            ("createContainer", &self.create_container),
            ("startContainer", &self.start_container),
            ("poststart", &self.poststart),
            ("poststop", &self.poststop),
        ]
    }
}

/// One program, which gets the container's [`State`] on its standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// With the name as the first; only the path if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `NAME=VALUE`; its whole environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds until it is killed; more than 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// What hooks, and those who ask, are told of a container (runtime-spec runtime.md, "State").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Version of the specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// `creating`, `created`, `running`, `paused` or `stopped`.
    pub status: String,
    /// The first process; absent, or 0, if there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: i32,
    /// The bundle's directory; absolute.
    pub bundle: PathBuf,
    /// The specification's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A process of a container: the first one, or one added by exec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// The terminal's first size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Who it runs as.
    pub user: User,
    /// The command; `args[0]` is looked up in `PATH` of `env` if it has no slash.
    pub args: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Where it starts; absolute.
    pub cwd: String,
    /// The five capability sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    /// prctl(PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// /proc/PID/oom_score_adj.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// The AppArmor profile.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub apparmor_profile: String,
    /// The SELinux label.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selinux_label: String,
    /// Scheduling policy and priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// I/O priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// Processors of processes that are added later.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u64,
    /// Columns.
    pub width: u64,
}

/// Who a process runs as, in the container's ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
    /// File mode creation mask; absent for 0022.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
}

/// The five capability sets, by name (`CAP_CHOWN`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// What execve can ever give.
    pub bounding: Vec<String>,
    /// What counts.
    pub effective: Vec<String>,
    /// What stays over an execve of a file with inheritable capabilities.
    pub inheritable: Vec<String>,
    /// What may become effective.
    pub permitted: Vec<String>,
    /// What stays over an execve of any file.
    pub ambient: Vec<String>,
}

/// One resource limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// `u64::MAX` is no limit.
    pub hard: u64,
    /// `u64::MAX` is no limit.
    pub soft: u64,
}

/// The root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Its directory. Empty where [`Root::mounts`] make it.
    pub path: PathBuf,
    /// Whether it is made read-only.
    pub readonly: bool,
    /// Ours: how the root is mounted, made detached by whoever creates the container, so that nothing appears in the
    /// host's mount table. The last one is the root. External runtimes get `path` instead.
    #[serde(rename = "longshoreMounts", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
}

/// A mount: the currency between stores, which make it, and `oci-runtime`, which applies it.
///
/// `options` are mount(8)'s words plus file-system data. An overlay's layers may be given as several `lowerdir+=DIR`
/// options, uppermost first, since one `fsconfig` string ends at 255 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Absolute path in the container; empty for a root mount.
    pub destination: PathBuf,
    /// File system type; `bind` or empty for a bind mount.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// A path on the host for bind mounts, else a label.
    #[serde(skip_serializing_if = "path_is_empty")]
    pub source: PathBuf,
    /// mount(8)'s words and the file system's own options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Users of an id-mapped mount; the container's own mappings where the options say `idmap` and there are none.
    #[serde(rename = "uidMappings", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Groups of an id-mapped mount.
    #[serde(rename = "gidMappings", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
    /// Ours: what is bound of the source, a relative path that is resolved without leaving it.
    #[serde(rename = "longshoreSubpath", skip_serializing_if = "Option::is_none")]
    pub subpath: Option<PathBuf>,
    /// Ours: the source is a descriptor of whoever makes the container, `/proc/self/fd/N`, of a detached mount that is
    /// attached as it is.
    #[serde(rename = "longshorePrepared", skip_serializing_if = "std::ops::Not::not")]
    pub prepared: bool,
}

/// The Linux part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// New namespaces, or existing ones to join.
    pub namespaces: Vec<Namespace>,
    /// Users of a new user namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Groups of a new user namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
    /// Device nodes beside the default ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Absolute path below each cgroup hierarchy's root.
    pub cgroups_path: String,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Propagation of the root mount: `private`, `rprivate`, `slave`, `rslave`, `shared`, `rshared`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rootfs_propagation: String,
    /// The system-call filter as a profile, for external runtimes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<serde_json::Value>,
    /// Ours: the file that holds the same filter compiled, which our shim loads as it is (an array of
    /// `struct sock_filter` in host byte order).
    #[serde(rename = "longshoreSeccompProgram", skip_serializing_if = "Option::is_none")]
    pub seccomp_program: Option<PathBuf>,
    /// Ours: whether `/etc/mtab` shall lead to the container's mounts where the root has none (as dockerd's init layer).
    #[serde(rename = "longshoreMountTable", skip_serializing_if = "std::ops::Not::not")]
    pub mount_table: bool,
    /// Kernel parameters of the container's namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// Paths hidden from the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masked_paths: Vec<String>,
    /// Paths made read-only for the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub readonly_paths: Vec<String>,
    /// The SELinux label of what is mounted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mount_label: String,
    /// What is added to the clocks of the new time namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub time_offsets: TimeOffsets,
    /// Network devices of the host that move into the container, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// The execution domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
    /// Where memory comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
}

/// A range of ids in a user namespace, and what they are outside (user_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdMapping {
    /// The first id inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// The first id outside: in the runtime's user namespace.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// A namespace that is made new, or joined when it has a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Which.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// The existing one to join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// The eight namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Process ids.
    Pid,
    /// Network devices, addresses, ports.
    Network,
    /// Mounts.
    Mount,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// User and group ids.
    User,
    /// The view of the cgroup tree.
    Cgroup,
    /// Clock offsets.
    Time,
}

impl NamespaceKind {
    /// Its file below `/proc/PID/ns` (namespaces(7)).
    pub fn file_name(self) -> &'static str {
        match self {
            NamespaceKind::Network => "net",
            NamespaceKind::Mount => "mnt",
            other => other.word(),
        }
    }

    /// As the specification writes it.
    pub fn word(self) -> &'static str {
        match self {
            NamespaceKind::Pid => "pid",
            NamespaceKind::Network => "network",
            NamespaceKind::Mount => "mount",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Uts => "uts",
            NamespaceKind::User => "user",
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Time => "time",
        }
    }
}

/// A device node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `c`, `b`, `u` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where in the container.
    pub path: PathBuf,
    /// Major number.
    #[serde(default)]
    pub major: u32,
    /// Minor number.
    #[serde(default)]
    pub minor: u32,
    /// Permission bits; absent for 0666.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Owner.
    #[serde(default)]
    pub uid: u32,
    /// Group.
    #[serde(default)]
    pub gid: u32,
    /// Ours: the owner is the container's user, whoever that is when its name has been looked up.
    #[serde(rename = "longshoreUserOwns", default, skip_serializing_if = "std::ops::Not::not")]
    pub user_owns: bool,
    /// Ours: and the group is the user's.
    #[serde(rename = "longshoreGroupOwns", default, skip_serializing_if = "std::ops::Not::not")]
    pub group_owns: bool,
}

impl Device {
    /// Gives it to the container's user, as far as it is to be theirs.
    pub fn give(&mut self, uid: u32, gid: u32) {
        if std::mem::take(&mut self.user_owns) {
            self.uid = uid;
        }
        if std::mem::take(&mut self.group_owns) {
            self.gid = gid;
        }
    }
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

fn path_is_empty(path: &std::path::Path) -> bool {
    path.as_os_str().is_empty()
}
