//! Steps that another daemon has done: caches in registries, and images.

use testkit::registry::Debian;
use testkit::{Cli, Daemon, Output};

use crate::build::{context, path};
use crate::buildx::plugged;
use crate::support::At;

/// Each build that does it again has another word in `/made` and in `/id`.
pub(crate) const TEXT: &str = "FROM busybox AS made\nENV A=b\nRUN cat /proc/sys/kernel/random/uuid > /made\nCOPY file /file\n\
     FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\nWORKDIR /w\nCOPY --from=made /made /made\nCMD [\"cat\", \"/id\"]\n";

fn daemons(test: impl FnOnce(&At<'_>, &At<'_>, &str)) {
    if testkit::skip::without_root() {
        return;
    }
    let (one, other) = (Daemon::with_busybox().unwrap(), Daemon::with_busybox().unwrap());
    if one.is_foreign() {
        return testkit::skip::report("two daemons of our own are wanted");
    }
    let registry = Debian::start().unwrap();
    let at = |daemon| At { daemon, cli: Cli::Longshore };
    test(&at(&one), &at(&other), registry.host());
}

pub(crate) fn build(at: &At<'_>, directory: &tempfile::TempDir, flags: &str) -> String {
    at.ok(&format!("build -t built {flags} {}", path(directory)))
}

pub(crate) fn words(at: &At<'_>) -> (String, String) {
    (at.run("built cat /made"), at.run("built cat /id"))
}

pub(crate) fn id(at: &At<'_>) -> String {
    at.inspect("built", "{{.Id}}")
}

#[test]
fn privileged_a_cache_in_a_registry_saves_another_daemon_the_work() {
    daemons(|one, other, host| {
        let directory = context(&[("Dockerfile", TEXT), ("file", "1")]);
        let told = build(one, &directory, &format!("--cache-to type=registry,ref={host}/cache:1,mode=max"));
        assert!(told.contains(&format!("Left the cache at {host}/cache:1 (sha256:")), "{told}");
        let told = build(other, &directory, &format!("--cache-from type=registry,ref={host}/cache:1"));
        assert!(!told.contains("Running in"), "{told}");
        assert_eq!(words(other), words(one));
        // It is the very same image, with the same past.
        assert_eq!(id(other), id(one));
        // From now on it is known here, too.
        assert!(!build(other, &directory, "").contains("Running in"));
        // What has changed is done, and what it depends on is not.
        std::fs::write(directory.path().join("file"), "2").unwrap();
        other.ok("builder prune -af");
        other.ok("rmi built");
        let told = build(other, &directory, &format!("--cache-from type=registry,ref={host}/cache:1"));
        assert!(!told.contains("Running in"), "{told}");
        assert_eq!(words(other), words(one));
        // Of the target alone the rest is not known.
        let before = words(one);
        build(one, &directory, &format!("--cache-to {host}/cache:min"));
        other.ok("builder prune -af");
        other.ok("rmi built");
        build(other, &directory, &format!("--cache-from {host}/cache:min"));
        let (made, own) = words(other);
        assert!(made != before.0 && own == before.1, "{made} {own} {before:?}");
        // It is not asked where everything is to be done again.
        build(other, &directory, &format!("--no-cache --cache-from {host}/cache:1"));
        assert_ne!(words(other).1, before.1);
    });
}

