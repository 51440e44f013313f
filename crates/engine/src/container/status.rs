//! How a container's state reads in a list: `Up 5 minutes`, `Exited (0) 3 hours ago`. Pure.

use std::time::Duration;

use crate::container::state::{Phase, State};
use crate::health::judge;

/// The sentence at the time `now_nanos` (since 1970).
pub fn status(state: &State, now_nanos: i64) -> String {
    let since = |nanos: i64| human_duration(Duration::from_nanos(u64::try_from(now_nanos - nanos).unwrap_or(0)));
    match state.phase {
        Phase::Running { .. } if state.paused => format!("Up {} (Paused)", since(state.started_at_nanos)),
        Phase::Running { .. } => {
            let health = state.health.as_ref().map_or("", |health| judge::suffix(&health.status));
            format!("Up {}{health}", since(state.started_at_nanos))
        }
        Phase::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at_nanos)),
        Phase::Removing => "Removal In Progress".to_owned(),
        Phase::Stopped if state.started_at_nanos == 0 => "Created".to_owned(),
        Phase::Stopped => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at_nanos)),
    }
}

/// A duration in words, as `units.HumanDuration` of docker/go-units.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Go rounds half up: `int(d.Hours() + 0.5)`.
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, _, _) => "Less than a second".to_owned(),
        (1, _, _) => "1 second".to_owned(),
        (2..60, _, _) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, 2..48) => format!("{hours} hours"),
        (_, _, 48..336) => format!("{} days", hours / 24),
        (_, _, 336..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, 1440..17_520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn durations_read_as_dockers() {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (59 * 60 + 59, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 29 * 60, "About an hour"),
            (HOUR + 30 * 60, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn states_read_as_dockers() {
        let state = |phase| State {
            phase,
            exit_code: 3,
            started_at_nanos: SECOND,
            finished_at_nanos: 10 * SECOND,
            ..State::default()
        };
        for (state, text) in [
            (State::default(), "Created"),
            (state(Phase::Running { pid: 1 }), "Up 2 minutes"),
            (State { paused: true, ..state(Phase::Running { pid: 1 }) }, "Up 2 minutes (Paused)"),
            (state(Phase::Restarting), "Restarting (3) About a minute ago"),
            (state(Phase::Stopped), "Exited (3) About a minute ago"),
            (state(Phase::Removing), "Removal In Progress"),
        ] {
            assert_eq!(status(&state, 121 * SECOND), text);
        }
    }
}
