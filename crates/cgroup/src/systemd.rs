//! Containers as scopes of systemd: transient units, so that systemd knows of their cgroups and leaves them alone.
//!
//! ```text
//! us                                   systemd
//!   a process that waits  ---PIDs--->    StartTransientUnit: makes the cgroup, moves it there
//!   JobRemoved "done"     <----------
//!   Cgroup::create takes the directory over, the container's process is cloned into it, the waiting one ends
//!   ...
//!   the last process ends                the scope ends; StopUnit and ResetFailedUnit leave nothing of it
//! ```
//!
//! The limits are told twice: as properties, because systemd sets what it knows when it is reloaded, and in the files,
//! because it does not know all.

mod bus;
mod properties;
mod text;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use dbus::{BusError, Value};
use errdefs::ErrorKind;
use oci::runtime::Resources;
use sys::fork::{Child, fork};

use crate::facts::Version;
use bus::Bus;
pub use bus::Manager;
use properties::Property;

/// Why systemd did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The path is not one of systemd's.
    #[error("linux.cgroupsPath: {path:?} is not \"slice:prefix:name\"")]
    Path {
        /// As given.
        path: String,
    },
    /// No such slice.
    #[error("linux.cgroupsPath: invalid slice name {slice:?}")]
    Slice {
        /// As given.
        slice: String,
    },
    /// An annotation that is no property.
    #[error("annotation {name}: {value:?} is not a value of a property")]
    Property {
        /// The annotation.
        name: String,
        /// Its value.
        value: String,
    },
    /// A user without a session.
    #[error("find the user's systemd: neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS says where it is")]
    NoAddress,
    /// The socket could not be used.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which socket.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The connection broke, or nobody answered in time.
    #[error("talk to systemd")]
    Call(#[source] io::Error),
    /// What came is no message that we read.
    #[error("talk to systemd: its answer is not one")]
    Protocol,
    /// It said no.
    #[error("systemd refuses {member}: {name}: {text}")]
    Refused {
        /// The method.
        member: String,
        /// The error's name.
        name: String,
        /// What it says.
        text: String,
    },
    /// The unit did not come to be.
    #[error("start unit {unit}: {result}")]
    Job {
        /// Which.
        unit: String,
        /// How the job ended.
        result: String,
    },
    /// The process that holds the place could not be made.
    #[error("fork a process for unit {unit}")]
    Holder {
        /// Which unit.
        unit: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl SystemdError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SystemdError::Path { .. } | SystemdError::Slice { .. } | SystemdError::Property { .. } => {
                ErrorKind::InvalidArgument
            }
            _ => ErrorKind::Internal,
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SystemdError {
        let path = path.to_owned();
        move |source| SystemdError::Io { action, path, source }
    }

    fn is(&self, error: &str) -> bool {
        matches!(self, SystemdError::Refused { name, .. } if name.rsplit('.').next() == Some(error))
    }
}

impl From<BusError> for SystemdError {
    fn from(err: BusError) -> SystemdError {
        match err {
            BusError::Connect(source) | BusError::Greet(source) | BusError::Call(source) => SystemdError::Call(source),
            BusError::Protocol => SystemdError::Protocol,
            BusError::Refused { member, name, text } => SystemdError::Refused { member, name, text },
        }
    }
}

/// Where a container's scope is. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The slice, by its name.
    pub slice: String,
    /// The scope, by its name.
    pub unit: String,
    /// Its cgroup, below that of systemd itself.
    pub path: PathBuf,
}

impl Place {
    /// Reads `slice:prefix:name` (runc's form of cgroupsPath with this driver); empty for the usual slice and `id`.
    pub fn parse(path: &str, id: &str, manager: Manager) -> Result<Place, SystemdError> {
        let usual = match manager {
            Manager::System => "system.slice",
            Manager::User => "user.slice",
        };
        let [slice, prefix, name] = match path.split(':').collect::<Vec<_>>()[..] {
            [""] => [usual, "longshore", id],
            [slice, prefix, name] => [slice, prefix, name],
            _ => return Err(SystemdError::Path { path: path.to_owned() }),
        };
        let slice = if slice.is_empty() { usual } else { slice };
        let wrong = name.is_empty() || name.ends_with(".slice") || [prefix, name].iter().any(|part| part.contains('/'));
        if wrong {
            return Err(SystemdError::Path { path: path.to_owned() });
        }
        let unit = format!("{prefix}-{name}.scope");
        let path = expand(slice).ok_or_else(|| SystemdError::Slice { slice: slice.to_owned() })?.join(&unit);
        Ok(Place { slice: slice.to_owned(), unit, path })
    }
}

/// `/a.slice/a-b.slice` for `a-b.slice`: a name says where a slice is (systemd.slice(5)).
fn expand(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice").filter(|name| !name.is_empty() && !name.contains('/'))?;
    let mut path = PathBuf::from("/");
    if name == "-" {
        return Some(path);
    }
    let mut before = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        before.push_str(part);
        path.push(format!("{before}.slice"));
        before.push('-');
    }
    Some(path)
}

/// A connection to systemd.
#[derive(Debug)]
pub struct Systemd {
    bus: Bus,
    version: Version,
    release: u32,
}

/// A scope that has been made, kept alive by a process of ours until it is dropped: by then another one has to be inside.
#[derive(Debug)]
pub struct Held {
    holder: Child,
    // Its end is the holder's: also when we are killed.
    _gate: OwnedFd,
}

impl Systemd {
    /// Connects, and asks what is there. `version` is that of the host's cgroups.
    pub fn connect(manager: Manager, version: Version) -> Result<Systemd, SystemdError> {
        Systemd::connect_with(manager, version, |name| std::env::var(name).ok())
    }

