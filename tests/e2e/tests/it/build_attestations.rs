//! `longshore build --provenance --sbom --attest --annotation`: the same as docker's buildx gets of our daemon.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Cli;
use testkit::registry::Debian;

use crate::build::{context, path};
use crate::build_outputs::{blob, document, listed};
use crate::buildx::{Plugged, plugged};
use crate::buildx_attestations::{records, statements};
use crate::support::At;

/// With our own command line beside docker's.
fn beside(test: impl Fn(&At<'_>, &Plugged<'_>)) {
    plugged(|plugged| {
        let daemon = plugged.at.daemon;
        if daemon.is_foreign() {
            return testkit::skip::report("other daemons make no attestations for our own client");
        }
        test(&At { daemon, cli: Cli::Longshore }, plugged);
    });
}

/// What both make of the same: archives at `ours` and `theirs`.
fn both(
    at: &At<'_>,
    plugged: &Plugged<'_>,
    directory: &TempDir,
    flags: &str,
    to: &TempDir,
) -> [Vec<(String, Value)>; 2] {
    let file = |name: &str| to.path().join(name);
    at.ok(&format!("build {flags} -o type=oci,dest={} {}", file("ours").display(), path(directory)));
    let line = format!("buildx build {flags} -o type=oci,dest={} {}", file("theirs").display(), path(directory));
    let output = plugged.line(&line);
    assert_eq!(output.code, 0, "{output:?}");
    [statements(&file("ours")), statements(&file("theirs"))]
}

/// A provenance without what differs from build to build.
fn lasting(statement: &Value) -> Value {
    let mut lasting = statement.clone();
    lasting["subject"][0]["digest"] = Value::Null;
    let metadata = &mut lasting["predicate"]["metadata"];
    for name in ["buildInvocationID", "buildStartedOn", "buildFinishedOn"] {
        assert!(metadata[name].as_str().is_some_and(|text| !text.is_empty()), "{name} in {statement}");
        metadata[name] = Value::Null;
    }
    // Sizes of what was sent, and what git says of the directory, which buildx alone looks at.
    metadata["https://mobyproject.org/buildkit@v1#metadata"]["vcs"] = Value::Null;
    lasting
}

