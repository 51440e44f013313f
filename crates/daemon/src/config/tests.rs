use super::*;
use crate::flags::{Invocation, parse};

fn planned(flags: &[&str]) -> Result<Config, String> {
    let Ok(Invocation::Run(given)) = parse(flags.iter().map(|&flag| flag.to_owned())) else { panic!("{flags:?}") };
    plan(&given).map_err(|err| errdefs::chain(&err))
}

#[test]
fn defaults_are_the_system_paths() {
    let config = planned(&[]).unwrap();
    assert_eq!(config.hosts, [Host::Unix("/run/longshore.sock".into())]);
    assert_eq!(config.data_root, Path::new("/var/lib/longshore"));
    assert_eq!(config.exec_root, Path::new("/run/longshore"));
    assert_eq!((config.level, config.idle_timeout, config.on_demand), (Level::INFO, None, false));
    assert_eq!(config.log.kind, "json-file");
}

#[test]
fn settings_reach_their_places() {
    let config = planned(&[
        "-D",
        "--on-demand",
        "--idle-timeout=3",
        "--ready-fd=1",
        "--default-shm-size=16m",
        "--log-opt=max-size=1m",
        "--label=a=b",
        "-G",
        "wheel",
        "--init",
    ])
    .unwrap();
    assert_eq!((config.level, config.changeable.debug, config.init), (Level::DEBUG, true, true));
    assert_eq!((config.idle_timeout, config.ready_fd), (Some(Duration::from_secs(3)), Some(1)));
    assert_eq!(config.changeable.shm_size_bytes, Some(16 << 20));
    assert_eq!(config.group.as_deref(), Some("wheel"));
    assert_eq!(config.log.config.unwrap()["max-size"], "1m");
    assert_eq!(config.changeable.labels, ["a=b"]);
}

#[test]
fn what_changes_nothing_is_accepted() {
    for flags in [
        &["--storage-driver=overlay2"][..],
        &["-s", "overlay2"],
        &["--bridge=none"],
        &["-b", ""],
        &["--iptables=true", "--ip6tables"],
        &["--iptables=false", "--ip6tables=false", "--bridge=none"],
        &["--live-restore"],
        &["--tls=false", "-H", "tcp://127.0.0.1:0"],
        &["--exec-opt", "native.cgroupdriver=cgroupfs"],
        &["--raw-logs"],
        &["--containerd=/run/containerd.sock"],
        &["--feature=cdi", "--feature=containerd-snapshotter=false"],
        &["--metrics-addr=127.0.0.1:9323", "--log-format=json"],
        // Only this machine can connect there.
        &["-H", "tcp://127.0.0.1:0"],
        &["-H", "tcp://localhost:0"],
        &["-H", "tcp://[::1]:0"],
        &["-H", "tcp://0.0.0.0:0", "--tlsverify=false"],
    ] {
        assert!(planned(flags).is_ok(), "{flags:?}: {:?}", planned(flags));
    }
}

#[test]
fn the_bridge_is_what_the_settings_say() {
    assert_eq!(planned(&[]).unwrap().network, Some(network::Config::new("", "")));
    assert_eq!(planned(&["--bridge=none"]).unwrap().network, None);
    let network = planned(&[
        "--bip=10.1.0.1/16",
        "--fixed-cidr=10.1.4.0/24",
        "--ipv6",
        "--bip6=fd01::1/48",
        "--fixed-cidr-v6=fd01::/64",
        "--default-gateway=10.1.0.2",
        "--default-gateway-v6=fd01::2",
        "--mtu=1400",
        "--icc=false",
        "--host-firewall",
        "--ip-masq=false",
        "--ip-forward=false",
        "--userland-proxy=false",
        "--ip=127.0.0.1",
        "--default-address-pool=base=10.2.0.0/16,size=24",
    ]);
    let expected = network::Config {
        bip: Some("10.1.0.1/16".parse().unwrap()),
        fixed_cidr: Some("10.1.4.0/24".parse().unwrap()),
        ipv6: true,
        bip6: Some("fd01::1/48".parse().unwrap()),
        fixed_cidr_v6: Some("fd01::/64".parse().unwrap()),
        default_gateways: vec!["10.1.0.2".parse().unwrap(), "fd01::2".parse().unwrap()],
        mtu: 1400,
        icc: false,
        host_firewall: true,
        ip_masq: false,
        ip_forward: false,
        userland_proxy: false,
        host_address: std::net::Ipv4Addr::LOCALHOST,
        default_address_pools: vec![network::AddressPool { base: "10.2.0.0/16".parse().unwrap(), size: 24 }],
        ..network::Config::new("", "")
    };
    assert_eq!(network.unwrap().network, Some(expected));
}

