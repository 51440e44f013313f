//! Connections to many ports of TCP over IPv6, led to one listening socket: an eBPF program of the kernel's socket look-up.
//!
//! The kernel asks the program which socket a new connection is for before it looks for one that listens
//! (Documentation/bpf/prog_sk_lookup.rst; since 5.9). It works for every local address, ::1 too, and whoever accepts is told by
//! getsockname(2) which port was asked for.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

/// linux/bpf.h.
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_PROG_TYPE_SK_LOOKUP: u32 = 30;
const BPF_SK_LOOKUP: u32 = 36;
const BPF_PSEUDO_MAP_FD: u8 = 1;
const BPF_FUNC_MAP_LOOKUP_ELEM: u32 = 1;
const BPF_FUNC_SK_RELEASE: u32 = 86;
const BPF_FUNC_SK_ASSIGN: u32 = 124;

/// Ports that there are, 0 among them.
const PORTS: usize = 1 << 16;
/// Listening sockets at once at most.
pub const LISTENERS_MAX: u32 = 1024;

/// The members of `union bpf_attr` for BPF_MAP_CREATE that we set.
#[repr(C)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// Likewise for BPF_MAP_UPDATE_ELEM and BPF_MAP_DELETE_ELEM, which reads the first half alone.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Likewise for BPF_LINK_CREATE.
#[repr(C)]
struct Link {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// A program at work in one network namespace, until this is dropped or its process ends.
#[derive(Debug)]
pub struct Steering {
    table: Table,
    listeners: OwnedFd,
    _link: OwnedFd,
}

impl Steering {
    /// Begins in the calling thread's network namespace, for no port so far. An error where the kernel has no such programs, or this
    /// thread may not load or attach one (CAP_BPF or CAP_SYS_ADMIN, and CAP_NET_ADMIN).
    pub fn begin() -> io::Result<Steering> {
        let ports = create(BPF_MAP_TYPE_ARRAY, size_of::<u64>() as u32, PORTS as u32, BPF_F_MMAPABLE)?;
        let listeners = create(BPF_MAP_TYPE_SOCKMAP, size_of::<u64>() as u32, LISTENERS_MAX, 0)?;
        let table = Table::map(ports.as_fd())?;
        let program = program(ports.as_fd(), listeners.as_fd());
        let program = crate::bpf::load((BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP), &program)?;
        // This thread's: tests have several in one process.
        let namespace = File::open("/proc/thread-self/ns/net")?;
        let link = Link {
            prog_fd: program.as_raw_fd() as u32,
            target_fd: namespace.as_raw_fd() as u32,
            attach_type: BPF_SK_LOOKUP,
            flags: 0,
        };
        // SAFETY: link has the layout and size given, and the kernel only reads it.
        let link = unsafe { call(BPF_LINK_CREATE, &link) }?;
        // SAFETY: a new descriptor that nothing else owns; BPF descriptors are close-on-exec.
        let _link = unsafe { OwnedFd::from_raw_fd(link as i32) };
        Ok(Steering { table, listeners, _link })
    }

    /// Has this socket, which listens to IPv6, stand in a place below [`LISTENERS_MAX`], instead of the one that is there. A socket that
    /// is closed everywhere goes by itself.
    pub fn place(&self, place: u32, listener: BorrowedFd<'_>) -> io::Result<()> {
        let value = listener.as_raw_fd() as u64;
        let element = self.element(&place, &raw const value as u64);
        // SAFETY: key and value have the sizes that the map was made with, and outlive the call, which only reads them.
        unsafe { call(BPF_MAP_UPDATE_ELEM, &element) }.map(drop)
    }

    /// Nothing stands there any more; no error if nothing did.
    pub fn clear(&self, place: u32) {
        let element = self.element(&place, 0);
        // SAFETY: the key has the size that the map was made with, and outlives the call, which only reads it.
        // The one error is that nothing is there.
        _ = unsafe { call(BPF_MAP_DELETE_ELEM, &element) };
    }

    fn element(&self, place: &u32, value: u64) -> Element {
        let map_fd = self.listeners.as_raw_fd() as u32;
        Element { map_fd, padding: 0, key: std::ptr::from_ref(place) as u64, value, flags: 0 }
    }

    /// Leads connections to these ports to the socket in a place, from now on.
    pub fn lead(&self, ports: RangeInclusive<u16>, place: u32) {
        ports.for_each(|port| self.table.entry(port).store(entry(place), Ordering::Relaxed));
    }

