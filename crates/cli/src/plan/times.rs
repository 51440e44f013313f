//! `--since` and `--until`: points in time as the API takes them, seconds since 1970.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::values;

/// Not a point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse value as time or duration: {0:?}")]
pub struct TimeError(pub String);

/// Reads RFC 3339 (whole or in part, in the local zone), seconds since 1970, or a duration before `now`.
pub fn encode(text: &str, now: &Zoned) -> Result<String, TimeError> {
    if text.is_empty() {
        return Ok(String::new());
    }
    if let Ok(nanos) = values::duration_nanos(text)
        && text != "0"
    {
        let then = now.timestamp().as_nanosecond() - i128::from(nanos);
        return Ok(seconds(then));
    }
    match timestamp(text, now.time_zone()) {
        Some(timestamp) => Ok(seconds(timestamp.as_nanosecond())),
        None if is_seconds(text) => Ok(text.to_owned()),
        None => Err(TimeError(text.to_owned())),
    }
}

fn is_seconds(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    whole.parse::<i64>().is_ok() && !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit())
}

fn timestamp(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    if !text.contains('-') {
        return None;
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    // Without a zone: 2006-01-02, 2006-01-02T15, 2006-01-02T15:04, and so on (moby api/types/time).
    let padded = match text.split_once('T') {
        Some((date, time)) if !time.contains(':') => format!("{date}T{time}:00:00"),
        _ => text.to_owned(),
    };
    let civil: DateTime = padded.parse().ok()?;
    Some(civil.to_zoned(zone.clone()).ok()?.timestamp())
}

fn seconds(nanos: i128) -> String {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    format!("{seconds}.{fraction:09}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_seconds() {
        let now = Timestamp::from_second(1_000_000).unwrap().to_zoned(TimeZone::UTC);
        for (text, encoded) in [
            ("", ""),
            ("12", "12"),
            ("10s", "999990.000000000"),
            ("1970-01-01T00:01:00.5Z", "60.500000000"),
            ("1970-01-02", "86400.000000000"),
            ("1970-01-01T01", "3600.000000000"),
            ("1970-01-01T01:30", "5400.000000000"),
            ("12.5", "12.5"),
        ] {
            assert_eq!(encode(text, &now).as_deref(), Ok(encoded), "{text}");
        }
        for text in ["nonsense", "1970-13-01", "1.", "12x", "1.2.3"] {
            let err = encode(text, &now).unwrap_err();
            assert_eq!(err.to_string(), format!("failed to parse value as time or duration: \"{text}\""));
        }
    }
}
