//! The name servers of the host.

use std::fs::{self, Metadata};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// How many servers are asked at most: what the C library (resolv.conf(5), MAXNS) and dockerd ask.
pub const SERVERS_MAX: usize = 3;

/// How much of a resolv.conf is read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The servers in the host's file, read again when that has changed.
#[derive(Debug)]
pub struct HostServers {
    path: PathBuf,
    /// What the file looked like when it was read.
    seen: Option<Stamp>,
    servers: Vec<NameServer>,
}

/// A server that a resolv.conf names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer {
    /// Its address.
    pub address: IpAddr,
    /// The interface behind which that is, by name or number; many links can have the same address of theirs (RFC 4007, 11).
    pub interface: Option<String>,
}

/// What tells two versions of a file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl HostServers {
    /// Of the file at `path`, which need not be there. Reads nothing yet.
    pub fn new(path: PathBuf) -> HostServers {
        HostServers { path, seen: None, servers: Vec::new() }
    }

    /// The servers of now. Costs one look at the file's times where nothing has changed; none where it cannot be read.
    pub fn current(&mut self) -> &[NameServer] {
        let stamp = fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        if stamp.is_none() || stamp != self.seen {
            self.servers = self.read().map(|text| name_servers(&text)).unwrap_or_default();
            self.seen = stamp;
        }
        &self.servers
    }

    fn read(&self) -> io::Result<String> {
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(fs::File::open(&self.path)?, FILE_BYTES_MAX), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// The servers that a resolv.conf names, the first [`SERVERS_MAX`] of them. As the C library reads it, the word begins its
/// line: what is indented is none (resolv.conf(5)).
pub fn name_servers(text: &str) -> Vec<NameServer> {
    let blanks = [' ', '\t'];
    let named = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("nameserver").filter(|rest| rest.starts_with(blanks))?;
        let word = rest.split(blanks).find(|word| !word.is_empty())?;
        Some(match word.split_once('%') {
            Some((address, interface)) => {
                NameServer { address: address.parse::<Ipv6Addr>().ok()?.into(), interface: Some(interface.to_owned()) }
            }
            None => NameServer { address: word.parse().ok()?, interface: None },
        })
    });
    named.take(SERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_c_library_reads_them() {
        let check = |text: &str, expected: &[&str]| {
            let printed = name_servers(text).into_iter().map(|one| match one.interface {
                Some(interface) => format!("{}%{interface}", one.address),
                None => one.address.to_string(),
            });
            assert_eq!(printed.collect::<Vec<_>>(), expected, "{text:?}");
        };
        check("", &[]);
        check("# nameserver 1.1.1.1\n;nameserver 1.1.1.2\nsearch x\nnameserver\nnameserver name\n", &[]);
        check("nameserver 10.0.0.1\nnameserver\t ::1 trailing\nnameserverx 9.9.9.9\n", &["10.0.0.1", "::1"]);
        check(" nameserver 10.0.0.1\n\tnameserver 10.0.0.2\nnameserver   10.0.0.3 \n", &["10.0.0.3"]);
        check(
            "nameserver fe80::1%eth0\nnameserver 10.0.0.1%eth0\nnameserver fe80::2%3",
            &["fe80::1%eth0", "fe80::2%3"],
        );
        check(
            "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4",
            &["1.1.1.1", "1.1.1.2", "1.1.1.3"],
        );
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut servers = HostServers::new(path.clone());
        assert_eq!(servers.current(), []);
        // Replaced, as tools of the host do it: another inode, whatever the clock says.
        for address in ["10.0.0.1", "10.0.0.2"] {
            let new = dir.path().join("new");
            fs::write(&new, format!("nameserver {address}\n")).unwrap();
            fs::rename(&new, &path).unwrap();
            assert_eq!(servers.current(), [NameServer { address: address.parse().unwrap(), interface: None }]);
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(servers.current(), []);
    }
}
