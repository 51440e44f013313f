//! Go's durations: `1h30m`, `1.5s`, `100ms`.

use crate::fault::Fault;

/// The fewest nanoseconds that an interval has.
const SHORTEST: i64 = 1_000_000;

/// Nanoseconds of an optional interval; nothing said is 0.
pub(crate) fn interval(flag: &str, text: &str) -> Result<i64, Fault> {
    if text.is_empty() {
        return Ok(0);
    }
    match duration(text)? {
        0 => Ok(0),
        nanos if nanos < SHORTEST => Err(Fault::ShortInterval(flag.to_owned())),
        nanos => Ok(nanos),
    }
}

fn duration(text: &str) -> Result<i64, Fault> {
    let bad = || Fault::Duration(text.to_owned());
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let nanos = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return Err(Fault::DurationUnit(text.to_owned())),
            _ => return Err(bad()),
        };
        total += number * nanos;
        rest = behind;
    }
    // Beyond 64 bits Go refuses, too.
    if total >= i64::MAX as f64 { Err(bad()) } else { Ok((sign * total) as i64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, wanted) in [
            ("", Ok(0)),
            ("0", Ok(0)),
            ("1.5s", Ok(1_500_000_000)),
            ("1h2m3s", Ok(3_723_000_000_000)),
            ("1ms", Ok(1_000_000)),
            ("1us", Err("Interval \"interval\" cannot be less than 1ms")),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("x", Err("time: invalid duration \"x\"")),
            ("9999999999h", Err("time: invalid duration \"9999999999h\"")),
        ] {
            let found = interval("interval", text).map_err(|fault| fault.to_string());
            assert_eq!(found.as_ref().map(|nanos| *nanos).map_err(String::as_str), wanted, "{text}");
        }
    }
}
