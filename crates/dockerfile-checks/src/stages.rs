//! What the `FROM`s show: arguments, platforms, names; and which images have to be asked what they say.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile::{Arg, Dockerfile, Escape, Kind, ParseError, Patterns, Stage, meant, parse_partly};
use engine_api::platform;
use oci::Reference;

use crate::options::CheckOptions;
use crate::outline::Capture;
use crate::report::{Failure, Findings, Lines, Violation, Warner};
use crate::variables::{Guesses, Used, Variables};
use crate::{outline, rules, text, walk};

/// What a Dockerfile is asked with.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The Dockerfile.
    pub text: String,
    /// Build arguments.
    pub arguments: BTreeMap<String, String>,
    /// `BUILDKIT_DOCKERFILE_CHECK`, which counts instead of the directive.
    pub check: Option<String>,
    /// The wanted stage; empty for the last one.
    pub target: String,
    /// What is built on: operating system, architecture, variant.
    pub build_platform: [String; 3],
    /// What is built for.
    pub target_platform: [String; 3],
    /// What `.dockerignore` leaves out.
    pub ignore: Patterns,
    /// Whether stages count that the target does not need.
    pub all_stages: bool,
}

/// An image that a stage begins with, or that files are copied from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedImage {
    /// Its name.
    pub name: String,
    /// `os/architecture[/variant]`, if the Dockerfile says so; else empty.
    pub platform: String,
}

/// What an image says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseImage {
    /// The environment: `NAME=VALUE`.
    pub env: Vec<String>,
    /// Whether it has a shell of its own.
    pub has_shell: bool,
    /// The instructions that it asks for.
    pub on_build: Vec<String>,
    /// Operating system, architecture, variant.
    pub platform: [String; 3],
}

/// Images, or the sentence about why they are not to be had. One that is missing says nothing.
pub type Images = BTreeMap<WantedImage, Result<BaseImage, String>>;

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Scratch,
    Stage(usize),
    Image(WantedImage),
}

/// A stage and what it needs.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) lines: Lines,
    pub(crate) base: Base,
    /// Stages that files are taken from, and where.
    pub(crate) needs: Vec<(usize, Lines)>,
    /// Images that files are taken from, and where.
    pub(crate) images: Vec<(WantedImage, Lines)>,
    /// The arguments that its `FROM` uses.
    pub(crate) used: BTreeSet<String>,
}

/// A Dockerfile that is being looked at.
#[derive(Debug)]
pub struct Checking {
    pub(crate) request: Request,
    pub(crate) dockerfile: Dockerfile,
    pub(crate) nodes: Vec<Node>,
    pub(crate) target: usize,
    /// The stages that the target needs.
    pub(crate) reached: BTreeSet<usize>,
    /// What every stage may name.
    pub(crate) global: Variables,
    pub(crate) capture: Capture,
    pub(crate) warner: Warner,
    pub(crate) guesses: Guesses,
    /// The last line that is walked through.
    pub(crate) until: usize,
    failure: Option<Failure>,
    /// Whether that is because nobody knows which checks count.
    no_options: bool,
}

impl Checking {
    /// Looks at what a text shows without images.
    pub fn begin(request: Request) -> Checking {
        let mut checking = Checking {
            request,
            dockerfile: Dockerfile::default(),
            nodes: Vec::new(),
            target: 0,
            reached: BTreeSet::new(),
            global: Variables::default(),
            capture: Capture::default(),
            warner: Warner::default(),
            guesses: Guesses::default(),
            until: usize::MAX,
            failure: None,
            no_options: false,
        };
        checking.failure = checking.read().and_then(|()| checking.stages()).and_then(|()| checking.needs()).err();
        checking
    }

    /// The same where it is known only now what `.dockerignore` leaves out.
    pub fn ignoring(mut self, ignore: Patterns) -> Checking {
        self.request.ignore = ignore;
        self
    }

    /// Whether the text is no Dockerfile.
    pub fn is_none(&self) -> bool {
        self.failure.is_some()
    }

    /// Why a build fails already: options of checks that are none.
    pub fn violation(&self) -> Option<Violation> {
        self.failure.clone().filter(|_| self.no_options).map(Violation::Options)
    }

    /// The same for a build that fails at a line: what stands behind it is not looked at.
    pub fn until(mut self, line: usize) -> Checking {
        self.until = line;
        self
    }

    /// What was found until now, for a build that comes to nothing before there are images.
    pub fn broken_off(self) -> Findings {
        Findings { warnings: self.warner.warnings, failure: self.failure, ..Findings::default() }
    }

