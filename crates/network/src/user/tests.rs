use super::*;

fn around(free: Option<&str>) -> Surroundings<'static> {
    Surroundings {
        id: "0123456789ab".repeat(6)[..64].to_owned(),
        now_nanos: 5,
        free: free.map(|text| text.parse().unwrap()),
        free_ipv6: Some("fd00:9::/64".parse().unwrap()),
        subnets: vec!["172.17.0.0/16".parse().unwrap(), "fd00:17::/64".parse().unwrap()],
        bridges: vec![("docker0", "f00")],
        parents: Vec::new(),
        mtu: 1500,
    }
}

fn request(subnet: &str, gateway: &str, range: &str, auxiliary: &str) -> UserNetworkRequest {
    let auxiliary = (!auxiliary.is_empty()).then(|| ("r".to_owned(), auxiliary.parse().unwrap()));
    let wanted = RangeRequest {
        subnet: subnet.parse().ok(),
        gateway: gateway.parse().ok(),
        range: range.parse().ok(),
        auxiliary: auxiliary.into_iter().collect(),
    };
    let request = UserNetworkRequest { name: "n".to_owned(), ..UserNetworkRequest::default() };
    match subnet.contains(':') {
        true => UserNetworkRequest { without_ipv4: true, with_ipv6: true, ipv6: wanted, ..request },
        false => UserNetworkRequest { ipv4: wanted, ..request },
    }
}

fn told(request: UserNetworkRequest) -> Result<String, String> {
    let planned = UserNetwork::plan(request, around(Some("172.18.0.0/16"))).map_err(|err| err.to_string())?;
    let mut told = Vec::new();
    for (range, mut addresses) in planned.ranges().zip(planned.addresses()) {
        let first = addresses.take(None).map_or_else(|reason| format!("{reason:?}"), |first| first.to_string());
        let gateway = range.gateway.map_or_else(|| "-".to_owned(), |gateway| gateway.to_string());
        told.push(format!("{} {gateway} {first}", range.subnet));
    }
    Ok(told.join(", "))
}

#[test]
fn addresses_are_planned_as_dockerd_plans_them() {
    for (subnet, gateway, range, auxiliary, planned) in [
        ("", "", "", "", "172.18.0.0/16 172.18.0.1 172.18.0.2"),
        ("10.9.0.0/16", "", "", "", "10.9.0.0/16 10.9.0.1 10.9.0.2"),
        ("10.9.0.0/16", "10.9.0.9", "", "", "10.9.0.0/16 10.9.0.9 10.9.0.1"),
        ("10.9.0.0/16", "", "10.9.4.0/24", "", "10.9.0.0/16 10.9.4.0 10.9.4.1"),
        ("10.9.0.0/16", "", "", "10.9.0.2", "10.9.0.0/16 10.9.0.1 10.9.0.3"),
        ("10.9.0.0/30", "", "", "10.9.0.2", "10.9.0.0/30 10.9.0.1 Exhausted"),
        ("10.9.0.0/32", "", "", "", "10.9.0.0/32 10.9.0.0 Exhausted"),
        ("fd00:1::/64", "", "", "", "fd00:1::/64 fd00:1::1 fd00:1::2"),
        ("fd00:1::/64", "fd00:1::ffff:ffff:ffff:ffff", "", "", "fd00:1::/64 fd00:1::ffff:ffff:ffff:ffff fd00:1::1"),
        ("fd00:1::/64", "", "fd00:1::100/120", "", "fd00:1::/64 fd00:1::100 fd00:1::101"),
        ("fd00:1::/126", "", "", "fd00:1::2", "fd00:1::/126 fd00:1::1 fd00:1::3"),
    ] {
        assert_eq!(told(request(subnet, gateway, range, auxiliary)), Ok(planned.to_owned()), "{subnet} {gateway}");
    }
}

