//! The command line's grammar: tables of commands and flags, and the parser that reads them.
//!
//! The parser is our own and follows Go's pflag to the letter, because scripts depend on it: `-it`, `-eA=b`, `-m=1g`,
//! `--rm=false`, values that begin with a dash, options that end at the image's name, and the sentences about mistakes.
//! clap differs in each of these. It makes the shells' completions and the manual pages from the same tables
//! ([`clap_tree`]), away from every hot path.
//!
//! Values are checked while they are read, as pflag does, and converted in [`crate::plan`].

use std::collections::{BTreeSet, HashMap};

use crate::plan::values;

pub mod clap_tree;
pub mod help;
pub mod later;
pub mod network_flags;
pub mod run_flags;
pub mod tables;
pub mod verbs;
pub mod volume_flags;

use later::Wait;
pub use tables::{Command, Group, Verb};
pub use verbs::{CheckpointVerb, ContextVerb, ManifestVerb, NetworkVerb};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=true`, `=false`.
    Bool,
    /// Any text.
    Text,
    /// Any text, several times.
    List,
    /// Texts separated by commas, several times.
    Strings,
    /// A whole number.
    Int,
    /// A whole number up to 65535.
    Uint16,
    /// A number of bytes, `1g`.
    Bytes,
    /// A number of bytes, or -1.
    SwapBytes,
    /// A decimal fraction of processors.
    Cpus,
    /// A duration, `1m30s`.
    Duration,
    /// `name=soft[:hard]`, several times.
    Ulimit,
    /// `name=value`, several times; the name counts once.
    Map,
    /// `name[=value]`, several times; the name counts once.
    Pairs,
    /// `DEVICE:BYTES`, several times.
    DeviceBytes,
    /// `DEVICE:NUMBER`, several times.
    DeviceRate,
    /// `DEVICE:WEIGHT`, several times.
    DeviceWeight,
    /// `TYPE MAJOR:MINOR ACCESS`, several times.
    DeviceRule,
    /// GPUs: a number, or `device=...,driver=...`.
    Gpus,
    /// `CONTAINER[:ALIAS]`, several times.
    Link,
    /// `name=value,...`, several times.
    PairList,
    /// `name=value` of a kernel parameter, several times.
    Sysctl,
    /// `NAME[=VALUE]`, several times.
    Env,
    /// `NAME[=VALUE]` of a label, several times.
    Label,
    /// `stdin`, `stdout`, `stderr`, several times.
    Attach,
    /// `name=value`, several times.
    Filter,
    /// `type=...,source=...`, several times.
    Mount,
    /// An IP address, several times.
    Address,
    /// A domain that names are looked for in.
    Domain,
    /// `NAME:ADDRESS`, several times.
    ExtraHost,
    /// `NAME`, or `name=NAME,...`, several times.
    Network,
}

/// How far a flag is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It works.
    Ready,
    /// It works and is not shown: an old name.
    Hidden,
    /// It is read; a value other than its default is refused by name.
    Later(Wait),
    /// The same, and not shown: Docker has it on another system.
    Elsewhere,
}

/// A flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name, without dashes.
    pub long: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// What it takes.
    pub kind: Kind,
    /// How help calls its value; empty for a flag that takes none.
    pub value_name: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Its value when not given.
    pub default: &'static str,
    /// How far it is offered.
    pub support: Support,
}

impl Flag {
    /// A flag that takes nothing.
    pub const fn bool(long: &'static str, help: &'static str) -> Flag {
        Flag { long, short: None, kind: Kind::Bool, value_name: "", help, default: "false", support: Support::Ready }
    }

    /// A flag with a value.
    pub const fn value(long: &'static str, kind: Kind, value_name: &'static str, help: &'static str) -> Flag {
        Flag { long, short: None, kind, value_name, help, default: "", support: Support::Ready }
    }

    /// The same flag with a letter.
    pub const fn short(mut self, letter: char) -> Flag {
        self.short = Some(letter);
        self
    }

    /// The same flag with a default.
    pub const fn default(mut self, default: &'static str) -> Flag {
        self.default = default;
        self
    }

    /// The same flag, not shown.
    pub const fn hidden(mut self) -> Flag {
        self.support = Support::Hidden;
        self
    }

    /// The same flag, refused.
    pub const fn later(mut self, wait: Wait) -> Flag {
        self.support = Support::Later(wait);
        self
    }

    /// The same flag, refused and not shown.
    pub const fn elsewhere(mut self) -> Flag {
        self.support = Support::Elsewhere;
        self
    }

    /// Whether a value other than the default is refused.
    pub fn is_refused(&self) -> bool {
        matches!(self.support, Support::Later(_) | Support::Elsewhere)
    }

    /// `-m, --memory`, as sentences name it.
    fn display(&self) -> String {
        match self.short {
            Some(letter) => format!("-{letter}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }
}

/// Why a command line was not understood. The texts are pflag's and cobra's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// No such flag.
    #[error("unknown flag: --{0}")]
    UnknownFlag(String),
    /// No such letter.
    #[error("unknown shorthand flag: '{0}' in -{1}")]
    UnknownShorthand(char, String),
    /// `--=x` and the like.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// The value is missing.
    #[error("flag needs an argument: --{0}")]
    MissingValue(String),
    /// The value is missing.
    #[error("flag needs an argument: '{0}' in -{1}")]
    MissingShortValue(char, String),
    /// The value is wrong.
    #[error("invalid argument {value:?} for {flag:?} flag: {reason}")]
    Invalid {
        /// What was given.
        value: String,
        /// For which flag.
        flag: String,
        /// Why not.
        reason: values::ValueError,
    },
    /// We do not offer it yet.
    #[error("option is not supported yet: --{flag} (it waits for {wait})")]
    Later {
        /// Its name.
        flag: &'static str,
        /// What it waits for.
        wait: Wait,
    },
    /// Docker has it on another system.
    #[error("{}", elsewhere(.0))]
    Elsewhere(Vec<&'static str>),
    /// `--help`, where no flag of that name is asked for anything else.
    #[error("help requested")]
    Help,
}

fn elsewhere(flags: &[&str]) -> String {
    let line = |flag: &&str| {
        format!(
            "\"--{flag}\" is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux"
        )
    };
    flags.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A command line, read.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    values: HashMap<&'static str, Vec<String>>,
    /// What is no flag.
    pub positionals: Vec<String>,
}

impl Parsed {
    /// Whether a flag that takes nothing is set.
    pub fn flag(&self, name: &str) -> bool {
        self.last(name).is_some_and(values::is_true)
    }

    /// Whether a flag is set, where it is set by default.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        self.last(name).map_or(default, values::is_true)
    }

    /// The last value of a flag; empty if not given.
    pub fn text(&self, name: &str) -> &str {
        self.last(name).unwrap_or("")
    }

    /// All values of a flag.
    pub fn list(&self, name: &str) -> &[String] {
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The value of a number's flag.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.last(name).and_then(|text| values::int(text).ok())
    }

    /// Whether the flag was given at all.
    pub fn given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Whether any flag was given.
    pub fn has_flags(&self) -> bool {
        !self.values.is_empty()
    }

    fn last(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(|values| values.last()).map(String::as_str)
    }
}

/// Reads `args` by `flags`. With `interspersed`, flags may follow positionals; else the first positional ends them.
pub fn parse(
    flags: &dyn Fn(&str) -> Option<&'static Flag>,
    letters: &dyn Fn(char) -> Option<&'static Flag>,
    interspersed: bool,
    args: &[String],
) -> Result<Parsed, ArgsError> {
    let mut parser = Parser { flags, letters, parsed: Parsed::default(), elsewhere: BTreeSet::new(), rest: args };
    while let Some((arg, rest)) = parser.rest.split_first() {
        parser.rest = rest;
        if arg == "--" {
            parser.parsed.positionals.extend_from_slice(rest);
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            parser.long(arg, long)?;
        } else if arg.len() > 1 && arg.starts_with('-') {
            parser.letters_of(&arg[1..])?;
        } else {
            parser.parsed.positionals.push(arg.clone());
            if !interspersed {
                parser.parsed.positionals.extend_from_slice(rest);
                break;
            }
        }
    }
    match parser.elsewhere.is_empty() {
        true => Ok(parser.parsed),
        false => Err(ArgsError::Elsewhere(parser.elsewhere.into_iter().collect())),
    }
}

struct Parser<'a> {
    flags: &'a dyn Fn(&str) -> Option<&'static Flag>,
    letters: &'a dyn Fn(char) -> Option<&'static Flag>,
    parsed: Parsed,
    /// Flags of other systems, which are all told, by name, when the line is read.
    elsewhere: BTreeSet<&'static str>,
    rest: &'a [String],
}

impl Parser<'_> {
    fn long(&mut self, arg: &str, text: &str) -> Result<(), ArgsError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(ArgsError::Syntax(arg.to_owned()));
        }
        let Some(flag) = (self.flags)(name) else {
            return Err(if name == "help" { ArgsError::Help } else { ArgsError::UnknownFlag(name.to_owned()) });
        };
        let value = match value {
            Some(value) => value,
            None if flag.kind == Kind::Bool => "true".to_owned(),
            None => self.next().ok_or_else(|| ArgsError::MissingValue(name.to_owned()))?,
        };
        self.set(flag, value)
    }

    /// `-it`, `-eA=b`, `-e A=b`, `-m=1g`.
    fn letters_of(&mut self, cluster: &str) -> Result<(), ArgsError> {
        for (at, letter) in cluster.char_indices() {
            let here = &cluster[at..];
            let behind = &here[letter.len_utf8()..];
            let Some(flag) = (self.letters)(letter) else {
                return Err(if letter == 'h' {
                    ArgsError::Help
                } else {
                    ArgsError::UnknownShorthand(letter, here.to_owned())
                });
            };
            let value = match behind.strip_prefix('=') {
                Some(value) => value.to_owned(),
                None if flag.kind == Kind::Bool => {
                    self.set(flag, "true".to_owned())?;
                    continue;
                }
                None if !behind.is_empty() => behind.to_owned(),
                None => self.next().ok_or_else(|| ArgsError::MissingShortValue(letter, here.to_owned()))?,
            };
            return self.set(flag, value);
        }
        Ok(())
    }

    fn next(&mut self) -> Option<String> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first.clone())
    }

    fn set(&mut self, flag: &'static Flag, value: String) -> Result<(), ArgsError> {
        if flag.long == "help" {
            return Err(ArgsError::Help);
        }
        if let Err(reason) = values::check(flag.kind, &value) {
            return Err(ArgsError::Invalid { value, flag: flag.display(), reason });
        }
        if flag.is_refused() && !values::same(flag.kind, &value, flag.default) {
            if let Support::Later(wait) = flag.support {
                return Err(ArgsError::Later { flag: flag.long, wait });
            }
            self.elsewhere.insert(flag.long);
            return Ok(());
        }
        self.parsed.values.entry(tables::canonical(flag.long)).or_default().push(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
