//! A stage on its way through its instructions.

use std::collections::BTreeSet;

use container_spec::signal::parse_signal;
use dockerfile::{
    Arg, CommandLine, Fault, Files, GitAddress, HealthCheck, InlineFile, Instruction, Kind, Run, RunNetwork,
    expand_words,
};
use engine_api::container::Config;
use engine_api::paths::clean;
use errdefs::ErrorKind;
use oci::image::{Empty, ExecConfig, Healthcheck};

use crate::args::{Arguments, VALUES_MAX};
use crate::go;
use crate::modes::Modes;
use crate::mounts::{self, MountError, RunMount};
use crate::ports::{PortError, exposed};

/// What commands find programs in where an image does not say (moby oci/defaults).
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the files of a command appear that are written in the Dockerfile.
pub const SCRIPTS: &str = "/dev/pipes";

/// Words of one `EXPOSE`: there are no more ports.
const PORTS_MAX: usize = 65_536;

/// Why an instruction cannot be carried out. The sentences are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A variable cannot be replaced, or an instruction of a base image not be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// It is none of ours yet.
    #[error(
        "the --{0} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images \
         with BuildKit enabled"
    )]
    Option(&'static str),
    /// Something cannot be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A port is none.
    #[error("{why}")]
    Port {
        /// As it is written.
        word: String,
        /// Why.
        why: PortError,
    },
    /// A signal is none.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// Permission bits are none.
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Mode(String),
    /// What a download must be is said wrongly, or of no download. BuildKit's sentences.
    #[error("{0}")]
    Checksum(&'static str),
    /// Nothing is run. BuildKit's sentence.
    #[error("failed to marshal LLB definition: arguments are required")]
    NoArguments,
    /// A command is no text. BuildKit's sentence.
    #[error("failed to marshal LLB definition: string field contains invalid UTF-8")]
    NoText,
    /// There is no working directory.
    #[error("cannot normalize nothing")]
    NoDirectory,
    /// A volume has no place.
    #[error("VOLUME specified can not be an empty string")]
    BlankVolume,
}

impl StepError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// A stage so far.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// What an image of it says of its containers.
    pub config: Config,
    /// Who maintains it.
    pub author: String,
    /// The arguments that it knows.
    pub arguments: Arguments,
    /// Whether it is built as BuildKit does, where dockerd's classic builder does something else.
    pub buildkit: bool,
    /// The arguments that count instead of the variable of their name: with BuildKit the later of both does.
    later: BTreeSet<String>,
    escape: char,
    /// A command that came before its entry point stays.
    command_set: bool,
}

/// What follows from an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What history says of it; of [`Operation::Copy`] without what its files are.
    pub words: Vec<String>,
    /// What is done with files.
    pub operation: Operation,
    /// What the user is told.
    pub note: Option<String>,
}

/// What is done with files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Nothing.
    None,
    /// A directory is made, unless it is there.
    MakeDirectory(String),
    /// Something is run.
    Run(RunStep),
    /// Files are copied.
    Copy {
        /// Which, and where to.
        files: Box<Files>,
        /// Whether archives are unpacked, and downloads made.
        add: bool,
    },
}

/// Something that is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunStep {
    /// The words; of none the image's command runs.
    pub command: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// With which network.
    pub network: RunNetwork,
    /// A file that has to be at [`SCRIPTS`] meanwhile.
    pub script: Option<InlineFile>,
    /// What is mounted meanwhile.
    pub mounts: Vec<RunMount>,
}

impl Stage {
    /// A stage that begins with an image that says so; answers the instructions that it asks for.
    pub fn begin(base: &ExecConfig, buildkit: bool, arguments: Arguments, escape: char) -> (Stage, Vec<String>) {
        let mut config = Config {
            user: base.user.clone(),
            exposed_ports: base.exposed_ports.clone(),
            env: base.env.clone(),
            entrypoint: base.entrypoint.clone(),
            cmd: base.cmd.clone(),
            volumes: base.volumes.clone(),
            working_dir: base.working_dir.clone(),
            labels: base.labels.clone(),
            stop_signal: base.stop_signal.clone(),
            args_escaped: base.args_escaped,
            healthcheck: base.healthcheck.clone(),
            shell: base.shell.clone(),
            ..Config::default()
        };
        let env = config.env.get_or_insert_default();
        if !env.iter().any(|entry| entry.split('=').next() == Some("PATH")) {
            env.push(PATH.to_owned());
        }
        let triggers = base.on_build.clone().unwrap_or_default();
        (Stage { config, arguments, buildkit, escape, ..Stage::default() }, triggers)
    }

