//! `POST /containers/{id}/wait`

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use engine_api::container::{WaitError as WireError, WaitResponse};
use errdefs::ErrorKind;
use tokio::sync::watch;

use crate::Engine;
use crate::container::state::Phase;
use crate::container::{Container, Ending};
use crate::registry::LookupError;

/// What is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// That it does not run: at once if it does not.
    #[default]
    NotRunning,
    /// Its next end.
    NextExit,
    /// Its removal.
    Removed,
}

/// Why [`wait`] failed. The texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// There is no such condition.
    #[error("invalid condition: {0:?}")]
    Condition(String),
}

impl WaitError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            WaitError::Lookup(err) => err.kind(),
            WaitError::Condition(_) => ErrorKind::InvalidArgument,
        }
    }
}

impl FromStr for Condition {
    type Err = WaitError;

    /// Reads the `condition` of the query; empty is the default.
    fn from_str(text: &str) -> Result<Condition, WaitError> {
        match text {
            "" | "not-running" => Ok(Condition::NotRunning),
            "next-exit" => Ok(Condition::NextExit),
            "removed" => Ok(Condition::Removed),
            other => Err(WaitError::Condition(other.to_owned())),
        }
    }
}

/// A registered wait: what happens after it was made is not missed.
pub struct Waiting {
    ends: watch::Receiver<Ending>,
    seen: u64,
    condition: Condition,
    /// The answer, where there is nothing to wait for.
    already: Option<WaitResponse>,
}

impl Waiting {
    /// A wait for what has happened.
    fn over(exit_code: i32) -> Waiting {
        let ends = watch::channel(Ending::default()).1;
        Waiting { ends, seen: 0, condition: Condition::default(), already: Some(response(exit_code, "")) }
    }

    /// Waits. Dropping the future cancels the wait.
    pub async fn finish(mut self) -> WaitResponse {
        if let Some(response) = self.already {
            return response;
        }
        let (condition, seen) = (self.condition, self.seen);
        let met = |ending: &Ending| ending.removed || (condition != Condition::Removed && ending.count != seen);
        match self.ends.wait_for(met).await {
            // Who waits for the removal is not told why a start failed, as by dockerd: the start itself told.
            Ok(ending) if condition == Condition::Removed => response(ending.exit_code, ""),
            Ok(ending) => response(ending.exit_code, &ending.error),
            // The container, and with it the sender, is gone: it was removed.
            Err(_) => response(0, ""),
        }
    }
}

/// Registers a wait. A container that removed itself a moment ago is still waited for by its whole id, whatever the
/// condition: its last end has happened, and so has its removal.
pub async fn wait(engine: &Engine, name: &str, condition: Condition) -> Result<Waiting, WaitError> {
    let container = match engine.containers.find(name) {
        Ok(container) => container,
        Err(err) => return engine.farewells.exit_code(name).map(Waiting::over).ok_or(err.into()),
    };
    if condition == Condition::NotRunning {
        container.settle_start().await;
    }
    if condition == Condition::NotRunning && container.state().phase == Phase::Stopped {
        // A start holds the lock to its end, and the program may have been heard before: dockerd waits for it, too.
        drop(container.operation.lock().await);
    }
    let (ends, state) = container.watch();
    let met = condition == Condition::NotRunning && !state.is_running();
    let already = met.then(|| response(state.exit_code, &state.error));
    let seen = ends.borrow().count;
    Ok(Waiting { ends, seen, condition, already })
}

/// Whether the container has ended, or ends within `patience`. `ends` was made before whatever makes it end.
pub(crate) async fn ended_within(
    ends: &mut watch::Receiver<Ending>,
    container: &Arc<Container>,
    patience: Duration,
) -> bool {
    if !container.state().is_running() {
        return true;
    }
    // `changed` counts from the last look, which was when `ends` was made.
    let ended = async {
        while ends.changed().await.is_ok() {
            if !container.state().is_running() {
                return;
            }
        }
    };
    if patience == Duration::MAX {
        ended.await;
        return true;
    }
    tokio::time::timeout(patience, ended).await.is_ok()
}

fn response(exit_code: i32, error: &str) -> WaitResponse {
    let error = (!error.is_empty()).then(|| WireError { message: error.to_owned() });
    WaitResponse { error, status_code: exit_code.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(condition: Condition, ends: watch::Receiver<Ending>) -> Waiting {
        let seen = ends.borrow().count;
        Waiting { ends, seen, condition, already: None }
    }

    #[tokio::test]
    async fn each_condition_is_met_by_its_own_change() {
        let ends = watch::Sender::new(Ending { count: 1, ..Ending::default() });
        let next = tokio::spawn(waiting(Condition::NextExit, ends.subscribe()).finish());
        let removed = tokio::spawn(waiting(Condition::Removed, ends.subscribe()).finish());
        ends.send_modify(|ending| (ending.count, ending.exit_code) = (2, 7));
        assert_eq!(next.await.unwrap(), response(7, ""));
        assert!(!removed.is_finished());
        // Who waits for an end that cannot come any more is woken, too.
        let never = tokio::spawn(waiting(Condition::NotRunning, ends.subscribe()).finish());
        ends.send_modify(|ending| ending.removed = true);
        assert_eq!(removed.await.unwrap(), response(7, ""));
        assert_eq!(never.await.unwrap(), response(7, ""));
    }

    #[test]
    fn conditions_are_dockers() {
        for (text, condition) in [
            ("", Condition::NotRunning),
            ("not-running", Condition::NotRunning),
            ("next-exit", Condition::NextExit),
            ("removed", Condition::Removed),
        ] {
            assert_eq!(text.parse(), Ok(condition));
        }
        let err = "foo".parse::<Condition>().unwrap_err();
        assert_eq!(err.to_string(), "invalid condition: \"foo\"");
        assert_eq!(err.kind(), ErrorKind::InvalidArgument);
    }
}
