//! Capabilities of the calling thread, as bits; their names are in `oci::names`.

use std::io;

/// A set of capabilities: bit n is capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(pub u64);

impl Set {
    /// What is in both.
    pub fn intersection(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    /// What is in this one only.
    pub fn difference(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    /// The numbers in the set, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |number| self.0 & 1 << number != 0)
    }
}

/// The bounding set of the calling thread: what it can ever get or give.
pub fn bounding() -> Set {
    // PR_CAPBSET_READ answers EINVAL for the first number that this kernel does not know.
    let known = |number: &u32| prctl(libc::PR_CAPBSET_READ, *number, 0).ok();
    let held = (0..u64::BITS).map_while(|number| known(&number).map(|held| (number, held != 0)));
    Set(held.filter(|(_, held)| *held).fold(0, |bits, (number, _)| bits | 1 << number))
}

/// All that this kernel knows: what the first process of a new user namespace holds there, and who joins one.
pub fn known() -> Set {
    let numbers = (0..u64::BITS).take_while(|number| prctl(libc::PR_CAPBSET_READ, *number, 0).is_ok());
    Set(numbers.fold(0, |bits, number| bits | 1 << number))
}

/// The effective set of the calling thread: what it may do in its user namespace.
pub fn effective() -> io::Result<Set> {
    let (header, mut data) = (HEADER, [0_u32; 6]);
    // SAFETY: header and data have the layout of __user_cap_header_struct and two __user_cap_data_struct.
    crate::check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) })?;
    Ok(Set(u64::from(data[0]) | u64::from(data[3]) << 32))
}

/// Drops these from the bounding set. Needs CAP_SETPCAP if there are any.
pub fn drop_bounding(dropped: Set) -> io::Result<()> {
    for number in dropped.numbers() {
        prctl(libc::PR_CAPBSET_DROP, number, 0)?;
    }
    Ok(())
}

/// Sets effective, permitted and inheritable of the calling thread.
pub fn set(effective: Set, permitted: Set, inheritable: Set) -> io::Result<()> {
    let header = HEADER;
    let half = |set: Set, index: usize| (set.0 >> (32 * index)) as u32;
    let data: [u32; 6] = [
        half(effective, 0),
        half(permitted, 0),
        half(inheritable, 0),
        half(effective, 1),
        half(permitted, 1),
        half(inheritable, 1),
    ];
    // SAFETY: header and data have the layout of __user_cap_header_struct and two __user_cap_data_struct.
    crate::check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    Ok(())
}

/// Version 3 (linux/capability.h), this thread: 64 bits in two structures. The libc crate has neither of the types.
const HEADER: [u32; 2] = [0x2008_0522, 0];

/// Replaces the ambient set. Members must be permitted and inheritable already, or the kernel answers EPERM.
pub fn set_ambient(ambient: Set) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u32, 0)?;
    for number in ambient.numbers() {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u32, number)?;
    }
    Ok(())
}

/// Whether a change of the user id away from 0 keeps the permitted capabilities; execve resets it.
pub fn set_keep(keep: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, u32::from(keep), 0)?;
    Ok(())
}

fn prctl(option: libc::c_int, second: u32, third: u32) -> io::Result<libc::c_long> {
    let [second, third] = [second, third].map(libc::c_ulong::from);
    // SAFETY: none of the options used in this file takes a pointer; unused arguments must be and are zero.
    crate::check(unsafe { libc::prctl(option, second, third, 0 as libc::c_ulong, 0 as libc::c_ulong) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bits() {
        assert_eq!(Set(0x21).numbers().collect::<Vec<_>>(), [0, 5]);
    }

    #[test]
    fn the_bounding_set_is_the_one_that_proc_shows() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let shown = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
        assert_eq!(format!("{:016x}", bounding().0), shown);
        let shown = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
        assert_eq!(format!("{:016x}", effective().unwrap().0), shown);
        assert_eq!(bounding().difference(known()), Set(0));
    }
}
