//! One stage: its base, then one step after the other.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bridge::Abandoned;
use builder::cache::{Key, key};
use builder::mounts::{Mounted, RunMount};
use builder::{Base, Operation, PlannedStage, Stage, Step, StepError};
use dockerfile::{Instruction, Kind};
use engine_api::container::Config;
use image::ImageRecord;
use oci::Digest;
use oci::image::{ExecConfig, History, Platform};

use super::super::cache::Keyed;
use super::super::copy::owner_of_user;
use super::super::explain::{self, Explanation, Ingredients, Reason};
use super::super::exports::Done;
use super::super::flights::Leading;
use super::super::graph::{self, Names, StageBase};
use super::super::imports::Sought;
use super::super::lines::Lines;
use super::super::named::BaseWords;
use super::super::turns::Turns;
use super::super::work::{ImageTree, NO_STUBS, NewDirectories, Work};
use super::super::{BuildError, BuildLine, BuildOptions, PartEvent, cache, full_name, history, mounts};
use super::common::{Common, StageImage};
use super::sharing::{self, Ours, Terms};
use super::{announce_step, check_platform, platform, short, wanted_platform};
use crate::Engine;
use crate::ops::commit::{self, CommitError, StepFiles};
use crate::ops::image_budget;

/// What is shown of a variable that a secret is in: BuildKit's (dockerfile2llb, withSecretEnvMask).
const MASK: &str = "****";

/// A stage that is being solved.
pub(super) struct StageSolver {
    pub(super) common: Arc<Common>,
    /// Its place in the plan.
    place: usize,
    pub(super) lines: Arc<Lines>,
    pub(super) stage: Stage,
    pub(super) image: Option<Digest>,
    /// What it is for if it begins with nothing; what it begins with says so otherwise.
    pub(super) platform: Platform,
    /// Whether what is known is done again.
    pub(super) renews: bool,
    /// Whether nothing behind this is known any more.
    missed: bool,
    /// The image that it begins with, as long as it is to be told that it was here.
    base: Option<StageImage>,
    /// What its parts are called, and the number of the last one.
    names: Names,
    part: Option<usize>,
    /// Whether a part is going on.
    pub(super) in_part: bool,
    /// How many instructions have begun, and the last of them, to read.
    at: usize,
    shown: String,
    /// What its steps came to.
    done: Vec<Done>,
}

/// Something that goes on beside others and has failed.
pub(super) struct Failed {
    /// Of a stage its place in the plan.
    pub(super) place: usize,
    /// Who knows where.
    pub(super) lines: Arc<Lines>,
    pub(super) why: Box<BuildError>,
}

/// What a step depends on, as people are told; its image and its words come to that.
#[derive(Default)]
pub(super) struct Facts {
    /// What it does, whatever it does that with.
    pub(super) does: String,
    /// Arguments that it sees.
    pub(super) arguments: Vec<String>,
    /// Sums of files that it sees, and a word that changes with any of them.
    pub(super) files: Vec<(String, String)>,
    pub(super) exact: String,
    /// What else was asked for.
    pub(super) options: Vec<String>,
    /// Whether history says all of it.
    pub(super) is_told_whole: bool,
}

/// What the image of a step is made of, beside its files.
pub(super) struct Committing {
    engine: Engine,
    parent: Option<Arc<ImageRecord>>,
    config: Config,
    platform: Platform,
    history: History,
}

impl Committing {
    /// Makes it of a snapshot, without what is no step's doing; of none it has no files of its own. Blocks.
    pub(super) fn image(self, files: Option<StepFiles<'_>>) -> Result<Digest, CommitError> {
        let told = (&self.config, self.platform);
        commit::build_step(&self.engine, files, self.parent.as_deref(), told, self.history)
    }
}

impl StageSolver {
    /// Solves the stage of a place in the plan.
    pub(super) async fn solve(common: Arc<Common>, place: usize, turns: Arc<Turns>) -> Result<(), Failed> {
        let lines = Arc::new(common.lines.in_turn(&turns, place));
        let solved = StageSolver::steps(common, place, lines.clone()).await;
        solved.map_err(|why| Failed { place, lines, why: Box::new(why) })?;
        turns.end(place);
        Ok(())
    }

