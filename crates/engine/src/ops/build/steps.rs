//! Images that are what steps of builds came to, and nothing to users: with BuildKit only results are images.
//!
//! ```text
//! <data-root>/build-steps/<id>    an empty file for each of them, called like the image, without the algorithm
//! ```
//! The mark alone says so, and no record of the image: whoever gives it a name sees it, and so does who builds it as a result;
//! without its mark, of a daemon that was killed in between, it is an untagged image like any other. Marked images go by a prune of
//! the build cache, and with the image that was built from them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use image::ImageRecord;
use oci::Digest;
use tracing::debug;

use crate::sync::lock;

/// Which images these are.
#[derive(Debug, Default)]
pub(crate) struct StepImages {
    place: PathBuf,
    marked: Mutex<HashSet<Digest>>,
}

impl StepImages {
    /// Reads which there are, and forgets those that are gone. Blocks shortly.
    pub(crate) fn open(data_root: &Path, images: &image::Store) -> StepImages {
        let place = data_root.join("build-steps");
        let mut marked = HashSet::new();
        // Without a directory there are none.
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            match id.filter(|id| images.get(id).is_some()) {
                Some(id) => drop(marked.insert(id)),
                None => log(fs::remove_file(entry.path())),
            }
        }
        StepImages { place, marked: Mutex::new(marked) }
    }

    /// Whether it is nothing to users. What has a name, or is beside an image that has, is.
    pub(crate) fn has(&self, image: &ImageRecord) -> bool {
        image.references.is_empty() && image.platform_of.is_empty() && lock(&self.marked).contains(&image.id)
    }

    /// Notes that it is one. Blocks shortly.
    pub(super) fn mark(&self, image: &Digest) {
        let mut marked = lock(&self.marked);
        if marked.insert(image.clone()) {
            let path = self.place.join(image.hex());
            log(fs::create_dir_all(&self.place).and_then(|()| fs::write(path, "")));
        }
    }

    /// Notes that it is none any more: it is a result, or gone. Blocks shortly.
    pub(crate) fn unmark(&self, image: &Digest) {
        let mut marked = lock(&self.marked);
        if marked.remove(image) {
            log(fs::remove_file(self.place.join(image.hex())));
        }
    }
}

/// With a mark too little an image is listed, with one too much nothing is that has gone.
fn log(done: io::Result<()>) {
    if let Err(err) = done {
        debug!(%err, "which images are steps of builds is not noted");
    }
}
