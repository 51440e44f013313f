//! A machine for tests, like those that have no CAP_SYS_RESOURCE.

use crate::facts::{CgroupLayout, HostFacts, KernelVersion};
use oci::names::CAPABILITIES;

pub(crate) fn facts() -> HostFacts {
    let bounding = CAPABILITIES.iter().filter(|name| **name != "SYS_RESOURCE").map(|name| format!("CAP_{name}"));
    HostFacts {
        hostname: "dock".to_owned(),
        kernel: KernelVersion { major: 6, minor: 1 },
        cgroup: CgroupLayout::V1,
        bounding_capabilities: bounding.collect(),
        cpus: 2,
        cpuset_cpus: "0-1".to_owned(),
        cpuset_mems: "0".to_owned(),
        memory_bytes: 8 << 30,
        swap_limit: true,
        controls: Default::default(),
        seccomp: true,
        apparmor: false,
        selinux: false,
        network_sysctls: true,
        default_ulimits: Default::default(),
        default_shm_size_bytes: 64 << 20,
        default_init: false,
        no_new_privileges: false,
        thermal_throttle_cpus: Vec::new(),
        runtimes: vec!["crun".to_owned()],
        default_runtime: String::new(),
        size_limits: false,
        devices: Vec::new(),
    }
}