    async fn steps(common: Arc<Common>, place: usize, lines: Arc<Lines>) -> Result<(), BuildError> {
        let planned = &common.plan.stages[place];
        let (first, steps) = (common.graph.first_step(place), common.plan.steps);
        announce_step(&lines, (first, steps), &planned.original).await;
        lines.at(common.line_of(planned));
        let mut solver = StageSolver::begin(common.clone(), place, lines.clone()).await?;
        lines.text(format!(" ---> {}\n", short(solver.image.as_ref()))).await;
        let literal_from = planned.instructions.len() - planned.added;
        for (index, instruction) in planned.instructions.iter().enumerate() {
            announce_step(&lines, (first + 1 + index, steps), &told(instruction, &instruction.original)).await;
            solver.instruction(instruction, index >= literal_from).await?;
            lines.text(format!(" ---> {}\n", short(solver.image.as_ref()))).await;
        }
        if place + 1 == common.plan.stages.len() {
            needs_base(&mut solver).await;
        }
        // With BuildKit an outcome of nothing is an image, too.
        if solver.image.is_none() && common.buildkit && place + 1 == common.plan.stages.len() {
            solver.image = Some(image_of_nothing(&solver).await?);
        }
        if let Some(image) = &solver.image {
            lines.tell(BuildLine::Image(image.to_string())).await;
        }
        common.note_done(place, solver.done);
        common.finish(place, solver.image, solver.stage.arguments)
    }

    /// What the stage begins with, and what that asks for.
    async fn begin(common: Arc<Common>, place: usize, lines: Arc<Lines>) -> Result<StageSolver, BuildError> {
        let planned = &common.plan.stages[place];
        let mut names = Names::new(planned, graph::is_alone(&common.context.dockerfile));
        let base = base(&common, place, &lines, &mut names).await?;
        let part = base.as_ref().and_then(|base| base.part);
        let to_tell = base.clone().filter(|base| base.is_to_be_told.load(Ordering::Relaxed));
        let base = base.map(|base| base.image);
        let empty = ExecConfig::default();
        let config = base.as_ref().map_or(&empty, |base| &base.config.config);
        let escape = common.context.dockerfile.escape;
        let (stage, triggers) = Stage::begin(config, common.buildkit, common.arguments_of(place), escape);
        names.add(triggers.len());
        let image = base.map(|base| base.id.clone());
        let platform = platform(wanted_platform(&common, &planned.platform))?;
        let renews = renews(&common.options, planned);
        let mut solver = StageSolver {
            place,
            lines,
            stage,
            image,
            platform,
            renews,
            missed: renews,
            base: to_tell,
            names,
            part,
            in_part: false,
            at: 0,
            shown: String::new(),
            done: Vec::new(),
            common,
        };
        solver.triggers(&triggers).await?;
        Ok(solver)
    }

    /// What a base image asks for.
    async fn triggers(&mut self, triggers: &[String]) -> Result<(), BuildError> {
        if triggers.is_empty() {
            return Ok(());
        }
        let plural = if triggers.len() == 1 { "" } else { "s" };
        self.lines.text(format!("# Executing {} build trigger{plural}\n", triggers.len())).await;
        for trigger in triggers {
            // It stands in no line of this Dockerfile.
            let instruction = Instruction { line: 0, end: 0, ..dockerfile::parse_trigger(trigger)? };
            self.instruction(&instruction, false).await?;
        }
        Ok(())
    }

    async fn instruction(&mut self, instruction: &Instruction, literal: bool) -> Result<(), BuildError> {
        if instruction.line > 0 {
            self.lines.at_instruction(instruction);
        }
        let step = self.step(instruction, literal).await?;
        if let Some(note) = &step.note {
            self.lines.text(note.clone()).await;
        }
        self.at += 1;
        self.in_part = step.operation != Operation::None;
        if !self.in_part {
            self.shown =
                step.words.last().map(|word| word.trim_start_matches("#(nop)").trim().to_owned()).unwrap_or_default();
            return self.configure(step, None).await;
        }
        let secrets = secrets(&step.operation);
        let value = |name: &str| {
            let value = self.stage.value(name)?;
            Some(if secrets.iter().any(|secret| secret == name) { MASK.to_owned() } else { value })
        };
        let words = graph::shown(&instruction.original, &value);
        let words = told(instruction, &words).into_owned();
        let part = graph::part_words(instruction, self.common.context.dockerfile.escape, &value);
        let part = told(instruction, &part).into_owned();
        // A part begins when what it needs is there.
        self.await_stages(&step.operation).await;
        let name = self.names.next(&part);
        self.shown = words;
        self.part = self.lines.begin(name, self.part).await;
        match step.operation.clone() {
            Operation::None => {}
            Operation::MakeDirectory(path) => self.configure(step, Some(path)).await?,
            Operation::Run(run) => self.run(step, run).await?,
            Operation::Copy { files, add } => self.copy(step, files, add).await?,
        }
        self.lines.part(PartEvent::Ended).await;
        Ok(())
    }

