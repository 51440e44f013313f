//! What follows from one instruction after the other.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use dockerfile::{CommandLine, Fault, Files, Instruction, Kind, Pair, expand_words, parse_trigger};

use crate::documents::Outline;
use crate::outline::{Argument, Capture, comment, outline};
use crate::report::{Failure, Lines};
use crate::stages::{Base, Checking, Images};
use crate::variables::{Used, Variables};
use crate::{rules, text};

/// What programs are found by where an image does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest environment of a stage, in bytes: no kernel starts a program with more.
const VARIABLES_MAX: usize = 4 << 20;

/// How much is copied from one stage to the next in all, in bytes.
const COPIED_MAX: usize = 64 << 20;

/// Arguments that are no variables.
const NO_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Where words of names are that nobody should read.
const SECRETS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// What a stage has come to.
#[derive(Clone, Debug, Default)]
struct State {
    /// What instructions see.
    variables: Variables,
    /// What of it the image has.
    environment: Variables,
    /// All arguments, with and without a value.
    arguments: BTreeSet<String>,
    has_shell: bool,
    has_directory: bool,
    on_build: Vec<String>,
    capture: Capture,
}

/// A stage on its way, with what only one of an instruction counts of.
struct Walk<'a> {
    checking: &'a mut Checking,
    state: State,
    stage: usize,
    command: Option<Lines>,
    entrypoint: Option<Lines>,
    health_check: Option<Lines>,
}

/// Walks through all stages that count; answers what the target takes.
pub(crate) fn all(checking: &mut Checking, images: &Images) -> Result<Outline, Failure> {
    let mut states: BTreeMap<usize, State> = BTreeMap::new();
    let mut copied = 0;
    for stage in 0..checking.nodes.len() {
        if !checking.counts(stage) {
            continue;
        }
        let lines = checking.nodes[stage].lines;
        let (state, on_build) = begin(checking, stage, images, &states);
        copied += state.variables.bytes + state.environment.bytes + state.capture.bytes;
        if copied > COPIED_MAX {
            return Err(Failure::at(lines, Fault::TooLong.to_string()));
        }
        let mut walk = Walk { checking, state, stage, command: None, entrypoint: None, health_check: None };
        for trigger in &on_build {
            let parsed = parse_trigger(trigger).map_err(|err| Failure::at(lines, err.to_string()))?;
            walk.instruction(&Instruction { line: lines.0, end: lines.1, ..parsed })?;
        }
        let instructions = std::mem::take(&mut walk.checking.dockerfile.stages[stage].instructions);
        let until = walk.checking.until;
        let mut looked_at = instructions.iter().filter(|instruction| instruction.line <= until);
        let walked = looked_at.try_for_each(|instruction| walk.instruction(instruction));
        let state = walk.state;
        checking.dockerfile.stages[stage].instructions = instructions;
        walked?;
        states.insert(stage, state);
    }
    Ok(of_target(checking, &states))
}

/// What the target and all that it needs take.
fn of_target(checking: &Checking, states: &BTreeMap<usize, State>) -> Outline {
    let target = &checking.dockerfile.stages[checking.target];
    let others = checking.reached.iter().filter(|stage| **stage != checking.target);
    let captures =
        std::iter::once(&checking.target).chain(others).filter_map(|stage| Some(&states.get(stage)?.capture));
    let captures: Vec<&Capture> = captures.collect();
    let description = comment(&target.comments, &target.name);
    outline(&target.name, description, &checking.request.text, &captures)
}

/// What a stage begins with, and what that asks for.
fn begin(checking: &Checking, stage: usize, images: &Images, states: &BTreeMap<usize, State>) -> (State, Vec<String>) {
    let (mut state, mut on_build) = (State::default(), Vec::new());
    match &checking.nodes[stage].base {
        Base::Stage(base) => {
            state = states.get(base).cloned().unwrap_or_default();
            on_build = std::mem::take(&mut state.on_build);
        }
        Base::Scratch => state.capture = checking.capture.clone(),
        Base::Image(wanted) => {
            state.capture = checking.capture.clone();
            if let Some(Ok(image)) = images.get(wanted) {
                for entry in &image.env {
                    let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
                    state.environment.set(name, value);
                }
                state.has_shell = image.has_shell;
                on_build.clone_from(&image.on_build);
            }
        }
    }
    // Stages that nothing needs are not asked what they ask for.
    if !checking.reached.contains(&stage) {
        on_build.clear();
    }
    if state.environment.get("PATH").is_none() {
        state.environment.set("PATH", PATH);
    }
    for name in state.environment.names() {
        state.variables.set(name, &state.environment.get(name).unwrap_or_default());
    }
    checking.nodes[stage].used.iter().for_each(|name| state.capture.uses(name));
    (state, on_build)
}

