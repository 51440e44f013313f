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
        (&mut host.log_config.kind, "json-file"),
    ];
    for (field, default) in defaults {
        if field.is_empty() {
            *field = default.to_owned();
        }
    }
    // What is kept names what runs it, whatever daemon.json says one day.
    if let Some(runtime) = facts.runtime(&host.runtime).map(str::to_owned) {
        host.runtime = runtime;
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
    if host.privileged || host.pid_mode == "host" || host.ipc_mode == "host" {
        // What Docker adds itself: who shares that much with the host has no security label.
        let options = host.security_opt.get_or_insert_default();
        if !options.iter().any(|option| option.starts_with("label=")) {
            options.push("label=disable".to_owned());
        }
    }
    if !host.privileged {
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
    // What is discarded with a warning; below zero dockerd does not look at it.
    host.cpu_percent = host.cpu_percent.min(0);
    crate::block_io::normalize(host, facts);
    // Docker shows "no limit" as none.
    host.pids_limit = host.pids_limit.filter(|limit| *limit > 0);
    if host.shm_size == 0 {
        host.shm_size = facts.default_shm_size_bytes;
    }
    host.oom_kill_disable = match facts.cgroup {
        CgroupLayout::V1 => Some(host.oom_kill_disable.unwrap_or(false)),
        CgroupLayout::V2 => None,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::facts;

    /// What dockerd 28.5.2 shows of `POST /containers/create {"Image":"busybox"}`, but for the runtime's name.
    const PLAIN: &str = r#"{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"json-file","Config":{}},"NetworkMode":"bridge","PortBindings":null,"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[0,0],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"host","Dns":null,"DnsOptions":null,"DnsSearch":null,"ExtraHosts":null,"GroupAdd":null,"IpcMode":"private","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":67108864,"Runtime":"longshore","Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":null,"BlkioDeviceReadBps":null,"BlkioDeviceWriteBps":null,"BlkioDeviceReadIOps":null,"BlkioDeviceWriteIOps":null,"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":null,"DeviceCgroupRules":null,"DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":null,"OomKillDisable":false,"PidsLimit":null,"Ulimits":null,"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":["/proc/asound","/proc/acpi","/proc/interrupts","/proc/kcore","/proc/keys","/proc/latency_stats","/proc/timer_list","/proc/timer_stats","/proc/sched_debug","/proc/scsi","/sys/firmware","/sys/devices/virtual/powercap"],"ReadonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]}"#;

    #[test]
    fn an_empty_request_is_completed_as_dockerd_does() {
        let mut host = HostConfig::default();
        normalize_host(&mut host, &facts());
        assert_eq!(serde_json::to_string(&host).unwrap(), PLAIN);
        let again = host.clone();
        normalize_host(&mut host, &facts());
        assert_eq!(host, again);
    }

    #[test]
    fn limits_are_completed_as_dockerd_does() {
        let mut host = HostConfig {
            memory: 10,
            memory_swappiness: Some(-1),
            pids_limit: Some(-1),
            privileged: true,
            ..HostConfig::default()
        };
        normalize_host(&mut host, &facts());
        assert_eq!((host.memory_swap, host.memory_swappiness, host.pids_limit), (20, None, None));
        assert_eq!((host.masked_paths, host.readonly_paths), (None, None));
        assert_eq!(host.security_opt, Some(vec!["label=disable".to_owned()]));
        let mut host = HostConfig { memory: 10, oom_kill_disable: Some(true), ..HostConfig::default() };
        normalize_host(&mut host, &HostFacts { cgroup: CgroupLayout::V2, swap_limit: false, ..facts() });
        assert_eq!((host.memory_swap, host.oom_kill_disable, host.cgroupns_mode.as_str()), (-1, None, "private"));
    }
}