    /// Leads those of these ports that lead to a place to whoever listens.
    pub fn lead_no_longer(&self, ports: RangeInclusive<u16>, place: u32) {
        for port in ports {
            // One that leads elsewhere by now goes on doing so.
            _ = self.table.entry(port).compare_exchange(entry(place), 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// What the table has for a port that leads to a place; 0 is for those that lead nowhere.
fn entry(place: u32) -> u64 {
    u64::from(place) + 1
}

/// Of each port the place of its socket, and one more; 0 for none. The program reads what is written here.
#[derive(Debug)]
struct Table(NonNull<AtomicU64>);

impl Table {
    const BYTES: usize = PORTS * size_of::<u64>();

    fn map(ports: BorrowedFd<'_>) -> io::Result<Table> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address of a new mapping, of the size that the map was made with.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), Table::BYTES, access, MapFlags::SHARED, ports, 0) }?;
        NonNull::new(start.cast()).map(Table).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    fn entry(&self, port: u16) -> &AtomicU64 {
        // SAFETY: the mapping has an aligned u64 for every port, lives as long as this, and is written to as atomics alone.
        unsafe { self.0.add(port.into()).as_ref() }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into the mapping, which was made with this size. It cannot fail for one of ours.
        _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), Table::BYTES) };
    }
}

// SAFETY: the mapping belongs to no thread, and is written to as atomics alone.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

fn create(map_type: u32, value_size: u32, max_entries: u32, map_flags: u32) -> io::Result<OwnedFd> {
    let create = Create { map_type, key_size: size_of::<u32>() as u32, value_size, max_entries, map_flags };
    // SAFETY: create has the layout and size given, and the kernel only reads it.
    let map = unsafe { call(BPF_MAP_CREATE, &create) }?;
    // SAFETY: a new descriptor that nothing else owns; BPF descriptors are close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(map as i32) })
}

/// # Safety
///
/// `attributes` has the layout of the command's part of `union bpf_attr`, and what it points to is what the command asks for.
unsafe fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the size is given, and the rest is the caller's.
    crate::check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) })
}

/// struct bpf_insn: code, registers (destination in the lower half), where to jump, and a number.
fn step(code: u8, to: u8, from: u8, jump: i16, number: u32) -> [u8; 8] {
    let ([a, b], [c, d, e, f]) = (jump.to_ne_bytes(), number.to_ne_bytes());
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    [code, registers, a, b, c, d, e, f]
}

