use super::*;

fn read(path: &str, line: &[&str]) -> Result<Parsed, String> {
    let command = tables::find(path).expect("a command of the tables");
    let flag = |long: &str| command.all_flags().find(|flag| flag.long == long);
    let letter = |letter: char| command.all_flags().find(|flag| flag.short == Some(letter));
    let args: Vec<String> = line.iter().map(|text| (*text).to_owned()).collect();
    parse(&flag, &letter, command.interspersed, &args).map_err(|err| err.to_string())
}

#[test]
fn flags_are_read_as_pflag_reads_them() {
    let parsed =
        read("run", &["-itd", "-eA=b", "-e", "C=d", "-m=1g", "--rm=false", "--name", "-n", "img", "-x", "--y"]);
    let parsed = parsed.unwrap();
    assert!(parsed.flag("interactive") && parsed.flag("tty") && parsed.flag("detach") && !parsed.flag("rm"));
    assert_eq!(parsed.list("env"), ["A=b", "C=d"]);
    assert_eq!((parsed.text("memory"), parsed.text("name")), ("1g", "-n"));
    assert_eq!(parsed.positionals, ["img", "-x", "--y"]);
    assert_eq!(read("rm", &["a", "-f", "--", "-b"]).unwrap().positionals, ["a", "-b"]);
    assert_eq!(read("run", &["--net", "none", "i"]).unwrap().text("network"), "none");
}

#[test]
fn mistakes_have_pflags_sentences() {
    for (line, sentence) in [
        (&["--foo"][..], "unknown flag: --foo"),
        (&["-itZ"], "unknown shorthand flag: 'Z' in -Z"),
        (&["-m"], "flag needs an argument: 'm' in -m"),
        (&["--memory"], "flag needs an argument: --memory"),
        (&["--=x"], "bad flag syntax: --=x"),
        (&["-m", "x"], "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'"),
        (&["--rm=x"], "invalid argument \"x\" for \"--rm\" flag: strconv.ParseBool: parsing \"x\": invalid syntax"),
        (&["--sysctl", "a"], "invalid argument \"a\" for \"--sysctl\" flag: sysctl 'a' is not allowed"),
        (
            &["--cpu-count", "1"],
            "\"--cpu-count\" is only supported on a Docker daemon running on windows, but the Docker daemon is running \
             on linux",
        ),
        (
            &["--cpu-percent=20", "--cpu-count", "1"],
            "\"--cpu-count\" is only supported on a Docker daemon running on windows, but the Docker daemon is running \
             on linux\n\"--cpu-percent\" is only supported on a Docker daemon running on windows, but the Docker daemon \
             is running on linux",
        ),
        (&["--dns", "x"], "invalid argument \"x\" for \"--dns\" flag: IP address is not correctly formatted: x"),
        (&["--dns-search", " a b"], "invalid argument \" a b\" for \"--dns-search\" flag: a b is not a valid domain"),
        (&["--dns-search", "12"], "invalid argument \"12\" for \"--dns-search\" flag: 12 is not a valid domain"),
        (&["--dns-search", "a-.b"], "invalid argument \"a-.b\" for \"--dns-search\" flag: a-.b is not a valid domain"),
        (&["--add-host", "x"], "invalid argument \"x\" for \"--add-host\" flag: bad format for add-host: \"x\""),
        (
            &["--add-host", "x=y"],
            "invalid argument \"x=y\" for \"--add-host\" flag: invalid IP address in add-host: \"y\"",
        ),
    ] {
        assert_eq!(read("run", line).unwrap_err(), sentence);
    }
}

#[test]
fn a_flag_that_is_not_offered_is_accepted_at_its_default() {
    let line =
        ["--publish-all=false", "--memory-swappiness=-1", "--health-interval", "0", "--disable-content-trust", "i"];
    assert_eq!(read("run", &line).unwrap().positionals, ["i"]);
}

#[test]
fn tables_have_no_name_twice() {
    for command in tables::COMMANDS {
        let mut names: Vec<&str> = command.all_flags().map(|flag| flag.long).collect();
        let mut letters: Vec<char> = command.all_flags().filter_map(|flag| flag.short).collect();
        let counts = (names.len(), letters.len());
        names.sort_unstable();
        names.dedup();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!((names.len(), letters.len()), counts, "{}", command.paths[0]);
    }
}

/// The grammar that completions are made of is consistent, too.
#[test]
fn completions_can_be_made() {
    clap_tree::program("longshore", clap_tree::Reader::Shell).debug_assert();
    clap_tree::program("longshore", clap_tree::Reader::Person).debug_assert();
}

/// Docker's commands with their flags: letter, name, and what stands for its value.
fn dockers() -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(include_str!("docker-28.2.2.json")).unwrap()
}

fn words(path: &str) -> Vec<String> {
    path.split(' ').map(str::to_owned).collect()
}

/// What our tables lack of one command of Docker's.
fn missing(path: &str, docker: &serde_json::Value) -> Vec<String> {
    let Some(command) = tables::find(path) else {
        return if later::find(&words(path)).is_some() { vec![] } else { vec![format!("{path}: missing")] };
    };
    let mut missing = Vec::new();
    let usage = format!("docker {path} {}", command.usage);
    // Some of Docker's have several lines; the list has the first.
    if !usage.starts_with(docker["usage"].as_str().unwrap()) {
        missing.push(format!("{path}: {usage} for {}", docker["usage"]));
    }
    for flag in docker["flags"].as_array().unwrap() {
        let (letter, name, value) = (flag[0].as_str(), flag[1].as_str().unwrap(), flag[2].as_str().unwrap_or(""));
        let ours = command.all_flags().find(|flag| flag.long == &name[2..]);
        let ours = ours.map(|flag| (flag.short.map(|letter| format!("-{letter}")), flag.value_name));
        if name != "--help" && ours != Some((letter.map(str::to_owned), value)) {
            missing.push(format!("{path}: {letter:?} {name} {value}, ours {ours:?}"));
        }
    }
    missing
}

#[test]
fn every_command_of_dockers_is_there_or_named_as_missing() {
    let dockers = dockers();
    assert_eq!(dockers.len(), 168);
    let missing: Vec<String> = dockers.iter().flat_map(|(path, docker)| missing(path, docker)).collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn what_is_missing_is_no_command() {
    for path in later::LATER.iter().flat_map(|later| later.paths) {
        assert!(tables::find(path).is_none(), "{path}");
        let group = path.split_once(' ').map(|(group, _)| group);
        assert!(group.is_none_or(|group| tables::group(group).is_some()), "{path}");
    }
}

#[test]
fn what_is_missing_is_listed_for_users() {
    expect_test::expect_file!["../../../../docs/not-yet.md"].assert_eq(&later::report());
}
