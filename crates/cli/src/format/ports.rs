//! The PORTS column.

use std::collections::BTreeMap;

use engine_api::container::Port;

/// `0.0.0.0:80->8080/tcp, 443/tcp`; neighbours are joined to ranges.
pub fn display(ports: &[Port]) -> String {
    let mut ports: Vec<&Port> = ports.iter().collect();
    ports.sort_by_key(|port| (port.private_port, port.ip.clone(), port.public_port, port.kind.clone()));
    let (mut ranges, mut mapped) = (Vec::new(), Vec::new());
    let mut open: BTreeMap<String, (u16, u16)> = BTreeMap::new();
    let mut order = Vec::new();
    for port in ports {
        let (private, public) = (port.private_port, port.public_port.unwrap_or(0));
        if !port.ip.is_empty() && public != private {
            mapped.push(format!("{}:{public}->{private}/{}", bracketed(&port.ip), port.kind));
            continue;
        }
        let key = if port.ip.is_empty() { port.kind.clone() } else { format!("{}/{}", port.ip, port.kind) };
        match open.get_mut(&key) {
            None => {
                order.push(key.clone());
                open.insert(key, (private, private));
            }
            Some((_, last)) if private == last.wrapping_add(1) => *last = private,
            Some(range) => {
                ranges.push(range_text(&key, *range));
                *range = (private, private);
            }
        }
    }
    ranges.extend(order.iter().filter_map(|key| open.get(key).map(|range| range_text(key, *range))));
    ranges.extend(mapped);
    ranges.join(", ")
}

fn range_text(key: &str, (first, last): (u16, u16)) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match key.rsplit_once('/') {
        Some((ip, kind)) => format!("{}:{range}->{range}/{kind}", bracketed(ip)),
        None => format!("{range}/{key}"),
    }
}

/// As it stands before a port.
fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined() {
        let port = |ip: &str, private_port, public_port| Port {
            ip: ip.to_owned(),
            private_port,
            public_port,
            kind: "tcp".to_owned(),
        };
        let ports = [port("", 81, None), port("", 80, None), port("0.0.0.0", 90, Some(8090)), port("", 443, None)];
        assert_eq!(display(&ports), "80-81/tcp, 443/tcp, 0.0.0.0:8090->90/tcp");
        assert_eq!(display(&[port("1.2.3.4", 5, Some(5))]), "1.2.3.4:5->5/tcp");
        assert_eq!(
            display(&[port("::", 8490, Some(8490)), port("::1", 5, Some(6))]),
            "[::]:8490->8490/tcp, [::1]:6->5/tcp"
        );
    }
}
