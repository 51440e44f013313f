//! Builds under way: what the calls of one client have in common.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use buildkit_api::messages::{CacheOptions, Exporter, ReturnRequest, SolveRequest};
use buildkit_api::status::{Code, Status};
use engine::ops::build::outputs::Built;
use engine::ops::build::{CacheFrom, CacheOptionError, CacheTo, Descriptor, Held, Used};
use tokio::sync::{oneshot, watch};

use super::progress::{Progress, now_nanos};

/// How long a build is waited for that a call names; clients make all calls of one at the same time.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may take to ask how a build went that has ended already.
const LINGER: Duration = Duration::from_secs(10);

/// The longest name of a build, in bytes: clients' have some sixty.
const REFERENCE_MAX: usize = 512;

/// A build.
#[derive(Debug)]
pub(crate) struct Build {
    /// The client's name for it.
    pub(crate) reference: String,
    /// The session of the client's files.
    pub(crate) session: String,
    /// Where its outcome goes.
    pub(crate) exporters: Vec<Exporter>,
    /// Whether nobody wants to remember it.
    pub(crate) is_internal: bool,
    /// Whether the client lets commands have the host's network.
    pub(crate) allows_host_network: bool,
    /// Where steps are known, and where it is left what they came to.
    pub(crate) caches: Result<(Vec<CacheFrom>, Vec<CacheTo>), CacheOptionError>,
    /// When it began, in nanoseconds since 1970.
    pub(crate) begun_nanos: i64,
    pub(crate) progress: Progress,
    /// By the names under which the client knows them.
    outcomes: Mutex<BTreeMap<String, Outcome>>,
    /// Why the last one did not come.
    failure: Mutex<Option<Status>>,
    returned: Mutex<Option<oneshot::Sender<ReturnRequest>>>,
    ended: watch::Sender<bool>,
    held: Mutex<Vec<Held>>,
    /// What names a cache that was left in a directory of the client's, in JSON.
    cache_manifest: Mutex<Option<String>>,
}

/// What a Dockerfile came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// For each platform, in the order in which they were asked for.
    pub(crate) built: Vec<Built>,
    /// What each of these used.
    pub(crate) used: Vec<Used>,
    /// Whether several platforms may be asked for: there is an index then, and be it of one.
    pub(crate) several: bool,
    /// `SOURCE_DATE_EPOCH`: what times of files become where they are sent, in seconds since 1970.
    pub(crate) time: Option<i64>,
    /// Who read the Dockerfile, and what that was told.
    pub(crate) frontend: String,
    pub(crate) attributes: BTreeMap<String, String>,
    /// The Dockerfile's name and text.
    pub(crate) definition: (String, Vec<u8>),
}

impl Outcome {
    /// Its images as another build has them as an input: platforms and ids.
    pub(crate) fn by_platform(&self) -> String {
        let all: Vec<String> = self.built.iter().map(|built| format!("{}={}", built.platform, built.image)).collect();
        all.join(";")
    }
}

/// The image of such a text for a platform, or the only one.
pub(crate) fn of_platform(text: &str, platform: &str) -> Option<String> {
    let mut all = text.split(';').filter_map(|one| one.split_once('='));
    let only = all.clone().count() == 1;
    all.find(|(own, _)| only || *own == platform).map(|(_, image)| image.to_owned())
}

/// All builds, by name.
#[derive(Debug, Default)]
pub(crate) struct Builds(Arc<watch::Sender<BTreeMap<String, Arc<Build>>>>);

/// A build on the list, until it is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    list: Arc<watch::Sender<BTreeMap<String, Arc<Build>>>>,
    pub(crate) build: Arc<Build>,
}

