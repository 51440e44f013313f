//! Why an image does not come. Where dockerd has a sentence, it is that.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use errdefs::ErrorKind;
use oci::Digest;

/// How long a registry may make us wait. Docker Hub's limits last for hours: whoever sits there wants to know now.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no connection. The texts are Go's.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("dial tcp: lookup {host}: no such host")]
    Lookup {
        /// The name.
        host: String,
        /// Why, in the resolver's words; not printed, because clients know Go's.
        reason: String,
    },
    /// There is no such port.
    #[error("dial tcp: address {port}: invalid port")]
    Port {
        /// What is written.
        port: String,
    },
    /// The address does not answer, or not in the way of a connection.
    #[error("dial tcp {address}: connect: {}", reason(.error))]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system says, printed in Go's words.
        error: io::Error,
    },
    /// Nothing happened for too long.
    #[error("dial tcp: lookup {host}: i/o timeout")]
    LookupDeadline {
        /// The name.
        host: String,
    },
    /// Nothing happened for too long.
    #[error("dial tcp {address}: i/o timeout")]
    Deadline {
        /// Where.
        address: SocketAddr,
    },
}

/// The C library's words in Go's writing, without Rust's number behind them.
fn reason(err: &io::Error) -> String {
    let text = err.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    match err.raw_os_error() {
        Some(_) => text.to_lowercase(),
        None => text.to_owned(),
    }
}

/// Why a request got no answer that is of use.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The proxy does not answer. The words are Go's.
    #[error("proxyconnect tcp")]
    Proxy {
        /// Why.
        source: Box<ExchangeError>,
    },
    /// There is no way to ask it.
    #[error(transparent)]
    ProxyAddress(#[from] crate::ProxyError),
    /// The proxy hung up.
    #[error("ask the proxy for a tunnel")]
    Tunnel {
        /// Why.
        source: io::Error,
    },
    /// The proxy does not let us through.
    #[error("{reason}")]
    NoTunnel {
        /// In the words of its status.
        reason: String,
    },
    /// The files with certificates.
    #[error(transparent)]
    Tls(Box<crate::TlsError>),
    /// The other side does not speak TLS, but perhaps HTTP.
    #[error("http: server gave HTTP response to HTTPS client")]
    PlainHttp,
    /// The TLS handshake failed, for instance because nobody vouches for the certificate.
    #[error("tls: failed to verify or agree")]
    Handshake {
        /// Why.
        source: io::Error,
    },
    /// The name cannot stand in a certificate.
    #[error("tls: invalid server name {host}")]
    ServerName {
        /// The name.
        host: String,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("exchange HTTP messages")]
    Http {
        /// Why.
        source: hyper::Error,
    },
    /// No answer came in time.
    #[error("net/http: timeout awaiting response headers")]
    Deadline,
    /// A body stopped, or came too slowly to be worth waiting for.
    #[error("net/http: timeout reading the body")]
    Stalled,
    /// A body is longer than what it can be.
    #[error("the answer is longer than {limit_bytes} bytes")]
    TooLong {
        /// The bound.
        limit_bytes: u64,
    },
    /// A body ended too early.
    #[error("unexpected EOF")]
    Truncated,
    /// The registry sends us on and on.
    #[error("stopped after {limit} redirects")]
    Redirects {
        /// The bound.
        limit: usize,
    },
    /// Something that shall be an address is none that we go to.
    #[error("invalid address {text:?}")]
    Address {
        /// The text.
        text: String,
    },
    /// A part of another range than the one that was asked for.
    #[error("the registry answered with another part of the blob")]
    Range,
    /// The registry wants a name and a password.
    #[error("no basic auth credentials")]
    NoCredentials,
    /// A credential cannot be written into a header.
    #[error("credentials with characters that no header can have")]
    Credentials,
    /// The token server gave none.
    #[error("authorization server did not include a token in the response")]
    NoToken,
    /// The token server is elsewhere, unprotected, and would get our password.
    #[error("refusing to send credentials to {realm} without TLS")]
    UnprotectedRealm {
        /// Where.
        realm: String,
    },
    /// The token server does not know us.
    #[error("unauthorized: {details}")]
    Unauthorized {
        /// Its words.
        details: String,
    },
    /// Neither what was asked for nor a reason.
    #[error("received unexpected HTTP status: {status}")]
    Status {
        /// The status.
        status: http::StatusCode,
    },
}

impl From<crate::TlsError> for ExchangeError {
    fn from(err: crate::TlsError) -> ExchangeError {
        ExchangeError::Tls(Box::new(err))
    }
}

