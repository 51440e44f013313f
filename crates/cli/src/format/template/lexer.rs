//! Words of a template, as Go's `text/template/parse` cuts them.

use std::fmt;

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Error,
    Bool,
    /// A printable character that stands for itself: a comma.
    Char,
    CharConstant,
    Assign,
    Declare,
    Eof,
    Field,
    Identifier,
    LeftDelim,
    LeftParen,
    Number,
    Pipe,
    RawString,
    RightDelim,
    RightParen,
    Space,
    String,
    Text,
    Variable,
    /// `.`
    Dot,
    /// `nil`
    Nil,
    /// `block`, `break`, `if` and their like.
    Keyword,
}

/// A word.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Its offset in bytes.
    pub(super) at: usize,
    /// Its text; the sentence of an error.
    pub(super) text: String,
    /// Its line, from 1.
    pub(super) line: usize,
}

/// As sentences name it.
impl fmt::Display for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Eof => out.write_str("EOF"),
            Kind::Error => out.write_str(&self.text),
            Kind::Keyword | Kind::Dot | Kind::Nil => write!(out, "<{}>", self.text),
            _ if self.text.chars().count() > 10 => {
                let start: String = self.text.chars().take(10).collect();
                write!(out, "{}...", crate::format::quote(&start))
            }
            _ => out.write_str(&crate::format::quote(&self.text)),
        }
    }
}

const KEYWORDS: [&str; 10] = ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

/// Cuts a template; the last word is the end, or an error.
pub(super) fn cut(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { source, start: 0, at: 0, parens: 0, tokens: Vec::new() };
    lexer.text();
    lexer.tokens
}

struct Lexer<'a> {
    source: &'a str,
    start: usize,
    at: usize,
    parens: usize,
    tokens: Vec<Token>,
}

