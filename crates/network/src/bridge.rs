//! The bridge: its network, its link, and the kernel settings that go with it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use netlink::link::{self, Link};
use netlink::{Socket, address, route};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::config::Config;
use crate::error::NetworkError;
use crate::record::BridgeRecord;
use crate::subnet::{self, Subnet};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// How long another instance may take to choose a network before we give up.
const CHOICE_TIMEOUT: Duration = Duration::from_secs(10);

/// Held while a network is chosen and until the bridge has it. For all who share our network namespace, and nobody else:
/// it is the lock of the namespace's own file. It goes with its holder.
pub(crate) fn lock_choice() -> Result<File, NetworkError> {
    lock_choice_within(CHOICE_TIMEOUT)
}

fn lock_choice_within(timeout: Duration) -> Result<File, NetworkError> {
    let failed = |source| NetworkError::Namespace { source };
    let namespace = File::open("/proc/thread-self/ns/net").map_err(failed)?;
    match rustix::fs::flock(&namespace, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(namespace),
        Err(Errno::WOULDBLOCK) => {}
        Err(err) => return Err(failed(err.into())),
    }
    // The kernel waits without a limit of its own. A thread that waits too long ends with the holder, and lets go at once.
    let (sender, receiver) = mpsc::sync_channel(1);
    let wait = move || {
        let locked = rustix::fs::flock(&namespace, FlockOperation::LockExclusive);
        let _ = sender.send(locked.map(|()| namespace));
    };
    std::thread::Builder::new().name("choice".to_owned()).spawn(wait).map_err(failed)?;
    match receiver.recv_timeout(timeout) {
        Ok(locked) => locked.map_err(|err| failed(err.into())),
        Err(_) => Err(NetworkError::Choosing { seconds: timeout.as_secs() }),
    }
}

/// Decides the network's id, gateway and prefix: those of the configuration, else those of the record, else new ones.
///
/// Those of a record count as long as the bridge is there or somebody `joined` it; else somebody may have taken the
/// network meanwhile. `others` are the networks that users made.
pub(crate) fn plan(
    config: &Config,
    record: Option<BridgeRecord>,
    joined: bool,
    others: &[Subnet],
    route: &mut Socket,
) -> Result<BridgeRecord, NetworkError> {
    let fixed = match (&config.bridge, config.bip) {
        (Some(name), _) => Some(address_of(name, route)?),
        (None, bip) => bip,
    };
    let known = record.as_ref().map(|record| Subnet { address: record.gateway, prefix: record.prefix });
    let gateway = match (fixed, known) {
        (Some(gateway), _) => gateway,
        (None, Some(known)) if joined || link::by_name(route, &config.bridge_name())?.is_some() => known,
        (None, Some(known)) if !used(route)?.iter().any(|one| one.overlaps(known.network())) => known,
        (None, _) => choose(config, others, route)?,
    };
    Ok(BridgeRecord {
        id: record.as_ref().map_or_else(stdx::id::random_hex::<32>, |record| record.id.clone()),
        gateway: gateway.address,
        prefix: gateway.prefix,
        guards_forwarding: record.is_some_and(|record| record.guards_forwarding)
            || config.ip_forward && !forwarding_is_on()?,
    })
}

/// Makes the default bridge what it should be; creates it unless it is the user's.
pub(crate) fn ensure(config: &Config, record: &BridgeRecord, socket: &mut Socket) -> Result<Link, NetworkError> {
    let name = config.bridge_name();
    if config.bridge.is_some() {
        return link::by_name(socket, &name)?.ok_or(NetworkError::NoBridge { bridge: name });
    }
    make(&name, Subnet { address: record.gateway, prefix: record.prefix }, config.mtu(), socket)
}

/// A bridge of this name and address, created where it is missing, and up.
pub(crate) fn make(name: &str, gateway: Subnet, mtu: u32, socket: &mut Socket) -> Result<Link, NetworkError> {
    if link::by_name(socket, name)?.is_none() {
        let create = link::create_bridge(&link::Bridge { name, mac: random_mac(), mtu });
        socket.apply(vec![create, link::without_link_local(name)])?;
    }
    let missing = || NetworkError::NoBridge { bridge: name.to_owned() };
    let bridge = link::by_name(socket, name)?.ok_or_else(missing)?;
    if bridge.kind != "bridge" {
        return Err(NetworkError::NotABridge { name: name.to_owned() });
    }
    let gateway = address::Address { index: bridge.index, address: gateway.address, prefix: gateway.prefix };
    socket.apply(vec![address::add(gateway), link::set_up(name)])?;
    Ok(bridge)
}

