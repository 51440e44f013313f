//! `__complete`: what could stand at the end of a line. The shells' scripts ask it at each press of the tabulator.
//!
//! ```text
//! longshore __complete WORD... LAST --where am I (tables)--> Place --values | objects (one call of the API)--> lines
//! ```
//!
//! The answer has the form that the scripts of Docker's client expect, so that those work with us, too: a candidate a
//! line, a tabulator and a description if there is one, and last a colon and a sum of [`directive`]s. Whatever goes
//! wrong, nothing is said: a press of the tabulator must not disturb the line that is typed.

use std::time::Duration;

use crate::args::{self, ArgsError, Command, Flag, Kind, Parsed, help, later, tables};

mod objects;
pub mod scripts;
mod values;

/// What the shell is to do besides.
pub mod directive {
    /// No blank follows.
    pub const NO_SPACE: u8 = 2;
    /// Files are no candidates.
    pub const NO_FILES: u8 = 4;
}

/// How long a daemon may take: whoever presses the tabulator waits for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// One word, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    word: String,
    about: String,
}

impl Candidate {
    fn plain(word: impl Into<String>) -> Candidate {
        Candidate { word: word.into(), about: String::new() }
    }
}

/// What could stand there, and a [`directive`].
#[derive(Debug, Default)]
pub struct Answer {
    candidates: Vec<Candidate>,
    directive: u8,
}

impl Answer {
    fn of(candidates: Vec<Candidate>) -> Answer {
        Answer { candidates, directive: directive::NO_FILES }
    }

    fn words<T: Into<String>>(words: impl IntoIterator<Item = T>) -> Answer {
        Answer::of(words.into_iter().map(Candidate::plain).collect())
    }

    fn nothing() -> Answer {
        Answer::of(Vec::new())
    }

    fn files() -> Answer {
        Answer::default()
    }

    fn no_space(mut self) -> Answer {
        self.directive |= directive::NO_SPACE;
        self
    }
}

