//! What a build came to, with the times of another moment (`SOURCE_DATE_EPOCH`).

use std::sync::Arc;

use oci::{Digest, Reference};

use super::lines::Lines;
use super::{BuildError, Reproduce, Solved, solve};
use crate::Engine;

/// Makes the image of a build again, and gives that one its names; answers its id.
pub(super) async fn reproduce(
    engine: Engine,
    lines: Arc<Lines>,
    built: Solved,
    names: Vec<Reference>,
    wanted: Reproduce,
) -> Result<Solved, BuildError> {
    let Solved { image, held } = built;
    let id: Digest = engine.images.resolve(&image)?.id.clone();
    let task = engine.clone();
    let made = bridge::blocking(move || image::clamp(&task.images, &id, wanted.secs, wanted.files)).await?;
    if let Some(held) = &held {
        held.add(&engine, &made.id).await;
    }
    let image = made.id.to_string();
    lines.text(format!(" ---> Times no later than {}: {}\n", wanted.secs, solve::short(Some(&made.id)))).await;
    lines.image(&image).await;
    solve::tag(&engine, &lines, &image, names).await?;
    Ok(Solved { image, held })
}
