//! `/volumes`

use std::collections::BTreeMap;
use std::sync::Arc;

use engine_api::volume::{Volume as WireVolume, VolumeCreate, VolumeList, VolumesPruned};
use errdefs::ErrorKind;
use tracing::warn;
use volume::{Volume, Wanted};

use crate::Engine;
use crate::filters::{FilterError, Filters};
use crate::volumes::tell_destroyed;

/// Why an operation on volumes failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// It cannot be made.
    #[error(transparent)]
    Create(#[from] volume::CreateError),
    /// Volumes of a cluster are asked for.
    #[error("volumes of a cluster are not supported yet")]
    Cluster,
    /// There is none of that name.
    #[error(transparent)]
    NotFound(#[from] volume::NotFound),
    /// It cannot be removed.
    #[error(transparent)]
    Remove(#[from] volume::RemoveError),
    /// The filters are wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

impl VolumeError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            VolumeError::Create(err) => err.kind(),
            VolumeError::Cluster => ErrorKind::NotImplemented,
            VolumeError::NotFound(err) => err.kind(),
            VolumeError::Remove(err) => err.kind(),
            VolumeError::Filter(err) => err.kind(),
        }
    }
}

/// Makes a volume, unless there is one of that name.
pub async fn create(engine: &Engine, request: VolumeCreate) -> Result<WireVolume, VolumeError> {
    if request.cluster_volume_spec.is_some() {
        return Err(VolumeError::Cluster);
    }
    let VolumeCreate { name, driver, driver_opts: options, labels, .. } = request;
    let wanted = Wanted { name, driver, labels, options, ..Wanted::default() };
    let engine = engine.clone();
    let made = bridge::blocking(move || {
        let created = engine.volumes.create(&wanted, None)?;
        if created.new {
            engine.events.volume(created.volume.name.as_str(), "create", []);
        }
        Ok::<_, volume::CreateError>(created.volume)
    });
    Ok(wire(&*made.await?))
}

/// All that is known of a volume.
pub fn inspect(engine: &Engine, name: &str) -> Result<WireVolume, VolumeError> {
    Ok(wire(&engine.volumes.get(name)?.volume))
}

/// The volumes that `filters` let through, by name.
pub fn list(engine: &Engine, filters: &Filters) -> Result<VolumeList, VolumeError> {
    filters.check(&["dangling", "driver", "label", "name"])?;
    let dangling = filters.boolean("dangling")?;
    let listed = engine.volumes.list();
    let wanted = listed.into_iter().filter(|listed| {
        dangling.is_none_or(|dangling| dangling == listed.users.is_empty())
            && filters.exact("driver", volume::DRIVER)
            && filters.pattern("name", listed.volume.name.as_str())
            && filters.labels("label", labels(&listed.volume))
    });
    Ok(VolumeList { volumes: wanted.map(|listed| wire(&listed.volume)).collect(), warnings: None })
}

/// Removes a volume that no container has. With `force` one that is not there is removed, too.
pub async fn remove(engine: &Engine, name: &str, force: bool) -> Result<(), VolumeError> {
    let (engine, name) = (engine.clone(), name.to_owned());
    let removed = bridge::blocking(move || {
        let volume = engine.volumes.remove(&name)?;
        tell_destroyed(&engine, &volume);
        engine.sweep_soon();
        Ok(())
    });
    match removed.await {
        Err(volume::RemoveError::NotFound(_)) if force => Ok(()),
        other => Ok(other?),
    }
}

/// Removes the volumes that no container has and that `filters` let through: without `all`, only those that nobody named.
pub async fn prune(engine: &Engine, filters: Filters) -> Result<VolumesPruned, VolumeError> {
    filters.check(&["all", "label", "label!"])?;
    let all = asks_for_all(&filters)?;
    let engine = engine.clone();
    let pruned = bridge::blocking(move || {
        let pruned = engine
            .volumes
            .prune(|volume| (all || labels(volume).contains_key(volume::ANONYMOUS_LABEL)) && wanted(volume, &filters));
        for volume in &pruned.removed {
            tell_destroyed(&engine, volume);
        }
        for err in &pruned.failed {
            warn!(err = errdefs::chain(err), "a volume stays behind");
        }
        engine.events.volumes_pruned(pruned.reclaimed_bytes);
        engine.sweep_soon();
        pruned
    });
    let pruned = pruned.await;
    let name = |volume: &Arc<Volume>| volume.name.to_string();
    Ok(VolumesPruned {
        volumes_deleted: pruned.removed.iter().map(name).collect(),
        space_reclaimed: pruned.reclaimed_bytes,
    })
}

fn wanted(volume: &Volume, filters: &Filters) -> bool {
    filters.labels("label", labels(volume)) && !(filters.has("label!") && filters.labels("label!", labels(volume)))
}

/// The filter `all`, which dockerd reads as Go reads truth.
fn asks_for_all(filters: &Filters) -> Result<bool, FilterError> {
    let given: Vec<&str> = filters.get("all").collect();
    match given[..] {
        [] => Ok(false),
        ["1" | "t" | "T" | "true" | "TRUE" | "True"] => Ok(true),
        ["0" | "f" | "F" | "false" | "FALSE" | "False"] => Ok(false),
        [value] => Err(FilterError::All(value.to_owned())),
        _ => Err(FilterError::ManyAll(given.join(" "))),
    }
}

fn labels(volume: &Volume) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    volume.labels.as_ref().unwrap_or(&NONE)
}

pub(crate) fn wire(volume: &Volume) -> WireVolume {
    WireVolume {
        created_at: volume.created.clone(),
        driver: volume::DRIVER.to_owned(),
        labels: volume.labels.clone(),
        mountpoint: volume.mountpoint.to_string_lossy().into_owned(),
        name: volume.name.to_string(),
        options: volume.options.clone(),
        scope: "local".to_owned(),
        usage_data: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_read_as_go_reads_truth() {
        let asks = |values: &[&str]| {
            let values = values.iter().map(|value| value.to_string()).collect();
            asks_for_all(&Filters([("all".to_owned(), values)].into())).map_err(|err| err.to_string())
        };
        assert_eq!(asks(&[]), Ok(false));
        assert_eq!(asks(&["T"]), Ok(true));
        assert_eq!(asks(&["0"]), Ok(false));
        let syntax = "invalid filter 'all': strconv.ParseBool: parsing \"zz\": invalid syntax";
        assert_eq!(asks(&["zz"]), Err(syntax.to_owned()));
        assert_eq!(asks(&["0", "1"]), Err("invalid filter 'all=[0 1]': only one value is expected".to_owned()));
    }
}
