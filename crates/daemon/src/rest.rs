//! What a daemon gives back when nobody asks it for anything.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// After so long without a client or a request that comes or goes the memory of the last work is given back; not in between,
/// when the next request needs it again.
const QUIET: Duration = Duration::from_secs(1);

/// Gives memory back each time that `activity` has not changed for a while; a task. Waits for the next change after that: an
/// idle daemon does not wake.
///
/// What counts is the last begin or end. A request that goes on (events, `logs -f`, a client that waits) may do so for ever,
/// and must not keep the daemon from resting; one that works for longer finds its pages again as it needs them, once.
pub(crate) async fn rest(activity: watch::Receiver<()>) {
    after_each_quiet(activity, engine::give_memory_back).await;
}

async fn after_each_quiet<F: Future<Output = ()>>(mut activity: watch::Receiver<()>, act: impl Fn() -> F) {
    loop {
        while let Ok(changed) = timeout(QUIET, activity.changed()).await {
            if changed.is_err() {
                return;
            }
        }
        act().await;
        if activity.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{pause, sleep};

    use super::*;

    #[tokio::test]
    async fn each_quiet_after_activity_counts_once() {
        // Time passes where nobody has anything else to do.
        pause();
        let (activity, watched) = watch::channel(());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let act = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        };
        let task = tokio::spawn(after_each_quiet(watched, act));
        let after = async |time| {
            sleep(time).await;
            count.load(Ordering::Relaxed)
        };
        let (short, long) = (QUIET * 3 / 4, QUIET * 5 / 4);
        assert_eq!(after(long).await, 1, "after the start");
        assert_eq!(after(long * 100).await, 1, "once");
        for _ in 0..3 {
            activity.send_replace(());
            assert_eq!(after(short).await, 1, "something comes before the second is over");
        }
        assert_eq!(after(long).await, 2);
        activity.send_replace(());
        assert_eq!(after(long).await, 3, "and again");
        drop(activity);
        task.await.unwrap();
    }
}