#[test]
fn privileged_an_image_is_a_cache_by_what_its_history_says() {
    daemons(|one, other, host| {
        let text = "FROM busybox\nENV A=b\nRUN cat /proc/sys/kernel/random/uuid > /id\nCOPY file /file\nRUN cat /file > /made\n";
        let directory = context(&[("Dockerfile", text), ("file", "1")]);
        let name = format!("{host}/app:1");
        build(one, &directory, "");
        one.ok(&format!("tag built {name}"));
        one.ok(&format!("push {name}"));
        // From the registry, of which only the layers come that are wanted.
        let told = build(other, &directory, &format!("--cache-from {name}"));
        assert!(!told.contains("Running in"), "{told}");
        assert_eq!((words(other), id(other)), (words(one), id(one)));
        // An image that is here, with another file: the first steps are its own.
        other.ok("builder prune -af");
        other.ok(&format!("tag built {name}"));
        other.ok("rmi built");
        std::fs::write(directory.path().join("file"), "2").unwrap();
        let docker = At { daemon: other.daemon, cli: Cli::Docker };
        if other.daemon.clis().contains(&Cli::Docker) {
            let told = docker.ok(&format!("build -t built --cache-from {name} {}", path(&directory)));
            assert_eq!(told.matches("Using cache").count(), 2, "{told}");
            assert_eq!(words(other), ("2".to_owned(), words(one).1));
        }
        // Flags that history does not tell are no reason to believe it.
        let text = text.replace("COPY file", "COPY --chmod=600 file");
        std::fs::write(directory.path().join("Dockerfile"), text).unwrap();
        std::fs::write(directory.path().join("file"), "1").unwrap();
        other.ok("builder prune -af");
        build(other, &directory, &format!("--cache-from {name}"));
        assert_eq!(other.run("built stat -c %a /file"), "600");
    });
}

#[test]
fn privileged_a_cache_that_is_not_there_is_told_and_one_that_cannot_be_left_fails() {
    daemons(|one, other, host| {
        let directory = context(&[("Dockerfile", "FROM busybox\nRUN echo a > /made\n")]);
        let told = build(one, &directory, &format!("--cache-from {host}/none:1 --cache-from BAD"));
        assert!(told.contains(&format!("[Warning] cache-from: {host}/none:1: ")), "{told}");
        assert!(told.contains("[Warning] cache-from: BAD: invalid reference format"), "{told}");
        let failed = |flags: &str| -> Output { other.line(&format!("build {flags} {}", path(&directory))) };
        let output = failed("--cache-to 127.0.0.1:1/x:1");
        assert!(output.code == 1 && output.stderr.contains("error writing cache: "), "{output:?}");
        let output = failed("--cache-to type=registry,ref=127.0.0.1:1/x:1,ignore-error=true");
        assert!(output.code == 0 && output.stdout.contains("[Warning] the cache was not left at"), "{output:?}");
        for (flags, sentence) in [
            ("--cache-to type=gha", "a cache of type gha is not supported yet"),
            ("--cache-to type=registry", "no ref found in \"type=registry\""),
            ("--cache-to type=local", "local cache exporter requires dest"),
        ] {
            let output = failed(flags);
            assert!(output.code == 1 && output.stderr.contains(sentence), "{output:?}");
        }
        assert_eq!(failed("--cache-to type=inline").code, 0);
    });
}

#[test]
fn privileged_buildx_takes_steps_from_a_registry_and_leaves_them_there() {
    let registry = Debian::start().unwrap();
    let directory = context(&[("Dockerfile", TEXT), ("file", "1")]);
    let name = format!("{}/cache:1", registry.host());
    let first = Daemon::with_busybox().unwrap();
    if first.is_foreign() {
        return testkit::skip::report("two daemons of our own are wanted");
    }
    let us = At { daemon: &first, cli: Cli::Longshore };
    build(&us, &directory, &format!("--cache-to type=registry,ref={name},mode=max"));
    plugged(|plugged| {
        let told = plugged.build("built", &directory, &format!("--cache-from type=registry,ref={name}"));
        assert!(told.contains(&format!("importing cache manifest from {name}")), "{told}");
        assert_eq!(told.matches(" CACHED\n").count(), 5, "{told}");
        assert_eq!(words(&plugged.at), words(&us));
        let told = plugged.build("other", &directory, "--cache-from type=registry,ref=127.0.0.1:1/none");
        assert!(told.contains("importing cache manifest from 127.0.0.1:1/none"), "{told}");
        let told = plugged.build("inline", &directory, "--cache-to type=inline");
        assert!(told.contains(" CACHED\n"), "{told}");
        // And it leaves them in one.
        std::fs::write(directory.path().join("file"), "2").unwrap();
        let left = format!("{}/cache:2", registry.host());
        let told = plugged.build("left", &directory, &format!("--cache-to type=registry,ref={left},mode=max"));
        assert!(told.contains(&format!("exporting cache to registry {left}")), "{told}");
        us.ok("builder prune -af");
        us.ok("rmi built");
        assert!(!build(&us, &directory, &format!("--cache-from {left}")).contains("Running in"));
    });
}
