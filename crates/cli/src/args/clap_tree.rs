//! The tables as clap commands, from which completions and manual pages are made.
//!
//! What clap hides from its own help it still completes: what is not offered is therefore not in the tree.

use clap::{Arg, ArgAction, Command};

use super::later::LATER;
use super::tables::{self, COMMANDS, GLOBAL, GROUPS, Verb};
use super::{Flag, Kind, help};

/// Who reads what is made of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A shell: wants words.
    Shell,
    /// A person: wants usages, and to know what is missing.
    Person,
}

/// The whole program.
pub fn program(name: &'static str, reader: Reader) -> Command {
    let mut root = Command::new(name)
        .about("Run and manage containers")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_flag(true)
        .disable_version_flag(true);
    root = with_flags(root, GLOBAL.iter().collect());
    root = with_usage(root, reader, format!("{name} [OPTIONS] COMMAND"));
    for group in GROUPS {
        let command = Command::new(group.name).about(group.about).disable_help_flag(true);
        root = root.subcommand(with_usage(command, reader, format!("{name} {} COMMAND", group.name)));
    }
    for command in COMMANDS.iter().filter(|command| !command.hidden) {
        for path in command.paths {
            root = insert(root, name, path, command, reader);
        }
    }
    // A shell does not offer what is not there; a person wants to know what for.
    for later in LATER.iter().filter(|_| reader == Reader::Person) {
        for path in later.paths {
            let leaf = Command::new(path.rsplit(' ').next().unwrap_or(path)).about(later.about).disable_help_flag(true);
            let leaf = with_usage(leaf, reader, format!("{name} {path} {}", later.usage));
            root = below(root, path, leaf.after_help(format!("Not supported yet: it waits for {}", later.wait)));
        }
    }
    root
}

fn below(root: Command, path: &'static str, leaf: Command) -> Command {
    match path.split_once(' ') {
        None => root.subcommand(leaf),
        Some((group, _)) => root.mut_subcommand(group, |parent| parent.subcommand(leaf)),
    }
}

fn insert(root: Command, program: &str, path: &'static str, command: &tables::Command, reader: Reader) -> Command {
    let name = path.rsplit(' ').next().unwrap_or(path);
    let mut leaf = Command::new(name).about(command.about).disable_help_flag(true);
    leaf = with_flags(leaf, command.all_flags().collect());
    leaf = match reader {
        Reader::Person => with_usage(leaf, reader, format!("{program} {path} {}", command.usage)),
        Reader::Shell if command.verb == Verb::Completion => {
            leaf.arg(Arg::new("SHELL").value_parser(crate::complete::scripts::SHELLS))
        }
        Reader::Shell => leaf.arg(Arg::new("ARGUMENTS").num_args(0..)),
    };
    below(root, path, leaf)
}

fn with_usage(command: Command, reader: Reader, usage: String) -> Command {
    if reader == Reader::Person { command.override_usage(usage) } else { command }
}

fn with_flags(command: Command, flags: Vec<&Flag>) -> Command {
    let shown = flags.iter().copied().filter(|flag| help::is_shown(flag));
    let command = command.args(shown.map(arg));
    match help::not_yet(&flags) {
        Some(sentence) => command.after_help(sentence),
        None => command,
    }
}

fn arg(flag: &Flag) -> Arg {
    let mut arg = Arg::new(flag.long).long(flag.long).help(help::described(flag));
    if let Some(letter) = flag.short {
        arg = arg.short(letter);
    }
    match flag.kind {
        Kind::Bool => arg.action(ArgAction::SetTrue),
        _ => arg.action(ArgAction::Append).value_name(flag.value_name),
    }
}
