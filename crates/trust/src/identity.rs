//! Whether what was signed is called what was asked for.

use oci::Reference;

/// Which name a signature must have been made under, for an image that was asked for as some reference
/// (containers-policy.json, `signedIdentity`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The same, with its tag or digest.
    Exact,
    /// The same; of an image that was asked for by digest, the repository alone. The default.
    RepositoryDigestOrExact,
    /// The same repository. cosign signs no tags: its signatures need this one.
    Repository,
    /// This one, whatever was asked for.
    ExactReference(Reference),
    /// Anything in this repository, whatever was asked for.
    ExactRepository(Reference),
    /// The same, with the beginning of the name replaced: for mirrors. As with the default, otherwise.
    Remap {
        /// What was asked for begins with this, or is taken as it is.
        prefix: String,
        /// What stands there in signatures.
        signed_prefix: String,
    },
}

impl Identity {
    /// Whether an image that was asked for as `asked` may bear a signature made for `signed`.
    pub fn allows(&self, asked: &Reference, signed: &Reference) -> bool {
        match self {
            Identity::Exact => is_exact(signed) && is_exact(asked) && signed == asked,
            Identity::RepositoryDigestOrExact => exact_or_digest(asked, signed),
            Identity::Repository => repository(signed) == repository(asked),
            Identity::ExactReference(wanted) => is_exact(signed) && signed == wanted,
            Identity::ExactRepository(wanted) => repository(signed) == repository(wanted),
            Identity::Remap { prefix, signed_prefix } => {
                remap(asked, prefix, signed_prefix).is_some_and(|asked| exact_or_digest(&asked, signed))
            }
        }
    }
}

fn exact_or_digest(asked: &Reference, signed: &Reference) -> bool {
    match asked.digest() {
        Some(_) => repository(signed) == repository(asked),
        None => is_exact(signed) && signed == asked,
    }
}

fn is_exact(reference: &Reference) -> bool {
    reference.tag().is_some() || reference.digest().is_some()
}

fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.domain(), reference.path())
}

/// The reference under its other name; itself where it has none. The prefix ends where a part of the name does.
fn remap(asked: &Reference, prefix: &str, signed_prefix: &str) -> Option<Reference> {
    let name = repository(asked);
    let whole = asked.to_string();
    let begins = name == prefix || (name.starts_with(prefix) && name[prefix.len()..].starts_with('/'));
    match begins {
        true => format!("{signed_prefix}{}", &whole[prefix.len()..]).parse().ok(),
        false => Some(asked.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn names_match_as_containers_image_matches_them() {
        let digest = format!("r.io/a/b@sha256:{}", "1".repeat(64));
        let remap =
            |prefix: &str, signed: &str| Identity::Remap { prefix: prefix.into(), signed_prefix: signed.into() };
        for (identity, asked, signed, allowed) in [
            (Identity::Exact, "r.io/a/b:1", "r.io/a/b:1", true),
            (Identity::Exact, "r.io/a/b:1", "r.io/a/b:2", false),
            (Identity::Exact, "r.io/a/b:1", "r.io/a/b", false),
            (Identity::Exact, &digest, "r.io/a/b:1", false),
            (Identity::RepositoryDigestOrExact, &digest, "r.io/a/b:1", true),
            (Identity::RepositoryDigestOrExact, &digest, "r.io/a/c:1", false),
            (Identity::RepositoryDigestOrExact, "r.io/a/b:1", "r.io/a/b:2", false),
            (Identity::RepositoryDigestOrExact, "r.io/a/b:1", "r.io/a/b", false),
            (Identity::RepositoryDigestOrExact, "busybox:1", "docker.io/library/busybox:1", true),
            (Identity::Repository, "r.io/a/b:1", "r.io/a/b", true),
            (Identity::Repository, "r.io/a/b:1", "r.io/a/b:2", true),
            (Identity::Repository, "r.io/a/b:1", "r.io/a", false),
            (Identity::ExactReference(reference("x.io/y:z")), "r.io/a/b:1", "x.io/y:z", true),
            (Identity::ExactReference(reference("x.io/y:z")), "r.io/a/b:1", "r.io/a/b:1", false),
            (Identity::ExactRepository(reference("x.io/y")), "r.io/a/b:1", "x.io/y:3", true),
            (Identity::ExactRepository(reference("x.io/y")), "r.io/a/b:1", "x.io/yy:3", false),
            (remap("r.io/a", "vendor.io/c"), "r.io/a/b:1", "vendor.io/c/b:1", true),
            (remap("r.io/a", "vendor.io/c"), "r.io/a/b:1", "r.io/a/b:1", false),
            (remap("r.io/a/b", "vendor.io/c"), "r.io/a/bb:1", "r.io/a/bb:1", true),
            (remap("r.io/a/b", "vendor.io/c"), "r.io/a/b:1", "vendor.io/c:1", true),
            (remap("r.io", "vendor.io"), "r.io/a/b:1", "vendor.io/a/b:1", true),
        ] {
            assert_eq!(
                identity.allows(&reference(asked), &reference(signed)),
                allowed,
                "{identity:?} {asked} {signed}"
            );
        }
    }
}
