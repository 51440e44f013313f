//! `events`.

use client::lines::Documents;
use client::system;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};

use super::Context;
use crate::args::Parsed;
use crate::format::template::{Format, FormatError};
use crate::plan::{filters, times};
use crate::report::Exit;
use crate::say_line;

/// `events`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let format = match parsed.text("format") {
        "" => None,
        "json" => Some(parse("{{json .}}")?),
        text => Some(parse(text)?),
    };
    let time = |flag: &str| match parsed.text(flag) {
        "" => Ok(String::new()),
        text => times::encode(text, &Zoned::now()).map_err(|err| Exit::error(&err)),
    };
    let filters = filters::encode(parsed.list("filter").iter().map(String::as_str));
    let mut answer = system::events(&context.client, &time("since")?, &time("until")?, &filters).await?;
    let mut documents = Documents::default();
    while let Some(bytes) = answer.next().await? {
        documents.feed(&bytes);
        while let Some(event) = documents.take::<Value>() {
            let event = event.map_err(|err| Exit::error(&err))?;
            match &format {
                None => say_line!("{}", line(&event)),
                Some(format) => {
                    let text = format.apply(TYPE_NAME, &event);
                    say_line!("{}", text.map_err(|err| Exit::new(1, format!("template parsing error: {err}")))?);
                }
            }
        }
    }
    Ok(())
}

/// Go's name of what a template is applied to.
const TYPE_NAME: &str = "*events.Message";

/// Parses a template, and tries it before anything happens that it could be applied to.
fn parse(text: &str) -> Result<Format, Exit> {
    let empty = json!({
        "status": "", "id": "", "from": "", "Type": "", "Action": "", "Actor": {"ID": "", "Attributes": {}},
        "scope": "", "time": 0, "timeNano": 0
    });
    let refused = |err: FormatError| Exit::new(64, format!("Error parsing format: {err}"));
    let format = Format::parse(text).map_err(refused)?;
    match format.apply(TYPE_NAME, &empty) {
        Err(err) if err.is_missing_field() => Err(refused(err)),
        // What an empty event has nothing for may be there in others.
        _ => Ok(format),
    }
}

/// `2026-01-01T00:00:00.000000000Z container start ID (image=busybox, name=a)`
fn line(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let mut line = match (event["timeNano"].as_i64(), event["time"].as_i64()) {
        (Some(nanos), _) if nanos != 0 => local_time(Timestamp::from_nanosecond(i128::from(nanos)).ok()),
        (_, Some(seconds)) => local_time(Timestamp::from_second(seconds).ok()),
        _ => String::new(),
    };
    line = format!("{line} {} {} {}", text(&event["Type"]), text(&event["Action"]), text(&event["Actor"]["ID"]));
    let mut attributes: Vec<String> = match event["Actor"]["Attributes"].as_object() {
        Some(attributes) => attributes.iter().map(|(name, value)| format!("{name}={}", text(value))).collect(),
        None => Vec::new(),
    };
    attributes.sort();
    if !attributes.is_empty() {
        line = format!("{line} ({})", attributes.join(", "));
    }
    line
}

fn local_time(timestamp: Option<Timestamp>) -> String {
    let Some(timestamp) = timestamp else { return String::new() };
    let zoned = timestamp.to_zoned(TimeZone::system());
    let zone = if zoned.offset().seconds() == 0 { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    format!("{}{zone}", zoned.strftime("%Y-%m-%dT%H:%M:%S.%9f"))
}
