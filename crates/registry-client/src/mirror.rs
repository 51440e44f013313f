//! Mirrors: who is asked before a registry, by the registry's name.

use std::collections::BTreeMap;
use std::fmt;

use oci::Reference;

use crate::connection::{Scheme, Url};

/// Docker Hub's name in references, which `registry-mirrors` is about.
pub(crate) const HUB_DOMAIN: &str = "docker.io";

/// What stands for the name of the registry in the address of a mirror of several.
const PLACEHOLDER: &str = "{host}";

/// Someone who has what a registry has. Nobody's credentials are shown to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub(crate) scheme: Scheme,
    pub(crate) authority: String,
    /// What stands before `/v2/`; empty or begins with a slash.
    pub(crate) prefix: String,
    /// What stands behind `/v2/` and before a repository; empty or ends with a slash.
    pub(crate) project: String,
}

/// Which mirrors there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    /// Docker Hub's, in order, each with a slash at its end.
    pub hub: Vec<String>,
    /// Those of registries by name or pattern: `host[:port]`, `*.domain[:port]`, `*`.
    pub by_host: BTreeMap<String, Vec<String>>,
}

/// Why something is no mirror. The sentences are dockerd's where it has them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// It is not said how to speak with it.
    #[error("invalid mirror: no scheme specified for {0:?}: must use either 'https://' or 'http://'")]
    NoScheme(String),
    /// It is said wrongly.
    #[error("invalid mirror: unsupported scheme {scheme:?} in {text:?}: must use either 'https://' or 'http://'")]
    Scheme {
        /// How.
        scheme: String,
        /// The mirror.
        text: String,
    },
    /// More than an address.
    #[error("invalid mirror: query or fragment at end of the URI {0:?}")]
    Query(String),
    /// A secret where everybody reads it.
    #[error("invalid mirror: username/password not allowed in URI {0:?}")]
    User(String),
    /// No address.
    #[error("invalid mirror: {0:?} is not a valid URI")]
    Address(String),
    /// No registry.
    #[error("registry-mirrors-by-host: {0:?} is no registry: write host, host:port, *.domain or *")]
    Pattern(String),
    /// Two registries may have the same repository.
    #[error(
        "registry-mirrors-by-host: {pattern:?} stands for several registries: {mirror:?} must say with {{host}} where each of them is"
    )]
    Ambiguous {
        /// Which ones.
        pattern: String,
        /// The mirror.
        mirror: String,
    },
    /// A registry without mirrors needs no entry.
    #[error("registry-mirrors-by-host: {0:?} has no mirrors")]
    Empty(String),
    /// Two lists, and nobody knows which one counts.
    #[error("docker.io has mirrors in registry-mirrors and in registry-mirrors-by-host: name them in one place")]
    Twice,
}

impl Mirrors {
    /// Checks what an administrator wrote.
    pub fn parse(hub: &[String], by_host: &BTreeMap<String, Vec<String>>) -> Result<Mirrors, MirrorError> {
        if !hub.is_empty() && by_host.contains_key(HUB_DOMAIN) {
            return Err(MirrorError::Twice);
        }
        let mut parsed = Mirrors { hub: normalized(hub)?, by_host: BTreeMap::new() };
        for (pattern, mirrors) in by_host {
            check_pattern(pattern)?;
            if mirrors.is_empty() {
                return Err(MirrorError::Empty(pattern.clone()));
            }
            if let Some(mirror) = mirrors.iter().find(|text| pattern.starts_with('*') && !text.contains(PLACEHOLDER)) {
                return Err(MirrorError::Ambiguous { pattern: pattern.clone(), mirror: mirror.clone() });
            }
            parsed.by_host.insert(pattern.clone(), normalized(mirrors)?);
        }
        Ok(parsed)
    }

    /// The mirrors of a registry, in order: those of its name, else those of the longest pattern that fits.
    pub(crate) fn of(&self, domain: &str) -> Vec<Mirror> {
        let fits = |pattern: &str| match pattern.strip_prefix('*') {
            Some(end) => domain.ends_with(end),
            None => domain == pattern,
        };
        let rank = |pattern: &str| (!pattern.starts_with('*'), pattern.len());
        let found = self.by_host.iter().filter(|(pattern, _)| fits(pattern)).max_by_key(|(pattern, _)| rank(pattern));
        let texts = match found {
            _ if domain == HUB_DOMAIN && !self.hub.is_empty() => &self.hub,
            Some((_, texts)) => texts,
            None => return Vec::new(),
        };
        // What is none was refused with the rest of the configuration, but for a name that does not fit in.
        texts.iter().filter_map(|text| Mirror::parse(&text.replace(PLACEHOLDER, domain)).ok()).collect()
    }
}

impl Mirror {
    fn parse(text: &str) -> Result<Mirror, MirrorError> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        if scheme.is_empty() {
            return Err(MirrorError::NoScheme(text.to_owned()));
        }
        if !matches!(scheme, "http" | "https") {
            return Err(MirrorError::Scheme { scheme: scheme.to_owned(), text: text.to_owned() });
        }
        if text.contains(['?', '#']) {
            return Err(MirrorError::Query(text.to_owned()));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if let Some((user, host)) = authority.rsplit_once('@') {
            let name = user.split(':').next().unwrap_or_default();
            return Err(MirrorError::User(format!("{scheme}://{name}:xxxxx@{host}{path}")));
        }
        let url = Url::parse(text).map_err(|_| MirrorError::Address(text.to_owned()))?;
        let path = path.trim_end_matches('/');
        let (prefix, project) = match path.strip_prefix("/v2") {
            Some("") => ("", String::new()),
            Some(project) if project.starts_with('/') => ("", format!("{}/", &project[1..])),
            _ => (path, String::new()),
        };
        Ok(Mirror { scheme: url.scheme, authority: url.authority, prefix: prefix.to_owned(), project })
    }

