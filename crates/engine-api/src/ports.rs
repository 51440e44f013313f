//! Numbers of ports as clients write them. Pure.

/// Why a text is no port's number. The texts are Go's (`strconv.ParseUint`), which clients of Docker see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// It has something else than digits, or nothing.
    #[error("strconv.ParseUint: parsing {0:?}: invalid syntax")]
    Syntax(String),
    /// It is above 65535.
    #[error("strconv.ParseUint: parsing {0:?}: value out of range")]
    Large(String),
}

/// Reads a port's number: digits alone. (Rust's own reading takes `+80`, too.)
pub fn number(text: &str) -> Result<u16, PortError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PortError::Syntax(text.to_owned()));
    }
    text.parse().map_err(|_| PortError::Large(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_up_to_the_last_port_are_numbers() {
        for text in ["0", "80", "65535", "0080"] {
            assert_eq!(number(text), Ok(text.parse().unwrap()), "{text}");
        }
        for text in ["", "+80", "-1", " 80", "8 0", "x", "8O", "٣"] {
            assert_eq!(number(text), Err(PortError::Syntax(text.to_owned())), "{text}");
        }
        for text in ["65536", "99999999999999999999999"] {
            assert_eq!(number(text), Err(PortError::Large(text.to_owned())), "{text}");
        }
    }
}
