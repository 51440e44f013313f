//! `POST /images/create`, from a registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine_api::auth::AuthConfig;
use errdefs::ErrorKind;
use image::{ImageRecord, PulledImage};
use layer::ApplyError;
use oci::image::{Descriptor, Index};
use oci::{Digest, Reference, ReferenceError};
use registry_client::{Credentials, Registry, RegistryError, Resolved, Session, Wanted};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::info;

use crate::ops::login::credentials;
pub use crate::pulls::Stage;
use crate::pulls::{Follower, Key, News};
use crate::{AdmissionError, Engine, admission, platforms};

/// The longest configuration that the store holds.
const CONFIG_MAX: u64 = 4 * 1024 * 1024;

/// How many steps may wait for a client.
const STEPS: usize = 16;

/// What comes in the query and the headers.
#[derive(Clone, Debug, Default)]
pub struct PullQuery {
    /// `fromImage`.
    pub image: String,
    /// `tag`: a tag, a digest, or empty.
    pub tag: String,
    /// `platform`, which may be empty.
    pub platform: String,
    /// `X-Registry-Auth`, which may be empty.
    pub authorization: String,
}

/// What is wanted.
#[derive(Debug)]
pub struct Plan {
    /// Without a tag and a digest: all tags.
    reference: Reference,
    /// With how it is told of.
    platform: Option<(Wanted, String)>,
    credentials: Credentials,
}

/// Something to tell the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullStep {
    /// A sentence about the whole.
    Said(String),
    /// A sentence about a tag or digest.
    About {
        /// Which one.
        id: String,
        /// The sentence.
        status: String,
    },
    /// A layer has got on.
    Layer {
        /// The first 12 digits of its digest.
        id: String,
        /// Where it is.
        stage: Stage,
    },
}

/// Why an image did not come. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The tag is none.
    #[error("invalid tag format")]
    TagFormat,
    /// The platform is none.
    #[error(transparent)]
    Platform(#[from] engine_api::platform::PlatformError),
    /// The platform is none that images are made for.
    #[error(transparent)]
    Wanted(#[from] registry_client::PlatformError),
    /// Containers are Linux's here.
    #[error("operating system is not supported")]
    System,
    /// The name stands for no image.
    #[error("'{name}' is a reserved name")]
    Reserved {
        /// Which one.
        name: String,
    },
    /// A mirror that is asked for all tags has none, which the registry may well have. For the log.
    #[error("no tags of {name}")]
    NoTags {
        /// Of which repository.
        name: String,
    },
    /// The registry does not give it.
    #[error(transparent)]
    Registry(Arc<RegistryError>),
    /// The administrator's policy does not let it in, or cannot be followed.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// It cannot be stored.
    #[error(transparent)]
    Store(image::PullError),
    /// Another client's pull of the same image failed.
    #[error(transparent)]
    Shared(Arc<PullError>),
}

impl PullError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PullError::Reference(_) | PullError::TagFormat | PullError::System => ErrorKind::InvalidArgument,
            PullError::Platform(err) => err.kind(),
            PullError::Wanted(err) => err.kind(),
            PullError::Reserved { .. } => ErrorKind::Forbidden,
            PullError::NoTags { .. } => ErrorKind::NotFound,
            PullError::Registry(err) => err.kind(),
            PullError::Admission(err) => err.kind(),
            PullError::Store(err) => err.kind(),
            PullError::Shared(err) => err.kind(),
        }
    }
}

