//! `build --on-error=shell`: a shell in what a command that failed has left.

use std::io::{self, IsTerminal};

use client::container::{self, CommitOptions, RemoveOptions};
use client::image;

use crate::args::{self, Parsed, tables};
use crate::commands::{Context, run};
use crate::report::Exit;
use crate::warn_line;

/// The shell that is run.
const SHELL: &str = "/bin/sh";

/// Whether the user wants one; refused where nobody could use it.
pub(super) fn is_wanted(parsed: &Parsed) -> Result<bool, Exit> {
    match parsed.text("on-error") {
        "" => Ok(false),
        "shell" if io::stdin().is_terminal() && io::stdout().is_terminal() => Ok(true),
        "shell" => Err(Exit::new(1, "--on-error=shell needs a terminal on standard input and output")),
        other => Err(Exit::new(1, format!("invalid value {other:?} for --on-error: it can only be \"shell\""))),
    }
}

/// Tells why a build failed, opens a shell in an image of the container, and removes both; the exit stays the build's.
pub(super) async fn shell(context: &Context, id: &str, exit: Exit) -> Exit {
    if let Some(message) = &exit.message {
        warn_line!("{message}");
    }
    warn_line!("A shell in what the command left; the build's exit code follows when it ends.");
    if let Err(Exit { message: Some(message), .. }) = in_copy(context, id).await {
        warn_line!("{message}");
    }
    let removed =
        container::remove(&context.client, id, RemoveOptions { force: true, volumes: true, link: false }).await;
    if let Err(err) = removed {
        warn_line!("{}", errdefs::chain(&err));
    }
    Exit::silent(exit.status)
}

async fn in_copy(context: &Context, id: &str) -> Result<(), Exit> {
    let made = container::commit(&context.client, id, &CommitOptions::default()).await?;
    let words = ["-it", "--rm", "--pull", "never", "--entrypoint", SHELL, &made].map(str::to_owned);
    let command = tables::find("run").expect("it is a command");
    let flag = |long: &str| command.all_flags().find(|flag| flag.long == long);
    let letter = |letter: char| command.all_flags().find(|flag| flag.short == Some(letter));
    let parsed = args::parse(&flag, &letter, command.interspersed, &words).map_err(|err| Exit::error(&err))?;
    let outcome = run::run(context, &parsed).await;
    image::remove(&context.client, &made, true, true, &[]).await?;
    outcome
}
