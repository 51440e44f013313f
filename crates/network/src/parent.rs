//! Networks whose containers have links on top of one of this machine's: macvlan and ipvlan. And those whose container has that
//! link itself, which moves into its namespace under the name that it has, and comes back.
//!
//! ```text
//!  the machine's switch === eth0 --- eth0.50 (802.1Q) --+-- eth0 of a container    (nothing of it on this machine)
//!                                                       +-- eth0 of another one
//! ```
//! Who is on the other side of the parent is the containers' neighbour; this machine itself is not, for the kernel passes
//! nothing between a link and those on top of it. So there are no rules, no published ports and no gateway of ours.
//!
//! The parent is one of this machine's links, which stays what it is. One that is missing and named `LINK.VID` is made, for the
//! first network that names it, and goes with the last. Where none is named a link that leads nowhere is made.

use std::collections::BTreeMap;

use errdefs::ErrorKind;
use netlink::link::{self, Upper};
use netlink::{NetlinkError, Socket, address};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::driver::DriverKind;
use crate::error::{NetworkError, SystemReason};
use crate::subnet::{Subnet, is_of_link};

const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";

/// How many characters of a network's id its own parent is named by, as with dockerd.
const ID_IN_NAME: usize = 12;
/// Tags are numbers of 12 bits; the first and the last mean something else (IEEE 802.1Q-2018, table 9-2).
const VLAN_IDS: std::ops::RangeInclusive<i64> = 1..=4094;

/// A link of this machine's, and what is put on top of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentDriver {
    /// The link's name.
    pub parent: String,
    /// Whose it is.
    pub origin: Origin,
    /// What containers get.
    pub mode: UpperMode,
}

/// Where a parent is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// It was there, and stays when its networks go.
    Machine,
    /// Made for the network: what it carries is tagged on the link below.
    Vlan,
    /// Made for the network, which leads nowhere.
    Nowhere,
}

/// What containers get on top of a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpperMode {
    /// A link with an Ethernet address of its own.
    Macvlan(MacvlanMode),
    /// A link with the parent's Ethernet address.
    Ipvlan(IpvlanMode, IpvlanFlag),
    /// The parent itself.
    Whole,
}

/// Who sees whom among links on top of one parent (linux/if_link.h, `macvlan_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// Nobody anybody, not even by way of a switch that sends frames back.
    Private,
    /// By way of such a switch.
    Vepa,
    /// All each other.
    Bridge,
    /// There is one, which has the parent's Ethernet address changed to its own.
    Passthru,
}

/// What decides where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    /// Its Ethernet address; the container asks for that of a gateway.
    L2,
    /// Its address; there are no broadcasts, and whoever is outside needs a route.
    L3,
    /// Likewise, but it passes this machine's packet filter.
    L3s,
}

/// Who sees whom among links on top of one parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanFlag {
    /// All each other.
    Bridge,
    /// Nobody anybody.
    Private,
    /// By way of a switch that sends frames back.
    Vepa,
}

