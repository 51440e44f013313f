//! Why a call failed.

use std::io;
use std::path::PathBuf;

use errdefs::ErrorKind;

use crate::Endpoint;

/// What dockerd says of a path that it does not have; longshored says it, too.
const NO_SUCH_CALL: &str = "page not found";

/// Why a call failed. The texts are those which users of Docker know.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there.
    #[error("Cannot connect to the Longshore daemon at {endpoint}. Is the daemon running?{}", hint(endpoint))]
    Connect {
        /// Where we looked.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody listens, but not for us.
    #[error(
        "permission denied while trying to connect to the Longshore daemon socket at {endpoint}: become root or a member of the socket's group"
    )]
    Denied {
        /// Where we looked.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody listens, but is not who we think, or does not let us in.
    #[error("error during connect: {endpoint}")]
    Refused {
        /// Where we looked.
        endpoint: Endpoint,
        /// What is wrong.
        source: io::Error,
    },
    /// The daemon could not be started on demand.
    #[error("start the Longshore daemon")]
    Start {
        /// The step that failed.
        source: crate::on_demand::StartError,
    },
    /// A container without a name.
    #[error("invalid container name or ID: value is empty")]
    EmptyName,
    /// A network without a name.
    #[error("invalid network name or ID: value is empty")]
    EmptyNetwork,
    /// The daemon refused.
    #[error("Error response from daemon: {message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The daemon's sentence.
        message: String,
    },
    /// The daemon does not have a call that is ours alone.
    #[error("the daemon cannot do that: it is not Longshore's, or an older one")]
    NotOurs,
    /// The connection broke, or what came over it is no HTTP.
    #[error("error during connect: {method} {path}")]
    Http {
        /// The method.
        method: http::Method,
        /// The path.
        path: String,
        /// What hyper said.
        source: hyper::Error,
    },
    /// A raw stream broke.
    #[error("stream of {path}")]
    Stream {
        /// The path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The request cannot be written as HTTP.
    #[error("build the request to {path}")]
    Request {
        /// The path.
        path: String,
        /// What is wrong.
        source: http::Error,
    },
    /// The answer is not the JSON that we expect.
    #[error("read the daemon's answer to {path}")]
    Decode {
        /// The path.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The answer lacks a header, or has another one.
    #[error("the daemon's answer to {path} has no {name}")]
    Header {
        /// The path.
        path: String,
        /// The header.
        name: &'static str,
    },
    /// A file of the user cannot be read.
    #[error("open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ClientError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ClientError::Connect { .. } | ClientError::Refused { .. } | ClientError::Start { .. } => {
                ErrorKind::Unavailable
            }
            ClientError::Http { .. } | ClientError::Stream { .. } => ErrorKind::Unavailable,
            ClientError::Denied { .. } => ErrorKind::Forbidden,
            ClientError::EmptyName | ClientError::EmptyNetwork | ClientError::Request { .. } => {
                ErrorKind::InvalidArgument
            }
            ClientError::Decode { .. } => ErrorKind::Internal,
            ClientError::Open { source, .. } => errdefs::io_kind(source),
            ClientError::Header { .. } => ErrorKind::Internal,
            ClientError::NotOurs => ErrorKind::NotImplemented,
            ClientError::Api { status, .. } => status_kind(*status),
        }
    }

    /// The same of a call that no other daemon has than ours: what there is none of is told as what it is.
    pub(crate) fn of_own_call(self) -> ClientError {
        match self {
            ClientError::Api { status: 404, message } if message == NO_SUCH_CALL => ClientError::NotOurs,
            err => err,
        }
    }

    /// Whether the daemon went away before it had answered: asked again, its successor may know.
    pub fn is_broken_off(&self) -> bool {
        match self {
            ClientError::Http { .. } | ClientError::Stream { .. } => true,
            // A daemon that ends in good order ends its answers, too: within the document.
            ClientError::Decode { source, .. } => source.is_eof(),
            _ => false,
        }
    }

    /// Whether the daemon says that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }
}

/// What helps where nothing listens: of another machine we do not know what runs there.
fn hint(endpoint: &Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Unix(_) => " Start it with `longshored`",
        Endpoint::Tcp(_) | Endpoint::Ssh(_) => "",
    }
}

fn status_kind(status: u16) -> ErrorKind {
    match status {
        304 => ErrorKind::NotModified,
        401 => ErrorKind::Unauthorized,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        501 => ErrorKind::NotImplemented,
        503 => ErrorKind::Unavailable,
        400..=499 => ErrorKind::InvalidArgument,
        _ => ErrorKind::Internal,
    }
}
