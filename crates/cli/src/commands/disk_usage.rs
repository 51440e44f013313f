//! `system df`.

use std::time::{SystemTime, UNIX_EPOCH};

use client::system;
use engine_api::container;
use engine_api::disk_usage::{CacheRecord, DiskUsage};
use engine_api::image;
use engine_api::volume::{UsageData, Volume};
use jiff::Timestamp;

use super::images::Named;
use super::list::View;
use super::network::go_time;
use super::{Context, images, list, volume};
use crate::args::Parsed;
use crate::format::listing::{Listing, Row, Shape};
use crate::format::template::Format;
use crate::format::{short_id, units};
use crate::report::Exit;
use crate::say;

const TITLES: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

const CACHE_TITLES: &[(&str, &str)] = &[
    ("ID", "CACHE ID"),
    ("CacheType", "CACHE TYPE"),
    ("Size", "SIZE"),
    ("CreatedSince", "CREATED"),
    ("LastUsedSince", "LAST USED"),
    ("UsageCount", "USAGE"),
    ("Shared", "SHARED"),
];

/// Docker's format `raw` of the summary.
const RAW: &str =
    "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n";

/// Docker's format `raw` of the details.
const RAW_DETAILS: &str = "\
{{range .Images}}type: Image\nrepository: {{.Repository}}\ntag: {{.Tag}}\ndigest: {{.Digest}}\nimage_id: {{.ID}}\n\
created_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n\n{{end}}\
{{range .Containers}}type: Container\ncontainer_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\n\
created_at: {{.CreatedAt}}\nstate: {{.State}}\nstatus: {{.Status}}\nnames: {{.Names}}\nlabels:{{pad .Labels 1 0}}\n\
ports:{{pad .Ports 1 0}}\nsize:{{pad .Size 1 0}}\n\n{{end}}\
{{range .Volumes}}type: Volume\nname: {{.Name}}\ndriver: {{.Driver}}\n\n{{end}}\
{{range .BuildCache}}type: Build Cache\nbuild_cache_id: {{.ID}}\nparent_id: {{.Parent}}\nbuild_cache_type: {{.CacheType}}\n\
description: {{.Description}}\ncreated_at: {{.CreatedAt}}\ncreated_since: {{.CreatedSince}}\nlast_used_at: {{.LastUsedAt}}\n\
last_used_since: {{.LastUsedSince}}\nusage_count: {{.UsageCount}}\nin_use: {{.InUse}}\nshared: {{.Shared}}\n\n{{end}}";

/// `system df`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let format = parsed.text("format");
    let usage = system::disk_usage(&context.client).await?;
    if parsed.flag("verbose") {
        return verbose(usage, format);
    }
    let columns = TITLES.iter().map(|(field, _)| *field).collect();
    let shape = match format {
        "raw" => Shape::Template(RAW.to_owned()),
        _ => Shape::parse(format, false, columns),
    };
    let rows = totals(&usage).iter().map(Total::row).collect();
    let listing = Listing { titles: TITLES, rows, type_name: "*formatter.diskUsageImagesContext" };
    say!("{}", listing.render(&shape)?);
    Ok(())
}

/// A line of the summary.
#[derive(Debug, PartialEq, Eq)]
struct Total {
    kind: &'static str,
    count: usize,
    active: usize,
    bytes: i64,
    reclaimable_bytes: i64,
    /// Whether it is told which part of all it is.
    share: bool,
}

impl Total {
    fn row(&self) -> Row {
        let size = |bytes: i64| units::human_size(bytes as f64, 4);
        let mut reclaimable = size(self.reclaimable_bytes);
        if self.share && self.bytes > 0 {
            let percent = self.reclaimable_bytes.saturating_mul(100) / self.bytes;
            reclaimable = format!("{reclaimable} ({percent}%)");
        }
        Row::of([
            ("Active", self.active.to_string()),
            ("Reclaimable", reclaimable),
            ("Size", size(self.bytes)),
            ("TotalCount", self.count.to_string()),
            ("Type", self.kind.to_owned()),
        ])
    }
}

