//! Bodies of `POST /containers/{id}/ports`, which Docker does not have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host_config::PortBinding;
use crate::json::null_as_default;
use crate::update::{SentUpdate, UpdateRequest};

/// Where ports are published, in the shape of a host configuration's `PortBindings`: `80/tcp` and what leads there.
pub type Bindings = BTreeMap<String, Option<Vec<PortBinding>>>;

/// Which published ports a container is to have from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortsUpdate {
    /// Those that come.
    #[serde(deserialize_with = "null_as_default")]
    pub add: Bindings,
    /// Those that go: a binding without a port of the host means all of that port.
    #[serde(deserialize_with = "null_as_default")]
    pub remove: Bindings,
}

/// The body: the ports, and what else changes with them or not at all.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortsRequest {
    /// Which ports.
    #[serde(flatten)]
    pub ports: PortsUpdate,
    /// Limits and the restart policy, as in `POST /containers/{id}/update`.
    pub limits: Option<UpdateRequest>,
}

/// The body as our client sends it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SentPorts<'a> {
    /// Which ports.
    #[serde(flatten)]
    pub ports: &'a PortsUpdate,
    /// Limits and the restart policy, if they change, too.
    pub limits: Option<&'a SentUpdate>,
}
