//! `--link` on the default bridge: which container calls which one how, and who is told of addresses.
//!
//! ```text
//!   create: resolve()         names become ids, which are kept in the definition
//!   launch: lines(), config() a running container's lines of /etc/hosts and variables of those it links to
//!   a linked one starts:      tell_parents(): the lines of all that link to it get its new address
//! ```
//! A link stays when the linked container goes, as with dockerd: what links to it does not start then. Links taken away
//! by `rm --link` come back with the next daemon, likewise.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use container_spec::InvalidRequest;
use container_spec::links::{Linked, move_alias, parse, remove_alias, with_environment};
use engine_api::container::Config;
use engine_api::host_config::HostConfig;
use errdefs::ErrorKind;
use oci::ContainerId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::Engine;
use crate::container::Container;
use crate::hosts;
use crate::networking::Mode;
use crate::registry::LookupError;
use crate::sync::{read, write};

/// A link, as its container keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The linked container.
    pub to: ContainerId,
    /// What it is called.
    pub alias: String,
}

/// Why containers are not linked. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The request is no link.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// There is no such container.
    #[error("could not get container for {name}")]
    Missing {
        /// As given.
        name: String,
        /// Why.
        source: LookupError,
    },
    /// The linked container does not run.
    #[error("Cannot link to a non running container: /{name} AS {link}")]
    NotRunning {
        /// Its name.
        name: String,
        /// What it is called: `/OTHER/ALIAS`.
        link: String,
    },
    /// The linked container is somewhere else.
    #[error("Cannot link to /{0}, as it does not belong to the default network")]
    Elsewhere(String),
}

impl LinkError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LinkError::Invalid(err) => err.kind(),
            // Not "not found": clients would pull the image.
            LinkError::Missing { .. } => ErrorKind::InvalidArgument,
            LinkError::NotRunning { .. } | LinkError::Elsewhere(_) => ErrorKind::Internal,
        }
    }
}

/// All links, by who links and the alias.
#[derive(Default)]
pub struct Links(RwLock<BTreeMap<ContainerId, BTreeMap<String, Arc<Container>>>>);

impl Links {
    /// The containers that one links to, by alias.
    pub(crate) fn children(&self, parent: &ContainerId) -> BTreeMap<String, Arc<Container>> {
        read(&self.0).get(parent).cloned().unwrap_or_default()
    }

    /// Who links to a container, and by which alias.
    pub(crate) fn parents(&self, child: &ContainerId) -> Vec<(ContainerId, String)> {
        let links = read(&self.0);
        let all = links.iter().flat_map(|(parent, aliases)| aliases.iter().map(move |(alias, to)| (parent, alias, to)));
        all.filter(|(_, _, to)| to.id() == child).map(|(parent, alias, _)| (parent.clone(), alias.clone())).collect()
    }

    /// The container that `parent` calls `alias`.
    pub(crate) fn child(&self, parent: &ContainerId, alias: &str) -> Option<Arc<Container>> {
        read(&self.0).get(parent)?.get(alias).cloned()
    }

    /// Keeps the links of a container that was made or found.
    pub(crate) fn add(&self, container: &Container, find: impl Fn(&ContainerId) -> Option<Arc<Container>>) {
        let links = &container.definition.links;
        if links.is_empty() {
            return;
        }
        let found = links.iter().filter_map(|link| Some((link.alias.clone(), find(&link.to)?))).collect();
        write(&self.0).insert(container.id().clone(), found);
    }

    /// A container is removed, and with it its own links.
    pub(crate) fn forget(&self, parent: &ContainerId) {
        write(&self.0).remove(parent);
    }

    fn unlink(&self, parent: &ContainerId, alias: &str) {
        if let Some(aliases) = write(&self.0).get_mut(parent) {
            aliases.remove(alias);
        }
    }
}

/// The links that a request asks for.
pub(crate) fn resolve(engine: &Engine, host: &HostConfig) -> Result<Vec<Link>, LinkError> {
    let find = |name: &str| {
        let found = engine.containers.find(name);
        found.map_err(|source| LinkError::Missing { name: name.to_owned(), source })
    };
    let mut links = Vec::new();
    for raw in host.links.iter().flatten() {
        let (name, alias) = parse(raw)?;
        let mut child = find(name)?;
        // Who shares another one's network is reached there.
        while let Mode::Container(donor) = Mode::of(&child.definition) {
            child = find(donor)?;
        }
        if Mode::of(&child.definition) == Mode::Host {
            return Err(InvalidRequest::Conflict { options: container_spec::validate::HOST_LINKS }.into());
        }
        links.push(Link { to: child.id().clone(), alias: alias.to_owned() });
    }
    Ok(links)
}

