//! From text to logical lines: directives, comments, continuations, heredocs.

use crate::expand::{name_words, raw_words};
use crate::fault::{Fault, ParseError};
use crate::words::{cut, json_list, quoted, simple, take_flags};

/// The longest line: that of Go's scanner, which BuildKit reads with.
const LINE_MAX: usize = 64 * 1024 - 1;

/// `ONBUILD ONBUILD` is refused, so nothing deeper is looked at.
const NESTING_MAX: usize = 2;

/// A file within the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heredoc {
    pub(crate) name: String,
    /// Whether variables in it are replaced: its name is not quoted.
    pub(crate) expand: bool,
    /// Whether tabs in front of its lines are left out.
    pub(crate) chomp: bool,
    pub(crate) content: String,
}

/// One instruction, not understood yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// As written.
    pub(crate) name: String,
    /// The whole logical line.
    pub(crate) original: String,
    pub(crate) flags: Vec<String>,
    pub(crate) args: Vec<String>,
    /// Names and values of `ENV` and `LABEL`.
    pub(crate) pairs: Vec<(String, String)>,
    /// Whether there is a blank between the name and the value.
    pub(crate) is_legacy: bool,
    /// Whether the arguments are a list in JSON.
    pub(crate) json: bool,
    pub(crate) heredocs: Vec<Heredoc>,
    /// The first line, from 1.
    pub(crate) line: usize,
    /// The last one, with its heredocs.
    pub(crate) end: usize,
    /// The comments above it, without their `#`.
    pub(crate) comments: Vec<String>,
    takes_heredocs: bool,
}

/// An instruction that goes on behind an empty line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmptyContinuation {
    /// The whole logical line.
    pub text: String,
    /// The line in which it ends, from 1.
    pub line: usize,
}

/// All instructions of a text.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) escape: char,
    pub(crate) syntax: Option<String>,
    pub(crate) check: Option<String>,
    /// Lines that end in a continuation before an empty one.
    pub(crate) empty_continuations: Vec<EmptyContinuation>,
}

/// Reads a text.
pub(crate) fn parse(text: &str) -> Result<Tree, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reading = Reading::new(text);
    while let Some(line) = reading.next_line()? {
        reading.statement(line)?;
    }
    let Reading { tree, line, .. } = reading;
    if tree.nodes.is_empty() {
        return Err(ParseError::Syntax { line, end: line, fault: Fault::Empty });
    }
    Ok(tree)
}

struct Reading<'a> {
    lines: std::str::SplitInclusive<'a, char>,
    /// How many lines were read.
    line: usize,
    tree: Tree,
    /// Directives stand in front of everything.
    directives: bool,
    escape_said: bool,
    /// The comments since the last instruction.
    comments: Vec<String>,
}

impl<'a> Reading<'a> {
    fn new(text: &'a str) -> Reading<'a> {
        let tree = Tree { nodes: Vec::new(), escape: '\\', syntax: None, check: None, empty_continuations: Vec::new() };
        let lines = text.split_inclusive('\n');
        Reading { lines, line: 0, tree, directives: true, escape_said: false, comments: Vec::new() }
    }

    fn next_line(&mut self) -> Result<Option<&'a str>, ParseError> {
        let Some(line) = self.lines.next() else { return Ok(None) };
        self.line += 1;
        match line.len() > LINE_MAX {
            true => Err(self.failed(self.line, Fault::LineTooLong(LINE_MAX))),
            false => Ok(Some(line)),
        }
    }

    /// Something is wrong from a line on.
    fn failed(&self, line: usize, fault: Fault) -> ParseError {
        ParseError::Syntax { line, end: self.line.max(line), fault }
    }

