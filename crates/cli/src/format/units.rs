//! Sizes and times as Docker shows them (go-units).

/// `5 minutes`, `About an hour`: a length of time in seconds.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds as f64 / 3600.0);
    // go-units rounds to the nearest hour, and compares minutes with 60.
    let rounded = (hours + 0.5) as i64;
    match seconds {
        ..=0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if rounded == 1 => "About an hour".to_owned(),
        _ if rounded < 48 => format!("{rounded} hours"),
        _ if rounded < 24 * 7 * 2 => format!("{} days", rounded / 24),
        _ if rounded < 24 * 30 * 2 => format!("{} weeks", rounded / 24 / 7),
        _ if rounded < 24 * 365 * 2 => format!("{} months", rounded / 24 / 30),
        _ => format!("{} years", (hours as i64) / 24 / 365),
    }
}

/// `2.06MB`: bytes in powers of 1000, to `precision` significant digits.
pub fn human_size(bytes: f64, precision: usize) -> String {
    scaled(bytes, 1000.0, precision, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
}

/// `7.761GiB`: bytes in powers of 1024, to four significant digits.
pub fn bytes_size(bytes: f64) -> String {
    scaled(bytes, 1024.0, 4, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"])
}

fn scaled(mut value: f64, base: f64, precision: usize, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", general(value, precision), units[unit])
}

/// C's `%.{precision}g`, for values that need no exponent below `10^precision`.
fn general(value: f64, precision: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    // Through scientific notation, so that rounding up to the next power of ten is seen.
    let scientific = format!("{:.*e}", precision - 1, value);
    let exponent: i32 = scientific.split('e').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    if exponent >= precision as i32 {
        let mantissa = trim_zeros(scientific.split('e').next().unwrap_or(""));
        return format!("{mantissa}e+{exponent:02}");
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (86_400 * 2, "2 days"),
            (86_400 * 14, "2 weeks"),
            (86_400 * 61, "2 months"),
            (86_400 * 325, "10 months"),
            (86_400 * 365 * 2, "2 years"),
            (86_400 * 365 * 56, "56 years"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0.0, "0B"),
            (1.0, "1B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (2_063_334.0, "2.06MB"),
            (121e6, "121MB"),
            (999_999.0, "1e+03kB"),
        ] {
            assert_eq!(human_size(bytes, 3), text);
        }
        assert_eq!(bytes_size(8_333_291_520.0), "7.761GiB");
    }
}
