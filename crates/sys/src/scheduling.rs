//! How a thread is scheduled: policy, I/O priority, processors, memory nodes; and its execution domain.
//!
//! Everything here is for the calling thread, and for what it clones and executes afterwards.

use std::fmt;
use std::io;
use std::mem::size_of;

/// What sched_setattr(2) takes; times are in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// SCHED_OTHER (0), SCHED_FIFO (1) and so on.
    pub policy: u32,
    /// SCHED_FLAG_* bits.
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE.
    pub runtime: u64,
    /// For SCHED_DEADLINE.
    pub deadline: u64,
    /// For SCHED_DEADLINE.
    pub period: u64,
}

/// Sets policy and priority.
pub fn set_attributes(attributes: &Attributes) -> io::Result<()> {
    let kernels = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
        util_min: 0,
        util_max: 0,
    };
    // SAFETY: the kernel reads as many bytes as the structure's own size says, and it lives through the call; 0 is the
    // calling thread.
    crate::check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const kernels, 0) }).map(drop)
}

/// `struct sched_attr` in its second version (linux/sched/types.h, SCHED_ATTR_SIZE_VER1, since 5.3).
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// Sets the calling thread's I/O priority: the kernel's class (1 real time, 2 best effort, 3 idle), and 0 to 7.
pub fn set_io_priority(class: u8, level: u8) -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    let priority = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: three integers; 0 is the calling thread.
    crate::check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) }).map(drop)
}

/// A set of small numbers, of processors or memory nodes, as the kernel's bit masks have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask(Vec<libc::c_ulong>);

impl Mask {
    /// The greatest number that fits: more than any kernel has of either.
    pub const MAX: u32 = (1 << 16) - 1;

    /// Adds a number of at most [`Mask::MAX`]; greater ones are left out.
    pub fn insert(&mut self, number: u32) {
        if number > Mask::MAX {
            return;
        }
        let (word, bit) = (number / libc::c_ulong::BITS, number % libc::c_ulong::BITS);
        let words = self.0.len().max(word as usize + 1);
        self.0.resize(words, 0);
        self.0[word as usize] |= 1 << bit;
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: u32) -> bool {
        let (word, bit) = (number / libc::c_ulong::BITS, number % libc::c_ulong::BITS);
        self.0.get(word as usize).is_some_and(|word| word >> bit & 1 == 1)
    }

    /// Whether there is no number in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

impl fmt::Display for Mask {
    /// As a list of ranges: `0-3,7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.0.len() as u32 * libc::c_ulong::BITS;
        let mut comma = "";
        let mut first = 0;
        while let Some(start) = (first..numbers).find(|number| self.contains(*number)) {
            let end = (start..numbers).find(|number| !self.contains(*number)).unwrap_or(numbers);
            match end - start {
                1 => write!(f, "{comma}{start}")?,
                _ => write!(f, "{comma}{start}-{}", end - 1)?,
            }
            (comma, first) = (",", end);
        }
        Ok(())
    }
}

/// Lets the calling thread run on these processors, and no others. The kernel leaves out those that its cpuset has not.
pub fn set_affinity(processors: &Mask) -> io::Result<()> {
    let bytes = size_of_val(processors.0.as_slice());
    // SAFETY: the kernel reads so many bytes of the mask, which lives through the call; 0 is the calling thread.
    crate::check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, bytes, processors.0.as_ptr()) }).map(drop)
}

/// Lets the calling thread run on every processor of its cpuset.
pub fn reset_affinity() -> io::Result<()> {
    let all = [libc::c_ulong::MAX; PROCESSORS_MAX / libc::c_ulong::BITS as usize];
    // SAFETY: as above.
    crate::check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&all), all.as_ptr()) }).map(drop)
}

/// The most that a kernel is built for (CONFIG_NR_CPUS). What is beyond its own number it does not read.
const PROCESSORS_MAX: usize = 8192;

/// The processors of the calling thread.
pub fn affinity() -> io::Result<Mask> {
    let mut words = vec![0; PROCESSORS_MAX / libc::c_ulong::BITS as usize];
    let bytes = size_of_val(words.as_slice());
    // SAFETY: the kernel writes at most so many bytes to the buffer, which is all ours.
    crate::check(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, bytes, words.as_mut_ptr()) })?;
    Ok(Mask(words))
}

/// Sets the memory policy: MPOL_* with MPOL_F_* bits, and the nodes that it is about.
pub fn set_memory_policy(mode: u32, nodes: &Mask) -> io::Result<()> {
    let bits = nodes.0.len() * libc::c_ulong::BITS as usize;
    // The kernel wants one more than there are bits (mm/mempolicy.c, get_nodes()); without a node there is no mask.
    let (mask, limit) = if bits == 0 { (std::ptr::null(), 0) } else { (nodes.0.as_ptr(), bits + 1) };
    // SAFETY: the kernel reads `limit - 1` bits of the mask, which is as long and lives through the call.
    crate::check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, limit) }).map(drop)
}

/// Sets the execution domain: PER_LINUX (0), PER_LINUX32 (8).
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: one integer.
    crate::check(unsafe { libc::personality(libc::c_ulong::from(domain)) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fork::{NewNamespaces, fork};
    use crate::wait::{Exit, wait};
    use std::os::fd::AsFd;

    /// In a process of its own: what is set here stays.
    fn isolated(body: impl FnOnce() -> bool) {
        let child = fork(NewNamespaces::default(), None, || u8::from(!body())).unwrap();
        assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Exit::Code(0));
    }

    #[test]
    fn a_mask_holds_what_is_put_into_it() {
        let mut mask = Mask::default();
        assert!(mask.is_empty());
        mask.insert(65);
        mask.insert(0);
        mask.insert(Mask::MAX + 1);
        assert_eq!(mask.0, [1, 2]);
        assert!(!mask.is_empty());
        mask.insert(64);
        assert_eq!((mask.to_string().as_str(), mask.contains(64), mask.contains(999)), ("0,64-65", true, false));
    }

    #[test]
    fn a_thread_runs_where_it_is_told_and_anywhere_again() {
        isolated(|| {
            let before = affinity().unwrap();
            let mut first = Mask::default();
            first.insert(before.0[0].trailing_zeros());
            set_affinity(&first).unwrap();
            let one = affinity().unwrap().0[0].count_ones() == 1;
            reset_affinity().unwrap();
            one && affinity().unwrap().0[0].count_ones() >= before.0[0].count_ones()
        });
    }

    #[test]
    fn a_lower_priority_is_taken_and_nonsense_is_not() {
        isolated(|| {
            let nice = Attributes { policy: 3, nice: 5, ..Attributes::default() };
            let unknown = Attributes { policy: 99, ..Attributes::default() };
            set_attributes(&nice).is_ok()
                && set_attributes(&unknown).is_err()
                && set_io_priority(3, 0).is_ok()
                && set_io_priority(4, 0).is_err()
                && set_personality(0).is_ok()
        });
    }
}
