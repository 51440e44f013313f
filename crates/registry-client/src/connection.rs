//! Connections: dialled, wrapped in TLS, kept for the next request.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{DialError, ExchangeError};
use crate::outgoing::Outgoing;
use crate::proxy::{self, Proxies, Proxy};
use crate::session::Timing;
use crate::tls::{self, HostFiles, TlsError};

/// Idle connections kept per host: as many as downloads run by default.
const IDLE_PER_HOST: usize = 3;

/// How long an idle connection is kept; servers close them after a minute or so.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How long a connection from the pool may take to be ready. It is, unless its server has not read what it answered to.
const READY_MAX: Duration = Duration::from_millis(100);

/// What one connection may buffer of an answer.
const BUFFER_BYTES: usize = 128 * 1024;

/// Whether a connection is wrapped in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    /// With the port, if it is written.
    pub(crate) authority: String,
    /// With the query.
    pub(crate) path: String,
}

impl Url {
    /// An absolute address with HTTP or HTTPS, without a user.
    pub(crate) fn parse(text: &str) -> Result<Url, ExchangeError> {
        let invalid = || ExchangeError::Address { text: text.chars().take(256).collect() };
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(invalid()),
        };
        let authority = uri.authority().ok_or_else(invalid)?.as_str().to_owned();
        if authority.contains('@') || authority.is_empty() {
            return Err(invalid());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Url { scheme, authority, path })
    }

    /// Where `location` leads from here: an absolute address or an absolute path.
    pub(crate) fn join(&self, location: &str) -> Result<Url, ExchangeError> {
        match location.starts_with('/') && !location.starts_with("//") {
            true => Url::parse(&Url { path: String::new(), ..self.clone() }.to_string()).and_then(|base| {
                let path: http::uri::PathAndQuery =
                    location.parse().map_err(|_| ExchangeError::Address { text: location.to_owned() })?;
                Ok(Url { path: path.as_str().to_owned(), ..base })
            }),
            false => Url::parse(location),
        }
    }

    pub(crate) fn host(&self) -> &str {
        let host = match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            _ => &self.authority,
        };
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The one that is written, else the scheme's.
    pub(crate) fn port(&self) -> Result<u16, DialError> {
        let written = self.authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
        match (written, self.scheme) {
            (None | Some(""), Scheme::Http) => Ok(80),
            (None | Some(""), Scheme::Https) => Ok(443),
            (Some(port), _) => port.parse().map_err(|_| DialError::Port { port: port.to_owned() }),
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// What a host must show, and what it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms<'a> {
    /// Whether its certificate must be good.
    pub(crate) verify: bool,
    /// The `host[:port]` whose certificates of ours it is shown if it asks for one: those of the registry that somebody wants
    /// to ask, not those of whomever an answer names.
    pub(crate) identity: Option<&'a str>,
}

/// A host on terms.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Met {
    authority: String,
    verify: bool,
    identity: Option<String>,
}

impl Met {
    fn new(authority: &str, terms: Terms<'_>) -> Met {
        Met { authority: authority.to_owned(), verify: terms.verify, identity: terms.identity.map(str::to_owned) }
    }
}

/// Who a pooled connection goes to, and on which terms.
type Peer = (Scheme, Met);

/// A connection that waits for its next request, and since when.
type Idle = (Instant, Wire);

/// A connection, and the task that moves its bytes.
#[derive(Debug)]
struct Wire {
    sender: SendRequest<Outgoing>,
    task: AbortHandle,
}

impl Wire {
    /// Whether it takes a request now. One that is still busy with its last one is not waited for.
    async fn is_ready(&mut self) -> bool {
        matches!(timeout(READY_MAX, self.sender.ready()).await, Ok(Ok(())))
    }
}

