//! What our own `build` says where one fails: lines of the Dockerfile, and what may help.

use std::fs;
use std::os::unix::fs::symlink;

use testkit::Cli;

use crate::build::{context, path};
use crate::buildx::plugged;
use crate::support::{At, each, ours};

/// A frame around lines of a Dockerfile, as buildx shows them.
fn excerpt(name: &str, line: usize, lines: &str) -> String {
    format!("{name}:{line}\n--------------------\n{lines}--------------------\n")
}

/// With our own command line alone.
fn on_ours(test: impl Fn(&At<'_>)) {
    ours(|daemon| {
        each(daemon, |at| {
            if matches!(at.cli, Cli::Longshore) {
                test(at);
            }
        });
    });
}

/// What standard error has of a build of a Dockerfile beside two files, and the exit code.
fn fails(at: &At<'_>, text: &str, flags: &str) -> (i32, String) {
    let directory = context(&[
        ("Dockerfile", text),
        ("package.json", "{}"),
        ("src/main.c", ""),
        ("left.out", ""),
        (".dockerignore", "*.out\n"),
    ]);
    symlink("nothing", directory.path().join("dangling")).unwrap();
    let output = at.line(&format!("build --force-rm {flags} {}", path(&directory)));
    let name = format!("{}/Dockerfile", path(&directory));
    (output.code, output.stderr.replace(&name, "Dockerfile"))
}

#[test]
fn privileged_lines_that_fail_are_shown() {
    on_ours(|at| {
        let run = "FROM busybox\nRUN true\nRUN echo a && \\\n  exit 3\nRUN true\n";
        let lines = "   2 |     RUN true\n   3 | >>> RUN echo a && \\\n   4 | >>>   exit 3\n   5 |     RUN true\n";
        let sentence = "The command '/bin/sh -c echo a &&   exit 3' returned a non-zero code: 3\n";
        assert_eq!(fails(at, run, ""), (3, excerpt("Dockerfile", 3, lines) + sentence));
        // With -q standard error has what the steps told, too.
        let (code, told) = fails(at, run, "-q");
        assert!(code == 3 && told.ends_with(&(excerpt("Dockerfile", 3, lines) + sentence)), "{told}");
        let heredoc = "FROM busybox\nRUN <<EOF\nset -e\nfalse\nEOF\n";
        let lines = "   1 |     FROM busybox\n   2 | >>> RUN <<EOF\n   3 | >>> set -e\n   4 | >>> false\n   5 | >>> EOF\n   6 |     \n";
        let (code, told) = fails(at, heredoc, "");
        assert!(code == 1 && told.starts_with(&excerpt("Dockerfile", 2, lines)), "{told}");
        let lines = "   1 |     FROM busybox\n   2 | >>> FRO x\n   3 |     \n";
        let sentence = "dockerfile parse error on line 2: unknown instruction: FRO (did you mean FROM?)\n";
        assert_eq!(fails(at, "FROM busybox\nFRO x\n", ""), (1, excerpt("Dockerfile", 2, lines) + sentence));
        let lines = "   1 |     FROM busybox\n   2 | >>> ENV a\n   3 |     \n";
        let sentence = "failed to parse Dockerfile: ENV must have two arguments\n";
        assert_eq!(fails(at, "FROM busybox\nENV a\n", ""), (1, excerpt("Dockerfile", 2, lines) + sentence));
        // What is refused before all steps, in a stage beside others, and the base.
        for (text, line) in [
            ("FROM busybox\nRUN --mount=type=bind,size=5,target=/x true\n", 2),
            ("FROM busybox AS a\nRUN true\nFROM busybox\nRUN exit 1\nCOPY --from=a / /a\n", 4),
            ("FROM busybox\nWORKDIR ${X:?no}\n", 2),
            ("ARG X\nFROM nowhere.invalid/none\n", 2),
        ] {
            let (code, told) = fails(at, text, "");
            assert!(code == 1 && told.contains(&format!("Dockerfile:{line}\n------")), "{told}");
            assert_eq!(told.matches(" | >>> ").count(), 1, "{told}");
        }
        // Docker's own client is told no more than by dockerd.
        let directory = context(&[("Dockerfile", "FROM busybox\nRUN exit 3\n")]);
        let docker = At { cli: Cli::Docker, ..*at };
        let output = docker.line(&format!("build --force-rm {}", path(&directory)));
        assert!(output.code == 3 && !output.stdout.contains("FailedAt"), "{output:?}");
        assert!(!output.stderr.contains(">>>"), "{output:?}");
    });
}

#[test]
fn privileged_what_may_be_meant_is_told() {
    on_ours(|at| {
        let hint = |text: &str, flags: &str| {
            let (code, told) = fails(at, text, flags);
            assert_ne!(code, 0, "{told}");
            told.lines().last().unwrap().to_owned()
        };
        for (text, wanted) in [
            ("FROM busybox\nCOPY pakage.json /x\n", "hint: did you mean \"package.json\"?"),
            ("FROM busybox\nCOPY src/Main.c /x\n", "hint: did you mean \"src/main.c\"?"),
            ("FROM busybox\nCOPY scr/main.c /x\n", "hint: did you mean \"src\"?"),
            (
                "FROM busybox\nCOPY left.out /x\n",
                "hint: \"left.out\" is there, but .dockerignore leaves it out, or it is a link that leads out",
            ),
            ("FROM busybox\nCOPY dangling /x\n", "hint: \"dangling\" is a link that leads to nothing in the context"),
            (
                "FROM busybox AS build\nRUN mkdir -p /d/made\nFROM busybox\nCOPY --from=build /d/mad /x\n",
                "hint: did you mean \"d/made\"?",
            ),
            (
                "FROM busybox\nRUN nosuchprogram\n",
                "hint: with the exit code 127 shells say that a program is not there",
            ),
            (
                "FROM busybox\nRUN sh -c 'kill -9 $$' ; exit $?\n",
                "hint: the exit code 137 is that of something killed, as the kernel does where memory is short",
            ),
        ] {
            assert_eq!(hint(text, ""), wanted, "{text}");
        }
        assert_eq!(hint("FROM busybox AS build\nFROM build\n", "--target bild"), "hint: did you mean \"build\"?");
        let from = hint("FROM busybox AS build\nFROM busybox\nCOPY --from=bild /x /y\n", "");
        assert_eq!(from, "hint: did you mean the stage \"build\"?");
        // Where nothing is like it nothing is said.
        let none = hint("FROM busybox\nCOPY other /x\n", "");
        assert!(none.starts_with("COPY failed: file not found"), "{none}");
        // Of an archive the daemon alone knows what is in it.
        let directory = context(&[("Dockerfile", "FROM busybox\nCOPY pakage.json /\n"), ("package.json", "")]);
        let archive = directory.path().join("context.tar");
        let tar = std::process::Command::new("tar")
            .args(["-C", &path(&directory), "-cf"])
            .arg(&archive)
            .arg("Dockerfile")
            .arg("package.json")
            .status();
        assert!(tar.unwrap().success());
        let output = at.with_input("build -", &fs::read(&archive).unwrap());
        assert!(output.stderr.starts_with("Dockerfile:2\n----"), "{output:?}");
        assert!(output.stderr.ends_with("hint: did you mean \"package.json\"?\n"), "{output:?}");
    });
}

#[test]
fn privileged_buildx_is_told_before_all_steps_in_buildkits_words() {
    plugged(|plugged| {
        // In each of them there is a step before what is wrong, which nobody may begin.
        for (lines, line, sentence) in [
            ("ARG S=x\nRUN true\nSTOPSIGNAL $S\n", 4, "invalid signal: x"),
            ("ENV P=80/foo\nRUN true\nEXPOSE $P\n", 4, "invalid port: \"80/foo\": invalid proto: foo"),
            ("RUN true\nWORKDIR ${X:?no}\n", 3, "failed to process \"${X:?no}\": X: no"),
            ("RUN true\nADD --checksum=sha256:abc http://a/b /\n", 3, "invalid checksum digest length"),
            ("RUN true\nFROM Busy_Box:UP:x\n", 3, "repository name (library/Busy_Box) must be lowercase"),
            ("RUN true\nFROM $X\n", 3, "base name ($X) should not be blank"),
        ] {
            let told = plugged.fails(&context(&[("Dockerfile", &format!("FROM busybox\n{lines}"))]), "");
            assert!(told.contains(&format!("Dockerfile:{line}\n------")) && !told.contains("RUN true:"), "{told}");
            assert!(told.ends_with(&format!("{sentence}\n")) && !told.contains("[2/"), "{told}");
        }
        // Images that are only copied from or mounted are looked up first.
        for text in ["COPY --from=127.0.0.1:1/bild /x /\n", "RUN --mount=from=127.0.0.1:1/bild,target=/x true\n"] {
            let told = plugged.fails(&context(&[("Dockerfile", &format!("FROM busybox\nRUN true\n{text}"))]), "");
            assert!(told.contains("[internal] load metadata for 127.0.0.1:1/bild:latest"), "{told}");
            let sentence =
                "failed to solve: 127.0.0.1:1/bild: failed to resolve source metadata for 127.0.0.1:1/bild:latest: ";
            assert!(told.contains(sentence) && !told.contains("[2/3]"), "{told}");
        }
        let is_directory = tempfile::tempdir().unwrap();
        fs::create_dir(is_directory.path().join("Dockerfile")).unwrap();
        let told = plugged.fails(&is_directory, "");
        assert!(told.contains("failed to read dockerfile: read ") && told.ends_with("is a directory\n"), "{told}");
    });
}

#[test]
fn privileged_buildx_is_told_of_steps_in_buildkits_words() {
    plugged(|plugged| {
        let told = plugged.fails(&context(&[("Dockerfile", "FROM busybox\nRUN [\"/nonexist\"]\n")]), "");
        let why = "unable to start container process: error during container init: exec: \"/nonexist\": stat /nonexist: no such file or directory\n";
        assert!(told.contains(&format!("runc run failed: {why}")), "{told}");
        assert!(told.ends_with("process \"/nonexist\" did not complete successfully: exit code: 1\n"), "{told}");
        // Above the context there is nothing.
        let told = plugged.fails(&context(&[("Dockerfile", "FROM busybox\nCOPY ../../etc/passwd /x\n")]), "");
        assert!(told.ends_with(": \"/etc/passwd\": not found\n"), "{told}");
        let text = "FROM busybox\nCOPY [\"../f\", \"/with space/\"]\nRUN <<EOF\nset -e\ncat \"/with space/f\"\nEOF\nCOPY <<A <<\"B\" /d/\na\nA\nb\nB\n";
        let directory = context(&[("Dockerfile", text), ("f", "of the context")]);
        let told = plugged.build(&plugged.at.image("named"), &directory, "--no-cache");
        for wanted in
            ["] RUN <<EOF (set -e...)\n", "] COPY <<A <<B /d/\n", "] COPY [../f, /with space/]\n", "of the context"]
        {
            assert!(told.contains(wanted), "{told}");
        }
    });
}

#[test]
fn privileged_what_cannot_be_asked_for_is_told_at_once() {
    on_ours(|at| {
        let directory = context(&[("Dockerfile", "FROM busybox\nRUN true\n")]);
        let sentence = "failed to convert agent config {x [/nonexist] false}: failed to convert agent config for ID: \"x\": \
                        stat /nonexist: no such file or directory";
        at.fails(&format!("build --ssh x=/nonexist {}", path(&directory)), 1, sentence);
        at.fails("build --check http://127.0.0.1:1/x", 1, "error downloading remote context http://127.0.0.1:1/x: ");
    });
}
