//! The expressions that rules are made of.
//!
//! The kernel has sixteen registers of four bytes. A comparison loads into the first and compares; a lookup loads the
//! parts of its key side by side from the first on and, in a map, gets the value there again.

use std::net::IpAddr;

use super::Family;
use super::set::Ask;
use crate::family;
use crate::message::Message;

/// NFT_REG32_00, the first register of four bytes.
pub(super) const REGISTER: u32 = 8;
const VALUE: u16 = 1;

const META_ETHERTYPE: u32 = 1;
const META_MARK: u32 = 3;
const META_INTERFACE_IN: u32 = 6;
const META_INTERFACE_OUT: u32 = 7;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const RTN_LOCAL: u32 = 2;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Offsets of the ports in TCP's, UDP's and SCTP's headers.
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;

/// `ct state established,related`.
pub const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `ct status dnat`.
pub const REDIRECTED: u32 = 1 << 5;

/// One step of a rule: it goes on to the next, leaves the rule, or ends the packet's way through the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Loads a `meta` key.
    LoadMeta {
        /// NFT_META_*.
        key: u32,
        /// The register, from the first on.
        register: u32,
    },
    /// Loads part of the packet.
    LoadPayload {
        /// NFT_PAYLOAD_*_HEADER.
        base: u32,
        /// In bytes.
        offset: u32,
        /// In bytes.
        length: u32,
        /// The register, from the first on.
        register: u32,
    },
    /// Loads a constant of up to four bytes into the first register.
    LoadConstant {
        /// The bytes.
        value: Vec<u8>,
    },
    /// Writes the first register over two bytes of the transport header.
    StorePort {
        /// Where, in bytes.
        offset: u32,
        /// Where the header's checksum is, which is corrected.
        checksum: u32,
    },
    /// Writes the first register into a `meta` key.
    StoreMeta {
        /// NFT_META_*.
        key: u32,
    },
    /// Counts packets and bytes.
    Count,
    /// Leaves the rule unless all these bits of the packet's mark are set: in the form of iptables (`-m mark`), which takes its
    /// own chains for damaged where it finds another one.
    IptablesMark {
        /// The bits.
        bits: u32,
    },
    /// Loads a `ct` key into the first register.
    LoadConnection {
        /// NFT_CT_*.
        key: u32,
    },
    /// Loads the type of the packet's destination address into the first register.
    LoadDestinationType,
    /// Masks the first registers.
    Mask {
        /// What is kept.
        mask: Vec<u8>,
    },
    /// Keeps what the mask has of the first register, then turns the bits of `flip` round.
    Bits {
        /// What is kept.
        mask: u32,
        /// What is turned round.
        flip: u32,
    },
    /// Leaves the rule unless the first register compares.
    Compare {
        /// Whether it must be equal, or must not.
        equal: bool,
        /// What to compare with.
        value: Vec<u8>,
    },
    /// Looks the key up in a map; leaves the rule if it is not there.
    Lookup {
        /// The map's name.
        map: String,
    },
    /// Asks a set.
    Ask(Ask),
    /// Sends the beginning of the packet to whoever has bound the group.
    Log {
        /// Which one.
        group: u16,
        /// What goes with it, 127 bytes at most.
        prefix: String,
        /// How many bytes of the packet.
        bytes: u32,
    },
    /// Redirects to the address in the first registers and the port in the one behind it.
    Redirect {
        /// Which addresses.
        family: Family,
    },
    /// Redirects to the address in the first registers; the port stays.
    RedirectAddress {
        /// Which addresses.
        family: Family,
    },
    /// Sends with the address of the interface that the packet leaves through.
    Masquerade,
    /// Drops a packet of TCP and tells its sender that nobody listens.
    Reset,
    /// Ends the packet's way through the chain.
    Verdict(Verdict),
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is gone.
    Drop,
    /// This chain lets it pass.
    Accept,
}

/// `iifname NAME` or `iifname != NAME`.
pub fn interface_in(name: &str, equal: bool) -> [Expression; 2] {
    interface(META_INTERFACE_IN, name, equal)
}

/// `oifname NAME` or `oifname != NAME`.
pub fn interface_out(name: &str, equal: bool) -> [Expression; 2] {
    interface(META_INTERFACE_OUT, name, equal)
}

/// `ip saddr ADDRESS/PREFIX`, or `ip6`.
pub fn source_in(address: IpAddr, prefix: u8) -> [Expression; 3] {
    address_in(source_offset(family_of(address)), address, prefix, true)
}

/// `ip daddr ADDRESS/PREFIX` or `ip daddr != ADDRESS/PREFIX`, or `ip6`.
pub fn destination_in(address: IpAddr, prefix: u8, equal: bool) -> [Expression; 3] {
    address_in(destination_offset(family_of(address)), address, prefix, equal)
}

