//! The command line: dockerd's flags, parsed as its library (pflag) parses them.

use crate::config;
use crate::settings::{Given, Kind, SETTINGS, Setting, Value, ValueError};

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// Run with these settings.
    Run(Given),
    /// Write the units for systemd, into this directory if one is named.
    Install(Option<String>),
    /// Print the flags.
    Help,
    /// Print the manual page.
    Manual,
    /// Print the version.
    Version,
}

/// Why a command line was refused. The sentences are dockerd's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlagError {
    #[error("unknown flag: --{0}")]
    Unknown(String),
    #[error("unknown shorthand flag: {letter:?} in {argument}")]
    UnknownShort { letter: char, argument: String },
    #[error("flag needs an argument: {0}")]
    NeedsArgument(String),
    #[error("invalid argument {text:?} for \"{flag}\" flag")]
    Invalid { text: String, flag: String, source: ValueError },
    #[error("\"longshored\" accepts no arguments: {0}")]
    Unexpected(String),
}

/// Parses the command line, without the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Invocation, FlagError> {
    let mut arguments = arguments.into_iter().peekable();
    if arguments.next_if(|first| first == "install").is_some() {
        return parse_install(arguments);
    }
    if arguments.next_if(|first| first == "man").is_some() {
        return arguments.next().map_or(Ok(Invocation::Manual), |more| Err(FlagError::Unexpected(more)));
    }
    let mut given = Given::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(Invocation::Help),
            "--version" | "-v" => return Ok(Invocation::Version),
            _ => {}
        }
        if let Some(long) = argument.strip_prefix("--") {
            let (name, text) = long.split_once('=').map_or((long, None), |(name, text)| (name, Some(text.to_owned())));
            let setting = SETTINGS.iter().find(|setting| setting.flag == name);
            let setting = setting.ok_or_else(|| FlagError::Unknown(name.to_owned()))?;
            record(&mut given, setting, text, &mut arguments, &argument)?;
        } else if let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            parse_short(&mut given, letters, &argument, &mut arguments)?;
        } else {
            return Err(FlagError::Unexpected(argument));
        }
    }
    Ok(Invocation::Run(given))
}

/// The text of `--help`.
pub(crate) fn help() -> String {
    let usage = "Usage: longshored [OPTIONS]\n       longshored install [DIRECTORY]\n       longshored man\n";
    let lines = options().into_iter().map(|option| help_line(&option));
    format!("{usage}\nOptions:\n{}", lines.collect::<String>())
}

/// A flag, as readers are told of it.
pub(crate) struct Shown {
    pub(crate) short: Option<char>,
    pub(crate) flag: &'static str,
    pub(crate) value: &'static str,
    pub(crate) help: String,
}

/// All flags that are of use to a reader: not those that only have values at which they change nothing.
pub(crate) fn options() -> Vec<Shown> {
    let own = |letter: char, flag: &'static str, help: &str| Shown {
        short: Some(letter),
        flag,
        value: "",
        help: help.to_owned(),
    };
    let of = |setting: &Setting| Shown {
        short: setting.short,
        flag: setting.flag,
        value: value_name(setting.kind),
        help: match config::shown_default(setting.flag) {
            Some(default) => format!("{} (default {default})", setting.help),
            None => setting.help.to_owned(),
        },
    };
    let settings = SETTINGS.iter().filter(|setting| !setting.help.is_empty()).map(of);
    let first = std::iter::once(own('h', "help", "Print this"));
    first.chain(settings).chain([own('v', "version", "Print the version")]).collect()
}

fn help_line(Shown { short, flag, value, help }: &Shown) -> String {
    let short = short.map_or("   ".to_owned(), |letter| format!("-{letter},"));
    let flag = format!("{flag} {value}");
    format!("  {short} --{flag:<24} {help}\n")
}