/// The program. It leads only what the table says, and leaves everything else to the kernel.
///
/// ```text
///   if family != AF_INET6 || protocol != TCP        pass        r6: struct bpf_sk_lookup
///   place = ports[local_port];     if place == 0    pass
///   socket = listeners[place - 1]; if none          pass        r7: the socket
///   bpf_sk_assign(context, socket, 0); bpf_sk_release(socket)
///   pass: return SK_PASS
/// ```
fn program(ports: BorrowedFd<'_>, listeners: BorrowedFd<'_>) -> Vec<[u8; 8]> {
    /// Opcodes (linux/bpf.h): loads and stores of 4 bytes, a load of 8, comparisons with a number, moves and sums.
    const LOAD: u8 = 0x61;
    const LOAD_ENTRY: u8 = 0x79;
    const STORE: u8 = 0x63;
    const IF_NOT: u8 = 0x55;
    const IF: u8 = 0x15;
    const MOVE: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const ADD: u8 = 0x07;
    const LOAD_MAP: u8 = 0x18;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    /// Where struct bpf_sk_lookup has them.
    const FAMILY: i16 = 8;
    const PROTOCOL: i16 = 12;
    const LOCAL_PORT: i16 = 60;
    let look_up = |map: BorrowedFd<'_>| {
        [
            step(STORE, 10, 2, -4, 0),
            step(MOVE, 2, 10, 0, 0),
            step(ADD, 2, 0, 0, (-4_i32).cast_unsigned()),
            step(LOAD_MAP, 1, BPF_PSEUDO_MAP_FD, 0, map.as_raw_fd() as u32),
            step(0, 0, 0, 0, 0),
            step(CALL, 0, 0, 0, BPF_FUNC_MAP_LOOKUP_ELEM),
        ]
    };
    let mut steps = vec![
        step(MOVE, 6, 1, 0, 0),
        step(LOAD, 2, 6, FAMILY, 0),
        step(IF_NOT, 2, 0, 0, libc::AF_INET6 as u32),
        step(LOAD, 2, 6, PROTOCOL, 0),
        step(IF_NOT, 2, 0, 0, libc::IPPROTO_TCP as u32),
        step(LOAD, 2, 6, LOCAL_PORT, 0),
    ];
    steps.extend(look_up(ports));
    steps.extend([
        step(IF, 0, 0, 0, 0),
        step(LOAD_ENTRY, 2, 0, 0, 0),
        step(IF, 2, 0, 0, 0),
        step(ADD, 2, 0, 0, u32::MAX),
    ]);
    steps.extend(look_up(listeners));
    steps.extend([
        step(IF, 0, 0, 0, 0),
        step(MOVE, 7, 0, 0, 0),
        step(MOVE, 1, 6, 0, 0),
        step(MOVE, 2, 7, 0, 0),
        step(SET, 3, 0, 0, 0),
        step(CALL, 0, 0, 0, BPF_FUNC_SK_ASSIGN),
        step(MOVE, 1, 7, 0, 0),
        step(CALL, 0, 0, 0, BPF_FUNC_SK_RELEASE),
    ]);
    // All jumps lead here, counted from the instruction behind them.
    let end = steps.len();
    for (at, one) in steps.iter_mut().enumerate().filter(|(_, one)| matches!(one[0], IF | IF_NOT)) {
        [one[2], one[3]] = ((end - at - 1) as i16).to_ne_bytes();
    }
    steps.extend([step(SET, 0, 0, 0, 1), step(EXIT, 0, 0, 0, 0)]);
    steps
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};

    use rustix::thread::UnshareFlags;

    use super::*;

    /// Runs in a thread with a network namespace of its own.
    fn apart(test: impl FnOnce() + Send) {
        if testkit::skip::without_root() {
            return;
        }
        let test = || {
            crate::namespace::unshare(UnshareFlags::NEWNET).unwrap();
            crate::network::loopback_up().unwrap();
            test();
        };
        std::thread::scope(|scope| scope.spawn(test).join().unwrap());
    }

    fn connect(port: u16) -> io::Result<TcpStream> {
        TcpStream::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, port)))
    }

    #[test]
    fn privileged_one_socket_hears_of_many_ports() {
        apart(|| {
            let any = |port| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
            let (listener, other) = (any(20_000), any(21_000));
            let steering = Steering::begin().unwrap();
            steering.place(7, listener.as_fd()).unwrap();
            connect(20_500).unwrap_err();
            steering.lead(20_000..=20_999, 7);
            for port in [20_000, 20_500, 20_999] {
                let client = connect(port).unwrap();
                let (served, from) = listener.accept().unwrap();
                assert_eq!((served.local_addr().unwrap().port(), from), (port, client.local_addr().unwrap()));
            }
            // Beside it everything is as it was.
            connect(21_000).unwrap();
            other.accept().unwrap();
            connect(19_999).unwrap_err();
            let ipv4 = TcpStream::connect(("127.0.0.1", 20_500));
            assert_eq!(ipv4.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            // It wins over whoever listens, until it leads no longer.
            let own = any(20_600);
            connect(20_600).unwrap();
            assert_eq!(listener.accept().unwrap().0.local_addr().unwrap().port(), 20_600);
            steering.lead_no_longer(20_600..=20_600, 8);
            connect(20_600).unwrap();
            listener.accept().unwrap();
            steering.lead_no_longer(20_600..=20_600, 7);
            connect(20_600).unwrap();
            own.accept().unwrap();
            steering.place(7, other.as_fd()).unwrap();
            connect(20_500).unwrap();
            other.accept().unwrap();
            steering.clear(7);
            connect(20_500).unwrap_err();
            steering.clear(7);
            steering.place(7, listener.as_fd()).unwrap();
            drop(listener);
            connect(20_500).unwrap_err();
            steering.place(7, other.as_fd()).unwrap();
            drop(steering);
            connect(20_500).unwrap_err();
        });
    }

    #[test]
    fn privileged_who_may_not_is_refused() {
        apart(|| {
            crate::capability::set(Default::default(), Default::default(), Default::default()).unwrap();
            assert_eq!(Steering::begin().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        });
    }
}
