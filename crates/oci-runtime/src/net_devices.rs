//! Network devices of the host that move into a container (runtime-spec v1.3 config-linux.md, "Network Devices").
//!
//! The parent moves them, since it belongs to the host's network: as soon as the child is there, and before the child sets
//! kernel parameters, which may be about them. The kernel takes a device's addresses away when it moves; those that an
//! administrator gave it are given again. Whoever ends with the container's network namespace: hardware comes back to the
//! host, everything else is gone with it.
//!
//! A dozen requests of rtnetlink(7), in the words of [`rtnetlink`]: the workspace's `netlink` crate is for whoever runs
//! networks, and is none of the runtime's (layers.toml), whose every page is resident beside every container.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use oci::runtime::Linux;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;

use self::rtnetlink::{Address, Socket};
use crate::channel::Channel;
use crate::error::{CreateError, PlanError};
use crate::field::FieldError;
use crate::plan::{Joined, Plan};

mod rtnetlink;

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetDevice {
    /// On the host.
    name: String,
    /// In the container; with `%d` for a free number.
    inside: String,
}

/// The longest name of a device in bytes (IFNAMSIZ without its NUL).
const NAME_MAX: usize = 15;

/// The devices of a specification. Pure.
pub(crate) fn plan(linux: &Linux, kinds: ThreadNameSpaceType) -> Result<Vec<NetDevice>, PlanError> {
    if !linux.net_devices.is_empty() && !kinds.contains(ThreadNameSpaceType::NETWORK) {
        return Err(FieldError::Needs { with: "a network namespace" }.at("linux.netDevices"));
    }
    let mut planned: Vec<NetDevice> = Vec::new();
    for (name, device) in &linux.net_devices {
        let field = format!("linux.netDevices.{name}");
        check_name(name).map_err(|err| err.at(&field))?;
        let inside = if device.name.is_empty() { name } else { &device.name };
        check_name(inside).map_err(|err| err.at(format!("{field}.name")))?;
        if !inside.contains('%') && planned.iter().any(|other| other.inside == *inside) {
            return Err(FieldError::Duplicate { word: inside.clone() }.at(format!("{field}.name")));
        }
        planned.push(NetDevice { name: name.clone(), inside: inside.clone() });
    }
    Ok(planned)
}

/// The kernel's rules (net/core/dev.c, dev_valid_name()).
fn check_name(name: &str) -> Result<(), FieldError> {
    let clean = |letter: u8| !matches!(letter, 0 | b'/' | b':' | b' ' | b'\t'..=b'\r');
    let valid = (1..=NAME_MAX).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(clean);
    if valid { Ok(()) } else { Err(FieldError::Name { name: name.to_owned() }) }
}

/// Moves the planned devices, and lets the child go on, which waits for it. `joined` are the descriptors of the plan's joined
/// namespaces.
pub(crate) fn supply(plan: &Plan, joined: &[OwnedFd], child: Pid, channel: &Channel) -> Result<(), CreateError> {
    if plan.net_devices.is_empty() {
        return Ok(());
    }
    let failed = |action| move |source| CreateError::Clone { action, source };
    let is_network = |joined: &Joined| joined.kind == ThreadNameSpaceType::NETWORK;
    let own;
    let namespace = match plan.namespaces.joined.iter().position(is_network) {
        Some(index) => joined[index].as_fd(),
        None => {
            let path = format!("/proc/{}/ns/net", child.as_raw_nonzero());
            own = File::open(path).map_err(failed("open the container's network namespace"))?;
            own.as_fd()
        }
    };
    let host = Socket::open().map_err(failed("talk to the kernel over netlink"))?;
    let container = sys::namespace::in_network_namespace(namespace, Socket::open).and_then(|socket| socket);
    let mut way = Way { host, container: container.map_err(failed("enter the container's network"))?, namespace };
    // All are there before the first one leaves.
    let found = plan.net_devices.iter().map(|device| way.host.index(&device.name).map_err(|err| (device, "find", err)));
    let moved = found.collect::<Result<Vec<_>, _>>().and_then(|indices| {
        plan.net_devices.iter().zip(indices).try_for_each(|(device, index)| {
            way.carry(device, index).map_err(|(action, source)| (device, action, source))
        })
    });
    moved.map_err(|(device, action, source)| CreateError::NetDevice { name: device.name.clone(), action, source })?;
    channel.send_go().map_err(failed("talk to the container's process"))
}

