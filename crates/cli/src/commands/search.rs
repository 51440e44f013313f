//! `search`.

use client::image::{self, SearchOptions};
use engine_api::auth::AuthConfig;
use engine_api::image::SearchResult;
use serde_json::Value;

use super::Context;
use crate::args::Parsed;
use crate::format::ellipsis;
use crate::format::listing::{Listing, Row, Shape};
use crate::plan::filters;
use crate::report::Exit;
use crate::{credentials, say, warn_line};

const TITLES: &[(&str, &str)] =
    &[("Name", "NAME"), ("Description", "DESCRIPTION"), ("StarCount", "STARS"), ("IsOfficial", "OFFICIAL")];

/// As much of a description as a table shows.
const DESCRIPTION_WIDTH: usize = 45;

/// `search`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(term) = parsed.positionals.first() else { return Ok(()) };
    let given = parsed.list("filter");
    if given.iter().any(|filter| filter.split('=').next() == Some("is-automated")) {
        warn_line!(
            "WARNING: the \"is-automated\" filter is deprecated, and searching for \"is-automated=true\" will not yield any results in future."
        );
    }
    let shape = Shape::parse(parsed.text("format"), false, vec!["Name", "Description", "StarCount", "IsOfficial"]);
    let options = SearchOptions {
        term: term.clone(),
        limit: parsed.int("limit").unwrap_or(0),
        filters: filters::encode(given.iter().map(String::as_str)),
        // As Docker's client: a search without a login may do.
        auth: login(context, term),
    };
    let found = image::search(&context.client, &options).await?;
    let (json, full) = (shape.is_json(), parsed.flag("no-trunc"));
    let rows = found.iter().map(|one| row(one, json, full)).collect();
    let listing = Listing { titles: TITLES, rows, type_name: "*registry.searchContext" };
    say!("{}", listing.render(&shape)?);
    Ok(())
}

/// The login for the registry that the term names.
fn login(context: &Context, term: &str) -> AuthConfig {
    let is_host = |host: &str| host.contains(['.', ':']) || host == "localhost";
    let host = term.split_once('/').map(|(host, _)| host).filter(|host| is_host(host));
    let domain = host.filter(|host| *host != "index.docker.io").unwrap_or("docker.io");
    credentials::look_up(&context.config, domain).unwrap_or_default()
}

fn row(one: &SearchResult, json: bool, full: bool) -> Row {
    let description = one.description.replace(['\n', '\r'], " ");
    let official = match (json, one.is_official) {
        (true, official) => official.to_string(),
        (false, true) => "[OK]".to_owned(),
        (false, false) => String::new(),
    };
    let text = |text: &str| Value::String(text.to_owned());
    let description = if full { description } else { ellipsis(&description, DESCRIPTION_WIDTH) };
    let fields = vec![
        ("Description", Value::String(description)),
        ("IsOfficial", Value::String(official)),
        ("Name", text(&one.name)),
        ("StarCount", text(&one.star_count.to_string())),
    ];
    Row { fields, ..Row::default() }
}
