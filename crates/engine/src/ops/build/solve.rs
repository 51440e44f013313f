//! One step after the other.

mod command;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use builder::cache::{Key, key};
use builder::{Arguments, Base, Operation, Plan, PlannedStage, Platforms, Stage, Step, StepError, Wanted};
use dockerfile::{Dockerfile, Files, GitAddress, Instruction, Kind};
use dockerfile_checks::Checking;
use image::ImageRecord;
use oci::image::{ExecConfig, History, Platform};
use oci::{Digest, Reference};
use snapshot::Stubs;

use super::asks::Client;
use super::checks;
use super::copy::Copying;
use super::exports::{self, Done};
use super::graph::{self, Names, Needed};
use super::imports::{Imports, Sought};
use super::input::{Archive, ContextSource, Input, Local};
use super::lookup::Lookup;
use super::receive::{self, Context};
use super::remote::{self, Remote};
use super::remote_context::{self, FetchedContext};
use super::sources::{self, Source, SourceError};
use super::work::{ImageTree, Work, tree_of};
use super::{BuildError, BuildLine, BuildOptions, Lines, PartEvent, cache, caches, full_name};
use crate::Engine;
use crate::clock::{now_nanos, rfc3339};
use crate::ops::image_budget;
use crate::ops::{commit, images, import};

/// Nobody but us writes to the tree of a copy.
const NO_STUBS: Stubs<'static> = Stubs { files: &[], links: &[], directories: &[] };

/// Digits of an id that are told.
const SHORT: usize = 12;

/// A build on its way.
struct Solver {
    engine: Engine,
    options: BuildOptions,
    lines: Arc<Lines>,
    context: Arc<Context>,
    /// Who has secrets and agents.
    client: Client,
    lookup: Lookup,
    /// The steps begun so far, and all of them.
    at: usize,
    steps: usize,
    /// How many things were fetched from the web.
    fetched: usize,
    /// What stages came to, by their place in the Dockerfile.
    outcomes: HashMap<usize, Option<Digest>>,
    names: HashMap<String, usize>,
    /// Trees of images that something was copied from.
    trees: HashMap<Digest, Arc<ImageTree>>,
    /// Caches of commands with which it has begun anew.
    renewed: caches::Renewed,
    /// What is known elsewhere.
    imports: Imports,
    /// What the steps of stages came to.
    done: Vec<Vec<Done>>,
    /// The parts that images are that stages begin with, by name and platform, of a graph.
    begun: HashMap<(String, String), usize>,
}

/// A stage that is being solved.
struct Solving {
    stage: Stage,
    image: Option<Digest>,
    /// What it is for if it begins with nothing; what it begins with says so otherwise.
    platform: Platform,
    /// Whether nothing behind this is known any more.
    missed: bool,
    /// What its parts are called, and the number of the last one.
    names: Names,
    part: Option<usize>,
    /// Whether a part is going on.
    in_part: bool,
    /// What its steps came to.
    done: Vec<Done>,
}

impl Solving {
    /// Goes on from what a step came to.
    fn came_to(&mut self, key: &Key, image: Digest) {
        self.done.push(Done { key: key.clone(), parent: self.image.take(), image: image.clone() });
        self.image = Some(image);
    }

    /// What a step is known by.
    fn key(&self, words: &[String], more: &[String]) -> Key {
        let platform = match &self.image {
            Some(_) => String::new(),
            None => format!("{:?}", self.platform),
        };
        key(self.image.as_ref(), &self.stage.config, words, &[&[platform], more].concat())
    }
}

/// What is built from, where it need not be waited for any more, or comes while it is read.
enum Ready {
    Archive(Archive),
    Local(Local),
    Fetched(FetchedContext),
}