    /// The images that [`Checking::finish`] wants to know about.
    pub fn images(&self) -> BTreeSet<WantedImage> {
        if self.failure.is_some() {
            return BTreeSet::new();
        }
        self.wanted().map(|(image, _)| image.clone()).collect()
    }

    /// Whether a build may fail because of what checks find.
    pub fn may_fail_builds(&self) -> bool {
        self.warner.options.is_error || self.no_options
    }

    /// Looks at the rest.
    pub fn finish(mut self, images: &Images) -> Findings {
        let walked = match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.platforms(images).and_then(|()| walk::all(&mut self, images)),
        };
        let (outline, failure) = match walked {
            Ok(outline) => (Some(outline), None),
            Err(failure) => (None, Some(failure)),
        };
        let violation = match &failure {
            None => self.warner.violation(),
            Some(failure) => self.no_options.then(|| Violation::Options(failure.clone())),
        };
        // Whoever only asks reads of it where he reads why else a build would fail.
        let outline = outline.filter(|_| violation.is_none());
        let failure = failure.or_else(|| violation.as_ref().map(|violation| Failure::new(violation.to_string())));
        Findings { warnings: self.warner.warnings, failure, violation, outline }
    }

    /// Whether a stage counts.
    pub(crate) fn counts(&self, index: usize) -> bool {
        self.request.all_stages || self.reached.contains(&index)
    }

    fn wanted(&self) -> impl Iterator<Item = (&WantedImage, Lines)> {
        let nodes = self.nodes.iter().enumerate().filter(|(index, _)| self.counts(*index));
        nodes.flat_map(|(_, node)| {
            let base = match &node.base {
                Base::Image(image) => Some((image, node.lines)),
                Base::Scratch | Base::Stage(_) => None,
            };
            base.into_iter().chain(node.images.iter().map(|(image, lines)| (image, *lines)))
        })
    }

    fn read(&mut self) -> Result<(), Failure> {
        if self.request.text.is_empty() {
            return Err(Failure::new("the Dockerfile cannot be empty"));
        }
        let (dockerfile, wrong) = parse_partly(&self.request.text).map_err(|err| of_parsing(&err))?;
        let options = match &self.request.check {
            Some(text) => CheckOptions::parse(text).map_err(|err| ("build-arg:BUILDKIT_DOCKERFILE_CHECK", err)),
            None => CheckOptions::parse(dockerfile.check.as_deref().unwrap_or_default())
                .map_err(|err| ("check options", err)),
        };
        self.no_options = options.is_err();
        self.warner.options = options.map_err(|(what, err)| Failure::new(format!("failed to parse {what}: {err}")))?;
        text::while_read(&dockerfile, &mut self.warner);
        if let Some(wrong) = wrong {
            text::where_wrong(&wrong, &mut self.warner);
            return Err(of_parsing(&wrong.why));
        }
        if dockerfile.stages.is_empty() {
            return Err(Failure::new("dockerfile contains no stages to build"));
        }
        text::when_read(&dockerfile, &mut self.warner);
        self.dockerfile = dockerfile;
        Ok(())
    }

    /// Arguments, and what stages begin with.
    fn stages(&mut self) -> Result<(), Failure> {
        let usual = self.usual_arguments();
        self.default_bases(&usual);
        self.global = usual;
        let given = self.request.arguments.clone();
        let capture = Some(&mut self.capture);
        meta_arguments(&self.dockerfile, &mut self.global, &given, capture)?;
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        for (index, stage) in self.dockerfile.stages.clone().iter().enumerate() {
            let node = self.from(stage, &names)?;
            if !stage.name.is_empty() {
                names.insert(stage.name.clone(), index);
            }
            self.nodes.push(node);
        }
        self.target = self.find_target(&names)?;
        Ok(())
    }

    /// The arguments that tell the platforms, with what the user says.
    fn usual_arguments(&self) -> Variables {
        let stage = match self.request.target.as_str() {
            "" => self.dockerfile.stages.last().map(|stage| stage.name.clone()).unwrap_or_default(),
            target => target.to_owned(),
        };
        let stage = if stage.is_empty() { "default".to_owned() } else { stage };
        let mut all = Variables::default();
        for (prefix, platform) in [("BUILD", &self.request.build_platform), ("TARGET", &self.request.target_platform)] {
            let [os, architecture, variant] = platform;
            let values = [
                ("PLATFORM", whole(platform)),
                ("OS", os.clone()),
                ("OSVERSION", String::new()),
                ("ARCH", architecture.clone()),
                ("VARIANT", variant.clone()),
            ];
            values.iter().for_each(|(name, value)| all.set(&format!("{prefix}{name}"), value));
        }
        all.set("TARGETSTAGE", &stage);
        let overridden = self.request.arguments.iter().filter(|(name, _)| all.get(name).is_some()).collect::<Vec<_>>();
        for (name, value) in overridden {
            all.set(name, value);
        }
        all
    }

    /// Bases have to be some without arguments of the user's, too.
    fn default_bases(&mut self, usual: &Variables) {
        let mut defaults = usual.clone();
        // What fails here fails below again, where it is told.
        if meta_arguments(&self.dockerfile, &mut defaults, &BTreeMap::new(), None).is_err() {
            return;
        }
        for stage in &self.dockerfile.stages {
            let (Ok(base), _) = defaults.expand(&stage.base, self.dockerfile.escape) else { return };
            if base.parse::<Reference>().is_err() {
                let detail =
                    format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
                self.warner.warn(&rules::INVALID_DEFAULT_ARG_IN_FROM, text::from_lines(stage), detail);
            }
        }
    }

    fn from(&mut self, stage: &Stage, names: &BTreeMap<String, usize>) -> Result<Node, Failure> {
        let lines = text::from_lines(stage);
        let escape = self.dockerfile.escape;
        let (base, used) = self.global.expand(&stage.base, escape);
        self.undefined(&used, lines);
        let base = base.map_err(|err| Failure::at(lines, err.to_string()))?;
        if base.is_empty() {
            return Err(Failure::at(lines, format!("base name ({}) should not be blank", stage.base)));
        }
        let mut known = used.known;
        let platform = match stage.platform.as_str() {
            "" => String::new(),
            text => self.platform(stage, text, &mut known)?,
        };
        // A stage is meant in lower case alone, as when it is built.
        let base = match names.get(&base) {
            Some(stage) => Base::Stage(*stage),
            None if base == "scratch" => Base::Scratch,
            None => match base.parse::<Reference>() {
                Ok(_) => Base::Image(WantedImage { name: base, platform }),
                Err(err) => return Err(Failure::at(lines, format!("failed to parse stage name {base:?}: {err}"))),
            },
        };
        let (needs, images) = (Vec::new(), Vec::new());
        Ok(Node { name: stage.name.clone(), lines, base, needs, images, used: known })
    }

    fn platform(&mut self, stage: &Stage, word: &str, known: &mut BTreeSet<String>) -> Result<String, Failure> {
        let lines = text::from_lines(stage);
        let (platform, used) = self.global.expand(word, self.dockerfile.escape);
        self.undefined(&used, lines);
        let platform = platform
            .map_err(|err| self.hinted(&used, lines, format!("failed to process arguments for platform : {err}")))?;
        self.redundant_platform(word, &platform, &used, lines);
        let parsed = platform::parse(&platform);
        if let (Ok(parsed), true) = (&parsed, used.known.is_empty() && used.unknown.is_empty()) {
            self.constant_platform(stage, &platform, parsed);
        }
        if platform.is_empty() {
            return Err(self.hinted(&used, lines, format!("empty platform value from expression {word}")));
        }
        let parsed =
            parsed.map_err(|err| self.hinted(&used, lines, format!("failed to parse platform {word}: {err}")))?;
        known.extend(used.known);
        Ok(parsed)
    }

    /// A failure that one of the unknown names may have led to.
    fn hinted(&self, used: &Used, lines: Lines, message: String) -> Failure {
        let options = self.global.names();
        let meant = used.unknown.iter().find_map(|name| meant(name, &options, true));
        let hint = meant.map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default();
        Failure::at(lines, message + &hint)
    }

    /// Names in a `FROM` that no `ARG` before it has.
    fn undefined(&mut self, used: &Used, lines: Lines) {
        let declared = self.capture.declared();
        let unknown: Vec<&String> = used.unknown.iter().filter(|name| !declared.contains(name.as_str())).collect();
        if unknown.is_empty() {
            return;
        }
        let known = self.global.names();
        let options: BTreeSet<&str> = declared.iter().copied().chain(known).collect();
        let options: Vec<&str> = options.into_iter().collect();
        for name in unknown {
            let meant = self.guesses.meant(name, &options);
            self.warner.warn(&rules::UNDEFINED_ARG_IN_FROM, lines, rules::undefined_arg(name, meant.as_deref()));
        }
    }

    fn redundant_platform(&mut self, word: &str, platform: &str, used: &Used, lines: Lines) {
        let alone = used.known.len() == 1 && used.unknown.is_empty() && used.known.contains("TARGETPLATFORM");
        if alone && self.global.get("TARGETPLATFORM").unwrap_or_default() == platform {
            let detail =
                format!("Setting platform to predefined {word} in FROM is redundant as this is the default behavior");
            self.warner.warn(&rules::REDUNDANT_TARGET_PLATFORM, lines, detail);
        }
    }

    /// A platform that is no variable's: the stage's name has to tell that it is meant.
    fn constant_platform(&mut self, stage: &Stage, written: &str, parsed: &str) {
        let lower = parsed.to_lowercase();
        let (os, rest) = lower.split_once('/').unwrap_or((&lower, &self.request.build_platform[1]));
        let architecture = normal_architecture(rest.split('/').next().unwrap_or_default());
        if !stage.name.contains(os) && !stage.name.contains(architecture) {
            let detail = format!("FROM --platform flag should not use constant value {written:?}");
            self.warner.warn(&rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED, text::from_lines(stage), detail);
        }
    }

    fn find_target(&self, names: &BTreeMap<String, usize>) -> Result<usize, Failure> {
        let target = self.request.target.as_str();
        if target.is_empty() {
            return Ok(self.nodes.len() - 1);
        }
        let by_number = || target.parse().ok().filter(|index| *index < self.nodes.len());
        let found = names.get(&target.to_lowercase()).copied().or_else(by_number);
        found.ok_or_else(|| {
            let own: Vec<String> = (0..self.nodes.len()).map(|index| self.title(index)).collect();
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            let hint = meant(target, &own, true).map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default();
            Failure::new(format!("target stage {target:?} could not be found{hint}"))
        })
    }

    /// What a stage is called where it is told of.
    pub(crate) fn title(&self, index: usize) -> String {
        match self.nodes[index].name.as_str() {
            "" => format!("stage-{index}"),
            name => name.to_owned(),
        }
    }

    /// What stages take files from.
    fn needs(&mut self) -> Result<(), Failure> {
        let named = |node: (usize, &Node)| (!node.1.name.is_empty()).then(|| (node.1.name.clone(), node.0));
        let names: BTreeMap<String, usize> = self.nodes.iter().enumerate().filter_map(named).collect();
        for index in 0..self.nodes.len() {
            for instruction in &self.dockerfile.stages[index].instructions {
                let lines = text::lines(instruction);
                for from in sources(&instruction.kind, self.dockerfile.escape)? {
                    let node = &mut self.nodes[index];
                    match from.parse::<i64>() {
                        Ok(number) => {
                            let stage =
                                usize::try_from(number).ok().filter(|stage| *stage < self.dockerfile.stages.len());
                            let wrong = || Failure::new(format!("invalid stage index {number}"));
                            node.needs.push((stage.ok_or_else(wrong)?, lines));
                        }
                        Err(_) => match names.get(&from.to_lowercase()) {
                            Some(stage) => node.needs.push((*stage, lines)),
                            None if from == "scratch" => {}
                            None => node.images.push((WantedImage { name: from, platform: String::new() }, lines)),
                        },
                    }
                }
            }
        }
        if let Some((stage, lines)) = circle(&self.nodes) {
            let message = format!("circular dependency detected on stage: {}", self.title(stage));
            return Err(Failure::at(lines, message));
        }
        self.reached = reached(&self.nodes, self.target);
        image_names(&self.nodes)
    }

    /// Images have to be for what is built for.
    fn platforms(&mut self, images: &Images) -> Result<(), Failure> {
        let wanted: Vec<(WantedImage, Lines)> = self.wanted().map(|(image, lines)| (image.clone(), lines)).collect();
        for (wanted, lines) in wanted {
            let image = match images.get(&wanted) {
                None => continue,
                Some(Err(sentence)) => return Err(Failure::at(lines, sentence.clone())),
                Some(Ok(image)) => image,
            };
            let expected = match wanted.platform.as_str() {
                "" => self.request.target_platform.clone(),
                text => parts(text, &self.request.build_platform[1]),
            };
            if expected[..2] != image.platform[..2] {
                let (name, actual, expected) = (&wanted.name, whole(&image.platform), whole(&expected));
                let detail = format!(
                    "Base image {name} was pulled with platform {actual:?}, expected {expected:?} for current build"
                );
                self.warner.warn(&rules::INVALID_BASE_IMAGE_PLATFORM, lines, detail);
            }
        }
        Ok(())
    }
}

