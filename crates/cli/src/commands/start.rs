//! `start`.

use client::ClientError;
use client::container::{self, AttachOptions};

use super::Context;
use super::follow::{Flow, follow};
use crate::args::Parsed;
use crate::detach::DetachKeys;
use crate::report::{Exit, client_error};
use crate::signals::{self, Caught};
use crate::stream::{Session, Wanted};
use crate::term;
use crate::{say_line, warn_line};

/// `start`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let names = &parsed.positionals;
    let (checkpoint, dir) = (parsed.text("checkpoint"), parsed.text("checkpoint-dir"));
    if !parsed.flag("attach") && !parsed.flag("interactive") {
        if !checkpoint.is_empty() {
            let [name] = names.as_slice() else {
                return Err(Exit::new(1, "you cannot restore multiple containers at once"));
            };
            // Docker prints no name here.
            let caught = Caught::ending();
            return tokio::select! {
                started = container::start_from(&context.client, name, checkpoint, dir) => Ok(started?),
                exit = signals::ended(caught) => Err(exit),
            };
        }
        return start_all(context, names).await;
    }
    let [name] = names.as_slice() else {
        return Err(Exit::new(1, "you cannot start and attach multiple containers at once"));
    };
    let inspect = container::inspect(&context.client, name).await?;
    if inspect.config.tty {
        return attached(context, parsed, &inspect).await;
    }
    let caught = Caught::all();
    tokio::select! {
        outcome = attached(context, parsed, &inspect) => outcome,
        exit = signals::forward(&context.client, &inspect.id, caught) => Err(exit),
    }
}

/// What came of one of several that are started.
enum Outcome {
    Started,
    Failed(ClientError),
    /// The user has ended the command, now or before it came to this one.
    Interrupted,
}

async fn start_all(context: &Context, names: &[String]) -> Result<(), Exit> {
    let (mut failed, mut is_interrupted, mut caught) = (Vec::new(), false, Caught::ending());
    for name in names {
        let outcome = tokio::select! {
            biased;
            _ = caught.next(), if !is_interrupted => Outcome::Interrupted,
            started = container::start(&context.client, name), if !is_interrupted => {
                started.map_or_else(Outcome::Failed, |()| Outcome::Started)
            }
            else => Outcome::Interrupted,
        };
        match outcome {
            Outcome::Started => {
                say_line!("{name}");
                continue;
            }
            Outcome::Failed(err) => warn_line!("{}", client_error(&err)),
            // Docker's client goes on to say so of every one.
            Outcome::Interrupted => {
                is_interrupted = true;
                let url = context.client.url(&format!("/containers/{name}/start"));
                warn_line!("error during connect: Post \"{url}\": ");
            }
        }
        failed.push(name.as_str());
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Exit::new(1, format!("Error: failed to start containers: {}", failed.join(", "))))
}

async fn attached(context: &Context, parsed: &Parsed, inspect: &engine_api::container::Inspect) -> Result<(), Exit> {
    let (id, config) = (&inspect.id, &inspect.config);
    let stdin = parsed.flag("interactive") && config.open_stdin;
    let detach_keys = context.detach_keys(parsed);
    let options = AttachOptions { stdin, stdout: true, stderr: true, detach_keys: detach_keys.to_owned() };
    let condition = if inspect.host_config.auto_remove { "removed" } else { "next-exit" };
    let (hijacked, waiting) = tokio::try_join!(
        container::attach(&context.client, id, &options),
        container::wait(&context.client, id, condition),
    )?;
    let wanted = Wanted { stdin, output: true, tty: config.tty, detach_keys: DetachKeys::parse(detach_keys) };
    let session = Session::new(hijacked, wanted)?;
    let (checkpoint, dir) = (parsed.text("checkpoint"), parsed.text("checkpoint-dir"));
    if let Err(err) = container::start_from(&context.client, id, checkpoint, dir).await {
        drop(session);
        if inspect.host_config.auto_remove {
            // Its status is not asked for, only its end.
            let _ = waiting.status().await;
        }
        return Err(err.into());
    }
    let removed = inspect.host_config.auto_remove;
    let flow = Flow { client: &context.client, id, outputs: true, removed, proxied: !config.tty };
    let flow = follow(session, waiting, flow);
    if !config.tty || term::size().is_none() {
        return flow.await.map(drop);
    }
    tokio::select! {
        outcome = flow => outcome.map(drop),
        () = follow_size(context, id) => Ok(()),
    }
}

/// Tells the container the terminal's size, now and whenever it changes, for ever.
pub async fn follow_size(context: &Context, id: &str) {
    let mut changes = Caught::resize();
    loop {
        if let Some((height, width)) = term::size() {
            // It may have ended; then its size is of no interest.
            let _ = container::resize(&context.client, id, height, width).await;
        }
        changes.next().await;
    }
}
