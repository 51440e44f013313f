//! A connection to systemd: its own socket, or a bus. Blocking, with a deadline.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::SystemdError;
use super::wire::{Call, HEAD_BYTES, Kind, Received, Value, length};

/// How long systemd may take for everything that it is asked in one go; runc's.
const TIMEOUT: Duration = Duration::from_secs(30);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Which of the systemds of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// The first process of the machine.
    System,
    /// The one of the calling user.
    User,
}

/// A connection, ready for calls.
#[derive(Debug)]
pub(crate) struct Bus {
    socket: UnixStream,
    serial: u32,
    deadline: Instant,
    /// Jobs that are done, with their results: the signal may come before the answer that names the job.
    done: Vec<(String, String)>,
}

/// An address, and whether somebody stands between: a bus wants to be greeted, and told what to pass on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    path: PathBuf,
    is_bus: bool,
}

impl Bus {
    /// Connects to the first that answers. systemd's own sockets come first: nobody stands between, and there they are
    /// always, where a bus may not be installed.
    pub(crate) fn connect(manager: Manager, variable: impl Fn(&str) -> Option<String>) -> Result<Bus, SystemdError> {
        let deadline = Instant::now() + TIMEOUT;
        let mut first = None;
        for address in addresses(manager, variable) {
            match UnixStream::connect(&address.path) {
                Ok(socket) => {
                    let mut bus = Bus { socket, serial: 0, deadline, done: Vec::new() };
                    bus.greet(address.is_bus).map_err(SystemdError::io("greet", &address.path))?;
                    if address.is_bus {
                        bus.subscribe()?;
                    }
                    return Ok(bus);
                }
                Err(err) => drop(first.get_or_insert((address.path, err))),
            }
        }
        match first {
            Some((path, source)) => Err(SystemdError::Io { action: "connect to systemd at", path, source }),
            None => Err(SystemdError::NoAddress),
        }
    }

