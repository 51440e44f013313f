//! Which namespaces a container has of its own.

use engine_api::host_config::HostConfig;
use oci::runtime::{Namespace, NamespaceKind};

/// Where a parent cgroup is that a request names: below the root of every hierarchy, whatever it says.
pub fn cgroup_parent(named: &str) -> String {
    engine_api::paths::clean(&format!("/{named}"))
}

/// The new namespaces, in Docker's order.
pub fn namespaces(host: &HostConfig) -> Vec<Namespace> {
    let wanted = [
        (NamespaceKind::Mount, true),
        (NamespaceKind::Network, host.network_mode != "host"),
        (NamespaceKind::Uts, host.uts_mode != "host"),
        (NamespaceKind::Pid, host.pid_mode != "host"),
        (NamespaceKind::Ipc, host.ipc_mode != "host"),
        (NamespaceKind::Cgroup, host.cgroupns_mode == "private"),
    ];
    wanted.into_iter().filter(|(_, own)| *own).map(|(kind, _)| Namespace { kind, path: None }).collect()
}
