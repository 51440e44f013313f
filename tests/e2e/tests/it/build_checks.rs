//! Checks of Dockerfiles, with the real `docker buildx` and with our own `build`.

use std::process::Command;

use tempfile::TempDir;
use testkit::registry::{Answer, Request, Server};
use testkit::{Cli, Daemon, Output};

use crate::build::{context, path};
use crate::build_git::Repositories;
use crate::buildx::plugged;
use crate::support::split;

const BAD: &str =
    "FROM busybox as Bad\nWORKDIR made\nENV api_key abc\nRUN echo $none > file\nCOPY $nnoe /\nCMD cat file\n";

const PAGES: &str = "https://docs.docker.com/go/dockerfile/rule";

/// What buildx prints of checks: no more than what differs from machine to machine is left out.
fn found(output: &Output) -> (i32, String) {
    (output.code, output.stdout.clone())
}

#[test]
fn privileged_buildx_tells_what_checks_find() {
    plugged(|plugged| {
        let directory = context(&[("Dockerfile", "FROM busybox as made\nWORKDIR /made\nENV A b\nRUN echo c > d\n")]);
        let told = plugged.build(&plugged.at.image("checked"), &directory, "");
        for line in [
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 3)",
        ] {
            assert!(told.contains(&format!(" WARN: {line}\n")), "{told}");
            assert!(told.contains(&format!(" - {line}\n")), "{told}");
        }
        assert!(told.contains("2 warnings found (use docker --debug to expand):"), "{told}");
        let twice = context(&[("Dockerfile", "FROM busybox AS a\nRUN echo 1 > n\nFROM a AS a\nRUN echo 2 >> n\n")]);
        let image = plugged.at.image("twice");
        let told = plugged.build(&image, &twice, "--target a");
        assert!(
            told.contains("DuplicateStageName: Duplicate stage name \"a\", stage names should be unique (line 3)\n"),
            "{told}"
        );
        assert_eq!(plugged.at.run(&format!("{image} cat n")), "1\n2");
        // What is skipped is not told.
        let told =
            plugged.build(&plugged.at.image("skipped"), &directory, "--build-arg BUILDKIT_DOCKERFILE_CHECK=skip=all");
        assert!(!told.contains("warning"), "{told}");
        let output = plugged.line(&format!("--debug buildx build --progress plain {}", path(&directory)));
        let wanted = format!(
            "More info: {PAGES}/from-as-casing/\nDockerfile:1\n--------------------\n   1 | >>> FROM busybox as made\n"
        );
        assert!(output.stderr.contains(&wanted), "{output:?}");
    });
}

#[test]
fn privileged_checks_fail_builds_that_want_it() {
    plugged(|plugged| {
        let text = "# check=skip=JSONArgsRecommended;error=true\nFROM busybox\nMAINTAINER me\nRUN exit 7\nCMD x\n";
        let directory = context(&[("Dockerfile", text)]);
        let told = plugged.fails(&directory, "");
        assert!(told.ends_with("lint violation found for rules: MaintainerDeprecated\n"), "{told}");
        assert!(!told.contains("RUN exit 7"), "{told}");
        let wrong = context(&[("Dockerfile", "# check=what\nFROM busybox\n")]);
        let told = plugged.fails(&wrong, "");
        assert!(told.contains("failed to parse check options: invalid check option \"what\"\n"), "{told}");
        let told = plugged.fails(&wrong, "--build-arg BUILDKIT_DOCKERFILE_CHECK=what");
        assert!(
            told.contains("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: invalid check option \"what\"\n"),
            "{told}"
        );
    });
}

#[test]
fn privileged_buildx_asks_a_dockerfile_instead_of_building_it() {
    plugged(|plugged| {
        let text = "# WORD to say\nARG WORD=hello\n# made is built\nFROM busybox AS made\nARG WORD\nRUN exit 7\nFROM scratch\nCOPY --from=made /x /\n";
        let directory = context(&[("Dockerfile", text)]);
        let ask = |flags: &str| found(&plugged.line(&format!("buildx build {flags} {}", path(&directory))));
        assert_eq!(ask("--check"), (0, "Check complete, no warnings found.\n".to_owned()));
        let targets = "TARGET    DESCRIPTION\nmade      is built\n(default) \n";
        assert_eq!(ask("--call=targets"), (0, targets.to_owned()));
        let outline = "TARGET:      made\nDESCRIPTION: is built\n\nBUILD ARG   VALUE   DESCRIPTION\nWORD        hello   to say\n\n";
        assert_eq!(ask("--call=outline --target made"), (0, outline.to_owned()));
        let (code, told) = ask("--call=subrequests.describe");
        assert!(code == 0 && told.starts_with("NAME                 VERSION DESCRIPTION\noutline "), "{told}");
        let (code, told) = ask("--call=targets,format=json");
        let targets: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!((code, &targets["targets"][0]["location"]["ranges"][0]["start"]["line"]), (0, &4.into()));
        assert_eq!(plugged.line(&format!("buildx build --call=other {}", path(&directory))).code, 1);
    });
}

