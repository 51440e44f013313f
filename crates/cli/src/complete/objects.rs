//! Names of what the daemon has.

use client::container::{self, ListOptions};
use client::{image, network, system, volume};
use serde::Deserialize;

use super::Answer;
use crate::args::{Command, ContextVerb, NetworkVerb, Parsed, Verb};
use crate::commands::Context;
use crate::contexts::DEFAULT;

/// What stands at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Files of this machine.
    Files,
    /// One of these.
    Words(&'static [&'static str]),
    /// Containers in one of these states; in any, if there are none. With this behind the name.
    Containers(&'static [&'static str], &'static str),
    /// Containers that run, as `container:NAME`.
    Modes,
    /// Tags of images.
    Images,
    /// The same, and repositories.
    Repositories,
    /// Volumes, with this behind the name.
    Volumes(&'static str),
    /// Networks.
    Networks,
    /// Contexts.
    Contexts,
    /// Containers, images, volumes and networks.
    Anything,
    /// Drivers of logs.
    LogDrivers,
    /// Drivers of volumes.
    VolumeDrivers,
    /// OCI runtimes.
    Runtimes,
}

const ANY: &[&str] = &[];
const RUNNING: &[&str] = &["running"];
const UP: &[&str] = &["running", "paused", "restarting"];
const DOWN: &[&str] = &["created", "exited", "dead"];

/// What stands behind the positionals of a command.
pub(super) fn wanted(command: &Command, parsed: &Parsed) -> Wanted {
    let count = parsed.positionals.len();
    let nothing = Wanted::Words(&[]);
    let first = |wanted: Wanted| if count == 0 { wanted } else { Wanted::Words(&[]) };
    match command.verb {
        Verb::Run | Verb::Create => first(Wanted::Images),
        Verb::Start => Wanted::Containers(DOWN, ""),
        Verb::Stop | Verb::Kill | Verb::Wait | Verb::Stats => Wanted::Containers(UP, ""),
        Verb::Pause => Wanted::Containers(RUNNING, ""),
        Verb::Unpause => Wanted::Containers(&["paused"], ""),
        Verb::Restart | Verb::Update | Verb::InspectContainer => Wanted::Containers(ANY, ""),
        Verb::Remove if parsed.flag("force") => Wanted::Containers(ANY, ""),
        Verb::Remove => Wanted::Containers(DOWN, ""),
        Verb::Attach | Verb::Exec => first(Wanted::Containers(RUNNING, "")),
        Verb::Top | Verb::Port => first(Wanted::Containers(UP, "")),
        Verb::Checkpoint(_) => first(Wanted::Containers(ANY, "")),
        Verb::Logs | Verb::Rename | Verb::Diff | Verb::Export | Verb::Why => first(Wanted::Containers(ANY, "")),
        Verb::Commit if count == 1 => Wanted::Repositories,
        Verb::Commit => first(Wanted::Containers(ANY, "")),
        Verb::Copy => Wanted::Containers(ANY, ":"),
        Verb::Import => {
            if count == 0 {
                Wanted::Files
            } else {
                nothing
            }
        }
        Verb::Inspect => match parsed.text("type") {
            "" => Wanted::Anything,
            "container" => Wanted::Containers(ANY, ""),
            "image" => Wanted::Images,
            "network" => Wanted::Networks,
            "volume" => Wanted::Volumes(""),
            _ => nothing,
        },
        Verb::InspectImage | Verb::RemoveImage | Verb::Save => Wanted::Images,
        Verb::Images => first(Wanted::Repositories),
        Verb::Tag if count < 2 => Wanted::Images,
        Verb::History | Verb::Pull | Verb::Push => first(Wanted::Images),
        Verb::InspectVolume | Verb::RemoveVolume => Wanted::Volumes(""),
        Verb::CloneVolume | Verb::ExportVolume => first(Wanted::Volumes("")),
        Verb::ImportVolume if count == 1 => Wanted::Files,
        Verb::ImportVolume => first(Wanted::Volumes("")),
        Verb::SnapshotVolume if count == 1 => Wanted::Volumes(""),
        Verb::SnapshotVolume => first(Wanted::Words(&["create", "ls", "restore", "rm"])),
        Verb::InspectNetwork | Verb::Network(NetworkVerb::Remove) => Wanted::Networks,
        Verb::Network(NetworkVerb::Connect) | Verb::Network(NetworkVerb::Disconnect) if count == 0 => Wanted::Networks,
        Verb::Network(NetworkVerb::Connect) | Verb::Network(NetworkVerb::Disconnect) if count == 1 => {
            Wanted::Containers(&[], "")
        }
        Verb::Context(ContextVerb::Inspect | ContextVerb::Remove) => Wanted::Contexts,
        Verb::Context(ContextVerb::Export) if count == 1 => Wanted::Files,
        Verb::Context(ContextVerb::Import) => {
            if count == 1 {
                Wanted::Files
            } else {
                nothing
            }
        }
        Verb::Context(ContextVerb::Export | ContextVerb::Update | ContextVerb::Use) => first(Wanted::Contexts),
        Verb::Completion => first(Wanted::Words(&super::scripts::SHELLS)),
        Verb::Man => Wanted::Files,
        _ => nothing,
    }
}

