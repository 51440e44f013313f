//! `exec`.

use client::{Client, ClientError, container, exec};
use engine_api::exec::{ExecCreate, ExecInspect, ExecStart};

use super::{Context, successor};
use crate::args::Parsed;
use crate::detach::DetachKeys;
use crate::plan::{Surroundings, environment};
use crate::report::Exit;
use crate::signals::Caught;
use crate::stream::{Ended, Session, Wanted};
use crate::term;

/// `exec`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some((name, command)) = parsed.positionals.split_first() else { return Ok(()) };
    let request = request(context, parsed, command)?;
    if let Err(exit) = check_tty(parsed) {
        // That the container does not exist is the better answer.
        container::inspect(&context.client, name).await?;
        return Err(exit);
    }
    let id = exec::create(&context.client, name, &request).await?.id;
    let start = ExecStart { detach: request.detach, tty: request.tty, console_size: request.console_size };
    if parsed.flag("detach") {
        exec::start_detached(&context.client, &id, &ExecStart { detach: true, ..start }).await?;
        return Ok(());
    }
    let hijacked = exec::start(&context.client, &id, &start).await?;
    let wanted = Wanted {
        stdin: request.attach_stdin,
        output: true,
        tty: request.tty,
        detach_keys: DetachKeys::parse(&request.detach_keys),
    };
    let session = Session::new(hijacked, wanted)?;
    let ended = if request.tty { follow_terminal(context, &id, session).await? } else { session.run().await? };
    if ended == Ended::Detached {
        return Err(Exit::new(1, "read escape sequence"));
    }
    match outcome(&context.client, &id).await?.exit_code.unwrap_or(0) {
        0 => Ok(()),
        code => Err(Exit::silent(code as u8)),
    }
}

/// How it ended: the streams have outlived the daemon, should that have died, and the next one knows.
async fn outcome(client: &Client, id: &str) -> Result<ExecInspect, ClientError> {
    match exec::inspect(client, id).await {
        Err(err) if successor::may_answer(client, &err) => {
            successor::ask(client, async || exec::inspect(client, id).await).await
        }
        outcome => outcome,
    }
}

fn check_tty(parsed: &Parsed) -> Result<(), Exit> {
    if parsed.flag("detach") { Ok(()) } else { term::check_tty(parsed.flag("interactive"), parsed.flag("tty")) }
}

fn request(context: &Context, parsed: &Parsed, command: &[String]) -> Result<ExecCreate, Exit> {
    let surroundings =
        Surroundings { read: &|path| std::fs::read(path), variable: &|name| std::env::var(name).ok(), directory: "" };
    let env = environment::variables(parsed.list("env-file"), parsed.list("env"), &surroundings);
    let env = env.map_err(|err| Exit::new(1, err.to_string()))?;
    let (attached, tty) = (!parsed.flag("detach"), parsed.flag("tty"));
    Ok(ExecCreate {
        user: parsed.text("user").to_owned(),
        privileged: parsed.flag("privileged"),
        tty,
        console_size: term::size().filter(|_| tty).map(|(height, width)| [height.into(), width.into()]),
        attach_stdin: attached && parsed.flag("interactive"),
        attach_stderr: attached,
        attach_stdout: attached,
        detach: !attached,
        detach_keys: context.detach_keys(parsed).to_owned(),
        env: (!env.is_empty()).then_some(env),
        working_dir: parsed.text("workdir").to_owned(),
        cmd: Some(command.to_vec()),
    })
}

/// Copies, tells changes of the size, and leaves the terminal as it was when a signal ends us.
async fn follow_terminal(context: &Context, id: &str, session: Session) -> Result<Ended, Exit> {
    let (mut changes, mut fatal) = (Caught::resize(), Caught::fatal());
    let resize = async {
        loop {
            changes.next().await;
            if let Some((height, width)) = term::size() {
                // It may have ended; then its size is of no interest.
                let _ = exec::resize(&context.client, id, height, width).await;
            }
        }
    };
    tokio::select! {
        ended = session.run() => ended,
        () = resize => Ok(Ended::Output),
        (number, _) = fatal.next() => Err(Exit::silent(128 + number as u8)),
    }
}
