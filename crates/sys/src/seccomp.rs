//! Loading a compiled system-call filter, and deciding the calls that it leaves to a listener.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Bytes of one instruction (`struct sock_filter`).
const INSTRUCTION_BYTES: usize = 8;

/// Instructions that the kernel takes at most (BPF_MAXINSNS).
const INSTRUCTIONS_MAX: usize = 4096;

/// A filter: an array of `struct sock_filter` in host byte order, as libseccomp exports it.
///
/// Invariant: a whole number of instructions, at least one, at most 4096.
#[derive(Clone, Debug)]
pub struct Program(Vec<libc::sock_filter>);

impl Program {
    /// Bytes of the longest one.
    pub const BYTES_MAX: usize = INSTRUCTIONS_MAX * INSTRUCTION_BYTES;

    /// Takes the bytes of a program; `None` if they are not a whole number of instructions in the kernel's bounds.
    ///
    /// Whether the instructions make sense is checked by the kernel, in [`Program::load`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Program> {
        let (instructions, rest) = bytes.as_chunks::<INSTRUCTION_BYTES>();
        if !rest.is_empty() || instructions.is_empty() || instructions.len() > INSTRUCTIONS_MAX {
            return None;
        }
        let decode = |i: &[u8; INSTRUCTION_BYTES]| libc::sock_filter {
            code: u16::from_ne_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
        };
        Some(Program(instructions.iter().map(decode).collect()))
    }

    /// Whether it leaves calls to a listener: has an instruction `return SECCOMP_RET_USER_NOTIF`.
    pub fn notifies(&self) -> bool {
        let is_return = |code: u16| u32::from(code) == libc::BPF_RET | libc::BPF_K;
        let action = |k: u32| k & libc::SECCOMP_RET_ACTION_FULL;
        self.0.iter().any(|i| is_return(i.code) && action(i.k) == libc::SECCOMP_RET_USER_NOTIF)
    }

    /// Puts the calling thread, and what it executes, under the filter for ever. Needs CAP_SYS_ADMIN or no_new_privs.
    ///
    /// Answers the listener's descriptor if the program [notifies](Program::notifies): until it is listened to, the calls
    /// in question wait. Without SECCOMP_FILTER_FLAG_TSYNC: meant for a process of one thread.
    pub fn load(&self, flags: Flags) -> io::Result<Option<OwnedFd>> {
        let program = libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut() };
        let listener = if self.notifies() { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
        let flags = u64::from(flags.0) | listener;
        // SAFETY: program and the instructions live over the call, which only reads them; their number is right.
        let answer = crate::check(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        })?;
        // SAFETY: with that flag the answer is a new descriptor (close-on-exec) that nothing else owns.
        Ok((listener != 0).then(|| unsafe { OwnedFd::from_raw_fd(answer as i32) }))
    }
}

/// How a program is loaded (seccomp(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// What is denied is logged.
    pub const LOG: Flags = Flags(2);
    /// Without the mitigation of Speculative Store Bypass, which a filter means on some machines.
    pub const SPEC_ALLOW: Flags = Flags(4);
    /// A call that a listener has received can be interrupted by fatal signals only (since Linux 5.19).
    pub const WAIT_KILLABLE_RECV: Flags = Flags(32);

    /// These and those.
    #[must_use]
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// The other end: who decides what becomes of calls. For agents, and for tests.
#[derive(Debug)]
pub struct Listener(pub OwnedFd);

/// A call that waits for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// To answer it.
    pub id: u64,
    /// Who calls, in the listener's PID namespace; 0 if it is not in it.
    pub pid: u32,
    /// The call's number.
    pub number: i32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The kernel makes it. Not for security: arguments in memory can change meanwhile (seccomp_unotify(2)).
    Continue,
    /// It fails with this number.
    Error(i32),
    /// It answers this.
    Answer(i64),
}

impl Listener {
    /// The next call; blocks until there is one. ENOENT if the caller died meanwhile.
    pub fn receive(&self) -> io::Result<Notification> {
        // SAFETY: a structure of integers, for which all zeroes is valid, and which the kernel wants zeroed.
        let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the request's size is that of the structure, which lives over the call.
        crate::check(unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_RECV, &raw mut notification) }.into())?;
        let libc::seccomp_notif { id, pid, data, .. } = notification;
        Ok(Notification { id, pid, number: data.nr, args: data.args })
    }

    /// Decides a call. ENOENT if its caller is gone.
    pub fn answer(&self, id: u64, decision: Decision) -> io::Result<()> {
        let (val, error, flags) = match decision {
            Decision::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Decision::Error(number) => (0, -number, 0),
            Decision::Answer(value) => (value, 0, 0),
        };
        let response = libc::seccomp_notif_resp { id, val, error, flags };
        // SAFETY: the request's size is that of the structure, which lives over the call.
        crate::check(unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_SEND, &raw const response) }.into())?;
        Ok(())
    }
}

/// linux/seccomp.h: `_IOWR('!', 0, struct seccomp_notif)`, `_IOWR('!', 1, struct seccomp_notif_resp)`.
const NOTIF_RECV: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const NOTIF_SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fork::{NewNamespaces, fork};
    use crate::wait::{Exit, wait};
    use std::os::fd::AsFd;

    #[test]
    fn only_whole_programs_within_bounds_are_taken() {
        for (bytes, taken) in [(0, false), (7, false), (8, true), (12, false), (8 * 4096, true), (8 * 4097, false)] {
            assert_eq!(Program::from_bytes(&vec![0; bytes]).is_some(), taken, "{bytes} bytes");
        }
    }

    #[test]
    fn privileged_a_loaded_filter_acts() {
        // One instruction: return SECCOMP_RET_ERRNO | EPERM for every system call but none that could end us, so the child
        // is killed instead (RET_KILL_PROCESS) at its first one.
        let mut bytes = 0x06_u16.to_ne_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(0x8000_0000_u32.to_ne_bytes());
        let program = Program::from_bytes(&bytes).unwrap();
        let child = fork(NewNamespaces::default(), None, || if program.load(Flags::default()).is_ok() { 0 } else { 1 })
            .unwrap();
        assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Exit::Signal(libc::SIGSYS as u8));
    }
}
