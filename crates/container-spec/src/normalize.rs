//! Docker's defaults, put where the request is silent, as `inspect` shows them.

use engine_api::host_config::HostConfig;

use crate::facts::{CgroupLayout, HostFacts};
use crate::mounts::{masked_paths, readonly_paths};

/// Completes `host`. Lists that are `null` stay so, because `inspect` shows what the client sent.
pub fn normalize_host(host: &mut HostConfig, facts: &HostFacts) {
    let defaults = [
        (&mut host.network_mode, "default"),
        (&mut host.ipc_mode, "private"),
        (&mut host.restart_policy.name, "no"),
        (&mut host.runtime, HostFacts::RUNTIME),
        (&mut host.log_config.kind, "json-file"),
    ];
    for (field, default) in defaults {
        if field.is_empty() {
            *field = default.to_owned();
        }
    }
    // Docker names the network that "default" stands for.
    if host.network_mode == "default" {
        host.network_mode = "bridge".to_owned();
    }
    if host.log_config.config.is_none() {
        host.log_config.config = Some(Default::default());
    }
    if host.cgroupns_mode.is_empty() {
        host.cgroupns_mode = match facts.cgroup {
            CgroupLayout::V1 => "host".to_owned(),
            CgroupLayout::V2 => "private".to_owned(),
        };
    }
    normalize_resources(host, facts);
    if host.privileged {
        // What Docker adds itself: a privileged container has no security label.
        let options = host.security_opt.get_or_insert_default();
        if !options.iter().any(|option| option == "label=disable") {
            options.push("label=disable".to_owned());
        }
    } else {
        host.masked_paths.get_or_insert_with(|| masked_paths(facts));
        host.readonly_paths.get_or_insert_with(readonly_paths);
    }
}

fn normalize_resources(host: &mut HostConfig, facts: &HostFacts) {
    if host.memory > 0 && host.memory_swap == 0 {
        // Docker lets a container swap as much as it may use of memory.
        host.memory_swap = host.memory.saturating_mul(2);
    }
    if host.memory > 0 && !facts.swap_limit {
        host.memory_swap = -1;
    }
    if host.memory_swappiness == Some(-1) || facts.cgroup == CgroupLayout::V2 {
        host.memory_swappiness = None;
    }
    if host.shm_size == 0 {
        host.shm_size = facts.default_shm_size_bytes;
    }
    host.oom_kill_disable = match facts.cgroup {
        CgroupLayout::V1 => Some(host.oom_kill_disable.unwrap_or(false)),
        CgroupLayout::V2 => None,
    };
}
