//! `pull`.

use client::image::{self, PullOptions};
use engine_api::auth::AuthConfig;
use oci::reference::DEFAULT_TAG;
use oci::{Reference, ReferenceError};

use super::Context;
use super::progress::{self, Target};
use crate::args::Parsed;
use crate::credentials::{self, CredentialsError};
use crate::report::{Exit, chain};
use crate::{config, say_line, warn_line};

/// `pull`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let given: Reference = name.parse().map_err(|err: ReferenceError| Exit::new(1, err.to_string()))?;
    let (all, quiet) = (parsed.flag("all-tags"), parsed.flag("quiet"));
    let reference = match (all, given.tag().is_none() && given.digest().is_none()) {
        (true, false) => return Err(Exit::new(1, "tag can't be used with --all-tags/-a")),
        (false, true) => {
            if !quiet {
                say_line!("Using default tag: {DEFAULT_TAG}");
            }
            given.with_default_tag()
        }
        _ => given,
    };
    if reference.digest().is_none() {
        config::check_content_trust(parsed)?;
    }
    // Most images are anybody's: Docker's client goes on without a login, too, and without a word about it.
    let auth = login(context, &reference).unwrap_or_else(|err| without_login(&err));
    let answer = image::pull(&context.client, &options(parsed, &reference, auth)).await?;
    progress::show(answer, Target::Stdout, quiet).await?;
    say_line!("{reference}");
    Ok(())
}

/// What is shown to the image's registry. A login that cannot be read is none.
pub fn login(context: &Context, reference: &Reference) -> Result<AuthConfig, CredentialsError> {
    match credentials::look_up(&context.config, reference.domain()) {
        Err(err @ CredentialsError::Login(_)) => Ok(without_login(&err)),
        outcome => outcome,
    }
}

fn without_login(err: &CredentialsError) -> AuthConfig {
    warn_line!("WARNING: {}", chain(err));
    AuthConfig::default()
}

/// The request for an image: of one tag or digest, or of all tags if the reference names none.
pub fn options(parsed: &Parsed, reference: &Reference, auth: AuthConfig) -> PullOptions {
    request(reference, config::platform(parsed), auth)
}

/// The same for a platform; empty for the daemon's.
pub fn request(reference: &Reference, platform: String, auth: AuthConfig) -> PullOptions {
    let tag = match (reference.digest(), reference.tag()) {
        // Of both, the digest says more.
        (Some(digest), _) => digest.as_str(),
        (None, tag) => tag.unwrap_or_default(),
    };
    PullOptions {
        repository: format!("{}/{}", reference.domain(), reference.path()),
        tag: tag.to_owned(),
        platform,
        auth,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_names_what_is_pulled() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (image, repository, tag) in [
            ("busybox:1", "docker.io/library/busybox", "1"),
            ("index.docker.io/a/b:1", "docker.io/a/b", "1"),
            ("a:5000/b", "a:5000/b", ""),
            (&format!("a.test/b:1@{digest}"), "a.test/b", &digest),
        ] {
            let options = options(&Parsed::default(), &image.parse().unwrap(), AuthConfig::default());
            assert_eq!((&*options.repository, &*options.tag), (repository, tag), "{image}");
        }
    }
}