/// From the host's network to the container's.
struct Way<'a> {
    host: Socket,
    container: Socket,
    namespace: BorrowedFd<'a>,
}

impl Way<'_> {
    fn carry(&mut self, device: &NetDevice, index: u32) -> Result<(), (&'static str, io::Error)> {
        let at = |action| move |source| (action, source);
        // Now: a device that is down has no IPv6 addresses any more.
        let addresses = self.host.addresses(index).map_err(at("list the addresses of"))?;
        let before = self.container.links().map_err(at("list devices beside"))?;
        // The kernel would move it, and then refuse to rename it.
        if before.iter().any(|(_, name)| *name == device.inside) {
            return Err(("move", Errno::EXIST.into()));
        }
        // Not brought down first: the kernel does that once it knows that the device can leave, and what cannot, as the
        // loopback device, stays as it is (net/core/dev.c, __dev_change_net_namespace()).
        self.host.send_to(index, self.namespace.as_raw_fd(), &device.inside).map_err(at("move"))?;
        // Its number may be another one there, and its name one of the kernel's choice.
        let after = self.container.links().map_err(at("find"))?;
        let new = after.into_iter().find(|(index, _)| before.iter().all(|(other, _)| other != index));
        let (index, _) = new.ok_or(Errno::NODEV).map_err(|err| ("find", err.into()))?;
        for address in addresses.iter().filter(|address| address.is_to_stay()) {
            self.container.add_address(index, address).map_err(at("give an address to"))?;
        }
        self.container.set_up(index).map_err(at("bring up"))
    }
}

impl Address {
    /// Whether an administrator gave it, for the world: what the kernel made for a link, it makes again.
    fn is_to_stay(&self) -> bool {
        const PERMANENT: u32 = 0x80;
        const SCOPE_UNIVERSE: u8 = 0;
        self.flags & PERMANENT != 0 && self.scope == SCOPE_UNIVERSE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn planned(devices: serde_json::Value, kinds: ThreadNameSpaceType) -> Result<String, String> {
        let linux: Linux = serde_json::from_value(json!({ "netDevices": devices })).unwrap();
        let names =
            |planned: Vec<NetDevice>| planned.iter().map(|one| format!("{} {};", one.name, one.inside)).collect();
        plan(&linux, kinds).map(names).map_err(|err| errdefs::chain(&err))
    }

    #[test]
    fn names_are_the_kernels() {
        let network = ThreadNameSpaceType::NETWORK;
        let devices = json!({"a": {}, "b": {"name": "eth0"}, "c": {"name": "wlan%d"}, "d": {"name": "wlan%d"}});
        assert_eq!(planned(devices, network).unwrap(), "a a;b eth0;c wlan%d;d wlan%d;");
        for (devices, text) in [
            (json!({"": {}}), "linux.netDevices.: \"\" cannot be a name"),
            (json!({"..": {}}), "linux.netDevices...: \"..\" cannot be a name"),
            (json!({"a/b": {}}), "linux.netDevices.a/b: \"a/b\" cannot be a name"),
            (json!({"a": {"name": "b c"}}), "linux.netDevices.a.name: \"b c\" cannot be a name"),
            (
                json!({"a": {"name": "0123456789abcdef"}}),
                "linux.netDevices.a.name: \"0123456789abcdef\" cannot be a name",
            ),
            (json!({"a": {}, "b": {"name": "a"}}), "linux.netDevices.b.name: \"a\" is there twice"),
        ] {
            assert_eq!(planned(devices, network).unwrap_err(), text);
        }
        let text = "linux.netDevices: needs a network namespace";
        assert_eq!(planned(json!({"a": {}}), ThreadNameSpaceType::MOUNT).unwrap_err(), text);
        assert_eq!(planned(json!({}), ThreadNameSpaceType::MOUNT).unwrap(), "");
    }
}
