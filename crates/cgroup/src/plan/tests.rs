use super::*;
use oci::runtime::PidsLimit;

fn printed(resources: &Resources, version: Version) -> String {
    match plan(resources, version) {
        Ok(writes) => {
            writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect::<Vec<_>>().join(" ")
        }
        Err(err) => format!("error: {err}"),
    }
}

fn check(resources: &Resources, v1: &str, v2: &str) {
    assert_eq!(printed(resources, Version::V1), v1);
    assert_eq!(printed(resources, Version::V2), v2);
}

fn memory(memory: MemoryLimits) -> Resources {
    Resources { memory: Some(memory), ..Resources::default() }
}

fn cpu(cpu: CpuLimits) -> Resources {
    Resources { cpu: Some(cpu), ..Resources::default() }
}

#[test]
fn no_limit_writes_nothing() {
    check(&Resources::default(), "", "");
    check(&memory(MemoryLimits { limit: Some(0), swap: Some(0), ..Default::default() }), "", "");
    check(&cpu(CpuLimits { shares: Some(0), quota: Some(0), period: Some(0), ..Default::default() }), "", "");
}

#[test]
fn memory_and_swap() {
    check(
        &memory(MemoryLimits { limit: Some(300), swap: Some(500), reservation: Some(100), ..Default::default() }),
        "memory.limit_in_bytes=300 memory.memsw.limit_in_bytes=500 memory.soft_limit_in_bytes=100",
        "memory.max=300 memory.swap.max=200 memory.low=100",
    );
    check(
        &memory(MemoryLimits { limit: Some(300), swap: Some(-1), ..Default::default() }),
        "memory.limit_in_bytes=300 memory.memsw.limit_in_bytes=-1",
        "memory.max=300 memory.swap.max=max",
    );
    check(
        &memory(MemoryLimits { limit: Some(300), swap: Some(200), ..Default::default() }),
        "memory.limit_in_bytes=300 memory.memsw.limit_in_bytes=200",
        "error: limit of memory and swap together (200 bytes) is less than the memory limit (300 bytes)",
    );
    check(
        &memory(MemoryLimits { swap: Some(200), ..Default::default() }),
        "memory.memsw.limit_in_bytes=200",
        "error: a limit of memory and swap together (200 bytes) needs a memory limit",
    );
    check(
        &memory(MemoryLimits { disable_oom_killer: Some(true), ..Default::default() }),
        "memory.oom_control=1",
        "error: disabling the OOM killer does not exist with cgroup version 2",
    );
}

#[test]
fn processor_time() {
    check(
        &cpu(CpuLimits { shares: Some(1024), quota: Some(150_000), period: Some(100_000), ..Default::default() }),
        "cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000",
        "cpu.weight=100 cpu.max=150000 100000",
    );
    check(
        &cpu(CpuLimits { quota: Some(-1), cpus: "0-1".into(), mems: "0".into(), ..Default::default() }),
        "cpu.cfs_quota_us=-1 cpuset.cpus=0-1 cpuset.mems=0",
        "cpu.max=max 100000 cpuset.cpus=0-1 cpuset.mems=0",
    );
}

#[test]
fn number_of_tasks() {
    for (limit, value) in [(7, "pids.max=7"), (0, "pids.max=max"), (-1, "pids.max=max")] {
        check(&Resources { pids: Some(PidsLimit { limit }), ..Resources::default() }, value, value);
    }
}

#[test]
fn device_rules_are_files_of_version_1() {
    let rule = |allow, kind: &str, major, access: &str| DeviceRule {
        allow,
        kind: kind.into(),
        major,
        minor: Some(3),
        access: access.into(),
    };
    let zero = || rule(true, "c", Some(1), "rwm");
    let devices = vec![rule(false, "a", None, "rwm"), zero(), rule(true, "b", None, "m"), zero()];
    check(
        &Resources { devices, ..Resources::default() },
        "devices.deny=a devices.allow=c 1:3 rwm devices.allow=b *:3 m",
        "",
    );
    for (kind, access) in [("x", "r"), ("c", "rx"), ("c", "")] {
        let devices = vec![rule(true, kind, Some(1), access)];
        let resources = Resources { devices, ..Resources::default() };
        assert!(matches!(plan(&resources, Version::V1), Err(PlanError::DeviceRule { .. })), "{kind} {access}");
    }
}

#[test]
fn weights_of_shares() {
    // From the tests of opencontainers/cgroups.
    for (shares, weight) in [(2, 1), (1024, 100), (262_144, 10_000), (1, 1), (u64::MAX, 10_000)] {
        assert_eq!(cpu_weight(shares), weight, "{shares}");
    }
}