/// An error, which ends the work, was noted.
struct Failed;

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn emit(&mut self, kind: Kind) {
        let text = self.source[self.start..self.at].to_owned();
        let line = 1 + self.source[..self.start].matches('\n').count();
        self.tokens.push(Token { kind, at: self.start, text, line });
        self.start = self.at;
    }

    fn fail(&mut self, sentence: impl Into<String>) -> Failed {
        let line = 1 + self.source[..self.start].matches('\n').count();
        self.tokens.push(Token { kind: Kind::Error, at: self.start, text: sentence.into(), line });
        Failed
    }

    /// Text and actions, to the end.
    fn text(&mut self) {
        loop {
            let Some(found) = self.rest().find("{{") else {
                self.at = self.source.len();
                if self.at > self.start {
                    self.emit(Kind::Text);
                }
                self.emit(Kind::Eof);
                return;
            };
            let open = self.at + found;
            let trims = left_trims(&self.source[open + 2..]);
            self.at = open;
            if trims {
                self.at = self.start + self.source[self.start..open].trim_end_matches(is_space).len();
            }
            if self.at > self.start {
                self.emit(Kind::Text);
            }
            (self.start, self.at) = (open, open);
            if self.action(trims).is_err() {
                return;
            }
        }
    }

    /// From `{{` to behind `}}`.
    fn action(&mut self, trims: bool) -> Result<(), Failed> {
        let inside = self.at + if trims { 4 } else { 2 };
        if self.source[inside..].starts_with("/*") {
            return self.comment(inside);
        }
        self.at += 2;
        self.emit(Kind::LeftDelim);
        (self.start, self.at) = (inside, inside);
        self.parens = 0;
        loop {
            if let Some(trims) = self.right_delim() {
                if self.parens > 0 {
                    return Err(self.fail("unclosed left paren"));
                }
                self.close(trims);
                return Ok(());
            }
            self.word()?;
        }
    }

    fn comment(&mut self, inside: usize) -> Result<(), Failed> {
        let Some(end) = self.source[inside..].find("*/") else { return Err(self.fail("unclosed comment")) };
        (self.start, self.at) = (inside + end + 2, inside + end + 2);
        let Some(trims) = self.right_delim() else { return Err(self.fail("comment ends before closing delimiter")) };
        self.at += if trims { 4 } else { 2 };
        self.skip_after(trims);
        Ok(())
    }

    /// Whether `}}` is here, and whether it trims.
    fn right_delim(&self) -> Option<bool> {
        let rest = self.rest();
        let trimming = rest.starts_with(is_space) && rest.get(1..).is_some_and(|rest| rest.starts_with("-}}"));
        if trimming { Some(true) } else { rest.starts_with("}}").then_some(false) }
    }

    fn close(&mut self, trims: bool) {
        if trims {
            self.at += 2;
            self.start = self.at;
        }
        self.at += 2;
        self.emit(Kind::RightDelim);
        self.skip_after(trims);
    }

    fn skip_after(&mut self, trims: bool) {
        if trims {
            self.at += self.rest().len() - self.rest().trim_start_matches(is_space).len();
        }
        self.start = self.at;
    }

    fn word(&mut self) -> Result<(), Failed> {
        let Some(first) = self.bump() else { return Err(self.fail("unclosed action")) };
        let digit_follows = self.peek().is_some_and(|c| c.is_ascii_digit());
        match first {
            c if is_space(c) => self.space(),
            '=' => self.emit(Kind::Assign),
            ':' => match self.bump() {
                Some('=') => self.emit(Kind::Declare),
                _ => return Err(self.fail("expected :=")),
            },
            '|' => self.emit(Kind::Pipe),
            '"' => return self.quoted('"', Kind::String, "unterminated quoted string"),
            '\'' => return self.quoted('\'', Kind::CharConstant, "unterminated character constant"),
            '`' => return self.raw(),
            '$' => return self.named(Kind::Variable, Kind::Variable),
            '.' if !digit_follows => return self.named(Kind::Field, Kind::Dot),
            '.' | '+' | '-' | '0'..='9' => return self.number(),
            '(' => {
                self.parens += 1;
                self.emit(Kind::LeftParen);
            }
            ')' if self.parens == 0 => return Err(self.fail("unexpected right paren")),
            ')' => {
                self.parens -= 1;
                self.emit(Kind::RightParen);
            }
            c if is_word(c) => return self.identifier(),
            ' '..='~' => self.emit(Kind::Char),
            c => {
                return Err(self.fail(format!("unrecognized character in action: {}", unicode(c))));
            }
        }
        Ok(())
    }

    fn space(&mut self) {
        self.at = self.start;
        while self.peek().is_some_and(is_space) && self.right_delim().is_none() {
            self.at += 1;
        }
        self.emit(Kind::Space);
    }

    fn quoted(&mut self, end: char, kind: Kind, sentence: &str) -> Result<(), Failed> {
        loop {
            match self.bump() {
                Some('\\') if self.peek().is_some_and(|c| c != '\n') => _ = self.bump(),
                None | Some('\n' | '\\') => return Err(self.fail(sentence)),
                Some(c) if c == end => break,
                Some(_) => {}
            }
        }
        self.emit(kind);
        Ok(())
    }

    fn raw(&mut self) -> Result<(), Failed> {
        let Some(end) = self.rest().find('`') else { return Err(self.fail("unterminated raw quoted string")) };
        self.at += end + 1;
        self.emit(Kind::RawString);
        Ok(())
    }

    /// `.Name` and `$name`; nothing behind the first character is of another kind.
    fn named(&mut self, kind: Kind, alone: Kind) -> Result<(), Failed> {
        if self.ends_here() {
            self.emit(alone);
            return Ok(());
        }
        while self.peek().is_some_and(is_word) {
            self.bump();
        }
        self.check_end()?;
        self.emit(kind);
        Ok(())
    }

    fn identifier(&mut self) -> Result<(), Failed> {
        while self.peek().is_some_and(is_word) {
            self.bump();
        }
        self.check_end()?;
        let kind = match &self.source[self.start..self.at] {
            "true" | "false" => Kind::Bool,
            "nil" => Kind::Nil,
            word if KEYWORDS.contains(&word) => Kind::Keyword,
            _ => Kind::Identifier,
        };
        self.emit(kind);
        Ok(())
    }

    fn ends_here(&self) -> bool {
        match self.peek() {
            None | Some('.' | ',' | '|' | ':' | ')' | '(') => true,
            Some(c) => is_space(c) || self.rest().starts_with("}}"),
        }
    }

    fn check_end(&mut self) -> Result<(), Failed> {
        match self.peek() {
            Some(c) if !self.ends_here() => Err(self.fail(format!("bad character {}", unicode(c)))),
            _ => Ok(()),
        }
    }

    fn number(&mut self) -> Result<(), Failed> {
        self.at = self.start;
        self.accept("+-");
        let (mut digits, mut exponent) = ("0123456789_", "eE");
        if self.accept("0") {
            if self.accept("xX") {
                (digits, exponent) = ("0123456789abcdefABCDEF_", "pP");
            } else if self.accept("oO") {
                (digits, exponent) = ("01234567_", "");
            } else if self.accept("bB") {
                (digits, exponent) = ("01_", "");
            }
        }
        self.accept_run(digits);
        if self.accept(".") {
            self.accept_run(digits);
        }
        if self.accept(exponent) {
            self.accept("+-");
            self.accept_run("0123456789_");
        }
        self.accept("i");
        if self.peek().is_some_and(is_word) {
            self.bump();
            let text = crate::format::quote(&self.source[self.start..self.at]);
            return Err(self.fail(format!("bad number syntax: {text}")));
        }
        self.emit(Kind::Number);
        Ok(())
    }

    fn accept(&mut self, any: &str) -> bool {
        let here = self.peek().is_some_and(|c| any.contains(c));
        self.at += usize::from(here);
        here
    }

    fn accept_run(&mut self, any: &str) {
        while self.accept(any) {}
    }
}

fn left_trims(inside: &str) -> bool {
    inside.strip_prefix('-').is_some_and(|rest| rest.starts_with(is_space))
}

/// What Go's templates take for a blank.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Go's `%#U`.
fn unicode(c: char) -> String {
    format!("U+{:04X} '{c}'", c as u32)
}