#[test]
fn privileged_buildx_checks_as_its_exit_code_says() {
    plugged(|plugged| {
        let directory = context(&[("Dockerfile", BAD), (".dockerignore", "left-out\n")]);
        let ask = |flags: &str| plugged.line(&format!("buildx build {flags} {}", path(&directory)));
        let output = ask("--check");
        assert_eq!((output.code, &output.stdout), (1, &bad(&format!("{}/Dockerfile", path(&directory)))), "{output:?}");
        assert_eq!(ask("--call=check,ignorestatus=true").code, 0);
        let json: serde_json::Value = serde_json::from_str(&ask("--call=check,format=json").stdout).unwrap();
        assert_eq!(json["warnings"].as_array().map(Vec::len), Some(7));
        assert_eq!(
            (&json["warnings"][0]["ruleName"], &json["sources"][0]["filename"]),
            (&"StageNameCasing".into(), &"Dockerfile".into())
        );
        // A text that is none is told with what was found before.
        let wrong = context(&[("Dockerfile", "FROM busybox as a\nFRMO b\n")]);
        let output = plugged.line(&format!("buildx build --check {}", path(&wrong)));
        assert!(
            output.code == 1 && output.stdout.starts_with("Check complete, 1 warning has been found!\n"),
            "{output:?}"
        );
        assert!(
            output.stderr.contains("dockerfile parse error on line 2: unknown instruction: FRMO (did you mean FROM?)"),
            "{output:?}"
        );
    });
}

/// What `--check` prints of [`BAD`].
fn bad(name: &str) -> String {
    let lines: Vec<&str> = BAD.split('\n').collect();
    let source = |line: usize, from: usize, to: usize| {
        let mut shown = format!("{name}:{line}\n--------------------\n");
        for number in from..=to {
            let mark = if number == line { ">>>" } else { "   " };
            shown += &format!(" {number:3} | {mark} {}\n", lines[number - 1]);
        }
        shown + "--------------------\n"
    };
    let warning = |rule: &str, page: &str, detail: &str, place: String| {
        format!("\nWARNING: {rule} - {PAGES}/{page}/\n{detail}\n{place}")
    };
    [
        "Check complete, 7 warnings have been found!\n".to_owned(),
        warning("StageNameCasing", "stage-name-casing", "Stage name 'Bad' should be lowercase", source(1, 1, 3)),
        warning("FromAsCasing", "from-as-casing", "'as' and 'FROM' keywords' casing do not match", source(1, 1, 3)),
        warning(
            "WorkdirRelativePath",
            "workdir-relative-path",
            "Relative workdir \"made\" can have unexpected results if the base image changes",
            source(2, 1, 4),
        ),
        warning(
            "LegacyKeyValueFormat",
            "legacy-key-value-format",
            "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            source(3, 1, 5),
        ),
        warning(
            "SecretsUsedInArgOrEnv",
            "secrets-used-in-arg-or-env",
            "Do not use ARG or ENV instructions for sensitive data (ENV \"api_key\")",
            source(3, 1, 5),
        ),
        warning("UndefinedVar", "undefined-var", "Usage of undefined variable '$nnoe'", source(5, 3, 7)),
        warning(
            "JSONArgsRecommended",
            "json-args-recommended",
            "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            source(6, 4, 7),
        ),
    ]
    .concat()
}

/// Our own command line, with a daemon that has busybox.
fn ours(test: impl Fn(&dyn Fn(&str, &TempDir) -> Output)) {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    test(&|line, directory| {
        let mut command: Command = daemon.command(Cli::Longshore).unwrap();
        command.args(split(line)).arg(directory.path());
        testkit::process::run(&mut command, b"").unwrap()
    });
}

