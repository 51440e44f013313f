//! A registry as one client of ours sees it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use content::{Content, IngestError};
use http::header::{ACCEPT, AUTHORIZATION, HOST, LOCATION, RANGE, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use oci::Reference;

use crate::auth::{Credentials, Grant, Tokens, bearer};
use crate::challenge::{self, Challenge};
use crate::connection::{Body, Connector, Scheme, Url};
use crate::download::Downloads;
use crate::error::{ExchangeError, RegistryError};
use crate::range::AddressRange;

/// How we introduce ourselves.
pub(crate) const AGENT: &str = concat!("longshore/", env!("CARGO_PKG_VERSION"));

/// Where Docker Hub's registry is; its name in references is another one.
const HUB: &str = "registry-1.docker.io";

/// How often one request may be sent on; Go's and so dockerd's bound.
const REDIRECTS_MAX: usize = 10;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A name to be looked up, a connection to be made, TLS to be agreed on: each of them.
    pub connect: Duration,
    /// The head of an answer.
    pub head: Duration,
    /// The next bytes of a body.
    pub idle: Duration,
    /// A whole document.
    pub document: Duration,
    /// The time in which a layer must grow by [`Timing::trickle_bytes`].
    pub trickle: Duration,
    /// What comes more slowly counts as cut.
    pub trickle_bytes: u64,
    /// The first pause before a transfer is tried again; it doubles every time.
    pub retry: Duration,
    /// The least time between two reports of one layer's progress.
    pub report: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            connect: Duration::from_secs(30),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            document: Duration::from_secs(60),
            trickle: Duration::from_secs(60),
            // A modem does a hundred times better.
            trickle_bytes: 4096,
            retry: Duration::from_secs(1),
            report: Duration::from_millis(100),
        }
    }
}

/// What an administrator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Registries, `host[:port]`, that need no good certificate, nor TLS. Those on this machine never do.
    pub insecure: Vec<String>,
    /// The same for all that have an address in one of these.
    pub insecure_ranges: Vec<AddressRange>,
    /// Directories with `<host[:port]>/*.crt`, authorities that vouch for that host.
    pub certificates: Vec<PathBuf>,
    /// Layers in transfer at a time (daemon.json, `max-concurrent-downloads`).
    pub concurrent_downloads: usize,
    /// How often a transfer is tried that does not get on (daemon.json, `max-download-attempts`).
    pub download_attempts: u32,
    /// How long things may take.
    pub timing: Timing,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            insecure: Vec::new(),
            insecure_ranges: Vec::new(),
            certificates: vec!["/etc/docker/certs.d".into()],
            concurrent_downloads: 3,
            download_attempts: 5,
            timing: Timing::default(),
        }
    }
}

/// All registries, as this daemon reaches them. Cheap to make; one per daemon, since transfers are shared in it.
#[derive(Debug)]
pub struct Registry {
    pub(crate) settings: Settings,
    pub(crate) downloads: Downloads,
    connector: Connector,
    tokens: Tokens,
    /// Hosts whose addresses, as they were last resolved, are in one of the ranges.
    within_ranges: Mutex<BTreeSet<String>>,
}

/// One repository, as somebody with credentials sees it.
#[derive(Debug)]
pub struct Session {
    pub(crate) registry: Arc<Registry>,
    /// The repository alone.
    pub(crate) repository: Reference,
    base: Url,
    credentials: Credentials,
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
}

impl Ask<'_> {
    pub(crate) fn get(path: &str) -> Ask<'_> {
        Ask { method: Method::GET, path, accept: None, from: 0 }
    }

    /// As Go writes it.
    pub(crate) fn verb(&self) -> &'static str {
        if self.method == Method::HEAD { "Head" } else { "Get" }
    }

    fn request(&self, url: &Url, authorization: Option<&HeaderValue>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = url.path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.extend(HeaderValue::from_str(&url.authority).ok().map(|host| (HOST, host)));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.extend(self.accept.and_then(|accept| Some((ACCEPT, HeaderValue::from_str(accept).ok()?))));
        if self.from > 0 {
            headers.extend(HeaderValue::from_str(&format!("bytes={}-", self.from)).ok().map(|range| (RANGE, range)));
        }
        headers.extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
        request
    }
}

impl Registry {
    /// Must be called within a tokio runtime only in so far as its methods must.
    pub fn new(settings: Settings) -> Arc<Registry> {
        let connector = Connector::new(settings.certificates.clone(), settings.timing);
        let downloads = Downloads::new(settings.concurrent_downloads.max(1));
        Arc::new(Registry {
            settings,
            downloads,
            connector,
            tokens: Tokens::default(),
            within_ranges: Mutex::default(),
        })
    }

    /// Throws away what cut transfers have left, but for what is being transferred. Blocks.
    pub fn discard_cut(&self, content: &Content) -> Result<(), IngestError> {
        content.partials()?.iter().for_each(|digest| self.downloads.discard(digest, content));
        Ok(())
    }

