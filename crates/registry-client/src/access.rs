//! One registry, as somebody with credentials sees it: what it wants to know, and answers to requests.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, RANGE, USER_AGENT, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use crate::auth::{self, Credentials, Given, Grant, bearer};
use crate::challenge::{self, Challenge};
use crate::connection::{Body, Scheme, Terms, Url};
use crate::error::{ExchangeError, RegistryError};
use crate::outgoing::Outgoing;
use crate::session::{AGENT, Registry};

/// How often one request may be sent on; Go's and so dockerd's bound.
const REDIRECTS_MAX: usize = 10;

/// A registry and who we are to it.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) registry: Arc<Registry>,
    /// Where it greets: every registry does at `/v2/` (distribution-spec, "end-1").
    base: Url,
    credentials: Credentials,
    /// What a token must be good for, as token servers write it; empty to show only who we are.
    scope: String,
    standing: Mutex<Standing>,
}

/// What is known of what the registry wants.
#[derive(Clone, Debug, Default)]
struct Standing {
    challenge: Option<Challenge>,
    authorization: Option<HeaderValue>,
    grant: Option<Grant>,
}

/// An answer, and where it came from.
pub(crate) struct Reply {
    pub(crate) response: Response<Body>,
    /// Another host than the registry: its words are not shown to anyone.
    pub(crate) elsewhere: bool,
}

/// A request to the registry.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Behind the host.
    pub(crate) path: &'a str,
    pub(crate) accept: Option<&'a str>,
    /// From which byte on.
    pub(crate) from: u64,
    /// What is sent, with its type; an empty type is not told.
    pub(crate) content: Option<(&'a str, Bytes)>,
    /// Whether a 404 is an answer, in whatever words.
    pub(crate) may_lack: bool,
}

