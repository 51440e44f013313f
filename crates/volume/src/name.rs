//! The name of a volume.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use errdefs::ErrorKind;

/// What a directory entry may have (NAME_MAX, pathconf(3)); dockerd fails later, at mkdir.
const LENGTH_MAX: usize = 255;

/// A letter or digit, then at least one of letters, digits, `_`, `.` and `-`; at most 255 bytes.
///
/// Invariant: so it names a directory entry that is neither hidden nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(Box<str>);

/// The text names no volume. The texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// One character.
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    TooShort,
    /// More than a directory entry may have.
    #[error("volume name is too long, names should be at most {LENGTH_MAX} characters")]
    TooLong,
    /// Characters that are not allowed, or not at the beginning.
    #[error(
        "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
         If you intended to pass a host directory, use absolute path"
    )]
    Characters {
        /// The text.
        name: String,
    },
}

impl NameError {
    /// Always the caller's mistake.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

impl VolumeName {
    /// 64 hex digits that nobody has: the name of an anonymous volume.
    pub fn random() -> VolumeName {
        VolumeName(stdx::id::random_hex::<32>().into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 1 {
            return Err(NameError::TooShort);
        }
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.as_bytes().iter().all(allowed) {
            return Err(NameError::Characters { name: text.to_owned() });
        }
        if text.len() > LENGTH_MAX { Err(NameError::TooLong) } else { Ok(VolumeName(text.into())) }
    }
}

impl Borrow<str> for VolumeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_dockerds() {
        for name in ["ab", "a.", "0_", "a-b", "data.1_x-", &"a".repeat(255), VolumeName::random().as_str()] {
            assert_eq!(name.parse::<VolumeName>().unwrap().as_str(), name);
        }
        assert_eq!("x".parse::<VolumeName>(), Err(NameError::TooShort));
        assert_eq!("a".repeat(256).parse::<VolumeName>(), Err(NameError::TooLong));
        for name in ["", ".", "..", ".x", "-x", "_x", "a/b", "/a", "a b", "ab\n", "ab\0", "\u{e4}b", "a\u{e4}", "a\\b"]
        {
            let err = name.parse::<VolumeName>().unwrap_err();
            assert!(matches!(name.len(), 1) || matches!(err, NameError::Characters { .. }), "{name:?}: {err}");
        }
        assert_eq!(
            "a/b".parse::<VolumeName>().unwrap_err().to_string(),
            "\"a/b\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        );
    }

    proptest! {
        #[test]
        fn a_name_is_always_one_visible_entry(text in "\\PC{0,300}|[a-z./_-]{1,8}") {
            if let Ok(name) = text.parse::<VolumeName>() {
                prop_assert_eq!(std::path::Path::new(name.as_str()).components().count(), 1);
                prop_assert!(!name.as_str().starts_with('.') && name.as_str().len() <= 255);
            }
        }
    }
}