/// What stands for a flag's value in the help, in the words of dockerd's.
fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Switch => "",
        Kind::Text => "string",
        Kind::Number => "int",
        Kind::List => "list",
        Kind::Pairs => "map",
        Kind::Ulimits => "ulimit",
        Kind::Pools => "pool-options",
        Kind::Any => "json",
        Kind::Runtimes => "runtime",
        Kind::Mirrors => "mirror",
    }
}

fn parse_install(mut arguments: impl Iterator<Item = String>) -> Result<Invocation, FlagError> {
    let directory = arguments.next();
    match directory.as_deref() {
        Some("--help" | "-h") => return Ok(Invocation::Help),
        Some(flag) if flag.starts_with('-') => return Err(FlagError::Unknown(flag.trim_start_matches('-').to_owned())),
        _ => {}
    }
    match arguments.next() {
        Some(more) => Err(FlagError::Unexpected(more)),
        None => Ok(Invocation::Install(directory)),
    }
}

/// Letters behind one dash: switches, the last of them perhaps with a value (`-Dlinfo`, `-H=unix:///x`).
fn parse_short(
    given: &mut Given,
    letters: &str,
    argument: &str,
    arguments: &mut impl Iterator<Item = String>,
) -> Result<(), FlagError> {
    let mut rest = letters.chars();
    while let Some(letter) = rest.next() {
        let setting = SETTINGS.iter().find(|setting| setting.short == Some(letter));
        let unknown = || FlagError::UnknownShort { letter, argument: argument.to_owned() };
        let setting = setting.ok_or_else(unknown)?;
        let behind = rest.as_str();
        if setting.kind == Kind::Switch && !behind.starts_with('=') {
            record(given, setting, None, arguments, argument)?;
            continue;
        }
        let text = Some(behind.strip_prefix('=').unwrap_or(behind).to_owned()).filter(|_| !behind.is_empty());
        return record(given, setting, text, arguments, argument);
    }
    Ok(())
}

fn record(
    given: &mut Given,
    setting: &'static Setting,
    text: Option<String>,
    arguments: &mut impl Iterator<Item = String>,
    argument: &str,
) -> Result<(), FlagError> {
    let text = match text {
        Some(text) => text,
        None if setting.kind == Kind::Switch => "true".to_owned(),
        None => arguments.next().ok_or_else(|| FlagError::NeedsArgument(argument.to_owned()))?,
    };
    let invalid = |source| FlagError::Invalid { text: text.clone(), flag: shown(setting), source };
    let value: Value = setting.kind.parse(&text).map_err(invalid)?;
    let value = match given.remove(setting.flag) {
        Some(earlier) => value.merge(earlier),
        None => value,
    };
    given.insert(setting.flag, value);
    Ok(())
}