impl Build {
    /// A build, and what its client comes to.
    pub(crate) fn new(request: SolveRequest) -> (Build, oneshot::Receiver<ReturnRequest>) {
        let (sender, returned) = oneshot::channel();
        let mut exporters = request.exporters;
        if exporters.is_empty() && !request.exporter.is_empty() {
            exporters.push(Exporter { kind: request.exporter, attributes: request.exporter_attributes });
        }
        let build = Build {
            begun_nanos: now_nanos(),
            progress: Progress::new(&request.reference),
            reference: request.reference,
            session: request.session,
            caches: caches(&request.cache.unwrap_or_default()),
            exporters,
            is_internal: request.internal,
            allows_host_network: request.entitlements.iter().any(|name| name == "network.host"),
            outcomes: Mutex::default(),
            failure: Mutex::default(),
            returned: Mutex::new(Some(sender)),
            ended: watch::Sender::new(false),
            held: Mutex::default(),
            cache_manifest: Mutex::default(),
        };
        (build, returned)
    }

    /// Waits until nobody wants it any more.
    pub(crate) async fn ended(&self) {
        // The sender is ours.
        let _ = self.ended.subscribe().wait_for(|&ended| ended).await;
    }

    /// Keeps the steps here that it came to, for as long as somebody may want them.
    pub(crate) fn hold(&self, held: Option<Held>) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).extend(held);
    }

    /// Notes what a cache is that was left in a directory of the client's. Of several the last one counts, as with BuildKit.
    pub(crate) fn left_cache(&self, manifest: &Descriptor) {
        let text = serde_json::to_string(manifest).expect("texts and numbers are always JSON");
        *self.cache_manifest.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// What the client writes down of such a cache.
    pub(crate) fn cache_manifest(&self) -> Option<String> {
        self.cache_manifest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps an outcome; answers its name.
    pub(crate) fn keep(&self, outcome: Outcome) -> String {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("outcome-{}", outcomes.len());
        outcomes.insert(name.clone(), outcome);
        name
    }

    /// The outcome of a name.
    pub(crate) fn outcome(&self, name: &str) -> Option<Outcome> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Keeps why something failed: a client tells it again in its own words.
    pub(crate) fn has_failed(&self, status: &Status) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.clone());
    }

    /// Why something failed.
    pub(crate) fn failure(&self) -> Option<Status> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the client came to. It says so once.
    pub(crate) fn give_back(&self, request: ReturnRequest) {
        let sender = self.returned.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // Whoever waited may have gone.
            let _ = sender.send(request);
        }
    }
}

fn caches(options: &CacheOptions) -> Result<(Vec<CacheFrom>, Vec<CacheTo>), CacheOptionError> {
    let from = options.imports.iter().map(|entry| CacheFrom::of(&entry.kind, &entry.attributes));
    let to = options.exports.iter().map(|entry| CacheTo::of(&entry.kind, &entry.attributes));
    let to = to.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    Ok((from.collect::<Result<_, _>>()?, to))
}

impl Builds {
    /// Puts a build on the list.
    pub(crate) fn list(&self, build: Build) -> Result<Listed, Status> {
        let build = Arc::new(build);
        let name = &build.reference;
        if name.is_empty() || name.len() > REFERENCE_MAX {
            return Err(Status::new(Code::InvalidArgument, "invalid build reference"));
        }
        let added = self.0.send_if_modified(|all| {
            let is_new = !all.contains_key(name);
            if is_new {
                all.insert(name.clone(), build.clone());
            }
            is_new
        });
        match added {
            // The sentence is BuildKit's.
            false => Err(Status::new(Code::Unknown, format!("job ID {name} exists"))),
            true => Ok(Listed { list: self.0.clone(), build }),
        }
    }

    /// The build of a name, as soon as it is there.
    pub(crate) async fn find(&self, name: &str) -> Result<Arc<Build>, Status> {
        let mut builds = self.0.subscribe();
        let found = tokio::time::timeout(PATIENCE, builds.wait_for(|all| all.contains_key(name))).await;
        let found = found.ok().and_then(Result::ok).and_then(|all| all.get(name).cloned());
        found.ok_or_else(|| Status::new(Code::NotFound, format!("no such job {name}")))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.build.progress.close();
        self.build.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.build.ended.send_replace(true);
        let (list, name) = (self.list.clone(), self.build.reference.clone());
        let remove = move || list.send_modify(|all| drop(all.remove(&name)));
        if self.build.progress.is_read() {
            return remove();
        }
        // One that failed at once ends before the client has asked how it goes.
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            remove();
        });
    }
}
