use expect_test::{Expect, expect};

use super::*;
use crate::arguments::{UPDATE, parse};

fn said_of(line: &str) -> Result<Resources, String> {
    let flags = parse(&UPDATE, line.split(' ').map(str::to_owned), true).map_err(|err| err.to_string())?;
    said(&flags).map_err(|err| errdefs::chain(&err))
}

fn json(resources: &Resources) -> String {
    serde_json::to_string(resources).unwrap()
}

#[test]
fn flags_are_limits() {
    let check = |line: &str, expected: Expect| {
        expected.assert_eq(&said_of(line).map_or_else(|err| format!("error: {err}"), |resources| json(&resources)));
    };
    check("x", expect!["{}"]);
    check(
        "--memory 64m --memory-swap=-1 --memory-reservation 1.5k --kernel-memory 1 --kernel-memory-tcp 2 x",
        expect![[r#"{"memory":{"limit":67108864,"reservation":1536,"swap":-1,"kernel":1,"kernelTCP":2}}"#]],
    );
    check(
        "--cpu-share 5 --cpu-quota -1 --cpu-burst 0 --cpu-period 7 --cpu-rt-runtime 1 --cpu-rt-period 2 --cpu-idle 1 x",
        expect![[
            r#"{"cpu":{"shares":5,"quota":-1,"burst":0,"period":7,"realtimeRuntime":1,"realtimePeriod":2,"idle":1}}"#
        ]],
    );
    check(
        "--cpuset-cpus 0-1 --cpuset-mems 0 --blkio-weight 500 --pids-limit 0 x",
        expect![[r#"{"cpu":{"cpus":"0-1","mems":"0"},"pids":{"limit":0},"blockIO":{"weight":500}}"#]],
    );
    check(
        "--memory x y",
        expect![[
            r#"error: invalid value "x" for flag -memory, which takes bytes as 1048576, 512k, 64m or 1.5g, or -1 for no limit"#
        ]],
    );
    check(
        "--cpu-share -1 y",
        expect![[r#"error: invalid value "-1" for flag -cpu-share, which takes a number from 2 to 262144"#]],
    );
    check("--l3-cache-schema L3:0=f y", expect!["error: Intel RDT: L3 cache schema is not enabled"]);
}

#[test]
fn sizes_are_read_as_dockers() {
    for (text, bytes) in [
        ("-1", Some(-1)),
        ("0", Some(0)),
        ("5", Some(5)),
        ("5b", Some(5)),
        ("1k", Some(1024)),
        ("1KB", Some(1024)),
        ("1KiB", Some(1024)),
        ("1.5 M", Some(1_572_864)),
        ("2T", Some(2 << 40)),
        ("8589934591g", Some(8_589_934_591 << 30)),
        ("8589934592g", None),
        ("99999999999.5p", None),
        ("-2", None),
        ("m", None),
        ("1ib", None),
        ("1x", None),
        ("", None),
        ("1e3", None),
    ] {
        assert_eq!(parse_size(text), bytes, "{text}");
    }
}

#[test]
fn a_change_leaves_the_rest_as_it_was() {
    let read = |text: &str| serde_json::from_str::<Resources>(text).unwrap();
    let old = read(
        r#"{"memory": {"limit": 100, "swap": 200, "reservation": 5}, "pids": {"limit": 7},
            "cpu": {"shares": 9, "quota": 1000, "period": 5000, "burst": 3, "cpus": "0"},
            "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]},
            "unified": {"memory.high": "1", "cpu.weight": "2"}}"#,
    );
    let check = |change: &str, merged: Expect, applied: Expect| {
        let change = read(change);
        let all = merge(&old, &change);
        let show = |resources: &Resources| json(resources).replace("},\"", "},\n\"");
        merged.assert_eq(&show(&all));
        applied.assert_eq(&show(&to_apply(&all, &change)));
    };
    check(
        r#"{"memory": {"limit": -1}, "cpu": {"quota": 2000}, "unified": {"memory.high": "7"}}"#,
        expect![[r#"
            {"memory":{"limit":-1,"reservation":5},
            "cpu":{"shares":9,"quota":2000,"burst":3,"period":5000,"cpus":"0"},
            "pids":{"limit":7},
            "blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]},
            "unified":{"cpu.weight":"2","memory.high":"7"}}"#]],
        expect![[r#"
            {"memory":{"limit":-1,"reservation":5},
            "cpu":{"quota":2000,"burst":3,"period":5000},
            "unified":{"memory.high":"7"}}"#]],
    );
    check(
        r#"{"cpu": {"idle": 1}, "pids": {"limit": 0}, "blockIO": {"throttleReadBpsDevice": [
            {"major": 8, "minor": 0, "rate": 2}, {"major": 8, "minor": 16, "rate": 3}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4}], "rdma": {"a": {"hcaHandles": 1}}}"#,
        expect![[r#"
            {"memory":{"limit":100,"reservation":5,"swap":200},
            "cpu":{"quota":1000,"burst":3,"period":5000,"cpus":"0","idle":1},
            "pids":{"limit":0},
            "blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":2},{"major":8,"minor":16,"rate":3}]},
            "hugepageLimits":[{"pageSize":"2MB","limit":4}],"rdma":{"a":{"hcaHandles":1}},
            "unified":{"cpu.weight":"2","memory.high":"1"}}"#]],
        expect![[r#"
            {"cpu":{"idle":1},
            "pids":{"limit":0},
            "blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":2},{"major":8,"minor":16,"rate":3}]},
            "hugepageLimits":[{"pageSize":"2MB","limit":4}],"rdma":{"a":{"hcaHandles":1}}}"#]],
    );
}
