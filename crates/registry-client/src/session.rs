//! A registry as one client of ours sees it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use content::{Content, IngestError};
use http::StatusCode;
use oci::Reference;
use tokio::sync::Semaphore;

use crate::access::{Access, Ask, Reply};
use crate::auth::{Credentials, Tokens};
use crate::connection::{Connector, Scheme, Terms, Url};
use crate::download::Downloads;
use crate::error::{ExchangeError, RegistryError};
use crate::mirror::{HUB_DOMAIN, Mirror, Mirrors};
use crate::proxy::Proxies;
use crate::range::AddressRange;

/// How we introduce ourselves.
pub(crate) const AGENT: &str = concat!("longshore/", env!("CARGO_PKG_VERSION"));

/// Where Docker Hub's registry is.
const HUB: &str = "registry-1.docker.io";

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
    /// Who is asked before a registry.
    pub mirrors: Mirrors,
    /// What stands between us and registries.
    pub proxies: Proxies,
    /// Directories with `<host[:port]>/`: there `*.crt`, authorities that vouch for that host, and `*.cert` with `*.key`, what
    /// is shown to it.
    pub certificates: Vec<PathBuf>,
    /// Layers in transfer at a time (daemon.json, `max-concurrent-downloads`).
    pub concurrent_downloads: usize,
    /// How often a transfer is tried that does not get on (daemon.json, `max-download-attempts`).
    pub download_attempts: u32,
    /// Layers that are sent at a time (daemon.json, `max-concurrent-uploads`).
    pub concurrent_uploads: usize,
    /// How long things may take.
    pub timing: Timing,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            insecure: Vec::new(),
            insecure_ranges: Vec::new(),
            mirrors: Mirrors::default(),
            proxies: Proxies::default(),
            certificates: vec!["/etc/docker/certs.d".into()],
            concurrent_downloads: 3,
            download_attempts: 5,
            concurrent_uploads: 5,
            timing: Timing::default(),
        }
    }
}

/// All registries, as this daemon reaches them. Cheap to make; all of a daemon are made of its first one by
/// [`Registry::changed`], since transfers are shared in it.
#[derive(Debug)]
pub struct Registry {
    pub(crate) settings: Settings,
    pub(crate) downloads: Arc<Downloads>,
    /// For layers that come.
    pub(crate) downloading: Arc<Semaphore>,
    /// For layers that are sent.
    pub(crate) uploads: Semaphore,
    pub(crate) connector: Connector,
    pub(crate) tokens: Tokens,
    /// Hosts whose addresses, as they were last resolved, are in one of the ranges.
    within_ranges: Mutex<BTreeSet<String>>,
}

/// One repository, as somebody with credentials sees it.
#[derive(Debug)]
pub struct Session {
    pub(crate) access: Access,
    /// The repository alone.
    pub(crate) repository: Reference,
    /// Where it is at whoever is asked: a path without a slash at its end.
    pub(crate) root: String,
}

impl Registry {
    /// Must be called within a tokio runtime only in so far as its methods must.
    pub fn new(settings: Settings) -> Arc<Registry> {
        Registry::with(settings, Arc::default())
    }

    /// All registries, reached in another way from now on. Sessions of before keep theirs, and their transfers are still
    /// shared: two of one blob would write to one file.
    pub fn changed(&self, settings: Settings) -> Arc<Registry> {
        Registry::with(settings, self.downloads.clone())
    }

