//! `--health-*` and `--no-healthcheck`.

use oci::image::Healthcheck;

use super::values;
use crate::args::Parsed;

/// Why flags make no health check. The texts are docker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealthError {
    /// None is wanted, and one is described.
    #[error("--no-healthcheck conflicts with --health-* options")]
    Conflict,
    /// A number below zero.
    #[error("--{0} cannot be negative")]
    Negative(&'static str),
}

/// The health check that flags ask for; `None` for the image's.
pub fn check(parsed: &Parsed) -> Result<Option<Healthcheck>, HealthError> {
    // Checked when read: what does not parse cannot come here.
    let duration = |name: &'static str| (name, values::duration_nanos(parsed.text(name)).unwrap_or(0));
    let numbers = [
        duration("health-interval"),
        duration("health-timeout"),
        ("health-retries", parsed.int("health-retries").unwrap_or(0)),
        duration("health-start-period"),
        duration("health-start-interval"),
    ];
    let command = parsed.text("health-cmd");
    let described = !command.is_empty() || numbers.iter().any(|(_, number)| *number != 0);
    if parsed.flag("no-healthcheck") {
        let none = Healthcheck { test: Some(vec!["NONE".to_owned()]), ..Healthcheck::default() };
        return if described { Err(HealthError::Conflict) } else { Ok(Some(none)) };
    }
    if !described {
        return Ok(None);
    }
    if let Some((name, _)) = numbers.iter().find(|(_, number)| *number < 0) {
        return Err(HealthError::Negative(name));
    }
    let [interval, timeout, retries, start_period, start_interval] = numbers.map(|(_, number)| number);
    let test = (!command.is_empty()).then(|| vec!["CMD-SHELL".to_owned(), command.to_owned()]);
    Ok(Some(Healthcheck { test, interval, timeout, start_period, start_interval, retries }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, tables};

    fn of(line: &str) -> Result<Option<Healthcheck>, HealthError> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let command = tables::find("create").unwrap();
        let flag = |long: &str| command.all_flags().find(|flag| flag.long == long);
        check(&args::parse(&flag, &|_| None, command.interspersed, &words).unwrap())
    }

    #[test]
    fn flags_make_what_dockers_client_sends() {
        assert_eq!(of("i"), Ok(None));
        let none = of("--no-healthcheck i").unwrap().unwrap();
        assert_eq!(none.test, Some(vec!["NONE".to_owned()]));
        let check = of("--health-cmd true --health-interval 1m --health-retries 2 i").unwrap().unwrap();
        let test = Some(vec!["CMD-SHELL".to_owned(), "true".to_owned()]);
        assert_eq!(check, Healthcheck { test, interval: 60_000_000_000, retries: 2, ..Healthcheck::default() });
        assert_eq!(of("--health-timeout 1s i").unwrap().unwrap().test, None);
        for (line, sentence) in [
            ("--no-healthcheck --health-cmd true i", "--no-healthcheck conflicts with --health-* options"),
            ("--health-interval=-1s i", "--health-interval cannot be negative"),
            ("--health-retries -1 i", "--health-retries cannot be negative"),
        ] {
            assert_eq!(of(line).unwrap_err().to_string(), sentence);
        }
    }
}
