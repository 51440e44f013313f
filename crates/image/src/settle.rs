//! What need not survive a power cut before something else does.
//!
//! The steps of a build make images that only the build's own result and the next build need. To have each of them on disk before the
//! next one begins costs a flush of the whole file system per step, and several where others write, too. So they are recorded
//! with the boot during which they were written: a daemon that dies finds them again, a machine that crashes has none of
//! them. Once their build has come to its end, or gets a name, or anything else is recorded that has to last, one flush is
//! enough for all, and they are like every other image from then on ([`settle`]).
//!
//! ```text
//! step     rename layers and blobs    commit: images, layers, "written during boot B"
//! end      syncfs                     commit: nothing was "written during boot B" any more
//! start    rows of another boot than this one go, with their images and layers
//! ```

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::metadata::{Change, Metadata, Rows, Unsettled};
use crate::store::Store;

/// Whether something must survive a power cut as soon as it is recorded, or only once it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// It is on disk then.
    Now,
    /// With whatever is settled next.
    Later,
}

/// Why something was not settled.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The disk does not take it.
    #[error("sync the image store")]
    Sync {
        /// Why.
        source: io::Error,
    },
    /// The database does not take it.
    #[error("record that images are on disk")]
    Record {
        /// Why.
        source: redb::Error,
    },
}

/// What is not settled.
#[derive(Debug, Default)]
pub(crate) struct Unsettling(Mutex<BTreeSet<Unsettled>>);

impl Unsettling {
    pub(crate) fn of(rows: &Rows) -> Unsettling {
        Unsettling(Mutex::new(rows.unsettled.iter().map(|(what, _)| what.clone()).collect()))
    }

    /// All of it at this moment. What is on disk after it was asked for may be [`Unsettling::forget`]ten.
    pub(crate) fn all(&self) -> BTreeSet<Unsettled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// More of it, before anybody sees it.
    pub(crate) fn add(&self, more: impl IntoIterator<Item = Unsettled>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(more);
    }

    pub(crate) fn forget(&self, settled: &BTreeSet<Unsettled>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|what| !settled.contains(what));
    }
}

/// The change that settles something.
pub(crate) fn settled(all: &BTreeSet<Unsettled>) -> Vec<(Unsettled, Option<String>)> {
    all.iter().map(|what| (what.clone(), None)).collect()
}

/// Takes what another boot has not settled out of the rows and out of the database.
pub(crate) fn forget_other_boots(rows: &mut Rows, metadata: &mut Metadata) -> Result<(), redb::Error> {
    if rows.unsettled.is_empty() {
        return Ok(());
    }
    let boot = stdx::boot::id().unwrap_or_default();
    let (ours, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut rows.unsettled).into_iter().partition(|row| row.1 == boot);
    rows.unsettled = ours;
    let mut change = Change::default();
    for (what, _) in others {
        match &what {
            Unsettled::Image(id) if rows.images.remove(id).is_some() => change.images.push((id.clone(), None)),
            Unsettled::Layer(chain) if rows.layers.remove(chain).is_some() => change.layers.push((chain.clone(), None)),
            _ => {}
        }
        change.unsettled.push((what, None));
    }
    if change.unsettled.is_empty() { Ok(()) } else { metadata.commit(&change) }
}

/// Has everything that was recorded until now survive a power cut. Blocks: not at all if all of it does already, else until
/// the file system is on disk.
pub fn settle(store: &Store) -> Result<(), SettleError> {
    let all = store.unsettling.all();
    if all.is_empty() {
        return Ok(());
    }
    store.snapshots().sync().map_err(|source| SettleError::Sync { source })?;
    let change = Change { unsettled: settled(&all), ..Change::default() };
    store.writer().commit(&change).map_err(|source| SettleError::Record { source })?;
    store.unsettling.forget(&all);
    Ok(())
}