    fn with(settings: Settings, downloads: Arc<Downloads>) -> Arc<Registry> {
        let connector = Connector::new(settings.certificates.clone(), settings.proxies.clone(), settings.timing);
        let downloading = Arc::new(Semaphore::new(settings.concurrent_downloads.max(1)));
        let uploads = Semaphore::new(settings.concurrent_uploads.max(1));
        Arc::new(Registry {
            settings,
            downloads,
            downloading,
            uploads,
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

    /// The same of what nobody took up for a day. A layer that is whole, and waits for the others of a pull that takes longer,
    /// stays. Blocks.
    pub fn discard_stale(&self, content: &Content) -> Result<(), IngestError> {
        content.stale_partials()?.iter().for_each(|digest| self.downloads.discard(digest, content));
        Ok(())
    }

    /// Greets the registry of `reference`, over TLS, or without where that is allowed and TLS does not answer.
    pub async fn session(
        self: &Arc<Self>,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<Arc<Session>, RegistryError> {
        self.session_for(reference, credentials, "pull").await
    }

    /// The same over TLS alone, also where more is allowed.
    pub async fn protected_session(
        self: &Arc<Self>,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<Arc<Session>, RegistryError> {
        let host = host_of_registry(reference);
        self.meet(host).await?;
        let base = Url { scheme: Scheme::Https, authority: host.to_owned(), path: "/v2/".to_owned() };
        let access = Access::new(self.clone(), base, credentials, scope(reference, "pull"));
        let status = access.greet().await?;
        Session::greeted(access, status, reference, format!("/v2/{}", reference.path()))
    }

    /// The same for somebody who changes the repository, too.
    pub async fn push_session(
        self: &Arc<Self>,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<Arc<Session>, RegistryError> {
        self.session_for(reference, credentials, "pull,push").await
    }

    async fn session_for(
        self: &Arc<Self>,
        reference: &Reference,
        credentials: Credentials,
        actions: &str,
    ) -> Result<Arc<Session>, RegistryError> {
        let scope = scope(reference, actions);
        let (access, status) = self.access(host_of_registry(reference), credentials, scope).await?;
        Session::greeted(access, status, reference, format!("/v2/{}", reference.path()))
    }

    /// Who is asked for the repository of `reference` before its own registry, in this order.
    pub fn mirrors(&self, reference: &Reference) -> Vec<Mirror> {
        self.settings.mirrors.of(reference.domain())
    }

    /// Greets a mirror, in the way that its address says and in no other. It never sees anybody's credentials: they are for
    /// the registry.
    pub async fn mirror_session(
        self: &Arc<Self>,
        mirror: &Mirror,
        reference: &Reference,
    ) -> Result<Arc<Session>, RegistryError> {
        self.meet(&mirror.authority).await?;
        let path = format!("{}{}", mirror.project, reference.path());
        let scope = format!("repository:{path}:pull");
        let access = Access::new(self.clone(), mirror.base(), Credentials::Anonymous, scope);
        let status = access.greet().await?;
        Session::greeted(access, status, reference, format!("{}/v2/{path}", mirror.prefix))
    }

    /// Shows the registry at `host[:port]` who we are; Docker Hub's if there is none. Answers what may be shown instead of the
    /// password from now on, if it gives out such.
    pub async fn login(
        self: &Arc<Self>,
        host: Option<&str>,
        credentials: Credentials,
    ) -> Result<Option<String>, RegistryError> {
        let (access, _) = self.access(host.unwrap_or(HUB), credentials, String::new()).await?;
        access.prove().await
    }

    /// Greets a registry; with its answer's status.
    async fn access(
        self: &Arc<Self>,
        host: &str,
        credentials: Credentials,
        scope: String,
    ) -> Result<(Access, StatusCode), RegistryError> {
        self.meet(host).await?;
        let access = |scheme| {
            let base = Url { scheme, authority: host.to_owned(), path: "/v2/".to_owned() };
            Access::new(self.clone(), base, credentials.clone(), scope.clone())
        };
        let first = access(Scheme::Https);
        match first.greet().await {
            Ok(status) => Ok((first, status)),
            Err(err) if err.is_not_tls() && self.is_insecure(host) => {
                let second = access(Scheme::Http);
                let status = second.greet().await?;
                Ok((second, status))
            }
            Err(err) => Err(err),
        }
    }

    /// Finds out what is known here of a host, before it is asked.
    pub(crate) async fn meet(&self, authority: &str) -> Result<(), RegistryError> {
        self.look_into_ranges(authority).await;
        let terms = Terms { verify: !self.is_insecure(authority), identity: Some(authority) };
        Ok(self.connector.learn(authority, terms).await.map(drop)?)
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
    pub(crate) fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let address = host.parse::<IpAddr>();
        host == "localhost"
            || address.is_ok_and(|address| address.is_loopback() || self.in_ranges(address))
            || self.within_ranges.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
            || self.settings.insecure.iter().any(|name| name == authority || name.trim_matches(['[', ']']) == host)
    }

    /// Whether certificates of that host must be good.
    pub(crate) fn verify(&self, url: &Url) -> bool {
        !self.is_insecure(&url.authority)
    }
}

/// Where the registry of an image is.
fn host_of_registry(reference: &Reference) -> &str {
    match reference.domain() {
        HUB_DOMAIN => HUB,
        host => host,
    }
}

/// What a token is for. Not the scope that the registry names: it must not get us a token for anything else.
fn scope(reference: &Reference, actions: &str) -> String {
    format!("repository:{}:{actions}", reference.path())
}

/// The host of `host[:port]`, without the brackets of an IPv6 address.
fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(authority, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Which registry a session is with, and who is asked in its place: another one's bytes may be lies, and its failure says
/// nothing of this one.
pub fn origin(session: &Session) -> String {
    format!("{} {}", session.repository.domain(), session.access.base())
}

impl Session {
    /// Once the registry has said what it wants.
    fn greeted(
        access: Access,
        status: StatusCode,
        reference: &Reference,
        root: String,
    ) -> Result<Arc<Session>, RegistryError> {
        if !status.is_success() && status != StatusCode::UNAUTHORIZED {
            return Err(RegistryError::Status { status });
        }
        let name = format!("{}/{}", reference.domain(), reference.path());
        let repository = name.parse().expect("the repository of a reference is a reference");
        Ok(Arc::new(Session { access, repository, root }))
    }

    /// The registries that it is one of.
    pub(crate) fn registry(&self) -> &Registry {
        &self.access.registry
    }

    /// The error of a request.
    pub(crate) fn failed(&self, ask: &Ask<'_>, source: ExchangeError) -> RegistryError {
        self.access.failed(ask, source)
    }

    /// Asks the registry, as whoever it wants us to be, and goes where it sends us.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Reply, ExchangeError> {
        self.access.ask(ask).await
    }
}
