//! `POST /build`: an image of a Dockerfile and a context.
//!
//! ```text
//! context --receive--> Tree, Dockerfile --builder::plan--> stages --solve--> for each step
//!                                                           known by its key: the image that it came to
//!                                                           else: run or copy, then record the image
//! ```
//! As with dockerd's own builder each step is an image, the child of the one before. With its clients who asks for a list of
//! all sees them; with others they are the build cache's alone (`steps`). They go with the image whose last name goes. What is told is what dockerd tells, but that nothing is said to be run
//! where nothing is.
//!
//! BuildKit's clients ([`Input::Local`]) give a Dockerfile, and files when they are asked for; the steps are the same, and
//! are told as parts of a graph ([`PartEvent`]) instead of lines.

mod asks;
mod cache;
mod cache_options;
mod caches;
mod carried;
mod checks;
mod client_files;
mod copy;
mod explain;
mod exports;
mod failed_at;
mod flights;
mod git;
mod git_access;
mod graph;
mod imports;
mod input;
mod kept_context;
mod leaks;
mod lines;
mod lookup;
mod mounts;
mod named;
pub mod outputs;
mod receive;
mod remote;
mod remote_context;
mod reproduce;
mod run;
pub mod sbom;
mod solve;
mod sources;
mod space;
mod steps;
mod transfer;
mod tree;
mod turns;
mod used;
mod work;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use engine_api::host_config::HostConfig;
use errdefs::ErrorKind;
use oci::image::History;
use oci::{Reference, ReferenceError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Engine;
use crate::clock::{now_nanos, rfc3339};
use crate::ops::attach::AttachError;
use crate::ops::commit::CommitError;
use crate::ops::create::CreateError;
use crate::ops::images::{self, ImageError};
use crate::ops::pull::{PullError, PullStep};
use crate::ops::start::StartError;
use crate::ops::wait::WaitError;
use crate::sync::lock;
pub use asks::{Answer, AskError, Asks, Client};
pub use builder::StepError;
pub use builder::go::quote as quoted;
pub use builder::ports::PortError;
pub use builder::provenance::Used;
pub(crate) use cache::{Remembered, forget, forget_web, remembered};
pub use cache_options::{CacheFrom, CacheMounts, CacheOptionError, CachePlace, CacheSource, CacheTo};
pub(crate) use caches::Caches;
pub use carried::CarryError;
pub use client_files::ClientFileError;
pub(crate) use client_files::discard_secrets;
pub use content::Blob;
pub use copy::{CopyError, OwnerError};
pub use dockerfile::ignored;
pub use dockerfile_checks::{Findings, Violation, Warning};
pub use explain::{Explanation, Reason};
pub use exports::ExportError;
pub use failed_at::{FailedAt, Missing, missing_in_context};
pub(crate) use flights::Flights;
pub use git::GitError;
pub use graph::Needed;
pub use input::{AskIgnore, AskLogin, ContextSource, Directory, Input, Local, LocalFiles, SentFiles};
pub use kept_context::{ContextFiles, ContextName};
pub use leaks::LeakError;
use lines::Lines;
pub use lookup::Held;
pub use mounts::RunMountError;
pub use named::{LayoutSource, NamedContext, NamedSource};
pub use oci::Digest;
pub use oci::image::Descriptor;
pub use receive::ContextError;
pub(crate) use receive::discard_left_over;
pub use registry_client::WebError;
pub use remote_context::{
    ALONE, FetchedContext, RemoteContextError, RemoteFiles, fetch as fetch_context, keep as keep_context,
    shown_context, shown_repository,
};
pub(crate) use run::{left_over, remove_left_over, runs_in};
pub(crate) use sources::SeenSources;
pub use sources::SourceError;
pub use space::Limits;
pub(crate) use space::{Space, SpaceKind, all as all_space, goes, remove as remove_space};
pub(crate) use steps::StepImages;
pub use transfer::TransferError;
pub use tree::FileSum;
pub use work::WorkError;

/// How many lines may wait for a client. Who reads none holds the build up, whatever the number; some spare it and the build
/// a change of threads for each line.
const LINES: usize = 16;

/// What is built, and how.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The names of the image.
    pub names: Vec<String>,
    /// Where the Dockerfile is in the context; empty for the usual place.
    pub dockerfile: String,
    /// Build arguments; without a value only their name was given.
    pub arguments: BTreeMap<String, Option<String>>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The wanted stage; empty for the last one.
    pub target: String,
    /// The wanted platform; empty for this machine's.
    pub platform: String,
    /// Whether what is known is done again.
    pub no_cache: bool,
    /// Whether of each step is told why it was done again.
    pub explain: bool,
    /// Whether the container of a command that fails is left to the client, which is told of it.
    pub keep_failed: bool,
    /// Stages of which that is done again, by name.
    pub no_cache_stages: Vec<String>,
    /// Whether base images are looked for in registries even if they are here.
    pub pull: bool,
    /// Whether containers go that ended well.
    pub remove: bool,
    /// Whether those go that did not, too.
    pub force_remove: bool,
    /// `BUILDKIT_DOCKERFILE_CHECK`: which checks count, instead of what the Dockerfile says.
    pub check: Option<String>,
    /// Where steps may be known already.
    pub cache_from: Vec<CacheFrom>,
    /// Where it is left what steps came to.
    pub cache_to: Vec<CacheTo>,
    /// How commands are run.
    pub host: HostConfig,
    /// Whether commands that ask for the host's network get it, whatever the others have.
    pub allows_host_network: bool,
    /// `X-Registry-Config`: logins by registry, in JSON.
    pub logins: BTreeMap<String, engine_api::auth::AuthConfig>,
    /// What time it is for the image.
    pub reproduce: Option<Reproduce>,
}

