//! What snapshots are called.

use std::fmt;
use std::str::FromStr;

use oci::{Digest, DigestError};
use sha2::{Digest as _, Sha256};

/// The state that a chain of layers makes (image-spec v1.1 config.md, "Layer ChainID").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// The states after each of these layers, lowest first.
    pub fn chain(diff_ids: &[Digest]) -> Vec<ChainId> {
        let mut chain: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            let next = match chain.last() {
                None => diff_id.clone(),
                Some(ChainId(below)) => {
                    Digest::from_sha256(&Sha256::digest(format!("{below} {diff_id}").as_bytes()).into())
                }
            };
            chain.push(ChainId(next));
        }
        chain
    }

    /// The name of its directory.
    pub(crate) fn name(&self) -> &str {
        &self.0.hex()[..32]
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ChainId {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(ChainId(text.parse()?))
    }
}

/// What a container's snapshot is called: its id.
///
/// Invariant: a file name of letters, digits, `_`, `.` and `-` that begins with a letter or digit, at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotKey(Box<str>);

/// A text that names no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid snapshot key {0:?}")]
pub struct SnapshotKeyError(pub String);

impl SnapshotKey {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotKey {
    type Err = SnapshotKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        match starts && text.len() <= 128 && text.bytes().all(inner) {
            true => Ok(SnapshotKey(text.into())),
            false => Err(SnapshotKeyError(text.to_owned())),
        }
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let layer = |digit: &str| format!("sha256:{}", digit.repeat(64)).parse::<Digest>().unwrap();
        let chain = ChainId::chain(&[layer("1"), layer("2"), layer("1")]);
        assert_eq!(chain[0].0, layer("1"));
        // printf 'sha256:11.. sha256:22..' | sha256sum
        assert_eq!(
            chain[1].to_string(),
            Digest::from_sha256(&Sha256::digest(format!("{} {}", layer("1"), layer("2"))).into()).to_string()
        );
        assert_ne!(chain[2], chain[0]);
        assert!(ChainId::chain(&[]).is_empty());
    }

    #[test]
    fn keys_are_plain_file_names() {
        for good in ["a", "0123456789ab", "a.b_c-d"] {
            assert_eq!(good.parse::<SnapshotKey>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "../x", "a/b", "-a", "a\0", &"a".repeat(129)] {
            assert!(bad.parse::<SnapshotKey>().is_err(), "{bad:?}");
        }
    }
}