    /// A logical line that begins with `first`, with the heredocs that follow it.
    fn statement(&mut self, first: &str) -> Result<(), ParseError> {
        let raw = first;
        let first = without_end(first).trim_start();
        let is_directive = self.directive(first).map_err(|fault| self.failed(self.line, fault))?;
        if first.starts_with('#') && !is_directive {
            self.comment(raw);
        }
        let first = if first.starts_with('#') { "" } else { first };
        let start = self.line;
        let (part, mut goes_on) = continued(first, self.tree.escape);
        if !goes_on && part.is_empty() {
            return Ok(());
        }
        let (mut whole, mut has_empty) = (part.to_owned(), false);
        while goes_on {
            let Some(line) = self.next_line()? else { break };
            let line = without_end(line);
            if line.trim_start().starts_with('#') {
                continue;
            }
            if line.trim_start().is_empty() {
                has_empty = true;
                continue;
            }
            let (part, more) = continued(line, self.tree.escape);
            whole.push_str(part);
            goes_on = more;
        }
        if has_empty {
            self.tree.empty_continuations.push(EmptyContinuation { text: whole.clone(), line: self.line });
        }
        let node = node(&whole, self.tree.escape, start, 1);
        let mut node = node.map_err(|fault| self.failed(start, fault))?;
        if node.takes_heredocs && whole.contains("<<") {
            node.heredocs = self.heredocs(&whole, start)?;
        }
        (node.end, node.comments) = (self.line, std::mem::take(&mut self.comments));
        self.tree.nodes.push(node);
        Ok(())
    }

    /// A comment; an empty one ends what was said before.
    fn comment(&mut self, line: &str) {
        let mut letters = line.chars();
        letters.next();
        match letters.as_str().trim() {
            "" => self.comments.clear(),
            text => self.comments.push(text.to_owned()),
        }
    }

    /// Takes a directive; answers whether it is one.
    fn directive(&mut self, line: &str) -> Result<bool, Fault> {
        if !self.directives {
            return Ok(false);
        }
        let Some((name, value)) = directive(line) else {
            self.directives = false;
            return Ok(false);
        };
        let place = match name.as_str() {
            "escape" => {
                if std::mem::replace(&mut self.escape_said, true) {
                    return Err(Fault::DirectiveTwice(name));
                }
                return self.tree.set_escape(value).map(|()| true);
            }
            "syntax" => &mut self.tree.syntax,
            "check" => &mut self.tree.check,
            _ => {
                self.directives = false;
                return Ok(false);
            }
        };
        if place.is_some() {
            return Err(Fault::DirectiveTwice(name));
        }
        *place = Some(value.to_owned());
        Ok(true)
    }

    fn heredocs(&mut self, line: &str, start: usize) -> Result<Vec<Heredoc>, ParseError> {
        let mut heredocs = Vec::new();
        for word in raw_words(line) {
            let Some(mut heredoc) = heredoc(&word).map_err(|fault| self.failed(start, fault))? else { continue };
            loop {
                let Some(line) = self.next_line()? else { return Err(self.failed(start, Fault::Unterminated)) };
                let bare = line.trim_end_matches(['\r', '\n']);
                let bare = if heredoc.chomp { bare.trim_start_matches('\t') } else { bare };
                if bare == heredoc.name {
                    break;
                }
                heredoc.content.push_str(line);
            }
            heredocs.push(heredoc);
        }
        Ok(heredocs)
    }
}

impl Tree {
    fn set_escape(&mut self, value: &str) -> Result<(), Fault> {
        match value {
            "\\" | "`" => {
                self.escape = value.chars().next().unwrap_or('\\');
                Ok(())
            }
            other => Err(Fault::EscapeToken(other.to_owned())),
        }
    }
}

fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// `# name = value`.
fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let mut letters = name.chars();
    let is_name = letters.next()?.is_ascii_alphabetic() && letters.all(|letter| letter.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then(|| (name.to_lowercase(), value))
}

/// A line without the continuation at its end, and whether there was one.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let bare = line.trim_end_matches([' ', '\t']);
    match bare.strip_suffix(escape) {
        // Two of them are one that is escaped.
        Some(part) if !part.ends_with(escape) => (part, true),
        _ => (line, false),
    }
}

