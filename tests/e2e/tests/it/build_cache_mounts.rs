//! Caches of commands that go with a cache of steps and come with one: `mounts=true`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use testkit::Cli;
use testkit::registry::Debian;

use crate::build::{context, path};
use crate::build_cache::build;
use crate::build_cache_local::{blob, daemons, forget, manifests};
use crate::buildx::Plugged;
use crate::support::At;

/// Adds a word to each cache, and shows what is there.
const TEXT: &str = "FROM busybox\nARG WORD\n\
     RUN --mount=type=cache,target=/kept --mount=type=cache,id=own,target=/own,uid=3,gid=4,mode=0750 \
     echo $WORD >> /kept/words && mkdir -p /kept/deep && ln -sf ../words /kept/deep/link && chown 7:8 /kept/words && \
     chmod 4751 /kept/words && echo $WORD >> /own/words && cat /kept/deep/link | tr '\\n' ' ' > /seen && echo >> /seen && \
     cat /own/words | tr '\\n' ' ' >> /seen && echo >> /seen && \
     stat -c '%n %u %g %a' /own /kept /kept/words >> /seen\n";

fn seen(at: &At<'_>) -> Vec<String> {
    at.run("built cat /seen").lines().map(|line| line.trim().to_owned()).collect()
}

/// What a directory's cache says that commands keep.
fn document(layout: &Path) -> (Value, Value) {
    let read = |digest: &Value| -> Value { serde_json::from_slice(&fs::read(blob(layout, digest)).unwrap()).unwrap() };
    let manifest = read(&manifests(layout)[0]["digest"]);
    let document = read(&manifest["config"]["digest"]);
    (manifest, document)
}

fn names(layout: &Path) -> Vec<String> {
    let (manifest, document) = document(layout);
    let name = |layer: &Value| layer["annotations"]["longshore.build-cache.mount"].as_str().map(str::to_owned);
    let mut names: Vec<String> = manifest["layers"].as_array().unwrap().iter().filter_map(name).collect();
    names.sort();
    let told = document["mounts"].as_array().map_or(0, Vec::len);
    assert_eq!(told, names.len(), "the document has as many as the manifest");
    names
}

/// Has another daemon's first build begin with what a build of the first one has left, where `to` says how and `from` whence.
fn carried(one: &At<'_>, other: &At<'_>, to: &str, from: &str) {
    let directory = context(&[("Dockerfile", TEXT)]);
    build(one, &directory, "--build-arg WORD=a");
    build(one, &directory, &format!("--build-arg WORD=b --cache-to {to},mounts=true"));
    let words = ["a b", "a b", "/own 3 4 750", "/kept 0 0 755", "/kept/words 7 8 4751"];
    assert_eq!(seen(one), words);
    // What is done again has what was kept there.
    let told = build(other, &directory, &format!("--build-arg WORD=c --cache-from {from},mounts=true"));
    assert!(told.contains(" ---> /kept begins as ") && told.contains(" ---> /own begins as "), "{told}");
    assert_eq!(seen(other), ["a b c", "a b c", "/own 3 4 750", "/kept 0 0 755", "/kept/words 7 8 4751"]);
    // Once it is here it is ours.
    let told = build(other, &directory, &format!("--build-arg WORD=d --cache-from {from},mounts=true"));
    assert!(!told.contains("begins as"), "{told}");
    assert_eq!(seen(other)[..2], ["a b c d", "a b c d"]);
    // Whoever does not want it does not get it, nor who does all again.
    for flags in [format!("--cache-from {from}"), format!("--no-cache --cache-from {from},mounts=true")] {
        forget(other);
        let told = build(other, &directory, &format!("--build-arg WORD=e {flags}"));
        assert!(!told.contains("begins as"), "{told}");
        assert_eq!(seen(other)[..2], ["e", "e"]);
    }
    forget(other);
    build(other, &directory, &format!("--build-arg WORD=f --cache-from {from},mounts=/own"));
    assert_eq!(seen(other)[..2], ["f", "a b f"]);
    // All steps are known, and what their commands keep goes all the same.
    build(one, &directory, &format!("--build-arg WORD=b --cache-to {to},mounts=kept"));
    forget(other);
    build(other, &directory, &format!("--build-arg WORD=g --cache-from {from},mounts=true"));
    assert_eq!(seen(other)[..2], ["a b g", "g"]);
}

#[test]
fn privileged_what_commands_keep_goes_with_a_cache_in_a_directory() {
    daemons(|one, other| {
        let place = tempfile::tempdir().unwrap();
        let layout = place.path().join("cache");
        let shown = layout.display();
        carried(one, other, &format!("type=local,dest={shown}"), &format!("type=local,src={shown}"));
        assert_eq!(names(&layout), ["/kept"]);
        // By default nothing goes.
        let directory = context(&[("Dockerfile", TEXT)]);
        build(one, &directory, &format!("--build-arg WORD=b --cache-to type=local,dest={shown}"));
        assert_eq!(names(&layout), [] as [&str; 0]);
    });
}

#[test]
fn privileged_what_commands_keep_goes_with_a_cache_in_a_registry() {
    let registry = Debian::start().unwrap();
    let name = format!("type=registry,ref={}/cache:1", registry.host());
    daemons(|one, other| carried(one, other, &name, &name));
}

