//! `docker buildx build` and `docker compose build`: BuildKit's API, with the real clients.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, Output, Piped, paths};

use crate::build::{context, path};
use crate::support::{At, split};

/// Docker's command line with its plugins.
pub(crate) struct Plugged<'a> {
    /// Where it is pointed.
    pub(crate) at: At<'a>,
    /// Its configuration, where the plugins are.
    pub(crate) config: TempDir,
}

/// Runs `test` with docker's command line and its plugins; reports a skip where there is none.
pub(crate) fn plugged(test: impl Fn(&Plugged<'_>)) {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    if !daemon.clis().contains(&Cli::Docker) {
        return;
    }
    test(&Plugged::of(&daemon));
}

/// A configuration with the plugins.
pub(crate) fn plugins() -> TempDir {
    let config = tempfile::tempdir().unwrap();
    let plugins = config.path().join("cli-plugins");
    fs::create_dir(&plugins).unwrap();
    for plugin in ["docker-buildx", "docker-compose"] {
        symlink(paths::docker_plugin(plugin).unwrap().join(plugin), plugins.join(plugin)).unwrap();
    }
    config
}

impl Plugged<'_> {
    /// Docker's command line at a daemon.
    pub(crate) fn of(daemon: &Daemon) -> Plugged<'_> {
        Plugged { at: At { daemon, cli: Cli::Docker }, config: plugins() }
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = self.at.daemon.command(Cli::Docker).unwrap();
        command.args(split(line)).env("DOCKER_CONFIG", self.config.path());
        command
    }

    pub(crate) fn line(&self, line: &str) -> Output {
        println!("{line}");
        testkit::process::run(&mut self.command(line), b"").unwrap()
    }

    /// Begins with a line; what is told of a build, which goes to standard error, is read like the rest.
    pub(crate) fn spawn(&self, line: &str) -> Piped {
        println!("{line}");
        let mut command = Command::new("/bin/sh");
        let inner = self.command(line);
        command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Piped::spawn(&mut command).unwrap()
    }

    /// Builds; answers what was told of it.
    pub(crate) fn build(&self, image: &str, directory: &TempDir, flags: &str) -> String {
        let output = self.line(&format!("buildx build --progress plain -t {image} {flags} {}", path(directory)));
        assert_eq!(output.code, 0, "{output:?}");
        output.stderr
    }

    /// Fails to build; answers what was told of it.
    pub(crate) fn fails(&self, directory: &TempDir, flags: &str) -> String {
        let output = self.line(&format!("buildx build --progress plain {flags} {}", path(directory)));
        assert_eq!(output.code, 1, "{output:?}");
        output.stderr
    }
}

/// What was told without what differs from time to time: numbers of parts, durations, sizes, digests, and what was done
/// before. Each once, in order of the alphabet, because parts may go on side by side.
fn told(printed: &str) -> Vec<String> {
    let line = |line: &str| {
        let (number, rest) = line.split_once(' ')?;
        number.strip_prefix('#')?.parse::<usize>().ok()?;
        // Output of commands begins with a time.
        let rest = match rest.split_once(' ') {
            Some((time, output)) if time.parse::<f64>().is_ok() => format!("output {output}"),
            _ => rest.to_owned(),
        };
        let words = rest.split(' ').filter(|word| !is_duration(word) && !is_size(word)).map(|word| {
            let (bare, _) = word.split_once("@sha256:").unwrap_or((word, ""));
            if bare.starts_with("sha256:") { "DIGEST" } else { bare }
        });
        let words = words.collect::<Vec<_>>().join(" ");
        let words = words.strip_suffix(" done").unwrap_or(&words);
        (!matches!(words, "" | "DONE" | "CACHED" | "...")).then(|| words.to_owned())
    };
    let mut lines: Vec<String> = printed.lines().filter_map(line).collect();
    lines.sort();
    lines.dedup();
    lines
}

fn is_duration(word: &str) -> bool {
    word.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok())
}

fn is_size(word: &str) -> bool {
    let number = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    word.ends_with('B') && number.parse::<f64>().is_ok()
}

