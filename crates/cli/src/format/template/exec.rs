//! Applies a tree to a value, with the steps and the sentences of Go's `text/template`.

use std::fmt::Display;

use super::functions::{self, Parameter, Signature};
use super::node::{Command, Node, Pipe, Term, Word};
use super::parse::Tree;
use super::printing;
use super::types;
use super::value::{Data, Value};
use super::{Format, FormatError, Mismatch};
use crate::format::quote;

/// How deep templates may call each other: Go's sentence, with a depth that our stack has.
const DEPTH_MAX: usize = 100;

/// What a template says of a value, as far as it came; and what went wrong.
pub(super) fn apply(format: &Format, value: Value, strict: bool) -> (String, Result<(), FormatError>) {
    let variables = vec![("$".to_owned(), value.clone())];
    let mut state = State {
        format,
        tree: &format.tree,
        name: format.name,
        strict,
        variables,
        out: String::new(),
        place: None,
        depth: 0,
    };
    let done = state.nodes(&value, &format.tree.root).map(drop);
    (state.out, done)
}

struct State<'a> {
    format: &'a Format,
    tree: &'a Tree,
    /// Of the template that is applied: sentences tell it.
    name: &'a str,
    /// A missing key is a mistake.
    strict: bool,
    variables: Vec<(String, Value)>,
    out: String,
    /// The part that is at work, for sentences.
    place: Option<(usize, &'a dyn Display)>,
    depth: usize,
}

/// How a list of parts ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

type Outcome<T> = Result<T, FormatError>;

/// What stands before `|`.
type Final = Option<Value>;

/// A mistake in the part that begins at this offset.
fn refusal(format: &Format, name: &str, at: usize, construct: &str, reason: Mismatch) -> FormatError {
    let before = format.source.get(..at).unwrap_or("");
    let line = 1 + before.matches('\n').count();
    let column = at - before.rfind('\n').map_or(0, |newline| newline + 1);
    FormatError::Execute {
        parsed_as: format.name,
        name: name.into(),
        line,
        column,
        construct: construct.into(),
        reason,
    }
}

impl<'a> State<'a> {
    fn at(&mut self, word: &'a Word) {
        self.place = Some((word.at, word));
    }

    fn refuse(&self, reason: Mismatch) -> FormatError {
        let (at, construct) = self.place.map_or((0, String::new()), |(at, part)| (at, part.to_string()));
        refusal(self.format, self.name, at, &construct, reason)
    }

    fn fail<T>(&self, sentence: impl Into<String>) -> Outcome<T> {
        Err(self.refuse(Mismatch::Refused(sentence.into())))
    }

