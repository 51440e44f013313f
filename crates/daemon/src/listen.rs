//! Where the API is served: unix sockets, TCP, and sockets that systemd holds.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::net::{AddressFamily, sockopt};

use crate::config::defaults;
use crate::inherited;

/// Mode of unix sockets: the owner, root, and the group may connect, and whoever can connect is root.
const SOCKET_MODE: u32 = 0o660;

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// `unix:///path`.
    Unix(PathBuf),
    /// `tcp://address:port`, without TLS.
    Tcp(String),
    /// `fd://`: everything that systemd has passed, or the descriptor of this number.
    Systemd(Option<i32>),
}

/// Why a place was refused. The sentence is dockerd's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    #[error("invalid bind address ({host}): unsupported proto '{proto}'")]
    Protocol { host: String, proto: String },
    #[error("invalid bind address ({0})")]
    Address(String),
}

/// Why listening failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("{} is in use: another daemon listens there", path.display())]
    InUse { path: PathBuf },
    #[error("{} exists and is no socket", path.display())]
    NoSocket { path: PathBuf },
    #[error("group {0} does not exist")]
    NoGroup(String),
    #[error("no sockets were passed by systemd")]
    NotPassed,
    #[error("inherited descriptor {number} is no listening socket")]
    Inherited { number: i32, source: io::Error },
    #[error("listen on {place}")]
    Io { place: String, source: io::Error },
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix(UnixSocket),
    Tcp(std::net::TcpListener),
    /// Where metrics are served, and nothing else.
    Metrics(std::net::TcpListener),
}

/// A unix socket that listens, and the file it was bound to, if we made it.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    pub(crate) listener: UnixListener,
    pub(crate) file: Option<SocketFile>,
}

/// The file of a socket that we have made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Host {
    /// Parses what follows `-H`.
    pub(crate) fn parse(text: &str) -> Result<Host, HostError> {
        let (proto, address) = text.split_once("://").unwrap_or(("tcp", text));
        match proto {
            "unix" if address.is_empty() => Ok(Host::Unix(defaults::SOCKET.into())),
            "unix" if Path::new(address).is_absolute() => Ok(Host::Unix(address.into())),
            "tcp" => tcp_address(address).map(Host::Tcp).ok_or_else(|| HostError::Address(text.to_owned())),
            "fd" if matches!(address, "" | "*") => Ok(Host::Systemd(None)),
            "fd" => address
                .parse()
                .map(|number| Host::Systemd(Some(number)))
                .map_err(|_| HostError::Address(text.to_owned())),
            "unix" => Err(HostError::Address(text.to_owned())),
            _ => Err(HostError::Protocol { host: text.to_owned(), proto: proto.to_owned() }),
        }
    }
}

/// Listens at all places, or at none.
pub(crate) fn listen(hosts: &[Host], metrics: Option<&str>, group: Option<&str>) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::new();
    if let Some(address) = metrics {
        listeners.push(Listener::Metrics(listen_tcp(address)?));
    }
    for host in hosts {
        match host {
            Host::Unix(path) => listeners.push(Listener::Unix(listen_unix(path, group)?)),
            Host::Tcp(address) => listeners.push(Listener::Tcp(listen_tcp(address)?)),
            Host::Systemd(wanted) => {
                let numbers = inherited::systemd_sockets();
                let numbers: Vec<i32> =
                    numbers.filter(|number| wanted.is_none_or(|wanted| wanted == *number)).collect();
                if numbers.is_empty() {
                    return Err(ListenError::NotPassed);
                }
                for number in numbers {
                    listeners.push(adopt(number).map_err(|source| ListenError::Inherited { number, source })?);
                }
            }
        }
    }
    Ok(listeners)
}

/// Makes a unix socket: bound under another name, given owner and mode, and only then moved to its place. So there is no
/// moment at which the wrong people can connect, or at which a socket that is being replaced is missing.
fn listen_unix(path: &Path, group: Option<&str>) -> Result<UnixSocket, ListenError> {
    let gid = socket_group(group)?;
    let failed = |source| ListenError::Io { place: path.display().to_string(), source };
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    };
    fs::create_dir_all(dir).map_err(failed)?;
    // Addresses of sockets end at 107 bytes, paths do not: the way goes over a descriptor.
    let held = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let held = held.map_err(|err| failed(err.into()))?;
    let near = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    require_free(path, &near.join(name))?;
    let (listener, made) = bind(&near, name, gid).map_err(failed)?;
    let file = SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() };
    Ok(UnixSocket { listener, file: Some(file) })
}

