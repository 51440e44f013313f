//! Egress policies: what containers may begin connections to.
//!
//! ```text
//!   join, connect:   policies -> Guarded -> elements of the tables        before the container can send anything
//!   a name's answer: addresses -> ways -> elements that go by themselves  before the container sees the answer
//!   leave:           all of it goes, with the last endpoint the tables, too
//! ```
//! `policy` reads, `plan` decides, `table` writes, `ways` remembers. [ADR 11](../../../docs/adr/0011-egress-is-decided-before-routing.md)
//! says why it is so.

mod plan;
mod policy;
mod table;
mod told;
mod ways;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use errdefs::ErrorKind;
use netlink::nft::{self, Family, Transaction, set};
use netlink::{NetlinkError, Socket, conntrack};
use rustix::io::Errno;

use crate::driver::DriverKind;
use crate::subnet::is_of_link;
use table::{Learned, Tables};
use ways::{Way, Ways};

use plan::is_public;
pub(crate) use plan::{Guarded, link_local, openings};
pub use policy::{EGRESS, EgressFault, EgressPolicy, EgressPolicyError};
pub(crate) use table::{FORGED, TOLD_BYTES};
pub(crate) use told::Packet;

/// Why a policy cannot be had, or an address not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// Packets of such networks do not pass this machine's filter.
    #[error("egress policies need a network with a bridge, and network {network} is one of {driver}")]
    NoBridge {
        /// The network's name.
        network: String,
        /// What it is.
        driver: DriverKind,
    },
    /// Names are looked up for containers on users' networks alone.
    #[error(
        "an egress policy with names needs a network of your own (network create): containers on the default bridge ask other \
         name servers than ours"
    )]
    NoNames,
    /// A container has more addresses open than it may.
    #[error("the egress policy has too many addresses open for the container")]
    Full,
    /// The packet filter refuses it.
    #[error("write the egress policy into the packet filter")]
    Filter(#[from] NetlinkError),
}

impl EgressError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            EgressError::NoBridge { .. } | EgressError::NoNames => ErrorKind::InvalidArgument,
            EgressError::Full => ErrorKind::Unavailable,
            EgressError::Filter(err) => err.kind(),
        }
    }
}

/// What the packet filter has of policies, or is about to have.
#[derive(Debug)]
pub(crate) struct Egress {
    table: String,
    /// The endpoints with a policy, of each container that has one.
    endpoints: HashMap<String, Vec<Guarded>>,
    ways: HashMap<String, Ways>,
    /// Which tables there are, as far as this process knows.
    stands: Option<Tables>,
    /// Who is told of denials.
    group: Option<u16>,
}

impl Egress {
    /// Of an instance whose other tables have this name.
    pub(crate) fn new(table: &str) -> Egress {
        Egress {
            table: format!("{table}-egress"),
            endpoints: HashMap::new(),
            ways: HashMap::new(),
            stands: None,
            group: None,
        }
    }

    /// A container has these endpoints with a policy from now on, and no others. On an error it has those that it had, unless all that
    /// failed is to forget what an earlier owner of new addresses has begun: then it has these.
    pub(crate) fn set(&mut self, socket: &mut Socket, container: &str, now: Vec<Guarded>) -> Result<(), NetlinkError> {
        let before = self.endpoints.get(container).cloned().unwrap_or_default();
        let without = |all: &[Guarded], others: &[Guarded]| -> Vec<Guarded> {
            all.iter().filter(|one| !others.contains(one)).cloned().collect()
        };
        let (gone, new) = (without(&before, &now), without(&now, &before));
        if gone.is_empty() && new.is_empty() {
            return Ok(());
        }
        self.keep(container, now);
        if let Err(err) = self.write_change(socket, container, &gone, &new) {
            self.keep(container, before);
            return Err(err);
        }
        let is_gone = |from: IpAddr| gone.iter().any(|one| one.own.contains(&from));
        if let Some(ways) = self.ways.get_mut(container) {
            ways.retain_from(|from| !is_gone(from));
        }
        if !self.endpoints.contains_key(container) {
            self.ways.remove(container);
        }
        let own: Vec<IpAddr> = new.iter().flat_map(|one| one.own.iter().chain(&one.aside).copied()).collect();
        if !own.is_empty() {
            // What an earlier owner of the addresses began would go on without a question.
            conntrack::forget_begun_by(socket, &own)?;
        }
        Ok(())
    }

    fn keep(&mut self, container: &str, guarded: Vec<Guarded>) {
        match guarded.is_empty() {
            true => self.endpoints.remove(container),
            false => self.endpoints.insert(container.to_owned(), guarded),
        };
    }

    fn write_change(
        &mut self,
        socket: &mut Socket,
        container: &str,
        gone: &[Guarded],
        new: &[Guarded],
    ) -> Result<(), NetlinkError> {
        let (needed, stands) = (self.needed(), self.stands(socket)?);
        let missing = needed.iter().zip(stands).any(|(needed, stands)| *needed && !stands);
        if missing || !needed.contains(&true) {
            return self.replace(socket);
        }
        let mut change = Transaction::new(&self.table);
        let is_gone = |way: &Way| gone.iter().any(|one| one.own.contains(&way.from));
        let open = self.ways.get(container).map(|ways| ways.open(Instant::now())).unwrap_or_default();
        let closed: Vec<_> = open.into_iter().filter(|(way, _)| is_gone(way)).collect();
        table::learned(&mut change, &closed, Learned::Close);
        gone.iter().for_each(|one| table::endpoint(&mut change, one, false));
        let shared = self.endpoints.values().flatten().filter(|one| gone.iter().any(|gone| gone.shares(one)));
        shared.for_each(|one| table::again(&mut change, one));
        new.iter().for_each(|one| table::endpoint(&mut change, one, true));
        match change.commit(socket) {
            // Somebody flushed the packet filter.
            Err(err) if err.errno() == Some(Errno::NOENT) => self.replace(socket),
            changed => changed,
        }
    }

