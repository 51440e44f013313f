//! Networks that users make: made, looked at, joined, left and removed, as with dockerd.

use serde_json::{Value, json};

use crate::support::{At, on_both, ours};

/// Says hello over HTTP on port 80.
const SERVER: &str = "sh -c 'mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www'";

/// A subnet for this process and command line: tests side by side share no daemon, but may share one of dockerd's.
fn subnet(at: &At<'_>, number: u8) -> String {
    let id = std::process::id().to_be_bytes();
    let cli = if format!("{:?}", at.cli) == "Docker" { 0 } else { 8 };
    format!("10.{}.{}", 100 + id[2] % 100, (id[3] & 0xf0) ^ (cli + number))
}

fn shown(at: &At<'_>, network: &str) -> Value {
    let shown: Value = serde_json::from_str(&at.ok(&format!("network inspect {network}"))).unwrap();
    shown[0].clone()
}

fn networks(at: &At<'_>, container: &str) -> Value {
    serde_json::from_str(&at.inspect(container, "{{json .NetworkSettings.Networks}}")).unwrap()
}

#[test]
fn privileged_networks_are_made_shown_filtered_and_removed() {
    on_both(|at| {
        let (name, base) = (at.name("made"), subnet(at, 1));
        let id = at.ok(&format!(
            "network create --subnet {base}.0/24 --gateway {base}.9 --ip-range {base}.128/25 --aux-address r={base}.130 \
             --label a=b --internal --attachable -o com.docker.network.driver.mtu=1400 {name}"
        ));
        assert_eq!(id.len(), 64);
        let network = shown(at, &name);
        let range = json!({"Subnet": format!("{base}.0/24"), "IPRange": format!("{base}.128/25"),
            "Gateway": format!("{base}.9"), "AuxiliaryAddresses": {"r": format!("{base}.130")}});
        assert_eq!(network["IPAM"], json!({"Driver": "default", "Options": {}, "Config": [range]}));
        for (field, value) in [
            ("Name", json!(name)),
            ("Id", json!(id)),
            ("Scope", json!("local")),
            ("Driver", json!("bridge")),
            ("EnableIPv4", json!(true)),
            ("EnableIPv6", json!(false)),
            ("Internal", json!(true)),
            ("Attachable", json!(true)),
            ("Containers", json!({})),
            ("Options", json!({"com.docker.network.driver.mtu": "1400"})),
            ("Labels", json!({"a": "b"})),
        ] {
            assert_eq!(network[field], value, "{field}");
        }
        assert_eq!(shown(at, &id[..12])["Name"], json!(name));
        for (filter, found) in [
            ("label=a=b", true),
            ("type=custom", true),
            ("type=builtin", false),
            ("dangling=true", true),
            ("dangling=false", false),
            ("driver=bridge", true),
        ] {
            let line = format!("network ls --filter name={name} --filter {filter} --format {{{{.Name}}}}");
            assert_eq!(at.ok(&line), if found { &name[..] } else { "" }, "{filter}");
        }
        at.fails(&format!("network create {name}"), 1, &format!("network with name {name} already exists"));
        let overlap = "invalid pool request: Pool overlaps with other one on this address space";
        at.fails(&format!("network create --subnet {base}.0/25 {name}-2"), 1, overlap);
        at.fails("network rm bridge", 1, "bridge is a pre-defined network and cannot be removed");
        assert_eq!(at.ok(&format!("network rm {name}")), name);
        at.fails(&format!("network rm {name}"), 1, &format!("network {name} not found\nexit status 1"));
        assert_eq!(at.ok(&format!("network rm -f {name}")), "");
    });
}

#[test]
fn privileged_what_is_no_network_is_refused() {
    on_both(|at| {
        let name = at.name("refused");
        for (flags, sentence) in [
            ("-d nosuch", "plugin \"nosuch\" not found"),
            ("-d host", "only one instance of \"host\" network is allowed"),
            ("--scope swarm", "cannot create a swarm scoped network when swarm is not active"),
            ("--ipv4=false", "IPv4 or IPv6 must be enabled"),
            ("--subnet 10.9.0.1/16", "invalid network config:\ninvalid subnet 10.9.0.1/16: it should be 10.9.0.0/16"),
            (
                "-o com.docker.network.driver.mtu=x",
                "failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing \"x\": invalid syntax)",
            ),
            ("--gateway 10.9.0.1", "every ip-range or gateway must have a corresponding subnet"),
            (
                "--subnet 10.9.0.0/16 --gateway 10.9.0.0",
                "failed to allocate gateway (10.9.0.0): Address already in use",
            ),
        ] {
            at.fails(&format!("network create {flags} {name}"), 1, sentence);
        }
        at.fails("network create host", 1, "operation is not permitted on predefined host network");
    });
}

