//! What the command line says of itself; no daemon is needed, none may be started.

use std::process::Command;

use testkit::{Output, paths};

/// Types the words at our command line, whose daemon would be nowhere.
fn longshore(words: &[&str]) -> Option<Output> {
    let program = paths::dist().join("longshore");
    if !program.exists() {
        testkit::skip::report("our programs are not built");
        return None;
    }
    let mut command = Command::new(program);
    command.args(words).env("DOCKER_HOST", "unix:///nowhere/d.sock").env("HOME", "/nowhere");
    Some(testkit::process::run(&mut command, b"").unwrap())
}

/// The first words of the indented lines below each title that ends with `Commands:`.
fn commands(help: &str) -> Vec<String> {
    let mut below = false;
    let mut names = Vec::new();
    for line in help.lines() {
        match line.strip_prefix("  ") {
            Some(entry) if below => names.extend(entry.split_whitespace().next().map(str::to_owned)),
            Some(_) => {}
            None => below = line.ends_with("Commands:"),
        }
    }
    names
}

#[test]
fn every_command_has_help() {
    let Some(program) = longshore(&["--help"]) else { return };
    let mut seen = 0;
    let mut left: Vec<Vec<String>> = commands(&program.stdout).into_iter().map(|name| vec![name]).collect();
    while let Some(path) = left.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let Some(help) = longshore(&words) else { return };
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{path:?}");
        let usage = format!("Usage:  longshore {} ", path.join(" "));
        assert!(help.stdout.lines().any(|line| format!("{line} ").starts_with(&usage)), "{path:?}: {}", help.stdout);
        // The same by the other way.
        let words: Vec<&str> = ["help"].into_iter().chain(path.iter().map(String::as_str)).collect();
        assert_eq!(longshore(&words).map(|output| output.stdout), Some(help.stdout.clone()), "{path:?}");
        left.extend(commands(&help.stdout).into_iter().map(|name| [path.clone(), vec![name]].concat()));
        seen += 1;
    }
    // Those of issue "the spine", and the groups with theirs.
    assert!(seen > 40, "{seen}");
}

#[test]
fn what_is_no_command_is_refused() {
    for words in [&["nope"][..], &["container", "nope"], &["nope", "--help"]] {
        let Some(output) = longshore(words) else { return };
        assert_eq!(output.code, 1, "{words:?}");
        assert!(output.stderr.contains("longshore: unknown command: longshore "), "{words:?}: {}", output.stderr);
    }
}

#[test]
fn topics_of_help_are_told_in_dockers_words() {
    for (words, code, sentence) in [
        (&["nope"][..], 1, "unknown help topic: nope\n"),
        (&["nope", "two"], 1, "unknown help topic: nope two\n"),
        (&["run", "nope"], 1, "unknown help topic: nope\n"),
        (&["container", "nope", "two"], 1, "unknown help topic: nope two\n"),
        (&["container", "ls", "nope"], 1, "unknown help topic: nope\n"),
        (
            &["run", "--nope"],
            125,
            "unknown flag: --nope\n\nUsage:  @ help [command]\n\nRun '@ help --help' for more information\n",
        ),
    ] {
        let words: Vec<&str> = ["help"].iter().chain(words).copied().collect();
        let Some(output) = longshore(&words) else { return };
        assert_eq!(
            (output.code, output.stdout, output.stderr),
            (code, String::new(), sentence.replace('@', "longshore"))
        );
    }
    for words in [&["help", "help"][..], &["help", "run", "--help"]] {
        let Some(output) = longshore(words) else { return };
        let usage = "Usage:  longshore help [command]\n\nHelp about the command\n";
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, usage, ""));
    }
}

#[test]
fn manual_pages_show_usage_defaults_and_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let Some(written) = longshore(&["man", directory.path().to_str().unwrap()]) else { return };
    assert_eq!((written.code, written.stderr.as_str()), (0, ""));
    let page = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap().replace("\\-", "-");
    for (name, usage) in [
        ("longshore.1", "\\fBlongshore\\fR [OPTIONS] COMMAND\n"),
        ("longshore-container.1", "\\fBlongshore container\\fR COMMAND\n"),
        ("longshore-container-kill.1", "\\fBlongshore container kill\\fR [OPTIONS] CONTAINER [CONTAINER...]\n"),
        ("longshore-tag.1", "\\fBlongshore tag\\fR SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]\n"),
    ] {
        let page = page(name);
        assert!(page.contains(&format!(".SH SYNOPSIS\n{usage}")) && !page.contains("ARGUMENTS"), "{name}: {page}");
    }
    assert!(page("longshore-logs.1").contains("Number of lines from the end (default \"all\")"));
    let run = page("longshore-run.1");
    let (shown, refused) = run.split_once("\nNot supported yet: ").expect(&run);
    assert!(
        shown.contains("--health-cmd") && !shown.contains("--use-api-socket") && refused.contains("--use-api-socket"),
        "{run}"
    );
    assert!(!directory.path().join("longshore-man.1").exists());
}

#[test]
fn the_completion_script_completes_in_bash() {
    let Some(script) = longshore(&["completion", "bash"]) else { return };
    assert_eq!((script.code, script.stderr.as_str()), (0, ""));
    // What bash itself would do at a press of the tabulator.
    let check = "source /dev/stdin || exit 9
        complete_line() {
            COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            $(complete -p longshore | sed 's/.*-F \\([^ ]*\\).*/\\1/') longshore \"${@: -1}\" \"${@: -2:1}\"
            echo \"${COMPREPLY[@]}\"
        }
        complete_line longshore inf
        complete_line longshore run --entry
        complete_line longshore container rest
        complete_line longshore completion z
        complete_line longshore run --isol
        complete_line longshore run --use-api
        complete_line longshore man";
    let output = testkit::process::run(Command::new("bash").args(["-c", check]), script.stdout.as_bytes()).unwrap();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "info\n--entrypoint\nrestart\nzsh\n\n\n\n"),
        "{}",
        output.stderr
    );
}
