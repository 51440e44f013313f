//! `images`, `tag`, `rmi`.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use client::image::{self, ListOptions};
use engine_api::image::{Deleted, Summary};
use engine_api::platform;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use oci::Reference;
use serde_json::Value;

use super::list::View;
use super::{Context, image_tree};
use crate::args::Parsed;
use crate::format::listing::{Listing, Row, Shape};
use crate::format::{short_id, units};
use crate::plan::filters;
use crate::report::{Exit, client_error};
use crate::{say, say_line, warn_line};

pub(super) const TITLES: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// The end of `--format raw`.
const RAW: &str = "image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n";

/// `images`
pub async fn list(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let tree = parsed.flag("tree");
    if tree {
        image_tree::check(parsed)?;
    }
    let quiet = parsed.flag("quiet");
    let given = parsed.text("format");
    let format = if given.is_empty() && !quiet { &context.config.images_format } else { given };
    let mut columns = vec!["Repository", "Tag", "ID", "CreatedSince", "Size"];
    if parsed.flag("digests") {
        columns.insert(2, "Digest");
    }
    let digest = if parsed.flag("digests") { "digest: {{.Digest}}\n" } else { "" };
    let raw = format!("repository: {{{{.Repository}}}}\ntag: {{{{.Tag}}}}\n{digest}{RAW}");
    let shape = match format {
        "raw" => Shape::of_raw(quiet, &raw, "image_id: {{.ID}}"),
        _ => Shape::parse(format, quiet && matches!(given, "" | "table"), columns),
    };
    let pattern = parsed.positionals.first().map(|name| format!("reference={name}"));
    let given = parsed.list("filter").iter().map(String::as_str).chain(pattern.as_deref());
    let options = ListOptions { all: parsed.flag("all"), filters: filters::encode(given), manifests: tree };
    let images = image::list(&context.client, &options).await?;
    if tree {
        say!("{}", image_tree::of(&images, parsed.flag("all")));
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let view = View { now, full: parsed.flag("no-trunc") };
    let digests = parsed.flag("digests") || shape.shows("Digest");
    let rows = images.iter().flat_map(|image| rows(image, view, digests, &shape)).collect();
    let listing = Listing { titles: TITLES, rows, type_name: "*formatter.imageContext" };
    say!("{}", listing.render(&shape)?);
    Ok(())
}

/// One row for each name of an image.
fn rows(image: &Summary, view: View, digests: bool, shape: &Shape) -> Vec<Row> {
    let names = names(image, digests);
    names.iter().map(|[repository, tag, digest]| row(&Named { image, repository, tag, digest }, view, shape)).collect()
}

/// Repository, tag and digest of each row.
fn names(image: &Summary, digests: bool) -> Vec<[String; 3]> {
    let none = || "<none>".to_owned();
    let real = |texts: &[String]| -> Vec<Reference> {
        texts.iter().filter(|text| !text.starts_with("<none>")).filter_map(|text| text.parse().ok()).collect()
    };
    let mut by_repository: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for reference in real(&image.repo_digests) {
        let digest = reference.digest().map(|digest| digest.as_str().to_owned());
        by_repository.entry(reference.familiar_name()).or_default().extend(digest);
    }
    let mut rows = Vec::new();
    let tags = real(&image.repo_tags);
    for reference in &tags {
        let repository = reference.familiar_name();
        let tag = reference.tag().unwrap_or("<none>").to_owned();
        let known = by_repository.get(&repository).filter(|_| digests).cloned().unwrap_or_else(|| vec![none()]);
        rows.extend(known.into_iter().map(|digest| [repository.clone(), tag.clone(), digest]));
    }
    for reference in &tags {
        by_repository.remove(&reference.familiar_name());
    }
    for (repository, known) in by_repository {
        match digests {
            true => rows.extend(known.into_iter().map(|digest| [repository.clone(), none(), digest])),
            false => rows.push([repository, none(), String::new()]),
        }
    }
    if rows.is_empty() {
        rows.push([none(), none(), none()]);
    }
    rows
}

/// An image under one of its names.
pub(super) struct Named<'a> {
    /// Which one.
    pub(super) image: &'a Summary,
    /// The name's repository.
    pub(super) repository: &'a str,
    /// Its tag.
    pub(super) tag: &'a str,
    /// Its digest, if that is shown.
    pub(super) digest: &'a str,
}

