//! Bridges whose containers have their own addresses for everybody, and bridges that this machine is not on, as with dockerd.

use serde_json::{Value, json};

use crate::support::{At, on_both};

const IPV4: &str = "-o com.docker.network.bridge.gateway_mode_ipv4";
const IPV6: &str = "-o com.docker.network.bridge.gateway_mode_ipv6";

fn ports(at: &At<'_>, container: &str) -> Value {
    serde_json::from_str(&at.inspect(container, "{{json .NetworkSettings.Ports}}")).unwrap()
}

fn ranges(at: &At<'_>, network: &str) -> Value {
    serde_json::from_str(&at.ok(&format!("network inspect -f '{{{{json .IPAM.Config}}}}' {network}"))).unwrap()
}

#[test]
fn privileged_open_ports_of_routed_networks_are_shown() {
    on_both(|at| {
        let (network, name) = (at.name("routed"), at.name("open"));
        at.ok(&format!("network create --ipv6 {IPV4}=routed {IPV6}=routed {network}"));
        // Host ports mean nothing, also those that somebody has.
        let flags = "-p 80 -p 22:81/udp -p 127.0.0.1:22:82 -p 8000-8001:90-91 --expose 99";
        at.ok(&format!("run -d --name {name} --network {network} {flags} busybox sleep 1000"));
        let open = |address: &str| json!({"HostIp": address, "HostPort": ""});
        let both = json!([open("0.0.0.0"), open("::")]);
        let shown = json!({"80/tcp": both, "81/udp": both, "82/tcp": [open("0.0.0.0")], "90/tcp": both, "91/tcp": both,
            "99/tcp": null});
        assert_eq!(ports(at, &name), shown);
        assert_eq!(at.ok(&format!("port {name} 80")), "0.0.0.0:\n[::]:");
        assert_eq!(at.ok(&format!("port {name} 82")), "0.0.0.0:");
        let listed = at.ok(&format!("ps --filter name={name} --format '{{{{.Ports}}}}'"));
        let parts = ["99/tcp", "0.0.0.0:0->80/tcp", "[::]:0->80/tcp", "0.0.0.0:0->81/udp", "[::]:0->81/udp"];
        assert_eq!(listed.split(", ").take(5).collect::<Vec<_>>(), parts, "{listed}");
        // What the other network publishes is published, while that leads outward.
        let plain = at.name("a");
        at.ok(&format!("network create --ipv6 {plain}"));
        at.ok(&format!("network connect --gw-priority 1 {plain} {name}"));
        let published = ports(at, &name)["80/tcp"].as_array().unwrap().clone();
        let of_ipv4 = published.iter().find(|one| one["HostIp"] == "0.0.0.0").unwrap();
        assert_ne!(of_ipv4["HostPort"], "", "{published:?}");
        at.ok(&format!("network disconnect {plain} {name}"));
        assert_eq!(ports(at, &name), shown);
        at.remove(&name);
        at.ok(&format!("network rm {network} {plain}"));
    });
}

#[test]
fn privileged_isolated_networks_are_internal_and_have_no_gateway() {
    on_both(|at| {
        let (network, name) = (at.name("isolated"), at.name("alone"));
        let sentence = "gateway mode 'isolated' can only be used for an internal network";
        for option in [IPV4, IPV6] {
            at.fails(&format!("network create {option}=isolated {network}"), 1, sentence);
        }
        at.ok(&format!("network create --ipv6 --internal {IPV4}=isolated {IPV6}=isolated {network}"));
        let found = ranges(at, &network);
        assert!(found.as_array().unwrap().iter().all(|range| range.get("Gateway").is_none()), "{found}");
        at.ok(&format!("run -d --name {name} --network {network} -p 80 busybox sleep 1000"));
        assert!(ports(at, &name)["80/tcp"].is_null());
        let address = at.inspect(&name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"));
        assert!(address.ends_with(".1"), "{address}");
        let routes = at.ok(&format!("exec {name} ip route"));
        assert!(!routes.contains("default"), "{routes}");
        at.remove(&name);
        at.ok(&format!("network rm {network}"));
        let unknown = "failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: zz (unknown gateway mode zz)";
        at.fails(&format!("network create {IPV4}=zz {network}"), 1, unknown);
    });
}

#[test]
fn privileged_a_gateway_of_somebody_elses_is_named_to_containers() {
    on_both(|at| {
        let (network, name) = (at.name("inhibited"), at.name("led"));
        at.ok(&format!("network create -o com.docker.network.bridge.inhibit_ipv4=true {network}"));
        let gateway = ranges(at, &network)[0]["Gateway"].as_str().unwrap().to_owned();
        at.ok(&format!("run -d --name {name} --network {network} busybox sleep 1000"));
        let route = at.ok(&format!("exec {name} ip route show default"));
        assert!(route.contains(&format!("via {gateway} ")), "{route}");
        at.remove(&name);
        at.ok(&format!("network rm {network}"));
    });
}