#[test]
fn the_rest_is_refused_by_name() {
    for (flags, wanted) in [
        (&["--bip=10.1.0.1"][..], "bip: \"10.1.0.1\" is no range of IPv4 addresses"),
        (&["--bip=127.0.0.1/8"], "bip: \"127.0.0.1/8\" is no address that a bridge with containers can have"),
        (&["--bip=0.0.0.0/0"], "bip: \"0.0.0.0/0\" is no address that a bridge with containers can have"),
        (&["--bip=224.0.0.1/24"], "bip: \"224.0.0.1/24\" is no address that a bridge with containers can have"),
        (&["--bip=10.77.0.255/24"], "bip: \"10.77.0.255/24\" is no address that a bridge with containers can have"),
        (&["--bip=10.77.0.1/32"], "bip: \"10.77.0.1/32\" is no address that a bridge with containers can have"),
        (&["--fixed-cidr=x"], "fixed-cidr: \"x\" is no range of IPv4 addresses"),
        (&["--fixed-cidr-v6=10.1.0.0/16"], "fixed-cidr-v6: \"10.1.0.0/16\" is no range of IPv6 addresses"),
        (&["--default-gateway=fd01::2"], "default-gateway: \"fd01::2\" is no address of its family"),
        (&["--ip=::1"], "ip: \"::1\" is no IPv4 address"),
        (
            &["--bridge=br0", "--bip=10.1.0.1/16"],
            "You specified -b & --bip, mutually exclusive options. Please specify only one",
        ),
        (
            &["--bridge=br0", "--bip6=fd01::1/64"],
            "You specified -b & --bip6, mutually exclusive options. Please specify only one",
        ),
        (&["--mtu=-1"], "invalid default MTU: -1"),
        (&["--image-budget-low=1g"], "image-budget-low: image-budget-high is not set"),
        (&["--image-pin=debian"], "image-pins: image-budget-high is not set"),
        (&["--image-budget-high=lots"], "invalid size: 'lots'"),
        (
            &["--image-budget-high=1k", "--image-budget-low=2k"],
            "image-budget-low: 2048 is above image-budget-high: 1024",
        ),
        (&["--storage-opt=overlay2.size"], "unable to parse storage-opt key/value: overlay2.size"),
        (&["--storage-opt=overlay2.Other=1"], "overlay2: unknown option overlay2.other"),
        (&["--storage-opt=overlay2.size=lots"], "invalid size: 'lots'"),
        (&["--storage-opt=overlay2.size=5zz"], "invalid suffix: 'zz'"),
        (&["--live-restore=false"], "live-restore cannot be switched off: containers always outlive the daemon"),
        (
            &["--log-driver=gelf"],
            "failed to set log opts: log driver gelf is not supported yet: json-file, local, journald, syslog and none are",
        ),
        (&["--log-opt=foo=1"], "failed to set log opts: unknown log opt 'foo' for json-file log driver"),
        (&["--log-level=foo"], "invalid logging level: foo"),
        (&["--label=foo"], "bad attribute format: foo"),
        (&["--default-shm-size=lots"], "default-shm-size: \"lots\" is no size"),
        (&["--shutdown-timeout=-1"], "shutdown-timeout: -1 is not in range"),
        (&["--data-root=here"], "data-root: \"here\" is no absolute path"),
        (&["--tls", "--tlscert=here"], "tlscert: \"here\" is no absolute path"),
        (&["--metrics-addr=x"], "metrics-addr: \"x\" is no address:port"),
        (&["--log-format=x"], "invalid log format: x"),
        (
            &["--default-ipc-mode=host"],
            "IPC mode \"host\" is not supported as default value; use \"shareable\" or \"private\"",
        ),
        (&["--default-ipc-mode=foo"], "default IPC mode setting (foo) is invalid; use \"shareable\" or \"private\""),
        (&["--default-cgroupns-mode=foo"], "invalid default cgroup namespace (foo): use \"host\" or \"private\""),
        (&["--dns=x"], "invalid IP address: x"),
        (&["--dns-search=a b"], "a b is not a valid domain"),
        (&["--exec-opt=x"], "invalid exec-opt (x): must be formatted 'opt=value'"),
        (&["--exec-opt=a=b"], "invalid exec-opt (a=b): unknown option: 'a'"),
        (
            &["--exec-opt=isolation=x"],
            "invalid exec-opt (isolation=x): option 'isolation' is only supported on windows",
        ),
        (
            &["--exec-opt=native.cgroupdriver=systemd"],
            "exec-opts is not supported yet at \"native.cgroupdriver=systemd\"",
        ),
        (&["--label=a=1", "--label=a=2"], "conflict labels for a=2 and a=1"),
        (&["--feature=containerd-snapshotter"], "features is not supported yet at \"containerd-snapshotter=true\""),
        (&["--max-concurrent-uploads=-1"], "invalid max concurrent uploads: -1"),
        (
            &["--registry-mirror=ftp://m"],
            "invalid mirror: unsupported scheme \"ftp\" in \"ftp://m\": must use either 'https://' or 'http://'",
        ),
        (
            &["--registry-mirror=http://m", "--registry-mirror-by-host=docker.io=http://n"],
            "docker.io has mirrors in registry-mirrors and in registry-mirrors-by-host: name them in one place",
        ),
        (&["--insecure-registry=10.0.0.0/99"], "insecure-registries: 10.0.0.0/99 is no range of addresses"),
        (
            &["-H", "tcp://0.0.0.0:2375"],
            "tcp://0.0.0.0:2375: whoever can connect to TCP without TLS is root on this machine. Set tlsverify, or say --tls=false if that is what you want",
        ),
        (&["-H", "foo://x"], "invalid bind address (foo://x): unsupported proto 'foo'"),
    ] {
        assert_eq!(planned(flags).unwrap_err(), wanted, "{flags:?}");
    }
}

