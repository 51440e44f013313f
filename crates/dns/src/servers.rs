//! The name servers of the host.

use std::fs::{self, Metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How many servers are asked at most: what the C library (resolv.conf(5), MAXNS) and dockerd ask.
pub const SERVERS_MAX: usize = 3;

/// Where the host says which name servers it has.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where systemd-resolved says which servers it asks itself (systemd-resolved.service(8)).
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// The address at which systemd-resolved listens, as the only one in the file that programs read.
const RESOLVED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// How much of a resolv.conf is read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The servers in the host's file, read again when that has changed.
#[derive(Debug)]
pub struct HostServers {
    file: ReadFile,
    /// That of systemd-resolved, which counts where the other one names nobody else.
    resolved: ReadFile,
}

/// A resolv.conf, as it was when it was read.
#[derive(Debug)]
struct ReadFile {
    path: PathBuf,
    /// What the file looked like.
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
    /// Of the file at `path`, which need not be there, or of systemd-resolved's where that one names nobody else. Reads nothing yet.
    pub fn new(path: PathBuf) -> HostServers {
        HostServers::of(path, RESOLVED_CONF.into())
    }

    fn of(path: PathBuf, resolved: PathBuf) -> HostServers {
        let file = |path| ReadFile { path, seen: None, servers: Vec::new() };
        HostServers { file: file(path), resolved: file(resolved) }
    }

    /// The servers of now; none where there is no file, those of before where it cannot be read. Costs one look at the file's times
    /// where nothing has changed.
    pub fn current(&mut self) -> &[NameServer] {
        self.file.look();
        if is_resolved_alone(&self.file.servers) {
            self.resolved.look();
            if self.resolved.seen.is_some() {
                return &self.resolved.servers;
            }
        }
        &self.file.servers
    }
}

impl ReadFile {
    fn look(&mut self) {
        let stamp = fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        if stamp.is_some() && stamp == self.seen {
            return;
        }
        match read(&self.path) {
            Ok(text) => (self.servers, self.seen) = (name_servers(&text), stamp),
            // For want of a descriptor, for one. That passes: until then those of before are asked, and it is tried each time.
            Err(err) if stamp.is_some() && err.kind() != io::ErrorKind::NotFound => {}
            Err(_) => (self.servers, self.seen) = (Vec::new(), None),
        }
    }
}

/// The file that says which servers the host has, and what is in it: systemd-resolved's own where /etc/resolv.conf names nobody but
/// that, as with dockerd. Containers cannot ask there. Blocks.
pub fn host_file() -> (&'static str, String) {
    let text = read(Path::new(RESOLV_CONF)).unwrap_or_default();
    let resolved = is_resolved_alone(&name_servers(&text)).then(|| read(Path::new(RESOLVED_CONF)));
    match resolved {
        Some(Ok(resolved)) => (RESOLVED_CONF, resolved),
        _ => (RESOLV_CONF, text),
    }
}

fn is_resolved_alone(servers: &[NameServer]) -> bool {
    matches!(servers, [only] if only.address == RESOLVED)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, FILE_BYTES_MAX), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
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

    #[test]
    fn what_cannot_be_read_at_the_moment_is_read_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut servers = HostServers::new(path.clone());
        let mut current = || servers.current().iter().map(|one| one.address.to_string()).collect::<Vec<_>>();
        fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(current(), ["10.0.0.1"]);
        // A directory has times, as a file has whose reader lacks descriptors, and cannot be read.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(current(), ["10.0.0.1"], "those of before");
        fs::remove_dir(&path).unwrap();
        assert_eq!(current(), [""; 0], "whoever has none names nobody");
    }

    #[test]
    fn where_systemd_resolved_answers_alone_its_own_servers_are_asked() {
        let dir = tempfile::tempdir().unwrap();
        let (file, resolved) = (dir.path().join("resolv.conf"), dir.path().join("resolved"));
        let mut servers = HostServers::of(file.clone(), resolved.clone());
        let mut current = |text: &str| {
            fs::write(&file, text).unwrap();
            servers.current().iter().map(|one| one.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(current("nameserver 127.0.0.53\n"), ["127.0.0.53"], "it says nothing of its own");
        fs::write(&resolved, "nameserver 10.0.0.1\nnameserver 10.0.0.2\n").unwrap();
        assert_eq!(current("nameserver 127.0.0.53\noptions edns0\n"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(current("nameserver 127.0.0.53\nnameserver 10.0.0.9\n"), ["127.0.0.53", "10.0.0.9"]);
        assert_eq!(current("nameserver 127.0.0.1\n"), ["127.0.0.1"]);
    }
}
