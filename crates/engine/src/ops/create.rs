//! `POST /containers/create`

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use container_spec::files::{Addresses, HostFile, hosts_file};
use container_spec::{InvalidRequest, Point, Ready, Shared};
use engine_api::container::{Config, CreateRequest, CreateResponse};
use engine_api::host_config::HostConfig;
use errdefs::ErrorKind;
use image::ImageRecord;
use oci::ContainerId;
use oci::image::ExecConfig;
use snapshot::{Driver, SnapshotKey};
use stdx::fs::Durability;

use crate::Engine;
use crate::container::Container;
use crate::container::name;
use crate::container::record::{Definition, Record};
use crate::container::state::State;
use crate::image_mounts;
use crate::limits;
use crate::links::{self, LinkError};
use crate::networking;
use crate::networking::attachments::{self, EndpointError};
use crate::platforms::{self, PlatformMismatch};
use crate::registry::LookupError;
use crate::sharing::{self, ShareError};
use crate::volumes::{self, ClaimError};

/// What comes in the query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// The wanted name; a random one if absent.
    pub name: Option<String>,
    /// The wanted platform, `os[/arch[/variant]]`.
    pub platform: Option<String>,
    /// Whether read-only binds leave what is mounted below them writable, as old clients expect.
    pub flat_read_only: bool,
    /// What the user should know of the request as it came.
    pub warning: Option<&'static str>,
    /// Whether the places are no volumes that the configuration and the image say are some.
    pub without_volumes: bool,
    /// Whether it has no `/.dockerenv`.
    pub without_mark: bool,
}

