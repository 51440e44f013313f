//! `GET /containers/{id}/json`

use std::collections::BTreeMap;
use std::sync::Arc;

use engine_api::container::{Inspect, State as WireState};
use engine_api::host_config::HostConfig;
use engine_api::image::GraphDriver;
use errdefs::ErrorKind;

use crate::Engine;
use crate::clock::rfc3339;
use crate::container::Container;
use crate::container::record::{ContainerDir, Definition};
use crate::container::state::State;
use crate::links;
use crate::networking::Mode;
use crate::networking::view::Seen;
use crate::ops::create::snapshot_key;
use crate::ops::list::sizes;
use crate::registry::LookupError;

/// Why [`inspect`] failed.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Its size cannot be computed.
    #[error("measure the container's files")]
    Size(#[source] snapshot::SnapshotError),
}

impl InspectError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            InspectError::Lookup(err) => err.kind(),
            InspectError::Size(err) => err.kind(),
        }
    }
}

/// Everything about a container. Waits for nothing but the disk, and for that only shortly.
pub async fn inspect(engine: &Engine, name: &str, size: bool) -> Result<Inspect, InspectError> {
    let container = engine.containers.find(name)?;
    let graph_driver = graph_driver(engine, &container).await;
    let mut inspect = describe(engine, &container);
    inspect.graph_driver = graph_driver;
    if size {
        let (own, all) = sizes(engine, &container).await.map_err(InspectError::Size)?;
        (inspect.size_rw, inspect.size_root_fs) = (Some(own), Some(all));
    }
    Ok(inspect)
}

fn describe(engine: &Engine, container: &Container) -> Inspect {
    let definition = &container.definition;
    let (name, state, networks, place, execs) = {
        let live = container.live();
        let open = live.execs.values().filter(|exec| exec.progress().exit_code.is_none());
        (
            live.name.clone(),
            live.state.clone(),
            live.networks.clone(),
            live.place.clone(),
            open.map(|exec| exec.id.clone()).collect::<Vec<_>>(),
        )
    };
    let (id, dir) = (container.id(), engine.recorder.dir(container.id()));
    let network = if state.started_at_nanos == 0 { None } else { lender(engine, definition) };
    let files = network.as_ref().map_or_else(|| dir.clone(), |(files, _)| files.clone());
    let mut config = container.config().into_owned();
    if let Some((_, Some(lender))) = &network {
        let theirs = &lender.definition.config;
        (config.hostname, config.domainname) = (theirs.hostname.clone(), theirs.domainname.clone());
    }
    let own_network = match Mode::of(definition) {
        Mode::Bridge => "bridge",
        Mode::User(name) => name,
        Mode::None | Mode::Host | Mode::Container(_) => "",
    };
    if let Some(settings) = networks.as_ref().and_then(|networks| networks.get(own_network)) {
        config.mac_address.clone_from(&settings.mac_address);
    }
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    // A path is told when something may be there.
    let begun = |path: std::path::PathBuf| if state.started_at_nanos == 0 { String::new() } else { text(path) };
    let logged = definition.host_config.log_config.kind == "json-file";
    Inspect {
        id: id.to_string(),
        created: rfc3339(definition.created_at_nanos),
        path: definition.path.clone(),
        args: definition.args.clone(),
        state: wire_state(&state),
        image: definition.image_id.clone(),
        resolv_conf_path: begun(files.resolv_conf()),
        hostname_path: begun(files.hostname()),
        hosts_path: begun(files.hosts()),
        log_path: if logged { begun(dir.log(id)) } else { String::new() },
        name: format!("/{name}"),
        restart_count: state.restart_count.into(),
        driver: definition.storage_driver().to_owned(),
        platform: "linux".to_owned(),
        exec_ids: (!execs.is_empty()).then_some(execs),
        host_config: HostConfig {
            links: links::shown(engine, container, &name),
            ..container.host_config().into_owned()
        },
        app_armor_profile: apparmor(engine, definition, &state),
        mounts: definition.mounts.iter().map(|point| point.shown.clone()).collect(),
        config,
        network_settings: Seen {
            definition,
            config: container.config(),
            host: container.host_config(),
            name: &name,
            networks,
            place,
            network_id: &state.network_id,
        }
        .settings(state.pid()),
        ..Inspect::default()
    }
}

/// Where the files lie that go with the network of a container which shares another one's, and that one, unless it is gone.
fn lender(engine: &Engine, definition: &Definition) -> Option<(ContainerDir, Option<Arc<Container>>)> {
    let Mode::Container(name) = Mode::of(definition) else { return None };
    let lender = engine.containers.find(name).ok();
    let id = lender.as_ref().map_or_else(|| name.parse().ok(), |lender| Some(lender.id().clone()))?;
    Some((engine.recorder.dir(&id), lender))
}

/// The profile of AppArmor. Where the host has none, dockerd shows what was asked for until the first start.
fn apparmor(engine: &Engine, definition: &Definition, state: &State) -> String {
    let parsed = container_spec::security::parse(&definition.host_config, &engine.facts);
    let asked = parsed.map_or("", |options| options.apparmor);
    let shown = engine.facts.apparmor || state.started_at_nanos == 0;
    if shown { asked.to_owned() } else { String::new() }
}

fn wire_state(state: &State) -> WireState {
    WireState {
        status: state.name().to_owned(),
        running: state.is_running(),
        paused: state.paused,
        restarting: state.name() == "restarting",
        oom_killed: state.oom_killed,
        pid: state.pid(),
        exit_code: state.exit_code,
        error: state.error.clone(),
        health: state.health.as_deref().cloned(),
        started_at: rfc3339(state.started_at_nanos),
        finished_at: rfc3339(state.finished_at_nanos),
        ..WireState::default()
    }
}

/// Where its layers lie. `MergedDir` is empty: nothing of a container is mounted on the host.
async fn graph_driver(engine: &Engine, container: &Arc<Container>) -> GraphDriver {
    let driver = engine.images.snapshots().driver();
    if !driver.stacks() {
        return GraphDriver { name: driver.name().to_owned(), data: None };
    }
    let (task, key) = (engine.clone(), snapshot_key(container.id()));
    let mounts = bridge::blocking(move || task.images.snapshots().mounts(&key)).await.unwrap_or_default();
    let options = || mounts.iter().flat_map(|mount| &mount.options);
    let option = |name: &str| options().find_map(|option| option.strip_prefix(name)).unwrap_or_default().to_owned();
    let lower: Vec<&str> = options().filter_map(|option| option.strip_prefix("lowerdir+=")).collect();
    let data = [
        ("ID", container.id().to_string()),
        ("LowerDir", lower.join(":")),
        ("MergedDir", String::new()),
        ("UpperDir", option("upperdir=")),
        ("WorkDir", option("workdir=")),
    ];
    GraphDriver {
        data: Some(data.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>()),
        name: driver.name().to_owned(),
    }
}
