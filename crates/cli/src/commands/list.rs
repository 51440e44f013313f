//! `ps`.

use std::time::{SystemTime, UNIX_EPOCH};

use client::container::{self, ListOptions};
use engine_api::container::{Port, Summary};
use oci::Reference;
use serde::Deserialize;
use serde_json::Value;

use super::Context;
use crate::args::Parsed;
use crate::format::listing::{Listing, Row, Shape};
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
        try_format(format, view, &shape)?;
    }
    let limit = if parsed.flag("latest") { 1 } else { parsed.int("last").unwrap_or(-1) };
    let options = ListOptions {
        all: parsed.flag("all") || limit > 0,
        limit,
        size: parsed.flag("size") || (!quiet && (shape.shows("Size") || format.contains("json .}}"))),
        filters: filters::encode(parsed.list("filter").iter().map(String::as_str)),
    };
    let containers: Vec<Summary> = match &shape {
        Shape::Table(_) => {
            container::list::<Brief>(&context.client, &options).await?.into_iter().map(Into::into).collect()
        }
        _ => container::list(&context.client, &options).await?,
    };
    let rows = containers.iter().map(|container| row(container, view, &shape)).collect();
    let listing = Listing { titles: TITLES, rows, type_name: TYPE_NAME };
    say!("{}", listing.render(&shape)?);
    Ok(())
}

/// Tries a format, as it was given, with a container of which nothing is known. Docker does so before it asks the daemon.
fn try_format(text: &str, view: View, shape: &Shape) -> Result<(), Exit> {
    let format = Format::parse(text);
    let format = format.map_err(|err| Exit::new(1, format!("failed to parse template: {err}")))?;
    let tried = row(&Summary::default(), view, shape).apply(&format, TYPE_NAME);
    tried.map(drop).map_err(|err| Exit::new(1, format!("failed to execute template: {err}")))
}

/// What the default table shows of a [`Summary`]. The rest, half of the bytes, is not taken apart.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Brief {
    id: String,
    names: Vec<String>,
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    command: String,
    created: i64,
    ports: Vec<Port>,
    size_rw: i64,
    size_root_fs: i64,
    status: String,
}

impl From<Brief> for Summary {
    fn from(brief: Brief) -> Summary {
        let Brief { id, names, image, image_id, command, created, ports, size_rw, size_root_fs, status } = brief;
        let shown = Summary { id, names, image, image_id, command, created, ports, ..Summary::default() };
        Summary { size_rw, size_root_fs, status, ..shown }
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
type Text = fn(&Summary, View) -> String;

/// All fields, in the order of JSON.
const FIELDS: [(&str, Text); 14] = [
    ("Command", |it, view| quote(&if view.full { it.command.clone() } else { ellipsis(&it.command, 20) })),
    ("CreatedAt", |it, _| super::images::local_time(it.created)),
    ("ID", |it, view| if view.full { it.id.clone() } else { short_id(&it.id).to_owned() }),
    ("Image", |it, view| image(it, view.full)),
    ("Labels", |it, _| it.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")),
    ("LocalVolumes", |it, _| it.mounts.iter().filter(|mount| mount.driver == "local").count().to_string()),
    ("Mounts", |it, view| mounts(it, view.full)),
    ("Names", |it, view| names(it, view.full)),
    ("Networks", |it, _| it.network_settings.networks.keys().map(String::as_str).collect::<Vec<_>>().join(",")),
    ("Ports", |it, _| ports::display(&it.ports)),
    ("RunningFor", |it, view| format!("{} ago", units::human_duration(view.now - it.created))),
    ("Size", |it, _| size(it)),
    ("State", |it, _| it.state.clone()),
    ("Status", |it, _| it.status.clone()),
];

/// Only what the shape can show: a table of hundreds of containers is a few columns of them.
pub(super) fn row(container: &Summary, view: View, shape: &Shape) -> Row {
    let wanted = |field: &str| !matches!(shape, Shape::Table(columns) if !columns.contains(&field));
    let fields = FIELDS.iter().filter(|(name, _)| wanted(name));
    let mut fields: Vec<_> = fields.map(|(name, text)| (*name, Value::String(text(container, view)))).collect();
    if wanted("Platform") {
        // Only engines with a containerd image store know it.
        let place = fields.partition_point(|(name, _)| *name < "Platform");
        fields.insert(place, ("Platform", Value::Null));
    }
    Row { fields, labels: container.labels.clone() }
}

fn names(container: &Summary, full: bool) -> String {
    let names: Vec<&str> = container.names.iter().map(|name| name.strip_prefix('/').unwrap_or(name)).collect();
    match names.iter().find(|name| !name.contains('/')).filter(|_| !full) {
        Some(name) => (*name).to_owned(),
        None => names.join(","),
    }
}

fn image(container: &Summary, full: bool) -> String {
    let image = &container.image;
    if image.is_empty() {
        return "<no image>".to_owned();
    }
    if full {
        return image.clone();
    }
    if short_id(&container.image_id) == short_id(image) {
        return short_id(image).to_owned();
    }
    if !image.contains(['/', '@']) {
        // Nothing that a familiar name leaves out: need not be parsed, for each of hundreds of containers.
        return image.clone();
    }
    match image.parse::<Reference>() {
        Ok(reference) => match reference.tag() {
            Some(tag) => format!("{}:{tag}", reference.familiar_name()),
            None => reference.familiar_name(),
        },
        Err(_) => image.clone(),
    }
}

fn mounts(container: &Summary, full: bool) -> String {
    let name = |mount: &engine_api::container::MountPoint| {
        let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
        if full { name.clone() } else { ellipsis(name, 15) }
    };
    container.mounts.iter().map(name).collect::<Vec<_>>().join(",")
}

fn size(container: &Summary) -> String {
    let own = units::human_size(container.size_rw as f64, 3);
    match container.size_root_fs {
        0 => own,
        all => format!("{own} (virtual {})", units::human_size(all as f64, 3)),
    }
}
