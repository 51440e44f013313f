//! `manifest`: lists of images, put together and pushed. Docker's client says what is right.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use testkit::registry::{Debian, Served, digest};
use testkit::{Cli, Output};

use crate::support::{At, each, ours};

/// An image of this processor, whose layer is so long.
fn image(architecture: &str, length: usize) -> Served {
    let Served { layers, blobs, .. } = Served::new(&[length]);
    let config = blobs.into_values().find(|blob| blob.starts_with(b"{")).unwrap();
    let config = String::from_utf8(config).unwrap().replace("amd64", architecture);
    Served::of(layers, config.as_bytes())
}

/// `one:amd` and `one:arm` of either kind, their index `one:1`, and `other:1`.
fn registry() -> (Debian, Served) {
    let registry = Debian::start().unwrap();
    let (amd, arm) = (image("amd64", 7), image("arm64", 8));
    registry.push(&Served::index(&[("amd64", &amd), ("arm64", &arm)]), "one").unwrap();
    let amd = amd.schema_2();
    registry.push(&amd.clone().tagged("amd"), "one").unwrap();
    registry.push(&arm.tagged("arm"), "one").unwrap();
    registry.push(&image("s390x", 9), "other").unwrap();
    (registry, amd)
}

/// Types a line with lists of its own in `config`.
fn type_line(at: &At<'_>, config: &Path, line: &str) -> Output {
    println!("{line}");
    let mut command = at.command(&format!("manifest {line}"));
    testkit::process::run(command.env("DOCKER_CONFIG", config), b"").unwrap()
}

/// All files below a directory.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for list in fs::read_dir(directory).into_iter().flatten() {
        let list = list.unwrap().path();
        for file in fs::read_dir(&list).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            all.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
    all
}

/// A line, what was said to it, and what is kept then.
type Said = (String, Output, BTreeMap<String, String>);

/// Runs the lines with both clients at one registry; both say and keep the same. Answers what the first one said.
#[track_caller]
fn compare(lines: &[String]) -> Vec<String> {
    let said: RefCell<Vec<Vec<Said>>> = RefCell::default();
    ours(|daemon| {
        each(daemon, |at| {
            let config = tempfile::tempdir().unwrap();
            let line = |line: &String| {
                let output = type_line(at, config.path(), line);
                (line.clone(), output, files(&config.path().join("manifests")))
            };
            said.borrow_mut().push(lines.iter().map(line).collect());
        });
    });
    let said = said.into_inner();
    let Some((first, others)) = said.split_first() else { return Vec::new() };
    for other in others {
        for ((line, ours, kept), (_, theirs, kept_theirs)) in first.iter().zip(other) {
            let of = |output: &Output| (output.code, output.stdout.clone(), output.stderr.clone());
            assert_eq!(of(ours), of(theirs), "{line}");
            assert_eq!(kept, kept_theirs, "{line}");
        }
    }
    first.iter().map(|(_, output, _)| output.stdout.clone()).collect()
}

#[test]
fn privileged_lists_are_put_together_and_pushed_as_by_docker() {
    let (registry, amd) = registry();
    let host = registry.host();
    let lines: Vec<String> = [
        "create --insecure HOST/one:new HOST/one:amd HOST/one:arm",
        "inspect HOST/one:new",
        "inspect HOST/one:new HOST/one:amd",
        "inspect -v HOST/one:new HOST/one:arm",
        "create --insecure HOST/one:new HOST/one:arm",
        "create --insecure --amend HOST/one:new HOST/other:1",
        "annotate HOST/one:new HOST/one:amd --arch arm --variant v7 --os-features a,b --os-features a --os-version 9",
        "inspect HOST/one:new",
        "push HOST/one:new",
        "push --purge HOST/one:new",
        "push HOST/one:new",
        "inspect --insecure HOST/one:new",
        "inspect --insecure -v HOST/one:new",
        "create --insecure HOST/third:1 HOST/one@AMD",
        "push --insecure HOST/third:1",
        "rm HOST/third:1",
        "rm HOST/third:1 BAD",
    ]
    .iter()
    .map(|line| line.replace("HOST", host).replace("AMD", &digest(&amd.manifest)))
    .collect();
    let said = compare(&lines);
    if said.is_empty() {
        return;
    }
    assert_eq!(said[0], format!("Created manifest list {host}/one:new\n"));
    assert!(said[8].contains(&format!("Pushed ref {host}/one@sha256:")), "{}", said[8]);
    assert!(said[14].contains(&format!("Pushed ref {host}/third@{} with digest: ", digest(&amd.manifest))));
    let pushed = said[8].lines().last().unwrap();
    assert!(pushed.starts_with("sha256:") && said[9].ends_with(&format!("{pushed}\n")), "{}", said[9]);
}