/// A protocol whose packets have ports and a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ported {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One of a packet's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// `tcp dport PORT` and its like.
pub fn port(protocol: Ported, end: End, port: u16) -> [Expression; 4] {
    let number = match protocol {
        Ported::Tcp => 6,
        Ported::Udp => 17,
    };
    [
        Expression::LoadMeta { key: META_PROTOCOL, register: 0 },
        Expression::Compare { equal: true, value: vec![number] },
        Expression::LoadPayload { base: TRANSPORT_HEADER, offset: end.offset(), length: 2, register: 0 },
        Expression::Compare { equal: true, value: port.to_be_bytes().to_vec() },
    ]
}

/// `meta l4proto tcp`.
pub fn is_tcp() -> [Expression; 2] {
    [Expression::LoadMeta { key: META_PROTOCOL, register: 0 }, Expression::Compare { equal: true, value: vec![6] }]
}

/// `meta l4proto icmp`, or `icmpv6`.
pub fn is_icmp(family: Family) -> [Expression; 2] {
    let number = match family {
        Family::Ipv4 => 1,
        Family::Ipv6 => 58,
    };
    [Expression::LoadMeta { key: META_PROTOCOL, register: 0 }, Expression::Compare { equal: true, value: vec![number] }]
}

/// `tcp dport set PORT` and its like: no connection is tracked for it.
pub fn set_port(protocol: Ported, end: End, port: u16) -> [Expression; 2] {
    let checksum = match protocol {
        Ported::Tcp => 16,
        Ported::Udp => 6,
    };
    [
        Expression::LoadConstant { value: port.to_be_bytes().to_vec() },
        Expression::StorePort { offset: end.offset(), checksum },
    ]
}

impl End {
    fn offset(self) -> u32 {
        match self {
            End::Source => SOURCE_PORT,
            End::Destination => DESTINATION_PORT,
        }
    }
}

/// `ct state` has one of these bits.
pub fn connection_state(bits: u32) -> [Expression; 3] {
    connection(CT_STATE, bits)
}

/// `ct status` has one of these bits.
pub fn connection_status(bits: u32) -> [Expression; 3] {
    connection(CT_STATUS, bits)
}

/// `meta mark set meta mark | BITS`.
pub fn set_mark(bits: u32) -> [Expression; 3] {
    change_mark(Expression::Bits { mask: !bits, flip: bits })
}

/// `meta mark set meta mark & ~BITS`.
pub fn clear_mark(bits: u32) -> [Expression; 3] {
    change_mark(Expression::Bits { mask: !bits, flip: 0 })
}

/// `meta mark & BITS == BITS`.
pub fn has_mark(bits: u32) -> [Expression; 3] {
    let load = Expression::LoadMeta { key: META_MARK, register: 0 };
    [load, Expression::Mask { mask: bits.to_ne_bytes().to_vec() }, equals(bits.to_ne_bytes())]
}

/// `meta nfproto ipv4` or `meta nfproto ipv6`.
pub fn is_of(family: Family) -> [Expression; 2] {
    let load = Expression::LoadMeta { key: META_FAMILY, register: 0 };
    [load, Expression::Compare { equal: true, value: vec![family.header()[0]] }]
}

/// `fib daddr type local`.
pub fn to_this_machine() -> [Expression; 2] {
    [Expression::LoadDestinationType, equals(RTN_LOCAL.to_ne_bytes())]
}

/// `meta l4proto . ip daddr . th dport map @MAP`: leaves the value in the registers, for what follows.
pub fn find_by_address(map: &str, family: Family) -> [Expression; 4] {
    let (offset, length) = (destination_offset(family), address_length(family));
    [
        Expression::LoadMeta { key: META_PROTOCOL, register: 0 },
        Expression::LoadPayload { base: NETWORK_HEADER, offset, length, register: 1 },
        Expression::LoadPayload {
            base: TRANSPORT_HEADER,
            offset: DESTINATION_PORT,
            length: 2,
            register: 1 + length / 4,
        },
        Expression::Lookup { map: map.to_owned() },
    ]
}

/// `meta l4proto . th dport map @MAP`: leaves the value in the registers, for what follows.
pub fn find_by_port(map: &str) -> [Expression; 3] {
    [
        Expression::LoadMeta { key: META_PROTOCOL, register: 0 },
        Expression::LoadPayload { base: TRANSPORT_HEADER, offset: DESTINATION_PORT, length: 2, register: 1 },
        Expression::Lookup { map: map.to_owned() },
    ]
}

