//! Help texts, in Docker's layout.

use std::fmt::Write;

use super::later::{LATER, Later};
use super::tables::{Arity, COMMANDS, COMMON, Command, GLOBAL, GROUPS, Group, Section};
use super::{Flag, Kind, Parsed, Support};

/// Width of what is wrapped: a terminal's at its smallest.
const COLUMNS: usize = 80;

/// Help of a command, called as `path`.
pub fn of_command(program: &str, path: &str, command: &Command) -> String {
    let mut text = format!("Usage:  {program} {path} {}\n\n{}\n", command.usage, command.about);
    if command.paths.len() > 1 {
        let names: Vec<String> = command.paths.iter().rev().map(|path| format!("{program} {path}")).collect();
        let _ = write!(text, "\nAliases:\n  {}\n", names.join(", "));
    }
    let flags: Vec<&Flag> = command.all_flags().collect();
    options(&mut text, "Options", &flags);
    text
}

/// Help of a command that is not there yet.
pub fn of_later(program: &str, path: &str, later: &Later) -> String {
    let usage = format!("{program} {path} {}", later.usage);
    format!("Usage:  {}\n\n{}\n\nNot supported yet: it waits for {}\n", usage.trim_end(), later.about, later.wait)
}

/// Help of the whole program.
pub fn of_program(program: &str) -> String {
    let mut text = format!("Usage:  {program} [OPTIONS] COMMAND\n\nRun and manage containers\n");
    let mut rows = rows_below("");
    let mut common = Vec::new();
    for name in COMMON {
        common.extend(rows.extract_if(.., |(row, _)| row == name));
    }
    rows_of(&mut text, "Common Commands", &common);
    for (title, section) in [("Management Commands", Section::Management), ("Swarm Commands", Section::Swarm)] {
        let groups = GROUPS.iter().filter(|group| group.section == section);
        let rows: Vec<_> = groups.map(|group| (group.name.to_owned(), group_about(group))).collect();
        rows_of(&mut text, title, &rows);
    }
    rows_of(&mut text, "Commands", &rows);
    options(&mut text, "Global Options", &GLOBAL.iter().collect::<Vec<_>>());
    let _ = write!(text, "\nRun '{program} COMMAND --help' for more information on a command.\n");
    text
}

/// Help of a group.
pub fn of_group(program: &str, group: &Group) -> String {
    let mut text = format!("Usage:  {program} {} COMMAND\n\n{}\n", group.name, group.about);
    rows_of(&mut text, "Commands", &rows_below(group.name));
    let _ = write!(text, "\nRun '{program} {} COMMAND --help' for more information on a command.\n", group.name);
    text
}

/// Names and descriptions of what a group has, in alphabetical order; the empty name is the top.
pub(crate) fn rows_below(group: &str) -> Vec<(String, String)> {
    let name = |paths: &[&str]| {
        let below = |path: &&str| match (group, path.split_once(' ')) {
            ("", None) => Some((*path).to_owned()),
            (_, Some((of, name))) => (of == group).then(|| name.to_owned()),
            _ => None,
        };
        paths.iter().find_map(below)
    };
    let ready = COMMANDS.iter().filter(|command| !command.hidden);
    let ready = ready.filter_map(|command| Some((name(command.paths)?, command.about.to_owned())));
    let later = LATER.iter().filter_map(|later| Some((name(later.paths)?, format!("{}{NOT_YET}", later.about))));
    let mut rows: Vec<_> = ready.chain(later).collect();
    rows.sort();
    rows
}

/// Behind the description of what is not there yet.
const NOT_YET: &str = " (not yet)";

fn group_about(group: &Group) -> String {
    let all_later = rows_below(group.name).iter().all(|(_, about)| about.ends_with(NOT_YET));
    format!("{}{}", group.about, if all_later { NOT_YET } else { "" })
}

/// Help of `help`.
pub fn of_help(program: &str) -> String {
    format!("Usage:  {program} help [command]\n\nHelp about the command\n")
}

/// What follows the sentence about a wrong flag of `help`.
pub fn help_hint(program: &str) -> String {
    format!("\n\nUsage:  {program} help [command]\n\nRun '{program} help --help' for more information")
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
    // As in Docker's tables, where this one group has it.
    let rest = if group == "volume" { " COMMAND" } else { "" };
    format!("\n\nUsage:  {program} {group}{rest}\n\nRun '{program} {group} --help' for more information")
}