/// Why a network cannot have its parent, or a container its place on it. The sentences are dockerd's, but for that about
/// the kernel.
#[derive(Debug, thiserror::Error)]
pub enum ParentError {
    /// No such mode.
    #[error("requested {driver} mode '{given}' is not valid, '{default}' mode is the {driver} driver default")]
    Mode {
        /// Of which driver.
        driver: DriverKind,
        /// As given.
        given: String,
        /// Which one it is unless somebody says otherwise.
        default: &'static str,
    },
    /// No such flag.
    #[error("requested ipvlan flag '{0}' is not valid, 'bridge' is the ipvlan driver default")]
    Flag(String),
    /// Nothing can be put on top of lo.
    #[error("loopback interface is not a valid {0} parent link")]
    Loopback(DriverKind),
    /// Who has the only link on top of a parent shares it with nobody.
    #[error("cannot use mode passthru, macvlan network {other} is already using parent interface {parent}")]
    PassthruOfOthers {
        /// The id of the network that has it.
        other: String,
        /// The parent.
        parent: String,
    },
    /// Likewise, from the other side.
    #[error("macvlan network {other} is already using parent interface {parent} in mode passthru")]
    Passthru {
        /// The id of the network that has it.
        other: String,
        /// The parent.
        parent: String,
    },
    /// Networks of ipvlan share no parent.
    #[error("network di-{} is already using parent interface {parent}", &other[..ID_IN_NAME.min(other.len())])]
    Taken {
        /// The id of the network that has it.
        other: String,
        /// The parent.
        parent: String,
    },
    /// The link itself is wanted, and none is named.
    #[error("the network driver host-interface takes the name of a link: -o parent=eth1")]
    NoParent,
    /// One network has it.
    #[error("network {other} has the interface {parent}")]
    Had {
        /// The id of that network.
        other: String,
        /// The link.
        parent: String,
    },
    /// It cannot leave.
    #[error("move the interface {parent} into the container")]
    Move {
        /// The link.
        parent: String,
        /// The kernel's reason.
        source: SystemReason,
    },
    /// There is no such link, and its name does not say how to make it.
    #[error("invalid subinterface vlan name {0}, example formatting is eth0.10")]
    NoVlanName(String),
    /// Likewise.
    #[error("required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {0}")]
    VlanName(String),
    /// What follows the dot is no number.
    #[error("unable to parse a valid vlan id from: {0} (ex. eth0.10 for vlan 10)")]
    NoVlanId(String),
    /// It is none of a tag.
    #[error("vlan id must be between 1-4094, received: {0}")]
    VlanId(i64),
    /// The link that would carry the tags is not there.
    #[error("-o parent interface was not found on the host: {0}")]
    NoVlanParent(String),
    /// The kernel refuses it.
    #[error("failed to create {name} vlan link")]
    Vlan {
        /// Its name.
        name: String,
        /// The kernel's reason.
        source: SystemReason,
    },
    /// The kernel was built without it, or its module is missing.
    #[error("the kernel of this machine has no {driver}: neither built in nor as a module that can be loaded")]
    NotInKernel {
        /// Which driver.
        driver: DriverKind,
    },
    /// It is gone.
    #[error("the requested parent interface {0} was not found on the Docker host")]
    Missing(String),
    /// The kernel refuses a link on top of it.
    #[error("failed to create the {driver} port")]
    Port {
        /// Which driver.
        driver: &'static str,
        /// The kernel's reason.
        source: SystemReason,
    },
    /// Somebody on top of the same parent has the Ethernet address, or the kernel does not take it.
    #[error("failed to add interface {interface} to sandbox: error setting interface \"{interface}\" MAC to \"{mac}\"")]
    Mac {
        /// The interface, by its name in the container.
        interface: String,
        /// The address.
        mac: String,
        /// The kernel's reason.
        source: SystemReason,
    },
    /// Links of ipvlan have their parent's, and the parent has its own.
    #[error(
        "failed to create endpoint {endpoint} on network {network}: {driver} interfaces do not support custom mac address \
         assignment"
    )]
    OwnMac {
        /// Which driver.
        driver: DriverKind,
        /// The container's name.
        endpoint: String,
        /// The network's name.
        network: String,
    },
}

impl ParentError {
    /// What a caller can do about it. dockerd marks none of these.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ParentError::NotInKernel { .. } => ErrorKind::NotImplemented,
            _ => ErrorKind::Internal,
        }
    }
}

