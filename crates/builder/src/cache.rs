//! What outcomes are cached by.

use engine_api::container::Config;
use oci::Digest;
use sha2::{Digest as _, Sha256};

/// The form of keys; another one makes all that was cached something else.
const FORM: &[u8] = b"longshore build 1\0";

/// Equal where the outcome would be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key of a step above `parent`: with the configuration that follows, of which `words` are what history will say, and
/// with what else the outcome depends on.
pub fn key(parent: Option<&Digest>, config: &Config, words: &[String], more: &[String]) -> Key {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(FORM);
    part(parent.map(Digest::as_str).unwrap_or_default().as_bytes());
    // The name of the image that it was begun with is no part of the outcome.
    let config = Config { image: String::new(), ..config.clone() };
    part(&serde_json::to_vec(&config).expect("configurations have string keys and no failing serializers"));
    part(words.len().to_string().as_bytes());
    words.iter().chain(more).for_each(|word| part(word.as_bytes()));
    Key(Digest::from_sha256(&hash.finalize().into()).hex().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_where_outcomes_do() {
        let digest = Digest::from_sha256(&[1; 32]);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let config = |env: &str| Config { env: Some(vec![env.to_owned()]), image: env.to_owned(), ..Config::default() };
        let one = key(Some(&digest), &config("a"), &words(&["x", "y"]), &[]);
        assert_eq!(one, key(Some(&digest), &Config { image: "z".into(), ..config("a") }, &words(&["x", "y"]), &[]));
        for other in [
            key(None, &config("a"), &words(&["x", "y"]), &[]),
            key(Some(&digest), &config("b"), &words(&["x", "y"]), &[]),
            key(Some(&digest), &config("a"), &words(&["xy"]), &[]),
            key(Some(&digest), &config("a"), &words(&["x"]), &words(&["y"])),
        ] {
            assert_ne!(one, other);
        }
    }
}