fn shown(setting: &Setting) -> String {
    setting.short.map_or(format!("--{}", setting.flag), |letter| format!("-{letter}, --{}", setting.flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<Given, String> {
        match parse(arguments.iter().map(|&argument| argument.to_owned())) {
            Ok(Invocation::Run(given)) => Ok(given),
            Ok(other) => Err(format!("{other:?}")),
            Err(err) => Err(errdefs::chain(&err)),
        }
    }

    fn texts(arguments: &[&str], flag: &str) -> Vec<String> {
        run(arguments).unwrap().get(flag).map(Value::texts).unwrap_or_default()
    }

    #[test]
    fn flags_have_dockerds_forms() {
        assert_eq!(texts(&["-H", "unix:///a", "-Hunix:///b", "-H=unix:///c", "--host=d"], "host").len(), 4);
        assert_eq!(texts(&["-Hunix:///b"], "host"), ["unix:///b"]);
        assert_eq!(texts(&["-D"], "debug"), ["true"]);
        assert_eq!(texts(&["--debug=0"], "debug"), ["false"]);
        assert_eq!(texts(&["-D=false"], "debug"), ["false"]);
        assert_eq!(texts(&["-Dlwarn"], "log-level"), ["warn"]);
        assert_eq!(texts(&["-l", "warn", "-l", "info"], "log-level"), ["info"]);
        assert_eq!(texts(&["--log-opt", "a=1", "--log-opt", "b=2", "--log-opt=a=3"], "log-opt"), ["a=3", "b=2"]);
        assert_eq!(texts(&["--default-ulimit", "nofile=1:2", "--default-ulimit=core=-1"], "default-ulimit").len(), 2);
        assert_eq!(texts(&["--shutdown-timeout", "-1"], "shutdown-timeout"), ["-1"]);
    }

    #[test]
    fn refusals_are_dockerds() {
        let refused = |arguments: &[&str]| run(arguments).unwrap_err();
        assert_eq!(refused(&["--foo"]), "unknown flag: --foo");
        assert_eq!(refused(&["-DZ"]), "unknown shorthand flag: 'Z' in -DZ");
        assert_eq!(refused(&["--data-root"]), "flag needs an argument: --data-root");
        assert_eq!(
            refused(&["--debug=foo"]),
            "invalid argument \"foo\" for \"-D, --debug\" flag: strconv.ParseBool: parsing \"foo\": invalid syntax"
        );
        assert_eq!(
            refused(&["--shutdown-timeout", "x"]),
            "invalid argument \"x\" for \"--shutdown-timeout\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            refused(&["--default-ulimit", "foo"]),
            "invalid argument \"foo\" for \"--default-ulimit\" flag: invalid ulimit argument: foo"
        );
        assert_eq!(refused(&["extra"]), "\"longshored\" accepts no arguments: extra");
    }

    #[test]
    fn other_invocations() {
        let parsed = |arguments: &[&str]| parse(arguments.iter().map(|&argument| argument.to_owned())).unwrap();
        assert_eq!(parsed(&["--version"]), Invocation::Version);
        assert_eq!(parsed(&["-D", "-h"]), Invocation::Help);
        assert_eq!(parsed(&["install", "/x"]), Invocation::Install(Some("/x".to_owned())));
        assert_eq!(parsed(&["install", "--help"]), Invocation::Help);
        assert_eq!(parsed(&["man"]), Invocation::Manual);
        let refused = parse(["install", "--dir"].map(str::to_owned)).unwrap_err().to_string();
        assert_eq!(refused, "unknown flag: --dir");
    }

    #[test]
    fn help_names_values_and_defaults() {
        let text = help();
        let line = |flag: &str| text.lines().find(|line| line.contains(flag)).unwrap().to_owned();
        for (flag, default) in [
            ("    --config-file string ", "(default /etc/longshore/daemon.json)"),
            ("    --data-root string ", "(default /var/lib/longshore)"),
            ("    --exec-root string ", "(default /run/longshore)"),
            ("-H, --host list ", "(default unix:///run/longshore.sock)"),
            ("    --idle-timeout int ", "(default 10)"),
            ("    --log-driver string ", "(default json-file)"),
            ("-l, --log-level string ", "(default info)"),
            ("    --shutdown-timeout int ", "(default 5)"),
            ("-D, --debug  ", ""),
            ("    --log-opt map ", ""),
        ] {
            assert!(line(flag).ends_with(default), "{}", line(flag));
        }
    }

    #[test]
    fn defaults_in_the_help_are_what_happens() {
        let given = |flag: &'static str| {
            let setting = SETTINGS.iter().find(|setting| setting.flag == flag).unwrap();
            let mut given = Given::from([("on-demand", Value::Switch(true))]);
            if let Some(text) = config::shown_default(flag) {
                given.insert(setting.flag, setting.kind.parse(&text).unwrap());
            }
            config::plan(&given).unwrap()
        };
        for setting in SETTINGS {
            assert_eq!(given(setting.flag), given("debug"), "{}", setting.flag);
        }
    }

    #[test]
    fn names_in_the_table_are_unique() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            for other in &SETTINGS[index + 1..] {
                assert_ne!(setting.flag, other.flag);
                assert!(setting.short.is_none() || setting.short != other.short, "{}", other.flag);
                assert!(setting.key.is_empty() || setting.key != other.key, "{}", other.flag);
            }
        }
    }
}
