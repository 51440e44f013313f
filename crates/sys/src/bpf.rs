//! Loading and attaching the kinds of eBPF programs that we write: cgroup version 2's device controller, and a filter of sockets.
//! A third one has a module of its own: [`crate::steering`].

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The members of `union bpf_attr` for BPF_PROG_LOAD that we set; the kernel takes a shorter one as zero-filled.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The members of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads a device program (instructions of 8 bytes, as `struct bpf_insn`) and attaches it to a cgroup v2 directory, beside
/// those that are there: all of them must allow an access. It lives as long as the directory.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, instructions: &[[u8; 8]]) -> io::Result<()> {
    let program = load((BPF_PROG_TYPE_CGROUP_DEVICE, 0), instructions)?;
    let attach = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: attach has the layout and size given.
    crate::check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>()) })?;
    Ok(())
}

/// A filter for any number of sockets, of which nothing gets through.
pub(crate) fn load_dropping_filter() -> io::Result<OwnedFd> {
    // r0 = 0 (BPF_ALU64 | BPF_MOV | BPF_K), exit (BPF_JMP | BPF_EXIT): keep 0 bytes.
    load((BPF_PROG_TYPE_SOCKET_FILTER, 0), &[[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]])
}

/// Loads a program of a type that is to be attached as something; 0 where its type tells.
pub(crate) fn load((prog_type, expected_attach_type): (u32, u32), instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    let load = Load {
        prog_type,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; 16],
        prog_ifindex: 0,
        expected_attach_type,
    };
    // SAFETY: load has the layout and size given; instructions and licence live over the call, which only reads them.
    let program =
        crate::check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) })?;
    // SAFETY: a new descriptor that nothing else owns; BPF descriptors are close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(program as i32) })
}