impl ExchangeError {
    /// Why a body stopped.
    pub(crate) fn of_body(source: hyper::Error) -> ExchangeError {
        let mut cause = std::error::Error::source(&source);
        while let Some(err) = cause {
            if err.downcast_ref::<io::Error>().is_some_and(|err| err.kind() == io::ErrorKind::UnexpectedEof) {
                return ExchangeError::Truncated;
            }
            cause = err.source();
        }
        ExchangeError::Http { source }
    }

    /// Whether nothing there has spoken TLS; a proxy may have kept us from asking.
    pub(crate) fn is_not_tls(&self) -> bool {
        matches!(self, ExchangeError::PlainHttp | ExchangeError::Dial(_) | ExchangeError::NoTunnel { .. })
    }

    /// Whether the same request may succeed a little later.
    pub(crate) fn passes(&self) -> bool {
        match self {
            ExchangeError::Http { .. }
            | ExchangeError::Deadline
            | ExchangeError::Stalled
            | ExchangeError::Truncated
            | ExchangeError::Dial(DialError::Deadline { .. }) => true,
            ExchangeError::Status { status } => status.is_server_error(),
            _ => false,
        }
    }
}

/// What a registry said instead of what it was asked for (distribution-spec, "Error codes").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `MANIFEST_UNKNOWN` and so on.
    pub code: String,
    /// In its words.
    pub message: String,
    /// The status that it came with.
    pub status: u16,
    /// Whether there is more to it than the code and its usual message.
    pub specific: bool,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.to_lowercase().replace('_', " ");
        match self.specific {
            true => write!(f, "{code}: {}", self.message),
            false => f.write_str(&code),
        }
    }
}

/// Why an image, or a part of it, does not come.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A request failed.
    #[error("{method} \"{url}\"")]
    Request {
        /// `Get` and so on, as Go writes it.
        method: &'static str,
        /// Of what.
        url: String,
        /// Why.
        source: ExchangeError,
    },
    /// What is kept in files about the registry.
    #[error(transparent)]
    Tls(Box<crate::TlsError>),
    /// The registry says what is wrong, and it is not one of those below.
    #[error("{answer}")]
    Refused {
        /// Its words.
        answer: Answer,
    },
    /// Neither what was asked for nor a reason.
    #[error("received unexpected HTTP status: {status}")]
    Status {
        /// The status.
        status: http::StatusCode,
    },
    /// It has too much to do, and says when to come back.
    #[error("{refusal}")]
    Busy {
        /// When.
        after: Duration,
        /// What it says besides.
        refusal: Box<RegistryError>,
    },
    /// It takes uploads, but does not say where.
    #[error("the registry does not say where the upload goes")]
    NoLocation,
    /// What shall be sent cannot be read.
    #[error("read what is to be sent")]
    Source {
        /// Why.
        source: io::Error,
    },
    /// It does not let us in, or is no registry.
    #[error("login attempt to {url} failed with status: {status}")]
    Login {
        /// Where.
        url: String,
        /// What it answered.
        status: http::StatusCode,
    },
    /// There is no such tag or digest.
    #[error("manifest for {reference} not found: {answer}")]
    ManifestUnknown {
        /// As users write it.
        reference: String,
        /// The registry's words.
        answer: Answer,
    },
    /// There is no such repository.
    #[error("repository {name} not found: {answer}")]
    NameUnknown {
        /// As users write it.
        name: String,
        /// The registry's words.
        answer: Answer,
    },
    /// There may be no such repository, or we may not know.
    #[error("pull access denied for {name}, repository does not exist or may require 'docker login': {answer}")]
    Denied {
        /// As users write it.
        name: String,
        /// The registry's words.
        answer: Answer,
    },
    /// A document is longer than any that makes sense.
    #[error("the document is longer than {limit_bytes} bytes")]
    TooLong {
        /// The bound.
        limit_bytes: u64,
    },
    /// A document is not what it says it is.
    #[error("decode the manifest")]
    Manifest {
        /// Why.
        source: serde_json::Error,
    },
    /// A document is of a kind that we do not know.
    #[error("unsupported manifest format")]
    Format,
    /// A document says that it is both an image and a list of images, or another kind than its header says.
    #[error("ambiguous manifest: media type {media_type:?} does not fit its contents")]
    Ambiguous {
        /// What it says.
        media_type: String,
    },
    /// The oldest format.
    #[error(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest the author of {reference} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. More information at https://docs.docker.com/go/deprecated-image-specs/"
    )]
    Schema1 {
        /// In full.
        reference: String,
    },
    /// Indexes name each other without end.
    #[error("indexes nest too deep")]
    Nesting,
    /// No image of the index runs here.
    #[error("no matching manifest for {platform} in the manifest list entries")]
    NoMatch {
        /// What was wanted.
        platform: String,
    },
    /// It is not an image: a chart, a plugin, a signature.
    #[error("Encountered remote {media_type:?}({class}) when fetching")]
    NotAnImage {
        /// The configuration's type.
        media_type: String,
        /// What that is.
        class: &'static str,
    },
    /// A layer is of a kind that we cannot unpack.
    #[error("unsupported media type {media_type}")]
    LayerType {
        /// Which one.
        media_type: String,
    },
    /// The bytes are not those that were asked for.
    #[error("manifest verification failed for digest {digest}")]
    ManifestDigest {
        /// What was asked for.
        digest: Digest,
    },
    /// The configuration does not come.
    #[error("error pulling image configuration")]
    Config {
        /// Why.
        source: Box<RegistryError>,
    },
    /// The bytes are not those that the manifest names.
    #[error("image config verification failed for digest {digest}")]
    ConfigDigest {
        /// What was asked for.
        digest: Digest,
    },
    /// The bytes are not those that the manifest names.
    #[error("filesystem layer verification failed for digest {digest}")]
    LayerDigest {
        /// What was asked for.
        digest: Digest,
    },
    /// A layer ended too early, every time.
    #[error("unexpected EOF")]
    Truncated,
    /// The disk does not take a layer.
    #[error("write layer {digest}")]
    Write {
        /// Which one.
        digest: Digest,
        /// Why.
        source: content::IngestError,
    },
    /// Nobody waits for it any more.
    #[error("context canceled")]
    Cancelled,
}

