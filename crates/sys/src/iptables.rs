//! Tables of iptables-legacy, of which netlink knows nothing.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

/// The table `filter` of one family, as the kernel keeps it (linux/netfilter_ipv4/ip_tables.h, struct ipt_getinfo and
/// ipt_get_entries).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterTable {
    /// Where in `entries` the rules of the chain FORWARD begin.
    pub forward: usize,
    /// Where its policy is, behind its rules.
    pub forward_policy: usize,
    /// All entries, one behind the other (struct ipt_entry, ip6t_entry).
    pub entries: Vec<u8>,
}

/// struct ipt_getinfo: a name, the valid hooks, five beginnings, five policies, how many entries, their bytes.
#[repr(C)]
struct Info {
    name: [u8; 32],
    _hooks: u32,
    begins: [u32; 5],
    policies: [u32; 5],
    _count: u32,
    bytes: u32,
}

/// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES, and likewise of ip6_tables.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// NF_INET_FORWARD.
const FORWARD: usize = 2;
/// Of struct ipt_get_entries before the entries, which are aligned to eight bytes.
const HEAD_BYTES: usize = 40;
/// More than any table has that is of use.
const ENTRIES_MAX: u32 = 64 << 20;
const NAME: &[u8] = b"filter";

/// Reads the table of the calling thread's network namespace. Where there is none the kernel would make one: look into
/// /proc/net/ip_tables_names before.
pub fn filter_table(ipv6: bool) -> io::Result<FilterTable> {
    let (family, level) =
        if ipv6 { (AddressFamily::INET6, libc::IPPROTO_IPV6) } else { (AddressFamily::INET, libc::IPPROTO_IP) };
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
    let mut info = Info { name: [0; 32], _hooks: 0, begins: [0; 5], policies: [0; 5], _count: 0, bytes: 0 };
    info.name[..NAME.len()].copy_from_slice(NAME);
    let mut length = size_of::<Info>() as libc::socklen_t;
    // SAFETY: the kernel reads a name and writes one struct ipt_getinfo, which Info is, byte by byte; it lives through the call.
    let told =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, (&raw mut info).cast(), &raw mut length) };
    crate::check(told.into())?;
    if info.bytes > ENTRIES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Eight bytes each, so that it is aligned as the kernel's structure is.
    let mut buffer = vec![0_u64; (HEAD_BYTES + info.bytes as usize).div_ceil(8)];
    let mut head = [0; HEAD_BYTES];
    head[..NAME.len()].copy_from_slice(NAME);
    head[32..36].copy_from_slice(&info.bytes.to_ne_bytes());
    for (word, bytes) in buffer.iter_mut().zip(head.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    }
    let mut length = (HEAD_BYTES + info.bytes as usize) as libc::socklen_t;
    // SAFETY: the kernel reads a name and a length, and writes `length` bytes at most, which the buffer has.
    let told = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, GET_ENTRIES, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    crate::check(told.into())?;
    let entries: Vec<u8> = buffer.into_iter().flat_map(u64::to_ne_bytes).skip(HEAD_BYTES).collect();
    Ok(FilterTable { forward: info.begins[FORWARD] as usize, forward_policy: info.policies[FORWARD] as usize, entries })
}
