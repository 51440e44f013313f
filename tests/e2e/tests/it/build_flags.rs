//! Flags that our own `build` has from buildx.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use testkit::registry::Debian;
use testkit::{Cli, Output};

use crate::build::{context, path};
use crate::buildx::plugged;
use crate::support::{At, each, ours};

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

#[test]
fn privileged_the_usual_line_of_a_ci_system_builds_and_pushes() {
    on_ours(|at| {
        let registry = Debian::start().unwrap();
        let directory = context(&[("Dockerfile", "FROM busybox\nRUN echo a > /f\n")]);
        let (one, two) = (format!("{}/a:1", registry.host()), format!("{}/b", registry.host()));
        let file = directory.path().join("metadata");
        let flags = format!("--builder default --provenance=false --load --metadata-file {}", file.display());
        let told =
            at.ok(&format!("buildx build --progress=plain --push -t {one} -t {two} {flags} {}", path(&directory)));
        assert!(told.contains(&format!("The push refers to repository [{}/a]", registry.host())), "{told}");
        let digest = told.lines().last().and_then(|line| line.split(' ').nth(2)).unwrap().to_owned();
        let metadata: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(metadata["image.name"], format!("{one},{two}:latest"));
        assert_eq!(metadata["containerimage.digest"], digest, "{told}");
        assert_eq!(metadata["containerimage.config.digest"], at.inspect(&one, "{{.Id}}"));
        for name in [&one, &two] {
            at.ok(&format!("rmi {name}"));
            at.ok(&format!("pull -q {name}"));
            assert_eq!(at.run(&format!("{name} cat /f")), "a");
        }
        // Quietly, as an output, and where there is no registry.
        let third = format!("{}/c:1", registry.host());
        let id = at.ok(&format!("build -q --output type=image,name={third},push=true {}", path(&directory)));
        assert_eq!(id, at.inspect(&one, "{{.Id}}"));
        at.ok(&format!("rmi {third}"));
        at.ok(&format!("pull -q {third}"));
        let none = "127.0.0.1:1/x:1";
        at.fails(&format!("build --push -t {none} {}", path(&directory)), 1, &format!("failed to push {none}: "));
        at.ok(&format!("rmi {one} {two} {third} {none}"));
    });
}

#[test]
fn privileged_builds_are_shown_as_it_is_asked() {
    on_ours(|at| {
        let directory = context(&[("Dockerfile", "FROM busybox as a\nRUN echo out\n")]);
        let build = |flags: &str| at.line(&format!("build {flags} {}", path(&directory)));
        assert!(build("--progress=plain").stdout.contains("\nout\n"));
        let quiet = build("--progress quiet");
        assert_eq!((quiet.code, &*quiet.stdout, &*quiet.stderr), (0, "", ""));
        let expanded = build("-D");
        assert!(expanded.stderr.contains("More info: https://"), "{expanded:?}");
        for (flags, why) in [
            ("--progress=tty", "failed to get console: provided file is not a console"),
            ("--progress=other", "invalid progress mode other"),
            ("--push", "tag is needed when pushing to registry"),
            ("--sbom=true", "no output keeps attestations"),
            ("--builder other", "no builder \"other\" found"),
        ] {
            let output = build(flags);
            assert!(output.code == 1 && output.stderr.contains(why) && output.stdout.is_empty(), "{output:?}");
        }
        at.fails("buildx bake", 1, "longshore has no buildx bake: use docker's, which works with this daemon");
        let builders = at.ok("buildx ls");
        assert!(builders.contains("default*") && builders.contains("running"), "{builders}");
        let kept = at.ok("buildx du");
        assert!(kept.starts_with("ID ") && kept.contains("\nTotal: "), "{kept}");
    });
}

#[test]
fn privileged_commands_get_the_hosts_network_where_that_is_allowed() {
    on_ours(|at| {
        let directory = context(&[("Dockerfile", "FROM busybox\nRUN --network=host readlink /proc/self/ns/net\n")]);
        let build = format!("build --no-cache {}", path(&directory));
        at.fails(&build, 1, "network.host is not allowed");
        let told = at.ok(&format!("build --no-cache --allow network.host {}", path(&directory)));
        let host = fs::read_link("/proc/self/ns/net").unwrap();
        assert!(told.contains(host.to_str().unwrap()), "{told}");
        at.fails(&format!("{build} --allow security.insecure"), 1, "--allow security.insecure is not supported yet");
        at.fails(&format!("{build} --allow other"), 1, "unknown entitlement other");
    });
}

