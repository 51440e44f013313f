//! The tables as clap commands, from which completions and manual pages are made.

use clap::{Arg, ArgAction, Command};

use super::tables::{self, COMMANDS, GLOBAL, GROUPS};
use super::{Flag, Kind, Support};

/// The whole program.
pub fn program(name: &'static str) -> Command {
    let mut root = Command::new(name)
        .about("Run and manage containers")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(GLOBAL.iter().map(arg));
    for group in GROUPS {
        root = root.subcommand(Command::new(group.name).about(group.about).disable_help_flag(true));
    }
    for command in COMMANDS {
        for path in command.paths {
            root = insert(root, path, command);
        }
    }
    root
}

fn insert(root: Command, path: &'static str, command: &tables::Command) -> Command {
    match path.split_once(' ') {
        None => root.subcommand(leaf(path, command)),
        Some((group, name)) => root.mut_subcommand(group, |parent| parent.subcommand(leaf(name, command))),
    }
}

fn leaf(name: &'static str, command: &tables::Command) -> Command {
    let positional = Arg::new("ARGUMENTS").num_args(0..).help(command.usage);
    Command::new(name)
        .about(command.about)
        .hide(command.hidden)
        .disable_help_flag(true)
        .args(command.all_flags().map(arg))
        .arg(positional)
}

fn arg(flag: &Flag) -> Arg {
    let mut arg = Arg::new(flag.long).long(flag.long).help(flag.help).hide(flag.support == Support::Hidden);
    if let Some(letter) = flag.short {
        arg = arg.short(letter);
    }
    match flag.kind {
        Kind::Bool => arg.action(ArgAction::SetTrue),
        _ => arg.action(ArgAction::Append).value_name(flag.value_name),
    }
}
