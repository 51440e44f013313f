//! Restart policies: whether a container that ended starts again, and when. Pure.
//!
//! dockerd's rules (moby `restartmanager`): the first wait is 100 ms, each next one twice as long up to a minute; a run of
//! ten seconds begins anew.

use std::time::Duration;

use engine_api::host_config;
use serde::{Deserialize, Serialize};

/// The first wait.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// A run of this length makes the next wait the first one again.
const RUN_THAT_RESETS: Duration = Duration::from_secs(10);

/// When a container starts again by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Never.
    #[default]
    No,
    /// Whenever it ended and nobody killed it, and when the daemon starts.
    Always,
    /// Likewise, but not after it was stopped.
    UnlessStopped,
    /// When it failed, this often at most; 0 for no bound.
    OnFailure {
        /// How often in a row.
        max: u32,
    },
    /// When it failed, or its health check did, this often at most; 0 for no bound.
    OnUnhealthy {
        /// How often in a row.
        max: u32,
    },
}

/// How long the last wait was; zero before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackOff(Duration);

/// What the decision depends on beside the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How it ended.
    pub exit_code: i32,
    /// How long it ran.
    pub duration: Duration,
    /// How often the policy restarted it already.
    pub restarts: u32,
    /// A client stopped or killed it.
    pub stopped_by_client: bool,
    /// It was ended because its health check failed.
    pub unhealthy: bool,
}

impl Policy {
    /// The policy of a host configuration that was validated; what is unknown never restarts.
    pub fn of(policy: &host_config::RestartPolicy) -> Policy {
        match policy.name.as_str() {
            "always" => Policy::Always,
            "unless-stopped" => Policy::UnlessStopped,
            "on-unhealthy" => Policy::OnUnhealthy { max: u32::try_from(policy.maximum_retry_count).unwrap_or(0) },
            "on-failure" => Policy::OnFailure { max: u32::try_from(policy.maximum_retry_count).unwrap_or(0) },
            _ => Policy::No,
        }
    }

    /// Whether a container that ended like this starts again.
    pub fn restarts_after(self, run: &Run) -> bool {
        match self {
            Policy::No => false,
            Policy::Always => true,
            Policy::UnlessStopped => !run.stopped_by_client,
            Policy::OnFailure { max } => run.exit_code != 0 && (max == 0 || run.restarts < max),
            Policy::OnUnhealthy { max } => (run.exit_code != 0 || run.unhealthy) && (max == 0 || run.restarts < max),
        }
    }

    /// Whether a container that is unhealthy after so many restarts is ended, to start again.
    pub fn ends_unhealthy(self, restarts: u32) -> bool {
        matches!(self, Policy::OnUnhealthy { max } if max == 0 || restarts < max)
    }
}

impl BackOff {
    /// How long to wait after a run of this `duration`, and what to remember for the next time.
    pub fn next(self, duration: Duration) -> BackOff {
        let last = if duration >= RUN_THAT_RESETS { Duration::ZERO } else { self.0 };
        BackOff((last * 2).clamp(BACK_OFF_FIRST, BACK_OFF_MAX))
    }

    /// The wait.
    pub fn delay(self) -> Duration {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_decide_as_dockerd() {
        let run = |exit_code, restarts, stopped_by_client| Run {
            exit_code,
            duration: Duration::from_secs(1),
            restarts,
            stopped_by_client,
            unhealthy: false,
        };
        let unhealthy = |exit_code, restarts| Run { unhealthy: true, ..run(exit_code, restarts, false) };
        for (policy, run, restarts) in [
            (Policy::No, run(1, 0, false), false),
            (Policy::Always, run(0, 99, false), true),
            (Policy::Always, run(0, 0, true), true),
            (Policy::UnlessStopped, run(0, 0, false), true),
            (Policy::UnlessStopped, run(0, 0, true), false),
            (Policy::OnFailure { max: 0 }, run(0, 0, false), false),
            (Policy::OnFailure { max: 0 }, run(1, 99, false), true),
            (Policy::OnFailure { max: 2 }, run(1, 1, false), true),
            (Policy::OnFailure { max: 2 }, run(1, 2, false), false),
            (Policy::OnUnhealthy { max: 0 }, run(0, 0, false), false),
            (Policy::OnUnhealthy { max: 0 }, run(1, 9, false), true),
            (Policy::OnUnhealthy { max: 0 }, unhealthy(0, 9), true),
            (Policy::OnUnhealthy { max: 2 }, unhealthy(0, 1), true),
            (Policy::OnUnhealthy { max: 2 }, unhealthy(0, 2), false),
        ] {
            assert_eq!(policy.restarts_after(&run), restarts, "{policy:?} {run:?}");
        }
    }

    #[test]
    fn waits_double_to_a_minute_and_a_long_run_resets_them() {
        let mut back_off = BackOff::default();
        let mut waits = Vec::new();
        for _ in 0..12 {
            back_off = back_off.next(Duration::ZERO);
            waits.push(back_off.delay().as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
        assert_eq!(back_off.next(Duration::from_secs(10)).delay(), BACK_OFF_FIRST);
    }

    #[test]
    fn names_are_those_of_the_api() {
        let of = |name: &str, maximum_retry_count| {
            Policy::of(&host_config::RestartPolicy { name: name.into(), maximum_retry_count })
        };
        assert_eq!(of("", 0), Policy::No);
        assert_eq!(of("no", 0), Policy::No);
        assert_eq!(of("always", 0), Policy::Always);
        assert_eq!(of("unless-stopped", 0), Policy::UnlessStopped);
        assert_eq!(of("on-unhealthy", 3), Policy::OnUnhealthy { max: 3 });
        assert_eq!(of("on-failure", 3), Policy::OnFailure { max: 3 });
    }
}