    /// Proves who we are (D-Bus specification, "Authentication Protocol", EXTERNAL: the socket knows).
    fn greet(&mut self, is_bus: bool) -> io::Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        // All at once, as systemd's own clients do: a message that comes to its socket together with BEGIN is looked at
        // only when something else happens there (seen with 252).
        self.send(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.receive(&mut byte)?;
            line.push(byte[0]);
            if line.len() > LINE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if is_bus {
            let bus = "org.freedesktop.DBus";
            let call =
                Call { destination: bus, path: "/org/freedesktop/DBus", interface: bus, member: "Hello", body: &[] };
            self.call(&call).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Asks a bus for the signals that say how jobs ended.
    fn subscribe(&mut self) -> Result<(), SystemdError> {
        let bus = "org.freedesktop.DBus";
        let rule = format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'");
        let body = &[Value::Text(rule)];
        self.call(&Call { destination: bus, path: "/org/freedesktop/DBus", interface: bus, member: "AddMatch", body })?;
        self.manager("Subscribe", &[]).map(drop)
    }

    /// A method of systemd's manager.
    pub(crate) fn manager(&mut self, member: &str, body: &[Value]) -> Result<Vec<String>, SystemdError> {
        self.call(&Call { destination: SYSTEMD, path: OBJECT, interface: MANAGER, member, body })
    }

    /// A property of systemd's manager that is a text.
    pub(crate) fn property(&mut self, name: &str) -> Result<String, SystemdError> {
        let interface = "org.freedesktop.DBus.Properties";
        let body = &[Value::Text(MANAGER.to_owned()), Value::Text(name.to_owned())];
        let texts = self.call(&Call { destination: SYSTEMD, path: OBJECT, interface, member: "Get", body })?;
        texts.into_iter().next().ok_or(SystemdError::Protocol)
    }

    /// Waits for the end of a job that a call has named; its result.
    pub(crate) fn wait_for(&mut self, job: &str) -> Result<String, SystemdError> {
        loop {
            if let Some((_, result)) = self.done.iter().find(|(known, _)| known == job) {
                return Ok(result.clone());
            }
            self.next()?;
        }
    }

    fn call(&mut self, call: &Call<'_>) -> Result<Vec<String>, SystemdError> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&call.message(serial)).map_err(SystemdError::Call)?;
        loop {
            let received = self.next()?;
            match received.kind {
                Kind::Answer(to) if to == serial => return Ok(received.texts),
                Kind::Error(to, name) if to == serial => {
                    let text = received.texts.into_iter().next().unwrap_or_default();
                    return Err(SystemdError::Refused { member: call.member.to_owned(), name, text });
                }
                _ => {}
            }
        }
    }

    /// The next message; ends of jobs are kept.
    fn next(&mut self) -> Result<Received, SystemdError> {
        let mut head = [0; HEAD_BYTES];
        self.receive(&mut head).map_err(SystemdError::Call)?;
        let length = length(&head).ok_or(SystemdError::Protocol)?;
        let mut message = head.to_vec();
        message.resize(length, 0);
        self.receive(&mut message[HEAD_BYTES..]).map_err(SystemdError::Call)?;
        let received = Received::parse(&message).ok_or(SystemdError::Protocol)?;
        if received.kind == Kind::Signal("JobRemoved".to_owned())
            && let [job, _unit, result] = received.texts.as_slice()
        {
            self.done.push((job.clone(), result.clone()));
        }
        Ok(received)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write_all(bytes)
    }

    fn receive(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read_exact(bytes)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// More than a line of the greeting ever is.
const LINE_MAX: usize = 1024;

/// Where systemd may be, the nearest first.
fn addresses(manager: Manager, variable: impl Fn(&str) -> Option<String>) -> Vec<Address> {
    let direct = |path: PathBuf| Address { path, is_bus: false };
    let bus = |path: PathBuf| Address { path, is_bus: true };
    match manager {
        Manager::System => {
            let said = variable("DBUS_SYSTEM_BUS_ADDRESS").as_deref().and_then(unix_path).map(bus);
            let usual = || bus(PathBuf::from("/run/dbus/system_bus_socket"));
            vec![direct(PathBuf::from("/run/systemd/private")), said.unwrap_or_else(usual)]
        }
        Manager::User => {
            let runtime = variable("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()).map(PathBuf::from);
            let own = runtime.iter().map(|directory| direct(directory.join("systemd/private")));
            let said = variable("DBUS_SESSION_BUS_ADDRESS").as_deref().and_then(unix_path);
            let usual = runtime.as_deref().map(|directory| directory.join("bus"));
            own.chain(said.or(usual).map(bus)).collect()
        }
    }
}

/// The path of the first address of a list that has one (D-Bus specification, "Server Addresses").
fn unix_path(addresses: &str) -> Option<PathBuf> {
    let options = addresses.split(';').find_map(|address| address.strip_prefix("unix:"))?;
    let path = options.split(',').find_map(|option| option.strip_prefix("path="))?;
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().map(|path| Path::new(&path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemds_own_socket_is_tried_before_a_bus() {
        let paths = |manager, variables: &[(&str, &str)]| -> Vec<String> {
            let variable =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
            let found = addresses(manager, variable);
            found.iter().map(|one| format!("{}{}", one.path.display(), if one.is_bus { "+" } else { "" })).collect()
        };
        assert_eq!(paths(Manager::System, &[]), ["/run/systemd/private", "/run/dbus/system_bus_socket+"]);
        let set = [("DBUS_SYSTEM_BUS_ADDRESS", "tcp:host=x;unix:guid=1,path=/a%20b")];
        assert_eq!(paths(Manager::System, &set), ["/run/systemd/private", "/a b+"]);
        assert_eq!(paths(Manager::User, &[("XDG_RUNTIME_DIR", "/r")]), ["/r/systemd/private", "/r/bus+"]);
        assert_eq!(paths(Manager::User, &[("DBUS_SESSION_BUS_ADDRESS", "unix:path=/b")]), ["/b+"]);
        assert!(paths(Manager::User, &[("DBUS_SESSION_BUS_ADDRESS", "unix:abstract=x")]).is_empty());
    }
}
