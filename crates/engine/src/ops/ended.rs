//! Whether an operation failed because its container has just ended.
//!
//! A shim, and the kernel, know of a container's end before the engine has heard of it. What they say to an operation in
//! between is about a process that is not there; to a user it is one thing: the container is not running. Every operation
//! on a running container asks here, so that this is said in one way.

use std::sync::Arc;
use std::time::Duration;

use shim_api::Reason;

use super::exec::catch_up;
use super::wait::ended_within;
use crate::Engine;
use crate::container::Container;
use crate::container::state::Phase;
use crate::shim::CallError;

/// How long the word of an end may be on its way: a shim posts it as soon as it has seen it.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// Whether a call failed because the container has ended. Waits shortly for the word of its end, if there will be one.
pub(crate) async fn was_why(engine: &Engine, container: &Arc<Container>, err: &CallError) -> bool {
    match err {
        CallError::Timeout | CallError::Cut => false,
        // These are about what was asked for.
        CallError::Refused(failure) if !matches!(failure.reason, Reason::Runtime | Reason::Foreign) => false,
        CallError::Refused(_) | CallError::Closed | CallError::Send(_) => has_ended(engine, container).await,
    }
}

/// Whether a container that was running a moment ago is running no more.
pub(crate) async fn has_ended(engine: &Engine, container: &Arc<Container>) -> bool {
    let (mut ends, _) = container.watch();
    catch_up(engine, container).await;
    match container.state().phase {
        Phase::Running { pid } if !container.live().leaving && is_alive(pid) => false,
        Phase::Running { .. } => ended_within(&mut ends, container, HEARD_WITHIN).await,
        Phase::Stopped | Phase::Restarting | Phase::Removing => true,
    }
}

/// Whether a container's first process does anything yet: its shim may not have been told of its end, as long as it is a
/// zombie. Reads one file of /proc.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything (proc(5)).
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_are_not_alive() {
        assert!(is_alive(std::process::id() as i32));
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = child.id() as i32;
        // Waits for its end, and leaves it unreaped.
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        let id = rustix::process::WaitId::Pid(rustix::process::Pid::from_raw(pid).unwrap());
        rustix::process::waitid(id, options).unwrap();
        assert!(!is_alive(pid));
        child.wait().unwrap();
        assert!(!is_alive(pid));
    }
}