    /// Waits for the stages that something is copied from or shown of.
    async fn await_stages(&self, operation: &Operation) {
        let names: Vec<&str> = match operation {
            Operation::Copy { files, .. } => vec![&files.from],
            Operation::Run(run) => run.mounts.iter().filter_map(mounts::named).collect(),
            Operation::None | Operation::MakeDirectory(_) => Vec::new(),
        };
        for stage in names.into_iter().filter_map(|name| self.common.graph.named(self.place, name)) {
            self.common.outcome(stage).await;
        }
    }

    /// Takes an instruction; where there may be variables on a thread that may block.
    async fn step(&mut self, instruction: &Instruction, literal: bool) -> Result<Step, StepError> {
        if literal || !instruction.original.contains('$') {
            return self.stage.step(instruction, literal);
        }
        let (mut stage, instruction) = (std::mem::take(&mut self.stage), instruction.clone());
        let (stage, step) = bridge::blocking(move || {
            let step = stage.step(&instruction, literal);
            (stage, step)
        })
        .await;
        self.stage = stage;
        step
    }

    /// What a step is known by, and what that is made of.
    pub(super) fn keyed(&self, words: Vec<String>, more: &[String], facts: Facts) -> Keyed {
        let platform = match &self.image {
            Some(_) => String::new(),
            None => format!("{:?}", self.platform),
        };
        let key = key(self.image.as_ref(), &self.stage.config, &words, &[&[platform], more].concat());
        let planned = &self.common.plan.stages[self.place];
        let stage = if planned.name.is_empty() { planned.index.to_string() } else { planned.name.clone() };
        let made_of = Ingredients {
            place: explain::cut(&format!("{stage} {}", self.at)),
            step: explain::cut(&self.shown),
            step_sum: explain::sum_of(&facts.does),
            parent: self.image.as_ref().map(Digest::to_string).unwrap_or_default(),
            variables: explain::variables(&facts.arguments),
            files: explain::files(facts.files),
            files_sum: explain::sum_of(&facts.exact),
            options: facts.options.iter().map(|option| explain::sum_of(option)).collect(),
            of: self.common.origin.clone(),
        };
        Keyed { key, words, is_told_whole: facts.is_told_whole, made_of }
    }

    /// Tells why a step is done, or that it is not.
    async fn explain(&self, step: &Keyed, known: bool) {
        if !self.common.options.explain {
            return;
        }
        let reasons = match (known, self.renews, self.missed) {
            (true, ..) => Vec::new(),
            (_, true, _) => vec![Reason::NoCache],
            (_, _, true) => vec![Reason::StepBefore],
            _ => {
                let (engine, step) = (self.common.engine.clone(), step.clone());
                bridge::blocking(move || cache::why(&engine, &step)).await
            }
        };
        let Ingredients { place, step, .. } = step.made_of.clone();
        self.lines.explain(Explanation { place, step, known, reasons }).await;
    }

    /// Goes on from what a step came to before, if that is known.
    pub(super) async fn known(&mut self, step: &Keyed) -> bool {
        if self.renews {
            if self.in_part {
                needs_base(self).await;
            }
            self.explain(step, false).await;
            return false;
        }
        let (engine, key, parent) = (self.common.engine.clone(), step.key.clone(), self.image.clone());
        // Behind a step that was not known another build may have been faster; elsewhere there is nothing above a new image.
        let found = match bridge::blocking(move || cache::look_up(&engine, &key, parent.as_ref())).await {
            None if !self.missed => imported(self, step).await,
            found => found,
        };
        // A prune may have been faster.
        let found = match found {
            Some(image) if self.common.lookup.hold(&image).await => Some(image),
            _ => None,
        };
        self.explain(step, found.is_some()).await;
        match found {
            Some(image) => {
                if self.in_part {
                    self.base = None;
                }
                sharing::goes_on_from(self, step, image).await;
                true
            }
            None => {
                if self.in_part {
                    needs_base(self).await;
                }
                self.missed = true;
                false
            }
        }
    }

    /// Goes on from what a step came to.
    pub(super) fn came_to(&mut self, key: Key, image: Digest) {
        if !self.common.hides_steps {
            self.common.engine.steps.unmark(&image);
        }
        self.done.push(Done { key, parent: self.image.take(), image: image.clone() });
        self.image = Some(image);
    }

