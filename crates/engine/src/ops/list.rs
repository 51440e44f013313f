//! `GET /containers/json`

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use container_spec::Point;
use engine_api::container::{MountPoint, Port, Summary, SummaryHostConfig, SummaryNetworks};
use errdefs::ErrorKind;

use crate::Engine;
use crate::container::Container;
use crate::container::state::State;
use crate::container::status::status;
use crate::filters::{FilterError, Filters, PortFilter};
use crate::networking::Attachments;
use crate::networking::view::{self, Seen};
use crate::ops::changes::STUBS;
use crate::ops::create::snapshot_key;
use crate::registry::LookupError;
use crate::upkeep::unless_left;

const FILTERS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTHS: [&str; 4] = ["none", "starting", "unhealthy", "healthy"];

/// What comes in the query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Also those that do not run.
    pub all: bool,
    /// At most so many, the newest ones; also those that do not run. No limit if absent.
    pub limit: Option<usize>,
    /// Whether sizes are computed.
    pub size: bool,
    /// Which are wanted.
    pub filters: Filters,
}

/// Why [`list`] failed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The filters are wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The container of `before` or `since` does not exist.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A size cannot be computed.
    #[error("measure the container's files")]
    Size(#[source] snapshot::SnapshotError),
}

impl ListError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ListError::Filter(err) => err.kind(),
            ListError::Lookup(err) => err.kind(),
            ListError::Size(err) => err.kind(),
        }
    }
}

/// A query that was checked.
struct Wanted {
    filters: Filters,
    all: bool,
    exit_codes: Vec<i32>,
    /// Ids of images; `None` for any.
    images: Option<BTreeSet<String>>,
    published: Vec<PortFilter>,
    exposed: Vec<PortFilter>,
    before: Option<(i64, oci::ContainerId)>,
    since: Option<(i64, oci::ContainerId)>,
}

/// What the filters look at.
struct Candidate {
    container: Arc<Container>,
    name: String,
    state: State,
    networks: Option<Arc<Attachments>>,
    place: Option<Arc<network::Place>>,
}

/// Gives containers to `each`, newest first and one at a time. Waits for nothing but, with sizes, the disk.
pub async fn list(engine: &Engine, query: ListQuery, mut each: impl FnMut(Summary)) -> Result<(), ListError> {
    let wanted = check(engine, &query)?;
    let mut candidates: Vec<Candidate> = engine.containers.all().into_iter().map(Candidate::new).collect();
    candidates.retain(|candidate| wanted.matches(candidate));
    candidates.sort_unstable_by(|a, b| b.order().cmp(&a.order()));
    candidates.truncate(query.limit.unwrap_or(usize::MAX));
    let now = crate::clock::now_nanos();
    let mut names = ImageNames::default();
    for candidate in &candidates {
        let mut summary = candidate.summary(names.of(engine, candidate), now);
        summary.names.extend(crate::links::names(engine, candidate.container.id()));
        if query.size {
            let sizes = sizes(engine, &candidate.container).await.map_err(ListError::Size)?;
            (summary.size_rw, summary.size_root_fs) = sizes;
        }
        each(summary);
    }
    Ok(())
}

/// Bytes of a container's own files, and of these and its image's together.
pub(crate) async fn sizes(engine: &Engine, container: &Arc<Container>) -> Result<(i64, i64), snapshot::SnapshotError> {
    let (task, key) = (engine.clone(), snapshot_key(container.id()));
    let own = unless_left(move |stop| task.images.snapshots().usage_unless(&key, STUBS, stop)).await?.bytes;
    let image = container.definition.image_id.parse().ok().and_then(|id| engine.images.get(&id));
    let all = own + image.map_or(0, |image| image.size_bytes);
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Ok((signed(own), signed(all)))
}