#[test]
fn sizes_have_dockers_units() {
    for (text, wanted) in [("1024", 1024), ("1k", 1024), ("64M", 64 << 20), ("1gb", 1 << 30), ("2GiB", 2 << 30)] {
        assert_eq!(shm_size(text), Ok(wanted), "{text}");
    }
    for text in ["", "m", "-1", "0", "1x", "99999999999t", "1kk"] {
        assert!(shm_size(text).is_err(), "{text}");
    }
}

#[test]
fn tls_is_what_dockerds_settings_say() {
    let tls = |flags: &[&str]| planned(flags).unwrap().tls.map(|tls| tls.verify);
    for (flags, wanted) in [
        (&[][..], None),
        (&["--tls=false"], None),
        (&["--tlscert=/x"], None),
        (&["--tls"], Some(true)),
        (&["--tlsverify"], Some(true)),
        (&["--tls", "--tlsverify=false"], Some(false)),
        // Whoever names it at all gets TLS.
        (&["--tlsverify=false"], Some(false)),
        (&["--tls=false", "--tlsverify"], Some(true)),
    ] {
        assert_eq!(tls(flags), wanted, "{flags:?}");
    }
}

#[test]
fn an_open_api_is_warned_of() {
    let warnings = |flags: &[&str]| planned(flags).unwrap().api_warnings;
    assert_eq!(warnings(&["-H", "unix:///a", "--tls=false"]), [""; 0]);
    assert_eq!(warnings(&["-H", "tcp://0.0.0.0:1", "--tlsverify"]), [""; 0]);
    let open = warnings(&["-H", "tcp://0.0.0.0:1", "--tls=false"]);
    assert!(open[0].starts_with("[DEPRECATION NOTICE]: API is accessible on http://0.0.0.0:1 without encryption.\n"));
    let open = warnings(&["-H", "tcp://0.0.0.0:1", "--tlsverify=false"]);
    assert!(open[0].starts_with("[DEPRECATION NOTICE]: API is accessible on https://0.0.0.0:1 without TLS client ver"));
}

