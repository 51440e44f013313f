//! A build: its stages side by side.
//!
//! ```text
//! plan --StageGraph--> stages --one task each--> begin with an image, or wait for a stage's
//!                                                steps, one after the other; `--from` waits for a stage
//! ```
//! Stages have [`Common`] in common, which nobody changes but behind locks. All may begin at once; at most as many steps are
//! done at the same time as there are processors, but two at least ([`Common::begin_step`]). A stage waits only for stages
//! before it in the Dockerfile, so that the first one that is not done always gets on. With the first one that fails all
//! others end: their containers go when their tasks are dropped.

mod command;
mod common;
mod copying;
mod early;
mod sharing;
mod stage;

use std::sync::Arc;

use builder::{Arguments, Plan, PlannedStage, Platforms, StepError, Wanted};
use dockerfile::{Dockerfile, Kind};
use dockerfile_checks::Checking;
use oci::image::Platform;
use oci::{Digest, Reference};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};

use self::common::{Beginning, Common};
use self::stage::{Failed, StageSolver};
use super::asks::Client;
use super::checks;
use super::exports;
use super::graph::{self, Needed, WantedBase};
use super::imports::Imports;
use super::input::{Archive, AskIgnore, Directory, Input, Local, SentFiles};
use super::kept_context;
use super::lines::Lines;
use super::lookup::Lookup;
use super::named::{Named, NamedContext};
use super::receive::{self, Context};
use super::remote_context::{self, FetchedContext};
use super::turns::Turns;
use super::{BuildError, BuildOptions, PartEvent, Solved, full_name, space, used};
use crate::Engine;
use crate::ops::{build_cache, image_budget, images, import};

/// Digits of an id that are told.
const SHORT: usize = 12;

/// How many stages are begun at the same time, those that wait included. A Dockerfile may have a hundred thousand.
const STAGES_MAX: usize = 64;

/// What is built from, where it need not be waited for any more, or comes while it is read.
enum OpenedInput {
    Archive(Archive),
    Directory(Directory),
    Local(Local),
    Fetched(FetchedContext),
}

/// A build that goes on. However it ends, what caches and contexts take too much is collected then: one that fails fills them,
/// too.
struct Collecting(Engine);

impl Drop for Collecting {
    fn drop(&mut self) {
        let engine = self.0.clone();
        // Nobody waits for what is only tidied up; a daemon that ends leaves it to the next one's builds.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let task = engine.clone();
                bridge::blocking(move || space::collect(&task)).await;
                build_cache::collect(&engine).await;
            });
        }
    }
}

/// Builds.
pub(super) async fn build(
    engine: Engine,
    options: BuildOptions,
    names: Vec<Reference>,
    (input, named): (Input, Vec<NamedContext>),
    client: Client,
    lines: Arc<Lines>,
) -> Result<Solved, BuildError> {
    let _collecting = Collecting(engine.clone());
    let input = opened(&engine, input, &client).await?;
    // Who is told what checks find is BuildKit's client.
    let checking = match &input {
        OpenedInput::Local(local) => Some(checks::begin(&options, &local.text, false).await?),
        _ => None,
    };
    let buildkit = checking.is_some();
    let read = read(&engine, input, (options, Named::new(named)), lines.clone()).await;
    let Read { context, files, ignore, lookup, plan, refused, arguments, options } = match read {
        Ok(read) => read,
        Err(why) => {
            checks::broken_off(checking, &lines).await;
            return Err(why);
        }
    };
    let refused = match refused {
        Some((line, why)) if !buildkit => return Err(failed_at(&lines, line, why).await),
        refused => refused,
    };
    if let Some(violation) = checking.as_ref().and_then(Checking::violation) {
        return Err(BuildError::Checks(violation));
    }
    if let Err(err) = lookup.begin_named(&plan, (&context.place, &client), &options.platform).await {
        checks::broken_off(checking, &lines).await;
        lines.failed().await;
        return Err(err);
    }
    let held = lookup.held();
    let whom = exports::For { engine: &engine, lookup: &lookup, client: &client, lines: &lines };
    let imports = Imports::open(whom, &options, &platform(&options.platform)?).await;
    let hides_steps = files.is_some();
    let beginning =
        Beginning { engine, options, context, client, lookup, lines, plan, arguments, imports, buildkit, hides_steps };
    let common = Arc::new(Common::new(beginning));
    let early = checking.zip(ignore).map(|(checking, ignore)| Early { checking, ignore, refused });
    let built = solve(&common, (early, files), names).await;
    // Contexts are given back with it, for which lists of all their files are written.
    bridge::blocking(move || kept_context::drop_here(common)).await;
    Ok(Solved { image: built?, held: Some(held) })
}

