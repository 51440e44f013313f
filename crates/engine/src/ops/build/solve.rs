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
mod stage;

use std::sync::Arc;

use builder::{Arguments, Base, Plan, PlannedStage, Platforms, Wanted};
use dockerfile::{Dockerfile, Kind};
use dockerfile_checks::Checking;
use oci::image::Platform;
use oci::{Digest, Reference};
use tokio::task::{JoinError, JoinSet};

use self::common::{Beginning, Common};
use self::stage::{Failed, StageSolver};
use super::asks::Client;
use super::checks;
use super::exports;
use super::graph::{self, Needed};
use super::imports::Imports;
use super::input::{Archive, Input, Local, SentFiles};
use super::lines::Lines;
use super::lookup::Lookup;
use super::named::{Named, NamedContext};
use super::receive;
use super::remote_context::{self, FetchedContext};
use super::turns::Turns;
use super::{BuildError, BuildOptions, Built, PartEvent, full_name, space, used};
use crate::Engine;
use crate::ops::image_budget;
use crate::ops::{images, import};

/// Digits of an id that are told.
const SHORT: usize = 12;

/// How many stages are begun at the same time, those that wait included. A Dockerfile may have a hundred thousand.
const STAGES_MAX: usize = 64;

/// What is built from, where it need not be waited for any more, or comes while it is read.
enum Ready {
    Archive(Archive),
    Local(Local),
    Fetched(FetchedContext),
}

