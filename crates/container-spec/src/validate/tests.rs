use super::*;
use crate::facts::CgroupLayout;
use crate::testing::facts;
use errdefs::ErrorKind;

fn judged(request: &str) -> Result<Vec<Warning>, InvalidRequest> {
    let request: engine_api::container::CreateRequest = engine_api::json::decode(request.as_bytes()).unwrap();
    let host = request.host_config.unwrap_or_default();
    validate(&request.config, &host, request.networking_config.as_ref(), &facts())
}

/// A host configuration and the sentence that refuses it, both as seen with dockerd 28.5.2.
#[test]
fn host_configurations_are_refused_in_dockers_words() {
    for (host, message) in [
        (r#""VolumesFrom":[""]"#, "volumes-from specification cannot be an empty string"),
        (r#""VolumesFrom":["a:copy"]"#, "invalid mode: copy"),
        (r#""SecurityOpt":["foo"]"#, r#"invalid --security-opt 1: "foo""#),
        (r#""Binds":["a:b:c:d"]"#, "invalid volume specification: 'a:b:c:d'"),
        (r#""Binds":["/a:/b:q"]"#, "invalid mode: q"),
        (r#""Binds":["/tmp:/b","/tmp:/b"]"#, "Duplicate mount point: /b"),
        (r#""Binds":["/tmp:/b"],"Tmpfs":{"/b":""}"#, "Duplicate mount point: /b"),
        (r#""Binds":["/tmp:/b"],"Mounts":[{"Type":"tmpfs","Target":"/b"}]"#, "Duplicate mount point: /b"),
        (r#""Tmpfs":{"b":""}"#, "invalid mount path: 'b' mount path must be absolute"),
        (r#""Mounts":[{"Type":"foo","Target":"/b"}]"#, r#"invalid mount config for type "foo": mount type unknown"#),
        (
            r#""Mounts":[{"Type":"bind","Target":"/b"}]"#,
            r#"invalid mount config for type "bind": field Source must not be empty"#,
        ),
        (
            r#""Mounts":[{"Type":"tmpfs","Source":"/a","Target":"/b"}]"#,
            r#"invalid mount config for type "tmpfs": field Source must not be specified"#,
        ),
        (r#""LogConfig":{"Type":"json-file","Config":{"foo":"1"}}"#, "unknown log opt 'foo' for json-file log driver"),
        (r#""LogConfig":{"Type":"foo"}"#, "error looking up logging plugin foo: plugin \"foo\" not found"),
        (r#""Runtime":"foo""#, "unknown or invalid runtime name: foo"),
        (r#""CapAdd":["foo"]"#, r#"invalid CapAdd: unknown capability: "CAP_FOO""#),
        (r#""Privileged":true,"CapAdd":["foo"]"#, r#"invalid CapAdd: unknown capability: "CAP_FOO""#),
        (
            r#""CpuRealtimePeriod":1000,"CpuRealtimeRuntime":2000"#,
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ),
        (r#""CpusetMems":"9999999""#, "Invalid value 9999999 for cpuset mems: value of out range, maximum is 8192"),
        (r#""IOMaximumIOps":5"#, "invalid option: QoS maximum IOPs configuration is not supported on linux"),
        (r#""IOMaximumBandwidth":5"#, "invalid option: QoS maximum bandwidth configuration is not supported on linux"),
        (
            r#""RestartPolicy":{"MaximumRetryCount":1}"#,
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            r#""Mounts":[{"Type":"cluster","Target":"/b"}]"#,
            r#"invalid mount config for type "cluster": mount type unknown"#,
        ),
        (r#""NanoCpus":90000000000"#, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        (r#""CpusetCpus":"0-7""#, "Requested CPUs are not available - requested 0-7, available: 0-1"),
        (r#""CpusetCpus":"x""#, "Invalid value x for cpuset cpus: invalid format: x"),
        (r#""CpuShares":-1"#, "invalid CPU shares (-1): value must be a positive integer"),
        (r#""NanoCpus":1,"CpuPeriod":1000"#, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
        (r#""CpuQuota":999"#, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (r#""ExtraHosts":["x"]"#, r#"bad format for add-host: "x""#),
        (r#""ExtraHosts":["x:y"]"#, r#"invalid IP address in add-host: "y""#),
        (r#""DeviceCgroupRules":["x"]"#, "invalid device cgroup rule format: 'x'"),
        (r#""IpcMode":"q""#, "invalid IPC mode: q"),
        (r#""PidMode":"q""#, "invalid PID mode: q"),
        (r#""UTSMode":"q""#, "invalid UTS mode: q"),
        (r#""CgroupnsMode":"q""#, "invalid cgroup namespace mode: q"),
        (r#""Memory":100"#, "Minimum memory limit allowed is 6MB"),
        (r#""MemorySwap":10000000"#, "You should always set the Memory limit when using Memoryswap limit, see usage"),
        (
            r#""Memory":10000000,"MemorySwap":9000000"#,
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (r#""MemorySwappiness":101"#, "Invalid value: 101, valid memory swappiness range is 0-100"),
        (r#""ShmSize":-1"#, "SHM size can not be less than 0"),
        (r#""OomScoreAdj":1001"#, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        (
            r#""RestartPolicy":{"Name":"always"},"AutoRemove":true"#,
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            r#""RestartPolicy":{"Name":"x"}"#,
            "invalid restart policy: unknown policy 'x'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            r#""RestartPolicy":{"Name":"always","MaximumRetryCount":1}"#,
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            r#""Sysctls":{"net.ipv4.ip_forward":"1"},"NetworkMode":"host""#,
            r#"sysctl "net.ipv4.ip_forward" not allowed in host network namespace"#,
        ),
        (
            r#""Sysctls":{"kernel.shmmax":"1"},"IpcMode":"host""#,
            r#"sysctl "kernel.shmmax" is not allowed in the hosts ipc namespace"#,
        ),
        (
            r#""Sysctls":{"kernel.domainname":"x"},"UTSMode":"host""#,
            r#"sysctl "kernel.domainname" is not in a separate kernel namespace"#,
        ),
        (r#""Sysctls":{"kernel.panic":"1"}"#, r#"sysctl "kernel.panic" is not in a separate kernel namespace"#),
        (
            r#""Sysctls":{"net/../kernel/panic":"1"}"#,
            r#"sysctl "net/../kernel/panic" is not in a separate kernel namespace"#,
        ),
        (r#""Ulimits":[{"Name":"foo"}]"#, "invalid ulimit type: foo"),
    ] {
        let message_of = judged(&format!(r#"{{"Image":"a","HostConfig":{{{host}}}}}"#)).map_err(|err| err.to_string());
        assert_eq!(message_of, Err(message.to_owned()), "{host}");
    }
}

#[test]
fn configurations_are_refused_in_dockers_words() {
    for (config, message) in [
        (r#""Env":["=x"]"#, "invalid environment variable: =x"),
        (r#""StopSignal":"FOO""#, "invalid signal: FOO"),
        (r#""WorkingDir":"x""#, "the working directory 'x' is invalid, it needs to be an absolute path"),
        (r#""Hostname":"h","HostConfig":{"UTSMode":"host"}"#, "conflicting options: hostname and the UTS mode"),
        (r#""Cmd":["a\u0000b"]"#, "invalid request: a value contains a NUL byte"),
    ] {
        let message_of = judged(&format!(r#"{{"Image":"a",{config}}}"#)).map_err(|err| err.to_string());
        assert_eq!(message_of, Err(message.to_owned()), "{config}");
    }
}

#[test]
fn what_is_not_offered_is_refused_by_name() {
    let refused = judged(r#"{"Image":"a","HostConfig":{"Cgroup":"x"}}"#).unwrap_err();
    assert_eq!(refused, InvalidRequest::NotOffered { option: "HostConfig.Cgroup" });
    assert_eq!(refused.kind(), ErrorKind::NotImplemented);
}

/// What docker 28's command line sends for `docker run busybox`, and a request with nothing in it.
#[test]
fn defaults_are_accepted() {
    let sent = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,
        "Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":["true"],"Image":"busybox","Volumes":{},
        "WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},"Healthcheck":{"Test":["NONE"]},
        "HostConfig":{"Binds":null,"ContainerIDFile":"",
        "LogConfig":{"Type":"","Config":{}},"NetworkMode":"default","PortBindings":{},"RestartPolicy":{"Name":"no",
        "MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[24,80],"CapAdd":null,
        "CapDrop":null,"CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,
        "IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,
        "ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":0,"Isolation":"","CpuShares":0,
        "Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],
        "BlkioDeviceWriteBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,
        "CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,
        "DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,
        "PidsLimit":0,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,
        "MaskedPaths":null,"ReadonlyPaths":null},"NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null,
        "Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"",
        "Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,
        "DNSNames":null}}}}"#;
    assert_eq!(judged(sent), Ok(vec![]));
    assert_eq!(judged(r#"{"Image":"busybox"}"#), Ok(vec![]));
    let runc = r#"{"Image":"busybox","HostConfig":{"NetworkMode":"none","Runtime":"runc"}}"#;
    assert_eq!(judged(runc), Ok(vec![]));
    assert_eq!(judged(r#"{"Image":"busybox","HostConfig":{"NetworkMode":"none"}}"#), Ok(vec![]));
}

#[test]
fn what_the_kernel_cannot_limit_is_said() {
    let host = HostConfig {
        memory: 64 << 20,
        memory_swappiness: Some(5),
        oom_kill_disable: Some(true),
        network_mode: "none".to_owned(),
        ..HostConfig::default()
    };
    let facts = HostFacts { cgroup: CgroupLayout::V2, swap_limit: false, ..facts() };
    let warnings = validate(&Config::default(), &host, None, &facts).unwrap();
    assert_eq!(warnings, [Warning::NoSwapLimit, Warning::NoSwappiness, Warning::NoOomKillDisable]);
}

#[test]
fn a_missing_bind_source_is_refused_in_dockers_words() {
    assert_eq!(
        missing_bind_source(Path::new("/nosuch")).to_string(),
        r#"invalid mount config for type "bind": bind source path does not exist: /nosuch"#
    );
}

#[test]
fn networks_that_do_not_go_together_are_never_taken_silently() {
    let told = |endpoints: &str| {
        let host = r#"{"NetworkMode":"none"}"#;
        let networking = format!(r#"{{"EndpointsConfig":{endpoints}}}"#);
        let request = format!(r#"{{"Image":"a","HostConfig":{host},"NetworkingConfig":{networking}}}"#);
        judged(&request).map_err(|err| err.to_string())
    };
    assert_eq!(told(r#"{"none":{}}"#), Ok(vec![]));
    let sentence = "failed to set up container networking: container cannot be connected to multiple networks with one of \
         the networks in private (none) mode";
    assert_eq!(told(r#"{"none":{},"bridge":{}}"#), Err(sentence.to_owned()));
    let sentence = "failed to set up container networking: HostConfig.NetworkMode must match the identity of a network in \
         NetworkSettings.Networks";
    assert_eq!(told(r#"{"bridge":{}}"#), Err(sentence.to_owned()));
    let sentence = "failed to set up container networking: container cannot be connected to multiple networks with one of \
         the networks in private (none) mode";
    assert_eq!(told(r#"{"none":{},"mine":{}}"#), Err(sentence.to_owned()));
}
