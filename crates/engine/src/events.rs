//! What happens: the last events, and whoever listens.

mod kept;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use engine_api::events::{Actor, Event};
use tokio::sync::broadcast;

use self::kept::Kept;
use crate::container::Container;
use crate::sync::lock;

/// How far a listener may lag behind before it loses events: dockerd's number (`bufferSize`).
const LAG_MAX: usize = 1024;

/// The hub of events.
pub struct Events {
    kept: Mutex<Kept>,
    listeners: broadcast::Sender<Arc<Event>>,
    total: AtomicU64,
}

impl Default for Events {
    fn default() -> Self {
        Events { kept: Mutex::default(), listeners: broadcast::Sender::new(LAG_MAX), total: AtomicU64::default() }
    }
}

impl Events {
    /// Tells that `action` happened to `container`. `attributes` are those of the action; name, image and labels are added.
    pub fn container<const N: usize>(&self, container: &Container, action: &str, attributes: [(&str, String); N]) {
        let config = &container.definition.config;
        let mut all: BTreeMap<String, String> = attributes.map(|(name, value)| (name.to_owned(), value)).into();
        // In dockerd's order: a label may cover an attribute of the action, but never image and name.
        all.extend(config.labels.clone().unwrap_or_default());
        if !config.image.is_empty() {
            all.insert("image".to_owned(), config.image.clone());
        }
        all.insert("name".to_owned(), container.name());
        let id = container.id().to_string();
        self.publish(Event {
            status: action.to_owned(),
            id: id.clone(),
            from: config.image.clone(),
            kind: "container".to_owned(),
            action: action.to_owned(),
            actor: Actor { id, attributes: all },
            ..Event::default()
        });
    }

    /// Tells that `action` happened to an image.
    pub fn image(&self, id: &str, action: &str, attributes: BTreeMap<String, String>) {
        self.publish(Event {
            status: action.to_owned(),
            id: id.to_owned(),
            kind: "image".to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            ..Event::default()
        });
    }

    /// Tells that `action` happened to a volume.
    pub fn volume<const N: usize>(&self, name: &str, action: &str, attributes: [(&str, String); N]) {
        let mut all: BTreeMap<String, String> =
            attributes.map(|(attribute, value)| (attribute.to_owned(), value)).into();
        all.insert("driver".to_owned(), volume::DRIVER.to_owned());
        self.publish(Event {
            kind: "volume".to_owned(),
            action: action.to_owned(),
            actor: Actor { id: name.to_owned(), attributes: all },
            ..Event::default()
        });
    }

    /// Tells that `action` happened to the daemon of this id.
    pub fn daemon(&self, id: &str, action: &str, attributes: BTreeMap<String, String>) {
        self.publish(Event {
            kind: "daemon".to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            ..Event::default()
        });
    }

    /// Tells that `action` happened to a network.
    pub fn network<const N: usize>(&self, id: &str, action: &str, attributes: [(&str, String); N]) {
        self.of_network(id, action, attributes.map(|(attribute, value)| (attribute.to_owned(), value)).into());
    }

    /// Tells that `action` happened to a network, with any attributes.
    pub fn of_network(&self, id: &str, action: &str, attributes: BTreeMap<String, String>) {
        self.publish(Event {
            kind: "network".to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            ..Event::default()
        });
    }

    /// Tells that networks were pruned: they free nothing.
    pub fn networks_pruned(&self) {
        self.pruned("network", 0);
    }

    /// Tells that so many bytes were freed by a prune of what builds have cached.
    pub fn caches_pruned(&self, reclaimed_bytes: u64) {
        self.pruned("builder", reclaimed_bytes);
    }

    /// Tells that so many bytes were freed by a prune of volumes.
    pub fn volumes_pruned(&self, reclaimed_bytes: u64) {
        self.pruned("volume", reclaimed_bytes);
    }

    /// Tells that so many bytes were freed by a prune of containers.
    pub fn containers_pruned(&self, reclaimed_bytes: u64) {
        self.pruned("container", reclaimed_bytes);
    }

    /// Tells that so many bytes were freed by a prune of images.
    pub fn images_pruned(&self, reclaimed_bytes: u64) {
        self.pruned("image", reclaimed_bytes);
    }

    fn pruned(&self, kind: &str, reclaimed_bytes: u64) {
        // As of all that happens to containers and images, old clients are told of it once more.
        let old = matches!(kind, "container" | "image");
        self.publish(Event {
            status: if old { "prune".to_owned() } else { String::new() },
            kind: kind.to_owned(),
            action: "prune".to_owned(),
            actor: Actor {
                id: String::new(),
                attributes: [("reclaimed".to_owned(), reclaimed_bytes.to_string())].into(),
            },
            ..Event::default()
        });
    }

    fn publish(&self, mut event: Event) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        "local".clone_into(&mut event.scope);
        event.time = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        event.time_nano = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        // Under the lock, so that a new listener sees each event once: replayed or live.
        let mut kept = lock(&self.kept);
        kept.push(&event);
        // An error says that nobody listens.
        let _ = self.listeners.send(Arc::new(event));
    }

    /// What was kept, oldest first, if it is wanted, and everything that comes.
    pub fn subscribe(&self, with_past: bool) -> (Vec<Event>, broadcast::Receiver<Arc<Event>>) {
        let mut kept = lock(&self.kept);
        (if with_past { kept.events() } else { Vec::new() }, self.listeners.subscribe())
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.listeners.receiver_count()
    }
}