/// `ip saddr . ip daddr . meta l4proto . th dport map @MAP`; of what is sent `back`, `ip daddr . ip saddr . meta l4proto . th sport`.
pub fn find_link(map: &str, family: Family, back: bool) -> [Expression; 5] {
    let words = address_length(family) / 4;
    let (from, to, port) = match back {
        false => (load_source(family, 0), load_destination(family, words), DESTINATION_PORT),
        true => (load_destination(family, 0), load_source(family, words), SOURCE_PORT),
    };
    [
        from,
        to,
        load_protocol(2 * words),
        Expression::LoadPayload { base: TRANSPORT_HEADER, offset: port, length: 2, register: 2 * words + 1 },
        Expression::Lookup { map: map.to_owned() },
    ]
}

/// Loads the name of the interface through which a packet came into four registers; one it leaves through if not `entering`.
pub fn load_interface(entering: bool, register: u32) -> Expression {
    Expression::LoadMeta { key: if entering { META_INTERFACE_IN } else { META_INTERFACE_OUT }, register }
}

/// Loads the number of the protocol.
pub fn load_protocol(register: u32) -> Expression {
    Expression::LoadMeta { key: META_PROTOCOL, register }
}

/// Loads the port that a packet goes to; of other protocols whatever is there.
pub fn load_port(register: u32) -> Expression {
    Expression::LoadPayload { base: TRANSPORT_HEADER, offset: DESTINATION_PORT, length: 2, register }
}

/// Loads the source address.
pub fn load_source(family: Family, register: u32) -> Expression {
    Expression::LoadPayload {
        base: NETWORK_HEADER,
        offset: source_offset(family),
        length: address_length(family),
        register,
    }
}

/// Loads the destination address.
pub fn load_destination(family: Family, register: u32) -> Expression {
    let (offset, length) = (destination_offset(family), address_length(family));
    Expression::LoadPayload { base: NETWORK_HEADER, offset, length, register }
}

/// `fib daddr type != local`.
pub fn to_others() -> [Expression; 2] {
    let [load, _] = to_this_machine();
    [load, Expression::Compare { equal: false, value: RTN_LOCAL.to_ne_bytes().to_vec() }]
}

/// `fib daddr type broadcast`.
pub fn to_all() -> [Expression; 2] {
    const RTN_BROADCAST: u32 = 3;
    [Expression::LoadDestinationType, equals(RTN_BROADCAST.to_ne_bytes())]
}

/// `ether type TYPE`.
pub fn ethertype(number: u16) -> [Expression; 2] {
    let load = Expression::LoadMeta { key: META_ETHERTYPE, register: 0 };
    [load, Expression::Compare { equal: true, value: number.to_be_bytes().to_vec() }]
}

/// `icmpv6 type TYPE`.
pub fn icmpv6_type(number: u8) -> [Expression; 4] {
    [
        load_protocol(0),
        Expression::Compare { equal: true, value: vec![58] },
        Expression::LoadPayload { base: TRANSPORT_HEADER, offset: 0, length: 1, register: 0 },
        Expression::Compare { equal: true, value: vec![number] },
    ]
}

/// `ip6 saddr :: ip6 nexthdr icmpv6`.
pub fn unspecified_icmpv6() -> [Expression; 4] {
    [
        load_source(Family::Ipv6, 0),
        Expression::Compare { equal: true, value: vec![0; 16] },
        Expression::LoadPayload { base: NETWORK_HEADER, offset: 6, length: 1, register: 0 },
        Expression::Compare { equal: true, value: vec![58] },
    ]
}

fn change_mark(change: Expression) -> [Expression; 3] {
    let (load, store) =
        (Expression::LoadMeta { key: META_MARK, register: 0 }, Expression::StoreMeta { key: META_MARK });
    [load, change, store]
}

fn interface(key: u32, name: &str, equal: bool) -> [Expression; 2] {
    let mut value = name.as_bytes().to_vec();
    value.resize(16, 0);
    [Expression::LoadMeta { key, register: 0 }, Expression::Compare { equal, value }]
}

fn address_in(offset: u32, address: IpAddr, prefix: u8, equal: bool) -> [Expression; 3] {
    let octets = family::octets(address);
    let bits = |at: usize| usize::from(prefix).saturating_sub(8 * at).min(8);
    let mask: Vec<u8> = (0..octets.len()).map(|at| !0xff_u8.checked_shr(bits(at) as u32).unwrap_or(0)).collect();
    let value = octets.iter().zip(&mask).map(|(octet, mask)| octet & mask).collect();
    [
        Expression::LoadPayload { base: NETWORK_HEADER, offset, length: octets.len() as u32, register: 0 },
        Expression::Mask { mask },
        Expression::Compare { equal, value },
    ]
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

/// Where the source address is in the header.
fn source_offset(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 12,
        Family::Ipv6 => 8,
    }
}

/// It follows the source address.
fn destination_offset(family: Family) -> u32 {
    source_offset(family) + address_length(family)
}

fn address_length(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 4,
        Family::Ipv6 => 16,
    }
}