impl Ask<'_> {
    pub(crate) fn get(path: &str) -> Ask<'_> {
        Ask { method: Method::GET, path, accept: None, from: 0, content: None, may_lack: false }
    }

    /// A request that changes something, without a body.
    pub(crate) fn change(method: Method, path: &str) -> Ask<'_> {
        Ask { method, content: Some(("", Bytes::new())), ..Ask::get(path) }
    }

    /// As Go writes it.
    pub(crate) fn verb(&self) -> &'static str {
        match self.method {
            Method::HEAD => "Head",
            Method::POST => "Post",
            Method::PUT => "Put",
            Method::PATCH => "Patch",
            _ => "Get",
        }
    }

    fn request(&self, url: &Url, authorization: Option<&HeaderValue>) -> Request<Outgoing> {
        let body = self.content.as_ref().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let mut request = Request::new(Outgoing::Whole(body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = url.path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.extend(HeaderValue::from_str(&url.authority).ok().map(|host| (HOST, host)));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.extend(self.accept.and_then(|accept| Some((ACCEPT, HeaderValue::from_str(accept).ok()?))));
        if self.from > 0 {
            headers.extend(HeaderValue::from_str(&format!("bytes={}-", self.from)).ok().map(|range| (RANGE, range)));
        }
        if let Some((kind, bytes)) = &self.content {
            headers.extend(
                HeaderValue::from_str(kind).ok().filter(|kind| !kind.is_empty()).map(|kind| (CONTENT_TYPE, kind)),
            );
            // Registries want it also where there is nothing (RFC 9110, 8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        headers.extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
        request
    }
}

impl Access {
    pub(crate) fn new(registry: Arc<Registry>, base: Url, credentials: Credentials, scope: String) -> Access {
        Access { registry, base, credentials, scope, standing: Mutex::default() }
    }

    /// Where it is.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Finds out what it wants to know; answers the status, which says whether it is a registry.
    pub(crate) async fn greet(&self) -> Result<StatusCode, RegistryError> {
        let ask = Ask::get(&self.base.path);
        let response = self.send(&self.base, false, &ask, None).await.map_err(|source| self.failed(&ask, source))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.standing().challenge = challenge_of(&response);
        }
        Ok(response.status())
    }

    /// Greets it once more, as who we are. Answers what may be shown instead of the password from now on, if a token server
    /// gives out such.
    pub(crate) async fn prove(&self) -> Result<Option<String>, RegistryError> {
        let ask = Ask::get(&self.base.path);
        let failed = |source| self.failed(&ask, source);
        let identity = self.identity().await.map_err(failed)?;
        let authorization = self.authorization().await.map_err(failed)?;
        let response = self.send(&self.base, false, &ask, authorization.as_ref()).await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => Ok(identity),
            status => Err(RegistryError::Login { url: self.base.to_string(), status }),
        }
    }

    /// Gets a token from the realm that the registry names, if it names one, and what is shown there next time.
    async fn identity(&self) -> Result<Option<String>, ExchangeError> {
        let Some(Challenge::Bearer { realm, service, .. }) = self.standing().challenge.clone() else { return Ok(None) };
        if matches!(self.credentials, Credentials::Bearer { .. }) {
            return Ok(None);
        }
        let grant = self.grant(realm, service);
        let given = self.token(&grant).await?;
        self.standing().authorization = Some(bearer(given.token())?);
        Ok(Some(given.refresh_token).filter(|token| !token.is_empty()))
    }

    /// The error of a request.
    pub(crate) fn failed(&self, ask: &Ask<'_>, source: ExchangeError) -> RegistryError {
        let url = Url { path: ask.path.to_owned(), ..self.base.clone() };
        RegistryError::Request { method: ask.verb(), url: url.to_string(), source }
    }

    /// Asks the registry, as whoever it wants us to be, and goes where it sends us.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Reply, ExchangeError> {
        self.ask_at(Url { path: ask.path.to_owned(), ..self.base.clone() }, ask).await
    }

    /// The same at an address that the registry named, which need not be its own.
    pub(crate) async fn ask_at(&self, url: Url, ask: &Ask<'_>) -> Result<Reply, ExchangeError> {
        let authorization = self.authorization().await?;
        let reply = self.follow(url.clone(), ask, authorization.as_ref()).await?;
        if reply.response.status() != StatusCode::UNAUTHORIZED || reply.elsewhere {
            return Ok(reply);
        }
        let Some(challenge) = challenge_of(&reply.response) else { return Ok(reply) };
        let refused = self.standing().clone();
        // A new question, or a token that has come to its end; name and password would be refused again.
        if refused.authorization.is_some() && challenge == Challenge::Basic {
            return Ok(reply);
        }
        refused.grant.iter().for_each(|grant| self.registry.tokens.forget(grant));
        *self.standing() = Standing { challenge: Some(challenge), ..Standing::default() };
        let authorization = self.authorization().await?;
        self.follow(url, ask, authorization.as_ref()).await
    }

    async fn follow(
        &self,
        mut url: Url,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Reply, ExchangeError> {
        let mut elsewhere = false;
        for _ in 0..=REDIRECTS_MAX {
            // Once and for all: a way back from another host is that host's idea, not ours.
            elsewhere |= self.is_elsewhere(&url);
            let response = self.send(&url, elsewhere, ask, authorization.filter(|_| !elsewhere)).await?;
            // What changes something is only sent on where it stays the same (RFC 9110, 15.4).
            let moved = match response.status().as_u16() {
                307 | 308 => true,
                301..=303 => ask.content.is_none(),
                _ => false,
            };
            match response.headers().get(LOCATION) {
                Some(location) if moved => {
                    let text = String::from_utf8_lossy(location.as_bytes()).into_owned();
                    url = url.join(&text)?;
                }
                _ => return Ok(Reply { response, elsewhere }),
            }
        }
        Err(ExchangeError::Redirects { limit: REDIRECTS_MAX })
    }

    fn is_elsewhere(&self, url: &Url) -> bool {
        (url.scheme, &url.authority) != (self.base.scheme, &self.base.authority)
    }

    /// Sends a body that is made meanwhile, once, to an address that the registry named.
    pub(crate) async fn stream(
        &self,
        url: &Url,
        headers: &[(HeaderName, String)],
        body: Outgoing,
        taken: &AtomicU64,
    ) -> Result<Reply, ExchangeError> {
        let elsewhere = self.is_elsewhere(url);
        let authorization = self.authorization().await?.filter(|_| !elsewhere);
        let mut request = Ask::get(&url.path).request(url, authorization.as_ref()).map(|_| body);
        *request.method_mut() = Method::PATCH;
        for (name, value) in headers {
            request.headers_mut().extend(HeaderValue::from_str(value).ok().map(|value| (name.clone(), value)));
        }
        let response = self.registry.connector.stream(url, self.terms(url, elsewhere), request, taken).await?;
        Ok(Reply { response, elsewhere })
    }

    /// The same registry and person, for more than one repository.
    pub(crate) fn with_scope(&self, scope: String) -> Access {
        let challenge = self.standing().challenge.clone();
        let standing = Mutex::new(Standing { challenge, ..Standing::default() });
        let (registry, base, credentials) = (self.registry.clone(), self.base.clone(), self.credentials.clone());
        Access { registry, base, credentials, scope, standing }
    }

    /// The same registry, which says at another path what it wants.
    pub(crate) fn greeting_at(self, path: &str) -> Access {
        Access { base: Url { path: path.to_owned(), ..self.base }, ..self }
    }

    /// Shows name and password, if we have such, to a registry that does not ask: those of the first protocol do not.
    pub(crate) fn offer(&self) {
        if matches!(self.credentials, Credentials::Basic { .. }) {
            self.standing().challenge.get_or_insert(Challenge::Basic);
        }
    }

    /// Where `location` leads, as the registry names it.
    pub(crate) fn join(&self, location: &str) -> Result<Url, ExchangeError> {
        self.base.join(location)
    }

    async fn send(
        &self,
        url: &Url,
        elsewhere: bool,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Body>, ExchangeError> {
        let terms = self.terms(url, elsewhere);
        self.registry.connector.send(url, terms, || ask.request(url, authorization)).await
    }

    /// A host that the registry sends us to sees no certificate of ours, as it sees no password.
    fn terms(&self, url: &Url, elsewhere: bool) -> Terms<'_> {
        let identity = Some(&self.base.authority[..]).filter(|_| !elsewhere);
        Terms { verify: self.registry.verify(url), identity }
    }

    /// The header that the registry wants, if it wants one.
    async fn authorization(&self) -> Result<Option<HeaderValue>, ExchangeError> {
        let standing = self.standing().clone();
        if let Some(value) = standing.authorization {
            return Ok(Some(value));
        }
        let Some(challenge) = standing.challenge else { return Ok(None) };
        let (value, grant) = match challenge {
            Challenge::Basic => (self.credentials.basic()?, None),
            Challenge::Bearer { realm, service, .. } => match &self.credentials {
                Credentials::Bearer { token } => (bearer(token)?, None),
                _ => {
                    let grant = self.grant(realm, service);
                    let token = match self.registry.tokens.cached(&grant) {
                        Some(token) => token,
                        None => self.registry.tokens.keep(&grant, &self.token(&grant).await?),
                    };
                    (bearer(&token)?, Some(grant))
                }
            },
        };
        let mut standing = self.standing();
        (standing.authorization, standing.grant) = (Some(value.clone()), grant);
        Ok(Some(value))
    }

    fn grant(&self, realm: String, service: Option<String>) -> Grant {
        Grant { realm, service, scope: self.scope.clone(), credentials: self.credentials.clone() }
    }

    /// Asks a token server.
    async fn token(&self, grant: &Grant) -> Result<Given, ExchangeError> {
        let (registry, protected) = (&self.registry, self.base.scheme == Scheme::Https);
        // As dockerd does: who speaks for the registry sees the certificate that is the registry's, and no other.
        let terms = |url: &Url| self.terms(url, false);
        auth::ask(&registry.connector, &registry.settings.timing, grant, protected, &terms).await
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The challenge that we understand best; a token is better than a password.
fn challenge_of(response: &Response<Body>) -> Option<Challenge> {
    let headers = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let mut all: Vec<Challenge> = headers.filter_map(challenge::parse).collect();
    all.sort_by_key(|challenge| *challenge == Challenge::Basic);
    all.into_iter().next()
}