impl Drop for Wire {
    /// Ends it where it stands: a connection that is stuck in a write notices nothing else, and keeps what it sends.
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
struct Pool {
    idle: Mutex<HashMap<Peer, Vec<Idle>>>,
}

impl Pool {
    /// The connection that was used last: the one least likely to be closed by the server meanwhile.
    fn take(&self, peer: &Peer) -> Option<Wire> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(peer)?;
        connections.retain(|(since, wire)| since.elapsed() < IDLE_MAX && !wire.sender.is_closed());
        connections.pop().map(|(_, wire)| wire)
    }

    /// Closes what waits for requests to a host: whoever is there knew us by another certificate.
    fn forget(&self, authority: &str) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, met), _| met.authority != authority);
    }

    fn put(&self, peer: Peer, wire: Wire) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Hosts that nobody asks any more must not keep sockets.
        idle.retain(|_, connections| {
            connections.retain(|(since, wire)| since.elapsed() < IDLE_MAX && !wire.sender.is_closed());
            !connections.is_empty()
        });
        let connections = idle.entry(peer).or_default();
        if connections.len() < IDLE_PER_HOST {
            connections.push((Instant::now(), wire));
        }
    }
}

/// Makes connections.
#[derive(Debug)]
pub(crate) struct Connector {
    certificates: Vec<PathBuf>,
    proxies: Proxies,
    pool: Arc<Pool>,
    /// What the system believes, once it was read.
    roots: Arc<OnceLock<RootCertStore>>,
    /// What connections to a host believe and show.
    configs: Mutex<HashMap<Met, Known>>,
    timing: Timing,
}

/// What was made of a host's files, and of which.
#[derive(Clone, Debug)]
struct Known {
    fingerprint: [u8; 32],
    config: Arc<ClientConfig>,
}

/// The body of an answer; read to its end, it gives its connection back.
pub(crate) struct Body {
    incoming: Incoming,
    home: Option<(Arc<Pool>, Peer, Wire)>,
    reusable: bool,
    idle: Duration,
}