#[test]
fn privileged_buildx_builds_stages_with_arguments_targets_and_labels() {
    plugged(|plugged| {
        let image = plugged.at.image("stages");
        let directory = context(&[
            (
                "Dockerfile",
                "ARG BASE=busybox\nFROM $BASE AS made\nARG WORD=none\nWORKDIR /made\nRUN echo $WORD > word\n\
                 COPY sub /made/sub\n\
                 FROM busybox AS other\nRUN exit 3\n\
                 FROM busybox AS last\nENV A=b\nCOPY --from=made --chown=3:4 /made /got\nCOPY file /file\nUSER 5\n\
                 CMD [\"cat\", \"/got/word\"]\n",
            ),
            (".dockerignore", "*.o\nsub/left-out\n"),
            ("sub/kept", "kept\n"),
            ("sub/left-out", "x"),
            ("sub/a.o", "x"),
            ("file", "f"),
            ("unused", &"x".repeat(1 << 20)),
        ]);
        let flags = "--build-arg WORD=said --label l=m --target last";
        let printed = plugged.build(&image, &directory, flags);
        let wanted = [
            "[internal] load .dockerignore",
            "[internal] load build context",
            "[internal] load build definition from Dockerfile",
            "[internal] load metadata for docker.io/library/busybox:latest",
            "[last 2/3] COPY --from=made --chown=3:4 /made /got",
            "[last 3/3] COPY file /file",
            "[made 1/4] FROM docker.io/library/busybox:latest",
            "[made 2/4] WORKDIR /made",
            "[made 3/4] RUN echo said > word",
            "[made 4/4] COPY sub /made/sub",
            "building with \"default\" instance using docker driver",
            "exporting layers",
            "exporting to image",
            &format!("naming to docker.io/library/{image}"),
            "transferring context:",
            "transferring dockerfile:",
            "writing image DIGEST",
        ];
        assert_eq!(told(&printed), wanted, "{printed}");
        // What nobody copies is not sent.
        assert!(!printed.contains("MB"), "{printed}");
        assert_eq!(plugged.at.run(&image), "said");
        let files = plugged.at.run(&format!("{image} find /got /file -type f -exec stat -c '%n %u:%g' {{}} ;"));
        let mut files: Vec<&str> = files.lines().collect();
        files.sort();
        assert_eq!(files, ["/file 0:0", "/got/sub/a.o 3:4", "/got/sub/kept 3:4", "/got/word 3:4"]);
        let config = plugged.at.inspect(&image, "{{.Config.User}} {{json .Config.Labels}} {{index .Config.Env 1}}");
        assert_eq!(config, "5 {\"l\":\"m\"} A=b");
        let made = plugged.at.image("made");
        plugged.build(&made, &directory, "--target made");
        assert_eq!(plugged.at.run(&format!("{made} cat /made/word")), "none");
        plugged.at.ok(&format!("rmi {image} {made}"));
    });
}