    fn connect_with(
        manager: Manager,
        version: Version,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Systemd, SystemdError> {
        let mut bus = Bus::connect(manager, variable)?;
        let release = release(&bus.property("Version")?);
        Ok(Systemd { bus, version, release })
    }

    /// The cgroup of systemd itself, below which everything is that it makes: `/`, but for a user's.
    pub fn root(&mut self) -> Result<PathBuf, SystemdError> {
        let own = self.bus.property("ControlGroup")?;
        Ok(PathBuf::from("/").join(own.trim_start_matches('/')))
    }

    /// Makes the scope, with limits as properties and what annotations ask for besides.
    ///
    /// Blocks until it is there. The caller has one thread.
    pub fn start<'a>(
        &mut self,
        place: &Place,
        resources: &Resources,
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Held, SystemdError> {
        let asked = text::properties(annotations)?;
        let held = hold(&place.unit)?;
        let mut properties = usual(place, held.holder.pid.as_raw_nonzero().get() as u32, self.version);
        properties.extend(properties::of_limits(resources, self.version, self.release));
        properties.extend(asked);
        let none = Value::Array("(sa(sv))".to_owned(), Vec::new());
        let body = [Value::Text(place.unit.clone()), Value::Text("fail".to_owned()), values(properties), none];
        let job = match self.bus.manager("StartTransientUnit", &body) {
            // One that failed stays known until it is reset.
            Err(err) if err.is("UnitExists") => {
                self.reset(&place.unit)?;
                self.bus.manager("StartTransientUnit", &body)?
            }
            other => other?,
        };
        let result = self.bus.wait_for(job.first().ok_or(SystemdError::Protocol)?)?;
        if result != "done" {
            // The first error is the one to tell.
            let _ = self.reset(&place.unit);
            return Err(SystemdError::Job { unit: place.unit.clone(), result });
        }
        Ok(held)
    }

    /// Changes the limits that systemd knows of.
    pub fn update(&mut self, unit: &str, resources: &Resources) -> Result<(), SystemdError> {
        let properties = properties::of_limits(resources, self.version, self.release);
        if properties.is_empty() {
            return Ok(());
        }
        // Until the next start of the machine: the unit does not live longer, either.
        let body = [Value::Text(unit.to_owned()), Value::Bool(true), values(properties)];
        self.bus.manager("SetUnitProperties", &body).map(drop)
    }

    /// Takes the scope away; that it is not there is success.
    pub fn stop(&mut self, unit: &str) -> Result<(), SystemdError> {
        let body = [Value::Text(unit.to_owned()), Value::Text("replace".to_owned())];
        match self.bus.manager("StopUnit", &body) {
            Err(err) if err.is("NoSuchUnit") => return Ok(()),
            Err(err) => return Err(err),
            Ok(job) => drop(self.bus.wait_for(job.first().ok_or(SystemdError::Protocol)?)?),
        }
        self.reset(unit)
    }

    fn reset(&mut self, unit: &str) -> Result<(), SystemdError> {
        match self.bus.manager("ResetFailedUnit", &[Value::Text(unit.to_owned())]) {
            Err(err) if err.is("NoSuchUnit") => Ok(()),
            other => other.map(drop),
        }
    }
}

/// systemd's own rules for containers (its CONTAINER_INTERFACE.md, CGROUP_DELEGATION.md), as runc follows them.
fn usual(place: &Place, pid: u32, version: Version) -> Vec<Property> {
    let text = |text: &str| Value::Text(text.to_owned());
    let io = match version {
        Version::V1 => "BlockIOAccounting",
        Version::V2 => "IOAccounting",
    };
    let mut properties = vec![
        ("Description".to_owned(), text(&format!("longshore container {}", place.unit))),
        ("Slice".to_owned(), text(&place.slice)),
        ("PIDs".to_owned(), Value::Array("u".to_owned(), vec![Value::U32(pid)])),
        ("DefaultDependencies".to_owned(), Value::Bool(false)),
    ];
    let on = ["Delegate", "MemoryAccounting", "CPUAccounting", "TasksAccounting", io];
    properties.extend(on.map(|name| (name.to_owned(), Value::Bool(true))));
    properties
}

fn values(properties: Vec<Property>) -> Value {
    let one = |(name, value)| Value::Struct(vec![Value::Text(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".to_owned(), properties.into_iter().map(one).collect())
}

/// `252` of `252.38-1~deb12u1` or `v245.4-1.fc32`; 0 of what is no version.
fn release(version: &str) -> u32 {
    let digits = version.trim_start_matches('v');
    let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

/// A process that waits for our end of a pipe to close.
fn hold(unit: &str) -> Result<Held, SystemdError> {
    let failed = |source: io::Error| SystemdError::Holder { unit: unit.to_owned(), source };
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|err| failed(err.into()))?;
    let ours = std::cell::Cell::new(Some(writer));
    let holder = fork(Default::default(), None, || {
        drop(ours.take());
        while let Err(rustix::io::Errno::INTR) = rustix::io::read(&reader, &mut [0_u8; 1]) {}
        0
    });
    let gate = ours.take().expect("only the child takes it");
    Ok(Held { holder: holder.map_err(failed)?, _gate: gate })
}

impl Drop for Held {
    fn drop(&mut self) {
        // It is ours to reap; that it has gone already is as good.
        let _ = sys::signal::send(self.holder.pidfd.as_fd(), rustix::process::Signal::KILL.as_raw());
        let _ = sys::wait::wait(self.holder.pidfd.as_fd());
    }
}

#[cfg(test)]
mod tests;
