//! `why`: why a container ended, restarts, is unhealthy or did not start.

use client::live;

use serde_json::Map;

use super::Context;
use crate::args::Parsed;
use crate::format::template::Format;
use crate::report::Exit;
use crate::say_line;

/// `why CONTAINER`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let why = live::why(&context.client, name).await?;
    let template = match parsed.text("format") {
        "" => {
            say_line!("{}: {}", why.name.trim_start_matches('/'), why.summary);
            why.facts.iter().for_each(|fact| say_line!("  {:<7} {}", fact.kind, fact.text));
            return Ok(());
        }
        "json" => "{{json .}}",
        text => text,
    };
    let refused = |err: &dyn std::fmt::Display| Exit::new(1, format!("template parsing error: {err}"));
    let format = Format::parse(template).map_err(|err| refused(&err))?;
    let value = serde_json::to_value(&why).map_err(|err| Exit::error(&err))?;
    say_line!(
        "{}",
        format.apply_fields("*why.Why", value.as_object().unwrap_or(&Map::new())).map_err(|err| refused(&err))?
    );
    Ok(())
}
