use expect_test::expect;

use super::*;

#[test]
fn counters_are_printed_as_runc_prints_them() {
    let mut stats = Stats::default();
    expect![[r#"{"cpu":{"usage":{"kernel":0,"user":0},"throttling":{}},"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},"memory":{"usage":{"limit":0,"failcnt":0},"swap":{"limit":0,"failcnt":0},"kernel":{"limit":0,"failcnt":0},"kernelTCP":{"limit":0,"failcnt":0}},"pids":{},"blkio":{},"hugetlb":{}}"#]]
    .assert_eq(&serde_json::to_string(&stats).unwrap());
    stats.blkio = version_2::blkio("253:16 rbytes=1 wbytes=2 rios=3 wios=0 dbytes=5\n8:0 rbytes=7\n9:0\n");
    stats.blkio.psi = version_2::pressure("some avg10=1.50 avg60=0.00 avg300=0.25 total=77\nfull avg10=0.10 total=5\n");
    expect![[r#"{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":7},{"major":253,"minor":16,"op":"Read","value":1},{"major":253,"minor":16,"op":"Write","value":2}],"ioServicedRecursive":[{"major":253,"minor":16,"op":"Read","value":3},{"major":253,"minor":16,"op":"Write"}],"psi":{"some":{"avg10":1.5,"avg60":0.0,"avg300":0.25,"total":77},"full":{"avg10":0.1,"avg60":0.0,"avg300":0.0,"total":5}}}"#]]
    .assert_eq(&serde_json::to_string(&stats.blkio).unwrap());
    assert_eq!(version_2::pressure(""), None);
}

#[test]
fn files_are_read_as_they_are_written() {
    assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
    assert_eq!(list("\n"), [] as [u16; 0]);
    assert_eq!(numbers("a 1\nb x\nc\nd 2\n").into_keys().collect::<String>(), "ad");
    for (directory, size) in [
        ("hugepages-2048kB", Some("2MB")),
        ("hugepages-1048576kB", Some("1GB")),
        ("hugepages-64kB", Some("64KB")),
        ("x", None),
    ] {
        assert_eq!(page_size(directory).as_deref(), size);
    }
    let entry = |op: &str| Some(BlkioEntry { major: 8, minor: 1, op: op.into(), value: 5 });
    assert_eq!((version_1::blkio_entry("8:1 Read 5"), version_1::blkio_entry("8:1 5")), (entry("Read"), entry("")));
    assert_eq!(version_1::blkio_entry("Total 5"), None);
}