/// What is built, planned.
struct Read {
    context: Context,
    files: Option<SentFiles>,
    ignore: Option<AskIgnore>,
    lookup: Lookup,
    plan: Plan,
    /// What is wrong whatever the images say that stages begin with, and where.
    refused: Option<(usize, StepError)>,
    arguments: Arguments,
    options: BuildOptions,
}

/// What is done before the stages with BuildKit's clients.
struct Early {
    checking: Checking,
    ignore: AskIgnore,
    refused: Option<(usize, StepError)>,
}

/// Reads a Dockerfile, and plans what becomes of it.
async fn read(
    engine: &Engine,
    input: OpenedInput,
    (options, named): (BuildOptions, Named),
    lines: Arc<Lines>,
) -> Result<Read, BuildError> {
    let engine = engine.clone();
    // What a Dockerfile makes of its variables takes as long as its author likes, within bounds.
    let read = bridge::abandonable(move |abandoned| {
        let mut is_text = true;
        let (mut context, files, local) = match input {
            OpenedInput::Archive(archive) => (receive::receive(&engine, archive.0, &options.dockerfile)?, None, None),
            OpenedInput::Fetched(fetched) => (fetched.open(&options.dockerfile, abandoned)?, None, None),
            OpenedInput::Directory(Directory { name, text, files }) => {
                (receive::of_text(&engine, &name, &text)?, Some(files), None)
            }
            OpenedInput::Local(local) => {
                let (context, files) = local.context.open(&engine, &local.name, &local.text)?;
                is_text = std::str::from_utf8(&local.text).is_ok();
                (context, Some(files), Some((local.ignore, local.login)))
            }
        };
        lines.read(context.text.clone());
        let (ignore, ask) = local.unzip();
        let buildkit = ignore.is_some();
        named.replace(&mut context.dockerfile, &options.platform);
        let (plan, arguments) = plan(&context.dockerfile, &options, buildkit)?;
        if let Some(SentFiles { name: Some(name), .. }) = &files
            && graph::needed(&plan) != Needed::Nothing
        {
            receive::begin_with_kept(&mut context, name)?;
        }
        let refused = builder::early::refused(&plan, context.dockerfile.escape, buildkit);
        // Where that is depends on nothing else: nobody says where.
        let no_text = || builder::early::is_no_text(&plan).filter(|_| !is_text).map(|why| (0, why));
        let refused = refused.or_else(no_text);
        let lookup = Lookup::new(&engine, &options, ask, named, lines);
        Ok(Read { context, files, ignore, lookup, plan, refused, arguments, options })
    });
    read.await
}

/// Waits for what is built from where it has to be waited for.
async fn opened(engine: &Engine, input: Input, client: &Client) -> Result<OpenedInput, BuildError> {
    Ok(match input {
        Input::Archive(archive) => OpenedInput::Archive(archive),
        Input::Directory(directory) => OpenedInput::Directory(directory),
        Input::Local(local) => OpenedInput::Local(local),
        Input::Remote(url) => OpenedInput::Fetched(remote_context::fetch(engine, &url, false, client).await?),
    })
}

/// Tells in which line a build has failed.
async fn failed_at(lines: &Lines, line: usize, why: impl Into<BuildError>) -> BuildError {
    lines.at(line);
    lines.failed().await;
    why.into()
}

/// Has come what is needed, solves the stages, and gives the image its names; answers its id.
async fn solve(
    common: &Arc<Common>,
    (early, files): (Option<Early>, Option<SentFiles>),
    names: Vec<Reference>,
) -> Result<String, BuildError> {
    begin(common, early, files).await?;
    let image = stages(common).await?;
    finish(common, image, names).await
}