/// What is taken by a name has to be the name of an image.
fn image_names(nodes: &[Node]) -> Result<(), Failure> {
    for node in nodes {
        let base = match &node.base {
            Base::Image(image) => Some((image, node.lines)),
            Base::Scratch | Base::Stage(_) => None,
        };
        for (image, lines) in base.into_iter().chain(node.images.iter().map(|(image, lines)| (image, *lines))) {
            let named = image.name.parse::<Reference>();
            named.map_err(|err| Failure::at(lines, format!("failed to parse stage name {:?}: {err}", image.name)))?;
        }
    }
    Ok(())
}

fn of_parsing(err: &ParseError) -> Failure {
    Failure::at((err.line(), err.end()), err.to_string())
}

/// `os/architecture[/variant]`.
fn whole(platform: &[String; 3]) -> String {
    platform.join("/").trim_end_matches('/').to_owned()
}

fn parts(text: &str, usual_architecture: &str) -> [String; 3] {
    let mut parts = text.splitn(3, '/').map(str::to_lowercase);
    let os = parts.next().unwrap_or_default();
    let architecture = parts.next().unwrap_or_else(|| usual_architecture.to_owned());
    [os, normal_architecture(&architecture).to_owned(), parts.next().unwrap_or_default()]
}

/// Go's name of an architecture that has several (containerd platforms, database.go).
fn normal_architecture(name: &str) -> &str {
    match name {
        "i386" => "386",
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "armhf" | "armel" => "arm",
        other => other,
    }
}