/// The settings that let packets through. To be called when the packet filter guards them already.
pub(crate) fn open_settings(config: &Config) -> Result<(), NetworkError> {
    open_loopback(&config.bridge_name())?;
    if config.ip_forward && !forwarding_is_on()? {
        set(FORWARDING)?;
    }
    Ok(())
}

/// Redirected packets from 127.0.0.1 leave through a bridge, which the kernel else takes for a mistake.
pub(crate) fn open_loopback(bridge: &str) -> Result<(), NetworkError> {
    set(&format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet"))
}

/// An Ethernet address of nobody: locally administered, for one receiver.
pub(crate) fn random_mac() -> link::Mac {
    let text = stdx::id::random_hex::<6>();
    let mut mac = [0; 6];
    for (byte, digits) in mac.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).expect("hex digits are ASCII");
        *byte = u8::from_str_radix(digits, 16).expect("random_hex gives hex digits");
    }
    mac[0] = mac[0] & 0xfe | 0x02;
    mac
}

/// Whether frames that stay on a bridge pass IPv4's packet filter (br_netfilter). A packet that is redirected back to its
/// bridge then stays there, instead of being routed.
pub(crate) fn filters_bridged() -> bool {
    fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|text| text.trim() != "0")
}

/// Writes 1 into a kernel setting.
pub(crate) fn set(path: &str) -> Result<(), NetworkError> {
    fs::write(path, "1").map_err(|source| NetworkError::Setting { path: PathBuf::from(path), source })
}

/// The range that the kernel takes ports from by itself; Docker's when it cannot be read.
pub(crate) fn dynamic_ports() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if first <= last && first > 0 => (first, last),
        _ => (49153, 65535),
    }
}

fn forwarding_is_on() -> Result<bool, NetworkError> {
    let text = fs::read_to_string(FORWARDING)
        .map_err(|source| NetworkError::Setting { path: PathBuf::from(FORWARDING), source })?;
    Ok(text.trim() != "0")
}

fn address_of(bridge: &str, socket: &mut Socket) -> Result<Subnet, NetworkError> {
    let missing = || NetworkError::NoBridge { bridge: bridge.to_owned() };
    let link = link::by_name(socket, bridge)?.ok_or_else(missing)?;
    let found = address::list(socket)?.into_iter().find(|address| address.index == link.index).ok_or_else(missing)?;
    Ok(Subnet { address: found.address, prefix: found.prefix })
}

/// The first network that this machine neither has an address in, nor a route to, nor a name server.
fn choose(config: &Config, others: &[Subnet], socket: &mut Socket) -> Result<Subnet, NetworkError> {
    let used = [used(socket)?, others.to_vec()].concat();
    let network = subnet::choose(&config.pools(), &used).ok_or(NetworkError::NoSubnet)?;
    let gateway = Ipv4Addr::from_bits(network.address.to_bits() | 1);
    Ok(Subnet { address: gateway, prefix: network.prefix })
}

/// The networks that this machine has an address in, a route to, or a name server.
pub(crate) fn used(socket: &mut Socket) -> Result<Vec<Subnet>, NetworkError> {
    let addresses = address::list(socket)?.into_iter().map(|one| Subnet { address: one.address, prefix: one.prefix });
    let routes = route::list(socket)?.into_iter().map(|one| Subnet { address: one.address, prefix: one.prefix });
    let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = name_servers(&resolv_conf).map(|address| Subnet { address, prefix: 32 });
    // A default route leads everywhere.
    Ok(addresses.chain(routes).chain(servers).filter(|subnet| subnet.prefix > 0).collect())
}

fn name_servers(resolv_conf: &str) -> impl Iterator<Item = Ipv4Addr> {
    let values = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    values.filter_map(|value| value.trim().parse().ok())
}
