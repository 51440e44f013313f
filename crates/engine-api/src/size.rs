//! Sizes as clients write them: `64m`, `1.5 GiB`, `7` (go-units `RAMInBytes` and `FromHumanSize`), and as they are shown.

/// Why a text is no size. The texts are go-units' and Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Nothing in it is a digit, or it is below zero.
    #[error("invalid size: '{0}'")]
    Size(String),
    /// What stands before the unit is no number.
    #[error("strconv.ParseFloat: parsing {0:?}: invalid syntax")]
    Number(String),
    /// There is no such unit.
    #[error("invalid suffix: '{0}'")]
    Suffix(String),
}

/// What a kilobyte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// 1024 bytes, as for memory.
    Binary,
    /// 1000 bytes, as for logs.
    Decimal,
}

/// Reads a number of bytes.
pub fn parse(text: &str, units: Units) -> Result<i64, SizeError> {
    let bad = || SizeError::Size(text.to_owned());
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(bad)?;
    let (number, suffix) = text.split_at(end + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let value: f64 = number.parse().map_err(|_| SizeError::Number(number.to_owned()))?;
    if value.is_nan() || value < 0.0 {
        return Err(bad());
    }
    Ok((value * factor(suffix, units)?) as i64)
}

fn factor(suffix: &str, units: Units) -> Result<f64, SizeError> {
    if suffix.len() > 3 {
        return Err(SizeError::Suffix(suffix.to_owned()));
    }
    let suffix = suffix.to_ascii_lowercase();
    let mut letters = suffix.chars();
    let exponent = match letters.next() {
        None => return Ok(1.0),
        Some('b') => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        Some(_) => return Err(SizeError::Suffix(suffix)),
    };
    let known = match letters.as_str() {
        "" => true,
        // `b` is a unit by itself.
        "b" | "ib" => exponent > 0,
        _ => false,
    };
    if !known {
        return Err(SizeError::Suffix(suffix));
    }
    let base: f64 = if units == Units::Binary { 1024.0 } else { 1000.0 };
    Ok(base.powi(exponent))
}

/// `2.06MB`: bytes in powers of 1000, to `precision` significant digits.
pub fn human(bytes: f64, precision: usize) -> String {
    scaled(bytes, 1000.0, precision, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
}

/// `7.761GiB`: bytes in powers of 1024, to four significant digits.
pub fn binary(bytes: f64) -> String {
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
    fn sizes_are_read_as_go_units_reads_them() {
        for (text, binary, decimal) in [
            ("7", 7, 7),
            ("64m", 64 << 20, 64_000_000),
            ("1.5g", 3 << 29, 1_500_000_000),
            ("2 KiB", 2048, 2000),
            ("5b", 5, 5),
            ("1e3", 1000, 1000),
            ("1GB", 1 << 30, 1_000_000_000),
        ] {
            assert_eq!((parse(text, Units::Binary), parse(text, Units::Decimal)), (Ok(binary), Ok(decimal)), "{text}");
        }
    }

    #[test]
    fn sentences_are_go_units() {
        for (text, sentence) in [
            ("x", "invalid size: 'x'"),
            ("", "invalid size: ''"),
            ("-1", "invalid size: '-1'"),
            ("1.2.3k", "strconv.ParseFloat: parsing \"1.2.3\": invalid syntax"),
            ("1  k", "strconv.ParseFloat: parsing \"1 \": invalid syntax"),
            ("10Q", "invalid suffix: 'q'"),
            ("10bb", "invalid suffix: 'bb'"),
            ("10XYZW", "invalid suffix: 'XYZW'"),
        ] {
            assert_eq!(parse(text, Units::Binary).unwrap_err().to_string(), sentence);
        }
    }

    #[test]
    fn sizes_are_shown_as_go_units_shows_them() {
        for (bytes, text) in [
            (0.0, "0B"),
            (1.0, "1B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (2_063_334.0, "2.06MB"),
            (121e6, "121MB"),
            (999_999.0, "1e+03kB"),
        ] {
            assert_eq!(human(bytes, 3), text);
        }
        assert_eq!(binary(8_333_291_520.0), "7.761GiB");
    }
}