impl ParentDriver {
    /// Reads the options of a new network with this id. Of bridges and configurations there is nothing here to read.
    pub(crate) fn plan(
        kind: DriverKind,
        given: &BTreeMap<String, String>,
        id: &str,
    ) -> Result<ParentDriver, ParentError> {
        let text = |option| given.get(option).map_or("", String::as_str);
        let mode = match kind {
            DriverKind::Ipvlan => ipvlan(text(IPVLAN_MODE), text(IPVLAN_FLAG))?,
            DriverKind::Macvlan | DriverKind::Bridge | DriverKind::Template => macvlan(text(MACVLAN_MODE))?,
            DriverKind::HostInterface => UpperMode::Whole,
        };
        match text(PARENT) {
            "lo" => Err(ParentError::Loopback(kind)),
            "" if kind == DriverKind::HostInterface => Err(ParentError::NoParent),
            "" => {
                let parent = format!("{}-{}", own_prefix(kind), &id[..ID_IN_NAME]);
                Ok(ParentDriver { parent, origin: Origin::Nowhere, mode })
            }
            parent => Ok(ParentDriver { parent: parent.to_owned(), origin: Origin::Machine, mode }),
        }
    }

    pub(crate) fn kind(&self) -> DriverKind {
        match self.mode {
            UpperMode::Macvlan(_) => DriverKind::Macvlan,
            UpperMode::Ipvlan(..) => DriverKind::Ipvlan,
            UpperMode::Whole => DriverKind::HostInterface,
        }
    }

