//! A policy says which images may come in, and who must have signed them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::json;
use testkit::images::Archive;
use testkit::process::{DEADLINE, run, until};
use testkit::registry::served::MANIFEST;
use testkit::registry::{Answer, Request, Served, Server, digest};
use testkit::{Cli, Daemon, paths};

use crate::support::At;

/// What a registry answers beside an image's own documents, by the last part of the path.
type More = Arc<Mutex<HashMap<String, Answer>>>;

/// A directory with keys and the policy.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        for name in ["good", "stranger"] {
            let key = files.path(name);
            openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"], &[&key]);
            openssl(&["ec", "-pubout", "-in"], &[&key, Path::new("-out"), &key.with_extension("pub")]);
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A policy that lets in all of `open`, `signed` where it is signed, and nothing else but `archives`.
    fn write_policy(&self, host: &str, archives: &str) {
        let signed = json!([{
            "type": "sigstoreSigned", "keyPath": self.path("good.pub"), "signedIdentity": {"type": "matchRepository"},
        }]);
        let policy = json!({
            "default": [{"type": "reject"}],
            "transports": {
                "docker": {
                    format!("{host}/open"): [{"type": "insecureAcceptAnything"}],
                    format!("{host}/signed"): signed,
                },
                "docker-archive": {"": [{"type": archives}]},
            },
        });
        fs::write(self.path("policy.json"), policy.to_string()).unwrap();
    }

    /// A signature of these bytes as cosign keeps it: descriptor and payload.
    fn sign(&self, key: &str, payload: &[u8]) -> (serde_json::Value, Vec<u8>) {
        let (input, output) = (self.path("payload"), self.path("signature"));
        fs::write(&input, payload).unwrap();
        openssl(&["dgst", "-sha256", "-sign"], &[&self.path(key), Path::new("-out"), &output, &input]);
        let signature = run(Command::new("openssl").args(["base64", "-A", "-in"]).arg(&output), b"").unwrap();
        let descriptor = json!({
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": digest(payload), "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": signature.stdout.trim()},
        });
        (descriptor, payload.to_vec())
    }
}

fn openssl(words: &[&str], paths: &[&Path]) {
    run(Command::new("openssl").args(words).args(paths), b"").unwrap().success().unwrap();
}

fn payload(name: &str, of: &str) -> Vec<u8> {
    json!({
        "critical": {
            "identity": {"docker-reference": name}, "image": {"docker-manifest-digest": of},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
    .into_bytes()
}

/// Puts signatures beside the image of that digest.
fn attach(more: &More, of: &str, signatures: &[(serde_json::Value, Vec<u8>)]) {
    let layers: Vec<_> = signatures.iter().map(|(descriptor, _)| descriptor).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2},
    });
    let mut more = more.lock().unwrap();
    more.insert(tag(of), Answer::new(200, manifest.to_string()).with("Content-Type", MANIFEST));
    for (_, payload) in signatures {
        more.insert(digest(payload), Answer::new(200, payload.clone()));
    }
}

fn tag(of: &str) -> String {
    format!("{}.sig", of.replace(':', "-"))
}

fn serve(served: Served) -> (Server, More) {
    let more = More::default();
    let answers = more.clone();
    let server = Server::start(move |request: &Request| {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let answer = answers.lock().unwrap().get(name).cloned();
        answer.unwrap_or_else(|| served.answer(request))
    });
    (server, more)
}

fn start(files: &Files) -> Option<Daemon> {
    if testkit::skip::without_root() {
        return None;
    }
    let policy = files.path("policy.json").display().to_string();
    let daemon = Daemon::start_with(&["--trust-policy", &policy]).unwrap();
    if daemon.is_foreign() {
        testkit::skip::report("this is about a daemon of the test's own");
        return None;
    }
    Some(daemon)
}

#[test]
fn privileged_who_must_be_signed_and_is_not_stays_out() {
    let files = Files::new();
    let served = Served::new(&[20_000]);
    let manifest = digest(&served.manifest);
    let (server, more) = serve(served);
    let host = server.host();
    files.write_policy(&host, "reject");
    let Some(daemon) = start(&files) else { return };
    let at = At { daemon: &daemon, cli: Cli::Longshore };
    let refused = |name: &str, sentence: &str| at.fails(&format!("pull {host}/{name}"), 1, sentence);
    let policy = files.path("policy.json");
    refused("other:1", &format!("{host}/other:1 is refused by {}: it rejects all of default", policy.display()));
    refused("signed:1", &format!("it wants a signature for {host}/signed, and there is none"));
    let name = format!("{host}/signed");
    let right = payload(&name, &manifest);
    for (signature, why) in [
        (files.sign("stranger", &right), "made with none of the trusted keys".to_owned()),
        (files.sign("good", &payload("r.io/other", &manifest)), "made for the name \"r.io/other\"".to_owned()),
        (files.sign("good", &payload(&name, &digest(b"x"))), format!("made for {}", digest(b"x"))),
        (files.sign("good", b"{}"), "no statement about an image".to_owned()),
    ] {
        attach(&more, &manifest, &[signature]);
        refused("signed:1", &format!("it accepts none of 1 signatures for {name}; of the first it says: {why}"));
    }
    let layers =
        || server.requests("/blobs/").iter().filter(|request| request.path.contains(&name[host.len()..])).count();
    assert_eq!(at.ok("images -q"), "");
    let asked = layers();
    attach(&more, &manifest, &[files.sign("stranger", &right), files.sign("good", &right)]);
    at.ok(&format!("pull {host}/signed:1"));
    assert!(layers() > asked);
    at.ok(&format!("pull {host}/open:1"));
    // Who is here already is asked again when it is pulled again.
    more.lock().unwrap().clear();
    refused("signed:1", "and there is none");
    assert!(at.ok("info -f {{.SecurityOptions}}").contains(&format!("name=trust,profile={}", policy.display())));
    daemon.finish().unwrap();
}