#[test]
fn privileged_our_own_build_checks_too() {
    ours(|run| {
        let directory = context(&[("Dockerfile", "FROM busybox as made\nENV A b\nRUN echo c > d\n")]);
        let output = run("build -t checked", &directory);
        let wanted = "\n 2 warnings found (use longshore --debug to expand):\n - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n \
            - LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)\n";
        assert!(output.code == 0 && output.stderr.ends_with(wanted), "{output:?}");
        assert_eq!(run("build -q", &directory).stderr, "");
        let skipped = run("build --build-arg BUILDKIT_DOCKERFILE_CHECK=skip=all", &directory);
        assert!(
            skipped.code == 0 && !skipped.stderr.contains("warning") && !skipped.stdout.contains("BUILDKIT"),
            "{skipped:?}"
        );
        let bad_one = context(&[("Dockerfile", BAD)]);
        let output = run("build --check", &bad_one);
        let name = bad_one.path().join("Dockerfile").display().to_string();
        assert_eq!((output.code, &output.stdout), (1, &bad(&name)), "{output:?}");
        let targets = run("build --call targets", &bad_one);
        assert_eq!((targets.code, targets.stdout.as_str()), (0, "TARGET        DESCRIPTION\nbad (default) \n"));
        let error = context(&[("Dockerfile", "# check=error=true\nFROM busybox\nMAINTAINER me\n")]);
        let output = run("build", &error);
        assert!(
            output.code == 1 && output.stderr.ends_with("lint violation found for rules: MaintainerDeprecated\n"),
            "{output:?}"
        );
        assert!(!output.stdout.contains("Step"), "{output:?}");
    });
}

/// What GNU tar makes of a directory.
fn packed(directory: &TempDir) -> Vec<u8> {
    let output = Command::new("tar").args(["-C", &path(directory), "-cz", "."]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn privileged_what_is_fetched_or_sent_whole_is_checked_as_by_buildx() {
    plugged(|plugged| {
        let directory = context(&[("Dockerfile", BAD), ("sub/other", "FROM scratch AS x\nCOPY a /\n")]);
        let (archive, text) = (packed(&directory), BAD.as_bytes().to_vec());
        let of_server = archive.clone();
        let server = Server::start(move |request: &Request| match request.path.as_str() {
            "/context.tar.gz" => Answer::new(200, of_server.clone()),
            "/dockerfile" => Answer::new(200, BAD),
            _ => Answer::new(404, "gone"),
        });
        let (tar, file) =
            (format!("http://{}/context.tar.gz", server.host()), format!("http://{}/dockerfile", server.host()));
        let repositories = Repositories::new();
        repositories.commit("x", &[("Dockerfile", BAD)]);
        repositories.serve("x");
        let git = repositories.url("x");
        for (flags, place, input) in [
            ("--check", git.as_str(), &Vec::new()),
            ("--check", "-", &archive),
            ("--call=targets", "-", &text),
            ("--check", tar.as_str(), &Vec::new()),
            ("--check", file.as_str(), &Vec::new()),
            ("--check -f sub/other", tar.as_str(), &Vec::new()),
            ("--check --target Bad", "-", &archive),
            ("--call=check,format=json", "-", &archive),
            ("--call=targets", tar.as_str(), &Vec::new()),
            ("--call=outline", file.as_str(), &Vec::new()),
        ] {
            let line = format!("build {flags} {place}");
            let theirs = testkit::process::run(&mut plugged.command(&format!("buildx {line}")), input).unwrap();
            let mut command = plugged.at.daemon.command(Cli::Longshore).unwrap();
            let ours = testkit::process::run(command.args(split(&line)), input).unwrap();
            assert_eq!(found(&ours), found(&theirs), "{line}: {ours:?} {theirs:?}");
            assert!(!ours.stdout.is_empty(), "{line}: {ours:?}");
        }
        let json = |program: &mut Command, line: &str| {
            testkit::process::run(
                program.args(split(&format!("{line} --call=check,format=json {}", path(&directory)))),
                b"",
            )
        };
        let ours = json(&mut plugged.at.daemon.command(Cli::Longshore).unwrap(), "build").unwrap();
        let theirs = json(&mut plugged.command("buildx"), "build").unwrap();
        assert_eq!(found(&ours), found(&theirs));
        let mut command = plugged.at.daemon.command(Cli::Longshore).unwrap();
        let none = testkit::process::run(command.args(split(&format!("build --check {tar} -f none"))), b"").unwrap();
        let wanted = "failed to read dockerfile: open none: no such file or directory";
        assert!(none.code == 1 && none.stderr.contains(wanted), "{none:?}");
        let mut command = plugged.at.daemon.command(Cli::Longshore).unwrap();
        let none = testkit::process::run(command.args(split("build --check http://127.0.0.1:1/x.git")), b"").unwrap();
        assert!(none.code == 1 && none.stderr.contains("127.0.0.1"), "{none:?}");
    });
}