    /// Refuses a parent that another network does not share. As with dockerd those of the other driver are not looked at.
    pub(crate) fn check<'a>(
        &self,
        others: impl Iterator<Item = (&'a str, &'a ParentDriver)>,
    ) -> Result<(), ParentError> {
        let same = |other: &&(&str, &ParentDriver)| other.1.parent == self.parent && other.1.kind() == self.kind();
        for (id, other) in others.filter(|other| same(&other)) {
            let (other, mode, parent) = (id.to_owned(), other.mode, self.parent.clone());
            match (self.mode, mode) {
                (UpperMode::Whole, _) => return Err(ParentError::Had { other, parent }),
                (UpperMode::Ipvlan(..), _) => return Err(ParentError::Taken { other, parent }),
                (UpperMode::Macvlan(MacvlanMode::Passthru), _) => {
                    return Err(ParentError::PassthruOfOthers { other, parent });
                }
                (_, UpperMode::Macvlan(MacvlanMode::Passthru)) => {
                    return Err(ParentError::Passthru { other, parent });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether packets are led by their addresses alone, so that there is nobody to hand them to.
    pub(crate) fn is_routed(&self) -> bool {
        matches!(self.mode, UpperMode::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _))
    }

    /// Whether somebody leads outward unless it is said that nobody does.
    pub(crate) fn has_gateway(&self) -> bool {
        !self.is_routed() && self.mode != UpperMode::Whole
    }

    /// Whether containers choose their Ethernet addresses.
    pub(crate) fn has_macs(&self) -> bool {
        matches!(self.mode, UpperMode::Macvlan(_))
    }

    /// What the kernel is to be asked for, unless it is for the parent itself.
    pub(crate) fn upper(&self) -> Option<Upper> {
        Some(match self.mode {
            UpperMode::Whole => return None,
            UpperMode::Macvlan(mode) => Upper::Macvlan {
                mode: match mode {
                    MacvlanMode::Private => 1,
                    MacvlanMode::Vepa => 2,
                    MacvlanMode::Bridge => 4,
                    MacvlanMode::Passthru => 8,
                },
            },
            UpperMode::Ipvlan(mode, flag) => Upper::Ipvlan {
                mode: match mode {
                    IpvlanMode::L2 => 0,
                    IpvlanMode::L3 => 1,
                    IpvlanMode::L3s => 2,
                },
                flags: match flag {
                    IpvlanFlag::Bridge => 0,
                    IpvlanFlag::Private => 1,
                    IpvlanFlag::Vepa => 2,
                },
            },
        })
    }

    /// The parent as it is, and what it is to get back when a container has had it.
    pub(crate) fn lend(&self, route: &mut Socket) -> Result<(link::Link, Lent), NetworkError> {
        let found = find(route, &self.parent)?.ok_or_else(|| ParentError::Missing(self.parent.clone()))?;
        let own = address::list(route)?.into_iter().filter(|one| one.index == found.index);
        // What the kernel has made for the link, it makes again.
        let given = own.filter(|one| !is_of_link(one.address));
        let addresses = given.map(|one| Subnet { address: one.address, prefix: one.prefix }).collect();
        let lent = Lent { name: found.name.clone(), addresses, up: found.up };
        Ok((found, lent))
    }

    /// Notes whether the parent is the machine's, or that of another network which `made` it, or is to be made; refuses what
    /// cannot be.
    pub(crate) fn claim(&mut self, made: bool, route: &mut Socket) -> Result<(), NetworkError> {
        let Some(upper) = self.upper() else { return self.lend(route).map(drop) };
        if !link::is_known(route, upper)? {
            return Err(ParentError::NotInKernel { driver: self.kind() }.into());
        }
        if self.origin == Origin::Nowhere {
            return Ok(());
        }
        self.origin = match (find(route, &self.parent)?, made) {
            (Some(_), false) => Origin::Machine,
            (Some(_), true) => Origin::Vlan,
            (None, _) => {
                let (below, id) = vlan(&self.parent)?;
                find(route, below)?.ok_or_else(|| ParentError::NoVlanParent(below.to_owned()))?;
                tag(id)?;
                Origin::Vlan
            }
        };
        Ok(())
    }

    /// The number of the parent, which is made where it is missing and ours to make.
    pub(crate) fn ensure(&self, route: &mut Socket) -> Result<u32, NetworkError> {
        if let Some(found) = find(route, &self.parent)? {
            return Ok(found.index);
        }
        match self.origin {
            Origin::Machine => return Err(ParentError::Missing(self.parent.clone()).into()),
            Origin::Vlan => make_vlan(&self.parent, route)?,
            Origin::Nowhere => make_end(&self.parent, route)?,
        }
        let made = find(route, &self.parent)?.ok_or_else(|| ParentError::Missing(self.parent.clone()))?;
        Ok(made.index)
    }
}

/// A link of the machine's while a container has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lent {
    /// Its name on the machine.
    pub(crate) name: String,
    /// Its addresses there, with the lengths of their prefixes.
    pub(crate) addresses: Vec<Subnet>,
    /// Whether it was up.
    pub(crate) up: bool,
}

impl Lent {
    /// Gives it back what it had, once it is there again; nothing where it is not.
    pub(crate) fn restore(&self, route: &mut Socket) -> Result<(), NetworkError> {
        let Some(found) = find(route, &self.name)? else { return Ok(()) };
        let up = self.up.then(|| link::set_up(&self.name));
        let index = found.index;
        let add = |one: &Subnet| address::add(address::Address { index, address: one.address, prefix: one.prefix });
        Ok(route.apply(up.into_iter().chain(self.addresses.iter().map(add)).collect())?)
    }
}

/// The error about what the kernel refused, if it did; or the one about asking.
pub(crate) fn refused(err: NetlinkError, to: impl FnOnce(SystemReason) -> ParentError) -> NetworkError {
    match err.errno() {
        Some(errno) => to(SystemReason(errno.into())).into(),
        None => err.into(),
    }
}

fn make_vlan(name: &str, route: &mut Socket) -> Result<(), NetworkError> {
    let (below, id) = vlan(name)?;
    let lower = find(route, below)?.ok_or_else(|| ParentError::NoVlanParent(below.to_owned()))?;
    let failed = |source| ParentError::Vlan { name: name.to_owned(), source };
    route.apply(vec![link::create_vlan(name, lower.index, tag(id)?)]).map_err(|err| refused(err, failed))?;
    Ok(route.apply(vec![link::set_up(name)])?)
}

/// A link that leads nowhere. A kernel without such links has pairs at least, of which the other end is nobody's.
fn make_end(name: &str, route: &mut Socket) -> Result<(), NetworkError> {
    // As long as the name, which is as long as a name can be.
    let other = format!("dp{}", &name[2..]);
    let ends = match route.apply(vec![link::create_dummy(name)]) {
        Ok(()) => vec![name],
        Err(err) if err.errno() == Some(Errno::OPNOTSUPP) => {
            route.apply(vec![link::create_loose_pair(name, &other)])?;
            vec![name, &other]
        }
        Err(err) => return Err(err.into()),
    };
    // This machine has no part in it.
    let quiet = ends.iter().map(|end| link::without_link_local(end)).collect();
    if let Err(err) = route.apply(quiet) {
        // A kernel without IPv6 makes no such addresses.
        tracing::debug!(%err, "a link of nobody's may have an address of its own");
    }
    Ok(route.apply(ends.iter().map(|end| link::set_up(end)).collect())?)
}

/// The link of this name. The kernel takes no longer ones, so there is none.
fn find(route: &mut Socket, name: &str) -> Result<Option<link::Link>, NetlinkError> {
    if name.len() > link::NAME_MAX { Ok(None) } else { link::by_name(route, name) }
}

/// The link below one that tags, by its name, and the number that is to be its tag.
fn vlan(name: &str) -> Result<(&str, i64), ParentError> {
    let mut parts = name.split('.');
    let (below, id) = match (parts.next(), parts.next(), parts.next()) {
        (_, None, _) => return Err(ParentError::NoVlanName(name.to_owned())),
        (Some(below), Some(id), None) => (below, id),
        _ => return Err(ParentError::VlanName(name.to_owned())),
    };
    Ok((below, id.parse().map_err(|_| ParentError::NoVlanId(id.to_owned()))?))
}

fn tag(id: i64) -> Result<u16, ParentError> {
    u16::try_from(id).ok().filter(|_| VLAN_IDS.contains(&id)).ok_or(ParentError::VlanId(id))
}

fn own_prefix(kind: DriverKind) -> &'static str {
    if kind == DriverKind::Ipvlan { "di" } else { "dm" }
}

