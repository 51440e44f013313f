//! `network connect`, `create`, `disconnect`, `ls`, `rm`.

use std::collections::BTreeMap;

use client::network;
use engine_api::container::EndpointSettings;
use engine_api::network::{ConfigFrom, Network, NetworkConnect, NetworkCreate, NetworkDisconnect};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::{Context, Outcomes};
use crate::args::{NetworkVerb, Parsed};
use crate::format::listing::{Listing, Row, Shape};
use crate::format::short_id;
use crate::plan::{environment, filters, ipam};
use crate::report::Exit;
use crate::{say, say_line};

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

/// Runs one of the commands of `network`.
pub async fn run(context: &Context, verb: NetworkVerb, parsed: &Parsed) -> Result<(), Exit> {
    match verb {
        NetworkVerb::List => list(context, parsed).await,
        NetworkVerb::Create => create(context, parsed).await,
        NetworkVerb::Connect => connect(context, parsed).await,
        NetworkVerb::Disconnect => disconnect(context, parsed).await,
        NetworkVerb::Remove => remove(context, parsed).await,
    }
}

/// `network ls`
async fn list(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
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

/// `network create`
async fn create(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let ipam = ipam::plan(parsed).map_err(|err| Exit::error(&err))?;
    let family = |flag: &str| parsed.given(flag).then(|| parsed.flag(flag));
    let config_from = parsed.text("config-from");
    let request = NetworkCreate {
        name: parsed.positionals[0].clone(),
        driver: parsed.text("driver").to_owned(),
        scope: parsed.text("scope").to_owned(),
        enable_ipv4: family("ipv4"),
        enable_ipv6: family("ipv6"),
        ipam: Some(ipam),
        internal: parsed.flag("internal"),
        attachable: parsed.flag("attachable"),
        ingress: parsed.flag("ingress"),
        config_only: parsed.flag("config-only"),
        config_from: (!config_from.is_empty()).then(|| ConfigFrom { network: config_from.to_owned() }),
        options: ipam::pairs(parsed, "opt").into_iter().chain(environment::egress(parsed.list("egress"))).collect(),
        labels: ipam::pairs(parsed, "label"),
    };
    say_line!("{}", network::create(&context.client, &request).await?.id);
    Ok(())
}

/// `network connect`
async fn connect(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let mut options = BTreeMap::new();
    for text in &ipam::strings(parsed, "driver-opt") {
        match text.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
            Some((name, value)) if !name.is_empty() => options.insert(name.to_owned(), value.to_owned()),
            _ => return Err(Exit::new(1, "invalid key/value pair format in driver options")),
        };
    }
    let mut wanted = Map::new();
    for (key, flag) in [("IPv4Address", "ip"), ("IPv6Address", "ip6")] {
        if !parsed.text(flag).is_empty() {
            wanted.insert(key.to_owned(), parsed.text(flag).into());
        }
    }
    let link_local = ipam::strings(parsed, "link-local-ip");
    if !link_local.is_empty() {
        wanted.insert("LinkLocalIPs".to_owned(), link_local.into());
    }
    let links = parsed.list("link").to_vec();
    let endpoint = EndpointSettings {
        ipam_config: Some(Value::Object(wanted)),
        links: (!links.is_empty()).then_some(links),
        aliases: Some(ipam::strings(parsed, "alias")),
        driver_opts: Some(options),
        gw_priority: parsed.int("gw-priority").unwrap_or(0),
        ..EndpointSettings::default()
    };
    let request = NetworkConnect { container: parsed.positionals[1].clone(), endpoint_config: Some(endpoint) };
    Ok(network::connect(&context.client, &parsed.positionals[0], &request).await?)
}

/// `network disconnect`
async fn disconnect(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let request = NetworkDisconnect { container: parsed.positionals[1].clone(), force: parsed.flag("force") };
    Ok(network::disconnect(&context.client, &parsed.positionals[0], &request).await?)
}

/// `network rm`
async fn remove(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let mut outcomes = Outcomes::default();
    for name in &parsed.positionals {
        match network::remove(&context.client, name).await {
            Err(err) if parsed.flag("force") && err.is_not_found() => {}
            removed => outcomes.note(removed.map(|()| name.clone())),
        }
    }
    if outcomes.has_failed() {
        // docker says the status, too.
        outcomes.fail("exit status 1");
    }
    outcomes.finish()
}

fn row(network: &Network, full: bool) -> Row {
    let labels = network.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    let fields = [
        ("CreatedAt", go_time(&network.created)),
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

/// Go's `time.Time.String` of an RFC 3339 time; another text stays.
pub(super) fn go_time(text: &str) -> String {
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
            assert_eq!(go_time(text), shown);
        }
    }
}
