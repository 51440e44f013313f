//! Loading a compiled system-call filter.

use std::io;

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

    /// Puts the calling thread, and what it executes, under the filter for ever. Needs CAP_SYS_ADMIN or no_new_privs.
    ///
    /// Without SECCOMP_FILTER_FLAG_TSYNC: meant for a process of one thread.
    pub fn load(&self) -> io::Result<()> {
        let program = libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: program and the instructions live over the call, which only reads them; their number is right.
        crate::check(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
        })?;
        Ok(())
    }
}

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
        let child = fork(NewNamespaces::default(), None, || if program.load().is_ok() { 0 } else { 1 }).unwrap();
        assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Exit::Signal(libc::SIGSYS as u8));
    }
}