/// An image in which nothing is later than a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reproduce {
    /// The time, in seconds since 1970: `SOURCE_DATE_EPOCH`.
    pub secs: i64,
    /// Whether that is said of its files, too, not of its configuration alone.
    pub files: bool,
}

/// Something to tell the client.
#[derive(Clone, Debug)]
pub enum BuildLine {
    /// What is printed as it is.
    Text(String),
    /// The image that a stage came to.
    Image(String),
    /// What became of a step, and why.
    Explained(Box<Explanation>),
    /// The container of a command that failed, which the client keeps.
    Kept(String),
    /// A cache that is left in a directory of the client's, which notes there what it is.
    CacheLeft {
        /// The client's name for the directory.
        directory: String,
        /// What names all of the cache.
        manifest: Box<Descriptor>,
    },
    /// An image that is pulled.
    Pull(PullStep),
    /// Of a graph: what a part of it does.
    Part {
        /// Its number, from 1.
        number: usize,
        /// What it does.
        event: PartEvent,
    },
    /// Of a graph: where it has failed; why comes next.
    Failed {
        /// The line of the Dockerfile, from 1; 0 for none.
        line: usize,
        /// The last one of the instruction, with its heredocs; 0 if that is not known.
        end: usize,
        /// The part, if one was going on there.
        part: Option<usize>,
    },
    /// Of a graph: what checks find in its Dockerfile.
    Findings(Box<Findings>),
    /// Of a graph: who has told all before this drops it; so does a line that nobody reads.
    Heard(mpsc::Sender<Infallible>),
    /// What was used, at the end; for who says where the image comes from.
    Used(Box<Used>),
}

/// What a part of a build does. Those of several stages go on side by side; what has not ended when the build fails was
/// given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartEvent {
    /// It begins.
    Begun {
        /// In BuildKit's words.
        name: String,
        /// The one that it follows.
        after: Option<usize>,
    },
    /// It was done before. Of one that has ended already: now somebody needs it.
    Cached,
    /// It prints something.
    Output {
        /// Whether that is an error.
        is_error: bool,
        /// As it is.
        bytes: Vec<u8>,
    },
    /// It has ended well.
    Ended,
    /// It has failed, for a reason. The build may go on.
    Failed(String),
}