fn totals(usage: &DiskUsage) -> [Total; 4] {
    let images = usage.images.as_deref().unwrap_or_default();
    let used = images.iter().filter(|image| image.containers != 0);
    let used_bytes: i64 = used
        .clone()
        .filter(|image| image.size != -1 && image.shared_size != -1)
        .map(|it| it.size - it.shared_size)
        .sum();
    let containers = usage.containers.as_deref().unwrap_or_default();
    let runs = |it: &&container::Summary| matches!(it.state.as_str(), "running" | "paused" | "restarting");
    let volumes = usage.volumes.as_deref().unwrap_or_default();
    let data = |volume: &Volume| volume.usage_data.unwrap_or(UsageData { ref_count: -1, size: -1 });
    let measured = volumes.iter().map(data).filter(|data| data.size != -1);
    let caches = usage.build_cache.as_deref().unwrap_or_default();
    let unused = caches.iter().filter(|cache| !cache.in_use && !cache.shared);
    [
        Total {
            kind: "Images",
            count: images.len(),
            active: used.count(),
            bytes: usage.layers_size,
            reclaimable_bytes: usage.layers_size - used_bytes,
            share: true,
        },
        Total {
            kind: "Containers",
            count: containers.len(),
            active: containers.iter().filter(runs).count(),
            bytes: containers.iter().map(|it| it.size_rw).sum(),
            reclaimable_bytes: containers.iter().filter(|it| !runs(it)).map(|it| it.size_rw).sum(),
            share: true,
        },
        Total {
            kind: "Local Volumes",
            count: volumes.len(),
            active: volumes.iter().filter(|volume| data(volume).ref_count > 0).count(),
            bytes: measured.clone().map(|data| data.size).sum(),
            reclaimable_bytes: measured.filter(|data| data.ref_count == 0).map(|data| data.size).sum(),
            share: true,
        },
        Total {
            kind: "Build Cache",
            count: caches.len(),
            active: caches.iter().filter(|cache| cache.in_use).count(),
            bytes: cache_bytes(caches),
            reclaimable_bytes: unused.map(|cache| cache.size).sum(),
            share: false,
        },
    ]
}

fn cache_bytes(caches: &[CacheRecord]) -> i64 {
    caches.iter().filter(|cache| !cache.shared).map(|cache| cache.size).sum()
}

/// Everything, thing by thing.
struct Details {
    images: Vec<Row>,
    containers: Vec<Row>,
    volumes: Vec<Row>,
    caches: Vec<Row>,
    cache_bytes: i64,
}

fn verbose(usage: DiskUsage, format: &str) -> Result<(), Exit> {
    let is_table = matches!(format, "" | "table");
    let details = Details::of(usage, !is_table);
    if is_table {
        say!("{}", details.tables()?);
        return Ok(());
    }
    if matches!(format, "json" | "{{json .}}" | "{{ json . }}") {
        say!("{}", details.json());
        return Ok(());
    }
    // Docker has no titles for lists, and ends no line that the template does not end.
    let text = match format {
        "raw" => RAW_DETAILS.to_owned(),
        text => text.strip_prefix("table").unwrap_or(text).trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n"),
    };
    let format = Format::parse(&text).map_err(|err| Exit::new(1, format!("template parsing error: {err}")))?;
    let filled = format.apply_lists("*formatter.diskUsageContext", &details.parts());
    say!("{}", filled.map_err(|err| Exit::new(1, err.to_string()))?);
    Ok(())
}

