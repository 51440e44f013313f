//! The bridge: its network, its link, and the kernel settings that go with it.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use netlink::link::{self, Link};
use netlink::{Socket, address, route};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::config::{AddressPool, Config};
use crate::error::NetworkError;
use crate::record::BridgeRecord;
use crate::subnet::{self, Subnet};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARDING_OF_IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// The address by which a bridge asks its neighbours of IPv6 where they are, as with dockerd: without one of the link it
/// cannot ask at all.
const LINK_LOCAL: Subnet = Subnet { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)), prefix: 64 };

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
    others: &[(String, Subnet)],
    route: &mut Socket,
) -> Result<BridgeRecord, NetworkError> {
    let [fixed, fixed_of_ipv6] = fixed(config, route)?;
    let known = record.as_ref().map(|record| Subnet::new(record.gateway, record.prefix));
    let stays = joined || link::by_name(route, &config.bridge_name())?.is_some();
    let mut decide = |fixed: Option<Subnet>, known: Option<Subnet>, pools: Vec<AddressPool>| match (fixed, known) {
        (Some(gateway), _) => Ok(gateway),
        (None, Some(known)) if stays => Ok(known),
        (None, Some(known)) if !used(route)?.iter().any(|one| one.overlaps(known.network())) => Ok(known),
        (None, _) => choose(&pools, others, route),
    };
    let gateway = decide(fixed, known, config.pools())?;
    let of_ipv6 = match config.ipv6 {
        true => {
            let known = record.as_ref().and_then(|record| record.of_ipv6);
            Some(decide(fixed_of_ipv6, known, config.pools_of_ipv6())?)
        }
        false => None,
    };
    check_within(config, std::iter::once(gateway).chain(of_ipv6))?;
    let IpAddr::V4(address) = gateway.address else {
        return Err(NetworkError::NoSubnet { family: "IPv4", in_the_way: None });
    };
    Ok(BridgeRecord {
        id: record.as_ref().map_or_else(stdx::id::random_hex::<32>, |record| record.id.clone()),
        gateway: address,
        prefix: gateway.prefix,
        of_ipv6,
    })
}

/// Refuses what the default bridge could not be, as far as that is known before anybody needs it: nothing where all of it is left to us.
/// On a bridge of the user's a part of IPv4 that is not of its network means nothing, as with dockerd; answers the rest.
pub(crate) fn heed(mut config: Config, route: &mut Socket) -> Result<Config, NetworkError> {
    let bridges: Vec<Subnet> = fixed(&config, route)?.into_iter().flatten().collect();
    if let (Some(name), Some(range)) = (&config.bridge, config.fixed_cidr)
        && bridges
            .iter()
            .any(|bridge| range.address.is_ipv4() == bridge.address.is_ipv4() && !range.is_part_of(bridge.network()))
    {
        tracing::warn!(bridge = name, %range, "fixed-cidr is not in the bridge's network, and means nothing");
        config.fixed_cidr = None;
    }
    check_within(&config, bridges)?;
    Ok(config)
}

/// The addresses of either family that the default bridge has because somebody says so.
fn fixed(config: &Config, route: &mut Socket) -> Result<[Option<Subnet>; 2], NetworkError> {
    let Some(name) = &config.bridge else {
        let of_ipv6 = config.bip6.or(config.fixed_cidr_v6).filter(|_| config.ipv6);
        return Ok([config.bip.or(config.fixed_cidr.map(Subnet::network)).map(first_host), of_ipv6.map(first_host)]);
    };
    let of_link = addresses_of(name, route)?;
    let of_family = |ipv6: bool| of_link.iter().find(|one| one.address.is_ipv6() == ipv6).copied();
    let ipv4 = of_family(false).ok_or_else(|| NetworkError::NoIpv4 { bridge: name.clone() })?;
    let of_ipv6 = match config.ipv6 {
        true => Some(of_family(true).ok_or_else(|| NetworkError::NoIpv6 { bridge: name.clone() })?),
        false => None,
    };
    Ok([Some(ipv4), of_ipv6])
}

