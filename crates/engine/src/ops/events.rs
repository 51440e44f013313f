//! `GET /events`

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use engine_api::events::Event;
use errdefs::ErrorKind;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::Instant;
use tracing::warn;

use crate::Engine;
use crate::filters::Filters;
use crate::time_query::{self, TimeError};

/// What comes in the query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// Replays what happened since then, as the client sent it (`seconds[.nanoseconds]` since 1970).
    pub since: String,
    /// Ends then, likewise; never if empty.
    pub until: String,
    /// Which are wanted.
    pub filters: Filters,
}

/// Why [`subscribe`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// `since` or `until` is no time.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// The end lies before the beginning.
    #[error("`since` time ({since}) cannot be after `until` time ({until})")]
    Order {
        /// As given.
        since: String,
        /// As given.
        until: String,
    },
}

impl EventsError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            EventsError::Time(err) => err.kind(),
            EventsError::Order { .. } => ErrorKind::InvalidArgument,
        }
    }
}

/// What happens, as it happens.
pub struct EventStream {
    replay: VecDeque<Event>,
    live: Receiver<Arc<Event>>,
    filters: Filters,
    /// Nothing live is wanted after that.
    end: Option<Instant>,
}

/// Subscribes to events.
pub fn subscribe(engine: &Engine, query: EventsQuery) -> Result<EventStream, EventsError> {
    let (since, until) = (time_query::parse(&query.since)?, time_query::parse(&query.until)?);
    if let (Some(from), Some(to)) = (since, until)
        && from > to
    {
        return Err(EventsError::Order { since: query.since, until: query.until });
    }
    // Without either bound nothing is replayed.
    let (kept, live) = engine.events.subscribe(since.is_some() || until.is_some());
    let wanted = |event: &Event| {
        event.time_nano >= since.unwrap_or(0)
            && until.is_none_or(|until| event.time_nano <= until)
            && matches(&query.filters, event)
    };
    let replay = kept.into_iter().filter(wanted).collect();
    let left = until.map(|until| u64::try_from(until - crate::clock::now_nanos()).unwrap_or(0));
    let end = left.map(|nanos| Instant::now() + Duration::from_nanos(nanos));
    Ok(EventStream { replay, live, filters: query.filters, end })
}

impl EventStream {
    /// The next event; `None` once `until` has come. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.replay.pop_front() {
            return Some(event);
        }
        loop {
            let received = match self.end {
                None => self.live.recv().await,
                Some(end) => tokio::time::timeout_at(end, self.live.recv()).await.ok()?,
            };
            match received {
                Ok(event) if matches(&self.filters, &event) => return Some((*event).clone()),
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => warn!(lost, "a listener is too slow for the events"),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Whether an event is wanted (moby daemon/events `Filter.Include`).
fn matches(filters: &Filters, event: &Event) -> bool {
    let attributes = &event.actor.attributes;
    let attribute = |name: &str| attributes.get(name).map_or("", String::as_str);
    let named = |key: &str| filters.prefix(key, &event.actor.id) || filters.prefix(key, attribute("name"));
    // `exec_create` alone means `exec_create: sh` and all the others.
    let loose = filters.get("event").any(|wanted| matches!(wanted, "health_status" | "exec_create" | "exec_start"));
    let action = if loose { Filters::prefix } else { Filters::exact };
    const KINDS: [&str; 9] =
        ["daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config"];
    action(filters, "event", &event.action)
        && filters.exact("type", &event.kind)
        && filters.exact("scope", &event.scope)
        && KINDS.iter().all(|kind| named(kind))
        && matches_image(filters, event, attribute)
        && filters.labels("label", attributes)
}

fn matches_image<'a>(filters: &Filters, event: &'a Event, attribute: impl Fn(&str) -> &'a str) -> bool {
    let id = event.actor.id.as_str();
    let name = attribute(if event.kind == "image" { "name" } else { "image" });
    [id, name].into_iter().any(|text| filters.exact("image", text) || filters.exact("image", &without_tag(text)))
}

fn without_tag(image: &str) -> String {
    image.parse().map_or_else(|_| image.to_owned(), |reference: oci::Reference| reference.familiar_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_api::events::Actor;

    #[test]
    fn filters_match_as_dockerds() {
        let attributes = [("name", "web"), ("image", "busybox:1"), ("tier", "front")];
        let event = Event {
            kind: "container".into(),
            action: "exec_create: sh ".into(),
            scope: "local".into(),
            actor: Actor {
                id: "abcdef".into(),
                attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            },
            ..Event::default()
        };
        for (key, value, wanted) in [
            ("event", "exec_create", true),
            ("event", "start", false),
            ("type", "container", true),
            ("type", "image", false),
            ("container", "web", true),
            ("container", "we", true),
            ("container", "abc", true),
            ("container", "db", false),
            ("image", "busybox", true),
            ("image", "busybox:1", true),
            ("image", "busybox:2", false),
            ("label", "tier=front", true),
            ("label", "tier=back", false),
            ("scope", "swarm", false),
        ] {
            let filters = Filters([(key.to_owned(), [value.to_owned()].into())].into());
            assert_eq!(matches(&filters, &event), wanted, "{key}={value}");
        }
        assert!(matches(&Filters::default(), &event));
    }
}