#[test]
fn what_is_ignored_is_known() {
    let Ok(Invocation::Run(given)) = parse(["--containerd=/x".to_owned()]) else { panic!() };
    assert_eq!(ignored(&given).collect::<Vec<_>>(), [("containerd", "there is no containerd")]);
}

#[test]
fn the_documentation_knows_every_key() {
    let page = include_str!("../../../../docs/daemon-json.md");
    for setting in SETTINGS.iter().filter(|setting| !setting.key.is_empty()) {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", setting.key)));
        let row = row.unwrap_or_else(|| panic!("docs/daemon-json.md has no row for {}", setting.key));
        if setting.support == Support::Yes {
            let counts = if setting.reloadable { "| at once |" } else { "| at the next start |" };
            assert!(row.ends_with(counts), "{row}");
        }
    }
}

#[test]
fn the_budget_of_images_has_two_marks_and_pins() {
    let planned =
        |flags: &[&str]| planned(flags).unwrap().image_budget.map(|one| (one.high_bytes, one.low_bytes, one.pins));
    assert_eq!(planned(&[]), None);
    assert_eq!(planned(&["--image-budget-high=0"]), None);
    assert_eq!(planned(&["--image-budget-high=10k"]), Some((10240, 8192, vec![])));
    let flags = ["--image-budget-high=10k", "--image-budget-low=1k", "--image-pin=a:*", "--image-pin=b"];
    assert_eq!(planned(&flags), Some((10240, 1024, vec!["a:*".into(), "b".into()])));
}

#[test]
fn images_stay_for_a_while_after_their_last_use() {
    let age = |flags: &[&str]| planned(flags).unwrap().image_budget.map(|one| one.min_age.as_secs());
    assert_eq!(age(&["--image-budget-high=10k"]), Some(600));
    assert_eq!(age(&["--image-budget-high=10k", "--image-budget-min-age=0"]), Some(0));
}

#[test]
fn the_size_of_containers_is_the_last_one_that_is_said() {
    for (flags, size) in [
        (&[][..], None),
        (&["--storage-opt=overlay2.size=0"], None),
        (&["--storage-opt=overlay2.size=10G"], Some(10 << 30)),
        (&["--storage-opt=overlay2.size=1g", "--storage-opt= Overlay2.Size = 20m "], Some(20 << 20)),
    ] {
        assert_eq!(planned(flags).unwrap().container_size_bytes, size, "{flags:?}");
    }
}

#[test]
fn a_daemon_with_networks_and_without_rules_does_not_start() {
    for (flags, key) in [(&["--iptables=false"][..], "iptables"), (&["--ip6tables=false", "--bridge=br0"], "ip6tables")]
    {
        let refused = planned(flags).err().unwrap_or_default();
        let sentence = format!("{key} cannot be switched off: rules of a table of its own");
        assert!(refused.starts_with(&sentence) && refused.contains("host-firewall"), "{flags:?}: {refused}");
    }
}

#[test]
fn a_trust_policy_of_no_name_is_none_that_could_be_left_out() {
    for (flag, sentence) in
        [("--trust-policy=", "trust-policy: \"\" is no absolute path"), ("--trust-policy=a", "\"a\"")]
    {
        let refused = planned(&[flag]).err().unwrap_or_default();
        assert!(refused.contains(sentence), "{flag}: {refused}");
    }
    assert_eq!(planned(&["--trust-policy=/p"]).unwrap().trust_policy.as_deref(), Some(Path::new("/p")));
}