/// Refuses parts of these bridges' networks, and gateways there, that are not of them.
fn check_within(config: &Config, bridges: impl IntoIterator<Item = Subnet>) -> Result<(), NetworkError> {
    for network in bridges.into_iter().map(Subnet::network) {
        let mut named = config.within(network);
        if let Some((key, value)) = named.find(|(_, value)| !value.is_part_of(network)) {
            return Err(NetworkError::Stray { key, value, network });
        }
    }
    Ok(())
}

/// Makes the default bridge what it should be; creates it unless it is the user's.
pub(crate) fn ensure(config: &Config, record: &BridgeRecord, socket: &mut Socket) -> Result<Link, NetworkError> {
    let name = config.bridge_name();
    if config.bridge.is_some() {
        return link::by_name(socket, &name)?.ok_or(NetworkError::NoBridge { bridge: name });
    }
    make(&name, &record.gateways(), config.mtu(), socket)
}

/// A bridge of this name and these addresses, created where it is missing, and up.
pub(crate) fn make(name: &str, gateways: &[Subnet], mtu: u32, socket: &mut Socket) -> Result<Link, NetworkError> {
    if link::by_name(socket, name)?.is_none() {
        let create = link::create_bridge(&link::Bridge { name, mac: random_mac(), mtu });
        socket.apply(vec![create, link::without_link_local(name)])?;
    }
    let missing = || NetworkError::NoBridge { bridge: name.to_owned() };
    let bridge = link::by_name(socket, name)?.ok_or_else(missing)?;
    if bridge.kind != "bridge" {
        return Err(NetworkError::NotABridge { name: name.to_owned() });
    }
    let ipv6 = gateways.iter().any(|gateway| gateway.address.is_ipv6());
    if ipv6 {
        write(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "0")?;
        // No container tells this machine where to send its packets.
        write(&format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"), "0")?;
    }
    let own = gateways.iter().chain(ipv6.then_some(&LINK_LOCAL));
    let add = |one: &Subnet| address::Address { index: bridge.index, address: one.address, prefix: one.prefix };
    let addresses = own.map(|one| address::add(add(one)));
    socket.apply(addresses.chain([link::set_up(name)]).collect())?;
    Ok(bridge)
}

/// Has this machine take no packet of IPv6 from a bridge, nor have an address there; containers on it are not concerned.
pub(crate) fn shut_to_ipv6(bridge: &str) -> Result<(), NetworkError> {
    set(&format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"))
}

/// The settings that let packets through. To be called when the packet filter guards them already.
pub(crate) fn open_settings(config: &Config) -> Result<(), NetworkError> {
    open_loopback(&config.bridge_name())?;
    if needs_forwarding(config)? { set(FORWARDING) } else { Ok(()) }
}

/// Whether IPv4 is not forwarded so far, and shall be.
pub(crate) fn needs_forwarding(config: &Config) -> Result<bool, NetworkError> {
    Ok(config.ip_forward && !is_on(FORWARDING)?)
}

/// Likewise for IPv6, once a network has such addresses.
pub(crate) fn open_settings_of_ipv6(config: &Config) -> Result<(), NetworkError> {
    if needs_forwarding_of_ipv6(config)? { set(FORWARDING_OF_IPV6) } else { Ok(()) }
}

/// Likewise of IPv6.
pub(crate) fn needs_forwarding_of_ipv6(config: &Config) -> Result<bool, NetworkError> {
    Ok(config.ip_forward && !is_on(FORWARDING_OF_IPV6)?)
}

/// Redirected packets from 127.0.0.1 leave through a bridge, which the kernel else takes for a mistake.
pub(crate) fn open_loopback(bridge: &str) -> Result<(), NetworkError> {
    set(&format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet"))
}

/// Has this machine answer on a bridge of ours for neighbours whom the bridge keeps apart, so that they send to each other by this
/// machine, whose packet filter decides (ip-sysctl.rst, `proxy_arp_pvlan`: RFC 3069).
pub(crate) fn stand_between(bridge: &str) -> Result<(), NetworkError> {
    // At once: else it waits for up to 0.8 s, in case somebody else answers.
    write(&format!("/proc/sys/net/ipv4/neigh/{bridge}/proxy_delay"), "0")?;
    write(&format!("/proc/sys/net/ipv4/conf/{bridge}/send_redirects"), "0")?;
    set(&format!("/proc/sys/net/ipv4/conf/{bridge}/proxy_arp_pvlan"))
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
    is_on("/proc/sys/net/bridge/bridge-nf-call-iptables").unwrap_or(false)
}

/// Likewise that of IPv6.
pub(crate) fn filters_bridged_of_ipv6() -> bool {
    is_on("/proc/sys/net/bridge/bridge-nf-call-ip6tables").unwrap_or(false)
}

/// Writes 1 into a kernel setting.
pub(crate) fn set(path: &str) -> Result<(), NetworkError> {
    write(path, "1")
}

/// Writes a kernel setting.
pub(crate) fn write(path: &str, value: &str) -> Result<(), NetworkError> {
    fs::write(path, value).map_err(|source| NetworkError::Setting { path: PathBuf::from(path), source })
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

fn is_on(path: &str) -> Result<bool, NetworkError> {
    let text =
        fs::read_to_string(path).map_err(|source| NetworkError::Setting { path: PathBuf::from(path), source })?;
    Ok(text.trim() != "0")
}

/// The addresses of a bridge that is there, but those of the link.
fn addresses_of(bridge: &str, socket: &mut Socket) -> Result<Vec<Subnet>, NetworkError> {
    let missing = || NetworkError::NoBridge { bridge: bridge.to_owned() };
    let link = link::by_name(socket, bridge)?.ok_or_else(missing)?;
    let found =
        address::list(socket)?.into_iter().filter(|one| one.index == link.index && !subnet::is_of_link(one.address));
    Ok(found.map(|one| Subnet { address: one.address, prefix: one.prefix }).collect())
}

/// A network that somebody named without an address of it means the first one behind its own.
fn first_host(named: Subnet) -> Subnet {
    let first = named.addresses().nth(1).filter(|_| named == named.network());
    Subnet { address: first.unwrap_or(named.address), prefix: named.prefix }
}

/// The first network that this machine neither has an address in, nor a route to, nor a name server.
fn choose(pools: &[AddressPool], others: &[(String, Subnet)], socket: &mut Socket) -> Result<Subnet, NetworkError> {
    let mut used = used(socket)?;
    used.extend(others.iter().map(|(_, subnet)| *subnet));
    let is_ipv4 = pools.first().is_some_and(|pool| pool.base.address.is_ipv4());
    let none = || NetworkError::NoSubnet {
        family: if is_ipv4 { "IPv4" } else { "IPv6" },
        in_the_way: subnet::obstacle(pools, &used, others),
    };
    // Of a network that has but one address, that.
    Ok(first_host(subnet::choose(pools, &used).ok_or_else(none)?))
}

/// The networks that this machine has an address in, a route to, or a name server.
pub(crate) fn used(socket: &mut Socket) -> Result<Vec<Subnet>, NetworkError> {
    let addresses = address::list(socket)?.into_iter().map(|one| Subnet { address: one.address, prefix: one.prefix });
    let routes = route::list(socket)?.into_iter().map(|one| Subnet { address: one.address, prefix: one.prefix });
    // Those that systemd-resolved asks, where it is the only one that programs are told of.
    let servers = dns::name_servers(&dns::host_file().1).into_iter().map(|server| {
        let width = if server.address.is_ipv4() { 32 } else { 128 };
        Subnet { address: server.address, prefix: width }
    });
    // A default route leads everywhere.
    Ok(addresses.chain(routes).chain(servers).filter(|subnet| subnet.prefix > 0).collect())
}
