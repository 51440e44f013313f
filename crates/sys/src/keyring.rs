//! Session keyrings.

use std::ffi::CStr;
use std::io;

/// Gives the calling thread the session keyring of this name, a new one if there is none.
///
/// Without it a container's processes could read keys of the session that started the daemon. ENOSYS on a kernel without
/// keyrings.
pub fn join_session(name: &CStr) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated and lives over the call.
    crate::check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    Ok(())
}