fn check(engine: &Engine, query: &ListQuery) -> Result<Wanted, ListError> {
    let filters = &query.filters;
    filters.check(&FILTERS)?;
    let code = |text: &str| text.parse().map_err(|_| FilterError::ExitCode(text.to_owned()));
    let exit_codes = filters.get("exited").map(code).collect::<Result<_, _>>()?;
    if let Some(state) = filters.get("status").find(|state| !STATES.contains(state)) {
        return Err(FilterError::Status(state.to_owned()).into());
    }
    if let Some(health) = filters.get("health").find(|health| !HEALTHS.contains(health)) {
        return Err(FilterError::Health(health.to_owned()).into());
    }
    filters.boolean("is-task")?;
    let place = |name: Option<&str>| -> Result<_, LookupError> {
        let Some(name) = name else { return Ok(None) };
        let container = engine.containers.find(name)?;
        Ok(Some((container.definition.created_at_nanos, container.id().clone())))
    };
    let ports = |key: &'static str| filters.get(key).map(|text| PortFilter::parse(key, text)).collect::<Result<_, _>>();
    let image_id = |name: &str| engine.images.resolve(name).ok().map(|image| image.id.to_string());
    Ok(Wanted {
        exit_codes,
        images: filters.has("ancestor").then(|| filters.get("ancestor").filter_map(image_id).collect()),
        published: ports("publish")?,
        exposed: ports("expose")?,
        before: place(filters.get("before").next())?,
        since: place(filters.get("since").next())?,
        all: query.all || query.limit.is_some() || filters.has("status"),
        filters: filters.clone(),
    })
}

impl Wanted {
    fn matches(&self, candidate: &Candidate) -> bool {
        let (filters, definition) = (&self.filters, &candidate.container.definition);
        let state = &candidate.state;
        let no_labels = BTreeMap::new();
        (self.all || state.is_running())
            && self.before.as_ref().is_none_or(|(at, id)| candidate.order() < (*at, id))
            && self.since.as_ref().is_none_or(|(at, id)| candidate.order() > (*at, id))
            && self.matches_name(&candidate.name)
            && filters.prefix("id", definition.id.as_str())
            && filters.labels("label", definition.config.labels.as_ref().unwrap_or(&no_labels))
            && filters.exact("status", state.name())
            && self.matches_exit(state)
            && self.images.as_ref().is_none_or(|images| images.contains(&definition.image_id))
            && self.matches_network(candidate)
            && self.matches_volume(candidate)
            && filters.exact("health", state.health.as_ref().map_or("none", |health| health.status.as_str()))
            && filters.boolean("is-task") != Ok(Some(true))
            && self.matches_ports(candidate)
    }

    /// With the slash that Docker's names begin with, or without.
    fn matches_name(&self, name: &str) -> bool {
        let filters = &self.filters;
        !filters.has("name") || filters.pattern("name", name) || filters.pattern("name", &format!("/{name}"))
    }

    /// By name, or by id as far as one is known.
    fn matches_network(&self, candidate: &Candidate) -> bool {
        if !self.filters.has("network") {
            return true;
        }
        let networks = candidate.seen().networks();
        let known = |wanted: &str| {
            networks
                .iter()
                .any(|(name, network)| name == wanted || !wanted.is_empty() && network.network_id.starts_with(wanted))
        };
        self.filters.get("network").any(known)
    }

    fn matches_exit(&self, state: &State) -> bool {
        let ended = !state.is_running() && state.started_at_nanos != 0;
        self.exit_codes.is_empty() || (ended && self.exit_codes.contains(&state.exit_code))
    }

    fn matches_volume(&self, candidate: &Candidate) -> bool {
        let mounts = &candidate.container.definition.mounts;
        let matches = |wanted: &str| {
            mounts
                .iter()
                .map(|mount| &mount.shown)
                .any(|mount| [&mount.name, &mount.source, &mount.destination].into_iter().any(|text| text == wanted))
        };
        !self.filters.has("volume") || self.filters.get("volume").any(matches)
    }