#[test]
fn privileged_build_says_where_an_image_comes_from_as_buildx_does() {
    beside(|at, plugged| {
        let text = "FROM busybox\nARG A\nLABEL x=y\nRUN --mount=type=secret,id=s echo x > /x\nCOPY own /\n";
        let (directory, to) = (context(&[("Dockerfile", text), ("own", "mine")]), tempfile::tempdir().unwrap());
        let image = at.image("attested");
        for flags in [
            "--build-arg A=own --label l=m --attest type=provenance,mode=max",
            "--build-arg A=own --provenance=mode=min,builder-id=me",
            "--provenance=true",
        ] {
            let [ours, theirs] = both(at, plugged, &directory, &format!("-t {image} {flags}"), &to);
            let [(kind, said)] = &ours[..] else { panic!("{ours:?}") };
            assert_eq!(kind, "https://slsa.dev/provenance/v0.2");
            assert_eq!(lasting(said), lasting(&theirs[0].1), "{flags}");
        }
        // Of what stays in the store alone, and of an archive, nothing is said that was not asked for.
        for flags in ["", "--provenance=false", "--attest type=provenance,disabled=true"] {
            assert_eq!(both(at, plugged, &directory, flags, &to), [vec![], vec![]], "{flags}");
        }
        let build = |flags: &str| format!("build {flags} {}", path(&directory));
        let none = format!("-o type=oci,dest={}/none", path(&to));
        for (flags, why) in [
            (format!("--provenance=mode=x {none}"), "invalid mode \"x\""),
            (format!("--attest type=other {none}"), "unknown attestation type \"other\""),
            (format!("--sbom=generator= {none}"), "sbom generator cannot be empty"),
            (format!("--provenance=true --attest type=provenance {none}"), "duplicate attestation field provenance"),
            (format!("--attest mode=max {none}"), "attestation type not specified"),
            ("--sbom=true".to_owned(), "no output keeps attestations"),
            ("--load --provenance=true".to_owned(), "docker exporter does not currently support exporting manifest"),
            (
                format!("--sbom=true -o type=docker,dest={}/none", path(&to)),
                "docker exporter does not support exporting manifest lists, use the oci exporter instead",
            ),
        ] {
            at.fails(&build(&flags), 1, why);
            assert!(!to.path().join("none").exists(), "{flags}");
        }
        at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_build_says_what_is_in_an_image_as_buildx_does() {
    beside(|at, plugged| {
        let (directory, to) = (records(), tempfile::tempdir().unwrap());
        let packages = |said: &Value| said["predicate"]["packages"].clone();
        let [ours, theirs] = both(at, plugged, &directory, "--sbom=true --provenance=false", &to);
        assert_eq!((ours.len(), packages(&ours[0].1)), (1, packages(&theirs[0].1)));
        assert_eq!(packages(&ours[0].1).as_array().unwrap().len(), 3, "{ours:?}");
        // Beside files they are files.
        let (files, archive) = (to.path().join("files"), to.path().join("files.tar"));
        let flags =
            format!("--sbom=true --provenance=mode=min -o {} -o type=tar,dest={}", files.display(), archive.display());
        at.ok(&format!("build {flags} {}", path(&directory)));
        let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(files.join(name)).unwrap()).unwrap() };
        assert_eq!(packages(&read("sbom.spdx.json")), packages(&ours[0].1));
        assert_eq!(read("provenance.json")["predicateType"], "https://slsa.dev/provenance/v0.2");
        assert_eq!(fs::read_to_string(files.join("file")).unwrap(), "file");
        assert!(
            listed(&archive).iter().any(|line| line.starts_with("-rw-------") && line.ends_with(" sbom.spdx.json"))
        );
        // Only what is whole is there, and an image that looks is run.
        let flags = format!("--sbom=generator=127.0.0.1:1/none -o type=oci,dest={}/none", path(&to));
        at.fails(&format!("build {flags} {}", path(&directory)), 1, "127.0.0.1:1/none");
        let left: Vec<_> = fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains("none")), "{left:?}");
        let generator = at.image("looks");
        let script = "#!/bin/sh\ncat > $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json <<END\n\
            {\"name\":\"$(cat $BUILDKIT_SCAN_SOURCE/file)\"}\nEND\n";
        let scanner = context(&[
            ("Dockerfile", "FROM busybox\nCOPY scan /scan\nENTRYPOINT [\"sh\",\"/scan\"]\n"),
            ("scan", script),
        ]);
        at.ok(&format!("build -t {generator} {}", path(&scanner)));
        let [ours, theirs] = both(at, plugged, &directory, &format!("--sbom=generator={generator}"), &to);
        assert_eq!(ours[0].1["predicate"], json!({"name": "file"}));
        assert_eq!(ours[0].1["predicate"], theirs[0].1["predicate"]);
        at.ok(&format!("rmi {generator}"));
    });
}

/// What a registry has under a name.
fn raw(plugged: &Plugged<'_>, name: &str) -> Value {
    let output = plugged.line(&format!("buildx imagetools inspect --raw {name}"));
    serde_json::from_str(&output.stdout).unwrap_or_else(|err| panic!("{err}: {output:?}"))
}

