//! What a policy says something of: `host/path:tag`, `host/path@digest`, `host/path`, `host/part`, `host`, `*.domain`, or everything.

use oci::Reference;

/// The registry that goes by several names.
const HUB: &str = "docker.io";

/// The others: what Docker's configuration calls it, and where its images are served.
const HUB_ALIASES: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// The port of HTTPS, which a name need not say.
const HTTPS: &str = ":443";

/// What a policy may say something of, narrowest first (containers-policy.json, "docker").
///
/// A digest is narrower than a tag: of a name that has both, both are asked, or one could be had by saying the other, too.
pub(crate) fn candidates(reference: &Reference) -> Vec<String> {
    let reference = reference.clone().with_default_tag();
    let domain = normal_domain(reference.domain());
    let repository = format!("{domain}/{}", reference.path());
    let mut scopes = Vec::new();
    scopes.extend(reference.digest().map(|digest| format!("{repository}@{digest}")));
    scopes.extend(reference.tag().map(|tag| format!("{repository}:{tag}")));
    scopes.push(repository.clone());
    let mut rest = repository.as_str();
    while let Some((above, _)) = rest.rsplit_once('/') {
        scopes.push(above.to_owned());
        rest = above;
    }
    let mut host = host_of(&domain);
    while let Some((_, above)) = host.split_once('.') {
        scopes.push(format!("*.{above}"));
        host = above;
    }
    scopes
}

/// A scope in the one spelling that is compared: that of the registry's name, the rest has one spelling anyway.
pub(crate) fn normal(scope: &str) -> String {
    match scope.split_once('/') {
        Some((domain, rest)) => format!("{}/{rest}", normal_domain(domain)),
        None if scope.starts_with("*.") => scope.to_ascii_lowercase(),
        None => normal_domain(scope),
    }
}

/// Whether there can be an image of that scope.
pub(crate) fn matches_something(scope: &str) -> bool {
    let scope = normal(scope);
    let is_domain = |domain: &str| {
        let image: Option<Reference> = format!("{domain}/image").parse().ok();
        image.is_some_and(|image| image.domain() == domain)
    };
    match scope.strip_prefix("*.") {
        _ if scope.is_empty() => true,
        Some(above) => host_of(above) == above && is_domain(&format!("host.{above}")),
        None if !scope.contains('/') => is_domain(&scope),
        // An image, or what images are below, as docker.io/library, which is no image.
        None => [scope.clone(), format!("{scope}/image")].iter().any(|name| {
            let image: Option<Reference> = name.parse().ok();
            image.is_some_and(|image| image.to_string() == *name)
        }),
    }
}

/// Hosts are the same in capitals, and with the port that is meant anyway.
fn normal_domain(domain: &str) -> String {
    let domain = domain.to_ascii_lowercase();
    let domain = domain.strip_suffix(HTTPS).filter(|host| host_of(host) == *host).unwrap_or(&domain);
    if HUB_ALIASES.contains(&domain) { HUB.to_owned() } else { domain.to_owned() }
}

/// Without its port. In brackets colons are part of an address.
fn host_of(domain: &str) -> &str {
    let end = match domain.find(']') {
        Some(bracket) => bracket + 1,
        None => domain.find(':').unwrap_or(domain.len()),
    };
    &domain[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(name: &str) -> Vec<String> {
        candidates(&name.parse().unwrap())
    }

    #[test]
    fn a_registry_has_one_spelling() {
        for (scope, expected) in [
            ("", ""),
            ("R.io/a/b:Tag", "r.io/a/b:Tag"),
            ("r.io:443/a", "r.io/a"),
            ("r.io:4430/a", "r.io:4430/a"),
            ("[FE80::1]:443", "[fe80::1]"),
            ("[::443]", "[::443]"),
            ("index.docker.io/library", "docker.io/library"),
            ("Registry-1.docker.io:443", "docker.io"),
            ("*.Example.COM", "*.example.com"),
        ] {
            assert_eq!(normal(scope), expected, "{scope}");
        }
    }

    #[test]
    fn a_port_does_not_hide_the_domain() {
        assert_eq!(scopes("r.x.io:5000/a:1"), ["r.x.io:5000/a:1", "r.x.io:5000/a", "r.x.io:5000", "*.x.io", "*.io"]);
        assert_eq!(scopes("[::1]:5000/a:1"), ["[::1]:5000/a:1", "[::1]:5000/a", "[::1]:5000"]);
        assert_eq!(scopes("R.io:443/a"), ["r.io/a:latest", "r.io/a", "r.io", "*.io"]);
    }

    #[test]
    fn a_tag_and_a_digest_hide_neither_of_them() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let by_digest = format!("r.io/a@{digest}");
        assert_eq!(scopes(&format!("r.io/a:1@{digest}")), [&by_digest[..], "r.io/a:1", "r.io/a", "r.io", "*.io"]);
        assert_eq!(scopes(&by_digest), [&by_digest[..], "r.io/a", "r.io", "*.io"]);
    }

    #[test]
    fn a_scope_that_no_image_has_is_known() {
        let digest = format!("r.io/a@sha256:{}", "1".repeat(64));
        for scope in [
            "",
            "r.io",
            "R.io",
            "r.io:443",
            "localhost",
            "[::1]:5000",
            "*.io",
            "docker.io/library",
            "r.io/a/b:1",
            &digest,
        ] {
            assert!(matches_something(scope), "{scope}");
        }
        for scope in ["busybox", "library/busybox", "r.io/", "r.io/A", "*", "*.", "*.r.io:5000"] {
            assert!(!matches_something(scope), "{scope}");
        }
    }
}
