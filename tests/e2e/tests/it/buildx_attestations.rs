//! `docker buildx build --provenance --sbom`: what is said beside what was built.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::build::{context, path};
use crate::build_outputs::{blob, build, document, listed};
use crate::buildx::{Plugged, plugged};

/// An image with records of several package managers.
const RECORDS: &str = "FROM scratch\nCOPY root /\n";

pub(crate) fn records() -> TempDir {
    context(&[
        ("Dockerfile", RECORDS),
        ("root/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
        ("root/var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\n"),
        ("root/usr/lib/python3/x.dist-info/METADATA", "Name: x\nVersion: 2\n"),
        ("root/file", "file"),
    ])
}

/// The statements that an archive has beside its image: their kinds and what is in them.
pub(crate) fn statements(archive: &Path) -> Vec<(String, Value)> {
    let index = document(archive, "index.json");
    let outcome = document(archive, &blob(&index["manifests"][0]));
    let is_said = |entry: &&Value| entry["annotations"]["vnd.docker.reference.type"] == "attestation-manifest";
    let mut all = Vec::new();
    for entry in outcome["manifests"].as_array().into_iter().flatten().filter(is_said) {
        assert_eq!(entry["platform"], json!({"architecture": "unknown", "os": "unknown"}));
        let about = &entry["annotations"]["vnd.docker.reference.digest"];
        assert!(outcome["manifests"].as_array().unwrap().iter().any(|entry| &entry["digest"] == about), "{outcome}");
        for layer in document(archive, &blob(entry))["layers"].as_array().unwrap() {
            assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
            let kind = layer["annotations"]["in-toto.io/predicate-type"].as_str().unwrap().to_owned();
            let statement = document(archive, &blob(layer));
            assert_eq!(statement["predicateType"], kind.as_str());
            all.push((kind, statement));
        }
    }
    all
}

fn oci(plugged: &Plugged<'_>, directory: &TempDir, flags: &str) -> Vec<(String, Value)> {
    let to = tempfile::tempdir().unwrap();
    let archive = to.path().join("oci.tar");
    build(plugged, directory, &format!("{flags} -o type=oci,dest={}", archive.display()));
    statements(&archive)
}

#[test]
fn privileged_buildx_says_where_an_image_comes_from() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("buildx asks dockerd for no attestations without containerd's store");
        }
        let text = "FROM busybox\nARG A\nRUN --mount=type=secret,id=s echo x > /x\n";
        let directory = context(&[("Dockerfile", text)]);
        let image = plugged.at.image("provenance");
        let all = oci(plugged, &directory, &format!("-t {image} --build-arg A=own --attest type=provenance,mode=max"));
        let [(kind, statement)] = &all[..] else { panic!("{all:?}") };
        assert_eq!(kind, "https://slsa.dev/provenance/v0.2");
        let subject = &statement["subject"][0];
        let platform = if cfg!(target_arch = "x86_64") { "linux%2Famd64" } else { "linux%2Farm64" };
        assert_eq!(subject["name"], format!("pkg:docker/{image}@latest?platform={platform}"));
        assert_eq!(subject["digest"]["sha256"].as_str().unwrap().len(), 64);
        let said = &statement["predicate"];
        assert_eq!(said["buildType"], "https://mobyproject.org/buildkit@v1");
        assert_eq!(said["materials"][0]["uri"], format!("pkg:docker/busybox@latest?platform={platform}"));
        assert_eq!(said["invocation"]["configSource"]["entryPoint"], "Dockerfile");
        assert_eq!(said["invocation"]["parameters"]["args"]["build-arg:A"], "own");
        assert_eq!(said["invocation"]["parameters"]["secrets"], json!([{"id": "s", "optional": true}]));
        let source = &said["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]["source"]["infos"][0];
        assert_eq!((&source["filename"], &source["language"]), (&"Dockerfile".into(), &"Dockerfile".into()));
        // Less is said where less is wanted, and in the newer form where that is.
        let all = oci(plugged, &directory, "--build-arg A=own --provenance=mode=min,version=v1,builder-id=me");
        let [(kind, statement)] = &all[..] else { panic!("{all:?}") };
        assert_eq!(kind, "https://slsa.dev/provenance/v1");
        let said = &statement["predicate"];
        assert_eq!((&statement["subject"], &said["runDetails"]["builder"]["id"]), (&json!([]), &"me".into()));
        let dependency = &said["buildDefinition"]["resolvedDependencies"][0]["uri"];
        assert!(dependency.as_str().unwrap().starts_with("pkg:docker/busybox@latest"), "{said}");
        assert!(!statement.to_string().contains("own"), "{statement}");
        // buildx asks by itself for what only stays inside of stores and registries.
        assert_eq!(oci(plugged, &directory, ""), []);
        assert_eq!(oci(plugged, &directory, "--provenance=false"), []);
        for (flags, wanted) in [
            ("--provenance=mode=x", "invalid mode \"x\""),
            ("--attest type=provenance,version=v9", "invalid provenance SLSA version: v9"),
            ("--attest type=other", "unknown attestation type \"other\""),
        ] {
            let printed = plugged.fails(&directory, flags);
            assert!(printed.contains(wanted), "{wanted} in {printed}");
        }
    });
}