    /// By a port that is published, or one that is exposed: as dockerd, either is enough where both are wanted.
    fn matches_ports(&self, candidate: &Candidate) -> bool {
        if self.published.is_empty() && self.exposed.is_empty() {
            return true;
        }
        candidate.ports().iter().any(|port| {
            let on = |wanted: &[PortFilter], number: u16| wanted.iter().any(|one| one.matches(number, &port.kind));
            on(&self.exposed, port.private_port) || port.public_port.is_some_and(|public| on(&self.published, public))
        })
    }
}

impl Candidate {
    fn new(container: Arc<Container>) -> Candidate {
        let live = container.live();
        let (name, state, place) = (live.name.clone(), live.state.clone(), live.place.clone());
        let networks = live.networks.clone();
        drop(live);
        Candidate { container, name, state, networks, place }
    }

    fn order(&self) -> (i64, &oci::ContainerId) {
        (self.container.definition.created_at_nanos, self.container.id())
    }

    fn seen(&self) -> Seen<'_> {
        let (networks, place) = (self.networks.clone(), self.place.clone());
        let network_id = &self.state.network_id;
        Seen {
            definition: &self.container.definition,
            config: self.container.config(),
            host: self.container.host_config(),
            name: &self.name,
            networks,
            place,
            network_id,
        }
    }

    /// Those of a container that is not on the bridge are told of nowhere.
    fn ports(&self) -> Vec<Port> {
        let (config, host) = (self.container.config(), self.container.host_config());
        self.place.as_ref().map_or_else(Vec::new, |place| view::ports(&config, &host, place))
    }

    fn summary(&self, image: String, now_nanos: i64) -> Summary {
        let definition = &self.container.definition;
        let host = &definition.host_config;
        Summary {
            id: definition.id.as_str().to_owned(),
            names: vec![format!("/{}", self.name)],
            image,
            image_id: definition.image_id.clone(),
            command: command(&definition.path, &definition.args),
            created: definition.created_at_nanos / 1_000_000_000,
            labels: definition.config.labels.clone().unwrap_or_default(),
            state: self.state.name().to_owned(),
            status: status(&self.state, now_nanos),
            host_config: SummaryHostConfig {
                network_mode: host.network_mode.clone(),
                annotations: host.annotations.clone(),
            },
            network_settings: SummaryNetworks { networks: self.seen().networks() },
            ports: self.ports(),
            mounts: definition.mounts.iter().map(told).collect(),
            ..Summary::default()
        }
    }
}

/// As `inspect` shows it, but not where volumes are that image or request declare by a path alone: dockerd's list was made
/// before they are.
fn told(point: &Point) -> MountPoint {
    let declared = point.anonymous && point.shown.mode.is_empty();
    let source = if declared { String::new() } else { point.shown.source.clone() };
    MountPoint { source, ..point.shown.clone() }
}

/// Images as users named them, each name looked up once: most containers have few images between them.
#[derive(Default)]
struct ImageNames<'a> {
    /// By name and id: whether that name means that image.
    current: BTreeMap<(&'a str, &'a str), bool>,
}

impl<'a> ImageNames<'a> {
    /// The image as the user named it, as long as that name means the same image.
    fn of(&mut self, engine: &Engine, candidate: &'a Candidate) -> String {
        let definition = &candidate.container.definition;
        let (name, id) = (definition.config.image.as_str(), definition.image_id.as_str());
        let means = || engine.images.resolve(name).is_ok_and(|image| image.id.as_str() == id);
        let current = *self.current.entry((name, id)).or_insert_with(means);
        if current { name.to_owned() } else { id.to_owned() }
    }
}

/// Arguments with blanks are shown in quotes.
fn command(path: &str, args: &[String]) -> String {
    let mut text = path.to_owned();
    for arg in args {
        text.push(' ');
        text.push_str(&if arg.contains(' ') { format!("'{arg}'") } else { arg.clone() });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_dockerd_shows_them() {
        assert_eq!(command("sh", &[]), "sh");
        assert_eq!(command("sh", &["-c".into(), "echo a".into()]), "sh -c 'echo a'");
    }
}