/// The stages that are built, and the arguments that they begin with.
fn plan(dockerfile: &Dockerfile, options: &BuildOptions, same_names: bool) -> Result<(Plan, Arguments), BuildError> {
    let mut arguments = Arguments::new(options.arguments.clone(), &platforms(&options.platform)?);
    for instruction in &dockerfile.arguments {
        let expanded = instruction.expand(dockerfile.escape, &|name| arguments.get(name));
        if let Kind::Arg(args) = expanded.map_err(builder::PlanError::Expand)?.kind {
            args.iter().for_each(|arg| arguments.add_global(arg));
        }
        arguments.check().map_err(builder::PlanError::Expand)?;
    }
    let wanted = Wanted { target: options.target.clone(), labels: options.labels.clone(), same_names };
    Ok((builder::plan(dockerfile, &wanted, &arguments)?, arguments))
}

/// This machine, and what is built for.
pub(super) fn platforms(wanted: &str) -> Result<Platforms, BuildError> {
    let host = import::host_platform();
    let build = [host.os, host.architecture, host.variant];
    if wanted.is_empty() {
        return Ok(Platforms { target: build.clone(), build });
    }
    let wanted = engine_api::platform::parse(wanted)?;
    let mut parts = wanted.split('/').map(str::to_owned);
    let target = std::array::from_fn(|_| parts.next().unwrap_or_default());
    Ok(Platforms { build, target })
}

/// What an image is for that begins with nothing.
pub(super) fn platform(wanted: &str) -> Result<Platform, BuildError> {
    let [os, architecture, variant] = platforms(wanted)?.target;
    let architecture = if architecture.is_empty() { import::host_platform().architecture } else { architecture };
    Ok(Platform { os, architecture, variant, ..Platform::default() })
}

/// What is told of an image's id; nothing of none.
pub(super) fn short(image: Option<&Digest>) -> &str {
    image.map(|image| &image.hex()[..SHORT]).unwrap_or_default()
}

/// Tells what is told before the stages.
async fn announce(common: &Common) {
    let (lines, dockerfile) = (&common.lines, &common.context.dockerfile);
    for line in &dockerfile.empty_continuations {
        lines.text(format!("[WARNING]: Empty continuation line found in: {}\n", line.text)).await;
    }
    if !dockerfile.empty_continuations.is_empty() {
        let told = "[WARNING]: Empty continuation lines will become errors in a future release.\n";
        lines.text(told).await;
    }
    for (index, instruction) in dockerfile.arguments.iter().enumerate() {
        announce_step(lines, (index + 1, common.plan.steps), &instruction.original).await;
    }
}

async fn announce_step(lines: &Lines, (at, steps): (usize, usize), original: &str) {
    lines.text(format!("Step {at}/{steps} : {original}")).await;
    lines.text("\n").await;
}

/// Does what comes before the stages: as BuildKit does it where there is something to check, else as dockerd's own builder.
async fn begin(common: &Arc<Common>, early: Option<Early>, files: Option<SentFiles>) -> Result<(), BuildError> {
    let Some(early) = early else {
        if let Some(files) = files {
            let needed = needed(common);
            have_sent(common, files, needed).await?;
        }
        announce(common).await;
        return Ok(());
    };
    let has_triggers = look(common, early).await?;
    let needed = if has_triggers { Needed::All } else { graph::needed(&common.plan) };
    match files {
        Some(files) => have_sent(common, files, needed).await,
        None => Ok(()),
    }
}

/// Looks up images and what leaves files out, tells what checks find then, and refuses what is wrong; answers whether an
/// image asks for instructions.
async fn look(common: &Arc<Common>, Early { mut checking, ignore, refused }: Early) -> Result<bool, BuildError> {
    let looked_up = async {
        let has_triggers = metadata(common).await?;
        Ok((has_triggers, checks::ignore(ignore, &common.lines).await?))
    };
    let (has_triggers, ignore) = match looked_up.await {
        Ok(looked_up) => looked_up,
        Err(why) => {
            checks::broken_off(Some(checking), &common.lines).await;
            return Err(why);
        }
    };
    let refused = match refused {
        Some(refused) => Some(refused),
        None => early::refused(common).await,
    };
    if let Some((line @ 1.., _)) = refused {
        checking = checking.until(line);
    }
    let violation = checks::in_build(checking.ignoring(ignore), &common.lookup, &common.lines).await;
    match (refused, violation) {
        (Some((line, why)), _) => Err(failed_at(&common.lines, line, why).await),
        (None, Some(violation)) => Err(BuildError::Checks(violation)),
        (None, None) => Ok(has_triggers),
    }
}

