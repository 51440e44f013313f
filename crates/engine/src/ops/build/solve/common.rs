//! What all stages of a build have in common.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use builder::cache::Key;
use builder::mounts::RunMount;
use builder::{Arguments, Plan, PlannedStage, StepError};
use dockerfile::Fault;
use image::ImageRecord;
use oci::Digest;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::super::asks::Client;
use super::super::cache_options::CacheMounts;
use super::super::caches::Wish;
use super::super::carried::Noted;
use super::super::explain::Origin;
use super::super::exports::Done;
use super::super::graph::{StageBase, StageGraph};
use super::super::imports::Imports;
use super::super::lines::Lines;
use super::super::lookup::Lookup;
use super::super::receive::Context;
use super::super::work::{ImageTree, tree_of};
use super::super::{BuildError, BuildOptions, caches};
use crate::Engine;
use crate::sync::lock;

/// How many steps are done at the same time at least: what waits for a disk or a network leaves a processor idle.
const STEPS_MIN: usize = 2;

/// How many bytes the arguments of stages may have together that others begin with: sixteen times what those of one may have
/// (`builder::args`, 4 MiB), which no Dockerfile comes near that people write. They stay in memory until the build ends.
const INHERITED_MAX: usize = 64 * 1024 * 1024;

/// What all stages of a build have in common. Nothing of it changes but behind locks.
pub(super) struct Common {
    pub(super) engine: Engine,
    pub(super) options: BuildOptions,
    pub(super) context: Arc<Context>,
    /// Who has secrets and agents.
    pub(super) client: Client,
    pub(super) lookup: Lookup,
    /// What is known elsewhere.
    pub(super) imports: Imports,
    pub(super) lines: Arc<Lines>,
    pub(super) plan: Plan,
    pub(super) graph: StageGraph,
    /// Those that stages begin with.
    pub(super) arguments: Arguments,
    /// The same, with the names that stages know.
    merged: Mutex<Arguments>,
    /// Whether it is built as BuildKit does, where dockerd's classic builder does something else.
    pub(super) buildkit: bool,
    /// By what its Dockerfile is known again.
    pub(super) origin: Origin,
    inherited: Mutex<Inherited>,
    /// Caches of commands with which the build has begun anew.
    pub(super) renewed: Mutex<caches::Renewed>,
    /// What steps came to that are done again whatever is known: once in a build.
    renewed_steps: Mutex<HashMap<Key, Digest>>,
    /// Whether only results are images to users: for all clients but dockerd's own builder's.
    pub(super) hides_steps: bool,
    /// No other build has it.
    pub(super) number_of_build: u64,
    /// What commands keep, where it may go with a cache.
    kept: Mutex<Noted>,
    /// What stages came to, by their place in the plan.
    outcomes: Vec<watch::Sender<Option<StageOutcome>>>,
    /// What their steps came to, likewise.
    done: Vec<Mutex<Vec<Done>>>,
    /// The images that stages have looked up.
    bases: Vec<watch::Sender<Option<StageImage>>>,
    /// Trees of images that something was copied from.
    trees: Mutex<HashMap<Digest, Arc<ImageTree>>>,
    /// How many steps may be begun.
    steps: Semaphore,
    /// How many names were made.
    names: AtomicUsize,
}

/// The arguments of stages that others begin with.
#[derive(Default)]
struct Inherited {
    by_stage: HashMap<usize, Arc<Arguments>>,
    /// How many bytes all of them have.
    bytes: usize,
}

/// The image that a stage came to, if there is one.
type StageOutcome = Option<Digest>;

/// The image that a stage begins with.
#[derive(Clone)]
pub(super) struct StageImage {
    pub(super) image: Arc<ImageRecord>,
    /// The part that it is of a graph.
    pub(super) part: Option<usize>,
    /// Whether it is still to be told that it was here when the first one needs it.
    pub(super) is_to_be_told: Arc<AtomicBool>,
}

/// What a build begins with.
pub(super) struct Beginning {
    pub(super) engine: Engine,
    pub(super) options: BuildOptions,
    pub(super) context: Context,
    pub(super) client: Client,
    pub(super) lookup: Lookup,
    pub(super) lines: Arc<Lines>,
    pub(super) plan: Plan,
    pub(super) arguments: Arguments,
    pub(super) imports: Imports,
    pub(super) buildkit: bool,
    pub(super) hides_steps: bool,
}

impl Common {
    /// Whether commands see a host name that is the same in every build.
    pub(super) fn same_name(&self) -> bool {
        self.buildkit || self.options.reproduce.is_some()
    }

