//! RFC 3339 text of a point in time, as Go's `time.RFC3339Nano` prints it in UTC.
//!
//! Written by hand because the shim prints one for every log line, and a date library would be most of its memory.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Prints as `2026-11-20T10:00:00.123456789Z`; trailing zeros of the fraction are left out, as Go does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rfc3339(pub SystemTime);

/// Go's zero time, which Docker shows for "never".
pub const ZERO: &str = "0001-01-01T00:00:00Z";

impl Rfc3339 {
    /// The present.
    pub fn now() -> Rfc3339 {
        Rfc3339(SystemTime::now())
    }

    /// Reads `2026-11-20T10:00:00.123456789Z`, also with an offset such as `+02:00`. `None` for anything else, and for
    /// times before 1970.
    pub fn parse(text: &str) -> Option<Rfc3339> {
        let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
        let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if separators.iter().any(|(at, byte)| text.as_bytes().get(*at) != Some(byte)) {
            return None;
        }
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        if year < 1970
            || !(1..=12).contains(&month)
            || !(1..=31).contains(&day)
            || hour > 23
            || minute > 59
            || second > 60
        {
            return None;
        }
        let rest = &text[19..];
        let fraction = rest.strip_prefix('.').unwrap_or("");
        let digits = &fraction[..fraction.bytes().take_while(u8::is_ascii_digit).count().min(9)];
        let nanos =
            if digits.is_empty() { 0 } else { digits.parse::<u32>().ok()? * 10_u32.pow(9 - digits.len() as u32) };
        let zone = if digits.is_empty() { rest } else { &fraction[digits.len()..] };
        let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        let seconds = seconds.checked_add_signed(-zone_seconds(zone)?)?;
        Some(Rfc3339(UNIX_EPOCH + std::time::Duration::new(seconds, nanos)))
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Before 1970 nothing of ours happened: a clock that says so reads as the epoch.
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        let (mut fraction, mut digits) = (since.subsec_nanos(), 9);
        if fraction == 0 {
            return f.write_str("Z");
        }
        while fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        write!(f, ".{fraction:0digits$}Z")
    }
}

/// Year, month and day of a number of days after 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The days from 1970-01-01 to a date (the inverse of [`civil`], from the same source).
fn days(year: u64, month: u64, day: u64) -> u64 {
    let shifted_year = year - u64::from(month <= 2);
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `Z` or `+hh:mm` in seconds east of Greenwich.
fn zone_seconds(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    Some(sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn prints_like_go() {
        for (secs, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 500_000_000, "2000-02-29T00:00:00.5Z"),
            (1_795_219_199, 123_456_789, "2026-11-20T23:59:59.123456789Z"),
            (4_102_444_800, 1_000, "2100-01-01T00:00:00.000001Z"),
        ] {
            assert_eq!(Rfc3339(UNIX_EPOCH + Duration::new(secs, nanos)).to_string(), text);
        }
    }

    #[test]
    fn reads_what_it_prints_and_offsets() {
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T00:00:00.5Z", "2026-11-20T23:59:59.123456789Z"] {
            assert_eq!(Rfc3339::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Rfc3339::parse("2026-11-20T01:30:00+02:00").unwrap().to_string(), "2026-11-19T23:30:00Z");
        for text in ["", "2026-11-20", "2026-11-20T10:00:00", "2026-13-20T10:00:00Z", "2026-11-20 10:00:00Z"] {
            assert_eq!(Rfc3339::parse(text), None, "{text}");
        }
    }
}
