//! `port --exposure`: who reaches which port, which Docker's client does not tell.

use client::live;
use engine_api::exposure::{ExposedPort, Reach};

use crate::args::Parsed;
use crate::commands::Context;
use crate::format::listing::{Listing, Row, Shape};
use crate::format::short_id;
use crate::report::Exit;
use crate::say;

const TITLES: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Name", "CONTAINER"),
    ("Network", "NETWORK"),
    ("Port", "PORT"),
    ("Family", "FAMILY"),
    ("Address", "ADDRESS"),
    ("By", "BY"),
    ("Reach", "REACH"),
    ("ReachedFrom", "REACHED FROM"),
];

/// `port --exposure [CONTAINER]`
pub(super) async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let name = parsed.positionals.first().map_or("", String::as_str);
    let exposed = live::exposure(&context.client, name).await?;
    let columns = vec!["Name", "Port", "Family", "Address", "By", "Reach", "ReachedFrom"];
    let shape = Shape::parse(parsed.text("format"), false, columns);
    let rows = exposed.into_iter().map(row).collect();
    let listing = Listing { titles: TITLES, rows, type_name: "*formatter.exposureContext" };
    say!("{}", listing.render(&shape)?);
    Ok(())
}

fn row(one: ExposedPort) -> Row {
    let reach = match one.reach {
        Reach::Host => "host",
        Reach::Networks => "networks",
        Reach::Everybody => "everybody",
    };
    Row::of([
        ("Address", one.address),
        ("By", one.by),
        ("Family", one.family),
        ("ID", short_id(&one.id).to_owned()),
        ("Name", one.name),
        ("Network", one.network),
        ("Port", one.port),
        ("Reach", reach.to_owned()),
        ("ReachedFrom", one.reached_from),
    ])
}
