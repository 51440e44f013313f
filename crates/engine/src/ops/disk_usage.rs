//! `GET /system/df`

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;

use engine_api::container;
use engine_api::disk_usage::{DiskUsage, UsageParts};
use engine_api::image::Summary;
use engine_api::volume::{UsageData, Volume};
use errdefs::ErrorKind;
use image::{Beside, LayerUsage};
use oci::Digest;
use tracing::debug;

use crate::Engine;
use crate::container::Container;
use crate::ops::create::snapshot_key;
use crate::ops::images::{self, ImageError, ImageQuery};
use crate::ops::list::{self, ListError, ListQuery};
use crate::ops::volumes;
use crate::upkeep::unless_left;

/// Why disk usage is not known.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Containers cannot be listed.
    #[error("failed to retrieve container list")]
    Containers(#[from] ListError),
    /// Images cannot be listed.
    #[error("failed to retrieve image list")]
    Images(#[from] ImageError),
    /// Layers that only containers have cannot be measured.
    #[error("measure the layers of containers")]
    Layers(#[source] snapshot::SnapshotError),
    /// What cut pulls have left cannot be measured.
    #[error("measure what cut pulls have left")]
    Partials(#[source] content::IngestError),
    /// What is kept beside the layers cannot be measured.
    #[error("measure what is kept beside layers")]
    Blobs(#[source] content::ReadError),
}

impl UsageError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Measures what is asked for: containers and volumes on the disk, images from their records. Who asks while somebody else
/// does is told the same.
pub async fn disk_usage(engine: &Engine, parts: UsageParts) -> Result<DiskUsage, UsageError> {
    let (images, containers, volumes) = tokio::try_join!(
        async { if parts.images { images_and_layers(engine).await.map(Some) } else { Ok(None) } },
        async { if parts.containers { all_containers(engine).await.map(Some) } else { Ok(None) } },
        async { if parts.volumes { Ok(Some(all_volumes(engine).await)) } else { Ok(None) } },
    )?;
    let (images, layers_size) = images.map_or((None, 0), |(images, bytes)| (Some(images), bytes));
    let build_cache = match parts.build_cache {
        true => Some(super::build_cache::list(engine).await),
        false => None,
    };
    Ok(DiskUsage { layers_size, images, containers, volumes, build_cache })
}

async fn images_and_layers(engine: &Engine) -> Result<(Vec<Summary>, i64), UsageError> {
    let usage = engine.images.layer_usage();
    let query = ImageQuery { shared_size: true, ..ImageQuery::default() };
    let mut images = images::list(engine, query).await?;
    let task = engine.clone();
    let beside = bridge::blocking(move || image::beside_layers(&task.images)).await.map_err(UsageError::Blobs)?;
    images.iter_mut().for_each(|image| count_beside(image, &beside));
    let other = engine.upkeep.layers.get(async || {
        let (task, known) = (engine.clone(), usage.clone());
        unless_left(move |stop| other_bytes(&task, &known, stop)).await
    });
    let steps = super::build_cache::bytes_of_steps(engine, &usage);
    let all = usage.total_bytes().saturating_sub(steps).saturating_add(other.await?);
    Ok((images, i64::try_from(all).unwrap_or(i64::MAX)))
}

/// Clients take what a prune would free for the total without what images in use have for themselves. To that belongs what
/// is kept beside their layers, as with dockerd's containerd store.
fn count_beside(image: &mut Summary, beside: &HashMap<Digest, Beside>) {
    let Some(beside) = image.id.parse().ok().and_then(|id: Digest| beside.get(&id)) else { return };
    let add = |to: &mut i64, bytes: u64| *to = to.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    add(&mut image.size, beside.bytes);
    add(&mut image.shared_size, beside.shared_bytes);
}

/// Bytes of layers that belong to no image but to containers whose image was removed, of what cut pulls have brought, and of
/// what is kept beside the layers: configurations, manifests, compressed layers, and the recipes that give their tars back.
fn other_bytes(engine: &Engine, known: &LayerUsage, stop: &AtomicBool) -> Result<u64, UsageError> {
    let content = engine.images.content();
    let partials = content.partial_sizes().map_err(UsageError::Partials)?;
    let mut bytes: u64 = partials.iter().map(|(_, bytes)| bytes).sum();
    bytes = bytes.saturating_add(image::cut_bytes(&engine.images));
    bytes = bytes.saturating_add(image::blob_bytes(&engine.images).map_err(UsageError::Blobs)?);
    let imageless = |container: &Container| {
        let id = container.definition.image_id.parse();
        !id.is_ok_and(|id| engine.images.get(&id).is_some())
    };
    let snapshots = engine.images.snapshots();
    let mut seen = HashSet::new();
    for container in engine.containers.all().iter().filter(|container| imageless(container)) {
        // One that is being removed has none.
        let chain = snapshots.chain(&snapshot_key(container.id())).unwrap_or_default();
        for chain_id in chain {
            if known.bytes(&chain_id).is_none() && seen.insert(chain_id.clone()) {
                let usage = snapshots.layer_usage_unless(&chain_id, stop).map_err(UsageError::Layers)?;
                bytes = bytes.saturating_add(usage.bytes);
            }
        }
    }
    Ok(bytes)
}

async fn all_containers(engine: &Engine) -> Result<Vec<container::Summary>, UsageError> {
    let containers = engine.upkeep.containers.get(async || {
        let mut containers = Vec::new();
        let query = ListQuery { all: true, size: true, ..ListQuery::default() };
        list::list(engine, query, |summary| containers.push(summary)).await?;
        Ok::<_, ListError>(containers)
    });
    Ok(containers.await?)
}

/// Those that are mounts of something else take nothing of the engine's disk.
async fn all_volumes(engine: &Engine) -> Vec<Volume> {
    let measured = engine.upkeep.volumes.get(async || {
        let task = engine.clone();
        Ok::<_, std::convert::Infallible>(unless_left(move |stop| measure_volumes(&task, stop)).await)
    });
    let Ok(volumes) = measured.await;
    volumes
}

fn measure_volumes(engine: &Engine, stop: &AtomicBool) -> Vec<Volume> {
    let listed = engine.volumes.list().into_iter();
    let measured = listed.map(|listed| {
        let usage = volume::usage_unless(&engine.volumes, listed.volume.name.as_str(), stop);
        let size = usage.map(|usage| i64::try_from(usage.bytes).unwrap_or(i64::MAX)).unwrap_or_else(|err| {
            debug!(err = errdefs::chain(&err), "a volume was not measured");
            -1
        });
        let ref_count = i64::try_from(listed.users.len()).unwrap_or(i64::MAX);
        Volume { usage_data: Some(UsageData { ref_count, size }), ..volumes::wire(&listed.volume) }
    });
    measured.collect()
}