/// Why [`create`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Nothing is asked for.
    #[error("config cannot be empty in order to create a container")]
    Empty,
    /// The request is refused.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// There is no such image.
    #[error(transparent)]
    Image(#[from] image::ResolveError),
    /// The image is for another platform than the wanted one.
    #[error(transparent)]
    Platform(#[from] PlatformMismatch),
    /// The name is not allowed.
    #[error("Invalid container name ({name}), only {} are allowed", crate::container::name::ALLOWED)]
    Name {
        /// As given.
        name: String,
    },
    /// The name belongs to another container.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// Without a slash.
        name: String,
        /// Who has it.
        owner: ContainerId,
    },
    /// The filesystem of a bind's source does not answer.
    #[error("look for the sources of bind mounts: the filesystem does not answer")]
    SourcesStuck,
    /// Its snapshot cannot be made.
    #[error("create the container's snapshot")]
    Snapshot(#[source] snapshot::SnapshotError),
    /// A container whose volumes it is to share does not exist.
    #[error(transparent)]
    VolumesFrom(LookupError),
    /// A container whose namespaces it is to share does not exist.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A container that it is to link to cannot be linked to.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It wants of a network what that one does not have.
    #[error(transparent)]
    Network(#[from] EndpointError),
    /// Its egress policy cannot be kept.
    #[error(transparent)]
    Egress(#[from] networking::egress::EgressRequestError),
    /// Its volumes cannot be made ready.
    #[error(transparent)]
    Volumes(#[from] ClaimError),
    /// Its files cannot be written.
    #[error("write {}", path.display())]
    Files {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CreateError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CreateError::Empty | CreateError::Name { .. } => ErrorKind::InvalidArgument,
            CreateError::Invalid(err) => err.kind(),
            CreateError::Image(err) => err.kind(),
            CreateError::Platform(err) => err.kind(),
            CreateError::NameTaken { .. } => ErrorKind::Conflict,
            CreateError::SourcesStuck => ErrorKind::Unavailable,
            // dockerd says that the request is wrong, not that something is missing: its clients would pull the image.
            CreateError::VolumesFrom(_) => ErrorKind::InvalidArgument,
            CreateError::Share(err) => err.kind(),
            CreateError::Link(err) => err.kind(),
            CreateError::Network(err) => err.kind(),
            CreateError::Egress(err) => err.kind(),
            CreateError::Volumes(err) => err.kind(),
            CreateError::Snapshot(_) | CreateError::Files { .. } => ErrorKind::Internal,
        }
    }
}

/// How long the filesystems of bind mounts' sources may take to answer: a slow network's need seconds.
const SOURCES_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be made.
struct Plan {
    definition: Definition,
    /// What has to be done for each mount.
    ready: Vec<Ready>,
    chain: Vec<snapshot::ChainId>,
    without_mark: bool,
    warnings: Vec<String>,
}

/// Makes a container of an image.
pub async fn create(
    engine: &Engine,
    options: CreateOptions,
    request: CreateRequest,
) -> Result<CreateResponse, CreateError> {
    create_as(engine, random_id(), options, request).await
}

/// An id that no container has.
pub(crate) fn random_id() -> ContainerId {
    stdx::id::random_hex::<32>().parse().expect("32 random bytes are 64 hex digits")
}

/// The same, for who has to know the id before there is a container.
pub(crate) async fn create_as(
    engine: &Engine,
    id: ContainerId,
    options: CreateOptions,
    request: CreateRequest,
) -> Result<CreateResponse, CreateError> {
    let (task, of, wanted) = (engine.clone(), id.clone(), options.clone());
    // Networks may be waited for: whoever else in our network namespace is choosing a subnet has ten seconds for it.
    let plan = bridge::blocking(move || plan(&task, &of, &wanted, request)).await?;
    check_bind_sources(&plan.definition.mounts).await?;
    let name = reserve_name(engine, options.name.as_deref(), &id)?;
    let engine = engine.clone();
    engine.clone().detached(async move { apply(&engine, name, plan).await }).await
}

/// The snapshot of a container.
pub(crate) fn snapshot_key(id: &ContainerId) -> SnapshotKey {
    id.as_str().parse().expect("64 hex digits are a key")
}

fn plan(
    engine: &Engine,
    id: &ContainerId,
    options: &CreateOptions,
    request: CreateRequest,
) -> Result<Plan, CreateError> {
    let CreateRequest { mut config, host_config, networking_config } = request;
    let mut host = host_config.unwrap_or_default();
    let nothing = config.cmd.iter().flatten().chain(config.entrypoint.iter().flatten()).next().is_none();
    if config.image.is_empty() && nothing {
        return Err(InvalidRequest::NoCommand.into());
    }
    let checked = container_spec::validate(&config, &host, networking_config.as_ref(), &engine.facts);
    let bridge = engine.config.network.as_ref();
    let warnings = checked.map_err(|err| attachments::about_bridge(bridge, networking_config.as_ref(), err))?;
    let image = named_image(engine, options, &config.image)?;
    let asked = options.platform.as_deref().is_some_and(|platform| !platform.is_empty());
    let foreign = image.as_ref().filter(|_| !asked).and_then(|image| platforms::warning(&image.config.platform));
    let no_defaults = ExecConfig::default();
    let (image_id, chain, defaults) = match &image {
        Some(image) => (image.id.to_string(), image.chain.clone(), &image.config.config),
        None => (String::new(), Vec::new(), &no_defaults),
    };
    container_spec::merge_image(&mut config, defaults)?;
    if options.without_volumes {
        config.volumes = None;
    }
    merge_log(&mut host, engine);
    engine.current.settings().fill(&mut host);
    container_spec::normalize_host(&mut host, &engine.facts);
    networking::resolve_mode(engine, &mut host.network_mode);
    sharing::resolve(engine, &mut host)?;
    let networks = attachments::plan(engine, &host.network_mode, networking_config)?;
    networking::egress::check(&config, &host, networks.as_ref())?;
    let links = links::resolve(engine, &host)?;
    if config.hostname.is_empty() {
        config.hostname =
            if host.network_mode == "host" { engine.facts.hostname.clone() } else { id.short().to_owned() };
    }
    let (mut mounts, ready): (Vec<Point>, _) = plan_mounts(engine, &config, &host)?.into_iter().unzip();
    crate::propagation::follow_data_root(&mut mounts, &engine.config.data_root);
    let command: Vec<String> = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned().collect();
    let (path, args) = command.split_first().ok_or(InvalidRequest::NoCommand)?;
    let definition = Definition {
        id: id.clone(),
        created_at_nanos: crate::clock::now_nanos(),
        image_id,
        path: path.clone(),
        args: args.to_vec(),
        config,
        host_config: host,
        mounts,
        flat_read_only: options.flat_read_only,
        links,
        networks,
        storage_driver: Some(engine.images.snapshots().driver())
            .filter(|driver| *driver != Driver::Overlay2)
            .map(|driver| driver.name().to_owned()),
    };
    let warnings = warnings.iter().map(ToString::to_string).chain(foreign);
    let warnings = warnings.chain(options.warning.map(str::to_owned)).collect();
    Ok(Plan { definition, ready, chain, without_mark: options.without_mark, warnings })
}

fn plan_mounts(engine: &Engine, config: &Config, host: &HostConfig) -> Result<Vec<(Point, Ready)>, CreateError> {
    let mut others = Vec::new();
    for raw in host.volumes_from.iter().flatten() {
        let (name, writable) = container_spec::bind::parse_volumes_from(raw)?;
        others.push((engine.containers.find(name).map_err(CreateError::VolumesFrom)?, writable));
    }
    let points = others.iter().map(|(container, writable)| (container.definition.mounts.as_slice(), *writable));
    let shared: Vec<Shared<'_>> = points.map(|(points, writable)| Shared { points, writable }).collect();
    let mut fresh = || volume::VolumeName::random().to_string();
    let mut planned = container_spec::plan_points(config, host, &shared, &mut fresh)?;
    image_mounts::resolve(engine, &mut planned)?;
    Ok(planned)
}

/// The image of a container. Without a name there is none: it begins with nothing but what is mounted into it.
fn named_image(engine: &Engine, options: &CreateOptions, name: &str) -> Result<Option<Arc<ImageRecord>>, CreateError> {
    if name.is_empty() {
        return Ok(None);
    }
    let images = image::resolve_all(&engine.images, name)?;
    Ok(Some(platforms::choose(&images, name, options.platform.as_deref())?))
}

/// The daemon's log driver, and its options where the container uses the same driver.
fn merge_log(host: &mut HostConfig, engine: &Engine) {
    let (log, default) = (&mut host.log_config, &engine.config.default_log);
    if log.kind.is_empty() {
        log.kind.clone_from(&default.kind);
    }
    let same = log.kind == default.kind;
    let options = log.config.get_or_insert_default();
    // What is kept beside a server has the daemon's options with any driver.
    for (name, value) in default.config.iter().flatten().filter(|(name, _)| same || name.starts_with("cache-")) {
        options.entry(name.clone()).or_insert_with(|| value.clone());
    }
}

/// Sources of `--mount` must exist by now; those of `-v` are made at the start. They may lie on a filesystem that is dead:
/// that costs one thread for as long as it is.
async fn check_bind_sources(points: &[Point]) -> Result<(), CreateError> {
    let mut sources = container_spec::bind_sources(points);
    sources.retain(|bind| !bind.create);
    if sources.is_empty() {
        return Ok(());
    }
    let missing = bridge::blocking(move || sources.into_iter().find(|bind| !bind.path.exists()));
    match tokio::time::timeout(SOURCES_TIMEOUT, missing).await {
        Ok(None) => Ok(()),
        Ok(Some(bind)) => Err(container_spec::validate::missing_bind_source(&bind.path).into()),
        Err(_) => Err(CreateError::SourcesStuck),
    }
}

fn reserve_name(engine: &Engine, wanted: Option<&str>, id: &ContainerId) -> Result<String, CreateError> {
    if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        if !name::is_valid(name) {
            return Err(CreateError::Name { name: wanted.to_owned() });
        }
        let reserved = engine.containers.reserve(name, id);
        return match reserved {
            Ok(()) => Ok(name.to_owned()),
            Err(owner) => Err(CreateError::NameTaken { name: name.to_owned(), owner }),
        };
    }
    // The id is as good a source of chance as any.
    let random = u64::from_str_radix(&id.as_str()[..16], 16).expect("an id is hex");
    let chosen = (0..name::ATTEMPTS).map(|attempt| name::choose(random.rotate_right(7 * attempt as u32), attempt));
    let free = chosen.chain([id.short().to_owned()]).find(|name| engine.containers.reserve(name, id).is_ok());
    let taken = || CreateError::NameTaken { name: id.short().to_owned(), owner: id.clone() };
    free.ok_or_else(taken)
}

async fn apply(engine: &Engine, name: String, plan: Plan) -> Result<CreateResponse, CreateError> {
    let Plan { definition, ready, chain, without_mark, warnings } = plan;
    let id = definition.id.clone();
    let mut record = Record { version: 1, name: name.clone(), definition, state: State::default() };
    // Until the container is known as the image's user: a removal in between would take its layers away.
    let _used = engine.image_users.read().await;
    if let Err(err) = still_there(engine, &record.definition) {
        engine.containers.release(&name, &id);
        return Err(err);
    }
    let task = engine.clone();
    let made = bridge::blocking(move || {
        let made = make(&task, &mut record, &ready, (&chain, without_mark));
        made.map(|()| record)
    });
    let record = match made.await {
        Ok(record) => record,
        Err(err) => {
            engine.containers.release(&name, &id);
            engine.sweep_soon();
            return Err(err);
        }
    };
    super::image_budget::note(engine, &record.definition.image_id);
    let container = Arc::new(Container::new(record));
    engine.containers.insert(container.clone());
    engine.containers.links().add(&container, |id| engine.containers.get(id));
    engine.events.container(&container, "create", []);
    engine.tell_idle_changed();
    networking::prepare_soon(engine, &container.definition);
    Ok(CreateResponse { id: id.to_string(), warnings })
}

/// Whether nobody removed the image since it was found. A container of no image misses none.
fn still_there(engine: &Engine, definition: &Definition) -> Result<(), CreateError> {
    if definition.image_id.is_empty() {
        return Ok(());
    }
    Ok(engine.images.resolve(&definition.image_id).map(drop)?)
}

/// Makes snapshot, volumes, files and, last, the record. What fails takes back what was made before it.
fn make(
    engine: &Engine,
    record: &mut Record,
    ready: &[Ready],
    (chain, without_mark): (&[snapshot::ChainId], bool),
) -> Result<(), CreateError> {
    let id = &record.definition.id.clone();
    let key = snapshot_key(id);
    let kept = image_mounts::layers(&record.definition.mounts);
    let bytes = limits::of_container(engine, &record.definition.host_config)?;
    let limit = bytes.map(|bytes| move |directories: &[&Path]| limits::apply(engine, directories, bytes));
    let limit = limit.as_ref().map(|limit| limit as snapshot::Limit<'_>);
    let prepared = engine.images.snapshots().prepare_limited(&key, chain, &kept, limit);
    let root = prepared.map_err(CreateError::Snapshot)?;
    let marked = if without_mark { Ok(()) } else { make_mark(&root) };
    let written = marked.and_then(|()| {
        let claimed = volumes::claim(engine, id, &mut record.definition.mounts, ready, &root)?;
        write_files(engine, record).inspect_err(|_| claimed.take_back(engine, id))
    });
    if written.is_err() {
        // What cannot be taken back now has no record, and is collected by the next start.
        let _ = stdx::fs::remove_if_exists(engine.recorder.dir(id).path());
        let _ = engine.images.snapshots().remove(&key);
    }
    written
}

/// `/.dockerenv`, by which programs know that they are in a container.
fn make_mark(root: &[oci::runtime::Mount]) -> Result<(), CreateError> {
    let upper = root.iter().flat_map(|mount| &mount.options).find_map(|option| option.strip_prefix(UPPER));
    // A root that is one directory has everything in that.
    let whole = root.iter().find(|mount| mount.kind == "bind").map(|mount| mount.source.as_path());
    let Some(upper) = upper.map(Path::new).or(whole) else { return Ok(()) };
    let path = upper.join(".dockerenv");
    let made = File::options().write(true).create_new(true).open(&path);
    // Docker's mode, whatever our umask is.
    let made = made.and_then(|file| file.set_permissions(Permissions::from_mode(0o755)));
    // The image may have one: it was made of a container.
    let made = made.or_else(|err| if err.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(err) });
    made.map_err(|source| CreateError::Files { path, source })
}

/// The option of overlayfs that names the container's own layer.
const UPPER: &str = "upperdir=";

fn write_files(engine: &Engine, record: &Record) -> Result<(), CreateError> {
    let Record { definition, name, state, .. } = record;
    let dir = engine.recorder.dir(&definition.id);
    let failed = |path: PathBuf| move |source| CreateError::Files { path, source };
    let made = DirBuilder::new().mode(0o710).create(dir.path());
    made.map_err(failed(dir.path().to_owned()))?;
    let host = &definition.host_config;
    let resolving = engine.config.resolver.complete(host);
    let of_host = |path| std::fs::read_to_string(path).unwrap_or_default();
    // A container of the host's network asks as the host does.
    let (path, text) = match host.network_mode.as_str() {
        "host" => (dns::RESOLV_CONF, of_host(dns::RESOLV_CONF)),
        _ => dns::host_file(),
    };
    let host_file = HostFile { path, text: &text };
    // With addresses at the start.
    let hosts = hosts_file(&definition.config, host, &Addresses::default(), &[], &of_host("/etc/hosts"));
    for (path, text) in [
        (dir.hostname(), container_spec::files::hostname_file(&definition.config)),
        (dir.hosts(), hosts),
        (dir.resolv_conf(), container_spec::files::resolv_conf(&resolving, host_file)),
    ] {
        std::fs::write(&path, text).map_err(failed(path))?;
    }
    // A power cut may take a container that removes itself.
    let durability = if host.auto_remove { Durability::ProcessDeath } else { Durability::PowerCut };
    dir.write(name, definition, state, durability).map_err(failed(dir.record()))?;
    if durability == Durability::PowerCut {
        let parent = dir.path().parent().unwrap_or(dir.path());
        stdx::fs::sync_dir(parent).map_err(failed(parent.to_owned()))?;
    }
    Ok(())
}
