//! The flags of an instruction.

use crate::fault::Fault;
use crate::suggest::meant;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Bool,
    One,
    Many,
}

/// Flags that were given.
#[derive(Debug)]
pub(crate) struct Flags {
    /// Name and value, in the order given.
    given: Vec<(String, String)>,
}

impl Flags {
    /// Checks flags against those that an instruction knows.
    pub(crate) fn parse(words: &[String], known: &[(&'static str, Takes)]) -> Result<Flags, Fault> {
        let mut given: Vec<(String, String)> = Vec::new();
        for word in words {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let name = name.strip_prefix("--").unwrap_or(name).to_owned();
            let Some((_, takes)) = known.iter().find(|(own, _)| *own == name) else {
                let names: Vec<&str> = known.iter().map(|(own, _)| *own).collect();
                return Err(Fault::UnknownFlag { meant: meant(&name, &names, true), name });
            };
            if *takes != Takes::Many && given.iter().any(|(own, _)| *own == name) {
                return Err(Fault::FlagTwice(name));
            }
            let value = match (takes, value) {
                (Takes::Bool, None) => "true".to_owned(),
                (Takes::Bool, Some("")) | (_, None) => return Err(Fault::FlagValue(name)),
                (Takes::Bool, Some(value)) => match value.to_lowercase().as_str() {
                    lower @ ("true" | "false") => lower.to_owned(),
                    _ => return Err(Fault::FlagBool { flag: name, value: value.to_owned() }),
                },
                (_, Some(value)) => value.to_owned(),
            };
            given.push((name, value));
        }
        Ok(Flags { given })
    }

    /// None are allowed.
    pub(crate) fn none(words: &[String]) -> Result<(), Fault> {
        Flags::parse(words, &[]).map(drop)
    }

    /// A flag's value; empty if it is not there.
    pub(crate) fn text(&self, name: &str) -> String {
        self.given(name).unwrap_or_default().to_owned()
    }

    /// A flag's value, if it is there.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Whether a flag is on, if it is there.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.given(name).map(|value| value == "true")
    }

    /// All values of a flag.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(own, _)| own == name).map(|(_, value)| value.clone()).collect()
    }

    /// The names of what was given.
    pub(crate) fn names(&self) -> Vec<String> {
        self.given.iter().map(|(name, _)| name.clone()).collect()
    }
}