/// Refuses a place where somebody listens, or that is no socket; a socket that nobody serves any more is free.
fn require_free(path: &Path, near: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(near) {
        Err(_) => return Ok(()),
        Ok(meta) if !meta.file_type().is_socket() => return Err(ListenError::NoSocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match UnixStream::connect(near) {
        Ok(_) => Err(ListenError::InUse { path: path.to_owned() }),
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(source) => Err(ListenError::Io { place: path.display().to_string(), source }),
    }
}

fn bind(dir: &Path, name: &OsStr, gid: u32) -> io::Result<(UnixListener, fs::Metadata)> {
    let mut temporary_name = OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}", std::process::id()));
    let temporary = dir.join(temporary_name);
    // Left by a process with our number that was killed between the lines below.
    stdx::fs::remove_if_exists(&temporary)?;
    let listener = UnixListener::bind(&temporary)?;
    let made = place(&temporary, &dir.join(name), gid);
    if made.is_err() {
        // Why there is no socket says more than why its first name is still there.
        let _ = fs::remove_file(&temporary);
    }
    listener.set_nonblocking(true)?;
    Ok((listener, made?))
}

/// Gives a socket its owner and mode, and its place.
fn place(temporary: &Path, path: &Path, gid: u32) -> io::Result<fs::Metadata> {
    chown(temporary, Some(0), Some(gid))?;
    fs::set_permissions(temporary, fs::Permissions::from_mode(SOCKET_MODE))?;
    let made = fs::symlink_metadata(temporary)?;
    fs::rename(temporary, path)?;
    Ok(made)
}

fn listen_tcp(address: &str) -> Result<std::net::TcpListener, ListenError> {
    let failed = |source| ListenError::Io { place: format!("tcp://{address}"), source };
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(failed)?.collect();
    let listener = std::net::TcpListener::bind(addresses.as_slice()).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn adopt(number: i32) -> io::Result<Listener> {
    let fd: OwnedFd = inherited::take(number)?;
    if !sockopt::socket_acceptconn(&fd)? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::io::ioctl_fionbio(&fd, true)?;
    match sockopt::socket_domain(&fd)? {
        AddressFamily::UNIX => Ok(Listener::Unix(UnixSocket { listener: fd.into(), file: None })),
        _ => Ok(Listener::Tcp(fd.into())),
    }
}

/// The group that owns unix sockets: the one that was asked for, else `docker`, else `longshore`, else root's.
fn socket_group(wanted: Option<&str>) -> Result<u32, ListenError> {
    // A file that cannot be read has no groups: then only numbers can be asked for.
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    match wanted {
        Some(name) => {
            find_group(&groups, name).or_else(|| name.parse().ok()).ok_or(ListenError::NoGroup(name.to_owned()))
        }
        None => Ok(find_group(&groups, default_group(&groups)).unwrap_or(0)),
    }
}

/// The group that owns the socket of a systemd unit.
pub(crate) fn unit_group() -> &'static str {
    default_group(&fs::read_to_string("/etc/group").unwrap_or_default())
}

fn default_group(groups: &str) -> &'static str {
    ["docker", "longshore"].into_iter().find(|name| find_group(groups, name).is_some()).unwrap_or("root")
}

/// The number of a group in the text of group(5).
fn find_group(groups: &str, name: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?)
}

/// Adds what dockerd adds: `localhost` and port 2375.
fn tcp_address(address: &str) -> Option<String> {
    let (host, port) = match address.rsplit_once(':') {
        // The colons of a bare IPv6 address.
        Some((host, _)) if host.contains(':') && !host.ends_with(']') => (address, "2375"),
        Some((host, port)) => (host, port),
        None => (address, "2375"),
    };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    port.parse::<u16>().ok()?;
    Some(if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    })
}

impl SocketFile {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the file aside, so that nobody new can connect; [`restore`](Self::restore) moves it back.
    pub(crate) fn hide(&self) -> io::Result<()> {
        if self.is_ours() { fs::rename(&self.path, self.hidden()) } else { Ok(()) }
    }

    /// Undoes [`hide`](Self::hide).
    pub(crate) fn restore(&self) -> io::Result<()> {
        fs::rename(self.hidden(), &self.path)
    }

    /// Removes the file, hidden or not, unless another daemon has put its own in its place.
    pub(crate) fn remove(&self) -> io::Result<()> {
        stdx::fs::remove_if_exists(&self.hidden())?;
        if self.is_ours() { fs::remove_file(&self.path) } else { Ok(()) }
    }

    fn hidden(&self) -> PathBuf {
        let mut hidden = self.path.clone().into_os_string();
        hidden.push(format!(".{}.closing", std::process::id()));
        hidden.into()
    }

    fn is_ours(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.device, self.inode))
    }
}

#[cfg(test)]
mod tests;
