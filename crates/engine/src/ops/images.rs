//! Images: lists, inspection, names, removal, archives.

mod filter;
mod manifests;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;

use engine_api::image::{Deleted, GraphDriver, HistoryItem, Inspect, InspectConfig, Metadata, RootFs, Summary};
use errdefs::ErrorKind;
use image::{ImageRecord, ImageUser, LoadEvent, RemoveOptions, Removed, WantedPlatform};
use oci::image::Platform;
use oci::{Digest, Reference, ReferenceError};

use crate::clock::{parse_rfc3339, parse_rfc3339_seconds};
use crate::filters::{FilterError, Filters};
use crate::ops::image_budget;
use crate::platforms::{self, PlatformMismatch};
use crate::time_query::TimeError;
use crate::{AdmissionError, Engine, admission};

/// What comes in the query of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageQuery {
    /// Also untagged ones that others are made of.
    pub all: bool,
    /// Whether digests are shown.
    pub digests: bool,
    /// Whether shared sizes are computed.
    pub shared_size: bool,
    /// Whether it is told what a name stands for, platform by platform.
    pub manifests: bool,
    /// Which are wanted.
    pub filters: Filters,
}

/// What happens while an archive is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadProgress {
    /// A layer is being unpacked.
    Layer {
        /// The first 12 digits of its diff id.
        id: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// An image is there: the sentence to print, such as `Loaded image: busybox:latest`.
    Loaded(String),
}

