//! `stop`, `restart`, `kill`, `pause`, `unpause`, `wait`, `rm`, `rename`.

use std::pin::pin;

use client::{ClientError, container};
use engine_api::container::WaitResponse;

use super::{Context, Outcomes, at_once, successor};
use crate::args::{Parsed, Verb};
use crate::report::{Exit, client_error};
use crate::warn_line;

/// `stop` and `restart`
pub async fn stop(context: &Context, verb: Verb, parsed: &Parsed) -> Result<(), Exit> {
    let (signal, timeout) = (parsed.text("signal"), parsed.int("timeout"));
    let mut outcomes = Outcomes::default();
    if verb == Verb::Restart {
        // In the order that was typed, as Docker does: it may be that of their dependencies.
        for name in &parsed.positionals {
            let outcome = container::restart(&context.client, name, signal, timeout).await;
            outcomes.note(outcome.map(|()| name.clone()));
        }
        return outcomes.finish();
    }
    let stop = async |name: &String| container::stop(&context.client, name, signal, timeout).await;
    at_once::each(&parsed.positionals, stop, |name, outcome| outcomes.note(outcome.map(|()| name.clone()))).await;
    outcomes.finish()
}

/// `kill`
pub async fn kill(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let mut outcomes = Outcomes::default();
    let kill = async |name: &String| container::kill(&context.client, name, parsed.text("signal")).await;
    at_once::each(&parsed.positionals, kill, |name, outcome| outcomes.note(outcome.map(|()| name.clone()))).await;
    outcomes.finish()
}

/// `pause` and `unpause`
pub async fn pause(context: &Context, verb: Verb, parsed: &Parsed) -> Result<(), Exit> {
    let mut outcomes = Outcomes::default();
    let client = &context.client;
    let act = async |name: &String| match verb {
        Verb::Pause => container::pause(client, name).await,
        _ => container::unpause(client, name).await,
    };
    at_once::each(&parsed.positionals, act, |name, outcome| outcomes.note(outcome.map(|()| name.clone()))).await;
    outcomes.finish()
}

/// `wait`
pub async fn wait(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let mut outcomes = Outcomes::default();
    for name in &parsed.positionals {
        outcomes.note(wait_one(context, name).await);
    }
    outcomes.finish()
}

async fn wait_one(context: &Context, name: &str) -> Result<String, ClientError> {
    let client = &context.client;
    let waiting = container::wait(client, name, "").await?;
    let mut status = pin!(waiting.status());
    // The next daemon, should this one die, is asked by id: it knows so for a while how a container ended that removed
    // itself, and the name may be another's then.
    let id = tokio::select! {
        biased;
        status = &mut status => return Ok(exit_code(&status?)),
        inspect = container::inspect(client, name) => inspect.map_or_else(|_| name.to_owned(), |inspect| inspect.id),
    };
    let status = match status.await {
        Err(err) if err.is_broken_off() => {
            successor::ask(client, async || container::wait(client, &id, "").await?.status().await).await
        }
        status => status,
    };
    Ok(exit_code(&status?))
}

fn exit_code(status: &WaitResponse) -> String {
    status.status_code.to_string()
}

/// `rm`
pub async fn remove(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let (force, volumes, link) = (parsed.flag("force"), parsed.flag("volumes"), parsed.flag("link"));
    let options = container::RemoveOptions { force, volumes, link };
    let mut outcomes = Outcomes::default();
    let remove = async |name: &String| match name.trim_matches('/') {
        "" => None,
        name => Some(container::remove(&context.client, name, options).await),
    };
    at_once::each(&parsed.positionals, remove, |name, outcome| match outcome {
        None => outcomes.fail("container name cannot be empty"),
        // What should go is gone: with --force that is success, with a word about it.
        Some(Err(err)) if force && err.is_not_found() => warn_line!("{}", client_error(&err)),
        Some(outcome) => outcomes.note(outcome.map(|()| name.clone())),
    })
    .await;
    outcomes.finish()
}

/// `rename`
pub async fn rename(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let [from, to] = parsed.positionals.as_slice() else { return Ok(()) };
    let (from, to) = (from.trim(), to.trim());
    if from.is_empty() || to.is_empty() {
        return Err(Exit::new(1, "Error: Neither old nor new names may be empty"));
    }
    container::rename(&context.client, from, to)
        .await
        .map_err(|err| Exit::new(1, format!("{}\nError: failed to rename container named {from}", client_error(&err))))
}