/// Takes the arguments before the first stage.
fn meta_arguments(
    dockerfile: &Dockerfile,
    variables: &mut Variables,
    given: &BTreeMap<String, String>,
    mut capture: Option<&mut Capture>,
) -> Result<(), Failure> {
    for instruction in &dockerfile.arguments {
        let lines = text::lines(instruction);
        let Kind::Arg(args) = &instruction.kind else { continue };
        for arg in args {
            let (value, used) = meta_value(arg, variables, given, dockerfile.escape, lines)?;
            if let Some(value) = &value {
                variables.set(&arg.name, value);
                walk::bounded(variables, lines)?;
            }
            if let Some(capture) = &mut capture {
                capture.declare(outline::Argument::new(arg, value, used, &instruction.comments, lines));
            }
        }
    }
    Ok(())
}

fn meta_value(
    arg: &Arg,
    variables: &Variables,
    given: &BTreeMap<String, String>,
    escape: Escape,
    lines: Lines,
) -> Result<(Option<String>, BTreeSet<String>), Failure> {
    match (given.get(&arg.name), &arg.default) {
        (Some(value), _) => Ok((Some(value.clone()), BTreeSet::new())),
        (None, None) => Ok((None, BTreeSet::new())),
        (None, Some(default)) => {
            let (value, used) = variables.expand(default, escape);
            Ok((Some(value.map_err(|err| Failure::at(lines, err.to_string()))?), used.known))
        }
    }
}