/// Builds.
pub(super) async fn build(
    engine: Engine,
    options: BuildOptions,
    names: Vec<Reference>,
    (input, named): (Input, Vec<NamedContext>),
    client: Client,
    lines: Arc<Lines>,
) -> Result<Built, BuildError> {
    let named = Named::new(named);
    let (task, told) = (engine.clone(), lines.clone());
    let input = match input {
        Input::Archive(archive) => Ready::Archive(archive),
        Input::Local(local) => Ready::Local(local),
        Input::Remote(url) => Ready::Fetched(remote_context::fetch(&engine, &url, false, &client).await?),
    };
    // What a Dockerfile makes of its variables takes as long as its author likes, within bounds.
    let planned = bridge::blocking(move || {
        let mut is_text = true;
        let (mut context, files, ask) = match input {
            Ready::Archive(archive) => (receive::receive(&task, archive.0, &options.dockerfile)?, None, None),
            Ready::Fetched(fetched) => (fetched.open(&options.dockerfile)?, None, None),
            Ready::Local(local) => {
                let (context, files) = local.context.open(&task, &local.name, &local.text)?;
                is_text = std::str::from_utf8(&local.text).is_ok();
                let checking = checks::begin(&options, &local.text, &local.ignore, false)?;
                (context, Some((checking, files)), Some(local.login))
            }
        };
        named.replace(&mut context.dockerfile, &options.platform);
        // Who is told what checks find is told of these.
        let (plan, arguments) = plan(&context.dockerfile, &options, files.is_some())?;
        if let Some((_, SentFiles { name: Some(name), .. })) = &files
            && graph::needed(&plan) != Needed::Nothing
        {
            receive::begin_with_kept(&mut context, name)?;
        }
        if let Some(why) = builder::early::is_no_text(&plan).filter(|_| !is_text) {
            return Err(why.into());
        }
        let lookup = Lookup::new(&task, &options, ask, named, told);
        Ok::<_, BuildError>((context, files, lookup, plan, arguments, options))
    });
    let (context, files, lookup, plan, arguments, options) = planned.await?;
    if let Some((line, why)) = builder::early::refused(&plan, context.dockerfile.escape, files.is_some()) {
        lines.at(line);
        lines.failed().await;
        return Err(why.into());
    }
    if let Err(err) = lookup.begin_named(&plan, (&context.place, &client), &options.platform).await {
        lines.failed().await;
        return Err(err);
    }
    let held = lookup.held();
    let imports = Imports::open(&engine, &options, &platform(&options.platform)?, &lookup, &lines).await;
    // Who has the files sent is BuildKit's client.
    let buildkit = files.is_some();
    let beginning = Beginning { engine, options, context, client, lookup, lines, plan, arguments, imports, buildkit };
    let common = Arc::new(Common::new(beginning));
    let begun = match files {
        Some((checking, files)) => prepare(&common, checking, files).await,
        None => {
            announce(&common).await;
            Ok(())
        }
    };
    begun?;
    let image = stages(&common).await?;
    let image = finish(&common, image, names).await?;
    Ok(Built { image, held: Some(held) })
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

fn short(image: Option<&Digest>) -> &str {
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

/// Looks up the images that stages begin with, tells what checks find, and has the files that are needed sent.
async fn prepare(common: &Arc<Common>, checking: Checking, files: SentFiles) -> Result<(), BuildError> {
    let mut needed = graph::needed(&common.plan);
    // What an image asks for is not looked into.
    if metadata(common).await? {
        needed = Needed::All;
    }
    checks::in_build(checking, &common.lookup, &common.lines).await?;
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
    for (name, platform) in graph::images(&common.plan) {
        if looking.len() >= STAGES_MAX {
            let found = first(&mut looking).await.transpose().map_err(|failed| *failed.why)?;
            has_triggers |= found.unwrap_or_default();
        }
        let lines = Arc::new(common.lines.beside());
        let stage = common.plan.stages.iter().find(|stage| stage.base == Base::Image(name.clone()));
        lines.at(stage.map_or(0, |stage| common.line_of(stage)));
        let is_named = common.lookup.is_named(&name, wanted_platform(common, &platform));
        if !is_named {
            lines.begin(format!("[internal] load metadata for {}", full_name(&name)), None).await;
        }
        let common = common.clone();
        looking.spawn(async move { one_image(&common, (lines, !is_named), name, platform).await });
    }
    while let Some(found) = first(&mut looking).await {
        has_triggers |= found.map_err(|failed| *failed.why)?;
    }
    Ok(has_triggers)
}

/// `is_told` is whether its lines are told of it; else others are.
async fn one_image(
    common: &Common,
    (lines, is_told): (Arc<Lines>, bool),
    name: String,
    platform: String,
) -> Result<bool, Failed> {
    let wanted = wanted_platform(common, &platform);
    match common.lookup.telling(lines.clone()).image(&name, wanted).await {
        Ok(image) => {
            let has_triggers = image.config.config.on_build.as_ref().is_some_and(|triggers| !triggers.is_empty());
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

/// A stage's platform, or the build's.
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
    let turns = Arc::new(Turns::new(count, common.context.place.join("")));
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

/// Gives the image its names.
async fn finish(common: &Common, image: Option<Digest>, names: Vec<Reference>) -> Result<String, BuildError> {
    let (engine, lines) = (&common.engine, &common.lines);
    let unused = common.unused_arguments();
    if !unused.is_empty() {
        let told = builder::go::list(&unused);
        lines.text(format!("[Warning] One or more build-args {told} were not consumed\n")).await;
    }
    let image = image.ok_or(BuildError::Nothing)?;
    let network = &common.options.host.network_mode;
    let (escape, materials) = (common.context.dockerfile.escape, common.lookup.materials());
    lines.used(used::of_plan(&common.plan, escape, network, materials)).await;
    exports::leave(engine, &common.options.cache_to, &common.done(), &common.lookup, lines).await?;
    lines.text(format!("Successfully built {}\n", short(Some(&image)))).await;
    for name in names {
        let (repository, tag) = (name.familiar_name(), name.tag().unwrap_or_default().to_owned());
        images::tag(engine, image.as_str(), &repository, &tag).await.map_err(BuildError::Tag)?;
        lines.text(format!("Successfully tagged {}\n", name.familiar())).await;
    }
    image_budget::look_soon(engine, [image.clone()]);
    // Nobody waits for what is only tidied up.
    let engine = engine.clone();
    tokio::spawn(bridge::blocking(move || space::collect(&engine)));
    Ok(image.to_string())
}
