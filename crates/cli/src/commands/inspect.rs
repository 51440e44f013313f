//! `inspect`.

use client::{ClientError, container, image, network, volume};
use errdefs::ErrorKind;
use serde_json::Value;

use super::Context;
use crate::args::{Parsed, Verb};
use crate::format::json;
use crate::format::template::Format;
use crate::report::{Exit, client_error};
use crate::{say_line, warn_line};

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
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in &parsed.positionals {
        match inspect(context, kinds, name, parsed.flag("size")).await {
            Ok(value) => found.push(value),
            Err(message) => failures.push(message),
        }
    }
    // Images have no such size; Docker says so, where it does not know what it will find.
    if parsed.flag("size") && kinds == Kinds::Any && found.iter().any(|value| value.get("RootFS").is_some()) {
        warn_line!("WARNING: --size ignored for image");
    }
    match &format {
        Some(format) => print_formatted(format, &found)?,
        None if parsed.text("format") == "json" => say_line!("{}", Value::Array(found)),
        None => say_line!("{}", json::indented(&Value::Array(found))),
    }
    if failures.is_empty() { Ok(()) } else { Err(Exit::new(1, failures.join("\n"))) }
}

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

async fn inspect(context: &Context, kinds: Kinds, name: &str, size: bool) -> Result<Value, String> {
    let client = &context.client;
    let outcome = match kinds {
        Kinds::Container => container::inspect_raw(client, name, size).await,
        // This would be the path of the list of images.
        Kinds::Image if name.is_empty() => return Err(format!("Error: No such image: {name}")),
        Kinds::Image => image::inspect_raw(client, name).await,
        Kinds::Network => network::inspect_raw(client, name).await,
        Kinds::Volume => volume::inspect_raw(client, name).await,
        Kinds::Any => return any(client, name, size).await,
    };
    decoded(outcome)
}

/// The first of Docker's kinds that has such an object.
async fn any(client: &client::Client, name: &str, size: bool) -> Result<Value, String> {
    // What cannot be an image's name (400) names nothing either.
    let is_missing = |err: &ClientError| err.is_not_found() || err.kind() == ErrorKind::InvalidArgument;
    match container::inspect_raw(client, name, size).await {
        Err(err) if err.is_not_found() => {}
        outcome => return decoded(outcome),
    }
    match image::inspect_raw(client, name).await {
        Err(err) if is_missing(&err) => {}
        outcome => return decoded(outcome),
    }
    match network::inspect_raw(client, name).await {
        Err(err) if is_missing(&err) => {}
        outcome => return decoded(outcome),
    }
    match volume::inspect_raw(client, name).await {
        Err(err) if is_missing(&err) => Err(format!("Error: No such object: {name}")),
        outcome => decoded(outcome),
    }
}

fn decoded(outcome: Result<impl AsRef<[u8]>, ClientError>) -> Result<Value, String> {
    let bytes = outcome.map_err(|err| client_error(&err))?;
    serde_json::from_slice(bytes.as_ref()).map_err(|err| format!("read the daemon's answer: {err}"))
}

pub(super) fn print_formatted(format: &Format, found: &[Value]) -> Result<(), Exit> {
    for value in found {
        let text = format.apply(value).map_err(|err| {
            // Docker ends the line that it could not fill.
            say_line!("");
            Exit::new(1, format!("template parsing error: {err}"))
        })?;
        say_line!("{text}");
    }
    if found.is_empty() {
        // So does Docker's client.
        say_line!("");
    }
    Ok(())
}
