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

#[cfg(test)]
mod tests {
    use super::*;

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