/// Writes one field.
type Text = fn(&Named<'_>, View) -> String;

/// All fields, in the order of JSON.
const FIELDS: [(&str, Text); 11] = [
    ("Containers", |it, _| if it.image.containers == -1 { "N/A".to_owned() } else { it.image.containers.to_string() }),
    ("CreatedAt", |it, _| local_time(it.image.created)),
    ("CreatedSince", |it, view| created_since(it.image.created, view.now)),
    ("Digest", |it, _| it.digest.to_owned()),
    ("ID", |it, view| if view.full { it.image.id.clone() } else { short_id(&it.image.id).to_owned() }),
    ("Repository", |it, _| it.repository.to_owned()),
    ("SharedSize", |it, _| of_shared(it.image, it.image.shared_size)),
    ("Size", |it, _| units::human_size(it.image.size as f64, 3)),
    ("Tag", |it, _| it.tag.to_owned()),
    ("UniqueSize", |it, _| of_shared(it.image, it.image.size - it.image.shared_size)),
    ("VirtualSize", |it, _| units::human_size(it.image.size as f64, 4)),
];

/// Only what the shape can show: a table of thousands of images is a few columns of them.
pub(super) fn row(named: &Named<'_>, view: View, shape: &Shape) -> Row {
    let fields = FIELDS.iter().filter(|(name, _)| shape.needs(name));
    let fields = fields.map(|(name, text)| (*name, Value::String(text(named, view))));
    Row { fields: fields.collect(), labels: BTreeMap::new() }
}

fn of_shared(image: &Summary, bytes: i64) -> String {
    if image.shared_size == -1 { "N/A".to_owned() } else { units::human_size(bytes as f64, 4) }
}

/// Year 1, in seconds since 1970.
const ZERO_TIME: i64 = -62_135_596_800;

/// Nothing for Go's zero time, which stands for nobody knows when.
fn created_since(created: i64, now: i64) -> String {
    match created {
        ZERO_TIME => String::new(),
        _ => format!("{} ago", units::human_duration(now - created)),
    }
}

/// Go's `time.Time.String`: `2026-01-01 00:00:00 +0000 UTC`.
pub fn local_time(seconds: i64) -> String {
    let Ok(timestamp) = Timestamp::from_second(seconds) else { return String::new() };
    let zoned = timestamp.to_zoned(TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// `tag`
pub async fn tag(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let [source, target] = parsed.positionals.as_slice() else { return Ok(()) };
    let parse = |name: &str| {
        let refused = |err| format!("Error parsing reference: \"{name}\" is not a valid repository/tag: {err}");
        name.parse::<Reference>().map_err(|err| Exit::new(1, refused(err)))
    };
    // Ids are no references.
    let is_id = source.len() == 64 && source.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        parse(source)?;
    }
    let reference = parse(target)?;
    if reference.digest().is_some() {
        return Err(Exit::new(1, "refusing to create a tag with a digest reference"));
    }
    let reference = reference.with_default_tag();
    let repository = format!("{}/{}", reference.domain(), reference.path());
    image::tag(&context.client, source, &repository, reference.tag().unwrap_or("")).await?;
    Ok(())
}

/// `rmi`
pub async fn remove(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let (force, prune) = (parsed.flag("force"), !parsed.flag("no-prune"));
    let platforms = parsed.list("platform").iter().map(|text| platform::parse(text)).collect::<Result<Vec<_>, _>>();
    let platforms = platforms.map_err(|err| Exit::new(1, format!("invalid platform: {err}")))?;
    let mut failures = Vec::new();
    let mut fatal = false;
    for name in &parsed.positionals {
        match image::remove(&context.client, name, force, prune, &platforms).await {
            Ok(deleted) => deleted.iter().for_each(|deleted| match deleted {
                Deleted::Untagged(name) => say_line!("Untagged: {name}"),
                Deleted::Deleted(id) => say_line!("Deleted: {id}"),
            }),
            Err(err) => {
                fatal |= !err.is_not_found();
                failures.push(client_error(&err));
            }
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        // With --force, what is missing already is a word and no failure.
        false if force && !fatal => {
            warn_line!("{}", failures.join("\n"));
            Ok(())
        }
        false => Err(Exit::new(1, failures.join("\n"))),
    }
}
