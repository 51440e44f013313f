//! A connection to systemd: its own socket, or a bus. Blocking, with a deadline.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dbus::{BusError, Call, Connection, Signal, Value};

use super::SystemdError;

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
    connection: Connection,
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
            match Connection::open(&address.path, address.is_bus, deadline) {
                Ok(connection) => {
                    let mut bus = Bus { connection, done: Vec::new() };
                    if address.is_bus {
                        bus.subscribe()?;
                    }
                    return Ok(bus);
                }
                Err(BusError::Connect(err)) => drop(first.get_or_insert((address.path, err))),
                Err(BusError::Greet(err)) => return Err(SystemdError::io("greet", &address.path)(err)),
                Err(err) => return Err(err.into()),
            }
        }
        match first {
            Some((path, source)) => Err(SystemdError::Io { action: "connect to systemd at", path, source }),
            None => Err(SystemdError::NoAddress),
        }
    }

    /// Asks a bus for the signals that say how jobs ended.
    fn subscribe(&mut self) -> Result<(), SystemdError> {
        let rule = format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'");
        self.connection.subscribe(rule)?;
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
            let signal = self.connection.read()?;
            self.done.extend(signal.and_then(end_of_job));
        }
    }

    /// Ends of jobs are kept.
    fn call(&mut self, call: &Call<'_>) -> Result<Vec<String>, SystemdError> {
        let answer = self.connection.call(call);
        self.done.extend(self.connection.kept_signals().filter_map(end_of_job));
        Ok(answer?.texts)
    }
}

/// The job, and how it ended.
fn end_of_job(signal: Signal) -> Option<(String, String)> {
    match (signal.member.as_str(), signal.texts.as_slice()) {
        ("JobRemoved", [job, _unit, result]) => Some((job.clone(), result.clone())),
        _ => None,
    }
}

/// Where systemd may be, the nearest first.
fn addresses(manager: Manager, variable: impl Fn(&str) -> Option<String>) -> Vec<Address> {
    let direct = |path: PathBuf| Address { path, is_bus: false };
    let bus = |path: PathBuf| Address { path, is_bus: true };
    match manager {
        Manager::System => {
            vec![direct(PathBuf::from("/run/systemd/private")), bus(dbus::system_bus(variable))]
        }
        Manager::User => {
            let runtime = variable("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()).map(PathBuf::from);
            let own = runtime.iter().map(|directory| direct(directory.join("systemd/private")));
            let said = variable("DBUS_SESSION_BUS_ADDRESS").as_deref().and_then(dbus::unix_path);
            let usual = runtime.as_deref().map(|directory| directory.join("bus"));
            own.chain(said.or(usual).map(bus)).collect()
        }
    }
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