    /// Where it greets.
    pub(crate) fn base(&self) -> Url {
        Url { scheme: self.scheme, authority: self.authority.clone(), path: format!("{}/v2/", self.prefix) }
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.base(), self.project)
    }
}

/// Each once, with a slash at its end.
fn normalized(texts: &[String]) -> Result<Vec<String>, MirrorError> {
    let mut all: Vec<String> = Vec::new();
    for text in texts {
        Mirror::parse(&text.replace(PLACEHOLDER, "host"))?;
        let whole = format!("{}/", text.strip_suffix('/').unwrap_or(text));
        if !all.contains(&whole) {
            all.push(whole);
        }
    }
    Ok(all)
}

/// Whether references can name such a registry.
fn check_pattern(pattern: &str) -> Result<(), MirrorError> {
    let example = match pattern.strip_prefix('*') {
        Some("") => return Ok(()),
        Some(end) if end.starts_with('.') => format!("x{end}"),
        Some(_) => String::new(),
        None => pattern.to_owned(),
    };
    let reference = format!("{example}/x").parse::<Reference>();
    match reference.is_ok_and(|reference| reference.domain() == example && reference.path().ends_with('x')) {
        true => Ok(()),
        false => Err(MirrorError::Pattern(pattern.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn parse(hub: &[&str], by_host: &[(&str, &[&str])]) -> Result<Mirrors, String> {
        let by_host = by_host.iter().map(|(host, mirrors)| ((*host).to_owned(), texts(mirrors))).collect();
        Mirrors::parse(&texts(hub), &by_host).map_err(|err| err.to_string())
    }

    #[test]
    fn a_registry_has_the_mirrors_of_its_name_or_of_the_longest_pattern() {
        let mirrors = parse(
            &["http://m:5000", "https://n/docker/", "http://m:5000/"],
            &[
                ("ghcr.io", &["https://h/v2/ghcr"]),
                ("*.corp:5000", &["https://h/{host}"]),
                ("*.b.corp:5000", &["https://b/v2/{host}/"]),
                ("*", &["https://any/{host}/"]),
            ],
        );
        let mirrors = mirrors.unwrap();
        assert_eq!(mirrors.hub, ["http://m:5000/", "https://n/docker/"]);
        let of = |domain: &str| mirrors.of(domain).iter().map(Mirror::to_string).collect::<Vec<_>>();
        assert_eq!(of("docker.io"), ["http://m:5000/v2/", "https://n/docker/v2/"]);
        assert_eq!(of("ghcr.io"), ["https://h/v2/ghcr/"]);
        assert_eq!(of("a.corp:5000"), ["https://h/a.corp:5000/v2/"]);
        assert_eq!(of("a.b.corp:5000"), ["https://b/v2/a.b.corp:5000/"]);
        assert_eq!(of("a.corp"), ["https://any/a.corp/v2/"]);
        let few = parse(&[], &[("docker.io", &["http://x"])]).unwrap();
        assert_eq!(few.of("docker.io").len(), 1);
        assert!(few.of("quay.io").is_empty());
    }

    #[test]
    fn mistakes_are_refused() {
        for (mirror, sentence) in [
            ("m", "no scheme specified for \"m\": must use either 'https://' or 'http://'"),
            ("m:5000", "no scheme specified for \"m:5000\": must use either 'https://' or 'http://'"),
            ("://m", "no scheme specified for \"://m\": must use either 'https://' or 'http://'"),
            ("ftp://m", "unsupported scheme \"ftp\" in \"ftp://m\": must use either 'https://' or 'http://'"),
            ("http://m?x", "query or fragment at end of the URI \"http://m?x\""),
            ("http://m/#x", "query or fragment at end of the URI \"http://m/#x\""),
            ("http://u:p@m/", "username/password not allowed in URI \"http://u:xxxxx@m/\""),
            ("http://", "\"http://\" is not a valid URI"),
        ] {
            assert_eq!(parse(&[mirror], &[]), Err(format!("invalid mirror: {sentence}")));
        }
        for pattern in ["", "https://a.b", "a.b/c", "word", "*a.b", "a.*", "*.", "A b.c", "index.docker.io"] {
            let sentence = format!("{pattern:?} is no registry: write host, host:port, *.domain or *");
            let refused = parse(&[], &[(pattern, &["http://m/{host}"])]);
            assert_eq!(refused, Err(format!("registry-mirrors-by-host: {sentence}")));
        }
        assert!(parse(&[], &[("*", &["http://m"])]).unwrap_err().contains("must say with {host}"));
        assert!(parse(&[], &[("a.b", &[])]).unwrap_err().contains("\"a.b\" has no mirrors"));
        assert!(parse(&["http://m"], &[("docker.io", &["http://n"])]).unwrap_err().contains("in one place"));
    }
}