    /// A stage that begins with this one's image.
    pub(crate) fn child(&self) -> Stage {
        let config = Config { on_build: None, ..self.config.clone() };
        let (arguments, buildkit, escape) = (self.arguments.for_child(), self.buildkit, self.escape);
        Stage { config, arguments, buildkit, escape, ..Stage::default() }
    }

    /// About how many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        let env = self.config.env.iter().flatten().map(String::len).sum::<usize>();
        let labels = self.config.labels.iter().flatten().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.arguments.stage_bytes() + env + labels
    }

    /// Takes an instruction. `literal` is one whose variables are none.
    pub fn step(&mut self, instruction: &Instruction, literal: bool) -> Result<Step, StepError> {
        let instruction = match literal {
            true => instruction.clone(),
            false => instruction.expand(self.escape, &|name| self.value(name))?,
        };
        let mut note = None;
        let comment = match instruction.kind {
            Kind::Run(run) => return self.run(run),
            Kind::Add(files) => return self.copy(files, true),
            Kind::Copy(files) => return self.copy(files, false),
            Kind::Workdir(path) => return self.workdir(&path),
            Kind::Env(pairs) => self.env(pairs.into_iter().map(|pair| (pair.name, pair.value))),
            Kind::Label(pairs) => {
                let mut comment = "LABEL".to_owned();
                for pair in pairs {
                    comment.push_str(&format!(" {}={}", pair.name, pair.value));
                    self.config.labels.get_or_insert_default().insert(pair.name, pair.value);
                }
                comment
            }
            Kind::Arg(args) => {
                let told = args.iter().map(|arg| match &arg.default {
                    Some(value) => format!("{}={value}", arg.name),
                    None => arg.name.clone(),
                });
                let comment = format!("ARG {}", told.collect::<Vec<_>>().join(" "));
                args.iter().for_each(|arg| self.arg(arg));
                comment
            }
            Kind::Cmd(line) => self.cmd(&line),
            Kind::Entrypoint(line) => self.entrypoint(&line),
            Kind::Expose(words) => self.expose(&words)?,
            Kind::HealthCheck(check) => {
                note = self.overridden_check();
                self.health_check(check)
            }
            Kind::Maintainer(name) => {
                self.author.clone_from(&name);
                format!("MAINTAINER {name}")
            }
            Kind::OnBuild(trigger) => {
                let comment = format!("ONBUILD {trigger}");
                self.config.on_build.get_or_insert_default().push(trigger);
                comment
            }
            Kind::Shell(words) => {
                let comment = format!("SHELL {}", go::list(&words));
                self.config.shell = Some(words);
                comment
            }
            Kind::StopSignal(signal) => {
                parse_signal(&signal).ok_or_else(|| StepError::Signal(signal.clone()))?;
                self.config.stop_signal.clone_from(&signal);
                format!("STOPSIGNAL {signal}")
            }
            Kind::User(user) => {
                self.config.user.clone_from(&user);
                format!("USER {user}")
            }
            Kind::Volume(places) => self.volumes(&places)?,
        };
        self.check_values()?;
        Ok(Step { words: self.nop([String::from("#(nop) "), comment]), operation: Operation::None, note })
    }

    /// Refuses values that only grow by each other.
    fn check_values(&self) -> Result<(), Fault> {
        self.arguments.check()?;
        let env = self.config.env.iter().flatten().map(String::len).sum::<usize>();
        if env > VALUES_MAX { Err(Fault::TooLong) } else { Ok(()) }
    }

    /// What a variable is in the next instruction.
    pub fn value(&self, name: &str) -> Option<String> {
        if self.later.contains(name) {
            return self.arguments.get(name);
        }
        let own = self.config.env.iter().flatten().rev().find_map(|entry| {
            let (own, value) = entry.split_once('=').unwrap_or((entry, ""));
            (own == name).then(|| value.to_owned())
        });
        own.or_else(|| self.arguments.get(name))
    }

    fn arg(&mut self, arg: &Arg) {
        if !self.buildkit {
            self.arguments.add(arg);
        } else if self.arguments.add_value(arg) {
            self.later.insert(arg.name.clone());
        }
    }

    fn shell(&self) -> Vec<String> {
        let own = self.config.shell.clone().filter(|shell| !shell.is_empty());
        own.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
    }

    /// What history says of something that was not run.
    pub fn nop(&self, words: impl IntoIterator<Item = String>) -> Vec<String> {
        self.shell().into_iter().chain(words).collect()
    }

    fn env(&mut self, pairs: impl Iterator<Item = (String, String)>) -> String {
        let mut comment = "ENV".to_owned();
        for (name, value) in pairs {
            let text = format!("{name}={value}");
            comment.push_str(&format!(" {text}"));
            self.later.remove(&name);
            let own = self.config.env.get_or_insert_default();
            match own.iter_mut().find(|entry| entry.split('=').next() == Some(&name)) {
                Some(entry) => *entry = text,
                None => own.push(text),
            }
        }
        comment
    }

    /// The words of a command; `alone` is whether one of nothing is the shell alone, which BuildKit gives an empty word.
    fn command(&self, line: &CommandLine, alone: bool) -> Vec<String> {
        match (line.shell, line.words.is_empty()) {
            (true, false) => self.nop(line.words.iter().cloned()),
            (true, true) if alone => self.nop(self.buildkit.then(String::new)),
            _ => line.words.clone(),
        }
    }

    fn cmd(&mut self, line: &CommandLine) -> String {
        let words = self.command(line, true);
        let comment = format!("CMD {}", go::quote_list(&words));
        self.config.cmd = Some(words);
        self.command_set |= !line.words.is_empty();
        comment
    }

    fn entrypoint(&mut self, line: &CommandLine) -> String {
        let words = self.command(line, self.buildkit);
        let comment = format!("ENTRYPOINT {}", go::quote_list(&words));
        self.config.entrypoint = Some(words).filter(|words| !words.is_empty());
        if !self.command_set {
            self.config.cmd = None;
        }
        comment
    }

    fn expose(&mut self, words: &[String]) -> Result<String, StepError> {
        let mut ports = Vec::new();
        for word in words {
            ports.extend(expand_words(word, self.escape, &|name| self.value(name))?);
            if ports.len() > PORTS_MAX {
                return Err(Fault::TooLong.into());
            }
        }
        for port in &ports {
            let own = self.config.exposed_ports.get_or_insert_default();
            let ports = exposed(port).map_err(|why| StepError::Port { word: port.clone(), why })?;
            own.extend(ports.into_iter().map(|port| (port, Empty {})));
        }
        Ok(format!("EXPOSE {}", ports.join(" ")))
    }

    fn overridden_check(&self) -> Option<String> {
        let test = self.config.healthcheck.as_ref()?.test.as_ref()?;
        let is_one = test.first().is_some_and(|kind| kind != "NONE");
        is_one.then(|| format!("Note: overriding previous HEALTHCHECK: {}\n", go::list(test)))
    }

    fn health_check(&mut self, check: HealthCheck) -> String {
        let times = [check.interval, check.timeout, check.start_period, check.start_interval].map(go::duration);
        let comment = format!("HEALTHCHECK &{{{} {} {}}}", go::list(&check.test), times.join(" "), check.retries);
        self.config.healthcheck = Some(Healthcheck {
            test: Some(check.test),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        });
        comment
    }

    fn volumes(&mut self, places: &[String]) -> Result<String, StepError> {
        if places.iter().any(String::is_empty) {
            return Err(StepError::BlankVolume);
        }
        let own = self.config.volumes.get_or_insert_default();
        own.extend(places.iter().map(|place| (place.clone(), Empty {})));
        Ok(format!("VOLUME {}", go::list(places)))
    }

    fn workdir(&mut self, path: &str) -> Result<Step, StepError> {
        self.config.working_dir = match path {
            // With BuildKit it is the one that it was.
            "" if self.buildkit => clean(&format!("/{}", self.config.working_dir)),
            "" => return Err(StepError::NoDirectory),
            path if path.starts_with('/') => path.to_owned(),
            path => clean(&format!("/{}/{path}", self.config.working_dir)),
        };
        let place = self.config.working_dir.clone();
        let words = self.nop([format!("#(nop) WORKDIR {place}")]);
        Ok(Step { words, operation: Operation::MakeDirectory(clean(&place)), note: None })
    }

    fn run(&self, run: Run) -> Result<Step, StepError> {
        let (mounts, variables) = mounts::plan(&run.mounts, &self.config.working_dir)?;
        for flag in ["security", "device"] {
            if run.flags.iter().any(|own| own == flag) && (run.insecure || flag == "device") {
                return Err(StepError::Option(flag));
            }
        }
        let (line, script) = with_files(run.command);
        let command = self.command(&line, true);
        if command.is_empty() && self.buildkit {
            return Err(StepError::NoArguments);
        }
        let mut env = self.config.env.clone().unwrap_or_default();
        env.retain(|entry| !self.later.contains(entry.split('=').next().unwrap_or_default()));
        let arguments = self.arguments.environment(&env);
        let mut words = command.clone();
        if !arguments.is_empty() {
            let told: Vec<String> = arguments.iter().filter(|entry| self.arguments.counts(entry)).cloned().collect();
            words = [format!("|{}", told.len())].into_iter().chain(told).chain(words).collect();
        }
        let env = env.into_iter().chain(arguments).chain(variables).collect();
        let operation = Operation::Run(RunStep { command, env, network: run.network, script, mounts });
        Ok(Step { words, operation, note: None })
    }

    fn copy(&self, mut files: Files, add: bool) -> Result<Step, StepError> {
        if !files.checksum.is_empty() {
            check_checksum(&files)?;
        }
        if !files.chmod.is_empty() {
            Modes::parse(&files.chmod).map_err(|_| StepError::Mode(files.chmod.clone()))?;
        }
        let whole = self.absolute(&files.destination);
        let told = std::mem::replace(&mut files.destination, whole);
        let name = if add { "ADD" } else { "COPY" };
        let words = self.nop([format!("#(nop) {name} "), format!(" in {told} ")]);
        Ok(Step { words, operation: Operation::Copy { files: Box::new(files), add }, note: None })
    }

    /// From the root, with the end that asks for a directory.
    fn absolute(&self, place: &str) -> String {
        let is_directory = place.ends_with('/') || place.ends_with("/.") || matches!(place, "." | "..");
        let whole = match place.starts_with('/') {
            true => clean(place),
            false => clean(&format!("/{}/{place}", self.config.working_dir)),
        };
        if is_directory && whole != "/" { whole + "/" } else { whole }
    }
}