impl Details {
    fn of(usage: DiskUsage, full: bool) -> Details {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        let view = View { now, full };
        let everything = Shape::Template(String::new());
        // The image's part of a container is not the container's.
        let own = |container| container::Summary { size_root_fs: 0, ..container };
        let containers = usage.containers.unwrap_or_default().into_iter().map(own);
        let caches = usage.build_cache.unwrap_or_default();
        Details {
            images: usage.images.unwrap_or_default().iter().map(|image| image_row(image, view, &everything)).collect(),
            containers: containers.map(|container| list::row(&container, view, &everything)).collect(),
            volumes: usage.volumes.unwrap_or_default().iter().map(volume::row).collect(),
            cache_bytes: cache_bytes(&caches),
            caches: caches.iter().map(|cache| cache_row(cache, now, full)).collect(),
        }
    }

    fn tables(self) -> Result<String, Exit> {
        let images = Listing { titles: images::TITLES, rows: self.images, type_name: "" };
        let images = images.render(&Shape::Table(vec![
            "Repository",
            "Tag",
            "ID",
            "CreatedSince",
            "Size",
            "SharedSize",
            "UniqueSize",
            "Containers",
        ]))?;
        let containers = Listing { titles: list::TITLES, rows: self.containers, type_name: "" };
        let containers = containers.render(&Shape::Table(vec![
            "ID",
            "Image",
            "Command",
            "LocalVolumes",
            "Size",
            "RunningFor",
            "Status",
            "Names",
        ]))?;
        let volumes = Listing { titles: volume::TITLES, rows: self.volumes, type_name: "" };
        let volumes = volumes.render(&Shape::Table(vec!["Name", "Links", "Size"]))?;
        let caches = Listing { titles: CACHE_TITLES, rows: self.caches, type_name: "" };
        let caches = caches.render(&Shape::Table(CACHE_TITLES.iter().map(|(field, _)| *field).collect()))?;
        Ok(format!(
            "Images space usage:\n\n{images}\nContainers space usage:\n\n{containers}\nLocal Volumes space usage:\n\n\
             {volumes}\nBuild cache usage: {}\n\n{caches}",
            units::human_size(self.cache_bytes as f64, 4)
        ))
    }

    /// Their names, and Go's names of the rows' types.
    fn parts(&self) -> [(&'static str, &'static str, &[Row]); 4] {
        let Details { images, containers, volumes, caches, .. } = self;
        [
            ("Images", "*formatter.imageContext", images),
            ("Containers", "*formatter.ContainerContext", containers),
            ("Volumes", "*formatter.volumeContext", volumes),
            ("BuildCache", "*formatter.buildCacheContext", caches),
        ]
    }

    /// In Docker's order, which is no map's.
    fn json(&self) -> String {
        let part = |(name, _, rows): (&str, &str, &[Row])| {
            let rows: Vec<String> = rows.iter().map(Row::json).collect();
            format!("{name:?}:[{}]", rows.join(","))
        };
        format!("{{{}}}", self.parts().map(part).join(","))
    }
}

/// One row an image, under its first tag.
fn image_row(image: &image::Summary, view: View, shape: &Shape) -> Row {
    let none = "<none>".to_owned();
    let first = image.repo_tags.first().and_then(|name| name.parse::<oci::Reference>().ok());
    let (repository, tag) = match &first {
        Some(name) => (name.familiar_name(), name.tag().unwrap_or("<none>").to_owned()),
        None => (none.clone(), none),
    };
    let named = Named { image, repository: &repository, tag: &tag, digest: "" };
    images::row(&named, view, shape)
}

fn cache_row(cache: &CacheRecord, now: i64, full: bool) -> Row {
    let id = if full { cache.id.as_str() } else { short_id(&cache.id) };
    let last_used = cache.last_used_at.as_deref().unwrap_or_default();
    Row::of([
        ("CacheType", cache.kind.clone()),
        ("CreatedAt", go_time(&cache.created_at)),
        ("CreatedSince", since(&cache.created_at, now)),
        ("Description", cache.description.clone()),
        ("ID", id.to_owned()),
        ("InUse", cache.in_use.to_string()),
        ("LastUsedAt", go_time(last_used)),
        ("LastUsedSince", since(last_used, now)),
        ("Parent", cache.parents.join(", ")),
        ("Shared", cache.shared.to_string()),
        ("Size", units::human_size(cache.size as f64, 4)),
        ("UsageCount", cache.usage_count.to_string()),
    ])
}

