//! Help texts, in Docker's layout.

use std::fmt::Write;

use super::tables::{Arity, COMMANDS, Command, GLOBAL, GROUPS, Group};
use super::{Flag, Kind, Support};

/// Help of a command, called as `path`.
pub fn of_command(program: &str, path: &str, command: &Command) -> String {
    let mut text = format!("Usage:  {program} {path} {}\n\n{}\n", command.usage, command.about);
    if command.paths.len() > 1 {
        let names: Vec<String> = command.paths.iter().rev().map(|path| format!("{program} {path}")).collect();
        let _ = write!(text, "\nAliases:\n  {}\n", names.join(", "));
    }
    let flags: Vec<&Flag> = command.all_flags().collect();
    options(&mut text, "Options", flags);
    text
}

/// Help of the whole program.
pub fn of_program(program: &str) -> String {
    let mut text = format!("Usage:  {program} [OPTIONS] COMMAND\n\nRun and manage containers\n");
    let rows = COMMANDS.iter().filter(|command| !command.hidden && !command.paths[0].contains(' '));
    rows_of(&mut text, "Commands", rows.map(|command| (command.paths[0], command.about)));
    rows_of(&mut text, "Management Commands", GROUPS.iter().map(|group| (group.name, group.about)));
    options(&mut text, "Global Options", GLOBAL.iter().collect());
    let _ = write!(text, "\nRun '{program} COMMAND --help' for more information on a command.\n");
    text
}

/// Help of a group.
pub fn of_group(program: &str, group: &Group) -> String {
    let mut text = format!("Usage:  {program} {} COMMAND\n\n{}\n", group.name, group.about);
    let rows = COMMANDS.iter().filter_map(|command| {
        let path = command.paths.iter().find_map(|path| path.strip_prefix(group.name)?.strip_prefix(' '))?;
        Some((path, command.about))
    });
    rows_of(&mut text, "Commands", rows);
    let _ = write!(text, "\nRun '{program} {} COMMAND --help' for more information on a command.\n", group.name);
    text
}

/// What follows the sentence about a wrong flag.
pub fn hint(program: &str, path: &str, command: Option<&Command>) -> String {
    let (space, usage) = match command {
        Some(command) => (" ", command.usage),
        None => ("", "[OPTIONS] COMMAND [ARG...]"),
    };
    format!("\n\nUsage:  {program}{space}{path} {usage}\n\nRun '{program}{space}{path} --help' for more information")
}

/// The same for a group.
pub fn group_hint(program: &str, group: &str) -> String {
    format!("\n\nUsage:  {program} {group}\n\nRun '{program} {group} --help' for more information")
}

/// The sentence about a wrong number of positionals, and its usage; `None` if the number is right.
pub fn arity_complaint(program: &str, path: &str, command: &Command, count: usize) -> Option<String> {
    let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
    let (complaint, verb) = match command.arity {
        Arity::None if count > 0 => ("accepts no arguments".to_owned(), "Run"),
        Arity::Between(least, most) if !(least..=most).contains(&count) => {
            (format!("requires at least {least} and at most {most} arguments"), "Run")
        }
        Arity::Max(n) if count > n => (format!("requires at most {n} {}", plural(n)), "See"),
        Arity::Min(n) if count < n => (format!("requires at least {n} {}", plural(n)), "See"),
        Arity::Exactly(n) if count != n => (format!("requires {n} {}", plural(n)), "Run"),
        _ => return None,
    };
    let full = format!("{program} {path}");
    let usage = command.usage;
    Some(format!(
        "{program}: '{full}' {complaint}\n\nUsage:  {full} {usage}\n\n{verb} '{full} --help' for more information"
    ))
}

fn rows_of<'a>(text: &mut String, title: &str, rows: impl Iterator<Item = (&'a str, &'a str)>) {
    let _ = write!(text, "\n{title}:\n");
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, about) in rows {
        let _ = writeln!(text, "  {name:width$}   {about}");
    }
}

fn options(text: &mut String, title: &str, mut flags: Vec<&Flag>) {
    flags.retain(|flag| flag.support != Support::Hidden && flag.long != "help");
    flags.sort_by_key(|flag| flag.long);
    if flags.is_empty() {
        return;
    }
    let _ = write!(text, "\n{title}:\n");
    let left = |flag: &Flag| {
        let letter = flag.short.map(|letter| format!("-{letter}, ")).unwrap_or_else(|| "    ".to_owned());
        let space = if flag.value_name.is_empty() { "" } else { " " };
        format!("  {letter}--{}{space}{}", flag.long, flag.value_name)
    };
    let width = flags.iter().map(|flag| left(flag).len()).max().unwrap_or(0);
    for flag in flags {
        let _ = writeln!(text, "{:width$}   {}{}", left(flag), flag.help, remark(flag));
    }
}

fn remark(flag: &Flag) -> String {
    let unset = matches!(flag.default, "" | "false" | "0" | "[]" | "map[]" | "0s");
    let default = match flag.kind {
        _ if unset => String::new(),
        Kind::Text => format!(" (default {:?})", flag.default),
        _ => format!(" (default {})", flag.default),
    };
    let later = if flag.support == Support::Later { " (not supported yet)" } else { "" };
    format!("{default}{later}")
}
