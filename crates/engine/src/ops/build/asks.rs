//! What only the client of a build has: its secrets and its agents.

use std::pin::Pin;
use std::sync::Arc;

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
}

/// The client of a build, where it can be asked.
pub type Client = Option<Arc<dyn Asks>>;

/// Why a client does not answer: in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AskError(pub String);
