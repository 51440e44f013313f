//! Containers as scopes of systemd (`--systemd-cgroup`): what the commands do about it.

use cgroup::Version;
use cgroup::systemd::{Held, Manager, Place, Systemd};
use oci::runtime::Resources;
use oci_runtime::{default_device_rules, is_rootless};
use serde::{Deserialize, Serialize};

use crate::bundle::Plan;
use crate::commands::{Context, hierarchies};
use crate::error::CommandError;
use crate::rootless::Rootless;
use crate::state::Record;

/// A container's scope, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scope {
    /// Its name.
    pub(crate) unit: String,
    /// Whether it is one of a user's systemd, and not the machine's.
    pub(crate) user: bool,
}

/// A scope that is about to be made.
#[derive(Debug)]
pub(crate) struct Coming {
    systemd: Systemd,
    place: Place,
    /// What is to be recorded of it.
    pub(crate) scope: Scope,
    /// Whether it is there: before, what has its name is somebody else's.
    started: bool,
}

/// Finds the scope's place, which becomes the plan's, if systemd is asked for.
pub(crate) fn prepare(context: &Context<'_>, id: &str, plan: &mut Plan) -> Result<Option<Coming>, CommandError> {
    if !context.systemd {
        return Ok(None);
    }
    let user = match context.rootless {
        Rootless::On => true,
        Rootless::Off => false,
        Rootless::Auto => is_rootless(),
    };
    let mut place = Place::parse(&plan.cgroups_path, id, manager(user))?;
    let mut systemd = connect(user)?;
    place.path = systemd.root()?.join(place.path.strip_prefix("/").unwrap_or(&place.path));
    plan.spec.linux.cgroups_path = place.path.to_string_lossy().into_owned();
    // Whoever asks for a scope asks for a cgroup.
    plan.asks_for_cgroup = true;
    let scope = Scope { unit: place.unit.clone(), user };
    Ok(Some(Coming { systemd, place, scope, started: false }))
}

impl Coming {
    /// Makes the scope; something holds it until the container's process is inside.
    pub(crate) fn start(&mut self, record: &Record) -> Result<Held, CommandError> {
        let mut resources = record.spec.linux.resources.clone().unwrap_or_default();
        resources.devices.extend(default_device_rules());
        let held = self.systemd.start(&self.place, &resources, &record.spec.annotations)?;
        self.started = true;
        Ok(held)
    }

    /// Takes away what [`Coming::start`] has made of a container that failed.
    pub(crate) fn abandon(mut self) {
        if self.started {
            // The first error is the one to tell.
            let _ = self.systemd.stop(&self.scope.unit);
        }
    }
}

/// Tells systemd of changed limits, if the container is one of its scopes.
pub(crate) fn update(record: &Record, resources: &Resources) -> Result<(), CommandError> {
    let Some(scope) = &record.scope else { return Ok(()) };
    Ok(connect(scope.user)?.update(&scope.unit, resources)?)
}

/// Takes the scope away, if there is one.
pub(crate) fn stop(record: &Record) -> Result<(), CommandError> {
    let Some(scope) = &record.scope else { return Ok(()) };
    Ok(connect(scope.user)?.stop(&scope.unit)?)
}

fn manager(user: bool) -> Manager {
    if user { Manager::User } else { Manager::System }
}

fn connect(user: bool) -> Result<Systemd, CommandError> {
    let version = hierarchies()?.version();
    if user && version == Version::V1 {
        return Err(CommandError::SystemdUserVersion1);
    }
    Ok(Systemd::connect(manager(user), version)?)
}
