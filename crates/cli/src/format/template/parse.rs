//! From words to a tree, with the sentences of Go's `text/template/parse`.

use std::collections::{HashMap, VecDeque};

use super::functions;
use super::lexer::{self, Kind, Token};
use super::node::{Command, Node, Pipe, Term, Word};
use super::value::Value;

/// A template and those that are defined in it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) root: Vec<Node>,
    pub(super) defined: HashMap<String, Vec<Node>>,
}

/// What is wrong, and in which line.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) line: usize,
    pub(super) reason: String,
}

/// Parses a template; `name` is for sentences.
pub(super) fn parse(source: &str, name: &str) -> Result<Tree, Refusal> {
    let tokens = lexer::cut(source).into();
    let mut parser =
        Parser { tokens, name, line: 1, action_line: 0, ranges: 0, variables: vec!["$".into()], tree: Tree::default() };
    while parser.peek().kind != Kind::Eof {
        match parser.item()? {
            Item::Node(node) => parser.tree.root.push(node),
            Item::Defined => {}
            Item::End => return Err(refusal(parser.line, "unexpected {{end}}")),
            Item::Else => return Err(refusal(parser.line, "unexpected {{else}}")),
        }
    }
    Ok(parser.tree)
}

struct Parser<'a> {
    tokens: VecDeque<Token>,
    name: &'a str,
    /// Of the word that was looked at last.
    line: usize,
    action_line: usize,
    ranges: usize,
    variables: Vec<String>,
    tree: Tree,
}

enum Item {
    Node(Node),
    Defined,
    End,
    Else,
}

type Parsed<T> = Result<T, Refusal>;

