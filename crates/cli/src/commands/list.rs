//! `ps`.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use client::container::{self, ListOptions};
use engine_api::container::{Port, Summary};
use oci::Reference;
use serde::Deserialize;
use serde_json::Value;

use super::Context;
use crate::args::Parsed;
use crate::format::listing::{self, Listing, Row, Shape};
use crate::format::template::Format;
use crate::format::{ellipsis, ports, quote, short_id, units};
use crate::plan::filters;
use crate::report::Exit;
use crate::{say, warn_line};

pub(super) const TITLES: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

/// Go's name of what a row is made from.
const TYPE_NAME: &str = "*formatter.ContainerContext";

/// `--format raw`
const RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n\
                   state:{{pad .State 1 0}}\nstatus:{{pad .Status 1 0}}\nnames: {{.Names}}\nlabels:{{pad .Labels 1 0}}\n\
                   ports:{{pad .Ports 1 0}}\n";
const RAW_SIZE: &str = "size:{{pad .Size 1 0}}\n";

/// `ps`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let quiet = parsed.flag("quiet");
    let given = parsed.text("format");
    let format = if given.is_empty() && !quiet { &context.config.ps_format } else { given };
    if quiet && !given.is_empty() {
        warn_line!("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    let mut columns = vec!["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
    if parsed.flag("size") {
        columns.push("Size");
    }
    let raw = format!("{RAW}{}", if parsed.flag("size") { RAW_SIZE } else { "" });
    let shape = match format {
        "raw" => Shape::of_raw(quiet, &raw, "container_id: {{.ID}}"),
        _ => Shape::parse(format, quiet, columns),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let view = View { now, full: parsed.flag("no-trunc") };
    if !format.is_empty() {
        try_format(format, view)?;
    }
    let limit = if parsed.flag("latest") { 1 } else { parsed.int("last").unwrap_or(-1) };
    let options = ListOptions {
        all: parsed.flag("all") || limit > 0,
        limit,
        size: parsed.flag("size") || (!quiet && (shape.shows("Size") || format.contains("json .}}"))),
        filters: filters::encode(parsed.list("filter").iter().map(String::as_str)),
    };
    let list = container::list(&context.client, &options).await?;
    if let Shape::Table(columns) = &shape {
        say!("{}", table(&list.read()?, columns, view));
        return Ok(());
    }
    let containers: Vec<Summary> = list.read()?;
    let rows = containers.iter().map(|container| row(container, view, &shape)).collect();
    let listing = Listing { titles: TITLES, rows, type_name: TYPE_NAME };
    say!("{}", listing.render(&shape)?);
    Ok(())
}

/// The default table.
fn table(containers: &[Shown<'_>], columns: &[&str], view: View) -> String {
    let text = |column: &&str| FIELDS.iter().find(|(name, _)| name == column).map(|(_, text)| *text);
    let texts: Vec<Text> = columns.iter().filter_map(text).collect();
    listing::table(TITLES, columns, containers.iter().map(|container| texts.iter().map(|text| text(container, view))))
}

/// Tries a format, as it was given, with a container of which nothing is known. Docker does so before it asks the daemon.
fn try_format(text: &str, view: View) -> Result<(), Exit> {
    let format = Format::parse(text);
    let format = format.map_err(|err| Exit::new(1, format!("failed to parse template: {err}")))?;
    // Also where `--quiet` shows none of its fields.
    let everything = Shape::Template(text.to_owned());
    let tried = row(&Summary::default(), view, &everything).apply(&format, TYPE_NAME);
    tried.map(drop).map_err(|err| Exit::new(1, format!("failed to execute template: {err}")))
}

/// What is shown of a [`Summary`]: for the default table read without it, its texts where the answer has them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Shown<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    names: Vec<Name<'a>>,
    #[serde(borrow)]
    image: Cow<'a, str>,
    #[serde(borrow, rename = "ImageID")]
    image_id: Cow<'a, str>,
    #[serde(borrow)]
    command: Cow<'a, str>,
    created: i64,
    ports: Cow<'a, [Port]>,
    size_rw: i64,
    size_root_fs: i64,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    /// What no default table has a column for, half of the bytes, is not taken apart for one.
    #[serde(skip)]
    whole: Option<&'a Summary>,
}

/// In a list, only a type of its own is borrowed.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> From<&'a Summary> for Shown<'a> {
    fn from(it: &'a Summary) -> Shown<'a> {
        Shown {
            id: Cow::from(&it.id),
            names: it.names.iter().map(|name| Name(name.into())).collect(),
            image: Cow::from(&it.image),
            image_id: Cow::from(&it.image_id),
            command: Cow::from(&it.command),
            created: it.created,
            ports: Cow::from(&it.ports),
            size_rw: it.size_rw,
            size_root_fs: it.size_root_fs,
            state: Cow::from(&it.state),
            status: Cow::from(&it.status),
            whole: Some(it),
        }
    }
}

/// How the fields are written.
#[derive(Clone, Copy)]
pub(super) struct View {
    /// Seconds since 1970.
    pub(super) now: i64,
    /// Nothing is cut short.
    pub(super) full: bool,
}

/// Writes one field.
type Text = for<'a> fn(&'a Shown<'_>, View) -> Cow<'a, str>;

/// All fields, in the order of JSON.
const FIELDS: [(&str, Text); 14] = [
    ("Command", |it, view| quote(&if view.full { (&*it.command).into() } else { ellipsis(&it.command, 20) }).into()),
    ("CreatedAt", |it, _| super::images::local_time(it.created).into()),
    ("ID", |it, view| if view.full { &it.id } else { short_id(&it.id) }.into()),
    ("Image", |it, view| image(it, view.full)),
    ("Labels", |it, _| it.whole.map(labels).unwrap_or_default().into()),
    ("LocalVolumes", |it, _| it.whole.map(local_volumes).unwrap_or_default().to_string().into()),
    ("Mounts", |it, view| it.whole.map(|whole| mounts(whole, view.full)).unwrap_or_default().into()),
    ("Names", |it, view| names(it, view.full)),
    ("Networks", |it, _| it.whole.map(networks).unwrap_or_default().into()),
    ("Ports", |it, _| ports::display(&it.ports).into()),
    ("RunningFor", |it, view| format!("{} ago", units::human_duration(view.now - it.created)).into()),
    ("Size", |it, _| size(it).into()),
    ("State", |it, _| (&*it.state).into()),
    ("Status", |it, _| (&*it.status).into()),
];

/// Only what the shape can show: `-q` is one field of hundreds of containers.
pub(super) fn row(container: &Summary, view: View, shape: &Shape) -> Row {
    let shown = Shown::from(container);
    let fields = FIELDS.iter().filter(|(name, _)| shape.needs(name));
    let fields = fields.map(|(name, text)| (*name, Value::String(text(&shown, view).into_owned())));
    let mut fields: Vec<_> = fields.collect();
    if shape.needs("Platform") {
        // Only engines with a containerd image store know it.
        let place = fields.partition_point(|(name, _)| *name < "Platform");
        fields.insert(place, ("Platform", Value::Null));
    }
    Row { fields, labels: container.labels.clone() }
}

fn labels(container: &Summary) -> String {
    container.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

fn local_volumes(container: &Summary) -> usize {
    container.mounts.iter().filter(|mount| mount.driver == "local").count()
}

fn networks(container: &Summary) -> String {
    container.network_settings.networks.keys().map(String::as_str).collect::<Vec<_>>().join(",")
}

fn names<'a>(container: &'a Shown<'_>, full: bool) -> Cow<'a, str> {
    let names = container.names.iter().map(|Name(name)| name.strip_prefix('/').unwrap_or(name));
    match names.clone().find(|name| !name.contains('/')).filter(|_| !full) {
        Some(name) => name.into(),
        None => names.collect::<Vec<_>>().join(",").into(),
    }
}

fn image<'a>(container: &'a Shown<'_>, full: bool) -> Cow<'a, str> {
    let image = &*container.image;
    if image.is_empty() {
        return "<no image>".into();
    }
    if full {
        return image.into();
    }
    if short_id(&container.image_id) == short_id(image) {
        return short_id(image).into();
    }
    if !image.contains(['/', '@']) {
        // Nothing that a familiar name leaves out: need not be parsed, for each of hundreds of containers.
        return image.into();
    }
    match image.parse::<Reference>() {
        Ok(reference) => match reference.tag() {
            Some(tag) => format!("{}:{tag}", reference.familiar_name()).into(),
            None => reference.familiar_name().into(),
        },
        Err(_) => image.into(),
    }
}

fn mounts(container: &Summary, full: bool) -> String {
    let name = |mount: &engine_api::container::MountPoint| {
        let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
        if full { name.clone() } else { ellipsis(name, 15) }
    };
    container.mounts.iter().map(name).collect::<Vec<_>>().join(",")
}

fn size(container: &Shown<'_>) -> String {
    let own = units::human_size(container.size_rw as f64, 3);
    match container.size_root_fs {
        0 => own,
        all => format!("{own} (virtual {})", units::human_size(all as f64, 3)),
    }
}
