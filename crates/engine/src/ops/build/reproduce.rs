//! What a build came to, with the times of another moment (`SOURCE_DATE_EPOCH`).

use std::sync::Arc;

use oci::{Digest, Reference};

use super::lines::Lines;
use super::{BuildError, Built, Reproduce};
use crate::Engine;
use crate::ops::images;

/// Digits of an id that are told.
const SHORT: usize = 12;

/// Makes the image of a build again, and gives that one its names; answers its id.
pub(super) async fn reproduce(
    engine: Engine,
    lines: Arc<Lines>,
    built: Built,
    names: Vec<Reference>,
    wanted: Reproduce,
) -> Result<Built, BuildError> {
    let Built { image, held } = built;
    let id: Digest = engine.images.resolve(&image)?.id.clone();
    let task = engine.clone();
    let made = bridge::blocking(move || image::clamp(&task.images, &id, wanted.secs, wanted.files)).await?;
    if let Some(held) = &held {
        held.add(&engine, &made.id).await;
    }
    let image = made.id.to_string();
    lines.text(format!(" ---> Times no later than {}: {}\n", wanted.secs, &made.id.hex()[..SHORT])).await;
    lines.image(&image).await;
    for name in names {
        let (repository, tag) = (name.familiar_name(), name.tag().unwrap_or_default().to_owned());
        images::tag(&engine, &image, &repository, &tag).await.map_err(BuildError::Tag)?;
        lines.text(format!("Successfully tagged {}\n", name.familiar())).await;
    }
    Ok(Built { image, held })
}