    fn nodes(&mut self, dot: &Value, nodes: &'a [Node]) -> Outcome<Flow> {
        for node in nodes {
            let flow = self.node(dot, node)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, dot: &Value, node: &'a Node) -> Outcome<Flow> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(dot, pipe)?;
                if pipe.variables.is_empty() {
                    self.print(&value);
                }
            }
            Node::If { pipe, then, otherwise } => {
                let known = self.variables.len();
                let value = self.pipe(dot, pipe)?;
                let flow = self.nodes(dot, if value.truth() { then } else { otherwise });
                self.variables.truncate(known);
                return flow;
            }
            Node::With { pipe, then, otherwise } => {
                let known = self.variables.len();
                let value = self.pipe(dot, pipe)?;
                let flow = if value.truth() { self.nodes(&value, then) } else { self.nodes(dot, otherwise) };
                self.variables.truncate(known);
                return flow;
            }
            Node::Range { pipe, each, otherwise } => return self.range(dot, pipe, each, otherwise),
            Node::Template { at, name, pipe } => self.template(dot, *at, name, pipe.as_ref())?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn print(&mut self, value: &Value) {
        let text = match value.is_nothing() {
            true => "<no value>".to_owned(),
            false => printing::plain(value.pointee()),
        };
        self.out.push_str(&text);
    }

    fn range(&mut self, dot: &Value, pipe: &'a Pipe, each: &'a [Node], otherwise: &'a [Node]) -> Outcome<Flow> {
        let known = self.variables.len();
        let value = self.pipe(dot, pipe)?.pointee().clone();
        let pairs: Vec<(Value, Value)> = match &value.data {
            Data::List(items) => {
                let items = items.iter().flat_map(|items| items.iter()).enumerate();
                items.map(|(at, item)| (Value::int(at as i64), item.clone())).collect()
            }
            Data::Map(members) => {
                let key = types::key_of(value.type_name);
                let key = |name: &str| Value { type_name: key, ..Value::string(name) };
                let members = members.iter().flat_map(|members| members.iter());
                members.map(|(name, member)| (key(name), member.clone())).collect()
            }
            Data::Int(_) | Data::Uint(_) if pipe.variables.len() > 1 => {
                let shown = printing::plain(&value);
                return self.fail(format!("can't use {shown} to iterate over more than one variable"));
            }
            Data::Int(count) => return self.count(dot, known, pipe, *count, each, otherwise),
            Data::Uint(count) => {
                return self.count(dot, known, pipe, i64::try_from(*count).unwrap_or(i64::MAX), each, otherwise);
            }
            Data::Nothing => Vec::new(),
            _ => return self.fail(format!("range can't iterate over {}", printing::plain(&value))),
        };
        if pairs.is_empty() {
            let flow = self.nodes(dot, otherwise);
            self.variables.truncate(known);
            return flow;
        }
        for (index, item) in pairs {
            if self.iteration(known, pipe, index, item, each)? == Flow::Break {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(Flow::On)
    }

    /// `{{range 3}}`
    fn count(
        &mut self,
        dot: &Value,
        known: usize,
        pipe: &'a Pipe,
        count: i64,
        each: &'a [Node],
        otherwise: &'a [Node],
    ) -> Outcome<Flow> {
        if count <= 0 {
            return self.nodes(dot, otherwise);
        }
        for number in 0..count {
            if self.iteration(known, pipe, Value::int(number), Value::int(number), each)? == Flow::Break {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(Flow::On)
    }

    fn iteration(&mut self, known: usize, pipe: &Pipe, index: Value, item: Value, each: &'a [Node]) -> Outcome<Flow> {
        let names = &pipe.variables;
        let values: &[&Value] = if names.len() > 1 { &[&index, &item] } else { &[&item] };
        for (name, value) in names.iter().zip(values) {
            match pipe.assigns {
                true => self.set(name, value),
                // The pipeline declared them; this iteration's stand in front.
                false => self.variables.push((name.clone(), (*value).clone())),
            }
        }
        let flow = self.nodes(&item, each);
        self.variables.truncate(known.max(1) + if pipe.assigns { 0 } else { names.len() });
        flow
    }

    fn set(&mut self, name: &str, value: &Value) {
        if let Some((_, place)) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            *place = value.clone();
        }
    }

    fn template(&mut self, dot: &Value, at: usize, name: &'a str, pipe: Option<&'a Pipe>) -> Outcome<()> {
        let Some(nodes) = self.tree.defined.get(name) else {
            let shown = pipe.map_or(String::new(), |pipe| format!(" {pipe}"));
            let construct = format!("{{{{template {}{shown}}}}}", quote(name));
            let reason = Mismatch::Refused(format!("template {} not defined", quote(name)));
            return Err(refusal(self.format, self.name, at, &construct, reason));
        };
        if self.depth == DEPTH_MAX {
            return self.fail(format!("exceeded maximum template depth ({DEPTH_MAX})"));
        }
        let dot = match pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::nothing(),
        };
        let variables = std::mem::replace(&mut self.variables, vec![("$".to_owned(), dot.clone())]);
        let outer = std::mem::replace(&mut self.name, name);
        self.depth += 1;
        self.nodes(&dot, nodes)?;
        self.depth -= 1;
        (self.variables, self.name) = (variables, outer);
        Ok(())
    }

    fn pipe(&mut self, dot: &Value, pipe: &'a Pipe) -> Outcome<Value> {
        let mut value = None;
        for command in &pipe.commands {
            let result = self.command(dot, command, value.take())?;
            value = Some(Value { boxed: false, ..result });
        }
        let value = value.unwrap_or_else(Value::nothing);
        for name in &pipe.variables {
            match pipe.assigns {
                true => self.set(name, &value),
                false => self.variables.push((name.clone(), value.clone())),
            }
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Value, command: &'a Command, last: Final) -> Outcome<Value> {
        let (first, rest) = (&command.words[0], &command.words[1..]);
        match &first.term {
            Term::Field(names) => {
                self.at(first);
                return self.chain(dot, dot.clone(), names, rest, last);
            }
            Term::Chain(inner, names) => {
                self.at(first);
                let receiver = self.value_of(dot, inner)?;
                return self.chain(dot, receiver, names, rest, last);
            }
            Term::Function(name) => return self.function(dot, name, first, (command.at, command), rest, last),
            Term::Variable(name, names) => {
                self.at(first);
                let value = self.variable(name);
                if !names.is_empty() {
                    return self.chain(dot, value, names, rest, last);
                }
                self.no_function(first, rest, &last)?;
                return Ok(value);
            }
            _ => {}
        }
        if !matches!(first.term, Term::Pipe(_)) {
            self.at(first);
        }
        self.no_function(first, rest, &last)?;
        match &first.term {
            Term::Pipe(pipe) => self.pipe(dot, pipe),
            Term::Dot => Ok(dot.clone()),
            Term::Constant(value, _) => Ok(value.clone()),
            _ => self.fail("nil is not a command"),
        }
    }

    fn no_function(&self, first: &Word, rest: &[Word], last: &Final) -> Outcome<()> {
        match rest.is_empty() && last.is_none() {
            true => Ok(()),
            false => self.fail(format!("can't give argument to non-function {first}")),
        }
    }

    fn variable(&self, name: &str) -> Value {
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        found.map_or_else(Value::nothing, |(_, value)| value.clone())
    }

    fn chain(
        &mut self,
        dot: &Value,
        receiver: Value,
        names: &'a [String],
        rest: &'a [Word],
        last: Final,
    ) -> Outcome<Value> {
        let Some((final_name, first)) = names.split_last() else { return Ok(receiver) };
        let mut receiver = receiver;
        for name in first {
            receiver = self.field(dot, receiver, name, &[], None)?;
        }
        self.field(dot, receiver, final_name, rest, last)
    }

    fn field(&mut self, dot: &Value, receiver: Value, name: &str, rest: &'a [Word], last: Final) -> Outcome<Value> {
        let given = rest.len() + usize::from(last.is_some());
        let target = receiver.pointee();
        match &target.data {
            Data::Nothing if receiver.boxed => {
                return self.fail(format!("nil pointer evaluating interface {{}}.{name}"));
            }
            Data::Nothing if self.strict => return self.fail(format!("nil data; no entry for key {}", quote(name))),
            Data::Nothing => return Ok(Value::nothing()),
            Data::Row(row) if name == "Label" && row.labels.is_some() => {
                return self.label(dot, receiver.clone(), rest, last);
            }
            Data::Row(row) => {
                if let Some((_, column)) = row.columns.iter().find(|(column, _)| column == name) {
                    return match given {
                        0 => Ok(column.clone()),
                        _ => self.fail(format!("wrong number of args for {name}: want 0 got {given}")),
                    };
                }
                if row.is_head {
                    return Ok(Value::nothing());
                }
            }
            Data::Struct(fields) => {
                let method = types::method(target, name);
                if let Some(value) = method.or_else(|| fields.field(name)) {
                    return match given {
                        0 => Ok(value),
                        _ => self.fail(format!("{name} has arguments but cannot be invoked as function")),
                    };
                }
            }
            Data::Map(members) => {
                if given > 0 {
                    return self.fail(format!("{name} is not a method but has arguments"));
                }
                return match members.as_ref().and_then(|members| members.get(name)) {
                    Some(value) => Ok(value.clone()),
                    None if self.strict => Err(self.refuse(Mismatch::NoKey(name.to_owned()))),
                    None => Ok(Value::nothing()),
                };
            }
            Data::Nil => return self.fail(format!("nil pointer evaluating {}.{name}", target.type_name)),
            _ => {
                if let Some(value) = types::method(target, name) {
                    return Ok(value);
                }
            }
        }
        let type_name = if receiver.boxed { "interface {}" } else { receiver.type_name }.to_owned();
        Err(self.refuse(Mismatch::NoField { field: name.to_owned(), type_name }))
    }

    /// `.Label "name"`
    fn label(&mut self, dot: &Value, receiver: Value, rest: &'a [Word], last: Final) -> Outcome<Value> {
        const SIGNATURE: Signature = Signature { fixed: &[Parameter::Text], rest: None };
        let name = "Label";
        let given = self.arguments(dot, name, &SIGNATURE, rest, last)?;
        let label = given.first().map(printing::plain).unwrap_or_default();
        let Data::Row(row) = &receiver.pointee().data else { return Ok(Value::nothing()) };
        let labels = row.labels.as_ref();
        Ok(Value::string(&match row.is_head {
            true => label.rsplit('.').next().unwrap_or("").replace(['-', '_'], " "),
            false => labels.and_then(|labels| labels.get(&label)).cloned().unwrap_or_default(),
        }))
    }

    fn function(
        &mut self,
        dot: &Value,
        name: &'a str,
        word: &'a Word,
        whole: (usize, &'a dyn Display),
        rest: &'a [Word],
        last: Final,
    ) -> Outcome<Value> {
        self.at(word);
        let is_head = matches!(&self.variables[0].1.data, Data::Row(row) if row.is_head);
        let signature = functions::signature(name, is_head);
        self.check_count(name, &signature, rest.len(), last.is_some())?;
        if matches!(name, "and" | "or") {
            return self.logic(dot, name == "or", rest, last);
        }
        let values = self.arguments(dot, name, &signature, rest, last)?;
        let shown = rest.first().map(ToString::to_string).unwrap_or_default();
        functions::call(name, &values, is_head, &shown).or_else(|sentence| {
            self.place = Some(whole);
            self.fail(format!("error calling {name}: {sentence}"))
        })
    }

    /// `and` and `or` look at no more than they need.
    fn logic(&mut self, dot: &Value, until: bool, rest: &'a [Word], last: Final) -> Outcome<Value> {
        let mut value = Value::nothing();
        for word in rest {
            value = self.argument(dot, word, Parameter::Any)?;
            if value.truth() == until {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    fn check_count(&self, name: &str, signature: &Signature, words: usize, has_final: bool) -> Outcome<()> {
        let (fixed, given) = (signature.fixed.len(), words + usize::from(has_final));
        match signature.rest {
            Some(_) if given < fixed => {
                self.fail(format!("wrong number of args for {name}: want at least {fixed} got {words}"))
            }
            None if given != fixed => self.fail(format!("wrong number of args for {name}: want {fixed} got {given}")),
            _ => Ok(()),
        }
    }

    fn arguments(
        &mut self,
        dot: &Value,
        name: &str,
        signature: &Signature,
        rest: &'a [Word],
        last: Final,
    ) -> Outcome<Vec<Value>> {
        self.check_count(name, signature, rest.len(), last.is_some())?;
        let wanted = |at: usize| signature.fixed.get(at).copied().or(signature.rest).unwrap_or(Parameter::Any);
        let mut values = Vec::with_capacity(rest.len() + 1);
        for (at, word) in rest.iter().enumerate() {
            values.push(self.argument(dot, word, wanted(at))?);
        }
        if let Some(last) = last {
            values.push(self.fitting(last, wanted(rest.len()))?);
        }
        Ok(values)
    }

    fn argument(&mut self, dot: &Value, word: &'a Word, wanted: Parameter) -> Outcome<Value> {
        self.at(word);
        let constant = match &word.term {
            Term::Constant(value, _) => value,
            Term::Nil => {
                return match wanted {
                    Parameter::Any => Ok(Value { boxed: true, ..Value::nothing() }),
                    wanted => self.fail(format!("cannot assign nil to {}", wanted.type_name())),
                };
            }
            _ => {
                let value = self.value_of(dot, word)?;
                return self.fitting(value, wanted);
            }
        };
        match (wanted, &constant.data) {
            (Parameter::Any, _) | (Parameter::Text, Data::String(_)) | (Parameter::Number, Data::Int(_)) => {
                Ok(constant.clone())
            }
            (Parameter::Text, _) => self.fail(format!("expected string; found {word}")),
            (Parameter::Number, _) => self.fail(format!("expected integer; found {word}")),
            (Parameter::Texts, _) => self.fail(format!("can't handle {word} for arg of type []string")),
        }
    }

    /// Of a word that is an argument, or has fields behind it.
    fn value_of(&mut self, dot: &Value, word: &'a Word) -> Outcome<Value> {
        match &word.term {
            Term::Dot => Ok(dot.clone()),
            Term::Field(names) => {
                self.at(word);
                self.chain(dot, dot.clone(), names, &[], None)
            }
            Term::Variable(name, names) => {
                self.at(word);
                let value = self.variable(name);
                self.chain(dot, value, names, &[], None)
            }
            Term::Pipe(pipe) => self.pipe(dot, pipe),
            Term::Function(name) => self.function(dot, name, word, (word.at, word), &[], None),
            Term::Chain(inner, names) => {
                self.at(word);
                let receiver = self.value_of(dot, inner)?;
                self.chain(dot, receiver, names, &[], None)
            }
            Term::Constant(value, _) => Ok(value.clone()),
            Term::Nil => self.fail("indirection through explicit nil in nil"),
        }
    }

    /// Go's rules of assignment, as far as functions of templates need them.
    fn fitting(&self, value: Value, wanted: Parameter) -> Outcome<Value> {
        let name = wanted.type_name();
        let fits = |value: &Value| match wanted {
            Parameter::Any => true,
            Parameter::Text | Parameter::Number => value.type_name == name,
            Parameter::Texts => matches!(value.type_name, "[]string" | "strslice.StrSlice"),
        };
        if value.is_nothing() && wanted != Parameter::Any {
            return match wanted {
                Parameter::Texts => Ok(Value::strings(std::iter::empty())),
                _ => self.fail(format!("invalid value; expected {name}")),
            };
        }
        match &value.data {
            _ if fits(&value) => Ok(value),
            Data::Pointer(inner) if fits(inner) => Ok((**inner).clone()),
            _ => self.fail(format!("wrong type for value; expected {name}; got {}", value.type_name)),
        }
    }
}