#[test]
fn what_cannot_be_planned_is_refused_in_dockerds_words() {
    for (subnet, gateway, auxiliary, text) in [
        ("172.17.4.0/24", "", "", "invalid pool request: Pool overlaps with other one on this address space"),
        ("10.9.0.0/16", "10.9.0.0", "", "failed to allocate gateway (10.9.0.0): Address already in use"),
        ("10.9.0.0/16", "10.9.255.255", "", "failed to allocate gateway (10.9.255.255): Address already in use"),
        ("10.9.0.0/16", "", "10.9.0.1", "failed to allocate secondary ip address (r:10.9.0.1): Address already in use"),
        ("fd00:17::/80", "", "", "invalid pool request: Pool overlaps with other one on this address space"),
        ("fd00:1::/64", "fd00:1::", "", "failed to allocate gateway (fd00:1::): Address already in use"),
        ("fd00:1::/128", "", "", "failed to allocate gateway (): no available addresses on this pool"),
    ] {
        assert_eq!(told(request(subnet, gateway, "", auxiliary)), Err(text.to_owned()), "{subnet}");
    }
    let exhausted = UserNetwork::plan(request("", "", "", ""), around(None)).unwrap_err();
    assert_eq!(exhausted.to_string(), "all predefined address pools have been fully subnetted");
}

#[test]
fn bridges_are_named_after_the_network_or_as_wanted() {
    let planned = UserNetwork::plan(request("", "", "", ""), around(Some("172.18.0.0/16"))).unwrap();
    let bridge = planned.driver.bridge().unwrap();
    assert_eq!((bridge.bridge.as_str(), bridge.interface_prefix.as_str()), ("br-0123456789ab", "eth"));
    let named = |name: &str| {
        let options = [("com.docker.network.bridge.name".to_owned(), name.to_owned())].into();
        let request = UserNetworkRequest { options, ..request("", "", "", "") };
        UserNetwork::plan(request, around(Some("172.18.0.0/16")))
            .map(|planned| planned.driver.bridge().unwrap().bridge.clone())
    };
    assert_eq!(named("lab0").unwrap(), "lab0");
    let text = named("docker0").unwrap_err().to_string();
    assert!(
        text.ends_with("(docker0): conflicts with network f00 (docker0): networks have same bridge name"),
        "{text}"
    );
}

#[test]
fn networks_have_the_families_that_are_wanted() {
    let both = UserNetworkRequest { with_ipv6: true, ..request("", "", "", "") };
    assert_eq!(told(both.clone()).unwrap(), "172.18.0.0/16 172.18.0.1 172.18.0.2, fd00:9::/64 fd00:9::1 fd00:9::2");
    let second = UserNetworkRequest { without_ipv4: true, ipv4: request("10.9.0.0/16", "", "", "").ipv4, ..both };
    let planned = UserNetwork::plan(second, around(None)).unwrap();
    assert_eq!((planned.ipv4, planned.idle.len()), (None, 1));
    assert_eq!(planned.idle[0].subnet.to_string(), "10.9.0.0/16");
}

#[test]
fn records_from_before_ipv6_are_read_and_new_ones_too() {
    let old = r#"{"id":"f00","name":"n","created_at_nanos":5,"scope":"local","subnet":{"address":"10.9.0.0","prefix":16},
        "from_pools":false,"gateway":"10.9.0.1","gateway_wanted":true,"range":null,"auxiliary":{"r":"10.9.0.3"},
        "ipam_options":null,"internal":false,"attachable":false,"options":{},"labels":{},"bridge":"br-f00",
        "adopted":false,"mtu":1500,"icc":true,"masquerade":true,"host_address":"127.0.0.1","interface_prefix":"eth"}"#;
    let record: UserNetwork = serde_json::from_str(old).unwrap();
    let range = record.ipv4.as_ref().unwrap();
    assert_eq!((range.gateway.unwrap().to_string().as_str(), range.auxiliary.len()), ("10.9.0.1", 1));
    assert_eq!(record.ipv6, None);
    let mut networks = vec![record];
    for without_ipv4 in [false, true] {
        let wanted = UserNetworkRequest { without_ipv4, with_ipv6: true, ..request("", "", "", "") };
        networks.push(UserNetwork::plan(wanted, around(Some("172.18.0.0/16"))).unwrap());
    }
    for network in networks {
        let again: UserNetwork = serde_json::from_str(&serde_json::to_string(&network).unwrap()).unwrap();
        assert_eq!(again, network);
    }
}
