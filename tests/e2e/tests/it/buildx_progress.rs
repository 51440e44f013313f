//! What buildx tells of a build while it goes on: its parts, their order, and how each one ends.

use std::fs;

use rustix::process::Signal;

use crate::build::{context, path};
use crate::buildx::{Plugged, plugged};

/// The parts of a build with what became of them, in the order in which they were first told: `[1/2] FROM x: CACHED`.
pub(crate) fn parts(printed: &str) -> Vec<String> {
    let mut parts: Vec<(String, String, String)> = Vec::new();
    for line in printed.lines() {
        let Some((number, rest)) = line.strip_prefix('#').and_then(|rest| rest.split_once(' ')) else { continue };
        let ended = rest.split(' ').next().filter(|word| matches!(*word, "DONE" | "CACHED" | "CANCELED" | "ERROR:"));
        match (parts.iter_mut().find(|(own, ..)| own == number), ended) {
            (Some((.., last)), Some(ended)) => last.replace_range(.., ended),
            (None, _) if rest.starts_with('[') => parts.push((number.to_owned(), rest.to_owned(), String::new())),
            _ => {}
        }
    }
    parts.into_iter().map(|(_, name, ended)| format!("{name}: {ended}")).collect()
}

const DEFINITION: &str = "[internal] load build definition from Dockerfile: DONE";
const METADATA: &str = "[internal] load metadata for docker.io/library/busybox:latest: DONE";
const IGNORE: &str = "[internal] load .dockerignore: DONE";