/// Asks for them: one call, but for what may be anything. Nothing if the daemon does not answer.
pub(super) async fn list(context: &Context, wanted: &Wanted, typed: &str) -> Option<Answer> {
    match wanted {
        Wanted::Files => Some(Answer::files()),
        Wanted::Words(words) => Some(Answer::words(words.iter().copied())),
        Wanted::Containers(states, behind) => {
            // Whoever types a path means a file of this machine.
            if *behind == ":" && typed.starts_with(['/', '.', '~']) {
                return Some(Answer::files());
            }
            let names = containers(context, states).await?.into_iter().map(|name| name + behind);
            let answer = Answer::words(names);
            Some(if behind.is_empty() { answer } else { answer.no_space() })
        }
        Wanted::Modes => {
            let names = containers(context, UP).await?;
            Some(Answer::words(names.iter().map(|name| format!("container:{name}"))))
        }
        Wanted::Images => Some(Answer::words(images(context, false).await?)),
        Wanted::Repositories => Some(Answer::words(images(context, true).await?)),
        Wanted::Volumes(behind) => {
            let names = volumes(context).await?.into_iter().map(|name| name + behind);
            let answer = Answer::words(names);
            Some(if behind.is_empty() { answer } else { answer.no_space() })
        }
        Wanted::Networks => Some(Answer::words(networks(context).await?)),
        Wanted::Contexts => {
            let named = context.store().list().ok()?;
            let named = named.iter().map(|metadata| metadata.name.clone()).filter(|name| name != DEFAULT);
            Some(Answer::words(std::iter::once(DEFAULT.to_owned()).chain(named)))
        }
        Wanted::Anything => {
            let mut names = containers(context, ANY).await?;
            names.extend(images(context, false).await?);
            names.extend(volumes(context).await?);
            names.extend(networks(context).await?);
            Some(Answer::words(names))
        }
        Wanted::LogDrivers => Some(Answer::words(drivers(context, "Log").await?)),
        Wanted::VolumeDrivers => Some(Answer::words(drivers(context, "Volume").await?)),
        Wanted::Runtimes => {
            let info = serde_json::to_value(system::info(&context.client).await.ok()?).ok()?;
            Some(Answer::words(info["Runtimes"].as_object()?.keys().cloned()))
        }
    }
}

/// What of a container counts here; the rest of the answer is not taken apart.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    names: Option<Vec<String>>,
    state: String,
}

async fn containers(context: &Context, states: &[&str]) -> Option<Vec<String>> {
    let options = ListOptions { all: states != RUNNING, ..ListOptions::default() };
    let found: Vec<Container> = container::list(&context.client, &options).await.ok()?.read().ok()?;
    // Docker's own variable.
    let with_ids = std::env::var_os("DOCKER_COMPLETION_SHOW_CONTAINER_IDS").is_some_and(|text| text == "yes");
    let found = found.into_iter().filter(|it| states.is_empty() || states.contains(&it.state.as_str()));
    let names = found.flat_map(|it| {
        let names = it.names.unwrap_or_default().into_iter().map(|name| name.trim_start_matches('/').to_owned());
        with_ids.then_some(it.id).into_iter().chain(names.filter(|name| !name.contains('/'))).collect::<Vec<_>>()
    });
    Some(names.collect())
}

async fn images(context: &Context, with_repositories: bool) -> Option<Vec<String>> {
    let found = image::list(&context.client, &image::ListOptions::default()).await.ok()?;
    let tags = found.iter().flat_map(|image| image.repo_tags.iter());
    let mut names: Vec<String> = tags.filter(|tag| !tag.contains("<none>")).cloned().collect();
    if with_repositories {
        let repositories: Vec<String> =
            names.iter().filter_map(|tag| Some(tag.rsplit_once(':')?.0.to_owned())).collect();
        names.extend(repositories);
        names.sort();
        names.dedup();
    }
    Some(names)
}

async fn volumes(context: &Context) -> Option<Vec<String>> {
    let found = volume::list(&context.client, "").await.ok()?;
    Some(found.volumes.into_iter().map(|volume| volume.name).collect())
}

async fn networks(context: &Context) -> Option<Vec<String>> {
    let found = network::list(&context.client, "").await.ok()?;
    Some(found.into_iter().map(|network| network.name).collect())
}

async fn drivers(context: &Context, kind: &str) -> Option<Vec<String>> {
    let info = serde_json::to_value(system::info(&context.client).await.ok()?).ok()?;
    let names = info["Plugins"][kind].as_array()?.iter().filter_map(|name| name.as_str().map(str::to_owned));
    Some(names.collect())
}
