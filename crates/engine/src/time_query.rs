//! Points in time as clients send them: `seconds[.nanoseconds]` since 1970. Pure.

use errdefs::ErrorKind;

/// Why a text is no point in time. The texts are dockerd's, which are Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("strconv.ParseInt: parsing {text:?}: invalid syntax")]
pub struct TimeError {
    /// As given.
    pub text: String,
}

impl TimeError {
    /// dockerd answers a system error here.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Nanoseconds since 1970; `None` for an empty text.
///
/// The fraction has up to nine digits: more are cut off, fewer are filled up (moby api/types/time `parseTimestamp`).
pub(crate) fn parse(text: &str) -> Result<Option<i64>, TimeError> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = |part: &str| part.parse::<i64>().map_err(|_| TimeError { text: part.to_owned() });
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut nanos = 0;
    if !fraction.is_empty() {
        number(fraction)?;
        let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
        nanos = number(&digits)?;
    }
    Ok(Some(number(seconds)?.saturating_mul(1_000_000_000).saturating_add(nanos)))
}

/// As [`parse`]; also RFC 3339, parts of it, and how long ago (moby `timestamp.GetTimestamp`).
pub(crate) fn parse_any(text: &str, now_nanos: i64) -> Result<Option<i64>, TimeError> {
    if let Some(ago) = duration(text) {
        // Whole seconds, as dockerd has it.
        return Ok(Some(now_nanos.saturating_sub(ago).div_euclid(1_000_000_000).saturating_mul(1_000_000_000)));
    }
    // What is left out of a date or a time is zero, and the zone is the daemon's, which is UTC.
    const FULL: &str = "0000-01-01T00:00:00Z";
    let whole = match text.len() {
        10 | 13 | 16 | 19 if text.contains('-') => format!("{text}{}", &FULL[text.len()..]),
        _ => text.to_owned(),
    };
    match crate::clock::parse_rfc3339(&whole) {
        Some(nanos) => Ok(Some(nanos)),
        None => parse(text),
    }
}

/// Nanoseconds of `1h30m`, as Go reads it; `None` for anything else.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut nanos = 0.0;
    (!rest.is_empty()).then_some(())?;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number * unit;
        rest = &rest[end..];
    }
    let nanos = if negative { -nanos } else { nanos };
    (nanos.abs() < i64::MAX as f64).then_some(nanos as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_durations_are_times_too() {
        let day = 1_704_067_200_000_000_000;
        for (text, wanted) in [
            ("1h30m", Some(day - 5_400_000_000_000)),
            ("500ms", Some(day - 1_000_000_000)),
            ("2024-01-01", Some(day)),
            ("2024-01-01T01:00", Some(day + 3_600_000_000_000)),
            ("2024-01-01T00:00:00Z", Some(day)),
            ("2024-01-01T01:00:00+01:00", Some(day)),
            ("1704067200", Some(day)),
            ("", None),
        ] {
            assert_eq!(parse_any(text, day), Ok(wanted), "{text}");
        }
        assert!(parse_any("soon", day).is_err());
        assert_eq!(duration("1x"), None);
    }

    #[test]
    fn times_are_read_as_dockerd_reads_them() {
        for (text, nanos) in [
            ("", None),
            ("0", Some(0)),
            ("5", Some(5_000_000_000)),
            ("5.25", Some(5_250_000_000)),
            ("5.000000001", Some(5_000_000_001)),
            ("5.0000000019", Some(5_000_000_001)),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
        assert_eq!(parse("abc").unwrap_err().to_string(), "strconv.ParseInt: parsing \"abc\": invalid syntax");
        assert!(parse("5.x").is_err());
    }
}