/// Refuses variables that only grow by each other.
pub(crate) fn bounded(variables: &Variables, lines: Lines) -> Result<(), Failure> {
    match variables.bytes > VARIABLES_MAX {
        true => Err(Failure::at(lines, Fault::TooLong.to_string())),
        false => Ok(()),
    }
}

impl Walk<'_> {
    fn instruction(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        let lines = text::lines(instruction);
        if let Kind::Arg(_) = &instruction.kind {
            self.arg(instruction)?;
            return bounded(&self.state.variables, lines);
        }
        let expanded = self.expanded(instruction)?;
        let name = &instruction.name;
        match &expanded.kind {
            Kind::Env(pairs) => self.env(name, pairs, lines),
            Kind::Label(pairs) => self.legacy(name, pairs, lines),
            Kind::Workdir(path) => self.workdir(path, lines),
            Kind::Cmd(line) => {
                let before = self.command.replace(lines);
                self.command(name, before, line, lines);
            }
            Kind::Entrypoint(line) => {
                let before = self.entrypoint.replace(lines);
                self.command(name, before, line, lines);
            }
            Kind::HealthCheck(_) => {
                let before = self.health_check.replace(lines);
                self.once(name, before);
            }
            Kind::Shell(words) => self.state.has_shell = !words.is_empty(),
            Kind::OnBuild(trigger) => self.state.on_build.push(trigger.clone()),
            Kind::Add(files) => self.ignored("Add", files, lines),
            Kind::Copy(files) => self.copy(files, lines)?,
            Kind::Expose(words) => self.expose(words, lines)?,
            Kind::Volume(places) if places.iter().any(String::is_empty) => {
                return Err(Failure::at(lines, "VOLUME specified can not be an empty string"));
            }
            Kind::Run(run) => run.mounts.iter().for_each(|mount| self.state.capture.mount(mount, lines)),
            _ => {}
        }
        bounded(&self.state.variables, lines)
    }

    /// An instruction with its variables, of which some may be undefined.
    fn expanded(&mut self, instruction: &Instruction) -> Result<Instruction, Failure> {
        let (words, used) = (RefCell::new(Vec::new()), RefCell::new(Used::default()));
        let variables = &self.state.variables;
        let lookup = |name: &str| {
            let value = variables.get(name);
            used.borrow_mut().add(name, value.is_some());
            value
        };
        let behind = || words.borrow_mut().push(std::mem::take(&mut *used.borrow_mut()));
        let expanded = match instruction.kind {
            // Its words are looked at below.
            Kind::Expose(_) => Ok(instruction.clone()),
            _ => instruction.expand_watched(self.checking.dockerfile.escape, &lookup, &behind),
        };
        let lines = text::lines(instruction);
        for used in words.into_inner() {
            self.undefined(&used, lines);
        }
        expanded.map_err(|err| Failure::at(lines, err.to_string()))
    }

    /// Variables of a word that nobody has set.
    fn undefined(&mut self, used: &Used, lines: Lines) {
        let is_known = |name: &str| self.state.arguments.contains(name) || NO_VARIABLES.contains(&name);
        let unknown: Vec<&String> = used.unknown.iter().filter(|name| !is_known(name)).collect();
        if unknown.is_empty() {
            return;
        }
        let options = self.state.variables.names();
        for name in unknown {
            let meant = self.checking.guesses.meant(name, &options);
            let detail = rules::undefined_variable(name, meant.as_deref());
            self.checking.warner.warn(&rules::UNDEFINED_VAR, lines, detail);
        }
    }

    fn legacy(&mut self, name: &str, pairs: &[Pair], lines: Lines) {
        for _ in pairs.iter().filter(|pair| pair.is_legacy) {
            self.checking.warner.warn(&rules::LEGACY_KEY_VALUE_FORMAT, lines, rules::legacy(name));
        }
    }

    fn env(&mut self, name: &str, pairs: &[Pair], lines: Lines) {
        for pair in pairs {
            self.legacy(name, std::slice::from_ref(pair), lines);
            self.secret("ENV", &pair.name, lines);
            self.state.variables.set(&pair.name, &pair.value);
            self.state.environment.set(&pair.name, &pair.value);
        }
    }

    /// Names of what everybody can read in an image should not tell a secret.
    fn secret(&mut self, instruction: &str, name: &str, lines: Lines) {
        let has = |words: &[&str]| name.split('_').any(|own| words.iter().any(|word| own.eq_ignore_ascii_case(word)));
        if has(&SECRETS) && !has(&["public"]) {
            self.checking.warner.warn(&rules::SECRETS_USED_IN_ARG_OR_ENV, lines, rules::secret(instruction, name));
        }
    }

    fn arg(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        let lines = text::lines(instruction);
        let Kind::Arg(args) = &instruction.kind else { return Ok(()) };
        for arg in args {
            self.secret("ARG", &arg.name, lines);
            let given = self.checking.request.arguments.get(&arg.name).cloned();
            let inherited = match (&given, &arg.default) {
                (None, None) => self.checking.global.get(&arg.name),
                _ => None,
            };
            let is_inherited = inherited.is_some();
            let value = match (given.or(inherited), &arg.default) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => {
                    let (value, used) = self.state.variables.expand(default, self.checking.dockerfile.escape);
                    self.undefined(&used, lines);
                    Some(value.map_err(|err| Failure::at(lines, err.to_string()))?)
                }
                (None, None) => None,
            };
            if let Some(value) = &value
                && !NO_VARIABLES.contains(&arg.name.as_str())
            {
                self.state.variables.set(&arg.name, value);
            }
            if !is_inherited {
                let argument = Argument::new(arg, value, BTreeSet::new(), &instruction.comments, lines);
                self.state.capture.declare(argument);
            }
            self.state.capture.uses(&arg.name);
            self.state.arguments.insert(arg.name.clone());
        }
        Ok(())
    }

    fn workdir(&mut self, path: &str, lines: Lines) {
        if !self.state.has_directory && !path.starts_with('/') {
            let detail = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            self.checking.warner.warn(&rules::WORKDIR_RELATIVE_PATH, lines, detail);
        }
        self.state.has_directory = true;
    }

    /// Of several the last one counts; told are those that do not.
    fn once(&mut self, name: &str, before: Option<Lines>) {
        if let Some(before) = before {
            self.checking.warner.warn(&rules::MULTIPLE_INSTRUCTIONS_DISALLOWED, before, rules::several(name));
        }
    }

    fn command(&mut self, name: &str, before: Option<Lines>, line: &CommandLine, lines: Lines) {
        self.once(name, before);
        if line.shell && !self.state.has_shell {
            self.checking.warner.warn(&rules::JSON_ARGS_RECOMMENDED, lines, rules::json_recommended(name));
        }
    }

    fn copy(&mut self, files: &Files, lines: Lines) -> Result<(), Failure> {
        if files.from.is_empty() {
            self.ignored("Copy", files, lines);
            return Ok(());
        }
        let needs = &self.checking.nodes[self.stage].needs;
        match needs.iter().find(|(need, own)| *own == lines && *need >= self.stage) {
            None => Ok(()),
            Some(_) => {
                let (from, stage) = (&files.from, self.checking.title(self.stage));
                let sentence = "it needs to be defined before current stage";
                Err(Failure::at(lines, format!("cannot copy from stage {from:?}, {sentence} {stage:?}")))
            }
        }
    }

    fn ignored(&mut self, verb: &str, files: &Files, lines: Lines) {
        for source in files.sources.iter().filter(|source| !is_remote(source)) {
            if self.checking.request.ignore.exclude(source) {
                let detail = format!("Attempting to {verb} file {source:?} that is excluded by .dockerignore");
                self.checking.warner.warn(&rules::COPY_IGNORED_FILE, lines, detail);
            }
        }
    }

    fn expose(&mut self, words: &[String], lines: Lines) -> Result<(), Failure> {
        for word in words {
            let variables = &self.state.variables;
            let ports = expand_words(word, self.checking.dockerfile.escape, &|name| variables.get(name));
            for port in ports.map_err(|err| Failure::at(lines, err.to_string()))? {
                self.port(&port, lines)?;
            }
        }
        Ok(())
    }

    /// `[address:][host port:]port[/protocol]`, of which the first two are not wanted.
    fn port(&mut self, word: &str, lines: Lines) -> Result<(), Failure> {
        let (host, container) = word.rsplit_once(':').unwrap_or(("", word));
        let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
        let wrong = |what: String| Failure::at(lines, format!("invalid port: {word:?}: {what}"));
        if port.is_empty() {
            return Err(wrong("no port specified".to_owned()));
        }
        if !matches!(protocol.to_lowercase().as_str(), "" | "tcp" | "udp" | "sctp") {
            return Err(wrong(format!("invalid proto: {protocol}")));
        }
        if protocol != protocol.to_lowercase() {
            let detail = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
            self.checking.warner.warn(&rules::EXPOSE_PROTO_CASING, lines, detail);
        }
        if !host.trim_matches(':').is_empty() {
            let detail =
                format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'");
            self.checking.warner.warn(&rules::EXPOSE_INVALID_FORMAT, lines, detail);
        }
        match is_range(port) {
            true => Ok(()),
            false => Err(Failure::at(lines, format!("invalid containerPort: {port}"))),
        }
    }
}

/// `80`, `80-90`.
fn is_range(text: &str) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => first <= last,
        _ => false,
    }
}

/// Whether a source is no path.
fn is_remote(source: &str) -> bool {
    source.contains("://") || source.starts_with("git@") || source.starts_with("github.com/")
}
