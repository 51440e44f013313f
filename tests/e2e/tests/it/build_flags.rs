//! Flags that our own `build` has from buildx.

use std::fs;

use testkit::Cli;
use testkit::registry::Debian;

use crate::build::{context, path};
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
            ("--progress=rawjson", "--progress=rawjson is not supported yet"),
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
