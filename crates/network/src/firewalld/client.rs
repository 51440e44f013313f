//! firewalld over D-Bus (firewalld.dbus(5)).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use dbus::{Body, BusError, Call, Connection, Signal, Value};

use super::plan::{POLICY, Presence, ZONE};

const NAME: &str = "org.fedoraproject.FirewallD1";
const OBJECT: &str = "/org/fedoraproject/FirewallD1";
/// Its signal.
const RELOADED: &str = "Reloaded";
const CONFIGURATION: &str = "/org/fedoraproject/FirewallD1/config";

/// How long firewalld may take for one answer: it answers nobody while it starts or is reloaded, which may be at work on
/// thousands of rules.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to the bus that firewalld is on, or may come to.
#[derive(Debug)]
pub(super) struct Client {
    connection: Connection,
    /// What happened while it was reloaded by us.
    beside_reload: News,
}

/// What has happened to firewalld.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// Nothing that concerns us.
    Nothing,
    /// It has left the bus.
    Left,
    /// It has come to the bus, or was reloaded: it knows nothing of us any more.
    Forgot,
}

impl Client {
    pub(super) fn connect(socket: &Path) -> Result<Client, BusError> {
        let mut connection = Connection::open(socket, true, deadline())?;
        connection.subscribe(format!(
            "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{NAME}'"
        ))?;
        connection.subscribe(format!(
            "type='signal',sender='{NAME}',path='{OBJECT}',interface='{NAME}',member='{RELOADED}'"
        ))?;
        Ok(Client { connection, beside_reload: News::Nothing })
    }

    /// Whether firewalld is on the bus, and filters what we see: it may be another network namespace's.
    pub(super) fn is_there(&mut self) -> Result<bool, BusError> {
        self.connection.set_deadline(deadline());
        match self.connection.bus("GetConnectionUnixProcessID", &[text(NAME)]) {
            Err(err) if err.is("NameHasNoOwner") => Ok(false),
            Err(err) => Err(err),
            Ok(body) => Ok(body.numbers.first().is_none_or(|pid| shares_our_network(*pid))),
        }
    }

    pub(super) fn zone(&mut self) -> Result<Presence, BusError> {
        if self.read("zone", "getZones", &[])?.texts.iter().any(|zone| zone == ZONE) {
            return Ok(Presence::InForce);
        }
        let kept = self.configure("getZoneNames", &[])?.texts.iter().any(|zone| zone == ZONE);
        Ok(if kept { Presence::Kept } else { Presence::Missing })
    }

    pub(super) fn policy(&mut self) -> Result<Presence, BusError> {
        match self.read("policy", "getPolicies", &[]) {
            // Older than 0.9.
            Err(err) if ["UnknownMethod", "UnknownInterface"].iter().any(|error| err.is(error)) => {
                return Ok(Presence::Unknown);
            }
            Err(err) => return Err(err),
            Ok(body) if body.texts.iter().any(|policy| policy == POLICY) => return Ok(Presence::InForce),
            Ok(_) => {}
        }
        let kept = self.configure("getPolicyNames", &[])?.texts.iter().any(|policy| policy == POLICY);
        Ok(if kept { Presence::Kept } else { Presence::Missing })
    }

    /// Puts the zone on disk, by the call that all versions have.
    pub(super) fn add_zone(&mut self) -> Result<(), BusError> {
        let pairs = || Value::Array("(ss)".to_owned(), Vec::new());
        let settings = vec![
            text("1.0"),
            text(ZONE),
            text("Bridges of containers, which their engine filters itself"),
            Value::Bool(false),
            text("ACCEPT"),
            Value::texts(&[]),
            pairs(),
            Value::texts(&[]),
            Value::Bool(false),
            Value::Array("(ssss)".to_owned(), Vec::new()),
            Value::texts(&[]),
            Value::texts(&[]),
            Value::texts(&[]),
            Value::texts(&[]),
            pairs(),
            Value::Bool(false),
        ];
        self.configure("addZone", &[text(ZONE), Value::Struct(settings)]).map(drop)
    }

    /// Puts the policy on disk.
    pub(super) fn add_policy(&mut self) -> Result<(), BusError> {
        let settings = [
            ("version", text("1.0")),
            ("description", text("What is forwarded to containers, which their engine filters itself")),
            ("ingress_zones", Value::texts(&["ANY"])),
            ("egress_zones", Value::texts(&[ZONE])),
            ("target", text("ACCEPT")),
        ];
        let entry = |(name, value)| Value::Struct(vec![text(name), Value::Variant(Box::new(value))]);
        let settings = Value::Array("{sv}".to_owned(), settings.into_iter().map(entry).collect());
        self.configure("addPolicy", &[text(POLICY), settings]).map(drop)
    }