#[test]
fn privileged_buildx_says_what_is_in_an_image() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("buildx asks dockerd for no attestations without containerd's store");
        }
        let directory = records();
        let all = oci(plugged, &directory, "--sbom=true --provenance=true");
        let kinds: Vec<&str> = all.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["https://spdx.dev/Document", "https://slsa.dev/provenance/v0.2"]);
        let document = &all[0].1["predicate"];
        assert_eq!(document["spdxVersion"], "SPDX-2.3");
        let url = |package: &Value| package["externalRefs"][0]["referenceLocator"].as_str().map(str::to_owned);
        let urls: Vec<String> = document["packages"].as_array().unwrap().iter().filter_map(url).collect();
        assert_eq!(urls, ["pkg:deb/debian/a@1.0?arch=amd64&distro=debian-12", "pkg:pypi/x@2"]);
        // Beside files they are files.
        let to = tempfile::tempdir().unwrap();
        build(plugged, &directory, &format!("--sbom=true --provenance=true -o {}", path(&to)));
        let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(to.path().join(name)).unwrap()).unwrap() };
        let (sbom, provenance) = (read("sbom.spdx.json"), read("provenance.json"));
        assert_eq!(sbom["predicate"]["packages"], document["packages"]);
        assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v0.2");
        let about = |name: &str| {
            let subjects = sbom["subject"].as_array().unwrap();
            subjects.iter().find(|subject| subject["name"] == name).map(|subject| subject["digest"]["sha256"].clone())
        };
        // What sha256sum says of it.
        assert_eq!(about("file"), Some("3b9c358f36f0a31b6ad3e14f309c7cf198ac9246e8316f9ce543d5b19ac02b80".into()));
        assert_eq!(fs::read_to_string(to.path().join("file")).unwrap(), "file");
        let archive = to.path().join("files.tar");
        build(plugged, &directory, &format!("--sbom=true -o type=tar,dest={}", archive.display()));
        assert!(
            listed(&archive).iter().any(|line| line.starts_with("-rw-------") && line.ends_with(" sbom.spdx.json"))
        );
    });
}

#[test]
fn privileged_a_generator_that_is_named_looks_into_the_image() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("buildx asks dockerd for no attestations without containerd's store");
        }
        let generator = plugged.at.image("generator");
        let script = "#!/bin/sh\nset -e\ncat > $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json <<END\n\
            {\"_type\":\"https://in-toto.io/Statement/v0.1\",\"predicateType\":\"https://spdx.dev/Document\",\"subject\":[],\n\
            \"predicate\":{\"name\":\"$(cat $BUILDKIT_SCAN_SOURCE/file) $BUILDKIT_SCAN_MORE $(id -u)\"}}\nEND\n";
        let scanner = context(&[
            ("Dockerfile", "FROM busybox\nCOPY scan /scan\nUSER 7\nENTRYPOINT [\"sh\",\"/scan\"]\n"),
            ("scan", script),
        ]);
        plugged.build(&generator, &scanner, "");
        let directory = records();
        let all =
            oci(plugged, &directory, &format!("--provenance=false --attest type=sbom,generator={generator},MORE=and"));
        let [(kind, statement)] = &all[..] else { panic!("{all:?}") };
        assert_eq!(
            (kind.as_str(), &statement["predicate"]["name"]),
            ("https://spdx.dev/Document", &"file and 0".into())
        );
        let printed = plugged.fails(&directory, "--sbom=generator=127.0.0.1:1/none -o type=cacheonly");
        assert!(printed.contains("127.0.0.1:1/none"), "{printed}");
        plugged.at.ok(&format!("rmi {generator}"));
    });
}