impl From<crate::TlsError> for RegistryError {
    fn from(err: crate::TlsError) -> RegistryError {
        RegistryError::Tls(Box::new(err))
    }
}

impl RegistryError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RegistryError::Request { source: ExchangeError::Unauthorized { .. }, .. } => ErrorKind::Unauthorized,
            RegistryError::Refused { answer } => match answer.status {
                401 => ErrorKind::Unauthorized,
                403 => ErrorKind::Forbidden,
                404 => ErrorKind::NotFound,
                429 | 503 => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            },
            RegistryError::Busy { refusal, .. } => refusal.kind(),
            RegistryError::ManifestUnknown { .. }
            | RegistryError::NameUnknown { .. }
            | RegistryError::Denied { .. }
            | RegistryError::NoMatch { .. } => ErrorKind::NotFound,
            RegistryError::NotAnImage { .. }
            | RegistryError::Tls(_)
            | RegistryError::Format
            | RegistryError::Schema1 { .. }
            | RegistryError::LayerType { .. } => ErrorKind::InvalidArgument,
            _ => ErrorKind::Internal,
        }
    }

    /// Whether nothing there has spoken TLS. Whoever has is never asked again without: all that is between us would see the
    /// credentials.
    pub(crate) fn is_not_tls(&self) -> bool {
        matches!(self, RegistryError::Request { source, .. } if source.is_not_tls())
    }

    /// Whether what answers speaks HTTP without TLS.
    pub fn is_plain_http(&self) -> bool {
        matches!(self, RegistryError::Request { source: ExchangeError::PlainHttp, .. })
    }

    /// Whether the same request may succeed a little later.
    pub(crate) fn passes(&self) -> bool {
        match self {
            RegistryError::Request { source, .. } => source.passes(),
            RegistryError::Status { status } => status.is_server_error(),
            RegistryError::Config { source } => source.passes(),
            RegistryError::Refused { answer } => answer.status >= 500,
            RegistryError::Truncated | RegistryError::Busy { .. } => true,
            _ => false,
        }
    }

    /// How long to wait before asking again, where `usual` is what we would do; nothing if the registry wants more patience
    /// than a user has.
    pub(crate) fn wait(&self, usual: Duration) -> Option<Duration> {
        match self {
            RegistryError::Busy { after, .. } => (*after <= PATIENCE).then(|| usual.max(*after)),
            RegistryError::Config { source } => source.wait(usual),
            _ => Some(usual),
        }
    }

    /// Whether the way to the registry is what failed, or the client left: what came so far is as good as before.
    pub fn is_outage(&self) -> bool {
        match self {
            RegistryError::Cancelled | RegistryError::Request { source: ExchangeError::Dial(_), .. } => true,
            RegistryError::Refused { answer } => self.passes() || answer.status == 429,
            _ => self.passes(),
        }
    }
}