/// Why nothing was built. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A name is none.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// A name has a digest.
    #[error("build tag cannot contain a digest")]
    NameDigest,
    /// The context is none.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The context does not come.
    #[error(transparent)]
    RemoteContext(#[from] RemoteContextError),
    /// It is not to be had what leaves files of the context out.
    #[error(transparent)]
    Ignore(AskError),
    /// The Dockerfile cannot be planned.
    #[error(transparent)]
    Plan(#[from] builder::PlanError),
    /// Checks do not like the Dockerfile, and that counts. BuildKit's sentence.
    #[error(transparent)]
    Checks(Violation),
    /// An instruction cannot be carried out.
    #[error(transparent)]
    Step(#[from] builder::StepError),
    /// An instruction that a base image asks for is none.
    #[error(transparent)]
    Trigger(#[from] dockerfile::ParseError),
    /// The platform is none.
    #[error(transparent)]
    Platform(#[from] engine_api::platform::PlatformError),
    /// The platform of a stage is none.
    #[error("failed to parse platform {platform}")]
    StagePlatform {
        /// As the stage says it.
        platform: String,
        /// Why.
        source: engine_api::platform::PlatformError,
    },
    /// A base image does not come.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// An image that a stage begins with is not to be had. BuildKit's sentence.
    #[error("{name}: failed to resolve source metadata for {}", full_name(name))]
    Metadata {
        /// As it was named.
        name: String,
        /// Why.
        source: Box<BuildError>,
    },
    /// The image of a layout cannot be loaded.
    #[error(transparent)]
    Load(ImageError),
    /// A context that is taken as an image is none.
    #[error("the context {0} is no image")]
    NoNamedImage(String),
    /// A base image is not here.
    #[error(transparent)]
    Image(#[from] image::ResolveError),
    /// A base image is for another platform.
    #[error(transparent)]
    Base(CreateError),
    /// Files are not there.
    #[error("{instruction} failed")]
    Source {
        /// `COPY`, `ADD` or `RUN`.
        instruction: &'static str,
        /// Why.
        source: SourceError,
    },
    /// It does not get what only the client has.
    #[error(transparent)]
    Client(#[from] ClientFileError),
    /// Nobody knows whether secrets are in what it wrote.
    #[error(transparent)]
    LookForLeaks(#[from] LeakError),
    /// A secret would be in the image.
    #[error(
        "the secret {id} would be in the image: the command wrote it to {path}. Have it read where it is needed, or remove \
         the file in the same command"
    )]
    Leak {
        /// Its name.
        id: String,
        /// The file, from the root.
        path: String,
    },
    /// A command does not get its mounts.
    #[error(transparent)]
    Mount(#[from] RunMountError),
    /// What files are to be copied from is not there.
    #[error("invalid from flag value {from}")]
    From {
        /// As it was named.
        from: String,
        /// Why.
        source: Box<BuildError>,
    },
    /// Files are not copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// What was fetched cannot be looked at.
    #[error("open what was fetched")]
    Remote(#[source] std::io::Error),
    /// There is no tree to write to.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// A container cannot be made.
    #[error(transparent)]
    Create(CreateError),
    /// Its output cannot be had.
    #[error(transparent)]
    Attach(AttachError),
    /// Its end cannot be waited for.
    #[error(transparent)]
    Wait(WaitError),
    /// A command cannot be started.
    #[error("{}", errdefs::chain(&**.why))]
    Start {
        /// The command.
        command: String,
        /// Why.
        why: Box<StartError>,
    },
    /// A command asks for the host's network, which the build has not. BuildKit's sentence.
    #[error("network.host is not allowed")]
    HostNetwork,
    /// A file for a command cannot be written.
    #[error("write a file for a command")]
    Script(#[source] std::io::Error),
    /// A command fails.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    NonZero {
        /// Its words.
        command: String,
        /// Its code.
        code: i64,
    },
    /// An image cannot be made.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// What steps came to is not left where it should be.
    #[error("error writing cache")]
    Export(#[from] ExportError),
    /// It cannot be made again with other times.
    #[error(transparent)]
    Reproduce(#[from] image::ClampError),
    /// There is nothing to name.
    #[error("No image was generated. Is your Dockerfile empty?")]
    Nothing,
    /// It cannot be named.
    #[error(transparent)]
    Tag(ImageError),
    /// The disk does not take it.
    #[error(transparent)]
    Settle(#[from] image::SettleError),
}

impl BuildError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            BuildError::Context(
                ContextError::Empty(_)
                | ContextError::Syntax { .. }
                | ContextError::Instruction { .. }
                | ContextError::Ignore(_),
            ) => ErrorKind::InvalidArgument,
            BuildError::Plan(err) => err.kind(),
            BuildError::Platform(err) | BuildError::StagePlatform { source: err, .. } => err.kind(),
            _ => ErrorKind::Internal,
        }
    }

    /// The code of a command that failed.
    pub fn code(&self) -> Option<i64> {
        match self {
            BuildError::NonZero { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// A build that goes on; dropped, it ends.
#[derive(Debug)]
pub struct Building {
    lines: mpsc::Receiver<BuildLine>,
    failed_at: Arc<Mutex<FailedAt>>,
    task: Option<JoinHandle<Result<Solved, BuildError>>>,
    /// The image, once it is there.
    pub image: Option<String>,
    /// What keeps the steps that it came to, once it is there.
    pub held: Option<Held>,
}

/// What a build came to.
#[derive(Debug)]
struct Solved {
    image: String,
    held: Option<Held>,
}

impl Building {
    /// The next line; nothing more comes behind an error.
    pub async fn next(&mut self) -> Option<Result<BuildLine, BuildError>> {
        if let Some(line) = self.lines.recv().await {
            return Some(Ok(line));
        }
        match self.task.take()?.await {
            Ok(Ok(Solved { image, held })) => {
                (self.image, self.held) = (Some(image), held);
                None
            }
            Ok(Err(err)) => Some(Err(err)),
            Err(err) => match err.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down: whoever waits here is about to be dropped, too.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Building {
    /// The Dockerfile; empty if none was read.
    pub fn dockerfile(&self) -> Arc<str> {
        lock(&self.failed_at).text.clone()
    }

    /// Where it is that it has failed for a reason; of a graph [`BuildLine::Failed`] says it.
    pub fn failed_at(&self, err: &BuildError) -> FailedAt {
        lock(&self.failed_at).clone().of(err)
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

/// Begins a build for a client. Reads the context on a thread that may block.
pub fn start(
    engine: &Engine,
    options: BuildOptions,
    input: Input,
    named: Vec<NamedContext>,
    client: Client,
) -> Result<Building, BuildError> {
    let names = options.names.iter().map(|name| new_name(name)).collect::<Result<Vec<_>, _>>()?;
    let (sender, receiver) = mpsc::channel(LINES);
    let lines = Arc::new(Lines::new(sender, matches!(input, Input::Local(_))));
    let failed_at = lines.failed_at();
    let input = (input, named);
    let (engine, busy) = (engine.clone(), engine.upkeep.builds.begin());
    let task = tokio::spawn(async move {
        let _busy = busy;
        let Some(wanted) = options.reproduce else {
            return solve::build(engine, options, names, input, client, lines).await;
        };
        let built = solve::build(engine.clone(), options, Vec::new(), input, client, lines.clone()).await?;
        reproduce::reproduce(engine, lines, built, names, wanted).await
    });
    Ok(Building { lines: receiver, failed_at, task: Some(task), image: None, held: None })
}

/// Looks at a Dockerfile instead of building it: at the end its [`BuildLine::Findings`] are told, and the image is nothing.
/// `all_stages` is whether those count that the target does not need.
pub fn ask(
    engine: &Engine,
    options: BuildOptions,
    local: Local,
    named: Vec<NamedContext>,
    all_stages: bool,
) -> Building {
    let (sender, receiver) = mpsc::channel(LINES);
    let lines = Arc::new(Lines::new(sender, true));
    let task = tokio::spawn(checks::ask(engine.clone(), options, local, named, all_stages, lines));
    Building { lines: receiver, failed_at: Arc::default(), task: Some(task), image: None, held: None }
}

/// Gives an image that was built a name, and the name in full.
pub async fn name(engine: &Engine, image: &str, name: &str) -> Result<(), BuildError> {
    let name = new_name(name)?;
    let (repository, tag) = (name.familiar_name(), name.tag().unwrap_or_default().to_owned());
    images::tag(engine, image, &repository, &tag).await.map_err(BuildError::Tag)
}

/// Shows an image that was built, with or without a name. Blocks shortly.
pub fn show(engine: &Engine, image: &str) {
    if let Ok(id) = image.parse() {
        engine.steps.unmark(&id);
    }
}

/// Gives images for several platforms one name.
pub async fn name_all(engine: &Engine, images: &[&str], name: &str) -> Result<(), BuildError> {
    let name = new_name(name)?;
    let images = images.iter().map(|image| Ok(engine.images.resolve(image)?.id.clone()));
    let ids = images.collect::<Result<Vec<_>, image::ResolveError>>()?;
    images::name_all(engine, ids, name).await.map_err(BuildError::Tag)
}

/// What a part of a build is known by, of the name of the build and its number: a digest, as clients expect it.
pub fn part_digest(build: &str, number: usize) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(format!("{number} {build}"));
    oci::Digest::from_sha256(&hash.into()).to_string()
}

/// A moment as documents have it, in RFC 3339, of nanoseconds since 1970.
pub fn shown_time(nanos: i64) -> String {
    crate::clock::rfc3339(nanos)
}

/// What is built on: operating system, architecture, variant.
pub fn host_platform() -> [String; 3] {
    let host = crate::ops::import::host_platform();
    [host.os, host.architecture, host.variant]
}

/// What is built for, as clients write it: `linux/arm64`.
pub fn platform_of(options: &BuildOptions) -> String {
    let [os, architecture, variant] = match solve::platforms(&options.platform) {
        Ok(platforms) if !platforms.target[1].is_empty() => platforms.target,
        // One that is none is refused where it is built.
        _ => host_platform(),
    };
    let variant = if variant.is_empty() { variant } else { format!("/{variant}") };
    format!("{os}/{architecture}{variant}")
}

/// A platform by the one name that it has of several: `linux/x86_64` is `linux/amd64`.
pub fn platform_name(text: &str) -> String {
    let mut parts = text.splitn(3, '/');
    let [Some(os), Some(architecture)] = [parts.next(), parts.next()] else { return text.to_owned() };
    let (architecture, variant) = registry_client::processor(architecture, parts.next().unwrap_or_default());
    match variant.as_str() {
        "" => format!("{os}/{architecture}"),
        variant => format!("{os}/{architecture}/{variant}"),
    }
}

/// What history says of a step.
fn history(author: &str, words: &[String]) -> History {
    History {
        created: Some(rfc3339(now_nanos())),
        created_by: words.join(" "),
        author: author.to_owned(),
        comment: String::new(),
        empty_layer: false,
    }
}

/// A name with its registry, as BuildKit tells that an image gets it; what is none as it is.
pub fn with_registry(text: &str) -> String {
    text.parse::<Reference>().map_or_else(|_| text.to_owned(), |name| name.to_string())
}

/// A name in full, as BuildKit tells what an image is built on; what is none as it is.
fn full_name(text: &str) -> String {
    text.parse::<Reference>().map_or_else(|_| text.to_owned(), |name| name.with_default_tag().to_string())
}

fn new_name(text: &str) -> Result<Reference, BuildError> {
    let name: Reference = text.parse()?;
    if name.digest().is_some() {
        return Err(BuildError::NameDigest);
    }
    Ok(name.with_default_tag())
}
