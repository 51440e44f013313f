//! `network ls`.

use client::network;
use engine_api::network::Network;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::Context;
use crate::args::Parsed;
use crate::format::listing::{Listing, Row, Shape};
use crate::format::short_id;
use crate::plan::filters;
use crate::report::Exit;
use crate::say;

const TITLES: &[(&str, &str)] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

/// `--format raw`
const RAW: &str = "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n";

/// `network ls`
pub async fn list(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let quiet = parsed.flag("quiet");
    let format = match parsed.text("format") {
        "" if !quiet => &context.config.networks_format,
        given => given,
    };
    let shape = match format {
        "raw" => Shape::of_raw(quiet, RAW, "network_id: {{.ID}}"),
        format => Shape::parse(format, quiet && format.is_empty(), vec!["ID", "Name", "Driver", "Scope"]),
    };
    let given = parsed.list("filter").iter().map(String::as_str);
    let mut networks = network::list(&context.client, &filters::encode(given)).await?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = networks.iter().map(|network| row(network, parsed.flag("no-trunc"))).collect();
    let listing = Listing { titles: TITLES, rows, type_name: "*network.networkContext" };
    say!("{}", listing.render(&shape)?);
    Ok(())
}

fn row(network: &Network, full: bool) -> Row {
    let labels = network.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    let fields = [
        ("CreatedAt", created(&network.created)),
        ("Driver", network.driver.clone()),
        ("ID", if full { network.id.clone() } else { short_id(&network.id).to_owned() }),
        ("IPv4", network.enable_ipv4.to_string()),
        ("IPv6", network.enable_ipv6.to_string()),
        ("Internal", network.internal.to_string()),
        ("Labels", labels.join(",")),
        ("Name", network.name.clone()),
        ("Scope", network.scope.clone()),
    ];
    let fields = fields.into_iter().map(|(name, text)| (name, Value::String(text)));
    Row { fields: fields.collect(), labels: network.labels.clone() }
}

/// Go's `time.Time.String`.
fn created(text: &str) -> String {
    let Ok(timestamp) = text.parse::<Timestamp>() else { return text.to_owned() };
    let zoned = timestamp.to_zoned(TimeZone::UTC);
    zoned.strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_gos() {
        for (text, shown) in [
            ("2026-11-21T11:56:51.84062344Z", "2026-11-21 11:56:51.84062344 +0000 UTC"),
            ("2026-11-21T11:56:51Z", "2026-11-21 11:56:51 +0000 UTC"),
        ] {
            assert_eq!(created(text), shown);
        }
    }
}
