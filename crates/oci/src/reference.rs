//! Names of images: what users type, and the one form in which we store it.
//!
//! Grammar and normal form are those of distribution/reference, which every Docker client applies:
//! `busybox` is `docker.io/library/busybox:latest`, and is shown as `busybox:latest` again.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// The registry of a name that states none.
const DEFAULT_DOMAIN: &str = "docker.io";
/// The old name of the default registry, accepted and rewritten.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// The repository prefix of official images on the default registry.
const OFFICIAL: &str = "library/";
/// The tag of a name that states neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// The longest repository name, domain included, that a reference may have (distribution/reference `NameTotalLengthMax`).
const NAME_MAX: usize = 255;

/// `domain/path[:tag][@digest]`, always with its domain.
///
/// Invariant: every part matches the distribution grammar. Without tag and digest it names a repository;
/// [`Reference::with_default_tag`] makes it name an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no [`Reference`]. The texts are those the Docker clients print.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Does not match the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository name has capital letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The repository name is longer than 255 bytes.
    #[error("repository name must not be more than {NAME_MAX} characters")]
    NameTooLong,
    /// 64 hex digits alone would read as an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
}

impl Reference {
    /// The registry's host and optional port: `docker.io`, `127.0.0.1:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository on that registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one is stated.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is stated.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same reference, tagged `latest` if it has neither tag nor digest.
    pub fn with_default_tag(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The repository as users see it: the default domain and `library/` left out, unless that would mean another one.
    pub fn familiar_name(&self) -> String {
        let short = match self.path.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') => rest,
            _ => &self.path,
        };
        let means_this = self.domain == DEFAULT_DOMAIN && split_domain(short).0 == DEFAULT_DOMAIN && !is_id(short);
        if means_this { short.to_owned() } else { format!("{}/{}", self.domain, self.path) }
    }

    /// The reference as users see it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(format!("{}/{}", self.domain, self.path)))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_id(text) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| ReferenceError::Format)?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest)?;
        let (domain, path) = split_domain(name);
        let path = match domain {
            DEFAULT_DOMAIN if !path.contains('/') => format!("{OFFICIAL}{path}"),
            _ => path.to_owned(),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            // What may be a tag is none of it, however many there are.
            let path = path.split(':').next().unwrap_or_default();
            return Err(ReferenceError::Uppercase(path.to_owned()));
        }
        if !is_domain(domain) || !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + path.len() > NAME_MAX {
            return Err(ReferenceError::NameTooLong);
        }
        Ok(Reference { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest })
    }
}

/// Whether it would read as the id of an image.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A colon starts a tag only behind the last slash: before it, it starts a port.
fn split_tag(text: &str) -> Result<(&str, Option<&str>), ReferenceError> {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => {
            if is_tag(tag) {
                Ok((name, Some(tag)))
            } else {
                Err(ReferenceError::Format)
            }
        }
        _ => Ok((text, None)),
    }
}

/// The first component is a domain if it could not be a path component of Docker Hub: it has a dot or a port, is
/// `localhost`, or has capitals.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((LEGACY_DOMAIN, path)) => (DEFAULT_DOMAIN, path),
        Some((first, path))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, path)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().enumerate().all(|(i, b)| word(b) || (i > 0 && matches!(b, b'.' | b'-')))
}

/// Lower-case words joined by `.`, `_`, `__` or dashes.
fn is_path_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let Some((first, last)) = text.bytes().next().zip(text.bytes().last()) else { return false };
    let separators: Vec<&str> =
        text.split(|c: char| is_word(c as u8) && c.is_ascii()).filter(|s| !s.is_empty()).collect();
    is_word(first)
        && is_word(last)
        && separators.iter().all(|s| matches!(*s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

/// A host name, an IPv4 address or a bracketed IPv6 address, with an optional port.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_v6 = |h: &str| h.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => is_v6(v6),
        None => host.split('.').all(is_label),
    };
    host_ok && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_normal_form_and_one_familiar_form() {
        for (typed, normal, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
            ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
            ("me/app", "docker.io/me/app", "me/app"),
            ("docker.io/me.net/app", "docker.io/me.net/app", "docker.io/me.net/app"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("127.0.0.1:5000/a/b__c:v1.2", "127.0.0.1:5000/a/b__c:v1.2", "127.0.0.1:5000/a/b__c:v1.2"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ] {
            let reference: Reference = typed.parse().unwrap();
            assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (normal, familiar), "{typed}");
            assert_eq!(normal.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn what_the_grammar_forbids_is_refused() {
        let hex = "0123456789abcdef".repeat(4);
        for bad in ["", ":", "a:", "-a", "a..b", "a//b", "a/", "a:b:c", "a@sha256:0", "a b", "../x", &hex, "a:-x"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        assert_eq!("Busy:UP:x".parse::<Reference>(), Err(ReferenceError::Uppercase("library/Busy".into())));
        assert_eq!("BusyBox".parse::<Reference>(), Err(ReferenceError::Uppercase("library/BusyBox".into())));
    }

    #[test]
    fn digest_and_tag_together() {
        let text = format!("localhost:5000/a:t@sha256:{}", "0".repeat(64));
        let reference: Reference = text.parse().unwrap();
        assert_eq!((reference.tag(), reference.to_string()), (Some("t"), text));
    }
}
