use std::path::PathBuf;

use super::*;
use crate::facts::{Hierarchy, Version};
use oci::runtime::*;

fn hosts(version: Version) -> Hierarchies {
    match version {
        Version::V1 => Hierarchies {
            v1: vec![Hierarchy { controllers: Controller::ALL.to_vec(), mount: PathBuf::from("/v1") }],
            ..Default::default()
        },
        Version::V2 => Hierarchies { unified: Some("/v2".into()), ..Default::default() },
    }
}

fn printed(resources: &Resources, hierarchies: &Hierarchies) -> String {
    let one = |write: &Write| {
        let again = if write.again { "~" } else { "" };
        let absent = match &write.absent {
            Absent::Fail => String::new(),
            Absent::Skip => "?".into(),
            Absent::Instead { file, value } => format!("|{file}={value}"),
        };
        format!("{}={}{again}{absent}", write.file, write.value)
    };
    match plan(resources, hierarchies) {
        Ok(writes) => writes.iter().map(one).collect::<Vec<_>>().join(" "),
        Err(err) => format!("error: {err}"),
    }
}

/// `~` is tried again, `?` may be absent, `|` is written instead.
fn check(resources: &Resources, v1: &str, v2: &str) {
    assert_eq!(printed(resources, &hosts(Version::V1)), v1);
    assert_eq!(printed(resources, &hosts(Version::V2)), v2);
}

