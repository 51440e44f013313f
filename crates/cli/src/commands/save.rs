//! `save`.

use std::io::{self, IsTerminal};

use client::image;
use engine_api::platform;

use super::Context;
use super::changes::Output;
use crate::args::Parsed;
use crate::report::Exit;

/// `save`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let wanted = wanted_platform(parsed)?;
    let path = parsed.text("output");
    if path.is_empty() && io::stdout().is_terminal() {
        return Err(Exit::new(1, "cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    let mut output = if path.is_empty() { None } else { Some(Output::begin(path, "save image")?) };
    let mut answer = image::save(&context.client, &parsed.positionals, &wanted).await?;
    while let Some(piece) = answer.next().await? {
        match &mut output {
            Some(output) => output.write(&piece)?,
            None => crate::console::write(&piece),
        }
    }
    output.map_or(Ok(()), Output::end)
}

/// `--platform`; empty if it is not given.
pub(super) fn wanted_platform(parsed: &Parsed) -> Result<String, Exit> {
    match parsed.text("platform") {
        "" => Ok(String::new()),
        text => platform::parse(text).map_err(|err| Exit::new(1, format!("invalid platform: {err}"))),
    }
}
