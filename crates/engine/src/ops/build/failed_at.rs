//! Where a build has failed: the lines of its Dockerfile, and what its author may have meant.

use std::fmt;
use std::sync::Arc;

use builder::PlanError;
use dockerfile::name_like;

use super::receive::ContextError;
use super::sources::SourceError;
use super::tree::Tree;
use super::{BuildError, quoted};

/// How much of a Dockerfile is shown, in bytes. An instruction may have sixteen million.
const EXCERPT_MAX: usize = 64 * 1024;

/// How many names are compared with one that is not there.
const NAMES_MAX: usize = 10_000;

/// What a shell ends with that does not find a program, and the kernel's SIGKILL as shells tell it (POSIX, "Exit Status
/// for Commands").
const NOT_FOUND: i64 = 127;
const NOT_EXECUTABLE: i64 = 126;
const KILLED: i64 = 128 + 9;

/// Where a build has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedAt {
    /// The Dockerfile; empty if none was read.
    pub text: Arc<str>,
    /// The line, from 1; 0 if none is to blame.
    pub line: usize,
    /// The last one of the instruction there.
    pub end: usize,
}

/// A file that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// From the root of its tree.
    pub path: String,
    /// One that is there and has a name like that.
    pub near: Option<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl Missing {
    /// One of a tree.
    pub(super) fn of(tree: &Tree, path: &str) -> Missing {
        Missing { path: path.to_owned(), near: near(tree, path) }
    }
}

impl FailedAt {
    /// The same of a failure, of which some say themselves where they are.
    pub(super) fn of(self, err: &BuildError) -> FailedAt {
        match err {
            BuildError::Context(ContextError::Syntax { text, why, .. } | ContextError::Instruction { text, why }) => {
                FailedAt { text: text.as_str().into(), line: why.line(), end: why.end() }
            }
            BuildError::Plan(err) if err.line() > 0 => FailedAt { line: err.line(), end: err.line(), ..self },
            _ => self,
        }
    }

    /// The lines with some around them, as BuildKit's clients show them; empty if no line is to blame. `name` is what the
    /// Dockerfile is called there.
    pub fn excerpt(&self, name: &str) -> String {
        let mut excerpt = dockerfile_checks::source(name, &self.text, (self.line, self.end));
        if excerpt.len() > EXCERPT_MAX {
            excerpt.truncate(excerpt.floor_char_boundary(EXCERPT_MAX));
            excerpt.push_str("...\n--------------------\n");
        }
        excerpt
    }

    /// What may help.
    pub fn hint(&self, err: &BuildError) -> Option<String> {
        match err {
            BuildError::Source {
                source: SourceError::NotInContext(missing) | SourceError::NotFound(missing), ..
            } => Some(did_you_mean("", missing.near.as_deref()?)),
            BuildError::From { from, .. } => Some(did_you_mean("the stage ", &self.stage_like(from)?)),
            BuildError::Plan(PlanError::Target(name)) => Some(did_you_mean("", &self.stage_like(name)?)),
            BuildError::NonZero { code: NOT_FOUND, .. } => {
                Some("with the exit code 127 shells say that a program is not there".to_owned())
            }
            BuildError::NonZero { code: NOT_EXECUTABLE, .. } => {
                Some("with the exit code 126 shells say that a program cannot be executed".to_owned())
            }
            BuildError::NonZero { code: KILLED, .. } => Some(
                "the exit code 137 is that of something killed, as the kernel does where memory is short".to_owned(),
            ),
            _ => None,
        }
    }

    /// The stage whose name is like that.
    fn stage_like(&self, name: &str) -> Option<String> {
        let dockerfile = dockerfile::parse(&self.text).ok()?;
        let names: Vec<&str> = dockerfile.stages.iter().map(|stage| stage.name.as_str()).collect();
        name_like(name, names.into_iter().filter(|name| !name.is_empty()))
    }
}

/// What a missing file of the context is, if one is.
pub fn missing_in_context(err: &BuildError) -> Option<&Missing> {
    match err {
        BuildError::Source { source: SourceError::NotInContext(missing), .. } => Some(missing),
        _ => None,
    }
}

fn did_you_mean(what: &str, name: &str) -> String {
    format!("did you mean {what}{}?", quoted(name))
}

/// What is there and called almost as something that is not.
fn near(tree: &Tree, path: &str) -> Option<String> {
    let mut found = String::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        let slash = if found.is_empty() { "" } else { "/" };
        let inside = format!("{found}{slash}{part}");
        if tree.find(&inside).is_ok() {
            found = inside;
            continue;
        }
        let names = tree.names(&found, NAMES_MAX).ok()?;
        let name = name_like(part, names.iter().map(String::as_str))?;
        return Some(format!("{found}{slash}{name}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_shown_of_much() {
        let text = format!("FROM a\nRUN {}\n", "x\\\n".repeat(EXCERPT_MAX));
        let at = FailedAt { text: text.as_str().into(), line: 2, end: EXCERPT_MAX };
        let excerpt = at.excerpt("D");
        assert!(excerpt.len() < EXCERPT_MAX + 64 && excerpt.starts_with("D:2\n---") && excerpt.ends_with("---\n"));
        assert_eq!(FailedAt { line: 0, ..at }.excerpt("D"), "");
    }
}
