//! What results come to. Pure; dockerd's rules (moby daemon/health.go).

use std::time::Duration;

use container_spec::Probe;
use engine_api::container::{Health, HealthResult};

/// Nothing is known yet.
pub(crate) const STARTING: &str = "starting";
/// The last check succeeded, or not enough have failed since.
pub(crate) const HEALTHY: &str = "healthy";
/// Too many checks have failed in a row.
pub(crate) const UNHEALTHY: &str = "unhealthy";

/// How many results are kept: dockerd's number (`maxLogEntries`).
const LOG_MAX: usize = 5;

/// A new run begins. What was found out before stays in the log.
pub(crate) fn starting(health: &mut Health) {
    STARTING.clone_into(&mut health.status);
    health.failing_streak = 0;
}

/// Likewise, where nothing is known.
pub(crate) fn starting_if_unknown(health: &mut Health) {
    if health.status.is_empty() {
        starting(health);
    }
}

/// How long to wait for the next check of a container of this age.
pub(crate) fn pause(probe: &Probe, age: Duration, status: &str) -> Duration {
    if age < probe.start_period && status == STARTING { probe.start_interval } else { probe.interval }
}

/// Takes a result into account; `age` is the container's when the check began.
pub(crate) fn judge(health: &mut Health, result: HealthResult, probe: &Probe, age: Duration) {
    let exit_code = result.exit_code;
    if health.log.len() >= LOG_MAX {
        health.log.drain(..=health.log.len() - LOG_MAX);
    }
    health.log.push(result);
    if exit_code == 0 {
        health.failing_streak = 0;
        HEALTHY.clone_into(&mut health.status);
        return;
    }
    if health.status == STARTING && age < probe.start_period {
        return;
    }
    health.failing_streak += 1;
    if health.failing_streak >= probe.retries {
        UNHEALTHY.clone_into(&mut health.status);
    }
}

/// What `ps` adds to a container's status; empty if nothing.
pub(crate) fn suffix(status: &str) -> &'static str {
    match status {
        STARTING => " (health: starting)",
        HEALTHY => " (healthy)",
        UNHEALTHY => " (unhealthy)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        Probe {
            command: vec!["true".to_owned()],
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            start_period: Duration::from_secs(10),
            start_interval: Duration::from_secs(1),
            retries: 2,
        }
    }

    /// The statuses and streaks after results at these seconds.
    fn after(results: &[(u64, i32)]) -> Vec<(String, i64)> {
        let mut health = Health::default();
        starting(&mut health);
        let judged = results.iter().map(|(second, exit_code)| {
            let result = HealthResult { exit_code: *exit_code, ..HealthResult::default() };
            judge(&mut health, result, &probe(), Duration::from_secs(*second));
            (health.status.clone(), health.failing_streak)
        });
        judged.collect()
    }

    #[test]
    fn results_come_to_what_they_come_to_with_docker() {
        for (results, statuses) in [
            (&[(1, 0), (2, 1), (3, 1)][..], &[(HEALTHY, 0), (HEALTHY, 1), (UNHEALTHY, 2)][..]),
            // Within the start period failures do not count until the first success.
            (&[(1, 1), (2, -1), (10, 1), (11, 1)], &[(STARTING, 0), (STARTING, 0), (STARTING, 1), (UNHEALTHY, 2)]),
            (&[(20, 1), (21, 1), (22, 0)], &[(STARTING, 1), (UNHEALTHY, 2), (HEALTHY, 0)]),
        ] {
            let expected: Vec<_> = statuses.iter().map(|(status, streak)| ((*status).to_owned(), *streak)).collect();
            assert_eq!(after(results), expected, "{results:?}");
        }
    }

    #[test]
    fn the_last_five_results_are_kept() {
        let mut health = Health::default();
        for exit_code in 0..9 {
            let result = HealthResult { exit_code, ..HealthResult::default() };
            judge(&mut health, result, &probe(), Duration::from_secs(60));
        }
        assert_eq!(health.log.iter().map(|result| result.exit_code).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    }

    #[test]
    fn the_start_has_an_interval_of_its_own() {
        let (probe, seconds) = (probe(), Duration::from_secs);
        for (age, status, expected) in [(1, STARTING, 1), (10, STARTING, 30), (1, HEALTHY, 30), (1, UNHEALTHY, 30)] {
            assert_eq!(pause(&probe, seconds(age), status), seconds(expected), "{age} {status}");
        }
    }
}
