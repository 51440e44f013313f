//! What is known of the machine, gathered once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use container_spec::{BlockIoControls, CgroupLayout, Controls, HostFacts, KernelVersion};
use oci::runtime::Device;
use rustix::thread::{CapabilitySet, capability_is_in_bounding_set};

use crate::config::EngineConfig;

/// Size of /dev/shm where nobody says otherwise: dockerd's `DefaultShmSize`.
pub(crate) const SHM_SIZE_BYTES: i64 = 64 << 20;

/// Looks at the machine. Blocks briefly; a fact that cannot be found is taken for the poorer one.
pub fn gather(config: &EngineConfig, hierarchies: &cgroup::Hierarchies, size_limits: bool) -> HostFacts {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let bounding = bounding_capabilities();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    HostFacts {
        hostname: uname.nodename().to_string_lossy().into_owned(),
        kernel: KernelVersion::parse(&release).unwrap_or(KernelVersion { major: 5, minor: 15 }),
        cgroup: match hierarchies.version() {
            cgroup::Version::V1 => CgroupLayout::V1,
            cgroup::Version::V2 => CgroupLayout::V2,
        },
        bounding_capabilities: bounding,
        cpus: u32::try_from(cpus).unwrap_or(1),
        cpuset_cpus: read_line("/sys/devices/system/cpu/online"),
        cpuset_mems: Some(read_line("/sys/devices/system/node/online")).filter(|s| !s.is_empty()).unwrap_or("0".into()),
        memory_bytes: memory_bytes(),
        swap_limit: swap_limit(hierarchies),
        controls: controls(hierarchies),
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        apparmor: read_line("/sys/module/apparmor/parameters/enabled") == "Y",
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        network_sysctls: Path::new("/proc/sys/net/ipv4/ping_group_range").exists()
            && Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start").exists(),
        default_ulimits: default_ulimits(config),
        default_shm_size_bytes: SHM_SIZE_BYTES,
        default_init: config.default_init,
        no_new_privileges: config.no_new_privileges,
        thermal_throttle_cpus: thermal_throttle_cpus(),
        runtimes: config.runtimes.keys().cloned().collect(),
        default_runtime: config.default_runtime.clone().unwrap_or_default(),
        size_limits,
        devices: devices(Path::new("/dev")).unwrap_or_default(),
    }
}

fn default_ulimits(config: &EngineConfig) -> BTreeMap<String, (i64, i64)> {
    config.default_ulimits.iter().map(|limit| (limit.name.clone(), (limit.soft, limit.hard))).collect()
}

fn bounding_capabilities() -> Vec<String> {
    let known = CapabilitySet::all().iter_names();
    known
        .filter(|(_, one)| capability_is_in_bounding_set(*one).unwrap_or(false))
        .map(|(name, _)| name_of(name))
        .collect()
}

/// rustix names them `CHOWN`, the rest of the world `CAP_CHOWN`.
fn name_of(name: &str) -> String {
    if name.starts_with("CAP_") { name.to_owned() } else { format!("CAP_{name}") }
}

fn read_line(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

fn swap_limit(hierarchies: &cgroup::Hierarchies) -> bool {
    match hierarchies.v1_mount(cgroup::Controller::Memory) {
        Some(mount) => mount.join("memory.memsw.limit_in_bytes").exists(),
        // The root cgroup of v2 has no limits to look at; the kernel has them if it has swap accounting at all.
        None => Path::new("/proc/swaps").exists(),
    }
}

/// What dockerd looks for, in the same files (moby pkg/sysinfo).
fn controls(hierarchies: &cgroup::Hierarchies) -> Controls {
    use cgroup::Controller;
    if hierarchies.version() == cgroup::Version::V2 {
        let has = |controller| hierarchies.unified_controllers.contains(&controller);
        return Controls {
            memory: has(Controller::Memory),
            cpu_shares: has(Controller::Cpu),
            cpu_quota: has(Controller::Cpu),
            cpuset: has(Controller::Cpuset),
            pids: has(Controller::Pids),
            block_io: block_io_v2(has(Controller::Blkio)),
            ..Controls::default()
        };
    }
    let has = |controller, file: &str| hierarchies.v1_mount(controller).is_some_and(|mount| mount.join(file).exists());
    Controls {
        memory: has(Controller::Memory, "memory.limit_in_bytes"),
        kernel_memory_tcp: has(Controller::Memory, "memory.kmem.tcp.limit_in_bytes"),
        oom_kill_disable: has(Controller::Memory, "memory.oom_control"),
        cpu_shares: has(Controller::Cpu, "cpu.shares"),
        cpu_quota: has(Controller::Cpu, "cpu.cfs_quota_us"),
        cpuset: has(Controller::Cpuset, "cpuset.cpus"),
        // The root has no limit of its own.
        pids: has(Controller::Pids, ""),
        block_io: BlockIoControls {
            weight: has(Controller::Blkio, "blkio.weight"),
            weight_device: has(Controller::Blkio, "blkio.weight_device"),
            read_bps: has(Controller::Blkio, "blkio.throttle.read_bps_device"),
            write_bps: has(Controller::Blkio, "blkio.throttle.write_bps_device"),
            read_iops: has(Controller::Blkio, "blkio.throttle.read_iops_device"),
            write_iops: has(Controller::Blkio, "blkio.throttle.write_iops_device"),
        },
    }
}

/// Version 2 has all of it in one controller.
fn block_io_v2(has: bool) -> BlockIoControls {
    BlockIoControls { weight: has, weight_device: has, read_bps: has, write_bps: has, read_iops: has, write_iops: has }
}

fn thermal_throttle_cpus() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu") else { return Vec::new() };
    let mut cpus: Vec<u32> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("thermal_throttle").exists())
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok())
        .collect();
    cpus.sort_unstable();
    cpus
}

/// Device nodes below `dir`, as dockerd gives them to privileged containers: not those of terminals and of mounts in /dev.
fn devices(dir: &Path) -> io::Result<Vec<Device>> {
    use std::os::unix::fs::FileTypeExt;
    const NOT_BELOW: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        let kind = metadata.file_type();
        let name = entry.file_name();
        if kind.is_dir() && !NOT_BELOW.iter().any(|skipped| name == *skipped) {
            found.extend(devices(&entry.path()).unwrap_or_default());
        } else if name != "console" && (kind.is_char_device() || kind.is_block_device()) {
            found.extend(crate::devices::node(entry.path(), &metadata));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
