use super::*;
use crate::testing::facts;
use crate::{merge_image, normalize_host, validate};
use engine_api::host_config::Ulimit;
use oci::image::ExecConfig;

const ID: &str = "edd95cf7a9a22f061b8fc06e632a65556774a3b4d13ca3eb8c61f1e147fc45f0";

/// A request as the engine treats it, from the check to the plan.
fn planned(request: &str, facts: &HostFacts) -> Planned {
    planned_with(request, facts, false)
}

fn planned_with(request: &str, facts: &HostFacts, flat_read_only: bool) -> Planned {
    let request: engine_api::container::CreateRequest = engine_api::json::decode(request.as_bytes()).unwrap();
    let (mut config, mut host) = (request.config, request.host_config.unwrap_or_default());
    validate(&config, &host, request.networking_config.as_ref(), facts).unwrap();
    merge_image(&mut config, &ExecConfig { cmd: Some(vec!["sh".to_owned()]), ..ExecConfig::default() }).unwrap();
    normalize_host(&mut host, facts);
    if config.hostname.is_empty() {
        config.hostname = ID[..12].to_owned();
    }
    let id: ContainerId = ID.parse().unwrap();
    let points = crate::plan_points(&config, &host, &[], &mut || "fresh".to_owned()).unwrap();
    let points: Vec<Point> = points.into_iter().map(|(point, _)| point).collect();
    let placement = Placement {
        id: &id,
        root_mounts: &[],
        points: &points,
        hostname_path: Path::new("/c/hostname"),
        hosts_path: Path::new("/c/hosts"),
        resolv_conf_path: Path::new("/c/resolv.conf"),
        init_path: Some(Path::new("/usr/bin/docker-init")),
        cgroup_parent: "/longshore-0123abcd",
        seccomp_program: None,
        devices: &HostDevices::default(),
        flat_read_only,
    };
    plan(&config, &host, facts, &placement).unwrap()
}

fn mount_lines(spec: &Spec) -> String {
    let line = |mount: &Mount| {
        let options = mount.options.join(",");
        format!("{} {} {} {options}\n", mount.destination.display(), mount.kind, mount.source.display())
    };
    spec.mounts.iter().map(line).collect()
}