#[test]
fn privileged_documents_of_registries_are_shown_and_refusals_told_as_by_docker() {
    let (registry, _) = registry();
    let lines: Vec<String> = [
        "inspect --insecure HOST/one:amd",
        "inspect --insecure HOST/one:arm",
        "inspect --insecure -v HOST/one:amd",
        "inspect --insecure HOST/one:1",
        "inspect --insecure -v HOST/one:1",
        "inspect --insecure HOST/one:none",
        "inspect --insecure HOST/none",
        // Without TLS only by the user's word, also on this machine.
        "inspect HOST/one:amd",
        "create HOST/one:new HOST/one:amd",
        "inspect BAD",
        "create BAD HOST/one:amd",
        "create --insecure HOST/one:new HOST/one:1",
        "create --insecure HOST/one:new BAD",
        "inspect 127.0.0.1:1/x",
        "create --insecure elsewhere:1 HOST/one:amd",
        "inspect elsewhere:1",
        "push elsewhere:1",
        "annotate BAD HOST/one:amd",
        "annotate elsewhere:1 BAD",
        "annotate elsewhere:1 HOST/one:arm --os linux",
        "annotate elsewhere:1 HOST/one:amd --os vms",
        "push none",
        "rm none",
    ]
    .iter()
    .map(|line| line.replace("HOST", registry.host()))
    .collect();
    compare(&lines);
}

#[test]
fn privileged_either_client_goes_on_with_what_the_other_began() {
    let (registry, _) = registry();
    let host = registry.host();
    ours(|daemon| {
        let config = tempfile::tempdir().unwrap();
        let clis = daemon.clis();
        let (first, last) = (*clis.first().unwrap(), *clis.last().unwrap());
        for (number, (begins, ends)) in [(first, last), (last, first)].into_iter().enumerate() {
            let with = |cli: Cli, line: &str| {
                let output = type_line(&At { daemon, cli }, config.path(), line);
                output.success().unwrap_or_else(|err| panic!("{line}: {err:?}")).to_owned()
            };
            let list = format!("{host}/one:both{number}");
            with(begins, &format!("create --insecure {list} {host}/one:amd {host}/other:1"));
            with(ends, &format!("annotate {list} {host}/one:amd --variant v2"));
            with(ends, &format!("push --insecure -p {list}"));
            assert!(with(begins, &format!("inspect --insecure {list}")).contains("\"variant\": \"v2\""));
        }
        assert!(files(&config.path().join("manifests")).is_empty());
        // Both images can be pulled by the list's name.
        let at = At { daemon, cli: Cli::Longshore };
        at.ok(&format!("pull -q --platform linux/s390x {host}/one:both0"));
        at.ok(&format!("rmi {host}/one:both0"));
    });
}

#[test]
fn privileged_lists_that_somebody_spoilt_are_not_pushed() {
    let (registry, _) = registry();
    let host = registry.host();
    ours(|daemon| {
        let config = tempfile::tempdir().unwrap();
        let at = At { daemon, cli: Cli::Longshore };
        type_line(&at, config.path(), &format!("create --insecure {host}/one:new {host}/other:1")).success().unwrap();
        let (name, text) = files(&config.path().join("manifests")).pop_first().unwrap();
        let path = config.path().join("manifests").join(name);
        let refused = |text: &str, sentence: &str| {
            fs::write(&path, text).unwrap();
            let output = type_line(&at, config.path(), &format!("push {host}/one:new"));
            assert_eq!(output.code, 1, "{output:?}");
            assert!(output.stderr.contains(sentence), "{} has no {sentence}", output.stderr);
        };
        // What the other repository does not have cannot be taken from it.
        let nowhere = text.replace("/other:1", "/nowhere:1");
        refused(&nowhere, "error mounting nowhere@sha256:");
        refused(&text.replace("\"Raw\":\"", "\"Raw\":\"IA"), "internal digest mismatch for");
        refused("{", "decode ");
        refused(&text.replace("\"digest\":\"sha256:", "\"digest\":\"md5:"), "invalid checksum digest format");
    });
}