fn macvlan(given: &str) -> Result<UpperMode, ParentError> {
    let mode = match given {
        "" | "bridge" => MacvlanMode::Bridge,
        "private" => MacvlanMode::Private,
        "vepa" => MacvlanMode::Vepa,
        "passthru" => MacvlanMode::Passthru,
        _ => return Err(unknown_mode(DriverKind::Macvlan, given, "bridge")),
    };
    Ok(UpperMode::Macvlan(mode))
}

fn ipvlan(mode: &str, flag: &str) -> Result<UpperMode, ParentError> {
    let mode = match mode {
        "" | "l2" => IpvlanMode::L2,
        "l3" => IpvlanMode::L3,
        "l3s" => IpvlanMode::L3s,
        given => return Err(unknown_mode(DriverKind::Ipvlan, given, "l2")),
    };
    let flag = match flag {
        "" | "bridge" => IpvlanFlag::Bridge,
        "private" => IpvlanFlag::Private,
        "vepa" => IpvlanFlag::Vepa,
        given => return Err(ParentError::Flag(given.to_owned())),
    };
    Ok(UpperMode::Ipvlan(mode, flag))
}

fn unknown_mode(driver: DriverKind, given: &str, default: &'static str) -> ParentError {
    ParentError::Mode { driver, given: given.to_owned(), default }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef";

    fn planned(kind: DriverKind, options: &[(&str, &str)]) -> Result<ParentDriver, String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ParentDriver::plan(kind, &options, ID).map_err(|err| err.to_string())
    }

    #[test]
    fn options_are_read_as_docker_reads_them() {
        let parent = |parent: &str, origin, mode| ParentDriver { parent: parent.to_owned(), origin, mode };
        let bridge = UpperMode::Macvlan(MacvlanMode::Bridge);
        for (kind, options, expected) in [
            (DriverKind::Macvlan, &[("parent", "eth0.50"), ("x", "y")][..], parent("eth0.50", Origin::Machine, bridge)),
            (DriverKind::Macvlan, &[("macvlan_mode", "")], parent("dm-0123456789ab", Origin::Nowhere, bridge)),
            (
                DriverKind::Macvlan,
                &[("parent", "a"), ("macvlan_mode", "private")],
                parent("a", Origin::Machine, UpperMode::Macvlan(MacvlanMode::Private)),
            ),
            (
                DriverKind::Ipvlan,
                &[("ipvlan_flag", "vepa"), ("ipvlan_mode", "l3s")],
                parent("di-0123456789ab", Origin::Nowhere, UpperMode::Ipvlan(IpvlanMode::L3s, IpvlanFlag::Vepa)),
            ),
        ] {
            assert_eq!(planned(kind, options), Ok(expected), "{options:?}");
        }
        let mac = "requested macvlan mode 'zz' is not valid, 'bridge' mode is the macvlan driver default";
        let ip = "requested ipvlan mode 'zz' is not valid, 'l2' mode is the ipvlan driver default";
        let flag = "requested ipvlan flag 'zz' is not valid, 'bridge' is the ipvlan driver default";
        for (kind, option, text) in [
            (DriverKind::Macvlan, ("macvlan_mode", "zz"), mac),
            (DriverKind::Ipvlan, ("ipvlan_mode", "zz"), ip),
            (DriverKind::Ipvlan, ("ipvlan_flag", "zz"), flag),
            (DriverKind::Macvlan, ("parent", "lo"), "loopback interface is not a valid macvlan parent link"),
        ] {
            assert_eq!(planned(kind, &[option]), Err(text.to_owned()));
        }
    }

    #[test]
    fn names_say_how_a_missing_parent_is_made() {
        let told = |name: &str| vlan(name).and_then(|(below, id)| Ok((below.to_owned(), tag(id)?)));
        assert_eq!(told("eth0.50").unwrap(), ("eth0".to_owned(), 50));
        assert_eq!(told("eth0.+4094").unwrap(), ("eth0".to_owned(), 4094));
        for (name, text) in [
            ("eth0", "invalid subinterface vlan name eth0, example formatting is eth0.10"),
            (
                "a.5.6",
                "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received a.5.6",
            ),
            ("a.x", "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"),
            ("a.0", "vlan id must be between 1-4094, received: 0"),
            ("a.4095", "vlan id must be between 1-4094, received: 4095"),
            ("a.-1", "vlan id must be between 1-4094, received: -1"),
            ("a.70000", "vlan id must be between 1-4094, received: 70000"),
        ] {
            assert_eq!(told(name).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn parents_are_shared_as_with_docker() {
        let on = |kind, mode: &str| planned(kind, &[("parent", "eth0"), ("macvlan_mode", mode)]).unwrap();
        let (bridge, private) = (on(DriverKind::Macvlan, ""), on(DriverKind::Macvlan, "private"));
        let (alone, ipvlan) = (on(DriverKind::Macvlan, "passthru"), on(DriverKind::Ipvlan, ""));
        let told = |new: &ParentDriver, old: &ParentDriver| {
            new.check([("other", old)].into_iter()).map_or_else(|err| err.to_string(), |()| String::new())
        };
        assert_eq!(told(&bridge, &private), "");
        assert_eq!(told(&bridge, &ipvlan), "");
        assert_eq!(told(&alone, &planned(DriverKind::Macvlan, &[("parent", "eth1")]).unwrap()), "");
        let taken = "macvlan network other is already using parent interface eth0";
        assert_eq!(told(&alone, &bridge), format!("cannot use mode passthru, {taken}"));
        assert_eq!(told(&alone, &alone), format!("cannot use mode passthru, {taken}"));
        assert_eq!(told(&private, &alone), format!("{taken} in mode passthru"));
        assert_eq!(told(&ipvlan, &ipvlan), "network di-other is already using parent interface eth0");
    }
}