#[test]
fn privileged_signatures_of_an_index_and_of_an_image_in_it_count() {
    let files = Files::new();
    let image = Served::new(&[1_000]);
    let index = Served::index(&[("amd64", &image), ("arm64", &Served::new(&[2_000]))]);
    let (inner, outer) = (digest(&image.manifest), digest(&index.manifests["1"]));
    let (server, more) = serve(index);
    let host = server.host();
    files.write_policy(&host, "reject");
    let Some(daemon) = start(&files) else { return };
    let at = At { daemon: &daemon, cli: Cli::Longshore };
    at.fails(&format!("pull {host}/signed:1"), 1, "and there is none");
    for of in [&outer, &inner] {
        attach(&more, of, &[files.sign("good", &payload(&format!("{host}/signed"), of))]);
        at.ok(&format!("pull {host}/signed:1"));
        more.lock().unwrap().clear();
    }
    daemon.finish().unwrap();
}

#[test]
fn privileged_hostile_signatures_are_bounded() {
    let files = Files::new();
    let served = Served::new(&[1_000]);
    let manifest = digest(&served.manifest);
    let (server, more) = serve(served);
    let host = server.host();
    files.write_policy(&host, "reject");
    let Some(daemon) = start(&files) else { return };
    let at = At { daemon: &daemon, cli: Cli::Longshore };
    let refused = |sentence: &str| at.fails(&format!("pull {host}/signed:1"), 1, sentence);
    let (descriptor, bytes) = files.sign("good", &payload(&format!("{host}/signed"), &manifest));
    more.lock().unwrap().insert(tag(&manifest), Answer { endless: true, ..Answer::new(200, "") });
    refused("the answer is longer than 4194304 bytes");
    more.lock().unwrap().insert(tag(&manifest), Answer::new(200, "[]"));
    refused(&format!("get the signatures of {host}/signed:1: decode the manifest"));
    let many: Vec<_> = (0..65).map(|_| (descriptor.clone(), bytes.clone())).collect();
    attach(&more, &manifest, &many);
    refused("the document is longer than");
    let mut huge = descriptor.clone();
    huge["size"] = json!(1_u64 << 40);
    attach(&more, &manifest, &[(huge, bytes.clone())]);
    refused("the document is longer than 65536 bytes");
    attach(&more, &manifest, &[(descriptor.clone(), bytes.clone())]);
    more.lock().unwrap().insert(digest(&bytes), Answer::new(200, "other bytes"));
    refused("verification failed for digest");
    more.lock().unwrap().insert(tag(&manifest), Answer::new(403, "{}"));
    refused(&format!("get the signatures of {host}/signed:1: "));
    daemon.finish().unwrap();
}

#[test]
fn privileged_the_policy_is_read_again_and_counts_for_archives() {
    let files = Files::new();
    files.write_policy("r.invalid", "reject");
    let Some(daemon) = start(&files) else { return };
    let at = At { daemon: &daemon, cli: Cli::Longshore };
    let busybox = Archive::Busybox.path().unwrap();
    let load = || at.line(&format!("load -q -i {}", busybox.display()));
    let refused = load();
    let sentence = format!("an archive of images is refused by {}: it rejects", files.path("policy.json").display());
    assert!(refused.code == 1 && refused.stderr.contains(&sentence), "{refused:?}");
    let reload = || {
        let pid = rustix::process::Pid::from_raw(daemon.pid().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    };
    files.write_policy("r.invalid", "insecureAcceptAnything");
    reload();
    until("the policy counts", DEADLINE, || (load().code == 0).then_some(())).unwrap();
    // One that cannot be read changes nothing.
    fs::write(files.path("policy.json"), "{}").unwrap();
    reload();
    assert_eq!(load().code, 0);
    let mut validate = Command::new(paths::dist().join("longshored"));
    validate.args(["--validate", "--config-file", "/dev/null", "--trust-policy"]).arg(files.path("policy.json"));
    let validated = run(&mut validate, b"").unwrap();
    assert!(validated.code != 0 && validated.stderr.contains("the policy has no default"), "{validated:?}");
    daemon.finish().unwrap();
}