fn read(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

#[test]
fn no_limit_writes_nothing() {
    for json in [
        r#"{}"#,
        r#"{"memory": {"limit": 0, "swap": 0, "reservation": 0, "useHierarchy": true, "checkBeforeUpdate": true}}"#,
        r#"{"memory": {"kernel": 1, "kernelTCP": 1, "swappiness": 18446744073709551615, "disableOOMKiller": false}}"#,
        r#"{"cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": ""}}"#,
        r#"{"blockIO": {"weight": 0, "leafWeight": 0}, "pids": {}, "network": {"classID": 0}, "rdma": {"mlx5_1": {}}}"#,
    ] {
        check(&read(json), "", "");
    }
}

#[test]
fn times_that_no_kernel_takes_are_named_with_what_it_takes() {
    for (json, text) in [
        (r#"{"period": 999}"#, "period: 999 is not between 1000 and 1000000 microseconds"),
        (r#"{"period": 1000001}"#, "period: 1000001 is not between 1000 and 1000000 microseconds"),
        (r#"{"quota": 999}"#, "quota: 999 is not -1, for no limit, or 1000 microseconds and more"),
        (
            r#"{"quota": 2000, "burst": 2001}"#,
            "burst: 2001 microseconds are more than linux.resources.cpu.quota (2000)",
        ),
    ] {
        let text = format!("error: linux.resources.cpu.{text}");
        check(&read(&format!(r#"{{"cpu": {json}}}"#)), &text, &text);
    }
    for (json, text) in [
        (r#"{"cpus": " "}"#, "linux.resources.cpu.cpus: \" \" is not a list, as 0-3,7"),
        (r#"{"cpus": "0", "mems": "\n,"}"#, "linux.resources.cpu.mems: \"\\n,\" is not a list, as 0-3,7"),
    ] {
        let text = format!("error: {text}");
        check(&read(&format!(r#"{{"cpu": {json}}}"#)), &text, &text);
    }
    check(&read(r#"{"cpu": {"quota": -5}}"#), "cpu.cfs_quota_us=-5~", "cpu.max=max 100000~");
}

#[test]
fn memory_and_swap() {
    let below = "error: linux.resources.memory.swap: 200 bytes of memory and swap together are less than \
                 linux.resources.memory.limit (300 bytes)";
    for (json, v1, v2) in [
        (
            r#"{"limit": 300, "swap": 500, "reservation": 100}"#,
            "memory.limit_in_bytes=300~ memory.memsw.limit_in_bytes=500 memory.soft_limit_in_bytes=100",
            "memory.max=300 memory.swap.max=200 memory.low=100",
        ),
        (
            r#"{"limit": 300, "swap": -1}"#,
            "memory.limit_in_bytes=300~ memory.memsw.limit_in_bytes=-1?",
            "memory.max=300 memory.swap.max=max?",
        ),
        (
            r#"{"limit": 300, "swap": 300}"#,
            "memory.limit_in_bytes=300~ memory.memsw.limit_in_bytes=300",
            "memory.max=300 memory.swap.max=0?",
        ),
        (
            r#"{"limit": -1}"#,
            "memory.limit_in_bytes=-1~ memory.memsw.limit_in_bytes=-1?",
            "memory.max=max memory.swap.max=max?",
        ),
        (
            r#"{"limit": -1, "swap": 100}"#,
            "memory.limit_in_bytes=-1~ memory.memsw.limit_in_bytes=100",
            "memory.max=max memory.swap.max=100",
        ),
        (r#"{"limit": 300, "swap": 200}"#, below, below),
        (
            r#"{"swap": 200}"#,
            "memory.memsw.limit_in_bytes=200",
            "error: linux.resources.memory.swap: 200 bytes of memory and swap together need linux.resources.memory.limit",
        ),
        (
            r#"{"disableOOMKiller": true}"#,
            "memory.oom_control=1",
            "error: linux.resources.memory.disableOOMKiller: does not exist with cgroup version 2",
        ),
        (
            r#"{"swappiness": 100}"#,
            "memory.swappiness=100",
            "error: linux.resources.memory.swappiness: does not exist with cgroup version 2",
        ),
    ] {
        check(&read(&format!(r#"{{"memory": {json}}}"#)), v1, v2);
    }
    for (json, text) in [
        (r#"{"limit": -5}"#, "linux.resources.memory.limit: -5 is not -1, for no limit, or a size"),
        (r#"{"reservation": -2}"#, "linux.resources.memory.reservation: -2 is not -1, for no limit, or a size"),
        (r#"{"swappiness": 101}"#, "linux.resources.memory.swappiness: 101 is not between 0 and 100"),
    ] {
        let found = printed(&read(&format!(r#"{{"memory": {json}}}"#)), &hosts(Version::V1));
        assert_eq!(found, format!("error: {text}"));
    }
}

#[test]
fn processor_time() {
    for (json, v1, v2) in [
        (
            r#"{"shares": 1024, "quota": 150000, "period": 100000}"#,
            "cpu.shares=1024~ cpu.cfs_period_us=100000~ cpu.cfs_quota_us=150000~",
            "cpu.weight=100~ cpu.max=150000 100000~",
        ),
        (
            r#"{"quota": -1, "cpus": "0-1", "mems": "0"}"#,
            "cpu.cfs_quota_us=-1~ cpuset.cpus=0-1 cpuset.mems=0",
            "cpu.max=max 100000~ cpuset.cpus=0-1 cpuset.mems=0",
        ),
        (
            r#"{"period": 50000, "burst": 0, "idle": 0}"#,
            "cpu.cfs_period_us=50000~ cpu.cfs_burst_us=0~ cpu.idle=0",
            "cpu.idle=0 cpu.max.burst=0~ cpu.max=max 50000~",
        ),
        (r#"{"burst": 1000, "idle": 1}"#, "cpu.cfs_burst_us=1000~ cpu.idle=1", "cpu.idle=1 cpu.max.burst=1000~"),
        (
            r#"{"realtimeRuntime": 5, "realtimePeriod": 10}"#,
            "cpu.rt_period_us=10~ cpu.rt_runtime_us=5",
            "error: linux.resources.cpu.realtimeRuntime: does not exist with cgroup version 2",
        ),
        (r#"{"shares": 1}"#, "error: linux.resources.cpu.shares: 1 is not between 2 and 262144", "cpu.weight=1~"),
    ] {
        check(&read(&format!(r#"{{"cpu": {json}}}"#)), v1, v2);
    }
}

#[test]
fn number_of_tasks() {
    for (limit, value) in [
        (7, "pids.max=7"),
        (0, "pids.max=1"),
        (-1, "pids.max=max"),
        (-5, "error: linux.resources.pids.limit: -5 is not -1, for no limit, or a number of tasks"),
    ] {
        check(&Resources { pids: Some(PidsLimit { limit: Some(limit) }), ..Resources::default() }, value, value);
    }
}

#[test]
fn block_devices() {
    for (json, v1, v2) in [
        (r#"{"weight": 1000}"#, "blkio.weight=1000|blkio.bfq.weight=1000", "io.bfq.weight=1000|io.weight=10000"),
        (
            r#"{"weightDevice": [{"major": 8, "minor": 0, "weight": 10}, {"major": 8, "minor": 16}]}"#,
            "blkio.weight_device=8:0 10|blkio.bfq.weight_device=8:0 10",
            "io.bfq.weight=8:0 10|io.weight=8:0 1",
        ),
        (
            r#"{"leafWeight": 10}"#,
            "blkio.leaf_weight=10",
            "error: linux.resources.blockIO.leafWeight: does not exist with cgroup version 2",
        ),
        (
            r#"{"weightDevice": [{"major": 8, "leafWeight": 20}]}"#,
            "blkio.leaf_weight_device=8:0 20",
            "error: linux.resources.blockIO.weightDevice[0].leafWeight: does not exist with cgroup version 2",
        ),
        (
            r#"{"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 7}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 2, "rate": 0}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 3, "rate": 9}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 4, "rate": 18446744073709551615}]}"#,
            "blkio.throttle.read_bps_device=8:1 7 blkio.throttle.write_bps_device=8:2 0 \
             blkio.throttle.read_iops_device=8:3 9 blkio.throttle.write_iops_device=8:4 18446744073709551615",
            "io.max=8:1 rbps=7 io.max=8:2 wbps=max io.max=8:3 riops=9 io.max=8:4 wiops=18446744073709551615",
        ),
    ] {
        check(&read(&format!(r#"{{"blockIO": {json}}}"#)), v1, v2);
    }
    for (json, text) in [
        (r#"{"weight": 9}"#, "linux.resources.blockIO.weight: 9 is not between 10 and 1000"),
        (r#"{"leafWeight": 1001}"#, "linux.resources.blockIO.leafWeight: 1001 is not between 10 and 1000"),
        (
            r#"{"weightDevice": [{"weight": 10}, {"weight": 9}]}"#,
            "linux.resources.blockIO.weightDevice[1].weight: 9 is not between 10 and 1000",
        ),
        (
            r#"{"weightDevice": [{"minor": 4294967296}]}"#,
            "linux.resources.blockIO.weightDevice[0].minor: 4294967296 is not the number of a device",
        ),
        (
            r#"{"throttleReadIOPSDevice": [{"major": -1, "minor": 0, "rate": 1}]}"#,
            "linux.resources.blockIO.throttleReadIOPSDevice[0].major: -1 is not the number of a device",
        ),
    ] {
        let text = format!("error: {text}");
        check(&read(&format!(r#"{{"blockIO": {json}}}"#)), &text, &text);
    }
    assert_eq!([10, 100, 500, 1000].map(io::io_weight), [1, 910, 4950, 10_000]);
}

#[test]
fn huge_pages_of_a_hybrid_are_version_2s() {
    let resources = read(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}"#);
    let v2 = "hugetlb.2MB.max=0 hugetlb.2MB.rsvd.max=0?";
    check(&resources, "hugetlb.2MB.limit_in_bytes=0 hugetlb.2MB.rsvd.limit_in_bytes=0?", v2);
    let mut hybrid =
        Hierarchies::parse("35 31 0:32 / /m rw - cgroup cgroup rw,memory\n36 31 0:33 / /u rw - cgroup2 x rw\n");
    hybrid.unified_controllers = vec![Controller::Hugetlb];
    assert_eq!(printed(&resources, &hybrid), v2);
    for size in ["", "2M", "2mb", "../x", "02MB", "-2MB", "MB", "2MB.x"] {
        let resources = Resources {
            hugepage_limits: vec![HugepageLimit { page_size: size.into(), limit: 1 }],
            ..Resources::default()
        };
        let text =
            format!("error: linux.resources.hugepageLimits[0].pageSize: {size:?} is not a size of pages, as 2MB");
        check(&resources, &text, &text);
    }
}

#[test]
fn marks_of_packets_and_remote_memory() {
    check(
        &read(r#"{"network": {"classID": 1048577, "priorities": [{"name": "lo", "priority": 7}]}}"#),
        "net_cls.classid=1048577 net_prio.ifpriomap=lo 7",
        "error: linux.resources.network.classID: does not exist with cgroup version 2",
    );
    check(
        &read(r#"{"network": {"priorities": [{"name": "a b", "priority": 7}]}}"#),
        "error: linux.resources.network.priorities[0].name: \"a b\" is not a name",
        "error: linux.resources.network.priorities[0].name: \"a b\" is not a name",
    );
    let rdma = "rdma.max=mlx5_1 hca_handle=3 hca_object=10000 rdma.max=mlx5_2 hca_object=0";
    check(
        &read(r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx5_2": {"hcaObjects": 0}}}"#),
        rdma,
        rdma,
    );
}

#[test]
fn files_of_version_2() {
    let only = |file: &str| format!("error: linux.resources.unified[{file:?}]: does not exist with cgroup version 1");
    let unknown = |file: &str| {
        format!("error: linux.resources.unified[{file:?}]: is not a file of a controller that is available")
    };
    for (json, v2) in [
        (
            r#"{"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 wbps=2\n", "cgroup.max.depth": "3"}"#,
            "cgroup.max.depth=3 io.max=8:0 rbps=1 io.max=8:16 wbps=2 memory.high=1000".to_owned(),
        ),
        (r#"{"../memory.high": "1"}"#, unknown("../memory.high")),
        (r#"{"memory.x/y": "1"}"#, unknown("memory.x/y")),
        (r#"{"nosuch.max": "1"}"#, unknown("nosuch.max")),
        (r#"{"memory": "1"}"#, unknown("memory")),
        (r#"{"..": "1"}"#, unknown("..")),
    ] {
        // The first in the order of their names.
        let resources = read(&format!(r#"{{"unified": {json}}}"#));
        let first = resources.unified.keys().next().map(|file| only(file));
        check(&resources, &first.unwrap(), &v2);
    }
    // The more precise word comes after the other.
    check(&read(r#"{"unified": {"pids.max": "7"}, "pids": {"limit": 8}}"#), &only("pids.max"), "pids.max=8 pids.max=7");
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
    let devices = vec![rule(false, "a", None, "rwm"), zero(), rule(true, "b", Some(-1), "m"), zero()];
    check(
        &Resources { devices, ..Resources::default() },
        "devices.deny=a devices.allow=c 1:3 rwm devices.allow=b *:3 m",
        "",
    );
    let number = "is not -1, for all, or the number of a device";
    for (kind, major, access, text) in [
        ("x", 1, "r", "type: \"x\" is not a type of devices: must be one of a, b, c"),
        ("c", 1, "rx", "access: \"rx\" is not an access: must be some of r, w, m"),
        ("c", 1, "", "access: \"\" is not an access: must be some of r, w, m"),
        ("c", 1 << 32, "r", &format!("major: 4294967296 {number}")),
        ("b", -2, "r", &format!("major: -2 {number}")),
    ] {
        let devices = vec![zero(), rule(true, kind, Some(major), access)];
        let text = format!("error: linux.resources.devices[1].{text}");
        check(&Resources { devices, ..Resources::default() }, &text, &text);
    }
}

#[test]
fn weights_of_shares() {
    // From the tests of opencontainers/cgroups.
    for (shares, weight) in [(2, 1), (1024, 100), (262_144, 10_000), (1, 1), (u64::MAX, 10_000)] {
        assert_eq!(cpu_weight(shares), weight, "{shares}");
    }
}