/// Why something with images failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such image.
    #[error(transparent)]
    Resolve(#[from] image::ResolveError),
    /// There is no image to be given another name; that its name cannot be one makes no difference to dockerd.
    #[error(transparent)]
    Source(image::ResolveError),
    /// The new tag is none.
    #[error("invalid tag format")]
    TagFormat,
    /// The new name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// It cannot be given that name.
    #[error(transparent)]
    Tag(#[from] image::TagError),
    /// It cannot be removed.
    #[error(transparent)]
    Remove(#[from] image::RemoveError),
    /// The administrator's policy lets no archive in.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The archive cannot be loaded.
    #[error(transparent)]
    Load(#[from] image::LoadError),
    /// The filters are wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A filter's value is no time.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// None of its images is for the wanted platform.
    #[error(transparent)]
    Platform(#[from] PlatformMismatch),
    /// A layer cannot be measured.
    #[error("measure a layer")]
    Size(#[source] snapshot::SnapshotError),
}

impl ImageError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ImageError::Resolve(err) => err.kind(),
            ImageError::Source(_) => ErrorKind::NotFound,
            ImageError::Reference(_) | ImageError::TagFormat => ErrorKind::InvalidArgument,
            ImageError::Tag(err) => err.kind(),
            ImageError::Remove(err) => err.kind(),
            ImageError::Admission(err) => err.kind(),
            ImageError::Load(err) => err.kind(),
            ImageError::Filter(err) => err.kind(),
            ImageError::Time(err) => err.kind(),
            ImageError::Platform(err) => err.kind(),
            ImageError::Size(err) => err.kind(),
        }
    }
}

/// Lists images, newest first. Does no I/O, unless manifests are wanted.
pub async fn list(engine: &Engine, query: ImageQuery) -> Result<Vec<Summary>, ImageError> {
    let wanted = filter::Wanted::check(engine, &query)?;
    let containers = engine.containers.all();
    let shown = |image: &Arc<ImageRecord>| !engine.steps.has(image) && wanted.matches(image);
    let mut images: Vec<_> = engine.images.list().into_iter().filter(shown).collect();
    // Cached: the key is a text that must be parsed, and thousands of images are compared ten thousands of times.
    images.sort_by_cached_key(|image| std::cmp::Reverse(created_nanos(image)));
    let mut users: HashMap<&str, usize> = HashMap::new();
    for container in &containers {
        *users.entry(&container.definition.image_id).or_default() += 1;
    }
    let users = |image: &ImageRecord| users.get(image.id.as_str()).copied().unwrap_or_default();
    let shared = query.shared_size.then(|| engine.images.layer_usage());
    let shared = |image: &ImageRecord| shared.as_ref().map_or(-1, |usage| signed(usage.shared_bytes(image)));
    let summaries = images.iter();
    let summaries = summaries
        .map(|image| Summary { shared_size: shared(image), ..summary(image, &wanted, users(image)) })
        .collect();
    match query.manifests {
        true => Ok(manifests::add(engine, images, summaries).await),
        false => Ok(summaries),
    }
}

fn summary(image: &ImageRecord, wanted: &filter::Wanted, containers: usize) -> Summary {
    let names = |is_it: fn(&Reference) -> bool| {
        let names = image.references.iter().filter(|name| is_it(name) && wanted.matches_name(name));
        names.map(Reference::familiar).collect()
    };
    Summary {
        containers: i64::try_from(containers).unwrap_or(i64::MAX),
        created: image.created().and_then(parse_rfc3339_seconds).unwrap_or(0),
        id: image.id.to_string(),
        labels: image.config.config.labels.clone(),
        parent_id: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        repo_digests: names(|name| name.digest().is_some()),
        repo_tags: names(|name| name.tag().is_some()),
        shared_size: -1,
        size: signed(image.size_bytes),
        descriptor: None,
        manifests: None,
    }
}

pub(crate) fn created_nanos(image: &ImageRecord) -> i64 {
    image.created().and_then(parse_rfc3339).unwrap_or(0)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Everything about an image: the one for a platform, if one is wanted. Does no I/O, unless `with_manifests`.
pub async fn inspect(
    engine: &Engine,
    name: &str,
    platform: Option<&str>,
    with_manifests: bool,
) -> Result<Inspect, ImageError> {
    let image = platforms::choose(&image::resolve_all(&engine.images, name)?, name, platform)?;
    let (descriptor, manifests) = match with_manifests {
        true => manifests::of_image(engine, image.clone()).await,
        false => (None, None),
    };
    Ok(Inspect { descriptor, manifests, ..inspected(engine, &image) })
}

fn inspected(engine: &Engine, image: &ImageRecord) -> Inspect {
    let config = &image.config;
    let last = config.history.last();
    Inspect {
        id: image.id.to_string(),
        repo_tags: image.repo_tags(),
        repo_digests: image.repo_digests(),
        parent: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        comment: last.map(|step| step.comment.clone()).unwrap_or_default(),
        created: config.created.clone(),
        docker_version: config.docker_version.clone(),
        author: config.author.clone(),
        config: Some(InspectConfig::from(&config.config)),
        architecture: config.platform.architecture.clone(),
        variant: config.platform.variant.clone(),
        os: config.platform.os.clone(),
        size: signed(image.size_bytes),
        graph_driver: graph_driver(engine, image),
        root_fs: RootFs {
            kind: "layers".to_owned(),
            layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: Metadata { last_tag_time: image.last_tagged.clone().unwrap_or_else(|| stdx::time::ZERO.to_owned()) },
        descriptor: None,
        manifests: None,
    }
}

/// The uppermost layer is shown as the upper directory, as dockerd does.
fn graph_driver(engine: &Engine, image: &ImageRecord) -> GraphDriver {
    let driver = engine.images.snapshots().driver();
    if !driver.stacks() {
        return GraphDriver { name: driver.name().to_owned(), data: None };
    }
    let mounts = engine.images.snapshots().view(&image.chain).unwrap_or_default();
    let layers: Vec<String> = mounts
        .iter()
        .flat_map(|mount| {
            let lower = mount.options.iter().filter_map(|option| option.strip_prefix("lowerdir+=").map(str::to_owned));
            let only = (mount.kind == "bind").then(|| mount.source.display().to_string());
            lower.chain(only)
        })
        .collect();
    let Some((upper, lower)) = layers.split_first() else { return GraphDriver::default() };
    let mut data = BTreeMap::from([
        ("MergedDir".to_owned(), String::new()),
        ("UpperDir".to_owned(), upper.clone()),
        ("WorkDir".to_owned(), String::new()),
    ]);
    if !lower.is_empty() {
        data.insert("LowerDir".to_owned(), lower.join(":"));
    }
    GraphDriver { data: Some(data), name: driver.name().to_owned() }
}

/// How an image was made, newest step first.
///
/// A history is what whoever built the image says. Steps without layers for all of them have no size, and layers without
/// steps are not shown, as by dockerd, which does not take the former at all.
pub async fn history(engine: &Engine, name: &str, platform: Option<&str>) -> Result<Vec<HistoryItem>, ImageError> {
    let image = platforms::choose(&image::resolve_all(&engine.images, name)?, name, platform)?;
    let (task, measured) = (engine.clone(), image.clone());
    let sizes = bridge::blocking(move || {
        let usage = |chain| task.images.snapshots().layer_usage(chain).map(|usage| usage.bytes);
        measured.chain.iter().map(usage).collect::<Result<Vec<u64>, _>>()
    });
    let mut sizes = sizes.await.map_err(ImageError::Size)?.into_iter();
    let steps = image.config.history.iter().map(|step| HistoryItem {
        comment: step.comment.clone(),
        created: step.created.as_deref().and_then(parse_rfc3339_seconds).unwrap_or(0),
        created_by: step.created_by.clone(),
        id: "<missing>".to_owned(),
        size: if step.empty_layer { 0 } else { signed(sizes.next().unwrap_or(0)) },
        tags: None,
    });
    let mut items: Vec<HistoryItem> = steps.collect();
    items.reverse();
    name_steps(engine, &image, &mut items);
    Ok(items)
}

/// The newest step made the image itself, the one before it its parent, as far as these are here.
fn name_steps(engine: &Engine, image: &Arc<ImageRecord>, items: &mut [HistoryItem]) {
    let mut made = Some(Arc::clone(image));
    for item in items {
        let Some(image) = made else { return };
        item.id = image.id.to_string();
        item.tags = Some(image.repo_tags()).filter(|tags| !tags.is_empty());
        made = image.parent.as_ref().and_then(|parent| engine.images.get(parent));
    }
}

/// Gives an image another name; `tag` may be empty.
pub async fn tag(engine: &Engine, name: &str, repository: &str, tag: &str) -> Result<(), ImageError> {
    let text = if tag.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    let target: Reference = match text.parse() {
        Err(_) if !tag.is_empty() && repository.parse::<Reference>().is_ok() => return Err(ImageError::TagFormat),
        target => target?,
    };
    let target = target.with_default_tag();
    engine.images.resolve(name).map_err(ImageError::Source)?;
    let (task, source, named) = (engine.clone(), name.to_owned(), target.clone());
    let run = async move { bridge::blocking(move || task.images.tag(&source, &named)).await };
    let image = engine.detached(run).await?;
    tell(engine, &image, "tag", &target.familiar());
    Ok(())
}

/// Gives images for several platforms one name.
pub(crate) async fn name_all(engine: &Engine, ids: Vec<Digest>, name: Reference) -> Result<(), ImageError> {
    let (task, named) = (engine.clone(), name.clone());
    let run = async move { bridge::blocking(move || image::name_several(&task.images, &ids, &named)).await };
    let image = engine.detached(run).await?;
    tell(engine, &image, "tag", &name.familiar());
    Ok(())
}

/// Removes a name, and the image with its last one; of images for several platforms only the wanted one.
pub async fn remove(
    engine: &Engine,
    name: &str,
    force: bool,
    no_prune: bool,
    platform: Option<String>,
) -> Result<Vec<Deleted>, ImageError> {
    let options = RemoveOptions { force, prune_parents: !no_prune };
    if platform.is_some() {
        platforms::choose(&image::resolve_all(&engine.images, name)?, name, platform.as_deref())?;
    }
    let removed = take(engine, name, options, platform, Spared::Nothing).await?;
    Ok(removed.into_iter().map(deleted).collect())
}

/// The same by who does not know the image: what a build or a push needs stays.
pub(crate) async fn prune(engine: &Engine, name: &str, options: RemoveOptions) -> Result<Vec<Removed>, ImageError> {
    take(engine, name, options, None, Spared::Needed).await
}

/// What is not removed, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spared {
    Nothing,
    /// What a build or a push needs.
    Needed,
}

async fn take(
    engine: &Engine,
    name: &str,
    options: RemoveOptions,
    platform: Option<String>,
    spared: Spared,
) -> Result<Vec<Removed>, ImageError> {
    let (task, named) = (engine.clone(), name.to_owned());
    // Its labels are told when its names go, and nobody knows them any more then.
    let before = engine.images.resolve(name).ok();
    let run = async move {
        let core = task.clone();
        // No container may become the image's user between the count and the removal.
        let _removing = core.image_users.write().await;
        let users = users(&core);
        bridge::blocking(move || {
            let is_needed = |image: Arc<ImageRecord>| task.image_uses.is_needed(&image);
            if spared == Spared::Needed && task.images.resolve(&named).is_ok_and(is_needed) {
                return Ok(Vec::new());
            }
            let is_wanted = |image: &ImageRecord| platforms::check(platform.as_deref(), &named, image).is_ok();
            let removed = match platform {
                Some(_) => image::remove_platform(&task.images, &named, options, &users, &is_wanted),
                None => task.images.remove(&named, options, &users),
            };
            crate::pulls::forget_cut(&task);
            removed
        })
        .await
    };
    let removed = engine.detached(run).await?;
    tell_removed(engine, &removed, before.as_slice());
    Ok(removed)
}

/// Removes images by no user's word, with all their names; `None`, and nothing is changed, if one is needed by now, was used
/// since it was seen, or is not what it was.
pub(crate) async fn evict(
    engine: &Engine,
    images: Vec<Arc<ImageRecord>>,
    seen_nanos: i64,
) -> Result<Option<Vec<Removed>>, ImageError> {
    let (task, before) = (engine.clone(), images.clone());
    let run = async move {
        let core = task.clone();
        // As above; builds and pushes hold what they need with this lock, too.
        let _removing = core.image_users.write().await;
        bridge::blocking(move || {
            let users = image_budget::users(&task);
            let is_needed = |image: &ImageRecord| {
                users.reason(&task, image).is_some() || task.image_uses.is_used_since(&image.id, seen_nanos)
            };
            let evicted = image::evict(&task.images, &images, &is_needed);
            crate::pulls::forget_cut(&task);
            evicted
        })
        .await
    };
    let removed = engine.detached(run).await?;
    tell_removed(engine, removed.as_deref().unwrap_or_default(), &before);
    Ok(removed)
}

fn tell_removed(engine: &Engine, removed: &[Removed], before: &[Arc<ImageRecord>]) {
    engine.sweep_soon();
    for event in removed {
        if let Removed::Image(id) = event {
            engine.steps.unmark(id);
        }
        let plain = |id: &Digest, action| {
            engine.events.image(id.as_str(), action, BTreeMap::from([("name".to_owned(), id.to_string())]));
        };
        match event {
            Removed::Untagged { image, .. } => match before.iter().find(|before| before.id == *image) {
                Some(before) => tell(engine, before, "untag", image.as_str()),
                None => plain(image, "untag"),
            },
            Removed::Image(id) => plain(id, "delete"),
            Removed::Layer(_) => {}
        }
    }
}

pub(crate) fn deleted(removed: Removed) -> Deleted {
    match removed {
        Removed::Untagged { reference, .. } => Deleted::Untagged(reference.familiar()),
        Removed::Image(id) => Deleted::Deleted(id.to_string()),
        Removed::Layer(chain) => Deleted::Deleted(chain.to_string()),
    }
}

fn users(engine: &Engine) -> Vec<ImageUser> {
    let user = |container: &Arc<crate::container::Container>| {
        Some(ImageUser {
            container: container.id().to_string(),
            image: container.definition.image_id.parse().ok()?,
            running: container.state().is_running(),
        })
    };
    engine.containers.all().iter().filter_map(user).collect()
}

/// Loads an archive. Both closures run on a thread that may block.
pub async fn load(
    engine: &Engine,
    platform: Option<Platform>,
    archive: impl Read + Send + 'static,
    progress: impl FnMut(LoadProgress) + Send + 'static,
) -> Result<(), ImageError> {
    load_images(engine, platform, archive, progress).await.map(drop)
}

/// The same; answers the ids of what was loaded.
pub(crate) async fn load_images(
    engine: &Engine,
    platform: Option<Platform>,
    archive: impl Read + Send + 'static,
    mut progress: impl FnMut(LoadProgress) + Send + 'static,
) -> Result<Vec<Digest>, ImageError> {
    admission::archive(engine)?;
    let (task, sweeper) = (engine.clone(), engine.clone());
    let run = async move {
        let loaded = bridge::blocking(move || {
            let is_wanted =
                |found: &Platform| platform.as_ref().is_none_or(|wanted| platforms::is_exactly(wanted, found));
            let wanted = platform.as_ref();
            let wanted = wanted.map(|one| WantedPlatform { text: platforms::shown(one), is_wanted: &is_wanted });
            let mut tell = |event| steps(event).into_iter().for_each(&mut progress);
            image::load_for(&task.images, wanted.as_ref(), archive, &mut tell)
        })
        .await;
        if loaded.is_err() {
            // The layers that were there before the error are in the trash, whether or not anybody waits for us still.
            sweeper.sweep_soon();
        }
        loaded
    };
    let loaded = engine.detached(run).await?;
    image_budget::look_soon(engine, loaded.iter().map(|image| image.id.clone()));
    for image in &loaded {
        let name = image.references.first().map_or_else(|| image.id.to_string(), Reference::familiar);
        engine.events.image(image.id.as_str(), "load", BTreeMap::from([("name".to_owned(), name)]));
    }
    Ok(loaded.into_iter().map(|image| image.id.clone()).collect())
}

fn steps(event: LoadEvent) -> Vec<LoadProgress> {
    match event {
        LoadEvent::Layer { diff_id, bytes } => {
            vec![LoadProgress::Layer { id: diff_id.hex()[..12].to_owned(), current: bytes, total: bytes }]
        }
        LoadEvent::Renamed { reference, old } => vec![LoadProgress::Loaded(format!(
            "The image {} already exists, renaming the old one with ID {old} to empty string",
            reference.familiar()
        ))],
        LoadEvent::Loaded(image) if image.references.is_empty() => {
            vec![LoadProgress::Loaded(format!("Loaded image ID: {}", image.id))]
        }
        LoadEvent::Loaded(image) => {
            let sentence = |name: &Reference| LoadProgress::Loaded(format!("Loaded image: {}", name.familiar()));
            image.references.iter().map(sentence).collect()
        }
    }
}

/// The same of an image that was just made; somebody may have removed it already.
pub(crate) fn tell_made(engine: &Engine, id: &Digest, action: &str, name: &str) {
    match engine.images.get(id) {
        Some(image) => tell(engine, &image, action, name),
        None => engine.events.image(id.as_str(), action, [("name".to_owned(), name.to_owned())].into()),
    }
}

/// Tells what happened to an image, with its labels.
fn tell(engine: &Engine, image: &ImageRecord, action: &str, name: &str) {
    let mut attributes = image.config.config.labels.clone().unwrap_or_default();
    attributes.insert("name".to_owned(), name.to_owned());
    engine.events.image(image.id.as_str(), action, attributes);
}