impl Parser<'_> {
    fn peek(&mut self) -> Token {
        let token = match self.tokens.front() {
            Some(token) => token.clone(),
            None => Token { kind: Kind::Eof, at: 0, text: String::new(), line: self.line },
        };
        self.line = token.line;
        token
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        // The last word is there for ever: an end or an error.
        if self.tokens.len() > 1 {
            self.tokens.pop_front();
        }
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.next();
        }
    }

    fn peek_word(&mut self) -> Token {
        self.skip_space();
        self.peek()
    }

    fn next_word(&mut self) -> Token {
        self.skip_space();
        self.next()
    }

    fn unexpected(&self, token: &Token, context: &str) -> Refusal {
        let line = token.line;
        if token.kind != Kind::Error {
            return Refusal { line, reason: format!("unexpected {token} in {context}") };
        }
        let elsewhere = self.action_line != 0 && self.action_line != line;
        let started = format!(" started at {}:{}", self.name, self.action_line);
        let reason = match (elsewhere, token.text.ends_with(" action")) {
            (false, _) => token.text.clone(),
            (true, true) => format!("{}{started}", token.text),
            (true, false) => format!("{} in action{started}", token.text),
        };
        Refusal { line, reason }
    }

    fn expect_close(&mut self, context: &str) -> Parsed<()> {
        let token = self.next_word();
        if token.kind == Kind::RightDelim { Ok(()) } else { Err(self.unexpected(&token, context)) }
    }

    /// Text or an action.
    fn item(&mut self) -> Parsed<Item> {
        let token = self.next_word();
        match token.kind {
            Kind::Text => Ok(Item::Node(Node::Text(token.text))),
            Kind::LeftDelim => {
                self.action_line = token.line;
                let item = self.action();
                self.action_line = 0;
                item
            }
            _ => Err(self.unexpected(&token, "input")),
        }
    }

    fn action(&mut self) -> Parsed<Item> {
        let token = self.peek_word();
        if token.kind != Kind::Keyword {
            return Ok(Item::Node(Node::Action(self.pipe("command", Kind::RightDelim)?)));
        }
        self.next();
        match &token.text[..] {
            "define" => self.define(),
            "block" => self.block(),
            "template" => self.template(),
            "end" => self.expect_close("end").map(|()| Item::End),
            "else" => {
                let token = self.peek_word();
                if !matches!(&token.text[..], "if" | "with") || token.kind != Kind::Keyword {
                    self.expect_close("else")?;
                }
                Ok(Item::Else)
            }
            word @ ("break" | "continue") => {
                self.expect_close(&format!("{{{{{word}}}}}"))?;
                if self.ranges == 0 {
                    return Err(refusal(self.line, format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                Ok(Item::Node(if word == "break" { Node::Break } else { Node::Continue }))
            }
            word => Ok(Item::Node(self.control(word)?)),
        }
    }

    /// `if`, `with` and `range`, to their end.
    fn control(&mut self, word: &str) -> Parsed<Node> {
        let known = self.variables.len();
        let pipe = self.pipe(word, Kind::RightDelim)?;
        self.ranges += usize::from(word == "range");
        let (then, end) = self.list()?;
        self.ranges -= usize::from(word == "range");
        let mut otherwise = Vec::new();
        if matches!(end, Item::Else) {
            let token = self.peek_word();
            if token.kind == Kind::Keyword && token.text == word && word != "range" {
                self.next();
                otherwise.push(self.control(word)?);
            } else {
                let (list, end) = self.list()?;
                if matches!(end, Item::Else) {
                    return Err(refusal(self.line, "expected end; found {{else}}"));
                }
                otherwise = list;
            }
        }
        self.variables.truncate(known);
        Ok(match word {
            "if" => Node::If { pipe, then, otherwise },
            "with" => Node::With { pipe, then, otherwise },
            _ => Node::Range { pipe, each: then, otherwise },
        })
    }

    /// Up to an end or an else.
    fn list(&mut self) -> Parsed<(Vec<Node>, Item)> {
        let mut nodes = Vec::new();
        while self.peek_word().kind != Kind::Eof {
            match self.item()? {
                Item::Node(node) => nodes.push(node),
                Item::Defined => return Err(refusal(self.line, "unexpected <define> in command")),
                end => return Ok((nodes, end)),
            }
        }
        Err(refusal(self.line, "unexpected EOF"))
    }

    fn name_of(&mut self, context: &str) -> Parsed<(usize, String)> {
        let token = self.next_word();
        match token.kind {
            Kind::String | Kind::RawString => {
                Ok((token.at, unquoted(&token.text).map_err(|reason| refusal(self.line, reason))?))
            }
            _ => Err(self.unexpected(&token, context)),
        }
    }

    fn define(&mut self) -> Parsed<Item> {
        let (_, name) = self.name_of("define clause")?;
        self.expect_close("define clause")?;
        self.body(name, "define clause")?;
        Ok(Item::Defined)
    }

    fn body(&mut self, name: String, context: &str) -> Parsed<()> {
        let outer = std::mem::replace(&mut self.variables, vec!["$".into()]);
        let (nodes, end) = self.list()?;
        self.variables = outer;
        if matches!(end, Item::Else) {
            return Err(refusal(self.line, format!("unexpected {{{{else}}}} in {context}")));
        }
        self.tree.defined.insert(name, nodes);
        Ok(())
    }

    fn block(&mut self) -> Parsed<Item> {
        let (at, name) = self.name_of("block clause")?;
        let pipe = Some(self.pipe("block clause", Kind::RightDelim)?);
        self.body(name.clone(), "block clause")?;
        Ok(Item::Node(Node::Template { at, name, pipe }))
    }

    fn template(&mut self) -> Parsed<Item> {
        let (at, name) = self.name_of("template clause")?;
        let mut pipe = None;
        if self.peek_word().kind == Kind::RightDelim {
            self.next();
        } else {
            pipe = Some(self.pipe("template clause", Kind::RightDelim)?);
        }
        Ok(Item::Node(Node::Template { at, name, pipe }))
    }

    fn pipe(&mut self, context: &str, end: Kind) -> Parsed<Pipe> {
        let mut pipe = Pipe::default();
        self.declarations(&mut pipe, context)?;
        loop {
            let token = self.peek_word();
            match token.kind {
                kind if kind == end => {
                    self.next();
                    check(&pipe, context).map_err(|reason| refusal(self.line, reason))?;
                    return Ok(pipe);
                }
                Kind::Bool
                | Kind::CharConstant
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::LeftParen => pipe.commands.push(self.command()?),
                _ => return Err(self.unexpected(&token, context)),
            }
        }
    }

    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Parsed<()> {
        while self.peek_word().kind == Kind::Variable {
            let behind = self.tokens.iter().skip(1).find(|token| token.kind != Kind::Space);
            let (kind, comma) = behind.map_or((Kind::Eof, false), |token| (token.kind, token.text == ","));
            let declares = matches!(kind, Kind::Assign | Kind::Declare);
            if !(declares || kind == Kind::Char && comma) {
                return Ok(());
            }
            let name = self.next().text;
            self.next_word();
            pipe.variables.push(name.clone());
            self.variables.push(name);
            if declares {
                pipe.assigns = kind == Kind::Assign;
                return Ok(());
            }
            if context != "range" || pipe.variables.len() > 1 {
                return Err(refusal(self.line, format!("too many declarations in {context}")));
            }
            if !matches!(self.peek_word().kind, Kind::Variable | Kind::RightDelim | Kind::RightParen) {
                return Err(refusal(self.line, "range can only initialize variables"));
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Parsed<Command> {
        let at = self.peek_word().at;
        let mut words = Vec::new();
        loop {
            self.skip_space();
            words.extend(self.operand()?);
            let token = self.peek();
            match token.kind {
                Kind::Space => {
                    self.next();
                }
                Kind::RightDelim | Kind::RightParen => break,
                Kind::Pipe => {
                    self.next();
                    break;
                }
                _ => {
                    return Err(self.unexpected(&token, "operand"));
                }
            }
        }
        if words.is_empty() { Err(refusal(self.line, "empty command")) } else { Ok(Command { at, words }) }
    }

    fn operand(&mut self) -> Parsed<Option<Word>> {
        let Some(word) = self.term()? else { return Ok(None) };
        let first = self.peek();
        if first.kind != Kind::Field {
            return Ok(Some(word));
        }
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(self.next().text[1..].to_owned());
        }
        let term = match word.term {
            Term::Field(mut first) => {
                first.extend(names);
                Term::Field(first)
            }
            Term::Variable(name, mut first) => {
                first.extend(names);
                Term::Variable(name, first)
            }
            Term::Constant(..) | Term::Nil | Term::Dot => {
                let text = crate::format::quote(&word.to_string());
                return Err(refusal(self.line, format!("unexpected . after term {text}")));
            }
            _ => Term::Chain(Box::new(word), names),
        };
        Ok(Some(Word { at: first.at, term }))
    }

    fn term(&mut self) -> Parsed<Option<Word>> {
        let token = self.peek_word();
        let term = match token.kind {
            Kind::Identifier if !functions::is_known(&token.text) => {
                return Err(refusal(self.line, format!("function {} not defined", crate::format::quote(&token.text))));
            }
            Kind::Identifier => Term::Function(token.text.clone()),
            Kind::Dot => Term::Dot,
            Kind::Nil => Term::Nil,
            Kind::Field => Term::Field(vec![token.text[1..].to_owned()]),
            Kind::Variable if !self.variables.contains(&token.text) => {
                return Err(refusal(self.line, format!("undefined variable {}", crate::format::quote(&token.text))));
            }
            Kind::Variable => Term::Variable(token.text.clone(), Vec::new()),
            Kind::Bool => Term::Constant(Value::bool(token.text == "true"), token.text.clone()),
            Kind::CharConstant | Kind::Number => {
                Term::Constant(constant(&token.text).map_err(|reason| refusal(self.line, reason))?, token.text.clone())
            }
            Kind::String | Kind::RawString => Term::Constant(
                Value::string(&unquoted(&token.text).map_err(|reason| refusal(self.line, reason))?),
                token.text.clone(),
            ),
            Kind::LeftParen => {
                self.next();
                let pipe = self.pipe("parenthesized pipeline", Kind::RightParen)?;
                return Ok(Some(Word { at: token.at, term: Term::Pipe(pipe) }));
            }
            _ => return Ok(None),
        };
        self.next();
        Ok(Some(Word { at: token.at, term }))
    }
}

fn refusal(line: usize, reason: impl Into<String>) -> Refusal {
    Refusal { line, reason: reason.into() }
}

/// Why a pipeline cannot be one.
fn check(pipe: &Pipe, context: &str) -> Result<(), String> {
    if pipe.commands.is_empty() {
        return Err(format!("missing value for {context}"));
    }
    let stuck = |command: &Command| matches!(command.words[0].term, Term::Dot | Term::Nil | Term::Constant(..));
    match pipe.commands.iter().skip(1).position(stuck) {
        Some(at) => Err(format!("non executable command in pipeline stage {}", at + 2)),
        None => Ok(()),
    }
}

fn unquoted(text: &str) -> Result<String, String> {
    unquote(text).ok_or_else(|| "invalid syntax".to_owned())
}

/// The value of a number or of a letter in single quotes.
fn constant(text: &str) -> Result<Value, String> {
    if text.starts_with('\'') {
        let inner = text.trim_matches('\'');
        let single = unquote(&format!("\"{}\"", inner.replace('"', "\\\"").replace("\\'", "'")));
        let mut characters = single.as_deref().unwrap_or_default().chars();
        return match (characters.next(), characters.next()) {
            (Some(c), None) => Ok(Value::int(i64::from(c as u32))),
            _ => Err(format!("malformed character constant: {text}")),
        };
    }
    number(text).ok_or_else(|| format!("illegal number syntax: {}", crate::format::quote(text)))
}

/// A number in Go's notation.
fn number(text: &str) -> Option<Value> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = digits.to_ascii_lowercase();
    let based = [("0x", 16), ("0b", 2), ("0o", 8)]
        .into_iter()
        .find_map(|(prefix, base)| lower.strip_prefix(prefix).map(|rest| i64::from_str_radix(rest, base)));
    let octal = lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|digit| digit.is_ascii_digit());
    let whole = match based {
        Some(number) => Some(number.ok()?),
        None if octal => Some(i64::from_str_radix(&lower, 8).ok()?),
        None => lower.parse::<i64>().ok(),
    };
    match whole {
        Some(number) => Some(Value::int(if negative { -number } else { number })),
        None => lower.parse::<f64>().ok().map(|number| Value::float(if negative { -number } else { number })),
    }
}

/// Go's `strconv.Unquote`.
fn unquote(text: &str) -> Option<String> {
    if let Some(raw) = text.strip_prefix('`') {
        return Some(raw.strip_suffix('`')?.replace('\r', ""));
    }
    let mut characters = text.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut bytes = Vec::new();
    while let Some(c) = characters.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = characters.next()?;
        let mut coded = |digits: usize| -> Option<u32> {
            let text: String = characters.by_ref().take(digits).collect();
            (text.len() == digits).then(|| u32::from_str_radix(&text, 16).ok()).flatten()
        };
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' => bytes.push(b'\\'),
            '"' => bytes.push(b'"'),
            'x' => bytes.push(coded(2)? as u8),
            letter @ ('u' | 'U') => {
                let c = char::from_u32(coded(if letter == 'u' { 4 } else { 8 })?)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            digit @ '0'..='3' => {
                let rest: String = characters.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&format!("{digit}{rest}"), 8).ok()?);
            }
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
