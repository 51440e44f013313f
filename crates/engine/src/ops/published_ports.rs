//! `POST /containers/{id}/ports`, which Docker does not have: ports of a container are published, or no longer, while it runs.

use std::sync::Arc;

use container_spec::port_change::{PortChangeError, PortsOf, change_ports};
use container_spec::ports::publications;
use engine_api::container::Config;
use engine_api::host_config::HostConfig;
use engine_api::published_ports::PortsUpdate;
use errdefs::ErrorKind;
use network::PortChange;

use super::network_connect;
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
            PortsError::Join(err) => err.kind(),
            PortsError::Container(err) => err.kind(),
            PortsError::Record(_) => ErrorKind::Internal,
        }
    }
}

/// Publishes ports of a container and gives others up; all of it or nothing.
pub async fn update(engine: &Engine, name: &str, update: PortsUpdate) -> Result<(), PortsError> {
    let container = engine.containers.find(name)?;
    let engine = engine.clone();
    engine.clone().detached(async move { change(&engine, &container, update).await }).await
}

async fn change(engine: &Engine, container: &Arc<Container>, update: PortsUpdate) -> Result<(), PortsError> {
    // A start finds either all of it or nothing.
    let _operation = container.operate().await?;
    let phase = container.state().phase;
    if phase == Phase::Removing || container.is_removed() {
        return Err(PortsError::Removing(container.name()));
    }
    check_mode(container)?;
    let (config, host) = (container.config().into_owned(), container.host_config().into_owned());
    let PortsOf { exposed, bindings } = change_ports(&config, &host, update)?;
    let after_config = Config { exposed_ports: Some(exposed), ..config.clone() };
    let after_host = HostConfig { port_bindings: Some(bindings), ..host.clone() };
    let requests = |config: &Config, host: &HostConfig| {
        let wanted = publications(config, host).map_err(PortChangeError::Invalid)?;
        Ok::<_, PortsError>(wanted.into_iter().map(networking::port_request).collect::<Vec<_>>())
    };
    let (before, after) = (requests(&config, &host)?, requests(&after_config, &after_host)?);
    let runs = matches!(phase, Phase::Running { .. });
    if runs {
        republish(engine, container, (&before, &after)).await?;
    }
    container.republish(after_host, after_config.exposed_ports);
    // That ports are others from the next start on only the record says: without it nothing has changed.
    if let Err(source) = engine.recorder.write_now(container).await {
        container.republish(host, config.exposed_ports);
        if runs {
            // The error that is told is the first one.
            _ = republish(engine, container, (&after, &before)).await;
        }
        return Err(PortsError::Record(source));
    }
    engine.events.container(container, "update", []);
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
