//! `volume export`, `import`, `clone` and `snapshot`.

use std::fs::File;
use std::io::{self, IsTerminal, Read};

use client::volume;
use serde_json::Value;

use super::changes::Output;
use super::load::upload;
use super::{Context, Outcomes};
use crate::args::Parsed;
use crate::format::listing::{Listing, Row, Shape};
use crate::format::units;
use crate::report::{Exit, go_error};
use crate::{say, say_line};

const TITLES: &[(&str, &str)] = &[("Name", "SNAPSHOT"), ("CreatedAt", "CREATED AT"), ("Size", "SIZE")];

/// `volume export`
pub async fn export(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let path = parsed.text("output");
    if path.is_empty() && io::stdout().is_terminal() {
        return Err(Exit::new(1, "cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    let mut answer = volume::export(&context.client, name).await?;
    let mut output = if path.is_empty() { None } else { Some(Output::begin(path, "export volume")?) };
    while let Some(piece) = answer.next().await? {
        match &mut output {
            Some(output) => output.write(&piece)?,
            None => crate::console::write(&piece),
        }
    }
    output.map_or(Ok(()), Output::end)
}

/// `volume import`
pub async fn import(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let file: Box<dyn Read + Send> = match parsed.positionals.get(1).map_or("-", String::as_str) {
        "-" if io::stdin().is_terminal() => {
            return Err(Exit::new(1, "cowardly refusing to read an archive from a terminal. Name a file or redirect"));
        }
        "-" => Box::new(io::stdin()),
        path => Box::new(File::open(path).map_err(|err| Exit::new(1, format!("open {path}: {}", go_error(&err))))?),
    };
    say_line!("{}", volume::import(&context.client, name, upload(file)).await?.name);
    Ok(())
}

/// `volume clone`
pub async fn clone(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let [source, target] = parsed.positionals.as_slice() else { return Ok(()) };
    say_line!("{}", volume::clone(&context.client, source, target).await?.name);
    Ok(())
}

/// `volume snapshot`
pub async fn snapshot(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let words: Vec<&str> = parsed.positionals.iter().map(String::as_str).collect();
    match words[..] {
        ["create", name] => create(context, name, "").await,
        ["create", name, snapshot] => create(context, name, snapshot).await,
        ["ls" | "list", name] => list(context, name, parsed).await,
        ["restore", name, snapshot] => {
            volume::restore(&context.client, name, snapshot).await?;
            say_line!("{snapshot}");
            Ok(())
        }
        ["rm" | "remove", name, _, ..] => {
            let mut outcomes = Outcomes::default();
            for snapshot in &words[2..] {
                let removed = volume::remove_snapshot(&context.client, name, snapshot).await;
                outcomes.note(removed.map(|()| (*snapshot).to_owned()));
            }
            outcomes.finish()
        }
        _ => Err(Exit::new(1, context.with_help("volume snapshot", &complaint(&words)))),
    }
}

fn complaint(words: &[&str]) -> String {
    match words.first() {
        Some(&"create") => "'create' needs a volume, and may have a name: create VOLUME [SNAPSHOT]".to_owned(),
        Some(&"ls" | &"list") => "'ls' needs a volume: ls VOLUME".to_owned(),
        Some(&"restore") => "'restore' needs a volume and a snapshot: restore VOLUME SNAPSHOT".to_owned(),
        Some(&"rm" | &"remove") => "'rm' needs a volume and snapshots: rm VOLUME SNAPSHOT...".to_owned(),
        other => format!("unknown action {:?}: create, ls, restore or rm", other.copied().unwrap_or_default()),
    }
}

async fn create(context: &Context, name: &str, snapshot: &str) -> Result<(), Exit> {
    say_line!("{}", volume::snapshot(&context.client, name, snapshot).await?.name);
    Ok(())
}

async fn list(context: &Context, name: &str, parsed: &Parsed) -> Result<(), Exit> {
    let quiet = parsed.flag("quiet");
    let format = if quiet && parsed.text("format").is_empty() { "{{.Name}}" } else { parsed.text("format") };
    let shape = Shape::parse(format, false, vec!["Name", "CreatedAt", "Size"]);
    let found = volume::snapshots(&context.client, name).await?;
    let rows = found.iter().map(|snapshot| {
        let size = match snapshot.size {
            -1 => "N/A".to_owned(),
            bytes => units::human_size(bytes as f64, 4),
        };
        let fields = [("CreatedAt", snapshot.created_at.clone()), ("Name", snapshot.name.clone()), ("Size", size)];
        Row { fields: fields.into_iter().map(|(name, text)| (name, Value::String(text))).collect(), ..Row::default() }
    });
    let listing = Listing { titles: TITLES, rows: rows.collect(), type_name: "*formatter.snapshotContext" };
    say!("{}", listing.render(&shape)?);
    Ok(())
}