/// What a container that is on the bridge is told of those it links to.
fn told<T>(engine: &Engine, container: &Container, tell: impl Fn(Linked<'_>) -> T) -> Result<Vec<T>, LinkError> {
    // Most have none: no lock is taken for them.
    if container.definition.links.is_empty() || Mode::of(&container.definition) != Mode::Bridge {
        return Ok(Vec::new());
    }
    let own = container.name();
    let children = engine.containers.links().children(container.id());
    let told = children.iter().map(|(alias, child)| {
        let (name, full_name) = (child.name(), format!("/{own}/{alias}"));
        let (runs, place) = {
            let live = child.live();
            (live.state.is_running(), live.place.clone())
        };
        if !runs {
            return Err(LinkError::NotRunning { name, link: full_name });
        }
        let endpoint = place.as_ref().and_then(|place| place.on(network::DEFAULT));
        let of_ipv4 = endpoint.and_then(|endpoint| endpoint.ipv4);
        let address = of_ipv4.ok_or_else(|| LinkError::Elsewhere(name.clone()))?.address;
        Ok(tell(Linked { alias, full_name, name, address, config: &child.definition.config }))
    });
    told.collect()
}

/// The lines of its /etc/hosts.
pub(crate) fn lines(engine: &Engine, container: &Container) -> Result<Vec<String>, LinkError> {
    told(engine, container, |linked| linked.line())
}

/// Its configuration, with the variables of its links below its own.
pub(crate) fn config<'a>(engine: &Engine, container: &'a Container) -> Result<Cow<'a, Config>, LinkError> {
    let config = &container.definition.config;
    let linked = told(engine, container, |linked| linked.environment())?.concat();
    Ok(if linked.is_empty() { Cow::Borrowed(config) } else { Cow::Owned(with_environment(config, linked)) })
}

/// Gives all that link to a container its address, where they run. Blocks.
pub(crate) fn tell_parents(engine: &Engine, child: &Container, address: std::net::Ipv4Addr) {
    for (parent, alias) in engine.containers.links().parents(child.id()) {
        rewrite(engine, &parent, |hosts| move_alias(hosts, &alias, address));
    }
}

/// The file of a running container: it has it mounted. Blocks.
fn rewrite(engine: &Engine, id: &ContainerId, change: impl FnOnce(&str) -> Option<String>) {
    if engine.containers.get(id).is_some_and(|container| container.state().is_running()) {
        hosts::edit(engine, id, change);
    }
}

/// The containers to which one links on the default bridge, by their ids.
pub(crate) fn linked(engine: &Engine, parent: &ContainerId) -> Vec<String> {
    engine.containers.links().children(parent).values().map(|child| child.id().to_string()).collect()
}

/// As `inspect` shows the links of a container; nothing if it has none.
pub(crate) fn shown(engine: &Engine, container: &Container, name: &str) -> Option<Vec<String>> {
    if container.definition.links.is_empty() {
        return None;
    }
    let children = engine.containers.links().children(container.id());
    let shown = children.iter().map(|(alias, child)| format!("/{}:/{name}/{alias}", child.name()));
    Some(shown.collect()).filter(|links: &Vec<String>| !links.is_empty())
}

/// By which names others call a container, `/OTHER/ALIAS`.
pub(crate) fn names(engine: &Engine, child: &ContainerId) -> Vec<String> {
    let parents = engine.containers.links().parents(child).into_iter();
    parents.filter_map(|(parent, alias)| Some(format!("/{}/{alias}", engine.containers.get(&parent)?.name()))).collect()
}

/// Who has the link `OTHER/ALIAS`, and its alias; nothing if that is the name of none.
pub(crate) fn find_link(engine: &Engine, name: &str) -> Option<(Arc<Container>, String)> {
    let (parent, alias) = name.trim_start_matches('/').split_once('/')?;
    Some((engine.containers.find(parent).ok()?, alias.to_owned()))
}

/// Takes a link of a container away on which the caller operates. Blocks.
pub(crate) fn remove(engine: &Engine, parent: &Container, alias: &str) {
    engine.containers.links().unlink(parent.id(), alias);
    rewrite(engine, parent.id(), |hosts| remove_alias(hosts, alias));
    let left = linked(engine, parent.id());
    let shut = engine.networking.bridge().map(|networks| network::set_links(networks, parent.id().as_str(), left));
    if let Some(Err(err)) = shut {
        warn!(err = errdefs::chain(&err), "a link that was taken away is open until its container ends");
    }
}
