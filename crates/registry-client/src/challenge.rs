//! `WWW-Authenticate` (RFC 9110, 11.6.1): what a registry wants to know.

/// One challenge of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token that the realm gives.
    Bearer {
        /// Where.
        realm: String,
        /// For whom, as the registry calls itself.
        service: Option<String>,
        /// For what, if the registry says so.
        scope: Option<String>,
    },
}

/// Reads one header line; what is not understood is left out.
pub(crate) fn parse(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    for (name, value) in parameters(rest) {
        match &name.to_ascii_lowercase()[..] {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// `name=value` and `name="quoted \" value"`, separated by commas; ends at the first thing that is neither.
fn parameters(text: &str) -> Vec<(&str, String)> {
    let (mut rest, mut found) = (text.trim_start(), Vec::new());
    while let Some((name, value)) = rest.split_once('=') {
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => match unquote(quoted) {
                Some(split) => split,
                None => break,
            },
            None => {
                let end = value.find(',').unwrap_or(value.len());
                (value[..end].trim_end().to_owned(), &value[end..])
            }
        };
        found.push((name.trim(), value));
        match after.trim_start().strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None => break,
        }
    }
    found
}

/// The text up to the closing quote, and what follows.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let (mut text, mut escaped) = (String::new(), false);
    for (index, char) in quoted.char_indices() {
        match char {
            '"' if !escaped => return Some((text, &quoted[index + 1..])),
            '\\' if !escaped => escaped = true,
            _ => {
                text.push(char);
                escaped = false;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.into(), service: owned(service), scope: owned(scope) })
    }

    #[test]
    fn challenges_of_real_registries_and_of_strange_ones() {
        for (header, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\"",
                bearer("https://auth.docker.io/token", Some("registry.docker.io"), None),
            ),
            (
                "bearer  realm=http://a/t , Service=\"a \\\"b\\\", c\", scope=\"repository:a/b:pull,push\", error=\"x\"",
                bearer("http://a/t", Some("a \"b\", c"), Some("repository:a/b:pull,push")),
            ),
            ("Bearer service=\"x\"", None),
            ("Bearer realm=\"never closed", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }
}