    pub(super) fn new(beginning: Beginning) -> Common {
        let Beginning {
            engine,
            options,
            context,
            client,
            lookup,
            lines,
            plan,
            arguments,
            imports,
            buildkit,
            hides_steps,
        } = beginning;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let instructions = plan.stages.iter().flat_map(|stage| &stage.instructions);
        Common {
            origin: Origin::new(&options.names, instructions.map(|instruction| instruction.original.as_str())),
            graph: StageGraph::new(&plan, context.dockerfile.arguments.len()),
            context: Arc::new(context),
            renewed: Mutex::new(HashSet::new()),
            renewed_steps: Mutex::default(),
            number_of_build: engine.flights.number(),
            kept: Mutex::default(),
            outcomes: plan.stages.iter().map(|_| watch::Sender::new(None)).collect(),
            done: plan.stages.iter().map(|_| Mutex::default()).collect(),
            bases: plan.stages.iter().map(|_| watch::Sender::new(None)).collect(),
            trees: Mutex::default(),
            steps: Semaphore::new(processors.max(STEPS_MIN)),
            names: AtomicUsize::new(0),
            engine,
            options,
            client,
            lookup,
            imports,
            lines,
            plan,
            merged: Mutex::new(arguments.clone()),
            buildkit,
            hides_steps,
            inherited: Mutex::default(),
            arguments,
        }
    }

    /// Waits until a step may be begun; it is at its end when the answer is dropped. Whoever has begun one waits for no stage.
    pub(super) async fn begin_step(&self) -> SemaphorePermit<'_> {
        self.steps.acquire().await.expect("nobody closes it")
    }

    /// A number that nobody else of the build gets.
    pub(super) fn number(&self) -> usize {
        self.names.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes what a stage came to, and which arguments it knows.
    pub(super) fn finish(&self, stage: usize, outcome: StageOutcome, arguments: Arguments) -> Result<(), BuildError> {
        lock(&self.merged).merge(&arguments);
        // With BuildKit a stage knows the arguments of the one that it begins with.
        if self.buildkit && self.graph.is_base(stage) {
            let mut inherited = lock(&self.inherited);
            inherited.bytes += arguments.stage_bytes();
            if inherited.bytes > INHERITED_MAX {
                return Err(StepError::Fault(Fault::TooLong).into());
            }
            inherited.by_stage.insert(stage, Arc::new(arguments));
        }
        self.outcomes[stage].send_replace(Some(outcome));
        Ok(())
    }

    /// The arguments that a stage begins with, whose base has come.
    pub(super) fn arguments_of(&self, stage: usize) -> Arguments {
        let base = match self.graph.base(stage) {
            StageBase::Stage(base) => lock(&self.inherited).by_stage.get(&base).cloned(),
            _ => None,
        };
        base.map_or_else(|| self.arguments.for_stage(), |base| base.for_child())
    }

    /// What a stage came to, as soon as that is known. Of one that fails the build has ended before.
    pub(super) async fn outcome(&self, stage: usize) -> StageOutcome {
        known(&self.outcomes[stage]).await
    }

    /// Notes what the steps of a stage came to.
    pub(super) fn note_done(&self, stage: usize, done: Vec<Done>) {
        *lock(&self.done[stage]) = done;
    }

    /// What a step came to that this build has done again already.
    pub(super) fn renewed_step(&self, step: &Key) -> Option<Digest> {
        lock(&self.renewed_steps).get(step).cloned()
    }

    /// Notes that.
    pub(super) fn renew_step(&self, step: Key, image: Digest) {
        lock(&self.renewed_steps).insert(step, image);
    }

    /// Notes what a command keeps, and what it is told that must not go with that.
    pub(super) fn note_kept(&self, mounts: &[RunMount], wishes: Vec<Option<Wish>>) {
        if self.options.cache_to.iter().any(|to| to.mounts != CacheMounts::None) {
            lock(&self.kept).note(mounts, wishes);
        }
    }

    /// What commands keep.
    pub(super) fn kept(&self) -> Noted {
        lock(&self.kept).clone()
    }

    /// What the steps of all stages came to, in the order of the plan.
    pub(super) fn done(&self) -> Vec<Vec<Done>> {
        self.done.iter().map(|done| lock(done).clone()).collect()
    }

    /// What the user gave that no stage knows.
    pub(super) fn unused_arguments(&self) -> Vec<String> {
        lock(&self.merged).unused()
    }

    /// Notes the image that a stage begins with.
    pub(super) fn begin_with(&self, stage: usize, image: StageImage) {
        self.bases[stage].send_replace(Some(image));
    }

    /// The image that a stage begins with, as soon as that is known.
    pub(super) async fn base(&self, stage: usize) -> StageImage {
        known(&self.bases[stage]).await
    }

    /// The line of a stage's `FROM`.
    pub(super) fn line_of(&self, planned: &PlannedStage) -> usize {
        self.context.dockerfile.stages.get(planned.index).map_or(0, |stage| stage.line)
    }

    /// The tree of an image.
    pub(super) async fn tree(&self, image: Arc<ImageRecord>) -> Result<Arc<ImageTree>, BuildError> {
        let known = lock(&self.trees).get(&image.id).cloned();
        if let Some(tree) = known {
            return Ok(tree);
        }
        let (engine, id) = (self.engine.clone(), image.id.clone());
        let tree = Arc::new(bridge::blocking(move || tree_of(&engine, &image)).await?);
        // Two may have opened it: one goes.
        Ok(lock(&self.trees).entry(id).or_insert(tree).clone())
    }
}

/// What somebody will note.
async fn known<T: Clone>(noted: &watch::Sender<Option<T>>) -> T {
    let mut reader = noted.subscribe();
    let noted = reader.wait_for(Option::is_some).await.expect("the sender is there as long as the build");
    noted.clone().expect("it was waited for")
}