    /// A step that leaves files as they are, or makes a directory.
    async fn configure(&mut self, step: Step, path: Option<String>) -> Result<(), BuildError> {
        let common = self.common.clone();
        let begun = common.begin_step().await;
        // With BuildKit the user of the stage gets what is made.
        let user = Some(&self.stage.config.user).filter(|user| path.is_some() && common.buildkit && !user.is_empty());
        let (user, more) = (user.cloned(), user.map(|user| format!("owner={user}")));
        let facts = Facts { does: step.words.join(" "), is_told_whole: user.is_none(), ..Facts::default() };
        let step = self.keyed(step.words, more.as_slice(), facts);
        if self.known(&step).await {
            return Ok(());
        }
        let Some(ours) = sharing::shared(self, &step, &Terms::default(), &common, begun).await? else { return Ok(()) };
        self.record(step, ours, move |engine, parent, _| {
            let Some(path) = path else { return Ok(None) };
            let work = Work::above(engine, parent)?;
            let owner = user.map_or((0, 0), |user| owner_of_user(&work, &user));
            work.make_directories(&path, NewDirectories::of(owner))?;
            Ok(Some(work))
        })
        .await
    }

    /// Has files made by `make`, which is told when nobody waits for them any more, and records the image.
    pub(super) async fn record(
        &mut self,
        keyed: Keyed,
        Ours { leading, slot: _slot }: Ours<'_>,
        make: impl FnOnce(&Engine, Option<&ImageRecord>, &Abandoned) -> Result<Option<Work>, BuildError> + Send + 'static,
    ) -> Result<(), BuildError> {
        let recorded = self.record_of(keyed, leading, move |commit, abandoned| {
            let work = make(&commit.engine, commit.parent.as_deref(), abandoned)?;
            let files = work.as_ref().map(|work| StepFiles { key: &work.key, stubs: NO_STUBS, are_given: true });
            Ok(commit.image(files)?)
        });
        recorded.await
    }

    /// Records the image that `commit` makes of what a step has done, on a thread that may block; the stage goes on from it.
    pub(super) async fn record_of(
        &mut self,
        keyed: Keyed,
        leading: Leading,
        commit: impl FnOnce(Committing, &Abandoned) -> Result<Digest, BuildError> + Send + 'static,
    ) -> Result<(), BuildError> {
        let _expected = image_budget::expect(&self.common.engine, self.image.as_ref());
        let committing = Committing {
            engine: self.common.engine.clone(),
            parent: self.parent()?,
            config: self.stage.config.clone(),
            platform: self.platform.clone(),
            history: history(&self.stage.author, &keyed.words),
        };
        let (engine, key) = (self.common.engine.clone(), keyed.key.clone());
        let hides = self.common.hides_steps;
        let (flight, land) = (leading.flight().clone(), sharing::landing(self, &keyed, leading));
        let recorded = bridge::abandonable(move |abandoned| {
            let image = commit(committing, abandoned)?;
            cache::remember(&engine, &image, keyed);
            if hides {
                engine.steps.mark(&image);
            }
            // Given up by now it is there all the same for those who wait for it.
            land(&image);
            Ok::<_, BuildError>(image)
        });
        let image = recorded.await?;
        self.lines.led(&flight);
        self.common.lookup.hold(&image).await;
        self.came_to(key, image);
        Ok(())
    }

    /// The image so far.
    pub(super) fn parent(&self) -> Result<Option<Arc<ImageRecord>>, BuildError> {
        let resolved = self.image.as_ref().map(|image| self.common.engine.images.resolve(image.as_str()));
        Ok(resolved.transpose()?)
    }

    /// The tree of what `--from` names; `None` for the context. Waits where that is a stage.
    pub(super) async fn tree(&self, from: &str) -> Result<Option<Arc<ImageTree>>, BuildError> {
        if from.is_empty() {
            return Ok(None);
        }
        let common = &self.common;
        if let Some(files) = common.lookup.named_files(from, &common.options.platform) {
            return Ok(Some(files));
        }
        let image = match common.graph.named(self.place, from) {
            Some(stage) => match common.outcome(stage).await {
                Some(image) => common.engine.images.resolve(image.as_str())?,
                None => return Err(BuildError::Nothing),
            },
            None => {
                let lookup = common.lookup.telling(self.lines.clone());
                lookup.image(from, &common.options.platform).await?
            }
        };
        common.tree(image).await.map(Some)
    }
}