impl PullError {
    /// Whether it may go better elsewhere: everything but what another one would say, too (moby distribution/errors.go,
    /// `continueOnError`), and what this machine cannot do. A policy that wants signatures does not find them at a mirror
    /// that leaves them out.
    fn is_of_whom_we_ask(&self) -> bool {
        match self {
            PullError::Registry(err) => !matches!(
                **err,
                RegistryError::Cancelled | RegistryError::LayerType { .. } | RegistryError::Write { .. }
            ),
            PullError::Store(image::PullError::Stage { .. } | image::PullError::Store { .. }) => false,
            PullError::Store(image::PullError::Unpack { source }) => {
                !matches!(source, ApplyError::Create { .. } | ApplyError::Record { .. } | ApplyError::Open { .. })
            }
            PullError::Admission(_) | PullError::TagFormat | PullError::NoTags { .. } | PullError::Store(_) => true,
            PullError::Shared(err) => err.is_of_whom_we_ask(),
            _ => false,
        }
    }
}

impl From<RegistryError> for PullError {
    fn from(err: RegistryError) -> PullError {
        PullError::Registry(Arc::new(err))
    }
}

/// What the query means.
pub fn plan(query: &PullQuery) -> Result<Plan, PullError> {
    // dockerd takes what it cannot read for nothing, too.
    plan_with(query, AuthConfig::from_header(&query.authorization))
}

/// The same with a login that is known already.
pub(super) fn plan_with(query: &PullQuery, login: Option<AuthConfig>) -> Result<Plan, PullError> {
    let platform = Some(&query.platform[..]).filter(|text| !text.is_empty());
    let platform = platform.map(|text| engine_api::platform::parse(text).map(|told| (text, told))).transpose()?;
    let platform = platform.map(|(text, told)| Wanted::parse(text).map(|wanted| (wanted, told))).transpose()?;
    // What `pull -a` of long ago sends.
    let name = query.image.strip_suffix(':').unwrap_or(&query.image);
    let mut reference: Reference = name.parse()?;
    if !query.tag.is_empty() {
        let separator = if query.tag.parse::<Digest>().is_ok() { '@' } else { ':' };
        let named = format!("{}/{}{separator}{}", reference.domain(), reference.path(), query.tag);
        reference = named.parse().map_err(|_| PullError::TagFormat)?;
    }
    if reference.familiar_name() == "scratch" {
        return Err(PullError::Reserved { name: reference.familiar_name() });
    }
    let credentials = login.map(credentials).unwrap_or_default();
    Ok(Plan { reference, platform, credentials })
}

/// A pull that goes on; dropped, it ends, unless others want the same image.
#[derive(Debug)]
pub struct Pulling {
    steps: mpsc::Receiver<PullStep>,
    task: Option<JoinHandle<Result<(), PullError>>>,
}

