//! Caches of builds in directories of the client's: `--cache-to type=local`, `--cache-from type=local`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::{Cli, Daemon};

use crate::build::context;
use crate::build_cache::{TEXT, build, id, words};
use crate::buildx::Plugged;
use crate::support::At;

/// Two daemons that know nothing of each other.
pub(crate) fn daemons(test: impl FnOnce(&At<'_>, &At<'_>)) {
    if testkit::skip::without_root() {
        return;
    }
    let (one, other) = (Daemon::with_busybox().unwrap(), Daemon::with_busybox().unwrap());
    if one.is_foreign() {
        return testkit::skip::report("two daemons of our own are wanted");
    }
    let at = |daemon| At { daemon, cli: Cli::Longshore };
    test(&at(&one), &at(&other));
}

pub(crate) fn forget(at: &At<'_>) {
    at.ok("builder prune -af");
    at.ok("rmi built");
}

/// What a layout's index says.
pub(crate) fn manifests(layout: &Path) -> Vec<Value> {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"].as_array().unwrap().clone()
}

fn tags(layout: &Path) -> Vec<String> {
    let tag =
        |manifest: &Value| manifest["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned();
    manifests(layout).iter().map(tag).collect()
}

pub(crate) fn blob(layout: &Path, digest: &Value) -> PathBuf {
    layout.join("blobs/sha256").join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
}

#[test]
fn privileged_a_cache_in_a_directory_saves_another_daemon_the_work() {
    daemons(|one, other| {
        let directory = context(&[("Dockerfile", TEXT), ("file", "1")]);
        let place = tempfile::tempdir().unwrap();
        let layout = place.path().join("deep/cache");
        let shown = layout.display();
        // One that is not there yet is told, and no failure.
        let told =
            other.line(&format!("build -t x --cache-from type=local,src={shown} {}", directory.path().display()));
        assert!(told.code == 0 && told.stderr.contains("local cache import at"), "{told:?}");
        other.ok("builder prune -af");
        other.ok("rmi x");
        let told = build(one, &directory, &format!("--cache-to type=local,dest={shown},mode=max"));
        assert!(told.contains(&format!("Left the cache at {shown} (sha256:")), "{told}");
        assert_eq!(fs::read_to_string(layout.join("oci-layout")).unwrap(), r#"{"imageLayoutVersion":"1.0.0"}"#);
        assert_eq!(tags(&layout), ["latest"]);
        assert!(!layout.join("ingest").exists(), "nothing is left of what was on its way");
        let told = build(other, &directory, &format!("--cache-from type=local,src={shown}"));
        assert!(!told.contains("Running in"), "{told}");
        // It is the very same image, with the same past.
        assert_eq!((words(other), id(other)), (words(one), id(one)));
        assert!(!build(other, &directory, "").contains("Running in"));
        // Another tag is another cache, by a build that says no more than its image's id: of the target alone.
        let flags = format!("-q --cache-to type=local,dest={shown},tag=min");
        assert_eq!(build(one, &directory, &flags).trim(), id(one));
        assert_eq!(tags(&layout), ["latest", "min"]);
        forget(other);
        let told = build(other, &directory, &format!("--cache-from type=local,src={shown},tag=min"));
        assert_eq!(told.matches("Running in").count(), 1, "{told}");
        assert!(words(other).0 != words(one).0 && words(other).1 == words(one).1, "{told}");
        // The digest alone does, too.
        forget(other);
        let digest = manifests(&layout)[0]["digest"].as_str().unwrap().to_owned();
        let told = build(other, &directory, &format!("--cache-from type=local,src={shown},digest={digest}"));
        assert!(!told.contains("Running in"), "{told}");
    });
}

#[test]
fn privileged_buildx_leaves_a_cache_in_a_directory_and_finds_it_there() {
    daemons(|one, other| {
        if !one.daemon.clis().contains(&Cli::Docker) {
            return;
        }
        let directory = context(&[("Dockerfile", TEXT), ("file", "1")]);
        let place = tempfile::tempdir().unwrap();
        let layout = place.path().join("cache");
        let shown = layout.display();
        let (first, second) = (Plugged::of(one.daemon), Plugged::of(other.daemon));
        let told =
            first.build("built", &directory, &format!("--cache-to type=local,dest={shown},mode=max,compression=zstd"));
        assert!(told.contains("exporting cache to client directory"), "{told}");
        assert_eq!(tags(&layout), ["latest"]);
        let told = second.build("built", &directory, &format!("--cache-from type=local,src={shown}"));
        assert!(told.contains(&format!("importing cache manifest from {shown}")), "{told}");
        assert_eq!(told.matches(" CACHED\n").count(), 5, "{told}");
        assert_eq!((words(other), id(other)), (words(one), id(one)));
        // What one client leaves the other finds, and what is there already goes once.
        forget(other);
        let told = build(other, &directory, &format!("--cache-from type=local,src={shown}"));
        assert!(!told.contains("Running in"), "{told}");
        build(other, &directory, &format!("--cache-to type=local,dest={shown},mode=max"));
        assert_eq!(tags(&layout), ["latest"]);
        second.build(
            "again",
            &directory,
            &format!("--cache-to type=local,dest={shown} --cache-from type=local,src={shown}"),
        );
    });
}

#[test]
fn privileged_a_cache_in_a_directory_may_lie() {
    daemons(|one, other| {
        let directory = context(&[("Dockerfile", TEXT), ("file", "1")]);
        let place = tempfile::tempdir().unwrap();
        let layout = place.path().join("cache");
        let shown = layout.display();
        build(one, &directory, &format!("--cache-to type=local,dest={shown},mode=max"));
        let whole = |name: &str| {
            let copy = place.path().join(name);
            assert!(std::process::Command::new("cp").arg("-r").args([&layout, &copy]).status().unwrap().success());
            copy
        };
        let manifest: Value =
            serde_json::from_slice(&fs::read(blob(&layout, &manifests(&layout)[0]["digest"])).unwrap()).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        // The layer of a step: another one's bytes, more of them, fewer of them, none.
        let step = &layers.last().unwrap()["digest"];
        let bytes = fs::read(blob(&layout, step)).unwrap();
        let mut longer = bytes.clone();
        longer.extend([0; 1000]);
        let first = fs::read(blob(&layout, &layers[0]["digest"])).unwrap();
        for (name, lie) in
            [("other", Some(first)), ("longer", Some(longer)), ("cut", Some(bytes[..9].to_vec())), ("none", None)]
        {
            let copy = whole(name);
            let path = blob(&copy, step);
            match lie {
                Some(lie) => fs::write(path, lie).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            let told = build(other, &directory, &format!("--cache-from type=local,src={}", copy.display()));
            assert_ne!(id(other), id(one), "{name}: {told}");
            forget(other);
        }
        // The document, and the manifest.
        for (name, digest) in
            [("document", &manifest["config"]["digest"]), ("manifest", &manifests(&layout)[0]["digest"])]
        {
            let copy = whole(name);
            fs::write(blob(&copy, digest), b"{}").unwrap();
            let told = build(other, &directory, &format!("--cache-from type=local,src={}", copy.display()));
            assert!(told.contains("[Warning] cache-from: ") && told.contains("is not what it is called"), "{told}");
            forget(other);
        }
        let told = build(other, &directory, &format!("--cache-from type=local,src={shown}"));
        assert!(!told.contains("Running in"), "{told}");
    });
}

#[test]
fn privileged_a_directory_that_takes_no_cache_fails_the_build() {
    daemons(|one, _| {
        let directory = context(&[("Dockerfile", "FROM busybox\nRUN echo a > /made\n")]);
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "").unwrap();
        let flags = |flags: &str| format!("build {flags} {}", directory.path().display());
        one.fails(&flags(&format!("--cache-to type=local,dest={}/file", place.path().display())), 1, "mkdir ");
        // A file is where blobs on their way would be.
        let layout = place.path().join("cache");
        fs::create_dir(&layout).unwrap();
        fs::write(layout.join("ingest"), "").unwrap();
        let wanted = format!("--cache-to type=local,dest={}", layout.display());
        one.fails(&flags(&wanted), 1, "error writing cache: write a blob: ");
        let output = one.line(&flags(&format!("{wanted},ignore-error=true")));
        assert!(output.code == 0 && output.stdout.contains("[Warning] the cache was not left at"), "{output:?}");
        assert!(!layout.join("index.json").exists());
    });
}
