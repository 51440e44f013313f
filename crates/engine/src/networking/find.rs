//! Which network a user means.

use std::sync::Arc;

use network::{DEFAULT, Networks, UserNetwork};

use crate::Engine;
use crate::ops::networks;

/// A network that is there.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// One that is always there: `bridge`, `host` or `none`.
    Predefined(&'static str),
    /// One that somebody made.
    User(Arc<UserNetwork>),
}

impl Found {
    pub(crate) fn name(&self) -> &str {
        match self {
            Found::Predefined(name) => name,
            Found::User(network) => &network.name,
        }
    }

    /// By which crate `network` knows it, if it does.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Found::Predefined(name) => (*name == DEFAULT).then_some(DEFAULT),
            Found::User(network) => Some(&network.id),
        }
    }

    pub(crate) fn user(&self) -> Option<&Arc<UserNetwork>> {
        match self {
            Found::Predefined(_) => None,
            Found::User(network) => Some(network),
        }
    }
}

/// A network that somebody made, by id or name.
pub(crate) fn user(networks: &Networks, wanted: &str) -> Option<Arc<UserNetwork>> {
    let users = networks.user_networks();
    users.iter().find(|network| network.id == wanted).or(users.iter().find(|network| network.name == wanted)).cloned()
}

/// By id, by name, or by the beginning of an id that no other one has. Blocks shortly.
pub(crate) fn find(engine: &Engine, wanted: &str) -> Option<Found> {
    let users = engine.networking.bridge().map(Networks::user_networks).unwrap_or_default();
    if let Some(network) = users.iter().find(|network| network.id == wanted) {
        return Some(Found::User(Arc::clone(network)));
    }
    let predefined = networks::PREDEFINED.into_iter();
    if let Some(name) = predefined.clone().find(|name| *name == wanted) {
        return Some(Found::Predefined(name));
    }
    if let Some(network) = users.iter().find(|network| network.name == wanted) {
        return Some(Found::User(Arc::clone(network)));
    }
    if wanted.is_empty() {
        return None;
    }
    let users = users.into_iter().filter(|network| network.id.starts_with(wanted)).map(Found::User);
    let predefined = predefined.filter(|name| networks::predefined_id(engine, name).starts_with(wanted));
    let mut begins = users.chain(predefined.map(Found::Predefined));
    begins.next().filter(|_| begins.next().is_none())
}
