//! Sizes and times as Docker shows them (go-units).

pub use engine_api::size::{binary as bytes_size, human as human_size};

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
}
