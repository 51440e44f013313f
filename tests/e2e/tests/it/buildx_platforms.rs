//! `docker buildx build --push` and `--platform` with several: what registries and clients have of it.

use std::fs;

use serde_json::{Value, json};
use testkit::registry::Debian;

use crate::build::{context, path};
use crate::build_outputs::{blob, build, document, listed};
use crate::buildx::{Plugged, plugged};

/// An image of what it is for, made where it is built.
const TEXT: &str = "FROM --platform=$BUILDPLATFORM busybox AS made\nARG TARGETPLATFORM\nRUN echo $TARGETPLATFORM > /made\n\
    FROM scratch\nCOPY --from=made /made /\n";

/// Two platforms, of which none need run.
const PLATFORMS: &str = "--platform linux/arm64,linux/s390x";

/// What buildx reads of a registry.
fn inspect(plugged: &Plugged<'_>, flags: &str, name: &str) -> Value {
    let output = plugged.line(&format!("buildx imagetools inspect {flags} {name}"));
    assert_eq!(output.code, 0, "{output:?}");
    serde_json::from_str(&output.stdout).unwrap_or_else(|err| panic!("{err}: {output:?}"))
}

fn raw(plugged: &Plugged<'_>, name: &str) -> Value {
    inspect(plugged, "--raw", name)
}

/// The platforms of an index, those of statements included.
fn platforms(index: &Value) -> Vec<String> {
    let one = |entry: &Value| {
        let part = |name: &str| entry["platform"][name].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", part("os"), part("architecture"))
    };
    index["manifests"].as_array().unwrap_or_else(|| panic!("{index}")).iter().map(one).collect()
}

#[test]
fn privileged_buildx_pushes_what_it_built_with_what_is_said_of_it() {
    let registry = Debian::start().unwrap();
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("without containerd's store dockerd pushes no statements");
        }
        let to = tempfile::tempdir().unwrap();
        let (directory, metadata) = (context(&[("Dockerfile", TEXT)]), to.path().join("metadata.json"));
        let name = format!("{}/app:1", registry.host());
        let flags = format!("-t {name} --sbom=true --push --metadata-file {}", metadata.display());
        let printed = build(plugged, &directory, &flags);
        assert!(printed.contains(&format!("pushing {name}")), "{printed}");
        let index = raw(plugged, &name);
        let own = &platforms(&index)[0];
        assert_eq!(platforms(&index), [own.as_str(), "unknown/unknown"]);
        let told: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
        assert_eq!(told["containerimage.descriptor"]["mediaType"], index["mediaType"]);
        assert_eq!(told["containerimage.digest"], told["containerimage.descriptor"]["digest"]);
        let digest = told["containerimage.digest"].as_str().unwrap();
        assert_eq!(raw(plugged, &format!("{name}@{digest}")), index);
        let said = inspect(plugged, "--format '{{json .SBOM.SPDX}}'", &name);
        assert_eq!(said["spdxVersion"], "SPDX-2.3");
        let said = inspect(plugged, "--format '{{json .Provenance.SLSA}}'", &name);
        assert_eq!(said["metadata"]["completeness"]["environment"], true, "{said}");
        // What was pushed is what the name means here, and comes back as the same.
        let id = plugged.at.inspect(&name, "{{.Id}}");
        assert!(plugged.at.inspect(&name, "{{.RepoDigests}}").contains(digest));
        plugged.at.ok(&format!("rmi -f {id}"));
        plugged.at.ok(&format!("pull {name}"));
        assert_eq!(plugged.at.inspect(&name, "{{.Id}}"), id);
        plugged.at.ok(&format!("rmi -f {id}"));
        // Without anything that is said it is an image alone.
        build(plugged, &directory, &format!("-t {name} --provenance=false --push"));
        assert!(raw(plugged, &name)["layers"].is_array());
        let output = format!(
            "-t {name} --provenance=false --annotation a=b -o type=registry,compression=zstd,force-compression=true"
        );
        build(plugged, &directory, &output);
        let manifest = raw(plugged, &name);
        assert_eq!(manifest["annotations"], json!({"a": "b"}));
        assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
        let id = plugged.at.inspect(&name, "{{.Id}}");
        plugged.at.ok(&format!("rmi -f {id}"));
        plugged.at.ok(&format!("pull {name}"));
        assert_eq!(plugged.at.inspect(&name, "{{.Id}}"), id);
        plugged.at.ok(&format!("rmi -f {name}"));
        let printed = plugged.fails(&directory, "-t 127.0.0.1:1/none:1 --push");
        assert!(printed.contains("failed to push 127.0.0.1:1/none:1: "), "{printed}");
        let printed = plugged.fails(&directory, &format!("-t {name} --push --annotation manifest[linux/none]:a=b"));
        assert!(printed.contains("invalid annotation: no platform linux/none found in source"), "{printed}");
    });
}