#[test]
fn privileged_families_come_by_options_and_addresses_of_links_are_checked() {
    on_both(|at| {
        let name = at.name("families");
        let (ipv4, ipv6) = ("com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6");
        let refused = format!("driver-opt \"{ipv6}\" is not a valid bool");
        at.fails(&format!("network create -o {ipv6}=x {name}"), 1, &refused);
        at.fails(&format!("network create -o {ipv4}=false {name}"), 1, "IPv4 or IPv6 must be enabled");
        at.ok(&format!("network create -o {ipv6}=true {name}"));
        let network = shown(at, &name);
        assert_eq!((&network["EnableIPv6"], &network["Options"]), (&json!(true), &json!({ipv6: "true"})));
        let local = network["IPAM"]["Config"][1]["Subnet"].as_str().unwrap().to_owned();
        assert!(local.starts_with("fd") && local.ends_with("/64"), "{local}");
        let sentence = "invalid link local IP address: 10.1.1.1";
        at.fails(&format!("run --rm --network {name} --link-local-ip 10.1.1.1 busybox true"), 125, sentence);
        at.ok(&format!("network rm {name}"));
        at.ok(&format!("network create -o {ipv6}=true --ipv6=false {name}"));
        let network = shown(at, &name);
        assert_eq!((&network["EnableIPv6"], &network["Options"]), (&json!(false), &json!({})));
        at.ok(&format!("run -d --name {name} busybox sleep 1000"));
        at.fails(&format!("network connect --link-local-ip 10.1.1.1 {name} {name}"), 1, sentence);
        for verb in ["inspect", "rm"] {
            at.fails(&format!("network {verb} ''"), 1, "invalid network name or ID: value is empty");
        }
        at.ok(&format!("rm -f {name}"));
        at.ok(&format!("create --mac-address 02:00:00:00:00:01 --name {name} busybox"));
        assert_eq!(at.inspect(&name, "{{.Config.MacAddress}}"), "02:00:00:00:00:01");
    });
}

#[test]
fn privileged_a_configuration_makes_networks_and_is_none() {
    on_both(|at| {
        let (configuration, name, base) = (at.image("template"), at.image("of-template"), subnet(at, 4));
        let icc = "com.docker.network.bridge.enable_icc";
        at.ok(&format!(
            "network create --config-only -d nosuch --subnet {base}.0/24 --ip-range {base}.128/25 --label a=b -o {icc}=false {configuration}"
        ));
        let ranges = json!([{"Subnet": format!("{base}.0/24"), "IPRange": format!("{base}.128/25")}]);
        let network = shown(at, &configuration);
        let fields = ["Driver", "ConfigOnly", "Scope", "EnableIPv4", "EnableIPv6"];
        assert_eq!(
            fields.map(|field| network[field].clone()),
            [json!("null"), json!(true), json!("local"), json!(true), json!(false)]
        );
        let used = |network: &Value| ["IPAM", "Options", "Labels"].map(|field| network[field].clone());
        let told =
            [json!({"Driver": "default", "Options": {}, "Config": ranges}), json!({icc: "false"}), json!({"a": "b"})];
        assert_eq!(used(&network), told);
        let joined = "cannot create endpoint on configuration-only network";
        let output = at.line(&format!("run --rm --network {configuration} busybox true"));
        assert!(output.code == 125 && output.stderr.contains(joined), "{output:?}");
        // Networks of it say how they are used, and nothing else.
        at.ok(&format!("network create --internal --config-from {configuration} {name}"));
        let network = shown(at, &name);
        assert_eq!(used(&network), told);
        assert_eq!((&network["ConfigFrom"], &network["Internal"]), (&json!({"Network": configuration}), &json!(true)));
        let address = at.ok(&format!("run --rm --network {name} busybox hostname -i"));
        assert!(address.starts_with(&format!("{base}.12")) || address.starts_with(&format!("{base}.13")), "{address}");
        at.fails(
            &format!("network create --config-from {configuration} {name}-2"),
            1,
            "Pool overlaps with other one on this address space",
        );
        for (flags, sentence) in [
            ("--config-from nosuch", "configuration network \"nosuch\" does not exist".to_owned()),
            (
                &*format!("--config-from {configuration} --label x=y"),
                "user specified configurations are not supported if the network depends on a configuration network".to_owned(),
            ),
            (
                &*format!("--config-from {configuration} -o x=y"),
                "network driver options are not supported if the network depends on a configuration network".to_owned(),
            ),
            (
                &*format!("--config-from {configuration} --config-only"),
                "a configuration network cannot depend on another configuration network".to_owned(),
            ),
            (
                "--config-only --internal",
                "configuration network can only contain network specific fields. Network operator fields like [ ingress \
                 | internal | attachable | scope ] are not supported."
                    .to_owned(),
            ),
        ] {
            at.fails(&format!("network create {flags} {name}-2"), 1, &sentence);
        }
        let in_use = format!("error while removing network: configuration network {configuration:?} is in use");
        at.fails(&format!("network rm {configuration}"), 1, &in_use);
        at.ok(&format!("network rm {name}"));
        // Whoever prunes keeps configurations: it is their use to wait.
        at.ok("network prune -f --filter label=a=b");
        at.ok(&format!("network rm {configuration}"));
    });
}