/// The sentence about a wrong number of positionals, and its usage; `None` if the number is right.
pub fn arity_complaint(program: &str, path: &str, command: &Command, parsed: &Parsed) -> Option<String> {
    let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
    let count = parsed.positionals.len();
    let other = command.arity_with.filter(|(flag, _)| parsed.flag(flag)).map(|(_, arity)| arity);
    let (complaint, verb) = match other.unwrap_or(command.arity) {
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

fn rows_of(text: &mut String, title: &str, rows: &[(String, String)]) {
    let _ = write!(text, "\n{title}:\n");
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, about) in rows {
        let _ = writeln!(text, "  {name:width$}   {about}");
    }
}

fn options(text: &mut String, title: &str, flags: &[&Flag]) {
    let mut ready: Vec<&Flag> = flags.iter().copied().filter(|flag| is_shown(flag)).collect();
    ready.sort_by_key(|flag| flag.long);
    let left = |flag: &Flag| {
        let letter = flag.short.map(|letter| format!("-{letter}, ")).unwrap_or_else(|| "    ".to_owned());
        let space = if flag.value_name.is_empty() { "" } else { " " };
        format!("  {letter}--{}{space}{}", flag.long, flag.value_name)
    };
    let width = ready.iter().map(|flag| left(flag).len()).max().unwrap_or(0);
    if !ready.is_empty() {
        let _ = write!(text, "\n{title}:\n");
    }
    for flag in ready {
        let _ = writeln!(text, "{:width$}   {}", left(flag), described(flag));
    }
    if let Some(sentence) = not_yet(flags) {
        let _ = write!(text, "\n{}\n", wrap(&sentence));
    }
}

/// Whether a reader of help is told of this flag as one that works.
pub(crate) fn is_shown(flag: &Flag) -> bool {
    flag.support == Support::Ready && flag.long != "help"
}

/// What a flag does, and its default.
pub(super) fn described(flag: &Flag) -> String {
    let unset = matches!(flag.default, "" | "false" | "0" | "[]" | "map[]" | "0s");
    match flag.kind {
        _ if unset => flag.help.to_owned(),
        Kind::Text => format!("{} (default {:?})", flag.help, flag.default),
        _ => format!("{} (default {})", flag.help, flag.default),
    }
}

/// The sentence that names what is refused, if anything is.
pub(super) fn not_yet(flags: &[&Flag]) -> Option<String> {
    let later = flags.iter().filter(|flag| matches!(flag.support, Support::Later(_)));
    let mut names: Vec<String> = later.map(|flag| format!("--{}", flag.long)).collect();
    names.sort_unstable();
    (!names.is_empty()).then(|| format!("Not supported yet: {}", names.join(", ")))
}

/// Breaks at blanks, into lines that fit a terminal.
fn wrap(sentence: &str) -> String {
    let (mut text, mut column) = (String::new(), 0);
    for word in sentence.split(' ') {
        if column > 0 && column + 1 + word.len() > COLUMNS {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::later::Wait;
    use super::super::tables;
    use super::*;

    #[test]
    fn what_works_is_shown_and_the_rest_is_named_at_the_end() {
        let command = tables::find("rm").unwrap();
        expect_test::expect![[r#"
            Usage:  longshore rm [OPTIONS] CONTAINER [CONTAINER...]

            Remove containers

            Aliases:
              longshore container remove, longshore container rm, longshore rm

            Options:
              -f, --force     Kill it first, if it runs
              -l, --link      Remove a link instead
              -v, --volumes   Also remove its anonymous volumes
        "#]]
        .assert_eq(&of_command("longshore", "rm", command));
    }

    #[test]
    fn the_sentence_of_what_is_refused_fits_a_terminal_and_leaves_out_other_systems() {
        let flags: Vec<Flag> = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
            .map(|name| Flag::value(name, Kind::Text, "string", "One of many").later(Wait::Builds))
            .into();
        let refused = wrap(&not_yet(&flags.iter().collect::<Vec<_>>()).unwrap());
        assert!(
            refused.starts_with("Not supported yet: --alpha, --beta, ") && refused.ends_with("--zeta"),
            "{refused}"
        );
        assert!(refused.lines().count() > 1 && refused.lines().all(|line| line.len() <= COLUMNS), "{refused}");
        let text = of_command("longshore", "run", tables::find("run").unwrap());
        assert!(text.contains("--sig-proxy"), "{text}");
        assert!(!text.contains("--isolation") && !text.contains("--cpu-count") && !text.contains("--net "), "{text}");
    }
}
