//! What a tag becomes in a registry: the very index through which it came, or one of its images. An index of other digests
//! is made of nothing that came through one: nobody has signed it, and nobody who pulled the name would know it.

use std::sync::Arc;

use image::{CameBy, ImageRecord, PushAttestation};
use oci::Reference;
use oci::image::Descriptor;
use registry_client::Session;

use super::PushError;
use crate::{Engine, platforms};

/// How many documents a registry is asked for that are not here. An index of 4 MiB names more than 20,000; those of real
/// images name two for each of some ten platforms.
const ASKED_MAX: usize = 128;

/// What is pushed under a tag.
#[derive(Debug)]
pub(super) struct Goods {
    pub(super) images: Vec<Arc<ImageRecord>>,
    pub(super) what: What,
}

/// And what of it the tag means then.
#[derive(Debug)]
pub(super) enum What {
    /// The index that it means here.
    Index { came: CameBy, attestations: Vec<PushAttestation> },
    /// An index that is to be made of the images.
    NewIndex,
    /// The only image; in the place of an index of which not all is here, nor there.
    Image { instead_of: Option<Descriptor> },
}

/// Chooses as dockerd with containerd's store does (moby daemon/containerd/image_push.go, `getPushDescriptor`).
pub(super) async fn choose(
    engine: &Engine,
    session: &Session,
    name: &Reference,
    images: Vec<Arc<ImageRecord>>,
    is_one_wanted: bool,
) -> Result<Goods, PushError> {
    if is_one_wanted {
        return Ok(Goods { images, what: What::Image { instead_of: None } });
    }
    // Read before anything is sent: what the name means may be replaced meanwhile.
    let (task, of, all) = (engine.clone(), name.clone(), images.clone());
    let read = move || {
        let Some(came) = image::came_by(&task.images, &all[0], &of)? else { return Ok(None) };
        let mut attestations = Vec::new();
        for image in &all {
            attestations.extend(image::push_attestations(&task.images, image, &came.descriptor.digest)?);
        }
        Ok::<_, PushError>(Some((came, attestations)))
    };
    let Some((came, attestations)) = bridge::blocking(read).await? else {
        let what = if images.len() > 1 { What::NewIndex } else { What::Image { instead_of: None } };
        return Ok(Goods { images, what });
    };
    if is_there(session, &came.missing(&images, &attestations)).await? {
        return Ok(Goods { images, what: What::Index { came, attestations } });
    }
    let image = only(images)?;
    Ok(Goods { images: vec![image], what: What::Image { instead_of: Some(came.descriptor) } })
}

/// Whether the repository has all of these: a tag that is pushed to where it was pulled from needs nothing else.
async fn is_there(session: &Session, missing: &[&Descriptor]) -> Result<bool, PushError> {
    if missing.len() > ASKED_MAX {
        return Ok(false);
    }
    for entry in missing {
        if !registry_client::has_manifest(session, &entry.digest).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The image that goes in the place of an index: the only one, or else the one for this machine.
fn only(images: Vec<Arc<ImageRecord>>) -> Result<Arc<ImageRecord>, PushError> {
    let machine = platforms::of_machine();
    let for_us = |image: &&Arc<ImageRecord>| platforms::runs(&machine, &image.config.platform);
    match &images[..] {
        [only] => Ok(only.clone()),
        several => several.iter().find(for_us).cloned().ok_or(PushError::Several),
    }
}
