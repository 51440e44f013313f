//! Every limit that there is with either version, given and changed: block devices with a scheduler that weighs, marks on
//! packets, and an RDMA device, are what the virtual machine of `cargo xtask vm-test` has.

use std::fs;
use std::path::Path;
use std::process::Command;

use cgroup::{Hierarchies, Version};
use serde_json::{Value, json};

use super::fixture::Bundle;

/// A loop device, which has no file behind it: what it is limited to, and how it is weighed, is known all the same.
const DISK: &str = "/sys/block/loop5";

/// An RDMA device of software, above a network device that goes nowhere.
struct Rdma;

impl Rdma {
    const NAME: &str = "rxelimit";

    fn new() -> Rdma {
        for words in [
            &["modprobe", "-a", "dummy", "rdma_rxe"][..],
            &["ip", "link", "add", "dlimit", "type", "dummy"],
            &["ip", "link", "set", "dlimit", "up"],
            &["rdma", "link", "add", Rdma::NAME, "type", "rxe", "netdev", "dlimit"],
        ] {
            let program = if words[0] == "modprobe" { "/run/modprobe" } else { words[0] };
            let done = Command::new(program).args(&words[1..]).output().unwrap();
            assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Rdma
    }
}

impl Drop for Rdma {
    fn drop(&mut self) {
        let _ = Command::new("rdma").args(["link", "delete", Rdma::NAME]).status();
        let _ = Command::new("ip").args(["link", "delete", "dlimit"]).status();
    }
}

fn disk() -> (u64, u64) {
    fs::write(Path::new(DISK).join("queue/scheduler"), "bfq").unwrap();
    let numbers = fs::read_to_string(Path::new(DISK).join("dev")).unwrap();
    let (major, minor) = numbers.trim().split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

/// The limits, with numbers that `times` makes others.
fn resources(disk: (u64, u64), times: u64) -> Value {
    let device = |rate: u64| json!([{"major": disk.0, "minor": disk.1, "rate": rate * times}]);
    json!({
        "memory": {"limit": 67_108_864 * times, "swap": 100_663_296 * times, "reservation": 33_554_432 * times},
        "cpu": {"shares": 512 * times, "quota": 20_000 * times, "period": 100_000, "burst": 1000 * times, "cpus": "0", "mems": "0"},
        "pids": {"limit": 30 * times},
        "blockIO": {
            "weight": 200 * times,
            "weightDevice": [{"major": disk.0, "minor": disk.1, "weight": 300 * times}],
            "throttleReadBpsDevice": device(1_048_576),
            "throttleWriteBpsDevice": device(2_097_152),
            "throttleReadIOPSDevice": device(100),
            "throttleWriteIOPSDevice": device(200),
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152 * times}],
        "rdma": {Rdma::NAME: {"hcaHandles": 3 * times, "hcaObjects": 40 * times}},
        "unified": {"memory.high": (50_331_648 * times).to_string(), "cgroup.max.depth": (5 * times).to_string()},
    })
}

/// What only version 1 has, and what it has besides.
fn resources_of_version_1(disk: (u64, u64), times: u64) -> Value {
    let mut all = resources(disk, times);
    all.as_object_mut().unwrap().remove("unified");
    all["memory"]["swappiness"] = json!(10 * times);
    all["memory"]["disableOOMKiller"] = json!(times == 1);
    all["network"] = json!({"classID": 0x10_0000 + times, "priorities": [{"name": "lo", "priority": 3 * times}]});
    all
}

/// What the files should have then.
fn expected_of_version_1(disk: (u64, u64), times: u64) -> Vec<(&'static str, String)> {
    let (major, minor) = disk;
    let n = |number: u64| (number * times).to_string();
    let device = |number: u64| format!("{major}:{minor} {}", n(number));
    vec![
        ("memory.limit_in_bytes", n(67_108_864)),
        ("memory.memsw.limit_in_bytes", n(100_663_296)),
        ("memory.soft_limit_in_bytes", n(33_554_432)),
        ("memory.swappiness", n(10)),
        ("memory.oom_control", format!("oom_kill_disable {}\nunder_oom 0\noom_kill 0", u32::from(times == 1))),
        ("cpu.shares", n(512)),
        ("cpu.cfs_quota_us", n(20_000)),
        ("cpu.cfs_period_us", "100000".into()),
        ("cpu.cfs_burst_us", n(1000)),
        ("cpuset.cpus", "0".into()),
        ("cpuset.mems", "0".into()),
        ("pids.max", n(30)),
        ("blkio.bfq.weight", n(200)),
        ("blkio.bfq.weight_device", format!("default {}\n{}", n(200), device(300))),
        ("blkio.throttle.read_bps_device", device(1_048_576)),
        ("blkio.throttle.write_bps_device", device(2_097_152)),
        ("blkio.throttle.read_iops_device", device(100)),
        ("blkio.throttle.write_iops_device", device(200)),
        ("hugetlb.2MB.limit_in_bytes", n(2_097_152)),
        ("net_cls.classid", (0x10_0000 + times).to_string()),
        ("net_prio.ifpriomap", format!("lo {}", n(3))),
        ("rdma.max", format!("{} hca_handle={} hca_object={}", Rdma::NAME, n(3), n(40))),
    ]
}

#[test]
fn privileged_vm_every_limit_of_version_1_is_kept_and_changed() {
    assert_eq!(Hierarchies::detect().unwrap().version(), Version::V1, "run `cargo xtask vm-test`");
    let _rdma = Rdma::new();
    let disk = disk();
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["resources"] = resources_of_version_1(disk, 1);
    bundle.ok(&["run", "-d"]);
    let check = |expected: &[(&str, String)]| {
        let group = bundle.cgroup();
        for (file, value) in expected {
            let directory = group.directories.iter().map(|(_, directory)| directory.join(file));
            let path = directory.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no {file}"));
            let found = fs::read_to_string(path).unwrap();
            // Of the interfaces there may be more than were asked for.
            let found = if *file == "net_prio.ifpriomap" { found.lines().next().unwrap() } else { found.trim() };
            assert_eq!(found, value, "{file}");
        }
    };
    check(&expected_of_version_1(disk, 1));
    fs::write(bundle.path("r.json"), resources_of_version_1(disk, 2).to_string()).unwrap();
    bundle.ok(&["update", "-r", "r.json"]);
    check(&expected_of_version_1(disk, 2));
    bundle.ok(&["update", "--memory=96m", "--memory-swap=128m", "--pids-limit=-1", "--cpu-quota=-1", "--cpu-burst=0"]);
    check(&[
        ("memory.limit_in_bytes", "100663296".into()),
        ("memory.memsw.limit_in_bytes", "134217728".into()),
        ("pids.max", "max".into()),
        ("cpu.cfs_quota_us", "-1".into()),
    ]);
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

/// What the files should have then.
fn expected(disk: (u64, u64), times: u64) -> Vec<(&'static str, String)> {
    let (major, minor) = disk;
    let n = |number: u64| (number * times).to_string();
    vec![
        ("memory.max", n(67_108_864)),
        ("memory.swap.max", n(33_554_432)),
        ("memory.low", n(33_554_432)),
        ("memory.high", n(50_331_648)),
        ("cpu.weight", if times == 1 { "59".into() } else { "100".into() }),
        ("cpu.max", format!("{} 100000", n(20_000))),
        ("cpu.max.burst", n(1000)),
        ("cpuset.cpus", "0".into()),
        ("cpuset.mems", "0".into()),
        ("pids.max", n(30)),
        ("io.bfq.weight", format!("default {}\n{major}:{minor} {}", n(200), n(300))),
        (
            "io.max",
            format!("{major}:{minor} rbps={} wbps={} riops={} wiops={}", n(1_048_576), n(2_097_152), n(100), n(200)),
        ),
        ("hugetlb.2MB.max", n(2_097_152)),
        ("rdma.max", format!("{} hca_handle={} hca_object={}", Rdma::NAME, n(3), n(40))),
        ("cgroup.max.depth", n(5)),
    ]
}

#[test]
fn privileged_vm_every_limit_of_version_2_is_kept_and_changed() {
    assert_eq!(Hierarchies::detect().unwrap().version(), Version::V2, "run `cargo xtask vm-test`");
    let _rdma = Rdma::new();
    let disk = disk();
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["resources"] = resources(disk, 1);
    bundle.ok(&["run", "-d"]);
    let check = |expected: &[(&str, String)]| {
        let group = bundle.cgroup();
        let (_, directory) = group.directories.first().unwrap();
        for (file, value) in expected {
            assert_eq!(fs::read_to_string(directory.join(file)).unwrap().trim(), value, "{file}");
        }
    };
    check(&expected(disk, 1));
    fs::write(bundle.path("r.json"), resources(disk, 2).to_string()).unwrap();
    bundle.ok(&["update", "-r", "r.json"]);
    check(&expected(disk, 2));
    // The flags, for what they know.
    bundle.ok(&[
        "update",
        "--memory=96m",
        "--memory-swap=128m",
        "--memory-reservation=48m",
        "--pids-limit=-1",
        "--blkio-weight=500",
        "--cpu-quota=-1",
        "--cpu-burst=0",
        "--cpuset-cpus=0-1",
        "--cpuset-mems=0",
    ]);
    check(&[
        ("memory.max", "100663296".into()),
        ("memory.swap.max", "33554432".into()),
        ("memory.low", "50331648".into()),
        ("pids.max", "max".into()),
        ("io.bfq.weight", format!("default 500\n{}:{} 600", disk.0, disk.1)),
        ("cpu.max", "max 100000".into()),
        ("cpuset.cpus", "0-1".into()),
    ]);
    bundle.ok(&["update", "--cpu-idle=1"]);
    check(&[("cpu.idle", "1".into())]);
    bundle.ok(&["update", "--cpu-idle=0", "--cpu-share=1024"]);
    check(&[("cpu.idle", "0".into()), ("cpu.weight", "100".into())]);
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}
