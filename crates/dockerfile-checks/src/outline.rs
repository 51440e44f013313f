//! What a stage takes: arguments, secrets, agents (dockerfile2llb, outline.go).

use std::collections::{BTreeMap, BTreeSet};

use dockerfile::{Arg, Mount, MountKind};

use crate::documents::{self, Outline};
use crate::report::Lines;

/// An argument.
#[derive(Clone, Debug, Default)]
pub(crate) struct Argument {
    name: String,
    value: String,
    description: String,
    /// The arguments that its value is made of.
    made_of: BTreeSet<String>,
    lines: Lines,
}

impl Argument {
    pub(crate) fn new(
        arg: &Arg,
        value: Option<String>,
        made_of: BTreeSet<String>,
        comments: &[String],
        lines: Lines,
    ) -> Argument {
        let value = value.unwrap_or_default();
        Argument { name: arg.name.clone(), value, description: comment(comments, &arg.name), made_of, lines }
    }
}

/// What a comment says of a name: the words behind it.
pub(crate) fn comment(comments: &[String], name: &str) -> String {
    let of_name = |line: &String| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    if name.is_empty() { String::new() } else { comments.iter().find_map(of_name).unwrap_or_default() }
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capture {
    arguments: BTreeMap<String, Argument>,
    used: BTreeSet<String>,
    /// Secrets and agents, whether they must be there, and where.
    secrets: BTreeMap<String, (bool, Lines)>,
    agents: BTreeMap<String, (bool, Lines)>,
    /// What the arguments come to, in bytes.
    pub(crate) bytes: usize,
}

impl Capture {
    /// The names of all arguments.
    pub(crate) fn declared(&self) -> BTreeSet<&str> {
        self.arguments.keys().map(String::as_str).collect()
    }

    /// An `ARG`.
    pub(crate) fn declare(&mut self, mut argument: Argument) {
        // One that is made of its own value before is made of what that was made of.
        if argument.made_of.remove(&argument.name)
            && let Some(before) = self.arguments.get(&argument.name)
        {
            argument.made_of.extend(before.made_of.iter().cloned());
        }
        self.bytes += argument.name.len() + argument.value.len() + argument.description.len();
        self.arguments.insert(argument.name.clone(), argument);
    }

    pub(crate) fn uses(&mut self, name: &str) {
        self.used.insert(name.to_owned());
    }

    /// What a command has mounted.
    pub(crate) fn mount(&mut self, mount: &Mount, lines: Lines) {
        let id = if mount.source.is_empty() { &mount.id } else { &mount.source };
        let (all, usual) = match mount.kind {
            MountKind::Secret => (&mut self.secrets, mount.target.rsplit('/').next().unwrap_or_default()),
            MountKind::Ssh => (&mut self.agents, "default"),
            _ => return,
        };
        let id = if id.is_empty() { usual } else { id };
        all.entry(id.to_owned()).or_insert((mount.required, lines));
    }

    /// The names that are used, with those that their values are made of.
    fn all_used(&self) -> BTreeSet<&str> {
        let (mut all, mut todo): (BTreeSet<&str>, Vec<&str>) =
            (BTreeSet::new(), self.used.iter().map(String::as_str).collect());
        while let Some(name) = todo.pop() {
            if all.insert(name) {
                let argument = self.arguments.get(name);
                todo.extend(argument.into_iter().flat_map(|argument| argument.made_of.iter().map(String::as_str)));
            }
        }
        all
    }
}

/// The outline of a stage: what it and those that it needs take. `captures` has its own in front.
pub(crate) fn outline(name: &str, description: String, text: &str, captures: &[&Capture]) -> Outline {
    let (mut arguments, mut secrets, mut agents) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for capture in captures {
        for name in capture.all_used() {
            if let Some(argument) = capture.arguments.get(name) {
                arguments.entry(name).or_insert(argument);
            }
        }
        for (name, found) in &capture.secrets {
            secrets.entry(name).or_insert(*found);
        }
        for (name, found) in &capture.agents {
            agents.entry(name).or_insert(*found);
        }
    }
    let mut arguments: Vec<&Argument> = arguments.into_values().collect();
    arguments.sort_by_key(|argument| argument.lines.0);
    let mounted = |all: BTreeMap<&String, (bool, Lines)>| {
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(_, (_, lines))| lines.0);
        let told = all.into_iter().map(|(name, (required, lines))| documents::Mounted {
            name: name.clone(),
            required,
            location: documents::Location::of(lines),
        });
        told.collect()
    };
    Outline {
        name: name.to_owned(),
        description,
        args: arguments.into_iter().map(told).collect(),
        secrets: mounted(secrets),
        ssh: mounted(agents),
        sources: vec![documents::Bytes(text.as_bytes().to_vec())],
    }
}

fn told(argument: &Argument) -> documents::Argument {
    documents::Argument {
        name: argument.name.clone(),
        description: argument.description.clone(),
        value: argument.value.clone(),
        location: documents::Location::of(argument.lines),
    }
}
