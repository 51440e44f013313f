//! A layer that is not placed yet: its directory, and the recipe of its tar.

use std::io::Read;

use content::Ingest;
use layer::{Applied, ApplyError};
use snapshot::Stage;

use crate::LoadError;
use crate::record::{StoredLayer, StoredRecipe};
use crate::store::Store;

/// Where a layer is to be unpacked.
#[derive(Debug)]
pub(crate) struct Staging {
    stage: Stage,
    recipe: Ingest,
}

/// A layer that was. Dropped, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) applied: Applied,
    pub(crate) stage: Stage,
    /// Whole; it rests.
    pub(crate) recipe: Ingest,
}

impl Staging {
    pub(crate) fn begin(store: &Store) -> Result<Staging, LoadError> {
        Ok(Staging { stage: store.snapshots.stage()?, recipe: store.content.begin()? })
    }

    /// Unpacks the layer; blocks until its last byte.
    pub(crate) fn fill(mut self, source: impl Read + Send, limit_bytes: u64) -> Result<Box<Unpacked>, ApplyError> {
        let applied = layer::apply_recorded(source, self.stage.path(), limit_bytes, &mut self.recipe)?;
        // An image has as many layers as it likes.
        self.recipe.rest();
        Ok(Box::new(Unpacked { applied, stage: self.stage, recipe: self.recipe }))
    }
}

impl Unpacked {
    /// A layer whose files are there: the directory that it was packed from. Blocks until its last byte.
    pub(crate) fn of(store: &Store, stage: Stage, source: impl Read + Send) -> Result<Box<Unpacked>, LoadError> {
        let mut recipe = store.content.begin()?;
        let applied = layer::record(source, stage.path(), &mut recipe)?;
        recipe.rest();
        Ok(Box::new(Unpacked { applied, stage, recipe }))
    }

    /// What is recorded of it.
    pub(crate) fn stored(&self) -> StoredLayer {
        let Applied { diff_id, content_bytes, implied, whiteouts, tar_bytes, .. } = self.applied.clone();
        let recipe = StoredRecipe { digest: self.recipe.digest(), bytes: self.recipe.size(), tar_bytes };
        StoredLayer {
            diff_id,
            size_bytes: content_bytes,
            implied,
            whiteouts,
            blob: None,
            recipe: Some(recipe),
            compressed: None,
        }
    }
}
