//! The keys that detach a client from a terminal, as users write them: `ctrl-p,ctrl-q`. Pure.

/// Ctrl-P Ctrl-Q: Docker's.
const DEFAULT: [u8; 2] = [16, 17];

/// Why a text names no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unknown character: '{0}'")]
pub(crate) struct DetachKeysError(pub String);

/// The bytes that the keys send; those of the default for an empty text.
///
/// One character each, or `ctrl-` and a letter or one of `@[\]^_` (moby/term `ToBytes`).
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, DetachKeysError> {
    if text.is_empty() {
        return Ok(DEFAULT.to_vec());
    }
    text.split(',').map(key).collect()
}

fn key(text: &str) -> Result<u8, DetachKeysError> {
    let unknown = || DetachKeysError(text.to_owned());
    if let [byte] = text.as_bytes() {
        return Ok(*byte);
    }
    let lower = text.to_ascii_lowercase();
    match lower.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
        Some([b'@']) => Ok(0),
        Some([b'[']) => Ok(27),
        Some([b'\\']) => Ok(28),
        Some([b']']) => Ok(29),
        Some([b'^']) => Ok(30),
        Some([b'_']) => Ok(31),
        _ if lower == "del" => Ok(127),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("", &[16, 17][..]),
            ("ctrl-p,ctrl-q", &[16, 17]),
            ("ctrl-@,ctrl-[,a", &[0, 27, b'a']),
            ("CTRL-A", &[1]),
            ("DEL", &[127]),
        ] {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
        assert_eq!(parse("ctrl-p,foo").unwrap_err().to_string(), "Unknown character: 'foo'");
        assert!(parse("a,,b").is_err());
    }
}