fn connection(key: u32, bits: u32) -> [Expression; 3] {
    [
        Expression::LoadConnection { key },
        Expression::Mask { mask: bits.to_ne_bytes().to_vec() },
        Expression::Compare { equal: false, value: vec![0; 4] },
    ]
}

fn equals(value: [u8; 4]) -> Expression {
    Expression::Compare { equal: true, value: value.to_vec() }
}

fn bitwise(data: Message, mask: &[u8], flip: &[u8]) -> Message {
    data.be32(1, REGISTER)
        .be32(2, REGISTER)
        .be32(3, mask.len() as u32)
        .nest(4, |value| value.attribute(VALUE, mask))
        .nest(5, |value| value.attribute(VALUE, flip))
}

impl Expression {
    /// Writes NFTA_EXPR_NAME and NFTA_EXPR_DATA. Attribute numbers are those of linux/netfilter/nf_tables.h.
    pub(super) fn encode(&self, entry: Message) -> Message {
        let named = |name: &str, fill: &dyn Fn(Message) -> Message| entry.text(1, name).nest(2, fill);
        match self {
            Expression::LoadMeta { key, register } => {
                named("meta", &|data| data.be32(1, REGISTER + register).be32(2, *key))
            }
            Expression::LoadPayload { base, offset, length, register } => named("payload", &|data| {
                data.be32(1, REGISTER + register).be32(2, *base).be32(3, *offset).be32(4, *length)
            }),
            Expression::LoadConstant { value } => {
                named("immediate", &|data| data.be32(1, REGISTER).nest(2, |data| data.attribute(VALUE, value)))
            }
            // From the register; a checksum of the internet's kind (1) is corrected.
            Expression::StorePort { offset, checksum } => named("payload", &|data| {
                data.be32(2, TRANSPORT_HEADER)
                    .be32(3, *offset)
                    .be32(4, 2)
                    .be32(5, REGISTER)
                    .be32(6, 1)
                    .be32(7, *checksum)
            }),
            Expression::LoadConnection { key } => named("ct", &|data| data.be32(1, REGISTER).be32(2, *key)),
            // The result "address type" (3), of the destination address (flag 2).
            Expression::LoadDestinationType => named("fib", &|data| data.be32(1, REGISTER).be32(2, 3).be32(3, 2)),
            Expression::Mask { mask } => named("bitwise", &|data| bitwise(data, mask, &vec![0; mask.len()])),
            Expression::Bits { mask, flip } => {
                named("bitwise", &|data| bitwise(data, &mask.to_ne_bytes(), &flip.to_ne_bytes()))
            }
            Expression::StoreMeta { key } => named("meta", &|data| data.be32(3, REGISTER).be32(2, *key)),
            Expression::Count => named("counter", &|data| data),
            Expression::IptablesMark { bits } => named("match", &|data| {
                // struct xt_mark_mtinfo1 of linux/netfilter/xt_mark.h: mark, mask, not inverted.
                let info = [bits.to_ne_bytes(), bits.to_ne_bytes(), [0; 4], [0; 4]].concat();
                data.text(1, "mark").be32(2, 1).attribute(3, &info)
            }),
            Expression::Compare { equal, value } => named("cmp", &|data| {
                let differs = u32::from(!equal);
                data.be32(1, REGISTER).be32(2, differs).nest(3, |data| data.attribute(VALUE, value))
            }),
            Expression::Lookup { map } => {
                named("lookup", &|data| data.text(1, map).be32(2, REGISTER).be32(3, REGISTER))
            }
            Expression::Ask(ask) => named(ask.name(), &|data| ask.encode(data)),
            Expression::Log { group, prefix, bytes } => {
                named("log", &|data| data.attribute(1, &group.to_be_bytes()).text(2, prefix).be32(3, *bytes))
            }
            // Type DNAT (1).
            Expression::Redirect { family } => named("nat", &|data| {
                let port = REGISTER + address_length(*family) / 4;
                data.be32(1, 1).be32(2, family.header()[0].into()).be32(3, REGISTER).be32(5, port)
            }),
            Expression::RedirectAddress { family } => {
                named("nat", &|data| data.be32(1, 1).be32(2, family.header()[0].into()).be32(3, REGISTER))
            }
            Expression::Masquerade => named("masq", &|data| data),
            // NFT_REJECT_TCP_RST; the code is that of ICMP, which this is not.
            Expression::Reset => named("reject", &|data| data.be32(1, 1).attribute(2, &[0])),
            Expression::Verdict(verdict) => named("immediate", &|data| {
                // Into the verdict register: NF_DROP or NF_ACCEPT.
                data.be32(1, 0)
                    .nest(2, |data| data.nest(2, |code| code.be32(1, u32::from(*verdict == Verdict::Accept))))
            }),
        }
    }
}
