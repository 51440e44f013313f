//! `run`.
//!
//! ```text
//! create -> attach, wait (both at once; neither misses anything) -> start -> streams -> exit status
//! ```

use client::container::{self, AttachOptions, Waiting};
use client::hijack::Hijacked;
use engine_api::container::CreateRequest;

use super::create::{self, status_of};
use super::follow::{Flow, follow};
use super::{Context, start};
use crate::args::Parsed;
use crate::detach::DetachKeys;
use crate::report::{Exit, client_error};
use crate::say_line;
use crate::signals::{self, Caught};
use crate::stream::{Session, Wanted};
use crate::term;

/// `run`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let mut request = create::request(context, parsed, "run")?;
    let config = &mut request.config;
    if parsed.flag("detach") {
        if !parsed.list("attach").is_empty() {
            return Err(Exit::new(1, "conflicting options: cannot specify both --attach and --detach"));
        }
        (config.attach_stdin, config.attach_stdout, config.attach_stderr) = (false, false, false);
        config.stdin_once = false;
    } else {
        term::check_tty(config.attach_stdin, config.tty)?;
    }
    let created = create::create(context, parsed, &request).await;
    let id = created.map_err(|failure| failure.into_exit(context, "run"))?;
    if !(request.config.attach_stdin || request.config.attach_stdout || request.config.attach_stderr) {
        return detached(context, parsed, &id).await;
    }
    if !parsed.flag_or("sig-proxy", true) {
        return tokio::select! {
            outcome = attached(context, parsed, &request, &id) => outcome,
            exit = signals::insist() => Err(exit),
        };
    }
    let caught = Caught::all();
    tokio::select! {
        outcome = attached(context, parsed, &request, &id) => outcome,
        exit = signals::forward(&context.client, &id, caught) => Err(exit),
    }
}

async fn detached(context: &Context, parsed: &Parsed, id: &str) -> Result<(), Exit> {
    // Before the start, as Docker prints it: whoever reads us may want to see the container fail by name.
    say_line!("{id}");
    if let Err(err) = container::start(&context.client, id).await {
        return Err(start_failure(context, parsed, None, &err).await);
    }
    Ok(())
}

/// The exit for a container that did not start; one that is to be removed is gone when we return.
async fn start_failure(
    context: &Context,
    parsed: &Parsed,
    waiting: Option<Waiting>,
    err: &client::ClientError,
) -> Exit {
    if let Some(waiting) = waiting.filter(|_| parsed.flag("rm")) {
        // Its status is not asked for, only its end.
        let _ = waiting.status().await;
    }
    let message = client_error(err);
    Exit::new(status_of(&message), context.with_help("run", &message))
}

async fn attached(context: &Context, parsed: &Parsed, request: &CreateRequest, id: &str) -> Result<(), Exit> {
    let config = &request.config;
    let detach_keys = context.detach_keys(parsed);
    let (hijacked, waiting) = connect(context, parsed, request, id, detach_keys).await?;
    let wanted = Wanted {
        stdin: config.attach_stdin,
        output: config.attach_stdout || config.attach_stderr,
        tty: config.tty,
        detach_keys: DetachKeys::parse(detach_keys),
    };
    let outputs = wanted.output;
    let session = Session::new(hijacked, wanted)?;
    if let Err(err) = container::start(&context.client, id).await {
        drop(session);
        return Err(start_failure(context, parsed, Some(waiting), &err).await);
    }
    let (removed, proxied) = (parsed.flag("rm"), parsed.flag_or("sig-proxy", true));
    let flow = Flow { client: &context.client, id, outputs, removed, proxied };
    let flow = follow(session, waiting, flow);
    if !config.tty || term::size().is_none() {
        return flow.await.map(drop);
    }
    tokio::select! {
        outcome = flow => outcome.map(drop),
        () = start::follow_size(context, id) => Ok(()),
    }
}

async fn connect(
    context: &Context,
    parsed: &Parsed,
    request: &CreateRequest,
    id: &str,
    detach_keys: &str,
) -> Result<(Hijacked, Waiting), Exit> {
    let config = &request.config;
    let options = AttachOptions {
        stdin: config.attach_stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
        detach_keys: detach_keys.to_owned(),
    };
    let condition = if parsed.flag("rm") { "removed" } else { "next-exit" };
    let connected = tokio::try_join!(
        container::attach(&context.client, id, &options),
        container::wait(&context.client, id, condition),
    );
    Ok(connected?)
}