    /// Greets the registry of `reference`, over TLS, or without where that is allowed and TLS does not answer.
    pub async fn session(
        self: &Arc<Self>,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<Arc<Session>, RegistryError> {
        let host = match reference.domain() {
            "docker.io" => HUB,
            host => host,
        };
        self.look_into_ranges(host).await;
        let url = |scheme| Url { scheme, authority: host.to_owned(), path: "/v2/".to_owned() };
        let name = format!("{}/{}", reference.domain(), reference.path());
        let repository: Reference = name.parse().expect("the repository of a reference is a reference");
        let session = |scheme| Session {
            registry: self.clone(),
            repository: repository.clone(),
            base: url(scheme),
            credentials: credentials.clone(),
            standing: Mutex::default(),
        };
        let first = session(Scheme::Https);
        match first.greet().await {
            Ok(()) => Ok(Arc::new(first)),
            // Something that speaks TLS there is never asked again without: it would see the credentials.
            Err(RegistryError::Request { source: ExchangeError::PlainHttp | ExchangeError::Dial(_), .. })
                if self.is_insecure(host) =>
            {
                let second = session(Scheme::Http);
                second.greet().await?;
                Ok(Arc::new(second))
            }
            Err(err) => Err(err),
        }
    }

    /// Finds out whether a host is in one of the ranges that the administrator trusts. Nobody's word is taken for longer
    /// than the session.
    async fn look_into_ranges(&self, authority: &str) {
        let host = host_of(authority);
        if self.settings.insecure_ranges.is_empty() || host.parse::<IpAddr>().is_ok() {
            return;
        }
        // A host that cannot be resolved cannot be connected to either, which is told then.
        let found: Vec<_> = tokio::net::lookup_host((host, 0)).await.map(Iterator::collect).unwrap_or_default();
        let within = found.iter().any(|found| self.in_ranges(found.ip()));
        let mut known = self.within_ranges.lock().unwrap_or_else(PoisonError::into_inner);
        if within {
            known.insert(host.to_owned());
        } else {
            known.remove(host);
        }
    }

    fn in_ranges(&self, address: IpAddr) -> bool {
        self.settings.insecure_ranges.iter().any(|range| range.contains(address))
    }

    /// Whether it needs neither TLS nor a good certificate: it is on this machine, or the administrator says so.
    fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let address = host.parse::<IpAddr>();
        host == "localhost"
            || address.is_ok_and(|address| address.is_loopback() || self.in_ranges(address))
            || self.within_ranges.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
            || self.settings.insecure.iter().any(|name| name == authority || name.trim_matches(['[', ']']) == host)
    }

    fn verify(&self, url: &Url) -> bool {
        !self.is_insecure(&url.authority)
    }
}

/// The host of `host[:port]`, without the brackets of an IPv6 address.
fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(authority, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

impl Session {
    /// Whether it is a registry, and what it wants to know.
    async fn greet(&self) -> Result<(), RegistryError> {
        let ask = Ask::get("/v2/");
        let response = self.send(&self.base, &ask, None).await.map_err(|source| self.failed(&ask, source))?;
        match response.status() {
            StatusCode::UNAUTHORIZED => {
                self.standing().challenge = challenge_of(&response);
                Ok(())
            }
            status if status.is_success() => Ok(()),
            status => Err(RegistryError::Status { status }),
        }
    }

    /// The error of a request.
    pub(crate) fn failed(&self, ask: &Ask<'_>, source: ExchangeError) -> RegistryError {
        let url = Url { path: ask.path.to_owned(), ..self.base.clone() };
        RegistryError::Request { method: ask.verb(), url: url.to_string(), source }
    }

    /// Asks the registry, as whoever it wants us to be, and goes where it sends us.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Reply, ExchangeError> {
        let url = Url { path: ask.path.to_owned(), ..self.base.clone() };
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
        let home = (url.scheme, url.authority.clone());
        for _ in 0..=REDIRECTS_MAX {
            // Once and for all: a way back from another host is that host's idea, not ours.
            let elsewhere = (url.scheme, &url.authority) != (home.0, &home.1);
            let response = self.send(&url, ask, authorization.filter(|_| !elsewhere)).await?;
            let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
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

    async fn send(
        &self,
        url: &Url,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Body>, ExchangeError> {
        let verify = self.registry.verify(url);
        self.registry.connector.send(url, verify, || ask.request(url, authorization)).await
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
                credentials => {
                    // Not the scope that the registry names: it must not get us a token for anything else.
                    let scope = format!("repository:{}:pull", self.repository.path());
                    let grant = Grant { realm, service, scope, credentials: credentials.clone() };
                    let (registry, protected) = (&self.registry, self.base.scheme == Scheme::Https);
                    let verify = |url: &Url| registry.verify(url);
                    let timing = &registry.settings.timing;
                    let token = registry.tokens.get(&registry.connector, timing, &grant, protected, &verify).await?;
                    (bearer(&token)?, Some(grant))
                }
            },
        };
        let mut standing = self.standing();
        (standing.authorization, standing.grant) = (Some(value.clone()), grant);
        Ok(Some(value))
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
