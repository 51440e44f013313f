//! `inspect`.

use client::{ClientError, container, image, network, volume};
use errdefs::ErrorKind;
use serde_json::Value;

use super::Context;
use crate::args::{Parsed, Verb};
use crate::format::json;
use crate::format::template::Format;
use crate::report::{Exit, client_error};
use crate::{say, say_line, warn_line};

/// What Docker knows, in its order.
const TYPES: &str = "\"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \
    \"service\", \"task\", \"volume\"";

/// Which kinds of objects are looked for, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinds {
    Any,
    Container,
    Image,
    Network,
    Volume,
}

/// `inspect`, `container inspect`, `image inspect`, `volume inspect`
pub async fn run(context: &Context, verb: Verb, parsed: &Parsed) -> Result<(), Exit> {
    let kinds = kinds(verb, parsed)?;
    let format = match parsed.text("format") {
        "" | "json" => None,
        text => Some(Format::parse(text).map_err(|err| Exit::new(64, format!("template parsing error: {err}")))?),
    };
    let platform = if kinds == Kinds::Image { super::save::wanted_platform(parsed)? } else { String::new() };
    let mut outcomes = Vec::new();
    for name in &parsed.positionals {
        let outcome = inspect(context, kinds, name, parsed.flag("size"), &platform).await;
        // What only `volume inspect` looks for is a struct to Docker's client, and nothing else.
        outcomes.push(outcome.map(|found| Found { or_raw: verb != Verb::InspectVolume, ..found }));
    }
    // Images have no such size; Docker says so, where it does not know what it will find.
    let found = || outcomes.iter().flatten();
    if parsed.flag("size") && kinds == Kinds::Any && found().any(|found| found.type_name == IMAGE) {
        warn_line!("WARNING: --size ignored for image");
    }
    if let Some(format) = &format {
        return print_formatted(format, outcomes.into_iter());
    }
    let all = Value::Array(found().map(|found| found.value.clone()).collect());
    match parsed.text("format") {
        "json" => say_line!("{all}"),
        _ => say_line!("{}", json::indented(&all)),
    }
    let failures: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(Exit::new(1, failures.join("\n"))) }
}

/// An object, and what it is in Go.
#[derive(Debug)]
pub(super) struct Found {
    /// As the daemon told it.
    pub(super) value: Value,
    /// Go's name of its type.
    pub(super) type_name: &'static str,
    /// Whether a template that does not fit the type may fit the value.
    pub(super) or_raw: bool,
}

const CONTAINER: &str = "container.InspectResponse";
const IMAGE: &str = "image.InspectResponse";
const NETWORK: &str = "network.Inspect";
const VOLUME: &str = "volume.Volume";

fn kinds(verb: Verb, parsed: &Parsed) -> Result<Kinds, Exit> {
    match (verb, parsed.text("type")) {
        (Verb::InspectContainer, _) | (_, "container") => Ok(Kinds::Container),
        (Verb::InspectImage, _) | (_, "image") => Ok(Kinds::Image),
        (Verb::InspectNetwork, _) | (_, "network") => Ok(Kinds::Network),
        (Verb::InspectVolume, _) | (_, "volume") => Ok(Kinds::Volume),
        (_, "") => Ok(Kinds::Any),
        (_, kind @ ("node" | "service" | "task" | "secret" | "config" | "plugin")) => {
            Err(Exit::new(1, format!("inspecting a {kind} is not supported yet: --type {kind}")))
        }
        (_, kind) => Err(Exit::new(1, format!("unknown type: {kind:?}: must be one of {TYPES}"))),
    }
}

async fn inspect(context: &Context, kinds: Kinds, name: &str, size: bool, platform: &str) -> Result<Found, String> {
    let client = &context.client;
    match kinds {
        Kinds::Container => decoded(container::inspect_raw(client, name, size).await, CONTAINER),
        // This would be the path of the list of images.
        Kinds::Image if name.is_empty() => Err(format!("Error: No such image: {name}")),
        Kinds::Image => decoded(image::inspect_raw(client, name, platform).await, IMAGE),
        Kinds::Network => decoded(network::inspect_raw(client, name).await, NETWORK),
        Kinds::Volume => decoded(volume::inspect_raw(client, name).await, VOLUME),
        Kinds::Any => any(client, name, size).await,
    }
}

/// The first of Docker's kinds that has such an object.
async fn any(client: &client::Client, name: &str, size: bool) -> Result<Found, String> {
    // What cannot be an image's name (400) names nothing either.
    let is_missing = |err: &ClientError| err.is_not_found() || err.kind() == ErrorKind::InvalidArgument;
    match container::inspect_raw(client, name, size).await {
        Err(err) if err.is_not_found() => {}
        outcome => return decoded(outcome, CONTAINER),
    }
    match image::inspect_raw(client, name, "").await {
        Err(err) if is_missing(&err) => {}
        outcome => return decoded(outcome, IMAGE),
    }
    match network::inspect_raw(client, name).await {
        Err(err) if is_missing(&err) => {}
        outcome => return decoded(outcome, NETWORK),
    }
    match volume::inspect_raw(client, name).await {
        Err(err) if is_missing(&err) => Err(format!("Error: No such object: {name}")),
        outcome => decoded(outcome, VOLUME),
    }
}

fn decoded(outcome: Result<impl AsRef<[u8]>, ClientError>, type_name: &'static str) -> Result<Found, String> {
    let bytes = outcome.map_err(|err| client_error(&err))?;
    let value = serde_json::from_slice(bytes.as_ref()).map_err(|err| format!("read the daemon's answer: {err}"))?;
    Ok(Found { value, type_name, or_raw: true })
}

/// Prints a line for each, and fails at the end with what was not found or does not fit.
pub(super) fn print_formatted(
    format: &Format,
    outcomes: impl Iterator<Item = Result<Found, String>>,
) -> Result<(), Exit> {
    let (mut lines, mut failures) = (String::new(), Vec::new());
    for outcome in outcomes {
        let filled = outcome.and_then(|Found { value, type_name, or_raw }| {
            let filled = if or_raw { format.apply_or_raw(type_name, &value) } else { format.apply(type_name, &value) };
            filled.map_err(|err| format!("template parsing error: {err}"))
        });
        match filled {
            Ok(text) => lines.extend([&text, "\n"]),
            Err(failure) => failures.push(failure),
        }
    }
    // With nothing to show, Docker's client prints an empty line.
    say!("{}", if lines.is_empty() { "\n" } else { &lines });
    if failures.is_empty() { Ok(()) } else { Err(Exit::new(1, failures.join("\n"))) }
}