/// What an instruction takes files from.
fn sources(kind: &Kind, escape: Escape) -> Result<Vec<String>, Failure> {
    match kind {
        Kind::Copy(files) if !files.from.is_empty() => {
            let (expanded, _) = Variables::default().expand(&files.from, escape);
            match expanded.map_err(|err| Failure::new(err.to_string()))? {
                same if same == files.from => Ok(vec![same]),
                _ => Err(Failure::new(
                    "variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
                     scope as a workaround",
                )),
            }
        }
        Kind::Run(run) => {
            let from = run.mounts.iter().map(|mount| mount.from.clone());
            Ok(from.filter(|from| !from.is_empty()).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// A stage that needs itself, if there is one, and where.
fn circle(nodes: &[Node]) -> Option<(usize, Lines)> {
    // Not looked at yet, on the way, done.
    let mut marks = vec![0u8; nodes.len()];
    for first in 0..nodes.len() {
        let mut way: Vec<(usize, usize)> = if marks[first] == 0 { vec![(first, 0)] } else { Vec::new() };
        while let Some((node, next)) = way.last_mut() {
            marks[*node] = 1;
            let Some((need, lines)) = nodes[*node].needs.get(*next) else {
                marks[*node] = 2;
                way.pop();
                continue;
            };
            *next += 1;
            match marks[*need] {
                0 => way.push((*need, 0)),
                1 => return Some((first, *lines)),
                _ => {}
            }
        }
    }
    None
}

/// The stages that a stage needs, with itself.
fn reached(nodes: &[Node], target: usize) -> BTreeSet<usize> {
    let (mut reached, mut todo) = (BTreeSet::new(), vec![target]);
    while let Some(index) = todo.pop() {
        if !reached.insert(index) {
            continue;
        }
        if let Base::Stage(base) = nodes[index].base {
            todo.push(base);
        }
        todo.extend(nodes[index].needs.iter().map(|(need, _)| *need));
    }
    reached
}