    /// Takes over what an earlier process has left: these endpoints, and where their names have led.
    pub(crate) fn restore(
        &mut self,
        socket: &mut Socket,
        endpoints: HashMap<String, Vec<Guarded>>,
    ) -> Result<(), NetlinkError> {
        self.endpoints = endpoints;
        let stands = self.stands(socket)?;
        let (now, mut found) = (Instant::now(), Vec::new());
        for (family, stands) in [Family::Ipv4, Family::Ipv6].into_iter().zip(stands) {
            if stands {
                match set::set_keys(socket, family, &self.table, "learned") {
                    // A table of that name that is not ours.
                    Err(NetlinkError::Refused { source, .. }) if source.is_missing() => {}
                    keys => found.extend(keys?),
                }
            }
        }
        for element in found {
            let Some((way, left)) = Way::of_key(&element.key).zip(element.timeout) else { continue };
            let owner = self.owner(way.from).map(|(container, _)| container.to_owned());
            if let Some(container) = owner {
                self.ways.entry(container).or_default().note(&[(way, left)], now);
            }
        }
        if stands.contains(&true) || !self.endpoints.is_empty() { self.replace(socket) } else { Ok(()) }
    }

    /// Writes all tables anew, in one transaction, or removes them where nobody needs them.
    pub(crate) fn replace(&mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let (needed, stands) = (self.needed(), self.stands(socket)?);
        let mut change = Transaction::new(&self.table);
        for at in 0..needed.len() {
            if needed[at] || stands[at] {
                table::turn(&mut change, at);
                // Creating it first makes deleting it succeed.
                change.create_table();
                change.delete_table();
            }
            if needed[at] {
                change.create_table();
                table::write(&mut change, at, self.group);
            }
        }
        self.endpoints.values().flatten().for_each(|one| table::endpoint(&mut change, one, true));
        let now = Instant::now();
        let open: Vec<_> = self.ways.values().flat_map(|ways| ways.open(now)).collect();
        let of_somebody: Vec<_> = open.into_iter().filter(|(way, _)| self.owner(way.from).is_some()).collect();
        table::learned(&mut change, &of_somebody, Learned::Open);
        change.commit(socket)?;
        self.stands = Some(needed);
        Ok(())
    }

    /// Opens what a name has led to, for as long as each answer says. Those addresses that names of others must not lead to are
    /// passed over.
    pub(crate) fn open(
        &mut self,
        socket: &mut Socket,
        (container, name): (&str, &str),
        addresses: &[(IpAddr, Duration)],
    ) -> Result<(), EgressError> {
        let Some(endpoints) = self.endpoints.get(container) else { return Ok(()) };
        let mut wanted = Vec::new();
        for (to, ttl) in addresses.iter().filter(|(to, _)| is_public(*to)) {
            for endpoint in endpoints {
                let own = endpoint.own.iter().filter(|own| own.is_ipv4() == to.is_ipv4() && !is_of_link(**own));
                for from in own {
                    let way = |(protocol, port)| (Way { from: *from, to: *to, protocol, port }, ways::time_of(*ttl));
                    wanted.extend(endpoint.services_of(name).into_iter().map(way));
                }
            }
        }
        let (now, ways) = (Instant::now(), self.ways.entry(container.to_owned()).or_default());
        let due = ways.due(wanted, now).map_err(|ways::Full| EgressError::Full)?;
        if due.is_empty() {
            return Ok(());
        }
        let before = ways.clone();
        ways.note(&due, now);
        let mut change = Transaction::new(&self.table);
        table::learned(&mut change, &due, Learned::Open);
        let opened = match change.commit(socket) {
            // Somebody flushed the packet filter.
            Err(err) if err.errno() == Some(Errno::NOENT) => self.replace(socket),
            opened => opened,
        };
        if opened.is_err() {
            // The next question opens them.
            self.ways.insert(container.to_owned(), before);
        }
        Ok(opened?)
    }

    /// Denials are told to a group from now on.
    pub(crate) fn tell_to(&mut self, socket: &mut Socket, group: u16) -> Result<(), NetlinkError> {
        self.group = Some(group);
        if self.endpoints.is_empty() { Ok(()) } else { self.replace(socket) }
    }

    /// Removes everything.
    pub(crate) fn remove(&mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        self.endpoints.clear();
        self.ways.clear();
        self.replace(socket)
    }

    /// Who may send from an address.
    pub(crate) fn owner(&self, source: IpAddr) -> Option<(&str, &Guarded)> {
        self.find(|one| one.own.contains(&source))
    }

    /// The first container and endpoint that are so.
    pub(crate) fn find(&self, is_so: impl Fn(&Guarded) -> bool) -> Option<(&str, &Guarded)> {
        let all =
            self.endpoints.iter().flat_map(|(container, list)| list.iter().map(move |one| (container.as_str(), one)));
        all.into_iter().find(|(_, one)| is_so(one))
    }

    fn needed(&self) -> Tables {
        table::needed(self.endpoints.values().flatten())
    }

    /// Which tables there are, perhaps an earlier daemon's.
    fn stands(&mut self, socket: &mut Socket) -> Result<Tables, NetlinkError> {
        if let Some(stands) = self.stands {
            return Ok(stands);
        }
        let stands = [
            nft::table_exists(socket, Family::Ipv4, &self.table)?,
            nft::table_exists(socket, Family::Ipv6, &self.table)?,
            nft::bridge_table_exists(socket, &self.table)?,
        ];
        self.stands = Some(stands);
        Ok(stands)
    }
}
