//! `push`.

use client::image::{self, PushOptions};
use engine_api::image::PushedInstead;
use engine_api::platform::{self, Platform};
use oci::reference::DEFAULT_TAG;
use oci::{Reference, ReferenceError};
use serde_json::Value;

use super::progress::{self, Target};
use super::{Context, pull};
use crate::args::Parsed;
use crate::report::Exit;
use crate::{config, console, say, say_line};

/// What `--platform` means, before anything is done.
const NOTE: &str = "Using --platform pushes only the specified platform manifest of a multi-platform image index.
Other components, like attestations, will not be included.
To push the complete multi-platform image, remove the --platform flag.
";

/// `push`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let platform = platform(parsed)?;
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
    if reference.digest().is_some() {
        return Err(Exit::new(1, "cannot push a digest reference"));
    }
    config::check_content_trust(parsed)?;
    let target = if quiet { None } else { Some(Target::Stdout) };
    push(context, &reference, platform, target).await?;
    if quiet {
        say_line!("{reference}");
    }
    Ok(())
}

/// Pushes what has a name; shows how it gets on where there is a target. Answers the digest that it has there, if that was
/// told.
pub(super) async fn push(
    context: &Context,
    reference: &Reference,
    platform: Option<Platform>,
    target: Option<Target>,
) -> Result<Option<String>, Exit> {
    // A registry that wants a login says so itself.
    let auth = pull::login(context, reference).map_err(|err| Exit::error(&err))?;
    let options = PushOptions {
        repository: format!("{}/{}", reference.domain(), reference.path()),
        tag: reference.tag().unwrap_or_default().to_owned(),
        platform,
        auth,
    };
    let answer = image::push(&context.client, &options).await?;
    let (mut notes, mut digest) = (Vec::new(), None);
    let mut told = String::new();
    let pushed = progress::follow(answer, target, &mut told, &mut |fact| {
        if let Some(told) = fact.get("Digest").and_then(|told| told.as_str()) {
            digest = Some(told.to_owned());
        }
        notes.extend(instead(fact));
    })
    .await;
    notes.iter().for_each(|text| say!("{}", note(text)));
    pushed.map(|()| digest)
}

/// What a fact for programs says to people.
fn instead(fact: Value) -> Option<String> {
    let fact: PushedInstead = serde_json::from_value(fact).ok().filter(|fact: &PushedInstead| fact.pushed_instead)?;
    let (index, manifest) = (fact.original_index.digest, fact.selected_manifest.digest);
    // In these colours whatever it is written to, as Docker's client does.
    Some(format!(
        "Not all multiplatform-content is present and only the available single-platform image was pushed\n\
         \x1b[31m{index}\x1b[0m -> \x1b[32m{manifest}\x1b[0m"
    ))
}

/// The platform that is asked for; the environment's default is none here.
fn platform(parsed: &Parsed) -> Result<Option<Platform>, Exit> {
    let text = parsed.text("platform");
    if text.is_empty() {
        return Ok(None);
    }
    let checked = platform::parse(text).map_err(|err| {
        console::warn(format_args!("Invalid platform {text}"));
        Exit::new(1, err.to_string())
    })?;
    say!("{}", note(NOTE));
    let mut parts = checked.split('/').map(str::to_ascii_lowercase);
    let mut next = || parts.next().unwrap_or_default();
    Ok(Some(Platform { os: next(), architecture: next(), variant: next(), ..Platform::default() }))
}

/// A text with a heading, as Docker's client sets it where there is no terminal.
fn note(text: &str) -> String {
    const HEADING: &str = " Info -> ";
    let lines = text.split('\n').enumerate();
    let lines = lines.map(|(index, line)| match index {
        0 => format!("{HEADING}{line}\n"),
        _ => format!("{}{line}\n", " ".repeat(HEADING.len())),
    });
    format!("\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_set_under_their_heading() {
        assert_eq!(note("a\nb\n"), "\n Info -> a\n         b\n         \n");
    }
}