#[test]
fn privileged_what_is_pushed_has_attestations_as_with_buildx() {
    beside(|at, plugged| {
        let registry = Debian::start().unwrap();
        let directory = context(&[("Dockerfile", "FROM busybox\nRUN echo a > /f\n")]);
        let file = directory.path().join("metadata");
        let name = |name: &str| format!("{}/{name}:1", registry.host());
        let kinds = |name: &str| -> Vec<Value> {
            let index = raw(plugged, name);
            let said = index["manifests"].as_array().into_iter().flatten();
            said.map(|entry| entry["annotations"]["vnd.docker.reference.type"].clone()).collect()
        };
        let attested = [Value::Null, "attestation-manifest".into()];
        // As buildx does it a little is said of what is pushed, unless that is not wanted.
        for (flags, wanted) in
            [("", &attested[..]), ("--provenance=false", &[]), ("--provenance=mode=max --sbom=true", &attested)]
        {
            let (ours, theirs) = (name("ours"), name("theirs"));
            at.ok(&format!("build -t {ours} --push {flags} --metadata-file {} {}", file.display(), path(&directory)));
            plugged.build(&theirs, &directory, &format!("--push {flags}"));
            assert_eq!((&kinds(&ours)[..], &kinds(&theirs)[..]), (wanted, wanted), "{flags}");
            let metadata: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            assert_eq!(metadata["image.name"], ours);
            if !wanted.is_empty() {
                assert_eq!(metadata["containerimage.descriptor"]["digest"], metadata["containerimage.digest"]);
            }
            at.ok(&format!("rmi {ours}"));
            at.ok(&format!("pull -q {ours}"));
            assert_eq!(at.run(&format!("{ours} cat /f")), "a");
            at.ok(&format!("rmi {ours} {theirs}"));
        }
        let line = format!("build -q -t {} --push {}", name("ours"), path(&directory));
        let mut command = at.command(&line);
        command.env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1");
        let quiet = testkit::process::run(&mut command, b"").unwrap();
        assert_eq!((quiet.code, kinds(&name("ours"))), (0, vec![]), "{quiet:?}");
        let id = at.ok(&line);
        assert_eq!((&kinds(&name("ours"))[..], id), (&attested[..], at.inspect(&name("ours"), "{{.Id}}")));
        at.fails(
            &format!("build --push -t 127.0.0.1:1/x:1 {}", path(&directory)),
            1,
            "failed to push 127.0.0.1:1/x:1: ",
        );
        at.ok(&format!("rmi {} 127.0.0.1:1/x:1", name("ours")));
    });
}

/// What is annotated: the manifest's, and its entry's.
fn annotated(archive: &Path) -> [Value; 2] {
    let entry = &document(archive, "index.json")["manifests"][0];
    [document(archive, &blob(entry))["annotations"].clone(), entry["annotations"]["c"].clone()]
}

#[test]
fn privileged_build_annotates_as_buildx_does() {
    beside(|at, plugged| {
        let (directory, to) =
            (context(&[("Dockerfile", "FROM busybox\nRUN echo a > /f\n")]), tempfile::tempdir().unwrap());
        let platform = if cfg!(target_arch = "x86_64") { "linux/x86_64" } else { "linux/aarch64" };
        let flags = format!(
            "--annotation a=b=c --annotation manifest-descriptor:c=d --annotation manifest[{platform}]:org.e=f \
             --annotation manifest,manifest-descriptor:g=h"
        );
        both(at, plugged, &directory, &flags, &to);
        let [manifest, entry] = annotated(&to.path().join("ours"));
        assert_eq!((&manifest, &entry), (&json!({"a": "b=c", "org.e": "f", "g": "h"}), &"d".into()));
        assert_eq!([manifest, entry], annotated(&to.path().join("theirs")));
        // An index has its own, where there is one.
        let flags = "--annotation index:i=j --annotation index-descriptor:c=k --provenance=mode=min";
        both(at, plugged, &directory, flags, &to);
        assert_eq!(annotated(&to.path().join("ours")), [json!({"i": "j"}), "k".into()]);
        assert_eq!(annotated(&to.path().join("ours")), annotated(&to.path().join("theirs")));
        let docker = to.path().join("docker.tar");
        at.ok(&format!("build --annotation a=b -o type=docker,dest={} {}", docker.display(), path(&directory)));
        assert_eq!(annotated(&docker)[0], json!({"a": "b"}));
        let registry = Debian::start().unwrap();
        let name = format!("{}/a:1", registry.host());
        at.ok(&format!("build -t {name} --push --provenance=false --annotation a=b {}", path(&directory)));
        assert_eq!(raw(plugged, &name)["annotations"], json!({"a": "b"}));
        at.ok(&format!("rmi {name}"));
        let none = format!("-o type=oci,dest={}/none", path(&to));
        for (flags, why) in [
            (format!("--annotation index:a=b {none}"), "index annotations not supported for single platform export"),
            (format!("--annotation a {none}"), "invalid annotation \"a\", expected key=value"),
            (format!("--annotation x:a=b {none}"), "unknown annotation type \"x\""),
            (
                format!("--annotation manifest[:a=b {none}"),
                "invalid annotation type \"manifest[\", expected type and optional platform in square brackets",
            ),
            ("--annotation a=b".to_owned(), "no output keeps annotations"),
            (format!("--annotation a=b -o {}/none", path(&to)), "no output keeps annotations"),
        ] {
            at.fails(&format!("build {flags} {}", path(&directory)), 1, why);
            assert!(!to.path().join("none").exists(), "{flags}");
        }
    });
}
