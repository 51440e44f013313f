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
    // Docker's, ours, and their other names in groups.
    assert!(seen > 168, "{seen}");
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
        shown.contains("--health-cmd")
            && !shown.contains("--disable-content-trust")
            && refused.contains("--disable-content-trust"),
        "{run}"
    );
    assert!(!directory.path().join("longshore-man.1").exists());
}

#[test]
fn man_reads_every_page_without_a_complaint() {
    let directory = tempfile::tempdir().unwrap();
    let Some(written) = longshore(&["man", directory.path().to_str().unwrap()]) else { return };
    assert_eq!(written.code, 0);
    let daemon = testkit::process::run(Command::new(paths::dist().join("longshored")).arg("man"), b"").unwrap();
    std::fs::write(directory.path().join("longshored.8"), daemon.success().unwrap()).unwrap();
    if paths::program("man").is_none() {
        testkit::skip::report("there is no man on this machine");
        return;
    }
    let pages: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(pages.len() > 100, "{}", pages.len());
    let mut man = Command::new("man");
    man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8"]).args(&pages).env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8");
    let read = testkit::process::run(&mut man, b"").unwrap();
    // A long word leaves a gap in its line: nothing to complain of.
    let complaints: Vec<&str> = read.stderr.lines().filter(|line| !line.ends_with("cannot adjust line")).collect();
    assert_eq!((read.code, complaints), (0, vec![]));
    // Bold is a letter on itself.
    let mut text = String::new();
    for c in read.stdout.chars() {
        if c == '\u{8}' {
            text.pop();
        } else {
            text.push(c);
        }
    }
    for wanted in ["--data-root", "longshore container kill", "SEE ALSO"] {
        assert!(text.contains(wanted), "{wanted}");
    }
}
