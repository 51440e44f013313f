//! Base64 (RFC 4648, 4), read strictly: what is signed has one form alone.

/// The bytes; none if the text is not what an encoder would have written.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let body = bytes.strip_suffix(b"==").or_else(|| bytes.strip_suffix(b"=")).unwrap_or(bytes);
    if !bytes.len().is_multiple_of(4) || body.len() % 4 == 1 {
        return None;
    }
    let mut decoded = Vec::with_capacity(body.len() / 4 * 3 + 2);
    for group in body.chunks(4) {
        let mut bits = 0_u32;
        for byte in group {
            bits = bits << 6 | u32::from(digit(*byte)?);
        }
        let missing = 4 - group.len();
        bits <<= 6 * missing;
        let [_, rest @ ..] = bits.to_be_bytes();
        let (kept, cut) = rest.split_at(3 - missing);
        // Bits that stand for nothing must not be there.
        if cut.iter().any(|byte| *byte != 0) {
            return None;
        }
        decoded.extend_from_slice(kept);
    }
    Some(decoded)
}

fn digit(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn the_vectors_of_the_rfc() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
            ("Zm9vYmE=", b"fooba"),
            ("Zm9vYmFy", b"foobar"),
            ("//+/", &[0xff, 0xff, 0xbf]),
        ] {
            assert_eq!(decode(text).as_deref(), Some(bytes), "{text}");
        }
        for bad in ["Z", "Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "Zm-v", "Zm9v\n", "====", "=", "Zg==Zg=="] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
