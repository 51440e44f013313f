//! What a template consists of, and how its parts read in sentences about them.

use std::fmt;

use super::value::Value;

/// A part that is an action or text.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If { pipe: Pipe, then: Vec<Node>, otherwise: Vec<Node> },
    With { pipe: Pipe, then: Vec<Node>, otherwise: Vec<Node> },
    Range { pipe: Pipe, each: Vec<Node>, otherwise: Vec<Node> },
    Template { at: usize, name: String, pipe: Option<Pipe> },
    Break,
    Continue,
}

/// `$x := a | b`
#[derive(Clone, Debug, Default)]
pub(super) struct Pipe {
    pub(super) variables: Vec<String>,
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

/// `f a b`
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) at: usize,
    pub(super) words: Vec<Word>,
}

/// A word of a command, and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) at: usize,
    pub(super) term: Term,
}

/// What a word is.
#[derive(Clone, Debug)]
pub(super) enum Term {
    Dot,
    Nil,
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A`
    Variable(String, Vec<String>),
    Function(String),
    /// `(pipe)`
    Pipe(Pipe),
    /// `(pipe).A` and the like.
    Chain(Box<Word>, Vec<String>),
    /// A constant, and as it was written.
    Constant(Value, String),
}

impl fmt::Display for Pipe {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            write!(out, "{} {} ", self.variables.join(", "), if self.assigns { "=" } else { ":=" })?;
        }
        for (at, command) in self.commands.iter().enumerate() {
            write!(out, "{}{command}", if at > 0 { " | " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.words.iter().enumerate() {
            write!(out, "{}{word}", if at > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Word {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields =
            |out: &mut fmt::Formatter<'_>, names: &[String]| names.iter().try_for_each(|name| write!(out, ".{name}"));
        match &self.term {
            Term::Dot => out.write_str("."),
            Term::Nil => out.write_str("nil"),
            Term::Field(names) => fields(out, names),
            Term::Variable(name, names) => {
                out.write_str(name)?;
                fields(out, names)
            }
            Term::Function(name) => out.write_str(name),
            Term::Pipe(pipe) => write!(out, "({pipe})"),
            Term::Chain(word, names) => {
                write!(out, "{word}")?;
                fields(out, names)
            }
            Term::Constant(_, text) => out.write_str(text),
        }
    }
}