impl Pulling {
    /// The next step; nothing more comes behind an error.
    pub async fn next(&mut self) -> Option<Result<PullStep, PullError>> {
        if let Some(step) = self.steps.recv().await {
            return Some(Ok(step));
        }
        match self.task.take()?.await {
            Ok(Ok(())) => None,
            Ok(Err(err)) => Some(Err(err)),
            Err(err) => match err.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down: whoever waits here is about to be dropped, too.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Drop for Pulling {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

/// Begins a pull.
pub fn start(engine: &Engine, plan: Plan) -> Pulling {
    let (sender, steps) = mpsc::channel(STEPS);
    let client = Client { engine: engine.clone(), steps: sender };
    Pulling { steps, task: Some(tokio::spawn(client.pull(plan))) }
}

/// Whom a pull is for.
struct Client {
    engine: Engine,
    steps: mpsc::Sender<PullStep>,
}

impl Client {
    async fn tell(&self, step: PullStep) {
        // A client that has gone ends us soon.
        let _ = self.steps.send(step).await;
    }

    async fn pull(self, plan: Plan) -> Result<(), PullError> {
        let Plan { reference, platform, credentials } = plan;
        let (wanted, told) = platform.map_or_else(|| (Wanted::host(), None), |(wanted, told)| (wanted, Some(told)));
        let registries = self.engine.current.registries();
        let newer = match self.pull_mirrored(&registries, &reference, &wanted).await {
            Some(pulled) => pulled?,
            None => {
                let session = registries.session(&reference, credentials).await?;
                self.pull_names(&session, &names(&session, &reference).await?, &wanted).await?
            }
        };
        let familiar = reference.familiar();
        let status = if newer { "Downloaded newer image for" } else { "Image is up to date for" };
        self.tell(PullStep::Said(format!("Status: {status} {familiar}"))).await;
        tell_event(&self.engine, &reference, "pull");
        // One that was pulled for another platform is among them.
        let pulled = image::resolve_all(&self.engine.images, &reference.to_string()).unwrap_or_default();
        super::image_budget::look_soon(&self.engine, pulled.iter().map(|image| image.id.clone()));
        if let Some(told) = told
            && let Ok(images) = image::resolve_all(&self.engine.images, &reference.to_string())
            && let Err(err) = platforms::choose(&images, &reference.to_string(), Some(&told))
        {
            // A manifest without an index says nothing of platforms: it was pulled for what it is.
            self.tell(PullStep::Said(format!("WARNING: {err}"))).await;
        }
        Ok(())
    }

    /// From the first mirror that does; what is wrong with a mirror is told to the log alone.
    async fn pull_mirrored(
        &self,
        registries: &Arc<Registry>,
        reference: &Reference,
        wanted: &Wanted,
    ) -> Option<Result<bool, PullError>> {
        for mirror in registries.mirrors(reference) {
            let pulling = async {
                let session = registries.mirror_session(&mirror, reference).await?;
                let names = names(&session, reference).await?;
                if names.is_empty() {
                    return Err(PullError::NoTags { name: reference.familiar_name() });
                }
                self.pull_names(&session, &names, wanted).await
            };
            match pulling.await {
                Err(err) if err.is_of_whom_we_ask() => {
                    info!(%mirror, "Attempting next endpoint for pull after error: {}", errdefs::chain(&err));
                }
                done => return Some(done),
            }
        }
        None
    }

    /// Pulls all of these; answers whether a name means another image now.
    async fn pull_names(
        &self,
        session: &Arc<Session>,
        names: &[Reference],
        wanted: &Wanted,
    ) -> Result<bool, PullError> {
        let mut newer = false;
        for name in names {
            newer |= self.pull_one(session, name, wanted).await?;
        }
        Ok(newer)
    }

    /// Pulls one tag or digest; answers whether the name means another image now.
    async fn pull_one(&self, session: &Arc<Session>, name: &Reference, wanted: &Wanted) -> Result<bool, PullError> {
        let resolved = session.resolve(name, wanted).await;
        // These are found within what the name means, where dockerd has begun to talk.
        if matches!(&resolved, Ok(_) | Err(RegistryError::NoMatch { .. } | RegistryError::LayerType { .. })) {
            let id = match (name.digest(), name.tag()) {
                (None, Some(tag)) => tag.to_owned(),
                _ => name.to_string(),
            };
            self.tell(PullStep::About { id, status: format!("Pulling from {}", name.path()) }).await;
        }
        let resolved = resolved?;
        admission::image(&self.engine, session, name, &resolved).await?;
        // As dockerd, which looks only where it has layers to fetch.
        if wanted.os() != "linux" && self.engine.images.get(&resolved.manifest.config.digest).is_none() {
            return Err(PullError::System);
        }
        let digest = resolved.digest.clone();
        let newer = self.store(session, name, resolved).await?;
        self.tell(PullStep::Said(format!("Digest: {digest}"))).await;
        Ok(newer)
    }

    /// Has the image in the store under its names.
    async fn store(&self, session: &Arc<Session>, name: &Reference, resolved: Resolved) -> Result<bool, PullError> {
        let names = all_names(name, &resolved.digest)?;
        let id = resolved.manifest.config.digest.clone();
        let key = Key { origin: registry_client::origin(session), manifest: resolved.descriptor.digest.clone() };
        let image = |config| PulledImage {
            config,
            manifest: resolved.manifest.clone(),
            descriptor: resolved.descriptor.clone(),
            manifest_bytes: resolved.bytes.clone(),
            index: resolved.index.clone(),
            references: names.clone(),
            parent: None,
        };
        let parsed =
            |(index, bytes): &(_, Vec<u8>)| Some((Descriptor::clone(index), serde_json::from_slice(bytes).ok()?));
        let named: Option<(Descriptor, Index)> = resolved.index.as_ref().and_then(parsed);
        loop {
            let has_all = |image: &ImageRecord| {
                let index = resolved.index.as_ref().map(|(index, _)| &index.digest);
                let came_so = |name: &Reference| image.index_of(name).map(|index| &index.digest) == index;
                let has = |name| image.references.contains(name) || image.platform_of.contains(name);
                let attested = named.as_ref().is_none_or(|(index, named)| image.is_attested(index, named));
                attested && names.iter().all(|name| has(name) && came_so(name))
            };
            // With this lock, so that the budget does not take what we call up to date.
            let users = self.engine.image_users.read().await;
            super::image_budget::note(&self.engine, id.as_str());
            if self.engine.images.get(&id).is_some_and(|image| has_all(&image)) {
                return Ok(false);
            }
            drop(users);
            let before = image::resolve_all(&self.engine.images, &names[0].to_string()).unwrap_or_default();
            let config = self.config(session, &resolved).await?;
            let (follower, ours) = Follower::join(&self.engine, key.clone(), || (image(config), session.clone()));
            match (self.follow(follower).await, ours) {
                (Ok(()), true) => return Ok(before.iter().all(|image| image.id != id)),
                // It came under somebody else's names; ours are given to it now.
                (Ok(()), false) => {}
                (Err(err), _) => return Err(PullError::Shared(err)),
            }
        }
    }

    async fn follow(&self, mut follower: Follower) -> Result<(), Arc<PullError>> {
        loop {
            match follower.news().await {
                News::Over(outcome) => return outcome,
                News::Steps(steps) => {
                    for (digest, stage) in steps {
                        self.tell(PullStep::Layer { id: digest.hex()[..12].to_owned(), stage }).await;
                    }
                }
            }
        }
    }

    /// The configuration's bytes: ours, if the image is here under another name.
    async fn config(&self, session: &Arc<Session>, resolved: &Resolved) -> Result<Vec<u8>, PullError> {
        let id = resolved.manifest.config.digest.clone();
        if self.engine.images.get(&id).is_some() {
            let engine = self.engine.clone();
            // If it is just being removed, the registry has it.
            if let Ok(config) = bridge::blocking(move || engine.images.content().read(&id, CONFIG_MAX)).await {
                return Ok(config);
            }
        }
        Ok(session.config(&resolved.manifest).await?)
    }
}

/// As dockerd's: the name is the event's subject.
pub(super) fn tell_event(engine: &Engine, reference: &Reference, action: &str) {
    let image = engine.images.resolve(&reference.to_string());
    let labels = image.ok().and_then(|image| image.config.config.labels.clone());
    let mut attributes: BTreeMap<String, String> = labels.unwrap_or_default();
    attributes.insert("name".to_owned(), reference.familiar_name());
    engine.events.image(&reference.familiar(), action, attributes);
}

/// The name itself, or one for each tag of the repository.
async fn names(session: &Arc<Session>, reference: &Reference) -> Result<Vec<Reference>, PullError> {
    if reference.tag().is_some() || reference.digest().is_some() {
        return Ok(vec![reference.clone()]);
    }
    let tags = session.tags().await?;
    let name = |tag: &String| format!("{reference}:{tag}").parse().map_err(|_| PullError::TagFormat);
    tags.iter().map(name).collect()
}

/// What an image is called that was pulled as `name`: that, and its repository with the digest of what was asked for.
fn all_names(name: &Reference, digest: &Digest) -> Result<Vec<Reference>, PullError> {
    let digested: Reference = format!("{}/{}@{digest}", name.domain(), name.path()).parse()?;
    Ok(match name.digest() {
        Some(_) => vec![digested],
        None => vec![name.clone(), digested],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_dockerd_reads_them() {
        let digest = format!("sha256:{:064}", 1);
        let planned = |image: &str, tag: &str, platform: &str| {
            let query =
                PullQuery { image: image.into(), tag: tag.into(), platform: platform.into(), ..Default::default() };
            plan(&query).map(|plan| plan.reference.to_string()).map_err(|err| (err.kind(), err.to_string()))
        };
        for (image, tag, wanted) in [
            ("busybox", "", "docker.io/library/busybox".to_owned()),
            ("busybox:", "", "docker.io/library/busybox".to_owned()),
            ("busybox:1", "2", "docker.io/library/busybox:2".to_owned()),
            ("a.b/c", &digest, format!("a.b/c@{digest}")),
        ] {
            assert_eq!(planned(image, tag, ""), Ok(wanted), "{image} {tag}");
        }
        for (image, tag, platform, kind, sentence) in [
            ("a", "b c", "", ErrorKind::InvalidArgument, "invalid tag format"),
            ("scratch", "1", "", ErrorKind::Forbidden, "'scratch' is a reserved name"),
            (
                "BAD",
                "1",
                "",
                ErrorKind::InvalidArgument,
                "invalid reference format: repository name (library/BAD) must be lowercase",
            ),
            (
                "a",
                "1",
                "bad/x/y/z",
                ErrorKind::InvalidArgument,
                "\"bad/x/y/z\": cannot parse platform specifier: invalid argument",
            ),
        ] {
            assert_eq!(planned(image, tag, platform), Err((kind, sentence.to_owned())), "{image}:{tag}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_mirror_is_no_reason_to_stop_and_what_is_wrong_here_is() {
        let digest = || format!("sha256:{:064}", 1).parse().unwrap();
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let unpack = |source| PullError::Store(image::PullError::Unpack { source });
        let write = content::IngestError::Write { path: "/x".into(), source: full() };
        for (err, goes_on) in [
            (PullError::TagFormat, true),
            (PullError::NoTags { name: "r".into() }, true),
            (PullError::Store(image::PullError::NoRootFs), true),
            (PullError::Store(image::PullError::Layers), true),
            (PullError::Store(image::PullError::Depth), true),
            (PullError::Store(image::PullError::Layer { digest: digest() }), true),
            (unpack(ApplyError::Escape { path: "../x".into() }), true),
            (PullError::Shared(Arc::new(PullError::Store(image::PullError::Layers))), true),
            (RegistryError::LayerDigest { digest: digest() }.into(), true),
            (unpack(ApplyError::Create { path: "x".into(), source: full() }), false),
            (PullError::Store(image::PullError::Stage { source: image::LoadError::Sync { source: full() } }), false),
            (PullError::Store(image::PullError::Store { source: image::LoadError::Sync { source: full() } }), false),
            (RegistryError::Write { digest: digest(), source: write }.into(), false),
            (RegistryError::Cancelled.into(), false),
            (PullError::System, false),
        ] {
            assert_eq!(err.is_of_whom_we_ask(), goes_on, "{err:?}");
        }
    }

    #[test]
    fn the_strongest_credentials_count() {
        let all = AuthConfig {
            username: "u".into(),
            password: "p".into(),
            identity_token: "i".into(),
            registry_token: "r".into(),
            ..AuthConfig::default()
        };
        assert_eq!(credentials(all.clone()), Credentials::Bearer { token: "r".into() });
        let less = AuthConfig { registry_token: String::new(), ..all };
        assert_eq!(credentials(less.clone()), Credentials::Identity { token: "i".into() });
        let least = AuthConfig { identity_token: String::new(), ..less };
        assert_eq!(credentials(least), Credentials::Basic { username: "u".into(), password: "p".into() });
        assert_eq!(credentials(AuthConfig::default()), Credentials::Anonymous);
    }
}
