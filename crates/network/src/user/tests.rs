use super::*;

fn around(free: Option<&str>) -> Surroundings<'static> {
    Surroundings {
        id: "0123456789ab".repeat(6)[..64].to_owned(),
        now_nanos: 5,
        free: free.map(|text| text.parse().unwrap()),
        subnets: vec!["172.17.0.0/16".parse().unwrap()],
        bridges: vec![("docker0", "f00")],
        mtu: 1500,
    }
}

fn request(subnet: &str, gateway: &str, range: &str, auxiliary: &str) -> UserNetworkRequest {
    let auxiliary = (!auxiliary.is_empty()).then(|| ("r".to_owned(), auxiliary.parse().unwrap()));
    UserNetworkRequest {
        name: "n".to_owned(),
        subnet: subnet.parse().ok(),
        gateway: gateway.parse().ok(),
        range: range.parse().ok(),
        auxiliary: auxiliary.into_iter().collect(),
        ..UserNetworkRequest::default()
    }
}

fn told(request: UserNetworkRequest) -> Result<String, String> {
    let planned = UserNetwork::plan(request, around(Some("172.18.0.0/16"))).map_err(|err| err.to_string())?;
    let first = planned.addresses().take(None).map_or_else(|reason| format!("{reason:?}"), |first| first.to_string());
    Ok(format!("{} {} {first}", planned.subnet, planned.gateway))
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
    ] {
        assert_eq!(told(request(subnet, gateway, "", auxiliary)), Err(text.to_owned()), "{subnet}");
    }
    let exhausted = UserNetwork::plan(request("", "", "", ""), around(None)).unwrap_err();
    assert_eq!(exhausted.to_string(), "all predefined address pools have been fully subnetted");
}

#[test]
fn bridges_are_named_after_the_network_or_as_wanted() {
    let planned = UserNetwork::plan(request("", "", "", ""), around(Some("172.18.0.0/16"))).unwrap();
    assert_eq!((planned.bridge.as_str(), planned.interface_prefix.as_str()), ("br-0123456789ab", "eth"));
    let named = |name: &str| {
        let options = [("com.docker.network.bridge.name".to_owned(), name.to_owned())].into();
        let request = UserNetworkRequest { options, ..request("", "", "", "") };
        UserNetwork::plan(request, around(Some("172.18.0.0/16"))).map(|planned| planned.bridge)
    };
    assert_eq!(named("lab0").unwrap(), "lab0");
    let text = named("docker0").unwrap_err().to_string();
    assert!(
        text.ends_with("(docker0): conflicts with network f00 (docker0): networks have same bridge name"),
        "{text}"
    );
}
