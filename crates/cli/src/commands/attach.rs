//! `attach`.

use client::container::{self, AttachOptions};
use engine_api::container::Inspect;

use super::follow::{Flow, follow};
use super::{Context, start::follow_size};
use crate::args::Parsed;
use crate::detach::DetachKeys;
use crate::report::Exit;
use crate::signals::{self, Caught};
use crate::stream::{Ended, Session, Wanted};
use crate::term;

/// `attach`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let inspect = container::inspect(&context.client, name).await?;
    check_state(&inspect)?;
    if !parsed.flag_or("sig-proxy", true) || inspect.config.tty {
        return attached(context, parsed, &inspect).await;
    }
    let caught = Caught::all();
    tokio::select! {
        outcome = attached(context, parsed, &inspect) => outcome,
        exit = signals::forward(&context.client, &inspect.id, caught) => Err(exit),
    }
}

fn check_state(inspect: &Inspect) -> Result<(), Exit> {
    let refusal = match &inspect.state {
        state if !state.running => "You cannot attach to a stopped container, start it first",
        state if state.paused => "You cannot attach to a paused container, unpause it first",
        state if state.restarting => "You cannot attach to a restarting container, wait until it is running",
        _ => return Ok(()),
    };
    Err(Exit::new(1, refusal))
}

async fn attached(context: &Context, parsed: &Parsed, inspect: &Inspect) -> Result<(), Exit> {
    let (id, config) = (&inspect.id, &inspect.config);
    let stdin = !parsed.flag("no-stdin") && config.open_stdin;
    term::check_tty(!parsed.flag("no-stdin"), config.tty)?;
    let detach_keys = context.detach_keys(parsed);
    let options = AttachOptions { stdin, stdout: true, stderr: true, detach_keys: detach_keys.to_owned() };
    let (hijacked, waiting) =
        tokio::try_join!(container::attach(&context.client, id, &options), container::wait(&context.client, id, ""),)?;
    let wanted = Wanted { stdin, output: true, tty: config.tty, detach_keys: DetachKeys::parse(detach_keys) };
    let proxied = parsed.flag_or("sig-proxy", true) && !config.tty;
    let flow = Flow { client: &context.client, id, outputs: true, removed: false, proxied };
    let flow = follow(Session::new(hijacked, wanted)?, waiting, flow);
    let flow = async {
        match flow.await? {
            Ended::Output => Ok(()),
            // Docker's client says so here and in `exec`, and not in `run` and `start`.
            Ended::Detached => Err(Exit::new(1, "read escape sequence")),
        }
    };
    let Some((height, width)) = term::size().filter(|_| config.tty) else { return flow.await };
    let resize = async {
        // A shell draws its prompt again only when the size changes: so it gets another one first.
        let _ = container::resize(&context.client, id, height + 1, width + 1).await;
        follow_size(context, id).await;
    };
    tokio::select! {
        outcome = flow => outcome,
        () = resize => Ok(()),
    }
}