#[test]
fn the_environments_proxies_count_where_nothing_is_said() {
    let shown = |flags: &[&str]| {
        let mut config = planned(flags).unwrap();
        let variables = [("HTTP_PROXY", "http://a"), ("https_proxy", "http://b"), ("NO_PROXY", ""), ("no_proxy", "c")];
        let variables = BTreeMap::from(variables);
        config.add_environment(|name| variables.get(name).map(|value| (*value).to_owned()));
        let proxies = config.changeable.registries.proxies;
        [proxies.http, proxies.https, proxies.none]
    };
    assert_eq!(shown(&[]), ["http://a", "http://b", "c"]);
    assert_eq!(shown(&["--http-proxy=http://x:1", "--no-proxy=y"]), ["http://x:1", "http://b", "y"]);
    let refused = planned(&["--https-proxy=socks5://u:secret@h"]).unwrap_err();
    let sentence = "invalid proxy address \"socks5://xxxxx:xxxxx@h\": it must be [http://][user:password@]host[:port]";
    assert_eq!(refused, sentence);
}

/// Tried with dockerd 28.5.2, but for those that are texts of flags.
#[test]
fn pools_that_do_not_fit_are_refused_in_dockerds_words() {
    let space = |pool: &str, fault: &str| {
        format!(
            "Error initializing network controller: error obtaining controller instance: could not construct local \
             address space: network at index 0 (&{{{pool}}}) {fault}"
        )
    };
    let subnetted = "Error initializing network controller: error creating default \"bridge\" network: all predefined \
                     address pools have been fully subnetted";
    for (pool, wanted) in [
        (
            "base=10.0.0.0/16,size=8",
            &*space("10.0.0.0/16 8", "has a smaller prefix (/16) than the target size of that pool (/8)"),
        ),
        ("base=10.0.0.0/8", &space("10.0.0.0/8 0", "is not in canonical form")),
        ("size=24", &space("invalid Prefix 24", "is not in canonical form")),
        ("base=10.0.0.1/8,size=24", &space("10.0.0.1/8 24", "is not in canonical form")),
        ("base=10.0.0.0/8,size=33", subnetted),
        ("base=foo,size=24", r#"invalid base prefix "foo": netip.ParsePrefix("foo"): no '/'"#),
        (
            "base=x/8,size=24",
            r#"invalid base prefix "x/8": netip.ParsePrefix("x/8"): ParseAddr("x"): unable to parse IP"#,
        ),
        (
            "base=10.0.0.0/x",
            r#"invalid base prefix "10.0.0.0/x": netip.ParsePrefix("10.0.0.0/x"): bad bits after slash: "x""#,
        ),
        (
            "base=10.0.0.0/99",
            r#"invalid base prefix "10.0.0.0/99": netip.ParsePrefix("10.0.0.0/99"): prefix length out of range"#,
        ),
        (
            "base=10.0.0.0/8,size=x",
            r#"invalid size value: "base=10.0.0.0/8,size=x" (must be integer): strconv.Atoi: parsing "x": invalid syntax"#,
        ),
        ("base=10.0.0.0/8,size=24,foo=1", "unexpected key 'foo' in 'foo=1'"),
        ("base", "invalid field 'base' must be a key=value pair"),
    ] {
        assert_eq!(planned(&["--default-address-pool", pool]).unwrap_err(), wanted, "{pool}");
    }
    let pool = |base: &str, size| network::AddressPool { base: base.parse().unwrap(), size };
    // In dockerd's order, and of two that overlap the larger one.
    let several =
        ["base=10.2.0.0/16,size=24", "base=10.0.0.0/8,size=16", "BASE=fd00::/48,size=64", "base=9.0.0.0/8,size=9"];
    let flags: Vec<_> = several.iter().map(|pool| format!("--default-address-pool={pool}")).collect();
    let config = planned(&flags.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let pools = config.network.unwrap().default_address_pools;
    assert_eq!(pools, [pool("9.0.0.0/8", 9), pool("10.0.0.0/8", 16), pool("fd00::/48", 64)]);
}
