//! What only the client of a build has: its secrets, its agents, and directories in which it keeps caches.

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;

use content::Blob;
use oci::Digest;
use tokio::net::UnixStream;

/// An answer on its way.
pub type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Whoever has a build made, asked while commands run.
pub trait Asks: Send + Sync {
    /// A secret; `None` where there is none of that name.
    fn secret(&self, id: String) -> Answer<Result<Option<Vec<u8>>, AskError>>;

    /// Whether there is an agent of that name; or why not, in the client's words.
    fn has_agent(&self, id: String) -> Answer<Result<bool, AskError>>;

    /// Carries a connection to an agent to its end.
    fn forward(&self, id: String, stream: UnixStream) -> Answer<()>;

    /// A short blob in a directory of the client's; of one that is longer than so many bytes, that.
    fn document(&self, directory: String, digest: Digest, max_bytes: usize) -> Answer<Result<Vec<u8>, AskError>>;

    /// A blob in a directory of the client's, as it comes: nobody has compared it with its digest. For a thread that may
    /// block; called where there is a runtime.
    fn blob(&self, directory: &str, blob: &Blob) -> Box<dyn Read + Send>;

    /// Whether a directory of the client's has a blob.
    fn has_blob(&self, directory: String, blob: Blob) -> Answer<Result<bool, AskError>>;

    /// Puts a blob into a directory of the client's; answers what it is.
    fn put_blob(&self, directory: String, source: Box<dyn Read + Send>) -> Answer<Result<Blob, AskError>>;
}

/// The client of a build, where it can be asked.
pub type Client = Option<Arc<dyn Asks>>;

/// Why a client does not answer: in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AskError(pub String);
