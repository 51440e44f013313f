//! What can be found out about a start that has failed, at that moment: later nobody knows.
//!
//! Only failures pay for this. What is asked for is bounded by the number of processes, and given up after a second.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use network::{JoinError, PortError, Protocol};

use crate::Engine;
use crate::launch::LaunchError;
use crate::networking::ConnectError;

/// How long the search for who holds a port may take: who waits for the answer waits for this, too.
const SEARCH_WITHIN: Duration = Duration::from_secs(1);

/// The facts, in words.
pub(crate) async fn facts(engine: &Engine, err: &LaunchError) -> Vec<String> {
    let LaunchError::Network(err) = err else { return Vec::new() };
    let Some(wanted) = port(err) else { return Vec::new() };
    let containers = engine.containers.all();
    let publishes = |place: &network::Place| {
        place.ports.iter().any(|one| wanted.meets(one.protocol, one.host_address, one.host_port))
    };
    let holder = containers.iter().find(|one| one.live().place.as_deref().is_some_and(publishes));
    if let Some(holder) = holder {
        return vec![format!("{wanted} is published by the container {}", holder.name())];
    }
    let found = tokio::time::timeout(SEARCH_WITHIN, bridge::blocking(move || holders(wanted))).await;
    let found = found.unwrap_or_default();
    found.into_iter().map(|(pid, name)| format!("{wanted} is held by the process {pid}, {name}")).collect()
}

/// A port of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    protocol: Protocol,
    address: IpAddr,
    port: u16,
}

impl Wanted {
    fn meets(self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        let any = self.address.is_unspecified() || address.is_unspecified();
        let meet = self.address == address || any && self.address.is_ipv4() == address.is_ipv4();
        self.protocol == protocol && self.port == port && meet
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.protocol {
            Protocol::Udp => "/udp",
            Protocol::Sctp => "/sctp",
            Protocol::Tcp => "/tcp",
        };
        write!(out, "{}{protocol}", SocketAddr::new(self.address, self.port))
    }
}

/// The port that somebody else has, if that is what is wrong.
pub(crate) fn port(err: &ConnectError) -> Option<Wanted> {
    let ConnectError::Join(JoinError::Ports { source, .. }) = err else { return None };
    match source {
        PortError::Allocated { protocol, address, port } => {
            Some(Wanted { protocol: *protocol, address: *address, port: *port })
        }
        PortError::Bind { tried, source, .. } | PortError::BindInRange { tried, source, .. } => {
            let taken = source.0.kind() == std::io::ErrorKind::AddrInUse;
            let (protocol, address, port) = (tried.protocol, tried.host_address, tried.host_port);
            taken.then_some(Wanted { protocol, address, port })
        }
        PortError::Twice(_) | PortError::Exhausted | PortError::NeedsRelay(_) | PortError::InvalidRange { .. } => None,
    }
}

/// The processes with a socket at this port, and their names. Blocks.
fn holders(wanted: Wanted) -> Vec<(u32, String)> {
    let tables: &[&str] = match wanted.protocol {
        Protocol::Udp => &["udp", "udp6"],
        _ => &["tcp", "tcp6"],
    };
    let read = |table: &&str| fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
    let links: Vec<String> = tables
        .iter()
        .map(read)
        .flat_map(|text| inodes(&text, wanted))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if links.is_empty() {
        return Vec::new();
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| links.iter().any(|wanted| link.as_os_str() == wanted.as_str()))
    };
    let name = |pid: u32| (pid, fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned());
    pids.filter(has).map(name).collect()
}

/// The inodes of sockets that listen at the port, from a table of /proc/net (proc(5)); UDP has no other state.
fn inodes(table: &str, wanted: Wanted) -> Vec<u64> {
    const LISTENS: &str = "0A";
    let is_udp = wanted.protocol == Protocol::Udp;
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        let meets = u16::from_str_radix(port, 16).ok()? == wanted.port && covers(ip(address)?, wanted.address);
        let listens = is_udp || *fields.get(3)? == LISTENS;
        if meets && listens { fields.get(9)?.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// An address as these tables write it: words of 32 bits, each in the order of bytes of this machine.
fn ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    if text.len() == 8 {
        return Some(IpAddr::V4(Ipv4Addr::from(word(0)?)));
    }
    let mut bytes = [0; 16];
    for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(index * 8)?);
    }
    Some(IpAddr::V6(Ipv6Addr::from(bytes)))
}

/// Whether a socket at that address is in the way of one at the other.
fn covers(held: IpAddr, wanted: IpAddr) -> bool {
    let held = held.to_canonical();
    // A socket at all addresses of IPv6 is often at those of IPv4, too; of which kind it is the table does not tell.
    held == Ipv6Addr::UNSPECIFIED
        || held == wanted
        || held.is_ipv4() == wanted.is_ipv4() && (held.is_unspecified() || wanted.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0
   2: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0
";

    #[test]
    fn listeners_are_found_where_they_are_in_the_way() {
        let found =
            |address: [u8; 4], port| inodes(TABLE, Wanted { protocol: Protocol::Tcp, address: address.into(), port });
        assert_eq!(found([127, 0, 0, 1], 8080), [11]);
        assert_eq!(found([0, 0, 0, 0], 8080), [11]);
        assert_eq!(found([10, 0, 0, 1], 8080), [0_u64; 0]);
        assert_eq!(found([10, 0, 0, 1], 80), [12]);
        assert_eq!(found([10, 0, 0, 1], 81), [0_u64; 0]);
        assert_eq!(ip("0000000000000000FFFF00000100007F").unwrap().to_canonical(), IpAddr::from([127, 0, 0, 1]));
    }

    #[test]
    fn we_are_found_ourselves() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let wanted = Wanted { protocol: Protocol::Tcp, address: Ipv4Addr::UNSPECIFIED.into(), port };
        let found = holders(wanted);
        assert!(found.iter().any(|(pid, name)| *pid == std::process::id() && !name.is_empty()), "{found:?}");
        assert_eq!(wanted.to_string(), format!("0.0.0.0:{port}/tcp"));
    }
}