#[test]
fn privileged_buildx_carries_what_commands_keep() {
    daemons(|one, other| {
        if !one.daemon.clis().contains(&Cli::Docker) {
            return;
        }
        let directory = context(&[("Dockerfile", TEXT)]);
        let place = tempfile::tempdir().unwrap();
        let layout = place.path().join("cache");
        let shown = layout.display();
        let (first, second) = (Plugged::of(one.daemon), Plugged::of(other.daemon));
        let flags = format!("--build-arg WORD=a --cache-to 'type=local,dest={shown},\"mounts=own,kept\"'");
        first.build("built", &directory, &flags);
        assert_eq!(names(&layout), ["/kept", "own"]);
        let flags = format!("--build-arg WORD=b --cache-from type=local,src={shown},mounts=true");
        let told = second.build("built", &directory, &flags);
        assert!(told.contains(&format!("/kept begins as {shown} has it")), "{told}");
        assert_eq!(seen(other)[..2], ["a b", "a b"]);
    });
}

#[test]
fn privileged_a_secret_does_not_go_with_what_commands_keep() {
    daemons(|one, _| {
        let text = "FROM busybox\nRUN --mount=type=cache,target=/kept --mount=type=cache,target=/other --mount=type=secret,id=word \
             mkdir -p /kept/deep && cat /run/secrets/word > /kept/deep/file && echo a > /other/file\n";
        let directory = context(&[("Dockerfile", text)]);
        let place = tempfile::tempdir().unwrap();
        let (secret, layout) = (place.path().join("secret"), place.path().join("cache"));
        fs::write(&secret, "not for everybody\n").unwrap();
        let flags = |mounts: &str| {
            format!(
                "--secret id=word,src={} --cache-to type=local,dest={},{mounts}",
                secret.display(),
                layout.display()
            )
        };
        let sentence = "the secret word is in \"deep/file\" of the cache /kept";
        one.fails(&format!("build {} {}", flags("mounts=true"), path(&directory)), 1, sentence);
        // The step is known by now: nobody asks for the secret any more but whoever looks for it.
        one.fails(&format!("build {} {}", flags("mounts=true"), path(&directory)), 1, sentence);
        assert!(!layout.join("index.json").exists());
        let leaks = Command::new("grep").args(["-rl", "not for everybody"]).arg(&layout).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&leaks.stdout), "");
        let output = one.line(&format!("build {} {}", flags("mounts=true,ignore-error=true"), path(&directory)));
        assert!(output.code == 0 && output.stdout.contains(sentence), "{output:?}");
        build(one, &directory, &flags("mounts=other"));
        assert_eq!(names(&layout), ["/other"]);
        build(one, &directory, &flags("mounts=false"));
        assert_eq!(names(&layout), [] as [&str; 0]);
    });
}

/// Has the layout's cache say that commands keep what is in an archive.
fn lie(layout: &Path, archive: &[u8], digest: Option<&str>) {
    let (mut manifest, mut document) = document(layout);
    let put = |bytes: &[u8]| -> (String, usize) {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
        (format!("sha256:{hex}"), bytes.len())
    };
    let (own, size) = put(archive);
    if let Some(digest) = digest {
        fs::write(blob(layout, &json!(digest)), archive).unwrap();
    }
    let layer = &mut document["mounts"][0]["layer"];
    layer["digest"] = json!(digest.unwrap_or(&own));
    layer["size"] = json!(size);
    let (digest, size) = put(document.to_string().as_bytes());
    manifest["config"]["digest"] = json!(digest);
    manifest["config"]["size"] = json!(size);
    let (digest, size) = put(manifest.to_string().as_bytes());
    let mut index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"] = json!(digest);
    index["manifests"][0]["size"] = json!(size);
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

/// An archive of one file whose name nobody has cleaned.
fn archive(name: &str, text: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, text).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn privileged_what_commands_keep_may_lie() {
    daemons(|one, other| {
        let text = "FROM busybox\nARG WORD\nRUN --mount=type=cache,target=/kept echo $WORD >> /kept/words && ls -A /kept > /seen\n";
        let directory: TempDir = context(&[("Dockerfile", text)]);
        let place = tempfile::tempdir().unwrap();
        let layout = place.path().join("cache");
        build(
            one,
            &directory,
            &format!("--build-arg WORD=a --cache-to type=local,dest={},mounts=true", layout.display()),
        );
        let outside = place.path().join("outside");
        let good = archive("good", b"text");
        let mut linked = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        linked.append_link(&mut header, "link", place.path()).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        linked.append_data(&mut header, "link/outside", &b"x"[..]).unwrap();
        // A gigabyte of zeros, which is some kilobytes.
        let bomb = place.path().join("bomb");
        let script = "truncate -s 1G zeros && tar cf - zeros | gzip -9 | gzip -9 > bomb && rm zeros";
        let made = Command::new("sh").args(["-c", script]).current_dir(place.path()).status().unwrap();
        assert!(made.success());
        let digest = format!("sha256:{:064x}", 7);
        let lies: [(&str, Vec<u8>, Option<&str>); 6] = [
            ("another digest", good.clone(), Some(&digest)),
            ("a name above", archive("../outside", b"x"), None),
            ("a link out of it", linked.into_inner().unwrap(), None),
            ("no archive", b"this is no archive, and never was one; no archive at all".repeat(20), None),
            ("cut", good[..514].to_vec(), None),
            ("compressed twice", fs::read(&bomb).unwrap(), None),
        ];
        let from = format!("--cache-from type=local,src={},mounts=true", layout.display());
        for (what, bytes, digest) in lies {
            lie(&layout, &bytes, digest);
            let told = build(other, &directory, &format!("--build-arg WORD=b {from}"));
            let is_refused = told.contains("[Warning] /kept is not as ");
            assert!(is_refused || what == "a link out of it", "{what}: {told}");
            assert!(!outside.exists(), "{what}");
            if is_refused {
                assert_eq!(other.run("built cat /seen"), "words", "{what}");
            }
            forget(other);
        }
        lie(&layout, &good, None);
        build(other, &directory, &format!("--build-arg WORD=b {from}"));
        assert_eq!(other.run("built cat /seen"), "good\nwords");
    });
}
