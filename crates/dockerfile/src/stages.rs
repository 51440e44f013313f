//! A whole Dockerfile: arguments for all, and stages.

use crate::fault::{Fault, ParseError};
use crate::flags::{Flags, Takes};
use crate::instruction::{self, Arg, Instruction, Kind};
use crate::lines::{self, EmptyContinuation, Node};

/// A Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// `# escape=`.
    pub escape: char,
    /// `# syntax=`.
    pub syntax: Option<String>,
    /// `# check=`.
    pub check: Option<String>,
    /// The `ARG`s before the first stage, each with its line.
    pub arguments: Vec<Instruction>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// Lines that go on behind an empty one, which will be an error one day.
    pub empty_continuations: Vec<EmptyContinuation>,
}

/// Why a text is no Dockerfile, at an instruction, and what that is as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Why it is none.
    pub why: ParseError,
    /// The `FROM`, of three words, that is none: its name is empty.
    pub stage: Option<Stage>,
    /// The instruction that stands where none may.
    pub instruction: Option<Instruction>,
}

/// What is between one `FROM` and the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// Its name, in lower case; empty for none.
    pub name: String,
    /// An image, a stage or `scratch`, with variables.
    pub base: String,
    /// The wanted platform, with variables; empty for any.
    pub platform: String,
    /// The whole line, as written.
    pub original: String,
    /// Its line in the text, from 1.
    pub line: usize,
    /// The last one of its `FROM`.
    pub end: usize,
    /// `FROM`, as written.
    pub keyword: String,
    /// `AS` and the name, as written.
    pub alias: Option<(String, String)>,
    /// The comments above it, without their `#`.
    pub comments: Vec<String>,
    /// Its instructions.
    pub instructions: Vec<Instruction>,
}

impl Dockerfile {
    /// All arguments before the first stage.
    pub fn meta_args(&self) -> impl Iterator<Item = &Arg> {
        self.arguments.iter().flat_map(|instruction| match &instruction.kind {
            Kind::Arg(args) => args.as_slice(),
            _ => &[],
        })
    }

    fn add(&mut self, node: &Node) -> Result<(), Box<Wrong>> {
        let (line, end) = (node.line, node.end);
        let wrong = |fault| Wrong { why: ParseError::Instruction { line, end, fault }, stage: None, instruction: None };
        if node.name.eq_ignore_ascii_case("from") {
            self.stages.push(from(node).map_err(|fault| Wrong { stage: unread(node), ..wrong(fault) })?);
            return Ok(());
        }
        let instruction = instruction::parse(node).map_err(wrong)?;
        match self.stages.last_mut() {
            Some(stage) => stage.instructions.push(instruction),
            None if matches!(instruction.kind, Kind::Arg(_)) => self.arguments.push(instruction),
            None => {
                let why = ParseError::Misplaced { line, end, fault: Fault::NoStage };
                return Err(Box::new(Wrong { why, stage: None, instruction: Some(instruction) }));
            }
        }
        Ok(())
    }

    /// The stage of a name, whatever its case.
    pub fn stage(&self, name: &str) -> Option<usize> {
        self.stages.iter().position(|stage| stage.name.eq_ignore_ascii_case(name))
    }
}

/// Reads a Dockerfile.
pub fn parse(text: &str) -> Result<Dockerfile, ParseError> {
    match parse_partly(text)? {
        (dockerfile, None) => Ok(dockerfile),
        (_, Some(wrong)) => Err(wrong.why),
    }
}

/// Reads a Dockerfile as far as it is one: up to the first instruction that is none, and what about that.
pub fn parse_partly(text: &str) -> Result<(Dockerfile, Option<Box<Wrong>>), ParseError> {
    let tree = lines::parse(text)?;
    let mut dockerfile = Dockerfile {
        escape: tree.escape,
        syntax: tree.syntax,
        check: tree.check,
        arguments: Vec::new(),
        stages: Vec::new(),
        empty_continuations: tree.empty_continuations,
    };
    let wrong = tree.nodes.iter().find_map(|node| dockerfile.add(node).err());
    Ok((dockerfile, wrong))
}

fn from(node: &Node) -> Result<Stage, Fault> {
    let (base, name) = match &node.args[..] {
        [base] => (base, String::new()),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (base, stage_name(name)?),
        _ => return Err(Fault::From),
    };
    let flags = Flags::parse(&node.flags, &[("platform", Takes::One)])?;
    Ok(Stage {
        name,
        base: base.clone(),
        platform: flags.text("platform"),
        original: node.original.trim().to_owned(),
        line: node.line,
        end: node.end,
        keyword: node.name.clone(),
        alias: match &node.args[..] {
            [_, word, name] => Some((word.clone(), name.clone())),
            _ => None,
        },
        comments: node.comments.clone(),
        instructions: Vec::new(),
    })
}

/// What can be said of a `FROM` that is none.
fn unread(node: &Node) -> Option<Stage> {
    let [_, word, name] = &node.args[..] else { return None };
    let alias = Some((word.clone(), name.clone()));
    Some(Stage { line: node.line, end: node.end, keyword: node.name.clone(), alias, ..Stage::default() })
}

fn stage_name(name: &str) -> Result<String, Fault> {
    let lower = name.to_lowercase();
    let mut letters = lower.chars();
    let fits = letters.next().is_some_and(|letter| letter.is_ascii_lowercase())
        && letters
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '-' | '_' | '.'));
    if fits { Ok(lower) } else { Err(Fault::StageName(name.to_owned())) }
}

#[cfg(test)]
mod tests;
