//! `image budget`: what the budget for images would remove now, and why.

use client::image;

use super::Context;
use crate::args::Parsed;
use crate::format::listing::{Listing, Row, Shape};
use crate::format::{short_id, units};
use crate::report::Exit;
use crate::{say, say_line};

const TITLES: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Name", "NAME"),
    ("Platform", "PLATFORM"),
    ("LastUsed", "LAST USED"),
    ("Goes", "GOES"),
    ("Frees", "FREES"),
    ("Why", "WHY"),
];

/// `image budget`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let budget = image::budget(&context.client).await?;
    let size = |bytes: u64| units::human_size(bytes as f64, 4);
    let columns = vec!["Name", "Platform", "LastUsed", "Goes", "Frees", "Why"];
    let shape = Shape::parse(parsed.text("format"), false, columns);
    if let Shape::Table(_) = shape {
        if budget.high_bytes == 0 {
            say_line!(
                "Images take {}. There is no budget: daemon.json has no image-budget-high.",
                size(budget.total_bytes)
            );
            return Ok(());
        }
        say_line!(
            "Images take {}. Above {} they are removed until they take {}.",
            size(budget.total_bytes),
            size(budget.high_bytes),
            size(budget.low_bytes)
        );
    }
    let rows = budget.images.into_iter().map(|image| {
        Row::of([
            ("Frees", size(image.frees_bytes)),
            ("Goes", if image.goes { "yes" } else { "no" }.to_owned()),
            ("ID", short_id(&image.id).to_owned()),
            ("LastUsed", image.last_used),
            ("Name", image.name),
            ("Platform", image.platform),
            ("Why", image.why),
        ])
    });
    let listing = Listing { titles: TITLES, rows: rows.collect(), type_name: "*formatter.budgetContext" };
    say!("{}", listing.render(&shape)?);
    Ok(())
}
