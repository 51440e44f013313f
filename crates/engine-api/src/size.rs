//! Sizes as clients write them: `64m`, `1.5 GiB`, `7` (go-units `RAMInBytes` and `FromHumanSize`).

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
}
