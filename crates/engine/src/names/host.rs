//! The host's own name servers, as its file names them now.

use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dns::{HostServers, NameServer};
use tokio::time::Instant;

use crate::sync::lock;

/// How long what was read counts. Every query that is forwarded asks, and the file may lie where a look at it takes long.
const FRESH: Duration = Duration::from_secs(1);

/// The servers, and the file that names them.
#[derive(Debug)]
pub(super) struct Host {
    /// Where they listen.
    port: u16,
    /// Whoever looks at the file has it until the look is done, however long that takes; others wait for the same look.
    file: Arc<tokio::sync::Mutex<HostServers>>,
    seen: Mutex<Option<Seen>>,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    servers: Arc<[SocketAddr]>,
}

impl Host {
    pub(super) fn new(resolv_conf: PathBuf, port: u16) -> Host {
        let file = Arc::new(tokio::sync::Mutex::new(HostServers::new(resolv_conf)));
        Host { port, file, seen: Mutex::default() }
    }

    /// The servers as they were a second ago at most.
    pub(super) async fn servers(self: &Arc<Host>) -> Arc<[SocketAddr]> {
        if let Some(servers) = self.fresh() {
            return servers;
        }
        let mut file = self.file.clone().lock_owned().await;
        if let Some(servers) = self.fresh() {
            return servers;
        }
        let host = self.clone();
        bridge::blocking(move || {
            let servers: Arc<[_]> = file.current().iter().map(|server| place(server, host.port)).collect();
            *lock(&host.seen) = Some(Seen { at: Instant::now(), servers: servers.clone() });
            servers
        })
        .await
    }

    fn fresh(&self) -> Option<Arc<[SocketAddr]>> {
        let seen = lock(&self.seen);
        seen.as_ref().filter(|seen| seen.at.elapsed() < FRESH).map(|seen| seen.servers.clone())
    }
}

/// Where a server listens. An interface that is not there is as good as none, as for the C library.
fn place(server: &NameServer, port: u16) -> SocketAddr {
    match (server.address, &server.interface) {
        (IpAddr::V6(address), Some(interface)) => SocketAddrV6::new(address, port, 0, index(interface)).into(),
        (address, _) => (address, port).into(),
    }
}

fn index(interface: &str) -> u32 {
    // Looked up each time: an interface that comes again has another number. Any socket knows them.
    let socket = UdpSocket::bind("127.0.0.1:0").ok();
    let named = socket.and_then(|socket| rustix::net::netdevice::name_to_index(&socket, interface).ok());
    named.or_else(|| interface.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_server_is_behind_its_interface() {
        let check = |address: &str, interface: Option<&str>, expected: &str| {
            let server = NameServer { address: address.parse().unwrap(), interface: interface.map(str::to_owned) };
            assert_eq!(place(&server, 53).to_string(), expected);
        };
        check("10.0.0.1", None, "10.0.0.1:53");
        check("fe80::1", None, "[fe80::1]:53");
        // Every network namespace has this one, under this number.
        check("fe80::1", Some("lo"), "[fe80::1%1]:53");
        check("fe80::1", Some("7"), "[fe80::1%7]:53");
        check("fe80::1", Some("nosuch"), "[fe80::1]:53");
    }

    #[tokio::test]
    async fn the_file_is_looked_at_once_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        let host = Arc::new(Host::new(path.clone(), 53));
        let first = host.servers().await;
        assert_eq!(*first, ["10.0.0.1:53".parse().unwrap()]);
        std::fs::remove_file(&path).unwrap();
        lock(&host.seen).as_mut().unwrap().at += Duration::from_secs(3600);
        assert!(Arc::ptr_eq(&host.servers().await, &first), "it was looked at again");
        *lock(&host.seen) = None;
        assert_eq!(*host.servers().await, []);
    }
}