/// Which files are needed, as far as that is known before images come.
fn needed(common: &Common) -> Needed {
    let images = graph::images(&common.plan);
    let may_ask =
        |base: &WantedBase| common.lookup.may_ask_for_files(&base.name, wanted_platform(common, &base.platform));
    // What an image asks for is not looked into.
    if images.iter().any(may_ask) { Needed::All } else { graph::needed(&common.plan) }
}

/// Has the files that are needed sent.
async fn have_sent(common: &Arc<Common>, files: SentFiles, needed: Needed) -> Result<(), BuildError> {
    let context = common.context.clone();
    let archive = (files.source)(needed, context.files.clone());
    // Its bytes come from a task that may itself wait for a thread.
    bridge::waiting(move || receive::fill(&context, archive)).await?;
    Ok(())
}

/// Looks up the images that stages begin with, side by side; answers whether one asks for instructions.
async fn metadata(common: &Arc<Common>) -> Result<bool, BuildError> {
    let mut looking = JoinSet::new();
    let mut has_triggers = false;
    common.plan.stages.iter().try_for_each(check_platform)?;
    let bases = graph::images(&common.plan)
        .into_iter()
        .map(|WantedBase { name, platform, first }| (common.line_of(&common.plan.stages[first]), name, platform, true));
    let bases: Vec<_> = bases.collect();
    let mut others = graph::copied(&common.plan, &common.graph);
    others.retain(|(_, name)| !common.lookup.is_named(name, &common.options.platform));
    others.retain(|(_, name)| !bases.iter().any(|(_, base, platform, _)| base == name && platform.is_empty()));
    let others = others.into_iter().map(|(line, name)| (line, name, String::new(), false));
    for (line, name, platform, is_base) in bases.into_iter().chain(others) {
        if looking.len() >= STAGES_MAX {
            let found = first(&mut looking).await.transpose().map_err(|failed| *failed.why)?;
            has_triggers |= found.unwrap_or_default();
        }
        let lines = Arc::new(common.lines.beside());
        lines.at(line);
        let is_named = common.lookup.is_named(&name, wanted_platform(common, &platform));
        if !is_named {
            lines.begin(format!("[internal] load metadata for {}", full_name(&name)), None).await;
        }
        let common = common.clone();
        looking.spawn(async move { one_image(&common, (lines, !is_named, is_base), name, platform).await });
    }
    while let Some(found) = first(&mut looking).await {
        has_triggers |= found.map_err(|failed| *failed.why)?;
    }
    Ok(has_triggers)
}

/// `is_told` is whether its lines are told of it; else others are. What no stage begins with asks for nothing.
async fn one_image(
    common: &Common,
    (lines, is_told, is_base): (Arc<Lines>, bool, bool),
    name: String,
    platform: String,
) -> Result<bool, Failed> {
    let wanted = wanted_platform(common, &platform);
    match common.lookup.telling(lines.clone()).image(&name, wanted).await {
        Ok(image) => {
            let has_triggers =
                is_base && image.config.config.on_build.as_ref().is_some_and(|triggers| !triggers.is_empty());
            common.lookup.note(&name, &platform, image);
            if is_told {
                lines.part(PartEvent::Ended).await;
            }
            Ok(has_triggers)
        }
        Err(source) => {
            let why = BuildError::Metadata { name, source: Box::new(source) };
            Err(Failed { place: 0, lines, why: Box::new(why) })
        }
    }
}

/// Refuses what a stage says of its platform, if that is none.
fn check_platform(planned: &PlannedStage) -> Result<(), BuildError> {
    let platform = &planned.platform;
    let checked = if platform.is_empty() { Ok(()) } else { engine_api::platform::parse(platform).map(drop) };
    checked.map_err(|source| BuildError::StagePlatform { platform: platform.clone(), source })
}