#[test]
fn privileged_buildx_builds_for_several_platforms() {
    let registry = Debian::start().unwrap();
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("without containerd's store buildx asks dockerd for one platform");
        }
        let (directory, to) = (context(&[("Dockerfile", TEXT)]), tempfile::tempdir().unwrap());
        let printed = build(plugged, &directory, &format!("{PLATFORMS} -o {}", path(&to)));
        for wanted in ["[linux/arm64 made 2/2] RUN echo linux/arm64 > /made", "copying files linux/s390x"] {
            assert!(printed.contains(wanted), "{wanted} in {printed}");
        }
        let made = |file: &str| fs::read_to_string(to.path().join(file)).unwrap();
        assert_eq!((made("linux_arm64/made").trim(), made("linux_s390x/made").trim()), ("linux/arm64", "linux/s390x"));
        let archive = to.path().join("files.tar");
        build(plugged, &directory, &format!("{PLATFORMS} --sbom=true -o type=tar,dest={}", archive.display()));
        let all = listed(&archive);
        for wanted in ["linux_arm64/made", "linux_s390x/made", "linux_s390x/sbom.spdx.json"] {
            assert!(all.iter().any(|line| line.ends_with(&format!(" {wanted}"))), "{wanted} in {all:?}");
        }
        build(
            plugged,
            &directory,
            &format!("{PLATFORMS} --sbom=true -o type=local,platform-split=false,dest={}/all", path(&to)),
        );
        let mut together: Vec<String> = fs::read_dir(to.path().join("all"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        together.sort();
        assert_eq!(together, ["made", "sbom.spdx.linux_arm64.json", "sbom.spdx.linux_s390x.json"]);
        let oci = to.path().join("oci.tar");
        let flags = format!("{PLATFORMS} --annotation index:a=b --annotation manifest[linux/arm64]:c=d");
        build(plugged, &directory, &format!("{flags} -o type=oci,dest={}", oci.display()));
        let index = document(&oci, &blob(&document(&oci, "index.json")["manifests"][0]));
        let wanted = ["linux/arm64", "linux/s390x", "unknown/unknown", "unknown/unknown"];
        assert_eq!(
            (platforms(&index), &index["annotations"]),
            (wanted.map(str::to_owned).to_vec(), &json!({"a": "b"}))
        );
        let annotations = |place: usize| document(&oci, &blob(&index["manifests"][place]))["annotations"].clone();
        assert_eq!((annotations(0), annotations(1)), (json!({"c": "d"}), Value::Null));
        // One name means both here, and in a registry.
        let name = format!("{}/several:1", registry.host());
        build(plugged, &directory, &format!("{PLATFORMS} -t {name} --provenance=false --push"));
        assert_eq!(platforms(&raw(plugged, &name)), wanted[..2]);
        let again = format!("{}/again:1", registry.host());
        build(plugged, &directory, &format!("{PLATFORMS} -t {again}"));
        plugged.at.ok(&format!("push {again}"));
        assert_eq!(platforms(&raw(plugged, &again)), wanted[..2]);
        plugged.at.ok(&format!("rmi -f {name} {again}"));
        let printed =
            plugged.line(&format!("buildx build {PLATFORMS} -o type=docker,dest={}/x {}", path(&to), path(&directory)));
        assert!(printed.code != 0 && printed.stderr.contains("docker exporter does not"), "{printed:?}");
    });
}

#[test]
fn privileged_a_command_for_another_machine_fails_as_it_does_there() {
    plugged(|plugged| {
        let directory = context(&[("Dockerfile", "FROM scratch\nCOPY sh /bin/sh\nRUN true\n")]);
        // The beginning of a program for a processor that nobody here has (elf.h: EM_SPARCV9), with a segment to load.
        let mut program = b"\x7fELF\x02\x02\x01".to_vec();
        program.resize(16, 0);
        program.extend([0, 2, 0, 43, 0, 0, 0, 1]);
        program.resize(4096, 0);
        fs::write(directory.path().join("sh"), program).unwrap();
        std::process::Command::new("chmod").args(["+x", &format!("{}/sh", path(&directory))]).status().unwrap();
        let printed = plugged.fails(&directory, "--platform linux/arm64");
        assert!(printed.contains("exec format error"), "{printed}");
    });
}

#[test]
fn privileged_buildx_has_the_same_bytes_twice_where_times_are_rewritten() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("buildx asks dockerd for no layouts without containerd's store");
        }
        let directory =
            context(&[("Dockerfile", "FROM busybox\nRUN mkdir /d && echo x > /d/x\nCOPY f /f\n"), ("f", "f")]);
        let to = tempfile::tempdir().unwrap();
        let again = |form: &str| {
            let archive = to.path().join("oci.tar");
            let output = format!("type=oci,{form},dest={}", archive.display());
            build(plugged, &directory, &format!("--no-cache --build-arg SOURCE_DATE_EPOCH=1000000 -o {output}"));
            fs::read(archive).unwrap()
        };
        for form in ["rewrite-timestamp=true", "rewrite-timestamp=true,compression=zstd"] {
            assert!(again(form) == again(form), "{form}");
        }
    });
}
