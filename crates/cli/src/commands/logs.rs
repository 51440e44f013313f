//! `logs`.

use client::call::Answer;
use client::container::{self, LogOptions};
use client::{Client, ClientError};
use jiff::{Timestamp, Zoned};

use super::{Context, successor};
use crate::args::Parsed;
use crate::entries::Entries;
use crate::plan::times;
use crate::report::Exit;
use crate::stream::Output;

/// How a log ends that cannot be followed any further.
const BROKEN: &str = "the daemon ended while the log was followed";

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
    let mut output = Output::new(inspect.config.tty);
    if options.follow && !inspect.config.tty {
        return follow(&context.client, &inspect.id, options, &mut output).await;
    }
    let mut answer = container::logs(&context.client, &inspect.id, &options).await?;
    let ended = loop {
        match answer.next().await {
            Ok(Some(bytes)) => output.write(&bytes).await?,
            Ok(None) => break Ok(()),
            Err(err) => break Err(err),
        }
    };
    match ended {
        // What a terminal shows has no frames, by which we would know where it broke.
        Err(err) if options.follow && err.is_broken_off() => Err(Exit::new(1, BROKEN)),
        Ok(()) if options.follow && breaks_off(&context.client, &inspect.id, &options).await? => {
            Err(Exit::new(1, BROKEN))
        }
        ended => Ok(ended?),
    }
}

/// Follows a log, and with the next daemon where the last one ended.
async fn follow(client: &Client, id: &str, mut options: LogOptions, output: &mut Output) -> Result<(), Exit> {
    let mut entries = Entries::new(std::mem::replace(&mut options.timestamps, true));
    let begin = Timestamp::now();
    let mut answer = container::logs(client, id, &options).await?;
    loop {
        match show(&mut answer, &mut entries, output).await? {
            Err(err) if !err.is_broken_off() => return Err(err.into()),
            Ok(()) if !breaks_off(client, id, &options).await? => return Ok(()),
            _ => {}
        }
        match entries.resume() {
            Some(since) => (options.since, options.tail) = (since, "all".to_owned()),
            // None of what there was is wanted, and all of what came since.
            None if options.tail == "0" => {
                options.since = format!("{}.{:09}", begin.as_second(), begin.subsec_nanosecond());
                options.tail = "all".to_owned();
            }
            None => {}
        }
        answer = successor::ask(client, async || container::logs(client, id, &options).await).await?;
    }
}

async fn show(
    answer: &mut Answer,
    entries: &mut Entries,
    output: &mut Output,
) -> Result<Result<(), ClientError>, Exit> {
    loop {
        match answer.next().await {
            Ok(Some(bytes)) => output.write(&entries.feed(&bytes)).await?,
            Ok(None) => return Ok(Ok(())),
            Err(err) => return Ok(Err(err)),
        }
    }
}

/// Whether the stream ended because the daemon did: one that ends in good order ends its answers.
async fn breaks_off(client: &Client, id: &str, options: &LogOptions) -> Result<bool, ClientError> {
    if !options.until.is_empty() {
        return Ok(false);
    }
    match container::inspect(client, id).await {
        Ok(inspect) => Ok(inspect.state.running),
        Err(err) if successor::is_lost(&err) => Ok(true),
        // Removed: its log ended with it.
        Err(err) if err.is_not_found() => Ok(false),
        Err(err) => Err(err),
    }
}
