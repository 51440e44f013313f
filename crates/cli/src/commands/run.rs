//! `run`.
//!
//! ```text
//! create -> attach, wait (both at once; neither misses anything) -> start -> streams -> exit status
//! ```

use std::pin::pin;

use client::container::{self, AttachOptions, Waiting};
use client::hijack::Hijacked;
use engine_api::container::CreateRequest;

use super::create::{self, status_of};
use super::{Context, start};
use crate::args::Parsed;
use crate::detach::DetachKeys;
use crate::report::{Exit, client_error};
use crate::say_line;
use crate::signals::{self, Caught};
use crate::stream::{Ended, Session, Wanted};
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
        return attached(context, parsed, &request, &id).await;
    }
    let caught = Caught::all();
    tokio::select! {
        outcome = attached(context, parsed, &request, &id) => outcome,
        () = signals::forward(&context.client, &id, caught) => Ok(()),
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
    let flow = follow(session, waiting, Flow { outputs, proxied: parsed.flag_or("sig-proxy", true) });
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

/// What [`follow`] has to know of its surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Whether the container's output comes back to us.
    pub outputs: bool,
    /// Whether somebody passes signals on to the container. If not, they end us: with the terminal restored.
    pub proxied: bool,
}

/// Copies streams until the container ends or the user detaches.
pub async fn follow(session: Session, waiting: Waiting, flow: Flow) -> Result<Ended, Exit> {
    if flow.proxied || !session.is_raw() {
        return follow_to_end(session, waiting, flow.outputs).await;
    }
    let mut fatal = Caught::fatal();
    tokio::select! {
        outcome = follow_to_end(session, waiting, flow.outputs) => outcome,
        (number, _) = fatal.next() => Err(Exit::silent(128 + number as u8)),
    }
}

async fn follow_to_end(session: Session, waiting: Waiting, outputs: bool) -> Result<Ended, Exit> {
    let (mut streams, mut status) = (pin!(session.run()), pin!(waiting.status()));
    let status = tokio::select! {
        biased;
        ended = &mut streams => match ended? {
            Ended::Detached => return Ok(Ended::Detached),
            Ended::Output => status.await,
        },
        status = &mut status => {
            // Its last words may still be on the way.
            if outputs {
                streams.await?;
            }
            status
        }
    };
    let status = status?;
    if let Some(error) = status.error {
        return Err(Exit::new(125, format!("Error waiting for container: {}", error.message)));
    }
    match status.status_code {
        0 => Ok(Ended::Output),
        code => Err(Exit::silent(code as u8)),
    }
}