/// Builds; answers the image's id.
pub(super) async fn build(
    engine: Engine,
    options: BuildOptions,
    names: Vec<Reference>,
    input: Input,
    client: Client,
    lines: Arc<Lines>,
) -> Result<String, BuildError> {
    let task = engine.clone();
    let input = match input {
        Input::Archive(archive) => Ready::Archive(archive),
        Input::Local(local) => Ready::Local(local),
        Input::Remote(url) => Ready::Fetched(remote_context::fetch(&engine, &url).await?),
    };
    // What a Dockerfile makes of its variables takes as long as its author likes, within bounds.
    let planned = bridge::blocking(move || {
        let (context, files, ask) = match input {
            Ready::Archive(archive) => (receive::receive(&task, archive.0, &options.dockerfile)?, None, None),
            Ready::Fetched(fetched) => (fetched.open(&options.dockerfile)?, None, None),
            Ready::Local(local) => {
                let context = receive::of_text(&task, &local.name, &local.text)?;
                let checking = checks::begin(&options, &local.text, &local.ignore, false)?;
                (context, Some((checking, local.context)), Some(local.login))
            }
        };
        // Who is told what checks find is told of these.
        let (plan, arguments) = plan(&context.dockerfile, &options, files.is_some())?;
        Ok::<_, BuildError>((context, files, ask, plan, arguments, options))
    });
    let (context, files, ask, plan, arguments, options) = planned.await?;
    let lookup = Lookup::new(&engine, &options, ask, lines.clone());
    let imports = match options.no_cache {
        true => &[][..],
        false => &options.cache_from,
    };
    let imports = Imports::open(&engine, imports, &platform(&options.platform)?, &lookup, &lines).await;
    let mut solver = Solver {
        engine,
        options,
        lines,
        context: Arc::new(context),
        client,
        lookup,
        at: 0,
        steps: plan.steps,
        fetched: 0,
        outcomes: HashMap::new(),
        names: HashMap::new(),
        trees: HashMap::new(),
        renewed: HashSet::new(),
        imports,
        done: Vec::new(),
        begun: HashMap::new(),
    };
    solver.all(plan, arguments, names, files).await
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

/// Takes an instruction; where there may be variables on a thread that may block.
async fn step(solving: &mut Solving, instruction: &Instruction, literal: bool) -> Result<Step, StepError> {
    if literal || !instruction.original.contains('$') {
        return solving.stage.step(instruction, literal);
    }
    let (mut stage, instruction) = (std::mem::take(&mut solving.stage), instruction.clone());
    let (stage, step) = bridge::blocking(move || {
        let step = stage.step(&instruction, literal);
        (stage, step)
    })
    .await;
    solving.stage = stage;
    step
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
fn platform(wanted: &str) -> Result<Platform, BuildError> {
    let [os, architecture, variant] = platforms(wanted)?.target;
    let architecture = if architecture.is_empty() { import::host_platform().architecture } else { architecture };
    Ok(Platform { os, architecture, variant, ..Platform::default() })
}

fn short(image: Option<&Digest>) -> &str {
    image.map(|image| &image.hex()[..SHORT]).unwrap_or_default()
}

impl Solver {
    async fn all(
        &mut self,
        plan: Plan,
        mut arguments: Arguments,
        names: Vec<Reference>,
        files: Option<(Checking, ContextSource)>,
    ) -> Result<String, BuildError> {
        self.warn().await;
        let context = self.context.clone();
        for instruction in &context.dockerfile.arguments {
            self.announce(&instruction.original).await;
        }
        if let Some((checking, files)) = files {
            self.prepare(&plan, checking, files).await?;
        }
        let mut last = None;
        for planned in &plan.stages {
            last = self.stage(planned, &mut arguments).await?;
        }
        let unused = arguments.unused();
        if !unused.is_empty() {
            let told = builder::go::list(&unused);
            self.lines.text(format!("[Warning] One or more build-args {told} were not consumed\n")).await;
        }
        let image = last.ok_or(BuildError::Nothing)?;
        exports::leave(&self.engine, &self.options.cache_to, &self.done, &self.lookup, &self.lines).await?;
        self.lines.text(format!("Successfully built {}\n", short(Some(&image)))).await;
        for name in names {
            let (repository, tag) = (name.familiar_name(), name.tag().unwrap_or_default().to_owned());
            images::tag(&self.engine, image.as_str(), &repository, &tag).await.map_err(BuildError::Tag)?;
            self.lines.text(format!("Successfully tagged {}\n", name.familiar())).await;
        }
        image_budget::look_soon(&self.engine, [image.clone()]);
        // Nobody waits for what is only tidied up.
        let engine = self.engine.clone();
        tokio::spawn(bridge::blocking(move || caches::collect(&engine)));
        Ok(image.to_string())
    }

    /// Looks up the images that stages begin with, tells what checks find, and has the files that are needed sent.
    async fn prepare(&mut self, plan: &Plan, checking: Checking, files: ContextSource) -> Result<(), BuildError> {
        let mut needed = graph::needed(plan);
        for (name, platform) in graph::images(plan) {
            let line = plan.stages.iter().find(|stage| stage.base == Base::Image(name.clone()));
            self.lines.at(line.and_then(|stage| self.line_of(stage)).unwrap_or_default()).await;
            self.lines.begin(format!("[internal] load metadata for {}", full_name(&name)), None).await;
            let platform = if platform.is_empty() { self.options.platform.clone() } else { platform };
            let image = self.lookup.image(&name, &platform).await;
            let image = image.map_err(|err| BuildError::Metadata { name: name.clone(), source: Box::new(err) })?;
            // What it asks for is not looked into.
            if image.config.config.on_build.as_ref().is_some_and(|triggers| !triggers.is_empty()) {
                needed = Needed::All;
            }
            self.lookup.found.insert((name, platform), image);
            self.lines.part(PartEvent::Ended).await;
        }
        checks::in_build(checking, &self.lookup, &self.lines).await?;
        let (context, archive) = (self.context.clone(), files(needed));
        // Its bytes come from a task that may itself wait for a thread.
        bridge::waiting(move || receive::fill(&context, archive)).await?;
        Ok(())
    }

    /// The line of a stage's `FROM`.
    fn line_of(&self, planned: &PlannedStage) -> Option<usize> {
        Some(self.context.dockerfile.stages.get(planned.index)?.line)
    }

    async fn warn(&self) {
        let empty = &self.context.dockerfile.empty_continuations;
        for line in empty {
            self.lines.text(format!("[WARNING]: Empty continuation line found in: {}\n", line.text)).await;
        }
        if !empty.is_empty() {
            let told = "[WARNING]: Empty continuation lines will become errors in a future release.\n";
            self.lines.text(told).await;
        }
    }

    async fn announce(&mut self, original: &str) {
        self.at += 1;
        self.lines.text(format!("Step {}/{} : {original}", self.at, self.steps)).await;
        self.lines.text("\n").await;
    }

    async fn stage(&mut self, planned: &PlannedStage, arguments: &mut Arguments) -> Result<Option<Digest>, BuildError> {
        self.announce(&planned.original).await;
        self.lines.at(self.line_of(planned).unwrap_or_default()).await;
        let mut names = Names::new(planned, self.context.dockerfile.stages.len());
        let mut part = None;
        if let Base::Image(name) = &planned.base {
            let words = names.next(&format!("FROM {}", full_name(name)));
            // Stages that begin with the same image have that part in common.
            part = match self.begun.get(&(name.clone(), planned.platform.clone())) {
                Some(number) => Some(*number),
                None => self.lines.begin(words, None).await,
            };
        }
        let base = self.base(planned).await?;
        if let (Some(number), Base::Image(name)) = (part, &planned.base)
            && self.begun.insert((name.clone(), planned.platform.clone()), number).is_none()
        {
            self.lines.part(PartEvent::Ended).await;
        }
        let empty = ExecConfig::default();
        let config = base.as_ref().map_or(&empty, |base| &base.config.config);
        let escape = self.context.dockerfile.escape;
        let (stage, triggers) = Stage::begin(config, "", arguments.for_stage(), escape);
        let image = base.map(|base| base.id.clone());
        let wanted = if planned.platform.is_empty() { &self.options.platform } else { &planned.platform };
        names.add(triggers.len());
        let platform = platform(wanted)?;
        let missed = self.options.no_cache;
        let mut solving = Solving { stage, image, platform, missed, names, part, in_part: false, done: Vec::new() };
        self.triggers(&mut solving, &triggers).await?;
        self.lines.text(format!(" ---> {}\n", short(solving.image.as_ref()))).await;
        let literal_from = planned.instructions.len() - planned.added;
        for (index, instruction) in planned.instructions.iter().enumerate() {
            self.announce(&instruction.original).await;
            self.instruction(&mut solving, instruction, index >= literal_from).await?;
            self.lines.text(format!(" ---> {}\n", short(solving.image.as_ref()))).await;
        }
        if let Some(image) = &solving.image {
            self.lines.tell(BuildLine::Image(image.to_string())).await;
        }
        arguments.merge(&solving.stage.arguments);
        self.done.push(solving.done);
        self.outcomes.insert(planned.index, solving.image.clone());
        if !planned.name.is_empty() {
            self.names.insert(planned.name.clone(), planned.index);
        }
        Ok(solving.image)
    }

    /// What a base image asks for.
    async fn triggers(&mut self, solving: &mut Solving, triggers: &[String]) -> Result<(), BuildError> {
        if triggers.is_empty() {
            return Ok(());
        }
        let plural = if triggers.len() == 1 { "" } else { "s" };
        self.lines.text(format!("# Executing {} build trigger{plural}\n", triggers.len())).await;
        for trigger in triggers {
            // It stands in no line of this Dockerfile.
            let instruction = Instruction { line: 0, end: 0, ..dockerfile::parse_trigger(trigger)? };
            self.instruction(solving, &instruction, false).await?;
        }
        Ok(())
    }

    /// The image that a stage begins with; `None` for nothing.
    async fn base(&mut self, planned: &PlannedStage) -> Result<Option<Arc<ImageRecord>>, BuildError> {
        let name = match &planned.base {
            Base::Scratch => return Ok(None),
            Base::Stage(index) => match self.outcomes.get(index).cloned().flatten() {
                None => return Ok(None),
                Some(image) => return Ok(Some(self.engine.images.resolve(image.as_str())?)),
            },
            Base::Image(name) => name,
        };
        let platform = if planned.platform.is_empty() { &self.options.platform } else { &planned.platform }.clone();
        self.lookup.image(name, &platform).await.map(Some)
    }

    async fn instruction(
        &mut self,
        solving: &mut Solving,
        instruction: &Instruction,
        literal: bool,
    ) -> Result<(), BuildError> {
        if instruction.line > 0 {
            self.lines.at(instruction.line).await;
        }
        let step = step(solving, instruction, literal).await?;
        if let Some(note) = &step.note {
            self.lines.text(note.clone()).await;
        }
        solving.in_part = step.operation != Operation::None;
        if !solving.in_part {
            return self.configure(solving, step, None).await;
        }
        let words = graph::shown(&instruction.original, &|name| solving.stage.value(name));
        let name = solving.names.next(&words);
        solving.part = self.lines.begin(name, solving.part).await;
        match step.operation.clone() {
            Operation::None => {}
            Operation::MakeDirectory(path) => self.configure(solving, step, Some(path)).await?,
            Operation::Run(run) => self.run(solving, step, run).await?,
            Operation::Copy { files, add } => self.copy(solving, step, files, add).await?,
        }
        self.lines.part(PartEvent::Ended).await;
        Ok(())
    }

    /// Goes on from what a step came to before, if that is known.
    /// `words` are what history says of it, and `tell_all` is whether these are all that it depends on.
    async fn known(&self, solving: &mut Solving, key: &Key, words: &[String], tell_all: bool) -> bool {
        if solving.missed {
            return false;
        }
        let (engine, known, parent) = (self.engine.clone(), key.clone(), solving.image.clone());
        let found = bridge::blocking(move || cache::look_up(&engine, &known, parent.as_ref())).await;
        let found = match found {
            None => self.imported(solving, key, words, tell_all).await,
            found => found,
        };
        match found {
            Some(image) => {
                self.lines.text(" ---> Using cache\n").await;
                if solving.in_part {
                    self.lines.part(PartEvent::Cached).await;
                }
                solving.came_to(key, image);
                true
            }
            None => {
                solving.missed = true;
                false
            }
        }
    }

    /// What a step came to elsewhere; it is known here then.
    async fn imported(&self, solving: &Solving, key: &Key, words: &[String], tell_all: bool) -> Option<Digest> {
        let parent = self.parent(solving).ok()?;
        let sought = Sought {
            key,
            words: tell_all.then(|| words.join(" ")),
            parent: parent.as_deref(),
            config: &solving.stage.config,
            platform: &solving.platform,
        };
        let image = self.imports.find(&sought).await?;
        let (engine, key, known, words) = (self.engine.clone(), key.clone(), image.clone(), words.to_vec());
        bridge::blocking(move || cache::remember(&engine, &key, &known, &words)).await;
        Some(image)
    }

    /// A step that leaves files as they are, or makes a directory.
    async fn configure(&self, solving: &mut Solving, step: Step, path: Option<String>) -> Result<(), BuildError> {
        let key = solving.key(&step.words, &[]);
        if self.known(solving, &key, &step.words, true).await {
            return Ok(());
        }
        self.record(solving, key, step.words, move |engine, parent| {
            let Some(path) = path else { return Ok(None) };
            let work = Work::above(engine, parent)?;
            work.make_directories(&path, (0, 0))?;
            Ok(Some(work))
        })
        .await
    }

    /// Has files made by `make`, and records the image.
    async fn record(
        &self,
        solving: &mut Solving,
        key: Key,
        words: Vec<String>,
        make: impl FnOnce(&Engine, Option<&ImageRecord>) -> Result<Option<Work>, BuildError> + Send + 'static,
    ) -> Result<(), BuildError> {
        let (engine, config, platform) = (self.engine.clone(), solving.stage.config.clone(), solving.platform.clone());
        let parent = self.parent(solving)?;
        let step = history(&solving.stage, &words);
        let recorded = bridge::blocking(move || {
            let work = make(&engine, parent.as_deref())?;
            let key_of_work = work.as_ref().map(|work| (&work.key, NO_STUBS));
            let image = commit::build_step(&engine, key_of_work, parent.as_deref(), (&config, platform), step)?;
            cache::remember(&engine, &key, &image, &words);
            Ok::<_, BuildError>((key, image))
        });
        let (key, image) = recorded.await?;
        solving.came_to(&key, image);
        Ok(())
    }

    fn parent(&self, solving: &Solving) -> Result<Option<Arc<ImageRecord>>, BuildError> {
        let resolved = solving.image.as_ref().map(|image| self.engine.images.resolve(image.as_str()));
        Ok(resolved.transpose()?)
    }

    async fn copy(
        &mut self,
        solving: &mut Solving,
        step: Step,
        files: Box<Files>,
        add: bool,
    ) -> Result<(), BuildError> {
        let name = if add { "ADD" } else { "COPY" };
        let from = self.tree(&files.from).await;
        let from = from.map_err(|err| BuildError::From { from: files.from.clone(), source: Box::new(err) })?;
        let failed = |source| BuildError::Source { instruction: name, source };
        let mut fetches = false;
        let (from, found, words, key) = loop {
            let remotes = if add { self.remotes(&files, fetches).await.map_err(failed)? } else { Vec::new() };
            let (context, wanted, from) = (self.context.clone(), files.clone(), from.clone());
            let remote = remotes.iter().map(Remote::source).collect();
            let (from, found) = bridge::blocking(move || {
                let tree = from.as_ref().map_or(&context.tree, |from| &from.tree);
                let found = sources::select(tree, &wanted, remote);
                (from, found)
            })
            .await;
            let found: Vec<Source> = found.map_err(failed)?;
            let words = copy_words(step.words.clone(), &found, &files);
            let key = solving.key(&words, &copy_key(&found, &files));
            if self.known(solving, &key, &words, is_told_whole(&files)).await {
                return Ok(());
            }
            // What was only asked about has to come now, and may be something else by now.
            match fetches || remotes.iter().all(|remote| remote.is_here) {
                true => break (from, found, words, key),
                false => fetches = true,
            }
        };
        let context = self.context.clone();
        self.record(solving, key, words, move |engine, parent| {
            let work = Work::above(engine, parent)?;
            let tree = from.as_ref().map_or(&context.tree, |from| &from.tree);
            let remote = remote::tree(&context.place).map_err(BuildError::Remote)?;
            Copying::new(tree, &work, &files, add)?.with_remote(remote.as_ref()).run(&found)?;
            Ok(Some(work))
        })
        .await
    }

    /// What an `ADD` has from the web; all of it comes where `fetches`.
    async fn remotes(&mut self, files: &Files, fetches: bool) -> Result<Vec<Remote>, SourceError> {
        let mut remotes = Vec::new();
        for url in files.sources.iter().filter(|source| sources::is_url(source) || sources::is_git(source)) {
            self.fetched += 1;
            if let Some(address) = GitAddress::parse(url)? {
                let place = &self.context.place;
                remotes.push(Remote::look_at_repository(address, files, place, self.fetched, fetches).await?);
                continue;
            }
            let remote = Remote::look(&self.engine, url, &self.context.place, self.fetched, fetches).await?;
            remote.check(&files.checksum)?;
            remotes.push(remote);
        }
        Ok(remotes)
    }

    /// The tree of what `--from` names; `None` for the context.
    async fn tree(&mut self, from: &str) -> Result<Option<Arc<ImageTree>>, BuildError> {
        if from.is_empty() {
            return Ok(None);
        }
        let stage = self.names.get(&from.to_lowercase()).copied().or_else(|| from.parse().ok());
        let platform = self.options.platform.clone();
        let image = match stage.and_then(|index| self.outcomes.get(&index)) {
            Some(Some(image)) => self.engine.images.resolve(image.as_str())?,
            Some(None) => return Err(BuildError::Nothing),
            None => self.lookup.image(from, &platform).await?,
        };
        if let Some(tree) = self.trees.get(&image.id) {
            return Ok(Some(tree.clone()));
        }
        let (engine, id) = (self.engine.clone(), image.id.clone());
        let tree = Arc::new(bridge::blocking(move || tree_of(&engine, &image)).await?);
        self.trees.insert(id, tree.clone());
        Ok(Some(tree))
    }
}

/// Whether history says all that a copy depends on.
fn is_told_whole(files: &Files) -> bool {
    files.chmod.is_empty()
        && files.from.is_empty()
        && files.exclude.is_empty()
        && !files.parents
        && files.unpack.is_none()
}

/// What else a copy depends on.
fn copy_key(found: &[Source], files: &Files) -> Vec<String> {
    let mut more = vec![files.chmod.clone(), format!("{:?} {} {:?}", files.exclude, files.parents, files.unpack)];
    // Files of an image keep their owners.
    more.push(format!("from={}", !files.from.is_empty()));
    more.extend(found.iter().map(|source| source.exact.clone()));
    more
}

/// What history says of a copy: dockerd's words, with what the files are.
fn copy_words(mut words: Vec<String>, found: &[Source], files: &Files) -> Vec<String> {
    let behind = words.pop().unwrap_or_default();
    let chown = if files.chown.is_empty() { String::new() } else { format!("--chown={} ", files.chown) };
    let whole = format!("{}{chown}{}{behind}", words.pop().unwrap_or_default(), sources::sum(found, files));
    words.push(whole);
    words
}

fn history(stage: &Stage, words: &[String]) -> History {
    History {
        created: Some(rfc3339(now_nanos())),
        created_by: words.join(" "),
        author: stage.author.clone(),
        comment: String::new(),
        empty_layer: false,
    }
}
