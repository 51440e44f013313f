//! `top`.

use client::live;

use super::Context;
use crate::args::Parsed;
use crate::format::tabwriter;
use crate::report::Exit;
use crate::say;

/// `top CONTAINER [ps OPTIONS]`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some((name, arguments)) = parsed.positionals.split_first() else { return Ok(()) };
    let top = live::top(&context.client, name, &arguments.join(" ")).await?;
    let lines = [top.titles].into_iter().chain(top.processes);
    let text: String = lines.map(|fields| fields.join("\t") + "\n").collect();
    say!("{}", tabwriter::align_with(&text, 20, 3));
    Ok(())
}
