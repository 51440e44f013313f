//! Searching: what Docker Hub and registries of the first protocol offer.

use std::sync::Arc;

use errdefs::ErrorKind;
use http::StatusCode;
use serde::Deserialize;

use crate::access::{Access, Ask};
use crate::auth::{self, Credentials};
use crate::connection::{Scheme, Url};
use crate::error::{ExchangeError, RegistryError};
use crate::session::Registry;

/// Where Docker Hub is searched.
const HUB_INDEX: &str = "index.docker.io";

/// Where the first protocol greets.
const PING: &str = "/v1/_ping";

/// The longest list of repositories; a hundred of them are some 30 KiB.
const RESULTS_MAX: u64 = 4 * 1024 * 1024;

/// What a token must be good for, where one is asked for.
const SCOPE: &str = "registry:catalog:search";

/// A repository that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Its name, without the registry.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// How many like it.
    pub star_count: i64,
    /// Whether Docker vouches for it.
    pub is_official: bool,
}

/// Why nothing is found. The sentences are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// Nobody is there who can be believed.
    #[error(
        "invalid registry endpoint {endpoint}: {}. If this private registry supports only HTTP or HTTPS with an unknown CA certificate, please add `--insecure-registry {host}` to the daemon's arguments. In the case of HTTPS, if you have access to the registry's CA certificate, no need for the flag; simply place the CA certificate at /etc/docker/certs.d/{host}/ca.crt",
        errdefs::chain(.reason)
    )]
    Endpoint {
        /// Where.
        endpoint: String,
        /// Whose.
        host: String,
        /// Why.
        reason: Box<RegistryError>,
    },
    /// Nobody is there at all.
    #[error(
        "invalid registry endpoint {endpoint:?}. HTTPS attempt: {}. HTTP attempt: {}",
        errdefs::chain(.secure),
        errdefs::chain(.plain)
    )]
    NoEndpoint {
        /// Where.
        endpoint: String,
        /// Why not with TLS.
        secure: Box<RegistryError>,
        /// Why not without.
        plain: Box<RegistryError>,
    },
    /// The registry does not answer.
    #[error(transparent)]
    Registry(Box<RegistryError>),
    /// It does not search, or not for us.
    #[error("Unexpected status code {}", status.as_u16())]
    Status {
        /// What it answered.
        status: StatusCode,
    },
    /// It answered something else.
    #[error("error decoding registry search results")]
    Results {
        /// Why.
        source: serde_json::Error,
    },
}

impl From<RegistryError> for SearchError {
    fn from(err: RegistryError) -> SearchError {
        SearchError::Registry(Box::new(err))
    }
}

impl SearchError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SearchError::Endpoint { .. } | SearchError::NoEndpoint { .. } => ErrorKind::InvalidArgument,
            SearchError::Registry(err) => err.kind(),
            SearchError::Status { .. } | SearchError::Results { .. } => ErrorKind::Internal,
        }
    }
}

impl Registry {
    /// Searches the registry at `host[:port]`, Docker Hub if there is none, for at most `limit` repositories.
    pub async fn search(
        self: &Arc<Self>,
        host: Option<&str>,
        term: &str,
        limit: u32,
        credentials: Credentials,
    ) -> Result<Vec<Found>, SearchError> {
        let access = match host {
            // It is known to be there, and never asked without TLS.
            None => self.index(Scheme::Https, HUB_INDEX, &credentials),
            Some(host) => self.find_index(host, &credentials).await?,
        };
        let access = match &credentials {
            // A token server knows who that is; the protocol of today says which one.
            Credentials::Identity { .. } => {
                let access = access.greeting_at("/v2/");
                access.greet().await?;
                access
            }
            _ => access,
        };
        access.offer();
        let path = format!("/v1/search?{}", auth::encode(&[("q", term), ("n", &limit.to_string())]));
        let ask = Ask::get(&path);
        let failed = |source: ExchangeError| SearchError::from(access.failed(&ask, source));
        let reply = match access.ask(&ask).await {
            // It wants to know who we are, and nobody told us.
            Err(ExchangeError::NoCredentials) => return Err(SearchError::Status { status: StatusCode::UNAUTHORIZED }),
            asked => asked.map_err(failed)?,
        };
        if reply.response.status() != StatusCode::OK {
            return Err(SearchError::Status { status: reply.response.status() });
        }
        let read = reply.response.into_body().read(RESULTS_MAX, self.settings.timing.document);
        parse(&read.await.map_err(failed)?).map_err(|source| SearchError::Results { source })
    }

    fn index(self: &Arc<Self>, scheme: Scheme, host: &str, credentials: &Credentials) -> Access {
        let base = Url { scheme, authority: host.to_owned(), path: PING.to_owned() };
        Access::new(self.clone(), base, credentials.clone(), SCOPE.to_owned())
    }

    /// Where it answers: with TLS, or without where that is allowed. What it answers does not matter.
    async fn find_index(self: &Arc<Self>, host: &str, credentials: &Credentials) -> Result<Access, SearchError> {
        self.meet(host).await?;
        let first = self.index(Scheme::Https, host, credentials);
        let reason = match first.greet().await {
            Ok(_) => return Ok(first),
            Err(reason) => Box::new(reason),
        };
        if !self.is_insecure(host) {
            let (endpoint, host) = (format!("https://{host}/v1/"), host.to_owned());
            return Err(SearchError::Endpoint { endpoint, host, reason });
        }
        if !reason.is_not_tls() {
            return Err(SearchError::Registry(reason));
        }
        let second = self.index(Scheme::Http, host, credentials);
        match second.greet().await {
            Ok(_) => Ok(second),
            Err(plain) => {
                let endpoint = format!("http://{host}/v1/");
                Err(SearchError::NoEndpoint { endpoint, secure: reason, plain: Box::new(plain) })
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<Found>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Results {
        // Go reads null as nothing.
        #[serde(default)]
        results: Option<Vec<Found>>,
    }
    let results: Results = serde_json::from_slice(bytes)?;
    Ok(results.results.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_what_go_reads() {
        for text in ["{}", r#"{"results":null}"#, r#"{"results":[],"num_results":0}"#] {
            assert_eq!(parse(text.as_bytes()).unwrap(), []);
        }
        let found = parse(br#"{"results":[{"name":"a/b","star_count":3,"is_official":true,"is_automated":true}]}"#);
        let wanted = Found { name: "a/b".into(), star_count: 3, is_official: true, ..Found::default() };
        assert_eq!(found.unwrap(), [wanted]);
        assert!(parse(b"<html>").is_err() && parse(br#"{"results":{}}"#).is_err());
    }
}
