//! Work that is long and done by one at a time: measuring, shared by all who ask at once; and pruning, refused to the second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Instant;

use engine_api::container;
use engine_api::volume::Volume;
use tokio::sync::OnceCell;

use crate::sync::lock;

/// Who is at it.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Images are being pruned.
    pub(crate) images: AtomicBool,
    /// The budget for images is looked at. Pruning is another matter: a user's is not refused for it.
    pub(crate) budget: tokio::sync::Mutex<()>,
    /// The build cache is looked at, and was last.
    pub(crate) build_cache: tokio::sync::Mutex<Option<Instant>>,
    /// Builds, which write as much as a removal does.
    pub(crate) builds: Arc<Busy>,
    /// A container is gone whose layers may have been no image's.
    pub(crate) layers_left: AtomicBool,
    /// Bytes of layers that are no image's, and of partial blobs.
    pub(crate) layers: Shared<u64>,
    /// Containers and their sizes.
    pub(crate) containers: Shared<Vec<container::Summary>>,
    /// Volumes and their sizes.
    pub(crate) volumes: Shared<Vec<Volume>>,
}

/// A turn that one has at a time, until it is dropped.
pub(crate) struct Turn<'a>(&'a AtomicBool);

impl Turn<'_> {
    /// Takes it; `None` while somebody has it.
    pub(crate) fn take(taken: &AtomicBool) -> Option<Turn<'_>> {
        (!taken.swap(true, Ordering::Acquire)).then_some(Turn(taken))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Work that goes before what can wait.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    count: Mutex<usize>,
    over: Condvar,
}

/// Some of that work, until it is dropped.
pub(crate) struct Work(Arc<Busy>);

impl Busy {
    pub(crate) fn begin(self: &Arc<Busy>) -> Work {
        *lock(&self.count) += 1;
        Work(self.clone())
    }

    /// Blocks until nothing of it is left, or that moment comes.
    pub(crate) fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.over.wait_timeout_while(lock(&self.count), left, |count| *count > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        *lock(&self.0.count) -= 1;
        self.0.over.notify_all();
    }
}

/// A value that takes long to find out. Whoever asks while somebody is at it gets that one's.
#[derive(Debug)]
pub(crate) struct Shared<T>(Mutex<Weak<OnceCell<T>>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared(Mutex::default())
    }
}

impl<T: Clone> Shared<T> {
    /// What `compute` finds out, or somebody else's that is under way. Where that one leaves, the next begins anew; where
    /// all leave, nobody goes on.
    pub(crate) async fn get<E>(&self, compute: impl AsyncFnOnce() -> Result<T, E>) -> Result<T, E> {
        let cell = {
            let mut current = lock(&self.0);
            current.upgrade().unwrap_or_else(|| {
                let cell = Arc::new(OnceCell::new());
                *current = Arc::downgrade(&cell);
                cell
            })
        };
        let value = cell.get_or_try_init(|| compute()).await.cloned();
        // Whoever asks from now on wants to know anew.
        let mut current = lock(&self.0);
        if current.upgrade().is_some_and(|shared| Arc::ptr_eq(&shared, &cell)) {
            *current = Weak::new();
        }
        value
    }
}

/// Runs `work` on a thread that may block; what it is given becomes true when nobody waits for it any more.
pub(crate) async fn unless_left<T: Send + 'static>(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> T {
    struct Leave(Arc<AtomicBool>);
    impl Drop for Leave {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let leave = Leave(Arc::default());
    let stop = leave.0.clone();
    bridge::blocking(move || work(&stop)).await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn who_asks_meanwhile_gets_the_same_and_who_asks_later_anew() {
        let shared = Shared::default();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let first = shared.get(async || {
            gone.await.unwrap();
            Ok::<_, Infallible>(1)
        });
        let second = shared.get(async || Ok::<_, Infallible>(2));
        let release = async { go.send(()).unwrap() };
        let (first, second, ()) = tokio::join!(biased; first, second, release);
        assert_eq!((first, second), (Ok(1), Ok(1)));
        assert_eq!(shared.get(async || Ok::<_, Infallible>(3)).await, Ok(3));
    }

    #[tokio::test]
    async fn the_next_one_takes_over_from_one_that_leaves() {
        let shared = Shared::default();
        let never = shared.get(async || std::future::pending::<Result<i32, Infallible>>().await);
        let waiting = shared.get(async || Ok::<_, Infallible>(2));
        tokio::pin!(waiting);
        {
            tokio::pin!(never);
            tokio::select! {
                biased;
                _ = &mut never => unreachable!(),
                _ = &mut waiting => unreachable!(),
                () = std::future::ready(()) => {}
            }
        }
        assert_eq!(waiting.await, Ok(2));
    }

    #[test]
    fn a_turn_is_given_back() {
        let taken = AtomicBool::default();
        let turn = Turn::take(&taken);
        assert!(turn.is_some() && Turn::take(&taken).is_none());
        drop(turn);
        assert!(Turn::take(&taken).is_some());
    }
}