/// Whether what is said of a download can be.
fn check_checksum(files: &Files) -> Result<(), StepError> {
    let is_url = |source: &String| source.starts_with("http://") || source.starts_with("https://");
    match &files.sources[..] {
        // Of a repository it is the name of a commit, which is looked at where that is known.
        [source] if !matches!(GitAddress::parse(source), Ok(None)) => return Ok(()),
        [source] if is_url(source) => {}
        [_] => return Err(StepError::Checksum("checksum requires HTTP(S) or Git sources")),
        _ => return Err(StepError::Checksum("checksum can't be specified for multiple sources")),
    }
    match files.checksum.parse::<oci::Digest>() {
        Ok(_) if files.checksum.starts_with("sha256:") => Ok(()),
        Ok(_) => Err(StepError::Checksum("unsupported digest algorithm")),
        Err(_) => Err(StepError::Checksum(match files.checksum.split_once(':') {
            Some(("sha256", sum)) if !matches!(sum.len(), 0 | 64) => "invalid checksum digest length",
            _ => "invalid checksum digest format",
        })),
    }
}

/// A command with its heredocs: as BuildKit reads them.
fn with_files(mut line: CommandLine) -> (CommandLine, Option<InlineFile>) {
    let files = std::mem::take(&mut line.files);
    let ([word], Some(first)) = (&mut line.words[..], files.first()) else { return (line, None) };
    let alone = word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with("<<") && files.len() == 1;
    let alone = alone && word.split_whitespace().count() == 1;
    match alone {
        true if first.text.starts_with("#!") => {
            line.words = vec![format!("{SCRIPTS}/{}", first.name)];
            line.shell = false;
            (line, Some(first.clone()))
        }
        true => {
            *word = first.text.clone();
            (line, None)
        }
        // The shell reads them, and knows which tabs do not count.
        false => {
            for file in &files {
                word.push_str(&format!("\n{}{}", file.raw, file.name));
            }
            (line, None)
        }
    }
}

#[cfg(test)]
mod tests;