/// Where the last word stands.
#[derive(Debug)]
enum Place {
    /// A command of this group, the empty one for the top.
    Name(&'static str),
    /// A flag.
    Flag(Vec<&'static Flag>),
    /// The value of a flag.
    Value(Option<&'static Command>, &'static Flag),
    /// What follows these.
    Positional(&'static Command, Parsed),
    /// Nowhere that we know of.
    Unknown,
}

/// Answers the words behind `__complete`; the last is the one to complete.
pub fn run(program: &'static str, words: &[String], with_descriptions: bool) -> String {
    let Some((last, before)) = words.split_last() else { return String::new() };
    let (global, place) = place(before, last);
    // The value of `--flag=value` stands alone in the answer.
    let typed = match &place {
        Place::Value(..) if last.starts_with("--") => last.split_once('=').map_or("", |(_, value)| value),
        _ => last,
    };
    let answer = answer(program, &global, place, typed);
    let mut text = String::new();
    for Candidate { word, about } in answer.candidates.iter().filter(|candidate| candidate.word.starts_with(typed)) {
        text += word;
        if with_descriptions && !about.is_empty() {
            text += &format!("\t{about}");
        }
        text.push('\n');
    }
    text + &format!(":{}\n", answer.directive)
}

/// Finds the place. Pure.
fn place(before: &[String], last: &str) -> (Parsed, Place) {
    let flag = |long: &str| tables::GLOBAL.iter().find(|flag| flag.long == long);
    let letter = |letter: char| tables::GLOBAL.iter().find(|flag| flag.short == Some(letter));
    let global = match args::parse(&flag, &letter, false, before) {
        Ok(global) => global,
        Err(err) => return (Parsed::default(), value_of(None, &flag, &letter, &err)),
    };
    let words = global.positionals.clone();
    let Some((first, rest)) = words.split_first() else {
        return (global, flag_or(last, tables::GLOBAL.iter().collect(), &flag, None, Place::Name("")));
    };
    let (path, rest) = match (tables::group(first), rest.split_first()) {
        (None, _) => (first.clone(), rest),
        (Some(group), None) => return (global, Place::Name(group.name)),
        (Some(_), Some((second, rest))) => (format!("{first} {second}"), rest),
    };
    let place = match tables::find(&path) {
        _ if first == "help" && rest.is_empty() => Place::Name(""),
        Some(command) => in_command(command, rest, last),
        None => Place::Unknown,
    };
    (global, place)
}

fn in_command(command: &'static Command, rest: &[String], last: &str) -> Place {
    let flag = |long: &str| command.all_flags().find(|flag| flag.long == long);
    let letter = |letter: char| command.all_flags().find(|flag| flag.short == Some(letter));
    let parsed = match args::parse(&flag, &letter, command.interspersed, rest) {
        Ok(parsed) => parsed,
        Err(err) => return value_of(Some(command), &flag, &letter, &err),
    };
    let flags_end = rest.iter().any(|word| word == "--") || !command.interspersed && !parsed.positionals.is_empty();
    if flags_end {
        return Place::Positional(command, parsed);
    }
    flag_or(last, command.all_flags().collect(), &flag, Some(command), Place::Positional(command, parsed))
}

/// A flag whose value is missing is the one whose value is asked for.
fn value_of(
    command: Option<&'static Command>,
    flag: &dyn Fn(&str) -> Option<&'static Flag>,
    letter: &dyn Fn(char) -> Option<&'static Flag>,
    err: &ArgsError,
) -> Place {
    let found = match err {
        ArgsError::MissingValue(name) => flag(name),
        ArgsError::MissingShortValue(short, _) => letter(*short),
        _ => None,
    };
    found.map_or(Place::Unknown, |flag| Place::Value(command, flag))
}

fn flag_or(
    last: &str,
    flags: Vec<&'static Flag>,
    flag: &dyn Fn(&str) -> Option<&'static Flag>,
    command: Option<&'static Command>,
    other: Place,
) -> Place {
    match last.strip_prefix("--").and_then(|text| text.split_once('=')) {
        Some((name, _)) => flag(name).map_or(Place::Unknown, |flag| Place::Value(command, flag)),
        None if last.starts_with('-') => Place::Flag(flags),
        None => other,
    }
}

fn answer(program: &'static str, global: &Parsed, place: Place, typed: &str) -> Answer {
    match place {
        Place::Name(group) => Answer::of(names(group)),
        Place::Flag(flags) => Answer::of(flag_names(&flags)),
        Place::Unknown => Answer::nothing(),
        Place::Value(command, flag) => match values::known(command, flag, typed) {
            values::Known::Words(answer) => answer,
            values::Known::Objects(wanted) => ask(program, global, &wanted, typed),
        },
        Place::Positional(command, parsed) => match objects::wanted(command, &parsed) {
            objects::Wanted::Files => Answer::files(),
            objects::Wanted::Words(words) => Answer::words(words.iter().copied()),
            wanted => {
                let mut answer = ask(program, global, &wanted, typed);
                // What stands there needs not stand there twice.
                answer.candidates.retain(|candidate| !parsed.positionals.contains(&candidate.word));
                answer
            }
        },
    }
}

/// Commands that there are, then those that say "not yet"; groups of the top.
fn names(group: &str) -> Vec<Candidate> {
    let rows = help::rows_below(group).into_iter();
    let groups = tables::GROUPS.iter().filter(|_| group.is_empty());
    let groups = groups.map(|group| (group.name.to_owned(), group.about.to_owned()));
    let ready = |name: &str| {
        let path = if group.is_empty() { name.to_owned() } else { format!("{group} {name}") };
        later::find(&path.split(' ').map(str::to_owned).collect::<Vec<_>>()).is_none()
    };
    let all = rows.chain(groups).filter(|(name, _)| ready(name));
    all.map(|(word, about)| Candidate { word, about }).collect()
}

fn flag_names(flags: &[&'static Flag]) -> Vec<Candidate> {
    let mut shown: Vec<&Flag> = flags.iter().copied().filter(|flag| help::is_shown(flag)).collect();
    shown.sort_by_key(|flag| flag.long);
    let of = |flag: &&Flag| {
        let about = flag.help.to_owned();
        let long = Candidate { word: format!("--{}", flag.long), about: about.clone() };
        let short = flag.short.map(|letter| Candidate { word: format!("-{letter}"), about });
        std::iter::once(long).chain(short).collect::<Vec<_>>()
    };
    shown.iter().flat_map(of).collect()
}

/// Asks the daemon that the line means; none is started for it.
fn ask(program: &'static str, global: &Parsed, wanted: &objects::Wanted, typed: &str) -> Answer {
    let Some(context) = crate::commands::Context::for_completion(program, global) else { return Answer::nothing() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Answer::nothing();
    };
    let asked = async { tokio::time::timeout(ANSWER_WITHIN, objects::list(&context, wanted, typed)).await };
    runtime.block_on(asked).ok().flatten().unwrap_or_else(Answer::nothing)
}

/// Whether a flag takes the names of files.
fn takes_files(flag: &Flag) -> bool {
    const NAMES: [&str; 12] = [
        "env-file",
        "label-file",
        "cidfile",
        "config",
        "tlscacert",
        "tlscert",
        "tlskey",
        "input",
        "output",
        "checkpoint-dir",
        "host",
        "device",
    ];
    flag.kind != Kind::Bool && NAMES.contains(&flag.long)
}

#[cfg(test)]
mod tests;