#[test]
fn privileged_containers_live_on_several_networks() {
    on_both(|at| {
        // The long form of the flag knows no capital letters.
        let (one, two, inner) = (at.image("net-1"), at.image("net-2"), at.image("net-3"));
        let (name, base) = (at.name("joined"), subnet(at, 2));
        at.ok(&format!("network create --subnet {base}.0/24 {one}"));
        at.ok(&format!("network create {two}"));
        at.ok(&format!("network create --internal {inner}"));
        at.ok(&format!(
            "run -d --name {name} --network name={one},alias=al,ip={base}.7,mac-address=02:42:0a:00:00:07 \
             --network {two} busybox sleep 1000"
        ));
        let on = networks(at, &name);
        assert_eq!(
            (&on[&one]["IPAddress"], &on[&one]["Gateway"]),
            (&json!(format!("{base}.7")), &json!(format!("{base}.1")))
        );
        assert_eq!(on[&one]["MacAddress"], json!("02:42:0a:00:00:07"));
        let short = &at.inspect(&name, "{{.Id}}")[..12];
        assert_eq!(on[&one]["DNSNames"], json!([name, "al", short]));
        assert_eq!(at.inspect(&name, "{{.NetworkSettings.IPAddress}}{{.HostConfig.NetworkMode}}"), one);
        assert!(at.ok(&format!("exec {name} ip route")).contains(&format!("default via {base}.1 dev eth0")));
        at.ok(&format!("network connect --alias x {inner} {name}"));
        let inside = networks(at, &name)[&inner].clone();
        assert_eq!(
            (&inside["Gateway"], &inside["Aliases"], &inside["IPAMConfig"]),
            (&json!(""), &json!(["x"]), &json!({}))
        );
        let hosts = at.ok(&format!("exec {name} cat /etc/hosts"));
        assert!(hosts.contains(&format!("{}\t{short}", inside["IPAddress"].as_str().unwrap())), "{hosts}");
        at.fails(
            &format!("network connect {inner} {name}"),
            1,
            &format!("endpoint with name {name} already exists in network {inner}"),
        );
        let id = on[&one]["EndpointID"].as_str().unwrap();
        at.fails(
            &format!("network rm {one}"),
            1,
            &format!(
                "error while removing network: network {one} has active endpoints (name:\"{name}\" id:\"{}\")",
                &id[..12]
            ),
        );
        let member = shown(at, &one)["Containers"].as_object().unwrap().values().next().unwrap().clone();
        assert_eq!((&member["Name"], &member["IPv4Address"]), (&json!(name), &json!(format!("{base}.7/24"))));
        // The next one by name gives the way out.
        at.ok(&format!("network disconnect {one} {name}"));
        let gateway = on[&two]["Gateway"].as_str().unwrap();
        assert!(at.ok(&format!("exec {name} ip route")).contains(&format!("default via {gateway}")));
        at.fails(&format!("network disconnect {one} {name}"), 1, &format!("is not connected to network {one}"));
        at.ok(&format!("stop -t 0 {name}"));
        at.ok(&format!("network connect --gw-priority 9 {one} {name}"));
        at.ok(&format!("network disconnect {inner} {name}"));
        assert_eq!(networks(at, &name)[&one]["EndpointID"], json!(""));
        at.ok(&format!("start {name}"));
        let on = networks(at, &name);
        assert_eq!(on.as_object().unwrap().len(), 2);
        assert!(at.ok(&format!("exec {name} ip route")).contains(&format!("default via {base}.1")));
        at.remove(&name);
        at.ok(&format!("network rm {one} {two} {inner}"));
    });
}

