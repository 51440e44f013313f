//! The kernel's answers in words that do not depend on the C library.
//!
//! Docker's clients, podman and tests of both look for glibc's sentences, which are Go's, too; static programs have musl's.

use rustix::io::Errno;

/// What musl says otherwise, of all that a system call of ours may answer.
const SENTENCES: [(Errno, &str); 32] = [
    (Errno::IO, "input/output error"),
    (Errno::CHILD, "no child processes"),
    (Errno::NOMEM, "cannot allocate memory"),
    (Errno::BUSY, "device or resource busy"),
    (Errno::XDEV, "invalid cross-device link"),
    (Errno::MFILE, "too many open files"),
    (Errno::NOTTY, "inappropriate ioctl for device"),
    (Errno::SPIPE, "illegal seek"),
    (Errno::DOM, "numerical argument out of domain"),
    (Errno::RANGE, "numerical result out of range"),
    (Errno::DEADLK, "resource deadlock avoided"),
    (Errno::NAMETOOLONG, "file name too long"),
    (Errno::LOOP, "too many levels of symbolic links"),
    (Errno::NOPKG, "package not installed"),
    (Errno::OVERFLOW, "value too large for defined data type"),
    (Errno::LIBACC, "can not access a needed shared library"),
    (Errno::LIBBAD, "accessing a corrupted shared library"),
    (Errno::USERS, "too many users"),
    (Errno::NOTSOCK, "socket operation on non-socket"),
    (Errno::MSGSIZE, "message too long"),
    (Errno::OPNOTSUPP, "operation not supported"),
    (Errno::ADDRINUSE, "address already in use"),
    (Errno::ADDRNOTAVAIL, "cannot assign requested address"),
    (Errno::NETUNREACH, "network is unreachable"),
    (Errno::CONNABORTED, "software caused connection abort"),
    (Errno::ISCONN, "transport endpoint is already connected"),
    (Errno::NOTCONN, "transport endpoint is not connected"),
    (Errno::TIMEDOUT, "connection timed out"),
    (Errno::HOSTUNREACH, "no route to host"),
    (Errno::INPROGRESS, "operation now in progress"),
    (Errno::UCLEAN, "structure needs cleaning"),
    (Errno::DQUOT, "disk quota exceeded"),
];

/// The sentence, where C libraries differ in it.
pub(crate) fn of(number: i32) -> Option<&'static str> {
    let named = |(errno, _): &&(Errno, &str)| errno.raw_os_error() == number;
    SENTENCES.iter().find(named).map(|(_, sentence)| *sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SystemError;

    #[test]
    fn sentences_are_the_same_with_every_c_library() {
        let said = |errno: Errno| SystemError(errno.into()).to_string();
        assert_eq!(said(Errno::LOOP), "too many levels of symbolic links");
        assert_eq!(said(Errno::NOENT), "no such file or directory");
        #[cfg(target_env = "gnu")]
        for (errno, sentence) in SENTENCES {
            let library = std::io::Error::from(errno).to_string().to_lowercase();
            assert_eq!(library.split(" (os").next(), Some(sentence), "{errno:?}");
        }
    }
}