#[test]
fn privileged_buildx_does_nothing_twice() {
    plugged(|plugged| {
        let image = plugged.at.image("cached");
        let text = format!("FROM busybox\nRUN echo {image} > /one\nCOPY a /a\nWORKDIR /w\nRUN cat /a > two\n");
        let directory = context(&[("Dockerfile", &text), ("a", "1"), ("other", "1")]);
        plugged.build(&image, &directory, "");
        let id = plugged.at.inspect(&image, "{{.Id}}");
        fs::write(directory.path().join("other"), "2").unwrap();
        let cached = |printed: &str| printed.lines().filter(|line| line.ends_with(" CACHED")).count();
        let again = plugged.build(&image, &directory, "");
        assert!(cached(&again) >= 4, "{again}");
        assert_eq!(plugged.at.inspect(&image, "{{.Id}}"), id);
        fs::write(directory.path().join("a"), "2").unwrap();
        let changed = plugged.build(&image, &directory, "");
        assert!((1..=2).contains(&cached(&changed)), "{changed}");
        assert_eq!(plugged.at.run(&format!("{image} cat /one /w/two")), format!("{image}\n2"));
        plugged.at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_buildx_tells_what_failed_and_where() {
    plugged(|plugged| {
        let directory = context(&[("Dockerfile", "FROM busybox\nRUN true\nRUN echo said; \\\n  exit 7\nRUN true\n")]);
        let printed = plugged.fails(&directory, "");
        for wanted in [
            "said\n",
            " > [3/4] RUN echo said",
            "Dockerfile:3\n--------------------\n",
            "   3 | >>> RUN echo said; \\\n   4 | >>>   exit 7\n",
            "did not complete successfully: exit code: 7",
        ] {
            assert!(printed.contains(wanted), "{wanted:?} in {printed}");
        }
        let last =
            "failed to solve: process \"/bin/sh -c echo said;   exit 7\" did not complete successfully: exit code: 7";
        assert!(printed.trim_end().ends_with(last), "{printed}");
        for (text, wanted) in [
            (
                "FROM busybox\nRUNN true\n",
                "failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)",
            ),
            ("FROM busybox\nCOPY none /\n", "\"/none\": not found"),
            ("FROM busybox AS a\n", "failed to solve: target stage \"other\" could not be found"),
        ] {
            let directory = context(&[("Dockerfile", text)]);
            let flags = if text.ends_with("AS a\n") { "--target other" } else { "" };
            let printed = plugged.fails(&directory, flags);
            assert!(printed.trim_end().ends_with(wanted), "{wanted:?} at the end of {printed}");
        }
        let printed = plugged.fails(&context(&[("Other", "FROM busybox\n")]), "");
        assert!(
            printed.trim_end().ends_with("failed to read dockerfile: open Dockerfile: no such file or directory"),
            "{printed}"
        );
        // One that is not the test's own may have containers of others.
        if !plugged.at.daemon.is_foreign() {
            assert_eq!(plugged.at.ok("ps -aq"), "");
        }
    });
}

/// What is in the data root of a daemon of ours that only builds under way have.
pub(crate) fn left(daemon: &Daemon) -> usize {
    let entries = |name: &&str| fs::read_dir(daemon.scratch().data_root().join(name)).into_iter().flatten();
    ["builds", "containers"].iter().flat_map(entries).count()
}

#[test]
fn privileged_buildx_that_is_interrupted_leaves_nothing() {
    plugged(|plugged| {
        let own = plugged.at.name("gone");
        let text = format!("FROM busybox\nRUN echo {own} && echo begun && sleep 1000\n");
        let directory = context(&[("Dockerfile", &text)]);
        for signal in [Signal::INT, Signal::KILL] {
            let line = format!("buildx build --progress plain {}", path(&directory));
            let mut client = plugged.spawn(&line);
            client.read_until(" begun\n").unwrap();
            client.signal(signal).unwrap();
            assert_ne!(client.wait().unwrap().code, 0);
            if !plugged.at.daemon.is_foreign() {
                let gone = || (plugged.at.ok("ps -aq").is_empty() && left(plugged.at.daemon) == 0).then_some(());
                until("nothing is left of the build", DEADLINE, gone).unwrap();
            }
        }
    });
}

#[test]
fn privileged_buildx_says_what_it_cannot_do() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("this is about what is not there yet");
        }
        let directory = context(&[("Dockerfile", "FROM busybox\n")]);
        let to = tempfile::tempdir().unwrap();
        let printed =
            plugged.fails(&directory, &format!("--output type=oci,compression=estargz,dest={}/out", path(&to)));
        assert!(printed.contains("the compression \"estargz\" of an output is not supported yet"), "{printed}");
    });
}

#[test]
fn privileged_compose_builds_what_its_services_need() {
    plugged(|plugged| {
        let (image, project) = (plugged.at.image("composed"), plugged.at.image("project"));
        let file = format!(
            "name: {project}\nservices:\n  one:\n    image: {image}\n    build:\n      context: .\n      args:\n        \
             WORD: said\n"
        );
        let directory = context(&[
            ("compose.yaml", &file),
            ("Dockerfile", "FROM busybox\nARG WORD\nCOPY file /file\nRUN echo $WORD >> /file\n"),
            ("file", "f\n"),
        ]);
        let compose = directory.path().join("compose.yaml");
        for builder in ["1", "0"] {
            let mut command = plugged.command(&format!("compose -f {} build --no-cache", compose.display()));
            let output = testkit::process::run(command.env("COMPOSE_BAKE", builder), b"").unwrap();
            assert_eq!(output.code, 0, "{output:?}");
            assert_eq!(plugged.at.run(&format!("{image} cat /file")), "f\nsaid");
            plugged.at.ok(&format!("rmi {image}"));
        }
    });
}