    /// Has what is on disk put in force. That is no news to us: its signal comes before the answer.
    pub(super) fn reload(&mut self) -> Result<(), BusError> {
        self.beside_reload = self.news_kept();
        self.ask(OBJECT, NAME, "reload", &[])?;
        let others = self.connection.kept_signals().filter(|signal| signal.member != RELOADED);
        self.beside_reload = others.map(|signal| news(&signal)).fold(self.beside_reload, News::max);
        Ok(())
    }

    /// The interfaces of the zone.
    pub(super) fn interfaces(&mut self) -> Result<Vec<String>, BusError> {
        Ok(self.read("zone", "getInterfaces", &[text(ZONE)])?.texts)
    }

    /// The zone that somebody has put an interface into.
    pub(super) fn zone_of(&mut self, interface: &str) -> Result<Option<String>, BusError> {
        let zone = self.read("zone", "getZoneOfInterface", &[text(interface)])?.texts.into_iter().next();
        Ok(zone.filter(|zone| !zone.is_empty()))
    }

    pub(super) fn add(&mut self, interface: &str) -> Result<(), BusError> {
        self.read("zone", "addInterface", &[text(ZONE), text(interface)]).map(drop)
    }

    pub(super) fn remove(&mut self, interface: &str) -> Result<(), BusError> {
        self.read("zone", "removeInterface", &[text(ZONE), text(interface)]).map(drop)
    }

    /// What has happened before the last answers.
    pub(super) fn news_kept(&mut self) -> News {
        let before = std::mem::replace(&mut self.beside_reload, News::Nothing);
        self.connection.kept_signals().map(|signal| news(&signal)).fold(before, News::max)
    }

    /// What is readable.
    pub(super) fn news(&mut self) -> Result<News, BusError> {
        self.connection.set_deadline(deadline());
        Ok(self.connection.read()?.map_or(News::Nothing, |signal| news(&signal)))
    }

    fn read(&mut self, interface: &str, member: &str, body: &[Value]) -> Result<Body, BusError> {
        self.ask(OBJECT, &format!("{NAME}.{interface}"), member, body)
    }

    fn configure(&mut self, member: &str, body: &[Value]) -> Result<Body, BusError> {
        self.ask(CONFIGURATION, &format!("{NAME}.config"), member, body)
    }

    fn ask(&mut self, path: &str, interface: &str, member: &str, body: &[Value]) -> Result<Body, BusError> {
        self.connection.set_deadline(deadline());
        self.connection.call(&Call { destination: NAME, path, interface, member, body })
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

fn deadline() -> Instant {
    Instant::now() + TIMEOUT
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn news(signal: &Signal) -> News {
    match (signal.member.as_str(), signal.texts.as_slice()) {
        ("NameOwnerChanged", [name, _, owner]) if name == NAME => {
            if owner.is_empty() {
                News::Left
            } else {
                News::Forgot
            }
        }
        (RELOADED, _) => News::Forgot,
        _ => News::Nothing,
    }
}

/// Where that cannot be known (another PID namespace), it does.
fn shares_our_network(pid: u32) -> bool {
    let namespace = |process: &str| -> io::Result<(u64, u64)> {
        let found = fs::metadata(format!("/proc/{process}/ns/net"))?;
        Ok((found.dev(), found.ino()))
    };
    match (namespace(&pid.to_string()), namespace("thread-self")) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_to_firewalld_is_told_from_the_rest() {
        let told = |member: &str, texts: &[&str]| {
            let texts = texts.iter().map(|text| (*text).to_owned()).collect();
            news(&Signal { member: member.to_owned(), texts })
        };
        assert_eq!(told("NameOwnerChanged", &[NAME, "", ":1.7"]), News::Forgot);
        assert_eq!(told("NameOwnerChanged", &[NAME, ":1.7", ""]), News::Left);
        assert_eq!(told("NameOwnerChanged", &[":1.7", "", ":1.7"]), News::Nothing);
        assert_eq!(told("Reloaded", &[]), News::Forgot);
        assert_eq!(told("NameAcquired", &[":1.7"]), News::Nothing);
    }
}