/// How long ago a time was, if it is one.
pub(super) fn since(text: &str, now: i64) -> String {
    let Ok(time) = text.parse::<Timestamp>() else { return String::new() };
    format!("{} ago", units::human_duration(now - time.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> DiskUsage {
        let image =
            |size, shared_size, containers| image::Summary { size, shared_size, containers, ..Default::default() };
        let container = |state: &str, size_rw| container::Summary {
            state: state.into(),
            size_rw,
            size_root_fs: 9,
            ..Default::default()
        };
        let volume = |ref_count, size| Volume { usage_data: Some(UsageData { ref_count, size }), ..Volume::default() };
        DiskUsage {
            layers_size: 1000,
            images: Some(vec![image(600, 100, 1), image(500, 100, 0)]),
            containers: Some(vec![container("running", 5), container("exited", 7)]),
            volumes: Some(vec![volume(0, 10), volume(2, 30), volume(0, -1)]),
            build_cache: Some(vec![]),
        }
    }

    #[test]
    fn totals_are_counted_as_docker_counts_them() {
        let rows = totals(&usage()).iter().map(Total::row).collect();
        let listing = Listing { titles: TITLES, rows, type_name: "" };
        let columns = TITLES.iter().map(|(field, _)| *field).collect();
        let Ok(text) = listing.render(&Shape::Table(columns)) else { panic!("a table has no template") };
        expect_test::expect![[r#"
            TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE
            Images          2         1         1kB       500B (50%)
            Containers      2         1         12B       7B (58%)
            Local Volumes   3         1         40B       10B (25%)
            Build Cache     0         0         0B        0B
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn records_of_the_build_cache_have_their_times() {
        let created_at = "2026-11-22T04:22:27.5Z".to_owned();
        let now = 1_795_321_347 + 7 * 3600;
        let cache =
            CacheRecord { created_at, usage_count: 2, parents: vec!["a".into(), "b".into()], ..Default::default() };
        let row = cache_row(&cache, now, true).object();
        for (field, text) in [
            ("CreatedAt", "2026-11-22 04:22:27.5 +0000 UTC"),
            ("CreatedSince", "7 hours ago"),
            ("LastUsedAt", ""),
            ("LastUsedSince", ""),
            ("Parent", "a, b"),
            ("UsageCount", "2"),
        ] {
            assert_eq!(row[field], text, "{field}");
        }
    }

    #[test]
    fn details_show_what_is_a_containers_own() {
        let details = Details::of(usage(), true);
        let filled = |text: &str| {
            Format::parse(text).unwrap().apply_lists("*formatter.diskUsageContext", &details.parts()).unwrap()
        };
        assert_eq!(filled("{{(index .Containers 0).Size}} {{(index .Images 0).UniqueSize}}"), "5B 500B");
        assert_eq!(filled("{{range .Volumes}}{{.Links}} {{.Size}},{{end}}"), "0 10B,2 30B,0 N/A,");
        let text = details.json();
        assert!(
            text.starts_with("{\"Images\":[{\"Containers\":\"1\"") && text.ends_with(",\"BuildCache\":[]}"),
            "{text}"
        );
        // Rows are escaped wherever they are, texts are not.
        assert!(filled("{{json .Images}}").contains(r#""Tag":"\u003cnone\u003e""#));
        assert_eq!(filled("{{json (index .Images 0).Tag}}"), r#""<none>""#);
        let Ok(tables) = details.tables() else { panic!("tables have no template") };
        assert!(
            tables.ends_with(
                "\nBuild cache usage: 0B\n\nCACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n"
            ),
            "{tables}"
        );
    }
}
