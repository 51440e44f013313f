//! Sessions: connections on which clients answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tracing::debug;

use crate::channel::Channel;
use crate::status::Status;

/// What a client says of its session.
const ID: &str = "x-docker-expose-session-uuid";
const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
const METHOD: &str = "x-docker-expose-session-grpc-method";

/// The longest id, in bytes: BuildKit's have 25.
const ID_MAX: usize = 256;

/// How long a session is waited for that a build names; clients open both at the same time.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session.
#[derive(Debug)]
pub struct Session {
    /// What builds call it.
    pub id: String,
    /// The same for builds of the same directory; empty if the client says none.
    pub shared_key: String,
    methods: BTreeSet<String>,
    /// The way to the client.
    pub channel: Channel,
}

/// What a client says of a session that it wants to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    id: String,
    shared_key: String,
    methods: BTreeSet<String>,
}

/// Why a session is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// It has no id, or one that nobody has.
    #[error("invalid session id")]
    Id,
    /// There is one already. The sentence is BuildKit's.
    #[error("session {0} already exists")]
    Exists(String),
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions(watch::Sender<BTreeMap<String, Arc<Session>>>);

impl Announced {
    /// Reads the headers of a request.
    pub fn of_headers(headers: &HeaderMap) -> Result<Announced, SessionError> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let id = text(ID);
        if id.is_empty() || id.len() > ID_MAX {
            return Err(SessionError::Id);
        }
        let methods = headers.get_all(METHOD).iter().filter_map(|value| value.to_str().ok());
        Ok(Announced { id, shared_key: text(SHARED_KEY), methods: methods.map(str::to_lowercase).collect() })
    }
}

impl Session {
    /// Whether the client answers a call: `/moby.filesync.v1.FileSync/DiffCopy`.
    pub fn answers(&self, path: &str) -> bool {
        self.methods.contains(&path.to_lowercase())
    }
}

impl Sessions {
    /// Refuses a session that there is already.
    pub fn check(&self, announced: &Announced) -> Result<(), SessionError> {
        match self.0.borrow().contains_key(&announced.id) {
            true => Err(SessionError::Exists(announced.id.clone())),
            false => Ok(()),
        }
    }

    /// Keeps a session while its connection lives.
    pub async fn serve(&self, announced: Announced, io: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), Status> {
        let (channel, connection) = Channel::open(io).await?;
        let Announced { id, shared_key, methods } = announced;
        let session = Arc::new(Session { id: id.clone(), shared_key, methods, channel });
        let kept = Kept { all: self, session };
        kept.all.0.send_modify(|all| drop(all.insert(id, kept.session.clone())));
        // A client closes its connection when the build is done.
        if let Err(err) = connection.await {
            debug!(%err, "a session has ended");
        }
        Ok(())
    }

    /// A session, as soon as it is there; `None` where none comes.
    pub async fn find(&self, id: &str) -> Option<Arc<Session>> {
        let mut sessions = self.0.subscribe();
        let found = sessions.wait_for(|all| all.contains_key(id));
        let found = tokio::time::timeout(PATIENCE, found).await.ok()?.ok()?;
        found.get(id).cloned()
    }
}

/// A session that is taken off the list when it ends.
struct Kept<'a> {
    all: &'a Sessions,
    session: Arc<Session>,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.all.0.send_modify(|all| {
            // Another one may have come by the same name.
            if all.get(&self.session.id).is_some_and(|other| Arc::ptr_eq(other, &self.session)) {
                all.remove(&self.session.id);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_is_there_while_its_connection_is() {
        let headers = [(ID, "one"), (SHARED_KEY, "key"), (METHOD, "/a.B/C")];
        let headers: HeaderMap =
            headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).into_iter().collect();
        let announced = Announced::of_headers(&headers).unwrap();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let sessions = Arc::new(Sessions::default());
        let (serving, opened) = (sessions.clone(), announced.clone());
        let serving = tokio::spawn(async move { serving.serve(opened, ours).await });
        let session = sessions.find("one").await.unwrap();
        assert_eq!(
            (session.shared_key.as_str(), session.answers("/A.b/c"), session.answers("/x")),
            ("key", true, false)
        );
        assert_eq!(sessions.check(&announced), Err(SessionError::Exists("one".to_owned())));
        drop(theirs);
        serving.await.unwrap().unwrap();
        assert_eq!(sessions.check(&announced), Ok(()));
    }

    #[test]
    fn a_session_has_a_name() {
        assert_eq!(Announced::of_headers(&HeaderMap::new()), Err(SessionError::Id));
    }
}
