//! `history`.

use std::time::{SystemTime, UNIX_EPOCH};

use client::image;
use engine_api::image::HistoryItem;
use stdx::time::Rfc3339;

use super::Context;
use crate::args::Parsed;
use crate::format::listing::{Listing, Row, Shape};
use crate::format::{ellipsis, short_id, units};
use crate::report::Exit;
use crate::say;

const TITLES: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// 2000-01-01: Docker's client believes nothing before it.
const EPOCH: i64 = 946_684_800;

/// `history`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let human = parsed.flag_or("human", true);
    let created = if human { "CreatedSince" } else { "CreatedAt" };
    let quiet = parsed.flag("quiet") && matches!(parsed.text("format"), "" | "table");
    let shape = Shape::parse(parsed.text("format"), quiet, vec!["ID", created, "CreatedBy", "Size", "Comment"]);
    let platform = super::save::wanted_platform(parsed)?;
    let items = image::history(&context.client, name, &platform).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let full = parsed.flag("no-trunc");
    let rows = items.iter().map(|item| row(item, now, human, full)).collect();
    let listing = Listing { titles: TITLES, rows, type_name: "*image.historyContext" };
    say!("{}", listing.render(&shape)?);
    Ok(())
}

fn row(item: &HistoryItem, now: i64, human: bool, full: bool) -> Row {
    let command = item.created_by.replace('\t', " ");
    let size = if human { units::human_size(item.size as f64, 3) } else { item.size.to_string() };
    let moment = UNIX_EPOCH + std::time::Duration::from_secs(item.created.max(0) as u64);
    // The image does not say, or its builder left it out for the sake of reproducible bytes.
    let since = match item.created {
        ..=EPOCH => "N/A".to_owned(),
        created => format!("{} ago", units::human_duration(now - created)),
    };
    let fields = [
        ("Comment", item.comment.clone()),
        ("CreatedAt", Rfc3339(moment).to_string()),
        ("CreatedBy", if full { command } else { ellipsis(&command, 45) }),
        ("CreatedSince", since),
        ("ID", if full { item.id.clone() } else { short_id(&item.id).to_owned() }),
        ("Size", size),
    ];
    Row::of(fields)
}