#[test]
fn privileged_parts_are_told_in_buildkits_order() {
    plugged(|plugged| {
        let own = plugged.at.name("parts");
        let image = plugged.at.image("parts");
        let text = format!("FROM busybox\nRUN --mount=type=cache,target=/c echo {own}\nWORKDIR /w\n");
        let directory = context(&[("Dockerfile", &text)]);
        let begin = [DEFINITION, METADATA, IGNORE];
        // Two stages, as each mount is one.
        let run = format!("[stage-0 2/3] RUN --mount=type=cache,target=/c echo {own}");
        let from = "[stage-0 1/3] FROM docker.io/library/busybox:latest";
        let directory_part = "[stage-0 3/3] WORKDIR /w";
        // What the image is needed for was not done before; one that was just loaded may be new to BuildKit.
        let _ = plugged.build(&image, &context(&[("Dockerfile", "FROM busybox\n")]), "");
        let first = parts(&plugged.build(&image, &directory, ""));
        let new = [format!("{from}: CACHED"), format!("{run}: DONE"), format!("{directory_part}: DONE")];
        assert_eq!(first, [&begin.map(str::to_owned)[..], &new].concat());
        // Nobody needs it any more.
        let again = parts(&plugged.build(&image, &directory, ""));
        let known = [format!("{from}: DONE"), format!("{run}: CACHED"), format!("{directory_part}: CACHED")];
        assert_eq!(again, [&begin.map(str::to_owned)[..], &known].concat());
        // The image is what comes of it.
        fs::write(directory.path().join("Dockerfile"), "FROM busybox\nLABEL a=b\n").unwrap();
        let alone = parts(&plugged.build(&image, &directory, ""));
        assert_eq!(alone[3..], ["[1/1] FROM docker.io/library/busybox:latest: CACHED"]);
        plugged.at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_what_is_no_dockerfile_asks_for_nothing_more() {
    plugged(|plugged| {
        for (text, wanted) in [
            ("FROM busybox\nFOO x\n", &[DEFINITION][..]),
            ("ARG X\nFROM $X\n", &[DEFINITION]),
            ("# check=no\nFROM busybox\n", &[DEFINITION]),
            ("FROM busybox\nEXPOSE 80/foo\n", &[DEFINITION, METADATA, IGNORE]),
            ("FROM scratch\nCOPY Dockerfile /\nSTOPSIGNAL x\n", &[DEFINITION, IGNORE]),
        ] {
            let printed = plugged.fails(&context(&[("Dockerfile", text)]), "");
            assert_eq!(parts(&printed), wanted, "{text}: {printed}");
        }
    });
}

#[test]
fn privileged_what_checks_find_is_told_of_builds_that_come_to_nothing() {
    plugged(|plugged| {
        for (text, wanted) in [
            ("ARG X\nFROM $X\n", &["InvalidDefaultArgInFrom"][..]),
            ("FROM Busy_Box:UP:x\n", &["InvalidDefaultArgInFrom"]),
            ("FROM busybox foo bar\n", &["FromAsCasing"]),
            ("MAINTAINER x\nFROM busybox\n", &["MaintainerDeprecated"]),
            ("FROM busybox as b\nFOO\n", &["FromAsCasing"]),
            ("FROM --platform=linux/foo nothing.invalid/x\n", &["FromPlatformFlagConstDisallowed"]),
            // What stands behind the line that fails is not looked at.
            ("FROM busybox as b\nEXPOSE 80/foo\nWORKDIR c\n", &["FromAsCasing"]),
        ] {
            let printed = plugged.fails(&context(&[("Dockerfile", text)]), "");
            // Beside their step or in the list at the end, or both: that is a matter of when the client hears of them.
            let told = |line: &'_ str| line.starts_with("#1 WARN: ") || line.starts_with(" - ");
            let name = |line: &str| {
                line.trim_start_matches("#1 WARN: ").trim_start_matches(" - ").split(':').next().map(str::to_owned)
            };
            let warnings: std::collections::BTreeSet<_> =
                printed.lines().filter(|line| told(line)).filter_map(name).collect();
            assert_eq!(Vec::from_iter(warnings), wanted, "{text}: {printed}");
            assert!(printed.contains(">>>"), "{text}: {printed}");
        }
    });
}

#[test]
fn privileged_what_is_given_up_is_told_as_canceled() {
    plugged(|plugged| {
        let own = plugged.at.name("canceled");
        let text = format!("FROM busybox\nRUN echo {own} && echo begun && sleep 1000\nRUN true\n");
        let directory = context(&[("Dockerfile", &text)]);
        let mut client = plugged.spawn(&format!("buildx build --progress plain {}", path(&directory)));
        client.read_until(" begun\n").unwrap();
        client.signal(Signal::INT).unwrap();
        let output = client.wait().unwrap();
        assert_ne!(output.code, 0);
        let told =
            output.stdout.lines().any(|line| line.strip_prefix('#').is_some_and(|rest| rest.ends_with(" CANCELED")));
        assert!(told, "{output:?}");
        if plugged.at.daemon.is_foreign() {
            return;
        }
        let logs = plugged.line("buildx history logs --progress plain");
        assert!(logs.stderr.lines().any(|line| line.ends_with(" CANCELED")), "{logs:?}");
    });
}

/// Whether a command printed a line.
fn has(told: &str, line: &str) -> bool {
    told.lines().any(|own| own.starts_with('#') && own.split(' ').skip(2).eq([line]))
}

/// Prints 3.2 MB: more than is told however long it takes.
const MUCH: &str = "seq 1000000 1399999";

#[test]
fn privileged_what_commands_print_is_clipped_as_buildkit_does() {
    plugged(|plugged| {
        let own = plugged.at.name("clipped");
        let build = |text: &str| {
            let directory = context(&[("Dockerfile", text)]);
            plugged.line(&format!("buildx build --progress plain {}", path(&directory)))
        };
        let is_clipped = |told: &str| told.contains(" [output clipped, log limit ");
        let ended = build(&format!("FROM busybox\nRUN echo {own}; {MUCH}\n"));
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(is_clipped(&ended.stderr) && has(&ended.stderr, "1010000"), "nothing is clipped");
        assert!(!has(&ended.stderr, "1399999"), "all was told");
        let failed = build(&format!("FROM busybox\nRUN echo {own}; {MUCH}; exit 3\n"));
        assert_eq!(failed.code, 1);
        assert!(is_clipped(&failed.stderr) && has(&failed.stderr, "1399999"), "the end was not told");
        // Each stream has its own limit.
        let both =
            build(&format!("FROM busybox\nRUN echo {own}; {MUCH} | head -n 18000; {MUCH} | head -n 18000 >&2\n"));
        assert!(!is_clipped(&both.stderr), "{own}");
        // The classic builder's client is told all of it.
        let directory = context(&[("Dockerfile", &format!("FROM busybox\nRUN echo {own}; {MUCH}\n"))]);
        let mut classic = plugged.command(&format!("build --no-cache {}", path(&directory)));
        let told = testkit::process::run(classic.env("DOCKER_BUILDKIT", "0"), b"").unwrap();
        assert!(told.code == 0 && told.stdout.contains("\n1399999\n"), "not all was told");
    });
}

#[test]
fn privileged_the_environment_says_how_much_is_told() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = testkit::daemon::start_under("BUILDKIT_STEP_LOG_MAX_SIZE", "-1", &[]).unwrap();
    if !daemon.clis().contains(&testkit::Cli::Docker) {
        return;
    }
    daemon.load(testkit::images::Archive::Busybox).unwrap();
    let text = format!("FROM busybox\nRUN {MUCH}\n");
    let told = Plugged::of(&daemon).build("all", &context(&[("Dockerfile", &text)]), "");
    assert!(has(&told, "1399999"), "not all was told");
}
