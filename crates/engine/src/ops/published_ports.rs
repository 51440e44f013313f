//! `POST /containers/{id}/ports`, which Docker does not have: ports of a container are published, or no longer, while it runs.

use std::sync::Arc;

use container_spec::port_change::{PortChangeError, PortsOf, change_ports};
use container_spec::ports::publications;
use engine_api::container::Config;
use engine_api::host_config::HostConfig;
use engine_api::published_ports::{PortsRequest, PortsUpdate};
use errdefs::ErrorKind;
use network::PortChange;

use super::update::UpdateError;
use super::{network_connect, update};
use crate::Engine;
use crate::container::Container;
use crate::container::state::Phase;
use crate::networking::{self, ConnectError, Mode};
use crate::registry::LookupError;

/// Why the ports of a container could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The request contradicts itself, or the container.
    #[error(transparent)]
    Change(#[from] PortChangeError),
    /// It is being removed.
    #[error("container {0} is marked for removal and cannot publish ports")]
    Removing(String),
    /// It is on no network of its own.
    #[error("container {name} publishes no ports: its network is that of {network}")]
    NoNetwork {
        /// Its name.
        name: String,
        /// What it shares, or `none`.
        network: String,
    },
    /// The limits that were to change with them are refused.
    #[error(transparent)]
    Limits(#[from] UpdateError),
    /// A port cannot be had.
    #[error(transparent)]
    Join(network::JoinError),
    /// It is being started or taken away.
    #[error(transparent)]
    Container(ConnectError),
    /// Its record cannot be written.
    #[error("write the container's record")]
    Record(#[source] std::io::Error),
}

impl PortsError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PortsError::Lookup(err) => err.kind(),
            PortsError::Change(PortChangeError::NotPublished { .. }) => ErrorKind::NotFound,
            PortsError::Change(PortChangeError::Published { .. }) | PortsError::Removing(_) => ErrorKind::Conflict,
            PortsError::Change(_) | PortsError::NoNetwork { .. } => ErrorKind::InvalidArgument,
            PortsError::Limits(err) => err.kind(),
            PortsError::Join(err) => err.kind(),
            PortsError::Container(err) => err.kind(),
            PortsError::Record(_) => ErrorKind::Internal,
        }
    }
}

/// Publishes ports of a container, gives others up and changes its limits; all of it or nothing. Answers what the user should know.
pub async fn update(engine: &Engine, name: &str, request: PortsRequest) -> Result<Vec<String>, PortsError> {
    let (limits, warnings) = match request.limits.map(|limits| update::check(engine, limits)).transpose()? {
        Some((limits, warnings)) => (Some(limits), warnings),
        None => (None, Vec::new()),
    };
    let container = engine.containers.find(name)?;
    let task = engine.clone();
    let all = async move {
        // A start finds either all of it or nothing.
        let _operation = container.operate().await?;
        let before = change(&task, &container, request.ports).await?;
        let Some(limits) = limits else {
            task.events.container(&container, "update", []);
            return Ok(());
        };
        let limited = update::change(&task, &container, limits).await;
        if limited.is_err() {
            // The error that is told is the first one.
            _ = set(&task, &container, before).await;
        }
        limited.map_err(PortsError::Limits)
    };
    engine.detached(all).await?;
    Ok(warnings)
}

/// Changes the ports; answers what there was before.
async fn change(engine: &Engine, container: &Arc<Container>, update: PortsUpdate) -> Result<Published, PortsError> {
    let phase = container.state().phase;
    if phase == Phase::Removing || container.is_removed() {
        return Err(PortsError::Removing(container.name()));
    }
    check_mode(container)?;
    let before = Published::of(container);
    let PortsOf { exposed, bindings } = change_ports(&before.config, &before.host, update)?;
    let config = Config { exposed_ports: Some(exposed), ..before.config.clone() };
    let host = HostConfig { port_bindings: Some(bindings), ..before.host.clone() };
    set(engine, container, Published { config, host }).await?;
    Ok(before)
}

/// What says which ports a container publishes.
struct Published {
    config: Config,
    host: HostConfig,
}

impl Published {
    fn of(container: &Container) -> Published {
        Published { config: container.config().into_owned(), host: container.host_config().into_owned() }
    }

    fn requests(&self) -> Result<Vec<network::PortRequest>, PortsError> {
        let wanted = publications(&self.config, &self.host).map_err(PortChangeError::Invalid)?;
        Ok(wanted.into_iter().map(networking::port_request).collect())
    }
}

/// Publishes these ports and no others, if the container runs, and records it; all of it or nothing.
async fn set(engine: &Engine, container: &Arc<Container>, after: Published) -> Result<(), PortsError> {
    let before = Published::of(container);
    let (requested_before, requested) = (before.requests()?, after.requests()?);
    let runs = matches!(container.state().phase, Phase::Running { .. });
    if runs {
        republish(engine, container, (&requested_before, &requested)).await?;
    }
    container.republish(after.host, after.config.exposed_ports);
    // That ports are others from the next start on only the record says: without it nothing has changed.
    if let Err(source) = engine.recorder.write_now(container).await {
        container.republish(before.host, before.config.exposed_ports);
        if runs {
            // The error that is told is the first one.
            _ = republish(engine, container, (&requested, &requested_before)).await;
        }
        return Err(PortsError::Record(source));
    }
    Ok(())
}

/// Refuses containers whose ports are nobody's to publish.
fn check_mode(container: &Container) -> Result<(), PortsError> {
    let network = match Mode::of(&container.definition) {
        Mode::Host => "the host".to_owned(),
        Mode::Container(other) => format!("container {other}"),
        Mode::None if container.live().networks.is_none() => "none".to_owned(),
        Mode::None | Mode::Bridge | Mode::User(_) => return Ok(()),
    };
    Err(PortsError::NoNetwork { name: container.name(), network })
}

async fn republish(
    engine: &Engine,
    container: &Arc<Container>,
    (before, after): (&[network::PortRequest], &[network::PortRequest]),
) -> Result<(), PortsError> {
    let change = PortChange {
        container: container.id().to_string(),
        name: container.name(),
        before: before.to_vec(),
        after: after.to_vec(),
    };
    let task = engine.clone();
    let place = bridge::blocking(move || {
        let networks = task.networking.bridge().ok_or(PortsError::Container(ConnectError::NoBridge))?;
        network::republish(networks, &change).map_err(PortsError::Join)
    })
    .await;
    match place {
        Ok(place) => network_connect::keep(engine, container, place).await,
        Err(err) => {
            network_connect::leave_if_ended(engine, container).await;
            return Err(err);
        }
    }
    Ok(())
}