/// What programs are told: each line is a document.
fn documents(output: &Output) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line} in {output:?}"));
    output.stderr.lines().filter(|line| !line.starts_with("ERROR: ")).map(parse).collect()
}

/// All of one kind of what is told.
fn of_kind<'a>(told: &'a [Value], kind: &str) -> Vec<&'a Value> {
    told.iter().filter_map(|document| document[kind].as_array()).flatten().collect()
}

/// Names of fields, with those of what is in them.
fn fields(all: &[&Value]) -> BTreeSet<String> {
    all.iter().filter_map(|one| one.as_object()).flat_map(|fields| fields.keys().cloned()).collect()
}

#[test]
fn privileged_builds_are_told_to_programs_as_by_buildx() {
    plugged(|plugged| {
        let at = At { daemon: plugged.at.daemon, cli: Cli::Longshore };
        if at.daemon.is_foreign() {
            return testkit::skip::report("buildx' words are compared with ours at one daemon");
        }
        let text = "FROM busybox as a\nRUN echo out && echo err >&2\nCOPY x /\n";
        let directory = context(&[("Dockerfile", text), ("x", "x")]);
        let flags = format!("--no-cache --progress=rawjson {}", path(&directory));
        let (ours, theirs) =
            (at.line(&format!("build -t raw {flags}")), plugged.line(&format!("buildx build {flags}")));
        assert_eq!((ours.code, &*ours.stdout, theirs.code), (0, "", 0), "{ours:?} {theirs:?}");
        let [(ours, theirs)] = [(documents(&ours), documents(&theirs))];
        let names = |told: &[Value]| -> BTreeSet<String> {
            let ended = of_kind(told, "vertexes").into_iter().filter(|vertex| vertex["completed"].is_string());
            ended.map(|vertex| vertex["name"].as_str().unwrap().to_owned()).collect()
        };
        for name in ["[2/3] RUN echo out && echo err >&2", "[3/3] COPY x /", "exporting to image"] {
            assert!(names(&ours).contains(name) && names(&theirs).contains(name), "{name} in {ours:?} {theirs:?}");
        }
        for kind in ["vertexes", "statuses", "logs", "warnings"] {
            let (ours, theirs) = (fields(&of_kind(&ours, kind)), fields(&of_kind(&theirs, kind)));
            // Steps follow one another as they are told: nothing says what they need.
            let more: Vec<_> = ours.difference(&theirs).collect();
            assert!(more.is_empty() && !ours.is_empty(), "{kind}: {ours:?} {theirs:?}");
        }
        let logs = |told: &[Value]| -> BTreeSet<(i64, String)> {
            let log = |log: &&Value| (log["stream"].as_i64().unwrap(), log["data"].as_str().unwrap().to_owned());
            of_kind(told, "logs").iter().map(log).collect()
        };
        // "out" and "err", each with the end of its line.
        for log in [(1, "b3V0Cg=="), (2, "ZXJyCg==")].map(|(stream, data)| (stream, data.to_owned())) {
            assert!(logs(&ours).contains(&log) && logs(&theirs).contains(&log), "{ours:?} {theirs:?}");
        }
        let warning = |told: &[Value]| {
            let mut warning = of_kind(told, "warnings")[0].clone();
            warning["vertex"] = Value::Null;
            warning
        };
        assert_eq!(warning(&ours)["short"], warning(&theirs)["short"]);
        assert_eq!(warning(&ours)["range"], warning(&theirs)["range"]);
        assert_eq!(warning(&ours)["sourceInfo"]["data"], warning(&theirs)["sourceInfo"]["data"]);
        let again = documents(&at.line(&format!("build -t raw --progress=rawjson {}", path(&directory))));
        let cached = of_kind(&again, "vertexes").into_iter().filter(|vertex| vertex["cached"] == true);
        assert_eq!(cached.count(), 2, "{again:?}");
        // What fails is told where it failed.
        let wrong = context(&[("Dockerfile", "FROM busybox\nRUN exit 7\n")]);
        let failed = at.line(&format!("build --progress=rawjson {}", path(&wrong)));
        let told: Vec<Value> = failed.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let errors: Vec<_> =
            of_kind(&told, "vertexes").into_iter().filter(|vertex| vertex["error"].is_string()).collect();
        assert_eq!((failed.code, errors.len(), &errors[0]["name"]), (7, 1, &"[2/2] RUN exit 7".into()), "{failed:?}");
        at.ok("rmi raw");
    });
}