#[test]
fn privileged_neighbours_reach_each_other_and_others_do_not() {
    on_both(|at| {
        let (one, two) = (at.name("lan-1"), at.name("lan-2"));
        let (server, base) = (at.name("server"), subnet(at, 3));
        at.ok(&format!("network create --subnet {base}.0/24 {one}"));
        at.ok(&format!("network create {two}"));
        at.ok(&format!("run -d --name {server} --network {one} --ip {base}.5 busybox {SERVER}"));
        let ask = format!("sh -c 'for i in $(seq 500); do wget -qO- http://{base}.5 && exit; done; exit 7'");
        assert_eq!(at.ok(&format!("run --rm --network {one} busybox {ask}")), "hello");
        for other in [two.as_str(), "bridge"] {
            let asked = at.line(&format!("run --rm --network {other} busybox nc -w 1 {base}.5 80"));
            assert_ne!(asked.code, 0, "{other}");
        }
        at.fails(
            &format!("run --rm --network {one} --ip {base}.5 busybox true"),
            125,
            "failed to set up container networking: Address already in use",
        );
        at.fails(
            &format!("run --rm --network {two} --ip {base}.5 busybox true"),
            125,
            &format!(
                "invalid config for network {two}: invalid endpoint settings:\nuser specified IP address is supported \
                 only when connecting to networks with user configured subnets"
            ),
        );
        at.fails(
            &format!("run --rm --network {one}-none busybox true"),
            125,
            &format!("failed to set up container networking: network {one}-none not found"),
        );
        at.remove(&server);
        at.ok(&format!("network rm {one} {two}"));
    });
}

#[test]
fn privileged_networks_outlive_the_daemon_and_their_containers_it() {
    ours(|daemon| {
        crate::support::each(daemon, |at| {
            let (network, name) = (at.name("kept"), at.name("living"));
            at.ok(&format!("network create {network}"));
            at.ok(&format!("run -d --name {name} --network {network} -p 127.0.0.1::80 busybox httpd -f -p 80"));
        });
        let before: Vec<Value> = seen(daemon);
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        assert_eq!(seen(daemon), before);
        crate::support::each(daemon, |at| {
            let (network, name) = (at.name("kept"), at.name("living"));
            let gateway = networks(at, &name)[&network]["Gateway"].as_str().unwrap().to_owned();
            at.ok(&format!("exec {name} ping -c 1 -W 5 {gateway}"));
            at.ok(&format!("network connect bridge {name}"));
            at.ok(&format!("network disconnect {network} {name}"));
            assert_eq!(networks(at, &name).as_object().unwrap().keys().collect::<Vec<_>>(), ["bridge"]);
            at.remove(&name);
            at.ok(&format!("network rm {network}"));
        });
    });
}

fn seen(daemon: &testkit::Daemon) -> Vec<Value> {
    let seen = std::cell::RefCell::new(Vec::new());
    crate::support::each(daemon, |at| {
        let network = shown(at, &at.name("kept"));
        seen.borrow_mut().extend([network, networks(at, &at.name("living"))]);
    });
    seen.into_inner()
}

#[test]
fn privileged_interfaces_have_the_settings_that_were_asked_for() {
    on_both(|at| {
        let (network, name) = (at.image("tuned"), at.name("tuned-one"));
        at.ok(&format!("network create --subnet {}.0/24 {network}", subnet(at, 9)));
        let option = |sysctls: &str| format!("com.docker.network.endpoint.sysctls={sysctls}");
        let network_flag =
            |name: &str, sysctls: &str| format!("--network '\"name={name}\",\"driver-opt={}\"'", option(sysctls));
        let martians = |interface: &str| format!("cat /proc/sys/net/ipv4/conf/{interface}/log_martians");
        let both = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.neigh.IFNAME.mcast_solicit=7";
        for on in [network.as_str(), "bridge"] {
            let shown = at.ok(&format!(
                "run --rm {} busybox sh -c '{}; cat /proc/sys/net/ipv4/neigh/eth0/mcast_solicit'",
                network_flag(on, both),
                martians("eth0")
            ));
            assert_eq!(shown, "1\n7", "{on}");
        }
        at.ok(&format!("run -d --name {name} busybox sleep 1000"));
        at.ok(&format!(
            "network connect --driver-opt {} {network} {name}",
            option("net.ipv4.conf.IFNAME.log_martians=1")
        ));
        assert_eq!(at.ok(&format!("exec {name} {}", martians("eth1"))), "1");
        at.remove(&name);
        for (sysctls, sentence) in [
            (
                "net.ipv4.conf.eth0.log_martians=1",
                "represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'",
            ),
            ("net.ipv4.conf.IFNAME.nosuch=1", "/proc/sys/net/ipv4/conf/eth0/nosuch is not a sysctl file"),
            ("net.ipv4.conf.IFNAME.log_martians=x", "unable to write to '/proc/sys/net/ipv4/conf/eth0/log_martians'"),
        ] {
            at.fails(&format!("run --name {name} {} busybox true", network_flag(&network, sysctls)), 125, sentence);
            at.line(&format!("rm -f {name}"));
        }
        at.ok(&format!("network rm {network}"));
    });
}
