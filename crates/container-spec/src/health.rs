//! How a container is asked whether it is well. Pure.

use std::time::Duration;

use engine_api::container::Config;
use oci::image::Healthcheck;

use crate::validate::InvalidRequest;

/// Docker's defaults where neither image nor request say (moby daemon/health.go).
const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
/// See [`INTERVAL_DEFAULT`].
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// See [`INTERVAL_DEFAULT`].
const START_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// See [`INTERVAL_DEFAULT`].
const RETRIES_DEFAULT: i64 = 3;

/// The shortest duration that Docker takes, in nanoseconds.
const DURATION_MIN_NANOS: i64 = 1_000_000;

/// The shell of `CMD-SHELL` where the image names none.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// A health check, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is executed in the container.
    pub command: Vec<String>,
    /// Between the end of a check and the next one.
    pub interval: Duration,
    /// After so long a check has failed.
    pub timeout: Duration,
    /// So long after the start failures do not count, until the first success.
    pub start_period: Duration,
    /// The interval in that time.
    pub start_interval: Duration,
    /// So many failures in a row make it unhealthy.
    pub retries: i64,
}

/// The health check of a container, if it has one.
pub fn probe(config: &Config) -> Option<Probe> {
    let check = config.healthcheck.as_ref()?;
    let (kind, words) = check.test.as_ref()?.split_first()?;
    let command = match kind.as_str() {
        "CMD" => words.to_vec(),
        "CMD-SHELL" => shell(config).into_iter().chain(words.iter().cloned()).collect(),
        // `NONE`; dockerd ignores what it does not know, too.
        _ => return None,
    };
    let or = |nanos: i64, default: Duration| match u64::try_from(nanos) {
        Ok(0) | Err(_) => default,
        Ok(nanos) => Duration::from_nanos(nanos),
    };
    Some(Probe {
        command,
        interval: or(check.interval, INTERVAL_DEFAULT),
        timeout: or(check.timeout, TIMEOUT_DEFAULT),
        start_period: or(check.start_period, Duration::ZERO),
        start_interval: or(check.start_interval, START_INTERVAL_DEFAULT),
        retries: if check.retries > 0 { check.retries } else { RETRIES_DEFAULT },
    })
}

fn shell(config: &Config) -> Vec<String> {
    match config.shell.as_deref() {
        None | Some([]) => SHELL.map(str::to_owned).into(),
        Some(shell) => shell.to_vec(),
    }
}

/// Whether a request's health check can be. The sentences are dockerd's.
pub(crate) fn validate(check: Option<&Healthcheck>) -> Result<(), InvalidRequest> {
    let Some(check) = check else { return Ok(()) };
    for (field, nanos) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if nanos != 0 && nanos < DURATION_MIN_NANOS {
            return Err(InvalidRequest::HealthcheckDuration { field });
        }
    }
    match check.retries {
        ..0 => Err(InvalidRequest::HealthcheckRetries),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(test: &[&str]) -> Config {
        let test = Some(test.iter().map(|word| (*word).to_owned()).collect());
        Config { healthcheck: Some(Healthcheck { test, ..Healthcheck::default() }), ..Config::default() }
    }

    #[test]
    fn commands_are_made_as_docker_makes_them() {
        for (test, command) in [
            (&[][..], None),
            (&["NONE"], None),
            (&["nonsense", "a"], None),
            (&["CMD", "a", "b c"], Some("a|b c")),
            (&["CMD-SHELL", "a b"], Some("/bin/sh|-c|a b")),
        ] {
            let command = command.map(str::to_owned);
            assert_eq!(probe(&config(test)).map(|probe| probe.command.join("|")), command, "{test:?}");
        }
        let shell = Some(vec!["/bin/ash".to_owned(), "-ec".to_owned()]);
        let own = Config { shell, ..config(&["CMD-SHELL", "a"]) };
        assert_eq!(probe(&own).unwrap().command, ["/bin/ash", "-ec", "a"]);
        assert_eq!(probe(&Config::default()), None);
    }

    #[test]
    fn what_is_not_said_is_dockers_default() {
        let mut config = config(&["CMD", "a"]);
        let probe_of =
            |config: &Config| probe(config).map(|it| (it.interval, it.timeout, it.start_interval, it.retries));
        let seconds = Duration::from_secs;
        assert_eq!(probe_of(&config), Some((seconds(30), seconds(30), seconds(5), 3)));
        let check = config.healthcheck.as_mut().unwrap();
        (check.interval, check.timeout, check.retries) = (1_000_000_000, 2_000_000_000, 5);
        assert_eq!(probe_of(&config), Some((seconds(1), seconds(2), seconds(5), 5)));
    }

    #[test]
    fn what_cannot_be_is_refused_in_dockers_words() {
        let check = |interval, retries| Healthcheck { interval, retries, ..Healthcheck::default() };
        for (check, sentence) in [
            (check(-1, 0), "Interval in Healthcheck cannot be less than 1ms"),
            (check(999_999, 0), "Interval in Healthcheck cannot be less than 1ms"),
            (check(1_000_000, -1), "Retries in Healthcheck cannot be negative"),
        ] {
            assert_eq!(validate(Some(&check)).unwrap_err().to_string(), sentence);
        }
        assert!(validate(Some(&check(1_000_000, 1))).is_ok() && validate(None).is_ok());
    }
}