/// A heredoc, if the word begins one: `<<EOF`, `<<-"EOF"`, `3<<EOF`.
pub(crate) fn heredoc(word: &str) -> Result<Option<Heredoc>, Fault> {
    let Some(rest) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<") else { return Ok(None) };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let words = name_words(rest, false)?;
    let [name] = &words[..] else { return Ok(None) };
    let raw = name_words(rest, true)?.concat();
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(name) == quotes(&raw);
    Ok(Some(Heredoc { name: name.clone(), expand, chomp, content: String::new() }))
}

/// Splits a logical line as its instruction wants it.
fn node(line: &str, escape: char, number: usize, depth: usize) -> Result<Node, Fault> {
    let (name, rest) = cut(line.trim());
    let (flags, rest) = take_flags(rest.unwrap_or_default(), escape);
    let rest = rest.trim();
    let mut node = Node {
        name: name.to_owned(),
        original: line.to_owned(),
        flags,
        args: Vec::new(),
        pairs: Vec::new(),
        is_legacy: false,
        json: false,
        heredocs: Vec::new(),
        line: number,
        end: number,
        comments: Vec::new(),
        takes_heredocs: false,
    };
    match name.to_lowercase().as_str() {
        "add" | "copy" | "volume" => node.list(rest, simple)?,
        "cmd" | "entrypoint" | "run" | "shell" => node.list(rest, whole)?,
        "env" => (node.pairs, node.is_legacy) = pairs(rest, "ENV", escape)?,
        "label" => (node.pairs, node.is_legacy) = pairs(rest, "LABEL", escape)?,
        "arg" => node.args = quoted(rest, escape),
        "expose" | "from" => node.args = simple(rest),
        "maintainer" | "stopsignal" | "user" | "workdir" => node.args = whole(rest),
        "healthcheck" => {
            let (kind, command) = cut(rest);
            node.list(command.unwrap_or_default(), whole)?;
            if !kind.is_empty() {
                node.args.insert(0, kind.to_owned());
            }
        }
        "onbuild" if !rest.is_empty() => node.nested(rest, escape, depth)?,
        _ => {}
    }
    node.takes_heredocs |= matches!(name.to_lowercase().as_str(), "add" | "copy" | "run") && !node.json;
    Ok(node)
}

/// The text as the only argument.
fn whole(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
}

impl Node {
    fn list(&mut self, rest: &str, otherwise: fn(&str) -> Vec<String>) -> Result<(), Fault> {
        match json_list(rest)? {
            Some(list) => (self.args, self.json) = (list, true),
            None => self.args = otherwise(rest),
        }
        Ok(())
    }

    fn nested(&mut self, rest: &str, escape: char, depth: usize) -> Result<(), Fault> {
        if depth >= NESTING_MAX {
            self.args = vec![cut(rest).0.to_owned()];
            return Ok(());
        }
        let inner = node(rest, escape, self.line, depth + 1)?;
        self.takes_heredocs = inner.takes_heredocs;
        self.args = [inner.name].into_iter().chain(inner.args).collect();
        Ok(())
    }
}

/// Names and values, and whether there is a blank between them.
type Pairs = (Vec<(String, String)>, bool);

/// `name=value ...`, or `name value` for all that is left of the line.
fn pairs(rest: &str, what: &'static str, escape: char) -> Result<Pairs, Fault> {
    let words = quoted(rest, escape);
    let Some(first) = words.first() else { return Ok((Vec::new(), false)) };
    if !first.contains('=') {
        let (name, value) = cut(rest);
        let value = value.ok_or(Fault::TwoArguments(what))?;
        return Ok((vec![(name.to_owned(), value.to_owned())], true));
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Fault::NoPair(word.clone())),
    };
    Ok((words.iter().map(pair).collect::<Result<_, _>>()?, false))
}
