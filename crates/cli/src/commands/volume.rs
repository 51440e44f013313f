//! `volume create`, `ls`, `prune`, `rm`.

use client::volume;
use engine_api::volume::{Volume, VolumeCreate};
use serde_json::Value;

use super::{Context, Outcomes};
use crate::args::Parsed;
use crate::format::listing::{Listing, Row, Shape};
use crate::format::units;
use crate::plan::{environment, filters};
use crate::report::Exit;
use crate::{say, say_line};

pub(super) const TITLES: &[(&str, &str)] = &[
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Availability", "AVAILABILITY"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
];

/// What is known of volumes of a cluster, or counted only where disk usage is asked for.
const UNKNOWN: &str = "N/A";

/// `volume create`
pub async fn create(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let name = match (parsed.text("name"), parsed.positionals.first()) {
        (named, None) => named,
        ("", Some(name)) => name,
        _ => {
            let message =
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg";
            return Err(Exit::new(1, message));
        }
    };
    // Go's client leaves an empty map out.
    let pairs = |flag: &str| {
        let given = parsed.list(flag).iter().map(|text| environment::pair(text));
        (!parsed.list(flag).is_empty()).then(|| given.collect())
    };
    let driver = if parsed.given("driver") { parsed.text("driver") } else { "local" };
    let request = VolumeCreate {
        name: name.to_owned(),
        driver: driver.to_owned(),
        driver_opts: pairs("opt"),
        labels: pairs("label"),
        ..VolumeCreate::default()
    };
    say_line!("{}", volume::create(&context.client, &request).await?.name);
    Ok(())
}

/// `volume ls`
pub async fn list(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let quiet = parsed.flag("quiet");
    let format = match parsed.text("format") {
        "" if quiet => "{{.Name}}",
        "" => &context.config.volumes_format,
        given => given,
    };
    let shape = match format {
        "raw" => Shape::of_raw(quiet, "name: {{.Name}}\ndriver: {{.Driver}}\n", "name: {{.Name}}"),
        _ => Shape::parse(format, false, vec!["Driver", "Name"]),
    };
    let given = parsed.list("filter").iter().map(String::as_str);
    let mut volumes = volume::list(&context.client, &filters::encode(given)).await?.volumes;
    volumes.sort_by(|a, b| natural(&a.name, &b.name));
    let rows = volumes.iter().map(row).collect();
    let listing = Listing { titles: TITLES, rows, type_name: "*formatter.volumeContext" };
    say!("{}", listing.render(&shape)?);
    Ok(())
}

pub(super) fn row(volume: &Volume) -> Row {
    let data = volume.usage_data;
    let links = data.map_or_else(|| UNKNOWN.to_owned(), |data| data.ref_count.to_string());
    let size = data.filter(|data| data.size >= 0).map(|data| units::human_size(data.size as f64, 4));
    let labels = volume.labels.clone().unwrap_or_default();
    let fields = [
        ("Availability", UNKNOWN.to_owned()),
        ("Driver", volume.driver.clone()),
        ("Group", UNKNOWN.to_owned()),
        ("Labels", labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")),
        ("Links", links),
        ("Mountpoint", volume.mountpoint.clone()),
        ("Name", volume.name.clone()),
        ("Scope", volume.scope.clone()),
        ("Size", size.unwrap_or_else(|| UNKNOWN.to_owned())),
        ("Status", UNKNOWN.to_owned()),
    ];
    Row { fields: fields.into_iter().map(|(name, text)| (name, Value::String(text))).collect(), labels }
}

/// The order of names in which `v2` comes before `v10`: runs of digits count as numbers.
pub(super) fn natural(one: &str, other: &str) -> std::cmp::Ordering {
    let (mut one, mut other) = (chunks(one).into_iter(), chunks(other).into_iter());
    loop {
        let order = match (one.next(), other.next()) {
            (None, None) => return std::cmp::Ordering::Equal,
            (Some(one), Some(other)) => one.cmp(&other),
            (one, other) => one.is_some().cmp(&other.is_some()),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Runs of digits, compared by length without leading zeroes, then as texts; and other runs, compared as texts.
fn chunks(text: &str) -> Vec<(usize, &str)> {
    let mut chunks = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_number = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != is_number).unwrap_or(rest.len());
        let (chunk, behind) = rest.split_at(end);
        let weight = if is_number { chunk.trim_start_matches('0').len() } else { 0 };
        chunks.push(if is_number { (weight, chunk.trim_start_matches('0')) } else { (usize::MAX, chunk) });
        rest = behind;
    }
    chunks
}

/// `volume rm`
pub async fn remove(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let mut outcomes = Outcomes::default();
    for name in &parsed.positionals {
        let removed = volume::remove(&context.client, name, parsed.flag("force")).await;
        outcomes.note(removed.map(|()| name.clone()));
    }
    outcomes.finish()
}

/// `volume update`
pub async fn update(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    volume::inspect_raw(&context.client, name).await?;
    // There are no volumes of a cluster.
    Err(Exit::new(1, "can only update cluster volumes"))
}

/// `volume prune`
pub async fn prune(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let all = parsed.flag("all");
    let given = context.prune_filters(parsed);
    let mut given: Vec<&str> = given.iter().map(String::as_str).collect();
    if all && given.iter().any(|filter| filter.starts_with("all=")) {
        return Err(Exit::new(1, "conflicting options: cannot specify both --all and --filter all=1"));
    }
    given.extend(all.then_some("all=true"));
    let which = if all { "local" } else { "anonymous local" };
    if !parsed.flag("force") && !confirm(which).await? {
        return Ok(());
    }
    let pruned = volume::prune(&context.client, &filters::encode(given)).await?;
    let mut reclaimed_bytes = 0;
    if !pruned.volumes_deleted.is_empty() {
        say_line!("Deleted Volumes:\n{}\n", pruned.volumes_deleted.join("\n"));
        reclaimed_bytes = pruned.space_reclaimed;
    }
    say_line!("Total reclaimed space: {}", units::human_size(reclaimed_bytes as f64, 4));
    Ok(())
}

async fn confirm(which: &str) -> Result<bool, Exit> {
    super::prune::confirm(&format!(
        "WARNING! This will remove {which} volumes not used by at least one container.\n\
         Are you sure you want to continue?"
    ))
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count() {
        let mut names = ["v10", "b", "v2", "v", "a1b10", "a1b9", "1", "V1", "v02a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["1", "V1", "a1b9", "a1b10", "b", "v", "v2", "v02a", "v10"]);
    }
}