#[test]
fn the_plain_container_is_dockerds() {
    let planned = planned(r#"{"Image":"busybox","HostConfig":{"NetworkMode":"none"}}"#, &facts());
    let spec = &planned.spec;
    expect_test::expect![[r#"
        /proc proc proc nosuid,noexec,nodev
        /dev tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k
        /dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5
        /sys sysfs sysfs nosuid,noexec,nodev,ro
        /sys/fs/cgroup cgroup cgroup ro,nosuid,noexec,nodev
        /dev/mqueue mqueue mqueue nosuid,noexec,nodev
        /dev/shm tmpfs shm nosuid,noexec,nodev,mode=1777,size=67108864
        /etc/resolv.conf bind /c/resolv.conf rbind,rprivate
        /etc/hostname bind /c/hostname rbind,rprivate
        /etc/hosts bind /c/hosts rbind,rprivate
    "#]]
    .assert_eq(&mount_lines(spec));
    expect_test::expect![[r#"{"terminal":false,"user":{"uid":0,"gid":0},"args":["sh"],"env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","HOSTNAME=edd95cf7a9a2"],"cwd":"/","noNewPrivileges":false,"oomScoreAdj":0}"#]]
    .assert_eq(&serde_json::to_string(&Process { capabilities: None, ..spec.process.clone() }).unwrap());
    expect_test::expect![[r#"{"namespaces":[{"type":"mount"},{"type":"network"},{"type":"uts"},{"type":"pid"},{"type":"ipc"}],"cgroupsPath":"/longshore-0123abcd/edd95cf7a9a22f061b8fc06e632a65556774a3b4d13ca3eb8c61f1e147fc45f0","resources":{"devices":[{"allow":false,"type":"a","access":"rwm"},{"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":9,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":8,"access":"rwm"},{"allow":true,"type":"c","major":5,"minor":0,"access":"rwm"},{"allow":true,"type":"c","major":5,"minor":1,"access":"rwm"},{"allow":false,"type":"c","major":10,"minor":229,"access":"rwm"}],"memory":{"disableOOMKiller":false}},"sysctl":{"net.ipv4.ip_unprivileged_port_start":"0","net.ipv4.ping_group_range":"0 2147483647"},"maskedPaths":["/proc/asound","/proc/acpi","/proc/interrupts","/proc/kcore","/proc/keys","/proc/latency_stats","/proc/timer_list","/proc/timer_stats","/proc/sched_debug","/proc/scsi","/sys/firmware","/sys/devices/virtual/powercap"],"readonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]}"#]]
    .assert_eq(&serde_json::to_string(&Linux { mount_table: false, ..spec.linux.clone() }).unwrap());
    assert!(spec.linux.mount_table, "dockerd's init layer has it");
    assert_eq!(planned.user, None);
}

/// The flags of the oracle's run: `--network none --read-only --init --tmpfs /x:size=1m --tmpfs /y --mount
/// type=tmpfs,target=/z,tmpfs-size=1048576,tmpfs-mode=0700 -v /tmp:/mnt:ro -v /tmp:/a/b --memory 64m --cpus 0.5
/// --pids-limit 10 --ulimit nofile=100:200 -e A=1 -e PATH=/q -w /tmp -h foo --domainname bar -u 1000 --group-add 5
/// --security-opt no-new-privileges --cap-drop ALL --oom-score-adj 5 --sysctl net.core.somaxconn=900 --ipc none`.
const MANY: &str = r#"{"Image":"busybox","Hostname":"foo","Domainname":"bar","User":"1000","Env":["A=1","PATH=/q"],
    "Cmd":["/bin/sleep","60"],"WorkingDir":"/tmp","HostConfig":{"NetworkMode":"none","ReadonlyRootfs":true,"Init":true,
    "Tmpfs":{"/x":"size=1m","/y":""},"Mounts":[{"Type":"tmpfs","Target":"/z","TmpfsOptions":{"SizeBytes":1048576,
    "Mode":448}}],"Binds":["/tmp:/mnt:ro","/tmp:/a/b"],"Memory":67108864,"NanoCpus":500000000,"PidsLimit":10,
    "Ulimits":[{"Name":"nofile","Hard":200,"Soft":100}],"GroupAdd":["5"],"SecurityOpt":["no-new-privileges"],
    "CapDrop":["ALL"],"OomScoreAdj":5,"Sysctls":{"net.core.somaxconn":"900"},"IpcMode":"none","ShmSize":1048576}}"#;

#[test]
fn many_options_together_are_dockerds() {
    let planned = planned(MANY, &facts());
    let spec = &planned.spec;
    expect_test::expect![[r#"
        /proc proc proc nosuid,noexec,nodev
        /dev tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k
        /dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5
        /sys sysfs sysfs nosuid,noexec,nodev,ro
        /sys/fs/cgroup cgroup cgroup ro,nosuid,noexec,nodev
        /dev/mqueue mqueue mqueue nosuid,noexec,nodev
        /sbin/docker-init bind /usr/bin/docker-init bind,ro
        /x tmpfs tmpfs noexec,nosuid,nodev,rprivate,size=1m
        /y tmpfs tmpfs noexec,nosuid,nodev,rprivate
        /z tmpfs tmpfs noexec,nosuid,nodev,rprivate,mode=700,size=1m
        /mnt bind /tmp rbind,rro,rprivate
        /a/b bind /tmp rbind,rprivate
        /etc/resolv.conf bind /c/resolv.conf rbind,rro,rprivate
        /etc/hostname bind /c/hostname rbind,rro,rprivate
        /etc/hosts bind /c/hosts rbind,rro,rprivate
    "#]]
    .assert_eq(&mount_lines(spec));
    expect_test::expect![[r#"{"terminal":false,"user":{"uid":0,"gid":0},"args":["/sbin/docker-init","--","/bin/sleep","60"],"env":["PATH=/q","HOSTNAME=foo","A=1"],"cwd":"/tmp","capabilities":{"bounding":[],"effective":[],"inheritable":[],"permitted":[],"ambient":[]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":200,"soft":100}],"noNewPrivileges":true,"oomScoreAdj":5}"#]]
    .assert_eq(&serde_json::to_string(&spec.process).unwrap());
    let resources = Resources { devices: Vec::new(), ..spec.linux.resources.clone().unwrap() };
    expect_test::expect![[r#"{"memory":{"limit":67108864,"swap":134217728,"disableOOMKiller":false},"cpu":{"quota":50000,"period":100000},"pids":{"limit":10}}"#]]
    .assert_eq(&serde_json::to_string(&resources).unwrap());
    assert_eq!((spec.hostname.as_str(), spec.domainname.as_str(), spec.root.readonly), ("foo", "bar", true));
    assert_eq!((planned.user.as_deref(), planned.groups), (Some("1000"), vec!["5".to_owned()]));
    assert_eq!(spec.linux.sysctl["net.core.somaxconn"], "900");
}

#[test]
fn a_privileged_container_on_the_host_network_is_dockerds() {
    let request = r#"{"Image":"busybox","Tty":true,"Hostname":"dock",
        "HostConfig":{"Privileged":true,"NetworkMode":"host","ConsoleSize":[24,80]}}"#;
    let spec = planned(request, &facts()).spec;
    let options = |path: &str| {
        let mount = spec.mounts.iter().find(|mount| mount.destination.as_os_str() == path).unwrap();
        mount.options.join(",")
    };
    assert_eq!(options("/sys"), "nosuid,noexec,nodev");
    assert_eq!(options("/sys/fs/cgroup"), "nosuid,noexec,nodev");
    assert_eq!((spec.linux.masked_paths.len(), spec.linux.readonly_paths.len(), spec.linux.sysctl.len()), (0, 0, 0));
    let kinds: Vec<_> = spec.linux.namespaces.iter().map(|namespace| namespace.kind).collect();
    use oci::runtime::NamespaceKind::{Ipc, Mount, Pid, Uts};
    assert_eq!(kinds, [Mount, Uts, Pid, Ipc]);
    assert_eq!(spec.process.env[2], "TERM=xterm");
    assert_eq!(spec.process.console_size, Some(ConsoleSize { height: 24, width: 80 }));
}

#[test]
fn a_terminals_size_has_16_bits() {
    for (size, wanted) in [
        ([24, 80], Some((24, 80))),
        ([70_000, 65_535], Some((4464, 65_535))),
        ([u64::MAX, 1], Some((65_535, 1))),
        ([65_536, 80], None),
        ([24, 0], None),
    ] {
        assert_eq!(console_size(size), wanted.map(|(height, width)| ConsoleSize { height, width }), "{size:?}");
    }
}

#[test]
fn a_mount_of_the_users_replaces_ours() {
    let paths = |host: &str| {
        let request = format!(r#"{{"Image":"busybox","HostConfig":{{"NetworkMode":"none",{host}}}}}"#);
        let spec = planned(&request, &facts()).spec;
        spec.mounts.iter().map(|mount| mount.destination.display().to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        paths(r#""Binds":["/dev:/dev"]"#),
        "/proc /sys /sys/fs/cgroup /dev /etc/resolv.conf /etc/hostname /etc/hosts"
    );
    assert_eq!(
        paths(r#""Binds":["/h:/etc/hosts"],"Tmpfs":{"/dev/shm":""},"PidMode":"host","Init":true"#),
        "/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /dev/shm /etc/hosts /etc/resolv.conf /etc/hostname"
    );
    assert!(paths(r#""IpcMode":"host""#).contains("/dev/mqueue /dev/shm /etc/resolv.conf"));
}

#[test]
fn read_only_is_recursive_where_the_kernel_can() {
    let request = r#"{"Image":"a","HostConfig":{"NetworkMode":"none","Binds":["/t:/m:ro"],"Mounts":[
        {"Type":"bind","Source":"/t","Target":"/n","ReadOnly":true,"BindOptions":{"NonRecursive":true,
        "ReadOnlyNonRecursive":true}}]}}"#;
    let options = |kernel| {
        let facts = HostFacts { kernel, ..facts() };
        let spec = planned(request, &facts).spec;
        let binds = spec.mounts.iter().filter(|mount| mount.source.as_os_str() == "/t");
        binds.map(|mount| mount.options.join(",")).collect::<Vec<_>>().join(" ")
    };
    use crate::facts::KernelVersion;
    assert_eq!(options(KernelVersion { major: 5, minor: 12 }), "rbind,rro,rprivate bind,ro,rprivate");
    assert_eq!(options(KernelVersion { major: 5, minor: 11 }), "rbind,ro,rprivate bind,ro,rprivate");
    let old = planned_with(request, &facts(), true).spec;
    let bind = old.mounts.iter().find(|mount| mount.destination.as_os_str() == "/m").unwrap();
    assert_eq!(bind.options.join(","), "rbind,ro,rprivate");
}

#[test]
fn the_users_environment_wins() {
    let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    let merged = |own: &[&str]| override_env(list(&["PATH=/bin", "HOSTNAME=h"]), &list(own)).join(" ");
    assert_eq!(merged(&[]), "PATH=/bin HOSTNAME=h");
    assert_eq!(merged(&["HOSTNAME=x", "A=1", "A=2"]), "PATH=/bin HOSTNAME=x A=1 A=2");
    assert_eq!(merged(&["PATH", "B"]), "HOSTNAME=h");
}

#[test]
fn an_exec_is_a_process_of_its_container() {
    let config = Config { env: Some(vec!["A=1".to_owned()]), working_dir: "/w".to_owned(), ..Config::default() };
    let host = HostConfig {
        ulimits: Some(vec![Ulimit { name: "nofile".to_owned(), soft: 1, hard: -1 }]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        ..HostConfig::default()
    };
    let mut exec = ExecCreate { cmd: Some(vec!["true".to_owned()]), tty: true, ..ExecCreate::default() };
    exec.env = Some(vec!["A=2".to_owned()]);
    let process = plan_exec(&config, &host, &exec, &facts()).unwrap();
    assert_eq!((process.cwd.as_str(), process.terminal, process.no_new_privileges), ("/w", true, true));
    assert_eq!(process.env[1..], ["HOSTNAME=", "TERM=xterm", "A=2"]);
    assert_eq!((process.rlimits[0].soft, process.rlimits[0].hard), (1, u64::MAX));
    assert_eq!(process.capabilities.unwrap().bounding.len(), 14);
    exec.privileged = true;
    let privileged = plan_exec(&config, &host, &exec, &facts()).unwrap();
    assert_eq!(privileged.capabilities.unwrap().bounding, facts().bounding_capabilities);
    exec.cmd = Some(Vec::new());
    assert_eq!(plan_exec(&config, &host, &exec, &facts()).unwrap_err().to_string(), "No exec command specified");
    assert_eq!(exec_user(&Config { user: "u".to_owned(), ..config }, &exec), Some("u".to_owned()));
}
