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
}
