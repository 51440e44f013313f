//! `POST /networks/create`

use engine_api::network::{NetworkCreate, NetworkCreated};
use errdefs::ErrorKind;

use super::networks;
use crate::Engine;
use crate::networking::ipam::{self, RequestError};

/// Why a network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetworkCreateError {
    /// The request is none.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It cannot be had.
    #[error(transparent)]
    Create(#[from] network::CreateError),
    /// The daemon was told to have no bridge.
    #[error("networks need the default bridge, which this daemon was told not to have")]
    NoBridge,
}

impl NetworkCreateError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            NetworkCreateError::Request(err) => err.kind(),
            NetworkCreateError::Create(err) => err.kind(),
            NetworkCreateError::NoBridge => ErrorKind::NotImplemented,
        }
    }
}

/// Makes a network.
pub async fn create(engine: &Engine, request: NetworkCreate) -> Result<NetworkCreated, NetworkCreateError> {
    let planned = ipam::plan(request)?;
    engine.networking.settled().await;
    let task = engine.clone();
    let work = async move {
        let engine = task.clone();
        let made = bridge::blocking(move || {
            let networks = engine.networking.bridge().ok_or(NetworkCreateError::NoBridge)?;
            Ok::<_, NetworkCreateError>(networks.create(planned)?)
        });
        let network = made.await?;
        let driver = network.driver.kind().to_string();
        networks::tell_network(&task, (&network.id, &network.name), &driver, "create");
        Ok(NetworkCreated { id: network.id.clone(), warning: String::new() })
    };
    engine.detached(work).await
}