/// A stage's platform, or the build's, which is empty for this machine.
fn wanted_platform<'a>(common: &'a Common, platform: &'a str) -> &'a str {
    if platform.is_empty() { &common.options.platform } else { platform }
}

/// What the first of some tasks comes to. With the first one that fails all others have ended.
async fn first<T: 'static>(tasks: &mut JoinSet<Result<T, Failed>>) -> Option<Result<T, Failed>> {
    let ended = match tasks.join_next().await?.map_err(JoinError::try_into_panic) {
        Ok(ended) => ended,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down: whoever waits here is about to be dropped, too.
        Err(Err(_)) => std::future::pending().await,
    };
    if let Err(failed) = &ended {
        tasks.shutdown().await;
        // From here on nobody else tells anything.
        failed.lines.failed().await;
    }
    Some(ended)
}

/// Solves all stages; answers what the last one comes to.
async fn stages(common: &Arc<Common>) -> Result<Option<Digest>, BuildError> {
    let count = common.plan.stages.len();
    let turns = Arc::new(Turns::new(count, common.context.place.path()));
    let solving = async {
        let mut tasks = JoinSet::new();
        for stage in 0..count {
            if tasks.len() >= STAGES_MAX {
                first(&mut tasks).await.transpose()?;
            }
            tasks.spawn(StageSolver::solve(common.clone(), stage, turns.clone()));
        }
        while let Some(ended) = first(&mut tasks).await {
            ended?;
        }
        Ok(())
    };
    let told = common.lines.tell_turns(&turns);
    let solving = async { solving.await.inspect_err(|failed: &Failed| turns.fail(failed.place)) };
    let (solved, ()) = tokio::join!(solving, told);
    solved.map_err(|failed| *failed.why)?;
    match count.checked_sub(1) {
        Some(last) => Ok(common.outcome(last).await),
        None => Ok(None),
    }
}

/// Gives an image its names, and tells them.
pub(super) async fn tag(engine: &Engine, lines: &Lines, image: &str, names: Vec<Reference>) -> Result<(), BuildError> {
    for name in names {
        let (repository, tag) = (name.familiar_name(), name.tag().unwrap_or_default().to_owned());
        images::tag(engine, image, &repository, &tag).await.map_err(BuildError::Tag)?;
        lines.text(format!("Successfully tagged {}\n", name.familiar())).await;
    }
    Ok(())
}

/// Tells what the image is, leaves what steps came to, and gives the image its names.
async fn finish(common: &Arc<Common>, image: Option<Digest>, names: Vec<Reference>) -> Result<String, BuildError> {
    let (engine, lines) = (&common.engine, &common.lines);
    let unused = common.unused_arguments();
    if !unused.is_empty() {
        let told = builder::go::list(&unused);
        lines.text(format!("[Warning] One or more build-args {told} were not consumed\n")).await;
    }
    let image = image.ok_or(BuildError::Nothing)?;
    let task = common.clone();
    // As above: it looks at all instructions once more.
    let used = bridge::blocking(move || {
        let (network, materials) = (&task.options.host.network_mode, task.lookup.materials());
        used::of_plan(&task.plan, task.context.dockerfile.escape, network, materials)
    });
    lines.used(used.await).await;
    let whom = exports::For { engine, lookup: &common.lookup, client: &common.client, lines };
    let (stages, kept) = (common.done(), common.kept());
    let goods = exports::Goods { stages: &stages, kept: &kept, place: &common.context.place };
    exports::leave(whom, &common.options.cache_to, &goods).await?;
    // One flush of the disk for all steps.
    let task = engine.clone();
    bridge::blocking(move || image::settle(&task.images)).await?;
    lines.text(format!("Successfully built {}\n", short(Some(&image)))).await;
    // BuildKit's clients say later whether they want it, and nobody wants one that is made again with other times.
    if !common.buildkit && common.options.reproduce.is_none() {
        engine.steps.unmark(&image);
    }
    tag(engine, lines, image.as_str(), names).await?;
    image_budget::look_soon(engine, [image.clone()]);
    Ok(image.to_string())
}
