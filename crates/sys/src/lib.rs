//! Kernel interfaces that rustix lacks, as safe functions. The only crate of the workspace with `unsafe` code.
//!
//! In files by noun; everything takes and returns `OwnedFd`/`BorrowedFd`, and `io::Error` with the kernel's errno:
//!
//! - [`fork`]: clone3 with namespaces, a pidfd and a cgroup, for single-threaded callers.
//! - [`spawn`]: starting a program from a process with many threads (the daemon), vfork-like.
//! - [`exec`]: execve and execveat; [`binary`]: a program that its container cannot overwrite.
//! - [`mount`]: mount_setattr. [`overlay`]: many layers on older kernels. [`fuse`]: overlays by a program.
//! - [`namespace`]: unshare, and cloning into another PID namespace.
//! - [`scheduling`]: policies, priorities, processors, memory nodes, the execution domain.
//! - [`seccomp`], [`capability`], [`keyring`], [`bpf`] (devices): what limits a process.
//! - [`spread`]: trees that come and go, kept apart on the disk.
//! - [`fd`]: close_range, descriptors at given numbers. [`socket`]: descriptors over a unix socket, the peer's identity.
//! - [`steering`]: connections to many ports, led to one listening socket.
//! - [`datagram`]: where a datagram arrived, and where it leaves from.
//! - [`signal`]: masks, dispositions, signalfd. [`wait`]: exit statuses. [`terminal`]: pseudo-terminals.
//! - [`quota`]: project ids of directories, and limits on them. [`btrfs`]: its subvolumes.
//! - [`network`]: the loopback interface, netlink sockets. [`iptables`]: tables of iptables-legacy. [`memory`]: giving pages back. `fortified`, `copy`: for musl.
//!
//! Whatever rustix covers safely is used from there directly, by every crate: no function here repeats one of its.
//! Nothing here decides anything or keeps state.
#![allow(unsafe_code)]

pub mod binary;
pub mod bpf;
pub mod btrfs;
pub mod capability;
// Other targets have better functions, and tests look at these.
#[cfg(all(target_arch = "x86_64", any(target_env = "musl", test)))]
mod copy;
pub mod datagram;
mod end;
pub mod exec;
pub mod fd;
pub mod fork;
mod fortified;
pub mod fuse;
pub mod iptables;
pub mod keyring;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod network;
pub mod open;
pub mod overlay;
pub mod quota;
pub mod scheduling;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod spread;
pub mod steering;
pub mod terminal;
pub mod tied;
pub mod wait;

use std::io;

/// The result of a system call that answers -1 and sets errno.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
