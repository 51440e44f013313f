//! What can go wrong between a request and its acknowledgement.

use std::fmt;
use std::io;

use errdefs::ErrorKind;
use rustix::io::Errno;

/// Why a netlink request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// There is no socket, or it failed.
    #[error("talk to the kernel over netlink")]
    Socket {
        /// What the socket answered.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("{request}")]
    Refused {
        /// What was asked for, with the name of the object: "create bridge ls0".
        request: String,
        /// The kernel's reason.
        source: Refusal,
    },
    /// A list never was whole: others did not stop changing it.
    #[error("{request}: changed all the time")]
    Interrupted {
        /// What was asked for.
        request: String,
    },
    /// An answer does not have the form that the kernel's headers promise.
    #[error("{request}: answer of the kernel cut short")]
    Malformed {
        /// What was asked for.
        request: String,
    },
}

impl NetlinkError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            NetlinkError::Refused { source, .. } if source.errno == Errno::EXIST => ErrorKind::AlreadyExists,
            NetlinkError::Refused { source, .. } if source.errno == Errno::PERM => ErrorKind::Forbidden,
            NetlinkError::Refused { source, .. } if source.is_missing() => ErrorKind::NotFound,
            NetlinkError::Socket { .. }
            | NetlinkError::Refused { .. }
            | NetlinkError::Interrupted { .. }
            | NetlinkError::Malformed { .. } => ErrorKind::Internal,
        }
    }

    /// The kernel's error number, if it refused the request.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NetlinkError::Refused { source, .. } => Some(source.errno),
            NetlinkError::Socket { .. } | NetlinkError::Interrupted { .. } | NetlinkError::Malformed { .. } => None,
        }
    }

    pub(crate) fn socket(err: Errno) -> NetlinkError {
        NetlinkError::Socket { source: err.into() }
    }
}

/// The kernel's reason for a refusal: its error number, and its own words where it has some (NETLINK_EXT_ACK).
#[derive(Debug)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// The kernel's explanation; empty where it gives none.
    pub text: String,
}

impl Refusal {
    /// Whether the object of the request is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno, Errno::NODEV | Errno::NOENT | Errno::SRCH | Errno::NXIO)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = io::Error::from(self.errno);
        if self.text.is_empty() { write!(f, "{errno}") } else { write!(f, "{errno}: {}", self.text) }
    }
}

impl std::error::Error for Refusal {}
