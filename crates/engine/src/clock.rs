//! The present.

use std::time::{SystemTime, UNIX_EPOCH};

use stdx::time::Rfc3339;

/// Nanoseconds since 1970.
pub(crate) fn now_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Seconds since 1970.
pub(crate) fn now_seconds() -> i64 {
    now_nanos().div_euclid(1_000_000_000)
}

/// A duration as Go prints it: `1h0m30s`, `1.5s`, `20ms`.
pub(crate) fn go_duration(duration: std::time::Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |unit: u128| {
        let text = format!("{}.{:0width$}", nanos / unit, nanos % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(1_000_000)),
        _ => {
            let minutes = duration.as_secs() / 60;
            let rest = duration - std::time::Duration::from_secs(minutes * 60);
            let seconds = format!("{}.{:09}", rest.as_secs(), rest.subsec_nanos());
            let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
            match minutes {
                0 => format!("{seconds}s"),
                1..60 => format!("{minutes}m{seconds}s"),
                _ => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
            }
        }
    }
}

/// RFC 3339 of nanoseconds since 1970; Go's zero time for 0, which stands for never.
pub(crate) fn rfc3339(nanos: i64) -> String {
    match u64::try_from(nanos) {
        Ok(0) | Err(_) => stdx::time::ZERO.to_owned(),
        Ok(nanos) => Rfc3339(UNIX_EPOCH + std::time::Duration::from_nanos(nanos)).to_string(),
    }
}

/// Seconds and nanoseconds since 1970 of an RFC 3339 text, as one number of nanoseconds; `None` if it is none.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    let (seconds, nanos) = parse_parts(text)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// The whole seconds since 1970 alone; that goes back to Go's zero time, which nanoseconds do not.
pub(crate) fn parse_rfc3339_seconds(text: &str) -> Option<i64> {
    parse_parts(text).map(|(seconds, _)| seconds)
}

fn parse_parts(text: &str) -> Option<(i64, i64)> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let offset_s = match zone.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign, zone) => {
            let (hours, minutes) = zone.split_once(':')?;
            let seconds = i64::from(hours.parse::<u16>().ok()?) * 3600 + i64::from(minutes.parse::<u16>().ok()?) * 60;
            if sign == "-" { -seconds } else { seconds }
        }
    };
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    // What an image says of itself may be any number.
    let sane = [(year, 9999), (month, 12), (day, 31), (hour, 24), (minute, 60), (second, 60)];
    if sane.iter().any(|(number, most)| !(0..=*most).contains(number)) || offset_s.abs() > 86_400 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    Some((seconds, digits.parse().ok()?))
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let parts: Vec<i64> = text.split(separator).map(str::parse).collect::<Result<_, _>>().ok()?;
    parts.try_into().ok()
}

/// Days from 1970-01-01 to a date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (millis, text) in
            [(0, "0s"), (1, "1ms"), (1_500, "1.5s"), (30_000, "30s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")]
        {
            assert_eq!(go_duration(std::time::Duration::from_millis(millis)), text);
        }
        assert_eq!(go_duration(std::time::Duration::from_nanos(1_250)), "1.25µs");
    }

    #[test]
    fn times_are_read_and_printed() {
        for (text, nanos) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T00:00:00.5Z", Some(951_782_400_500_000_000)),
            ("2026-11-20T23:59:59.123456789Z", Some(1_795_219_199_123_456_789)),
            ("1970-01-01T02:00:00+02:00", Some(0)),
            ("1969-12-31T23:30:00-00:30", Some(0)),
            ("0001-01-01T00:00:00Z", None),
            ("soon", None),
            ("2026-11-20", None),
        ] {
            assert_eq!(parse_rfc3339(text), nanos, "{text}");
            if let Some(nanos) = nanos.filter(|nanos| *nanos != 0) {
                assert_eq!(rfc3339(nanos), text);
            }
        }
        assert_eq!(rfc3339(0), "0001-01-01T00:00:00Z");
        for (text, seconds) in [
            ("0001-01-01T00:00:00Z", Some(-62_135_596_800)),
            ("2026-01-01T01:00:00.5+02:00", Some(1_767_222_000)),
            ("9223372036854775807-01-01T00:00:00Z", None),
            ("2026-01-01T00:00:00+9223372036854775807:00", None),
        ] {
            assert_eq!(parse_rfc3339_seconds(text), seconds, "{text}");
        }
    }
}
