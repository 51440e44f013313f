//! `logs`.

use client::container::{self, LogOptions};
use jiff::Zoned;

use super::Context;
use crate::args::Parsed;
use crate::plan::times;
use crate::report::Exit;
use crate::stream::Output;

/// `logs`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let inspect = container::inspect(&context.client, name).await?;
    let time = |flag: &str| match parsed.text(flag) {
        "" => Ok(String::new()),
        text => times::encode(text, &Zoned::now())
            .map_err(|err| Exit::new(1, format!("invalid value for \"{flag}\": {err}"))),
    };
    let options = LogOptions {
        follow: parsed.flag("follow"),
        since: time("since")?,
        until: time("until")?,
        tail: if parsed.given("tail") { parsed.text("tail").to_owned() } else { "all".to_owned() },
        timestamps: parsed.flag("timestamps"),
        details: parsed.flag("details"),
    };
    let mut answer = container::logs(&context.client, &inspect.id, &options).await?;
    let mut output = Output::new(inspect.config.tty);
    while let Some(bytes) = answer.next().await? {
        output.write(&bytes).await?;
    }
    Ok(())
}
