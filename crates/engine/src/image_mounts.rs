//! Images that containers mount: their layers, read-only, without anything of the container's own above them.

use std::path::Path;

use container_spec::{Point, Ready};
use oci::runtime::Mount;
use snapshot::{ChainId, SnapshotError};

use crate::Engine;

/// Puts the layers of the images that a request names into its mounts; those of other containers have theirs.
pub(crate) fn resolve(engine: &Engine, mounts: &mut [(Point, Ready)]) -> Result<(), image::ResolveError> {
    for (point, _) in mounts.iter_mut().filter(|(_, ready)| *ready == Ready::Image) {
        let image = engine.images.resolve(&point.shown.name)?;
        point.layers = image.chain.iter().map(|ChainId(digest)| digest.clone()).collect();
    }
    Ok(())
}

/// The layers that stay as long as a container with these mounts is there.
pub(crate) fn layers(points: &[Point]) -> Vec<ChainId> {
    points.iter().flat_map(chain).collect()
}

/// How an image is mounted. Blocks.
pub(crate) fn stack(engine: &Engine, point: &Point) -> Result<Mount, SnapshotError> {
    let chain: Vec<ChainId> = chain(point).collect();
    let mounts = snapshot::view_part(engine.images.snapshots(), &chain, Path::new(&point.subpath))?;
    Ok(mounts.into_iter().next().expect("a view is one mount"))
}

fn chain(point: &Point) -> impl Iterator<Item = ChainId> {
    point.layers.iter().cloned().map(ChainId)
}
