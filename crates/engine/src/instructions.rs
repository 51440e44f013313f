//! The instructions of a Dockerfile that change an image's configuration and nothing else: what `commit` and `import` take
//! in `--change`. Pure.
//!
//! Read as dockerd reads them (moby `frontend/dockerfile`): comments, lines that go on behind a backslash, quotes, and the
//! variables of the configuration in words.

mod words;

use std::collections::BTreeMap;

use engine_api::container::Config;
use engine_api::paths::clean;
use engine_api::ports;
use errdefs::ErrorKind;
use oci::image::{Empty, Healthcheck};

use words::{Words, expand, json_list, split_words};

/// Why an instruction is refused. The texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstructionError {
    /// It does something else, or nothing that is known.
    #[error("{0} is not a valid change command")]
    Unknown(String),
    /// It lacks its words.
    #[error("{0} requires at least one argument")]
    NoArgument(&'static str),
    /// It takes one word, no more and no less.
    #[error("{0} requires exactly one argument")]
    OneArgument(&'static str),
    /// A name without a value.
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    /// A word that is no pair.
    #[error("Syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    NoPair(String),
    /// A value without a name.
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// A volume without a place.
    #[error("VOLUME specified can not be an empty string")]
    BlankVolume,
    /// A port's protocol is none.
    #[error("Invalid proto: {0}")]
    Protocol(String),
    /// A port is none.
    #[error("Invalid containerPort: {0}")]
    Port(String),
    /// A range of ports is none.
    #[error("Invalid range format for containerPort: {0}")]
    PortRange(String),
    /// A signal is none.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// A trigger within a trigger.
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnBuildChain,
    /// A trigger that makes no sense.
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnBuild(String),
    /// A health check without a command.
    #[error("Missing command after HEALTHCHECK {0}")]
    NoCheck(String),
    /// A health check of an unknown kind.
    #[error("Unknown type {0:?} in HEALTHCHECK (try CMD)")]
    CheckKind(String),
    /// More than NONE.
    #[error("HEALTHCHECK NONE takes no arguments")]
    NoneArguments,
    /// A flag that is none.
    #[error("unknown flag: --{0}")]
    Flag(String),
    /// A flag's value is none.
    #[error("invalid value {value:?} for the flag --{flag}")]
    FlagValue {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
    },
    /// A quote or a brace that does not end.
    #[error("unexpected end of statement while looking for matching {0}")]
    Unended(&'static str),
    /// A variable in a form that is unknown.
    #[error("unsupported modifier in substitution")]
    Modifier,
}

impl InstructionError {
    /// The caller's mistake.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// Applies instructions, in order, to a configuration.
pub(crate) fn apply(changes: &[String], config: &mut Config) -> Result<(), InstructionError> {
    let lines = lines(&changes.join("\n"));
    let parsed: Vec<(String, String)> = lines.iter().map(|line| instruction(line)).collect();
    if let Some((name, _)) = parsed.iter().find(|(name, _)| !KNOWN.contains(&name.to_uppercase().as_str())) {
        return Err(InstructionError::Unknown(name.clone()));
    }
    let mut applying = Applying { config, command_set: false };
    parsed.iter().try_for_each(|(name, rest)| applying.one(&name.to_uppercase(), rest))
}

const KNOWN: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Whole lines, without comments.
fn lines(text: &str) -> Vec<String> {
    let (mut whole, mut open) = (Vec::new(), String::new());
    for line in text.lines() {
        let bare = line.trim();
        if bare.starts_with('#') || (bare.is_empty() && open.is_empty()) {
            continue;
        }
        match line.trim_end().strip_suffix('\\') {
            Some(part) => open.push_str(part),
            None => {
                open.push_str(line);
                whole.push(std::mem::take(&mut open).trim().to_owned());
            }
        }
    }
    if !open.trim().is_empty() {
        whole.push(open.trim().to_owned());
    }
    whole
}

fn instruction(line: &str) -> (String, String) {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (name.to_owned(), rest.trim().to_owned())
}

struct Applying<'a> {
    config: &'a mut Config,
    /// A command that came before its entry point stays.
    command_set: bool,
}

impl Applying<'_> {
    fn one(&mut self, name: &str, rest: &str) -> Result<(), InstructionError> {
        match name {
            "CMD" => {
                self.config.cmd = Some(self.command(rest));
                self.command_set = true;
            }
            "ENTRYPOINT" => self.entrypoint(rest),
            "ENV" => self.environment(rest)?,
            "LABEL" => {
                let pairs = self.pairs("LABEL", rest)?;
                self.config.labels.get_or_insert_default().extend(pairs);
            }
            "EXPOSE" => self.expose(rest)?,
            "HEALTHCHECK" => self.config.healthcheck = Some(healthcheck(rest)?),
            "ONBUILD" => self.on_build(rest)?,
            "STOPSIGNAL" => {
                let signal = self.single("STOPSIGNAL", rest)?;
                container_spec::signal::parse_signal(&signal).ok_or(InstructionError::Signal(signal.clone()))?;
                self.config.stop_signal = signal;
            }
            "USER" => self.config.user = self.single("USER", rest)?,
            "VOLUME" => self.volumes(rest)?,
            _ => {
                let place = self.single("WORKDIR", rest)?;
                let whole = if place.starts_with('/') { place } else { format!("{}/{place}", self.config.working_dir) };
                self.config.working_dir = clean(&format!("/{whole}"));
            }
        }
        Ok(())
    }

    /// A list in JSON, or words for the shell.
    fn command(&self, rest: &str) -> Vec<String> {
        if let Some(list) = json_list(rest) {
            return list;
        }
        let shell = self.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        shell.into_iter().chain([rest.to_owned()]).collect()
    }

    fn entrypoint(&mut self, rest: &str) {
        let list = json_list(rest);
        self.config.entrypoint = match list {
            Some(list) if list.is_empty() => None,
            _ if rest.is_empty() => None,
            _ => Some(self.command(rest)),
        };
        if !self.command_set {
            self.config.cmd = None;
        }
    }

    fn environment(&mut self, rest: &str) -> Result<(), InstructionError> {
        for (name, value) in self.pairs("ENV", rest)? {
            let own = self.config.env.get_or_insert_default();
            let text = format!("{name}={value}");
            match own.iter_mut().find(|entry| entry.split_once('=').map_or(&***entry, |(own, _)| own) == name) {
                Some(entry) => *entry = text,
                None => own.push(text),
            }
        }
        Ok(())
    }

    /// `name=value ...`, or `name value` for all that is left of the line.
    fn pairs(&self, what: &'static str, rest: &str) -> Result<Vec<(String, String)>, InstructionError> {
        let words = split_words(rest);
        let first = words.first().ok_or(InstructionError::NoArgument(what))?;
        let raw: Vec<(String, String)> = match first.contains('=') {
            true => words
                .iter()
                .map(|word| word.split_once('=').ok_or_else(|| InstructionError::NoPair(word.clone())))
                .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
                .collect::<Result<_, _>>()?,
            false => {
                let (name, value) = rest.split_once(char::is_whitespace).ok_or(InstructionError::TwoArguments(what))?;
                vec![(name.to_owned(), value.trim_start().to_owned())]
            }
        };
        let expanded = raw.into_iter().map(|(name, value)| {
            let name = self.expand(&name)?;
            if name.is_empty() { Err(InstructionError::BlankName(what)) } else { Ok((name, self.expand(&value)?)) }
        });
        expanded.collect()
    }

    fn expand(&self, word: &str) -> Result<String, InstructionError> {
        expand(word, &Words(self.config.env.as_deref().unwrap_or_default()))
    }

    fn single(&self, what: &'static str, rest: &str) -> Result<String, InstructionError> {
        match rest {
            "" => Err(InstructionError::OneArgument(what)),
            rest => self.expand(rest),
        }
    }

    fn expose(&mut self, rest: &str) -> Result<(), InstructionError> {
        let words = split_words(rest);
        if words.is_empty() {
            return Err(InstructionError::NoArgument("EXPOSE"));
        }
        for word in words {
            for port in exposed(&self.expand(&word)?)? {
                self.config.exposed_ports.get_or_insert_default().insert(port, Empty {});
            }
        }
        Ok(())
    }

    fn volumes(&mut self, rest: &str) -> Result<(), InstructionError> {
        let places = json_list(rest).unwrap_or_else(|| split_words(rest));
        if places.is_empty() {
            return Err(InstructionError::NoArgument("VOLUME"));
        }
        for place in places {
            let place = self.expand(&place)?;
            if place.trim().is_empty() {
                return Err(InstructionError::BlankVolume);
            }
            self.config.volumes.get_or_insert_default().insert(place.trim().to_owned(), Empty {});
        }
        Ok(())
    }

    fn on_build(&mut self, rest: &str) -> Result<(), InstructionError> {
        let (trigger, _) = instruction(rest);
        match trigger.to_uppercase().as_str() {
            "" => Err(InstructionError::NoArgument("ONBUILD")),
            "ONBUILD" => Err(InstructionError::OnBuildChain),
            refused @ ("MAINTAINER" | "FROM") => Err(InstructionError::OnBuild(refused.to_owned())),
            _ => {
                self.config.on_build.get_or_insert_default().push(rest.to_owned());
                Ok(())
            }
        }
    }
}

/// The ports of `80`, `80-82/udp`.
fn exposed(word: &str) -> Result<Vec<String>, InstructionError> {
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_lowercase();
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(InstructionError::Protocol(protocol));
    }
    // What would be the host's stands in front, and means nothing here.
    let range = range.rsplit(':').next().unwrap_or(range);
    let number = |text: &str| ports::number(text).map_err(|_| InstructionError::Port(range.to_owned()));
    let (first, last) = match range.split_once('-') {
        None => (number(range)?, number(range)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    if first > last {
        return Err(InstructionError::PortRange(range.to_owned()));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn healthcheck(rest: &str) -> Result<Healthcheck, InstructionError> {
    let (mut check, mut rest) = (Healthcheck::default(), rest);
    let mut flags = BTreeMap::new();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, behind) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        flags.insert(name.to_owned(), value.to_owned());
        rest = behind.trim_start();
    }
    for (flag, value) in flags {
        let bad = || InstructionError::FlagValue { flag: flag.clone(), value: value.clone() };
        let time = || crate::time_query::duration(&value).filter(|nanos| *nanos >= 0).ok_or_else(bad);
        match flag.as_str() {
            "interval" => check.interval = time()?,
            "timeout" => check.timeout = time()?,
            "start-period" => check.start_period = time()?,
            "start-interval" => check.start_interval = time()?,
            "retries" => check.retries = value.parse().ok().filter(|retries| *retries >= 0).ok_or_else(bad)?,
            _ => return Err(InstructionError::Flag(flag)),
        }
    }
    let (kind, command) = instruction(rest);
    check.test = Some(match (kind.to_uppercase().as_str(), command.as_str()) {
        ("", _) => return Err(InstructionError::NoArgument("HEALTHCHECK")),
        ("NONE", "") => vec!["NONE".to_owned()],
        ("NONE", _) => return Err(InstructionError::NoneArguments),
        ("CMD", "") => return Err(InstructionError::NoCheck("CMD".to_owned())),
        ("CMD", command) => match json_list(command) {
            Some(list) => ["CMD".to_owned()].into_iter().chain(list).collect(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        (other, _) => return Err(InstructionError::CheckKind(other.to_owned())),
    });
    Ok(check)
}

#[cfg(test)]
mod tests;
