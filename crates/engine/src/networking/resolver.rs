//! A container's name server: who it has names for, its sockets, and the file that leads programs to it.
//!
//! ```text
//!   join:       announce() -> the zone     open() -> sockets, /etc/resolv.conf, the task that serves
//!                                                     \-> copies for the shim, which lends them to later daemons
//!   connect:    announce(), ensure()       what a container lacks that had no name server before
//!   a restart:  announce() for all, then resume(): the sockets come from the shims
//! ```
//! A container has a name server from its first network of a user on, until it ends. On the default bridge there are none.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use container_spec::files::{HostFile, InternalResolver, internal_resolver};
use engine_api::container::EndpointSettings;
use errdefs::ErrorKind;
use network::{Networks, Place, RESOLVER, ResolverError, ResolverSockets};
use shim_api::Call;
use tracing::{debug, warn};

use super::attachments;
use super::find;
use crate::Engine;
use crate::container::Container;
use crate::names::{Membership, Rules};
use crate::shim::CallError;

/// How much of an old text is overwritten at once; a page, which is far more than anybody writes there.
const TEXT_MAX: u64 = 4096;

/// Since which version shims keep sockets for later daemons.
const LENDS_SINCE: u32 = 8;

/// Why a container has no name server.
#[derive(Debug, thiserror::Error)]
pub enum NameServerError {
    /// It has no sockets.
    #[error(transparent)]
    Sockets(#[from] ResolverError),
    /// They are not served, or not kept.
    #[error("serve the container's names")]
    Serve(#[source] io::Error),
    /// Its shim does not keep them.
    #[error("leave the name server's sockets to the container's shim")]
    Keep(#[source] CallError),
    /// Its namespace is not to be found.
    #[error(transparent)]
    Namespace(Box<super::ConnectError>),
    /// Programs are not led to it.
    #[error("write the container's resolv.conf")]
    File(#[source] io::Error),
}

impl NameServerError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Tells the names of a container as it is on networks now. One that is on the default bridge alone, and has been nowhere
/// else since its start, has none.
pub(crate) fn announce(engine: &Engine, container: &Container) {
    let (Some(networks), Some(place)) = (engine.networking.bridge(), container.live().place.clone()) else { return };
    let id = container.id();
    let named = place.endpoints.iter().any(|endpoint| endpoint.network != network::DEFAULT);
    if named || engine.names.knows(id) || engine.names.serves(id) {
        // Before anything is answered.
        engine.names.guard(id, network::egress_gate(networks, id.as_str()));
        engine.names.place(id, memberships(networks, container, &place));
        // It may have ended meanwhile: whoever took its place took its names after that.
        if container.live().place.is_none() {
            engine.names.forget(id);
        }
    }
}

fn memberships(networks: &Networks, container: &Container, place: &Place) -> Vec<Membership> {
    let (name, wanted) = (container.name(), container.live().networks.clone());
    let settings = |network: &str| -> EndpointSettings {
        let found = wanted.iter().flat_map(|wanted| wanted.iter()).find(|(name, settings)| {
            let key = attachments::key(name, settings);
            key == network || find::user(networks, key).is_some_and(|user| user.id == network)
        });
        found.map(|(_, settings)| settings.clone()).unwrap_or_default()
    };
    let membership = |endpoint: &network::Endpoint| {
        let (settings, user) = (settings(&endpoint.network), find::user(networks, &endpoint.network));
        let names = user.as_ref().map(|_| attachments::dns_names(&container.definition, &name, &settings));
        Membership {
            network_id: endpoint.network_id.clone(),
            network_name: user.map_or_else(|| network::DEFAULT.to_owned(), |user| user.name.clone()),
            internal: endpoint.internal,
            endpoint: dns::Endpoint {
                container: container.id().to_string(),
                names: names.unwrap_or_default(),
                addresses: endpoint.addresses().collect(),
                links: links(&settings),
                priority: settings.gw_priority,
            },
        }
    };
    place.endpoints.iter().map(membership).collect()
}

/// A container's own words for others on a network.
fn links(settings: &EndpointSettings) -> BTreeMap<String, String> {
    let parsed = settings.links.iter().flatten().filter_map(|link| container_spec::links::parse(link).ok());
    parsed.map(|(name, alias)| (alias.to_owned(), name.trim_start_matches('/').to_owned())).collect()
}

/// Gives a container that is about to start its name server, if it is on a network with names; answers what its shim is to
/// keep. Blocks; within a runtime.
pub(crate) fn open(
    engine: &Engine,
    container: &Container,
    namespace: BorrowedFd<'_>,
) -> Result<Vec<OwnedFd>, NameServerError> {
    if !engine.names.knows(container.id()) {
        return Ok(Vec::new());
    }
    let resolver = resolver(engine, container);
    let path = engine.recorder.dir(container.id()).resolv_conf();
    write_in_place(&path, resolver.text.as_bytes()).map_err(NameServerError::File)?;
    begin(engine, container, namespace, resolver)
}

fn begin(
    engine: &Engine,
    container: &Container,
    namespace: BorrowedFd<'_>,
    resolver: InternalResolver,
) -> Result<Vec<OwnedFd>, NameServerError> {
    let sockets = ResolverSockets::open(namespace)?;
    let copies = [&sockets.udp, &sockets.tcp].map(OwnedFd::try_clone);
    let copies: io::Result<Vec<OwnedFd>> = copies.into_iter().collect();
    let copies = copies.map_err(NameServerError::Serve)?;
    engine.names.serve(container.id(), sockets, rules(resolver)).map_err(NameServerError::Serve)?;
    Ok(copies)
}

fn rules(resolver: InternalResolver) -> Rules {
    Rules { servers: resolver.servers, keeps_words: resolver.keeps_words }
}

/// What its /etc/resolv.conf says now, and its name server goes by.
fn resolver(engine: &Engine, container: &Container) -> InternalResolver {
    let host = container.host_config();
    let (path, text) = dns::host_file();
    internal_resolver(&engine.config.resolver.complete(&host), HostFile { path, text: &text }, IpAddr::V4(RESOLVER))
}

/// Gives a running container its name server if it has none and is on a network with names.
pub(crate) async fn ensure(engine: &Engine, container: &Arc<Container>) -> Result<(), NameServerError> {
    let id = container.id();
    if engine.names.serves(id) || !engine.names.knows(id) {
        return Ok(());
    }
    let Some(shim) = container.shim() else { return Ok(()) };
    let (engine, container) = (engine.clone(), container.clone());
    let copies = bridge::blocking(move || {
        let namespace = super::namespace_of(&container).map_err(|err| NameServerError::Namespace(Box::new(err)))?;
        let resolver = resolver(&engine, &container);
        lead(&engine, &container, &resolver).map_err(NameServerError::File)?;
        begin(&engine, &container, namespace.as_fd(), resolver)
    })
    .await?;
    if shim.speaks() < LENDS_SINCE {
        // The name server lives as long as this daemon.
        return Ok(());
    }
    shim.link.call(Call::Keep, copies).await.map(drop).map_err(NameServerError::Keep)
}

/// Leads the programs of a running container to its name server, unless somebody has changed the file since the start. In
/// place: the container has it mounted.
fn lead(engine: &Engine, container: &Container, resolver: &InternalResolver) -> io::Result<()> {
    let path = engine.recorder.dir(container.id()).resolv_conf();
    let modified = fs::metadata(&path)?.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let started = u128::try_from(container.state().started_at_nanos).unwrap_or(0);
    if modified.as_nanos() > started {
        debug!(container = %container.id(), "its resolv.conf was changed, and stays");
        return Ok(());
    }
    write_in_place(&path, resolver.text.as_bytes())
}

/// Replaces the text of a file that a container has mounted, so that another file of this name would not be seen. At every
/// instant, also when we are killed at it, the file is the old text, or the new one with empty lines behind it.
fn write_in_place(path: &Path, text: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let before = file.metadata()?.len();
    let mut whole = text.to_vec();
    // A file that somebody has made very long is cut first: programs do not read so far.
    whole.resize(text.len().max(before.min(TEXT_MAX) as usize), b'\n');
    if before > TEXT_MAX {
        file.set_len(TEXT_MAX)?;
    }
    file.write_all_at(&whole, 0)?;
    file.set_len(text.len() as u64)
}

/// Serves the containers again that an earlier daemon left, at the sockets that their shims have kept. Their names are
/// told already: what was asked meanwhile is answered at once.
pub(crate) async fn resume(engine: &Engine) {
    let mut resuming = tokio::task::JoinSet::new();
    for container in engine.containers.all() {
        if engine.names.knows(container.id()) {
            let engine = engine.clone();
            resuming.spawn(async move {
                if let Err(err) = resume_one(&engine, &container).await {
                    warn!(container = %container.id(), err = errdefs::chain(&err), "the container finds no names");
                }
            });
        }
    }
    while resuming.join_next().await.is_some() {}
}

async fn resume_one(engine: &Engine, container: &Arc<Container>) -> Result<(), NameServerError> {
    let Some(shim) = container.shim() else { return Ok(()) };
    match shim.speaks() {
        // It does not answer, and may have the sockets: others would take their place for this daemon's life alone.
        0 => return Err(NameServerError::Keep(CallError::Timeout)),
        1..LENDS_SINCE => return ensure(engine, container).await,
        LENDS_SINCE.. => {}
    }
    let mut lent = shim.link.lend().await.map_err(NameServerError::Keep)?.into_iter();
    let (Some(udp), Some(tcp)) = (lent.next(), lent.next()) else {
        // It died before it had left them there.
        return ensure(engine, container).await;
    };
    let (own, task) = (engine.clone(), container.clone());
    let rules = rules(bridge::blocking(move || resolver(&own, &task)).await);
    let served = engine.names.serve(container.id(), ResolverSockets { udp, tcp }, rules);
    served.map_err(NameServerError::Serve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_file_gets_its_new_text_in_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        write_in_place(&path, b"nameserver 10.0.0.1\nsearch example.org\n").unwrap();
        // What has it mounted holds the file, not the name.
        let held = fs::File::open(&path).unwrap();
        for text in ["nameserver 127.0.0.11\n", "nameserver 127.0.0.11\noptions ndots:0 edns0 trust-ad\n", ""] {
            write_in_place(&path, text.as_bytes()).unwrap();
            assert_eq!(io::read_to_string(&fs::File::open(&path).unwrap()).unwrap(), text);
            assert_eq!(held.metadata().unwrap().len(), text.len() as u64);
        }
        fs::write(&path, "x".repeat(100_000)).unwrap();
        write_in_place(&path, b"short\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short\n");
    }
}