impl Body {
    /// The next bytes, or `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        loop {
            let frame = timeout(self.idle, self.incoming.frame()).await.map_err(|_| ExchangeError::Stalled)?;
            match frame {
                None => {
                    if let Some((pool, peer, wire)) = self.home.take_if(|_| self.reusable) {
                        pool.put(peer, wire);
                    }
                    return Ok(None);
                }
                Some(frame) => {
                    if let Ok(bytes) = frame.map_err(ExchangeError::of_body)?.into_data()
                        && !bytes.is_empty()
                    {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// All of it, if that is at most `limit_bytes`, within `deadline` in all.
    pub(crate) async fn read(mut self, limit_bytes: u64, deadline: Duration) -> Result<Vec<u8>, ExchangeError> {
        let all = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = self.chunk().await? {
                if (bytes.len() + chunk.len()) as u64 > limit_bytes {
                    return Err(ExchangeError::TooLong { limit_bytes });
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        };
        timeout(deadline, all).await.map_err(|_| ExchangeError::Stalled)?
    }
}

impl Connector {
    pub(crate) fn new(certificates: Vec<PathBuf>, proxies: Proxies, timing: Timing) -> Connector {
        let (pool, roots, configs) = (Arc::default(), Arc::default(), Mutex::default());
        Connector { certificates, proxies, pool, roots, configs, timing }
    }

    /// One request and the head of its answer.
    pub(crate) async fn send(
        &self,
        url: &Url,
        terms: Terms<'_>,
        request: impl Fn() -> Request<Outgoing>,
    ) -> Result<Response<Body>, ExchangeError> {
        let peer = (url.scheme, Met::new(&url.authority, terms));
        let proxy = self.proxies.of(url)?;
        let request = || sent_by(proxy.as_ref(), url, request());
        if let Some(mut wire) = self.pool.take(&peer)
            && wire.is_ready().await
        {
            let first = request();
            let is_repeatable = matches!(*first.method(), Method::GET | Method::HEAD);
            match timeout(self.timing.head, wire.sender.try_send_request(first)).await {
                Ok(Ok(response)) => return Ok(self.body(response, peer, wire)),
                // The server closes idle connections when it likes, also while a request is on its way: once more, on a new
                // one. Not what changes something, for it may have been done (RFC 9110, 9.2.2).
                Ok(Err(err)) if !is_repeatable && err.message().is_none() => {
                    return Err(ExchangeError::Http { source: err.into_error() });
                }
                Err(_) if !is_repeatable => return Err(ExchangeError::Deadline),
                _ => {}
            }
        }
        let mut wire = self.connect(url, proxy.as_ref(), terms).await?;
        let sent = timeout(self.timing.head, wire.sender.send_request(request())).await;
        let response = sent.map_err(|_| ExchangeError::Deadline)?.map_err(|source| ExchangeError::Http { source })?;
        Ok(self.body(response, peer, wire))
    }

    /// One request whose body is made while it is sent: it goes once, and is given up when the connection takes nothing of it
    /// for too long. `taken` counts the bytes of the body that it took.
    pub(crate) async fn stream(
        &self,
        url: &Url,
        terms: Terms<'_>,
        request: Request<Outgoing>,
        taken: &AtomicU64,
    ) -> Result<Response<Body>, ExchangeError> {
        let peer = (url.scheme, Met::new(&url.authority, terms));
        let proxy = self.proxies.of(url)?;
        let request = sent_by(proxy.as_ref(), url, request);
        let mut pooled = self.pool.take(&peer);
        if let Some(wire) = &mut pooled
            && !wire.is_ready().await
        {
            pooled = None;
        }
        let mut wire = match pooled {
            Some(wire) => wire,
            None => self.connect(url, proxy.as_ref(), terms).await?,
        };
        let mut exchange = std::pin::pin!(wire.sender.send_request(request));
        let mut before = 0;
        let response = loop {
            match timeout(self.timing.idle, &mut exchange).await {
                Ok(answered) => break answered.map_err(|source| ExchangeError::Http { source })?,
                Err(_) => {
                    let now = taken.load(Ordering::Relaxed);
                    if now == before {
                        return Err(ExchangeError::Stalled);
                    }
                    before = now;
                }
            }
        };
        let mut response = self.body(response, peer, wire);
        // What is refused need not have been read.
        response.body_mut().reusable = response.status().is_success();
        Ok(response)
    }

    fn body(&self, response: Response<Incoming>, peer: Peer, wire: Wire) -> Response<Body> {
        let home = Some((self.pool.clone(), peer, wire));
        response.map(|incoming| Body { incoming, home, reusable: true, idle: self.timing.idle })
    }

    async fn connect(&self, url: &Url, proxy: Option<&Proxy>, terms: Terms<'_>) -> Result<Wire, ExchangeError> {
        let stream = match proxy {
            None => self.dial(url).await?,
            Some(proxy) => self.dial_proxy(url, proxy).await?,
        };
        match url.scheme {
            Scheme::Http => handshake(TokioIo::new(stream)).await,
            Scheme::Https => {
                let invalid = |_| ExchangeError::ServerName { host: url.host().to_owned() };
                let name = ServerName::try_from(url.host().to_owned()).map_err(invalid)?;
                let connector = TlsConnector::from(self.learn(&url.authority, terms).await?);
                let wrapped = timeout(self.timing.connect, connector.connect(name, stream)).await;
                let stream = wrapped.map_err(|_| ExchangeError::Deadline)?.map_err(refused)?;
                handshake(TokioIo::new(stream)).await
            }
        }
    }

    /// A connection to the proxy; to an address with TLS a tunnel through it.
    async fn dial_proxy(&self, url: &Url, proxy: &Proxy) -> Result<TcpStream, ExchangeError> {
        let dialled = self.dial(&proxy.url).await;
        let mut stream = dialled.map_err(|source| ExchangeError::Proxy { source: Box::new(source) })?;
        if url.scheme == Scheme::Https {
            let tunnel = timeout(self.timing.connect, proxy::tunnel(&mut stream, proxy, url)).await;
            tunnel.map_err(|_| ExchangeError::Deadline)??;
        }
        Ok(stream)
    }

    async fn dial(&self, url: &Url) -> Result<TcpStream, ExchangeError> {
        let host = url.host().to_owned();
        let lookup = timeout(self.timing.connect, tokio::net::lookup_host((&host[..], url.port()?))).await;
        let found = lookup.map_err(|_| DialError::LookupDeadline { host: host.clone() })?;
        let addresses: Vec<SocketAddr> =
            found.map_err(|err| DialError::Lookup { host: host.clone(), reason: err.to_string() })?.collect();
        let mut failed = DialError::Lookup { host, reason: "no address".to_owned() };
        for address in addresses {
            match timeout(self.timing.connect, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Requests are one write; this is for the TLS handshake.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => failed = DialError::Connect { address, error },
                Err(_) => failed = DialError::Deadline { address },
            }
        }
        Err(failed.into())
    }

    /// Reads what is kept for a host, which may have changed since it was asked last.
    pub(crate) async fn learn(&self, authority: &str, terms: Terms<'_>) -> Result<Arc<ClientConfig>, TlsError> {
        let key = Met::new(authority, terms);
        let before = self.configs.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let (directories, met, roots) = (self.certificates.clone(), key.clone(), self.roots.clone());
        let known = bridge::blocking(move || {
            let files = HostFiles::read(&directories, &met.authority, met.identity.as_deref())?;
            if let Some(known) = before.filter(|known| known.fingerprint == files.fingerprint) {
                return Ok(known);
            }
            let roots = match roots.get() {
                Some(roots) => roots,
                None => {
                    let read = tls::system_roots()?;
                    roots.get_or_init(|| read)
                }
            };
            Ok(Known { fingerprint: files.fingerprint, config: files.config(roots, met.verify)? })
        });
        let known = known.await?;
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        // Redirects name as many hosts as a registry likes.
        if configs.len() >= 64 {
            configs.clear();
        }
        let (config, fingerprint) = (known.config.clone(), known.fingerprint);
        if configs.insert(key, known).is_some_and(|old| old.fingerprint != fingerprint) {
            self.pool.forget(authority);
        }
        Ok(config)
    }
}

/// A request as a proxy wants it that is to send it on: with the whole address (RFC 9112, 3.2.2), and with who we are to it.
fn sent_by(proxy: Option<&Proxy>, url: &Url, mut request: Request<Outgoing>) -> Request<Outgoing> {
    let Some(proxy) = proxy.filter(|_| url.scheme == Scheme::Http) else { return request };
    *request.uri_mut() = url.to_string().parse().unwrap_or_default();
    request.headers_mut().extend(proxy.authorization.clone().map(|value| (PROXY_AUTHORIZATION, value)));
    request
}

/// A server that answers a TLS greeting with something else speaks something else.
fn refused(source: io::Error) -> ExchangeError {
    let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => ExchangeError::PlainHttp,
        // A greeting that it does not understand makes a simple server hang up.
        None if matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            ExchangeError::PlainHttp
        }
        _ => ExchangeError::Handshake { source },
    }
}

async fn handshake<T>(io: TokioIo<T>) -> Result<Wire, ExchangeError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let made = http1::Builder::new().max_buf_size(BUFFER_BYTES).handshake(io).await;
    let (sender, connection) = made.map_err(|source| ExchangeError::Http { source })?;
    let running = tokio::spawn(async move {
        if let Err(err) = connection.await {
            // Whoever has a request on it hears the same.
            tracing::debug!("a connection to a registry ended: {err}");
        }
    });
    Ok(Wire { sender, task: running.abort_handle() })
}

#[cfg(test)]
mod tests;
