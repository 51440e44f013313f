//! What a daemon gives back when nobody asks it for anything.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// After so long without a client that comes or goes the memory of the last work is given back; not in between, when the
/// next client needs it again.
const QUIET: Duration = Duration::from_secs(1);

/// Gives memory back each time that `connections`, the number of clients, has not changed for a while; a task. Waits for
/// the next client after that: an idle daemon does not wake.
pub(crate) async fn rest(mut connections: watch::Receiver<usize>) {
    loop {
        while let Ok(changed) = timeout(QUIET, connections.changed()).await {
            if changed.is_err() {
                return;
            }
        }
        engine::give_memory_back().await;
        if connections.changed().await.is_err() {
            return;
        }
    }
}