#[test]
fn privileged_compose_gives_builds_secrets() {
    plugged(|plugged| {
        let (image, project) = (plugged.at.image("secret"), plugged.at.image("secrets"));
        let file = format!(
            "name: {project}\nservices:\n  one:\n    image: {image}\n    build:\n      context: .\n      secrets: [tok, var]\n\
             secrets:\n  tok:\n    file: ./token\n  var:\n    environment: OWN_TOKEN\n"
        );
        let directory = context(&[
            ("compose.yaml", &file),
            (
                "Dockerfile",
                "FROM busybox\nRUN --mount=type=secret,id=tok,required --mount=type=secret,id=var,env=V,required \
                 wc -c < /run/secrets/tok > /got && echo ${#V} >> /got\n",
            ),
            ("token", "four"),
        ]);
        let compose = directory.path().join("compose.yaml");
        for builder in ["1", "0"] {
            let mut command = plugged.command(&format!("compose -f {} build --no-cache", compose.display()));
            let command = command.env("COMPOSE_BAKE", builder).env("OWN_TOKEN", "sixsix");
            let output = testkit::process::run(command, b"").unwrap();
            assert_eq!(output.code, 0, "{output:?}");
            assert_eq!(plugged.at.run(&format!("{image} cat /got")), "4\n6");
            plugged.at.ok(&format!("rmi {image}"));
        }
    });
}

#[test]
fn privileged_buildx_shows_what_there_is() {
    plugged(|plugged| {
        let shown = plugged.line("buildx inspect");
        assert!(shown.stdout.contains("Driver:") && shown.stdout.contains("linux/"), "{shown:?}");
        let image = plugged.at.image("kept");
        let text = format!("FROM busybox\nRUN echo {image}\n");
        plugged.build(&image, &context(&[("Dockerfile", &text)]), "");
        assert_eq!(plugged.line("buildx du").code, 0);
        if !plugged.at.daemon.is_foreign() {
            assert_eq!(plugged.line("buildx prune --force").code, 0);
            assert_eq!(plugged.line("builder prune --force").code, 0);
        }
        plugged.at.ok(&format!("rmi {image}"));
    });
}

/// A layer that is another one each time is pushed and pulled again by everybody.
#[test]
fn privileged_the_same_files_make_the_same_layers() {
    plugged(|plugged| {
        let text = "FROM busybox\nCOPY . /c\nCOPY d /d1\nCOPY d e /both/\nADD --chown=1:2 d/ /d2\n";
        let directory = context(&[("Dockerfile", text), ("a", "a"), ("d/x", "x"), ("d/sub/y", "y"), ("e/z", "z")]);
        let image = plugged.at.image("again");
        let layers = || {
            plugged.line(&format!("buildx build -q --no-cache -t {image} {}", path(&directory))).success().unwrap();
            plugged.at.inspect(&image, "{{json .RootFS.Layers}}")
        };
        let first = layers();
        // The time of the context itself is not sent.
        fs::write(directory.path().join("passing"), "").unwrap();
        fs::remove_file(directory.path().join("passing")).unwrap();
        assert_eq!(layers(), first);
        let times = plugged.at.run(&format!("{image} stat -c %Y /d1 /d1/sub /d2"));
        let time = |path: &str| fs::metadata(directory.path().join(path)).unwrap().modified().unwrap();
        let seconds = |path| time(path).duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string();
        assert_eq!(times, [seconds("d"), seconds("d/sub"), seconds("d")].join("\n"));
        plugged.at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_only_the_classic_builders_commands_see_docker() {
    plugged(|plugged| {
        let own = plugged.at.name("mark");
        let text = format!(
            "FROM busybox\nRUN echo {own}; if [ -e /.dockerenv ]; then echo it is there; else echo it is not; fi\n"
        );
        let directory = context(&[("Dockerfile", &text)]);
        let told = plugged.line(&format!("buildx build --no-cache --progress plain {}", path(&directory)));
        assert!(told.code == 0 && told.stderr.contains(" it is not\n"), "{told:?}");
        let mut classic = plugged.command(&format!("build --no-cache {}", path(&directory)));
        let told = testkit::process::run(classic.env("DOCKER_BUILDKIT", "0"), b"").unwrap();
        assert!(told.code == 0 && told.stdout.contains("\nit is there\n"), "{told:?}");
    });
}