/// Tells that the image that a stage begins with was here, which only counts where something is done with it. As with
/// BuildKit, whose outcomes of sources come when they are needed.
async fn needs_base(solver: &mut StageSolver) {
    if let Some(StageImage { part: Some(part), is_to_be_told, .. }) = solver.base.take()
        && is_to_be_told.swap(false, Ordering::Relaxed)
    {
        solver.lines.is_here(part).await;
    }
}

/// An image that says what a stage says, and has no files.
async fn image_of_nothing(solver: &StageSolver) -> Result<Digest, BuildError> {
    let engine = solver.common.engine.clone();
    let _expected = image_budget::expect(&engine, None);
    let (config, platform) = (solver.stage.config.clone(), solver.platform.clone());
    let image = bridge::blocking(move || commit::build_nothing(&engine, &config, platform)).await?;
    solver.common.lookup.hold(&image).await;
    Ok(image)
}

/// What a step came to elsewhere; it is known here then.
async fn imported(solver: &StageSolver, step: &Keyed) -> Option<Digest> {
    let parent = solver.parent().ok()?;
    let sought = Sought {
        key: &step.key,
        words: step.is_told_whole.then(|| step.words.join(" ")),
        parent: parent.as_deref(),
        config: &solver.stage.config,
        platform: &solver.platform,
    };
    let image = solver.common.imports.find(&sought).await?;
    let (engine, step, known) = (solver.common.engine.clone(), step.clone(), image.clone());
    let hides = solver.common.hides_steps;
    let remember = move || {
        cache::remember(&engine, &known, step);
        if hides {
            engine.steps.mark(&known);
        }
    };
    bridge::blocking(remember).await;
    Some(image)
}

/// The words of an instruction, without the passwords of what it downloads.
fn told<'a>(instruction: &Instruction, words: &'a str) -> Cow<'a, str> {
    match instruction.kind {
        Kind::Add(_) => graph::without_passwords(words).into(),
        _ => words.into(),
    }
}

/// Whether a stage is one of which all is done again; one without a name has that which BuildKit gives it.
fn renews(options: &BuildOptions, planned: &PlannedStage) -> bool {
    let own = match planned.name.as_str() {
        "" => format!("stage-{}", planned.index),
        name => name.to_owned(),
    };
    options.no_cache || options.no_cache_stages.iter().any(|name| name.eq_ignore_ascii_case(&own))
}

/// The variables that a command has secrets in.
fn secrets(operation: &Operation) -> Vec<String> {
    let Operation::Run(run) = operation else { return Vec::new() };
    let variable = |mount: &RunMount| match &mount.what {
        Mounted::Secret { env, .. } => env.clone(),
        _ => None,
    };
    run.mounts.iter().filter_map(variable).collect()
}

/// The image that a stage begins with, `None` for nothing.
async fn base(
    common: &Common,
    place: usize,
    lines: &Arc<Lines>,
    names: &mut Names,
) -> Result<Option<StageImage>, BuildError> {
    let planned = &common.plan.stages[place];
    check_platform(planned)?;
    let words = match &planned.base {
        Base::Image(name) => match common.lookup.named.base_words(name, wanted_platform(common, &planned.platform)) {
            BaseWords::Usual => Some(names.next(&format!("FROM {}", full_name(name)))),
            BaseWords::Context(words) => Some(words),
            BaseWords::Own => None,
        },
        _ => None,
    };
    match (common.graph.base(place), &planned.base) {
        (StageBase::Stage(stage), _) => match common.outcome(stage).await {
            Some(image) => {
                let image = common.engine.images.resolve(image.as_str())?;
                Ok(Some(StageImage { image, part: None, is_to_be_told: Arc::default() }))
            }
            None => Ok(None),
        },
        // Stages that begin with the same image have that part in common.
        (StageBase::ImageOf(stage), _) => Ok(Some(common.base(stage).await)),
        (StageBase::Image, Base::Image(name)) => {
            let is_told = words.is_some();
            let part = match words {
                Some(words) => lines.begin(words, None).await,
                None => None,
            };
            let lookup = common.lookup.telling(lines.clone());
            let image = lookup.image(name, wanted_platform(common, &planned.platform)).await?;
            if is_told {
                lines.part(PartEvent::Ended).await;
            }
            let is_to_be_told = Arc::new(AtomicBool::new(is_told && common.lookup.was_here(&image.id)));
            let base = StageImage { image, part, is_to_be_told };
            common.begin_with(place, base.clone());
            Ok(Some(base))
        }
        _ => Ok(None),
    }
}
