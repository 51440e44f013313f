//! `save`: archives of images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use testkit::Events;

use crate::support::{At, on_both, ours};

/// An image of two layers with contents of its own.
fn make(at: &At<'_>, name: &str) -> String {
    let container = at.name("saving");
    let script = "mkdir -p /new; echo first > /new/a; ln /new/a /new/b; ln -s a /new/c; rm /bin/true";
    at.ok(&format!("run --name {container} --network none busybox sh -c '{script}'"));
    at.ok(&format!("commit -m made {container} {name}"));
    at.remove(&container);
    at.inspect(name, "{{.Id}}")
}

/// Files of an archive.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    files
}

#[test]
fn privileged_what_is_saved_is_whole_and_loads_again() {
    on_both(|at| {
        let name = at.image("saved");
        let id = make(at, &name);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let mut events = Events::subscribe_to(at.daemon.socket(), "image", &id).unwrap();
        assert_eq!(at.ok(&format!("save -o {} {name}", path.display())), "");
        let event = events.until("save").unwrap();
        assert_eq!((&event["id"], &event["Actor"]["Attributes"]["name"]), (&id.clone().into(), &id.clone().into()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let files = files(&path);
        for (path, bytes) in files.iter().filter(|(path, _)| path.len() > "blobs/sha256/".len()) {
            // Whatever was changed would have another name.
            let digest = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            assert_eq!(*path, format!("blobs/sha256/{digest}"));
        }
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let diff_ids = at.inspect(&name, "{{range .RootFS.Layers}}{{.}} {{end}}");
        let layers = diff_ids.split_whitespace().map(|id| id.replace("sha256:", "blobs/sha256/"));
        assert_eq!(manifest[0]["Layers"], serde_json::json!(layers.collect::<Vec<_>>()));
        assert_eq!(manifest[0]["Config"], id.replace("sha256:", "blobs/sha256/"));
        assert_eq!(manifest[0]["RepoTags"], serde_json::json!([format!("{name}:latest")]));
        assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion": "1.0.0"}"#);
        at.ok(&format!("rmi {name}"));
        assert_eq!(at.ok(&format!("load -i {}", path.display())), format!("Loaded image: {name}:latest"));
        assert_eq!(at.inspect(&name, "{{.Id}}"), id);
        assert_eq!(at.run(&format!("{name} sh -c 'cat /new/b /new/c && [ ! -e /bin/true ]'")), "first\nfirst");
        at.ok(&format!("rmi {name}"));
    });
}

#[test]
fn privileged_several_images_are_one_archive() {
    on_both(|at| {
        let (first, second) = (at.image("first"), at.image("second"));
        let id = make(at, &first);
        for name in [format!("{first}:other"), format!("{second}:1")] {
            at.ok(&format!("tag {first} {name}"));
        }
        let dir = tempfile::tempdir().unwrap();
        let saved = |names: &str| {
            let path = dir.path().join("a.tar");
            at.ok(&format!("save --output {} {names}", path.display()));
            let manifest: serde_json::Value = serde_json::from_slice(&files(&path)["manifest.json"]).unwrap();
            let tags = |item: &serde_json::Value| item["RepoTags"].to_string();
            let mut tags: Vec<String> = manifest.as_array().unwrap().iter().map(tags).collect();
            // Docker keeps images in a map of Go's.
            tags.sort();
            tags.join(" ")
        };
        assert_eq!(saved(&format!("{first}:other")), format!(r#"["{first}:other"]"#));
        assert_eq!(saved(&first), format!(r#"["{first}:latest","{first}:other"]"#));
        assert_eq!(saved(&format!("{second}:1 {first}:other")), format!(r#"["{second}:1","{first}:other"]"#));
        assert_eq!(saved(&id), "null");
        assert_eq!(saved(&format!("{} busybox:latest", &id[7..19])), r#"["busybox:latest"] null"#);
        at.ok(&format!("rmi {first}:latest {first}:other {second}:1"));
    });
}

#[test]
fn privileged_what_cannot_be_saved_is_said() {
    on_both(|at| {
        let missing = at.image("missing");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar").display().to_string();
        let fails = |line: &str, sentence: &str| at.fails(&format!("save {line}"), 1, sentence);
        fails(&format!("-o {path} {missing}"), &format!("No such image: {missing}\n"));
        fails(&format!("-o {path} busybox {missing}:1"), "reference does not exist\n");
        fails(&format!("-o {path} sha256:0000"), "No such image: sha256:0000\n");
        fails(
            &format!("-o {path} Upper"),
            "invalid reference format: repository name (library/Upper) must be lowercase",
        );
        fails(
            &format!("-o {path} --platform linux/s390x busybox"),
            "no suitable export target found for platform linux/s390x\n",
        );
        fails(
            &format!("-o {path} --platform lin%ux busybox"),
            "invalid platform: \"lin%ux\" is an invalid OS component",
        );
        // Neither device nor link is replaced by a file.
        let made = |name: &str, program: &str, rest: &[&str]| {
            let special = dir.path().join(name);
            let made = std::process::Command::new(program)
                .args(rest.iter().map(|word| word.replace("PATH", special.to_str().unwrap())))
                .status();
            assert!(made.unwrap().success(), "{name}");
            special
        };
        for (special, kind) in [
            (dir.path().to_owned(), "a directory"),
            (made("null", "mknod", &["PATH", "c", "1", "3"]), "a character device file"),
            (made("fifo", "mkfifo", &["PATH"]), "a named pipe (FIFO)"),
            (made("link", "ln", &["-s", "/", "PATH"]), "a symbolic link directly"),
        ] {
            let before = std::fs::symlink_metadata(&special).unwrap();
            fails(
                &format!("-o {} busybox", special.display()),
                &format!("failed to save image: cannot write to {kind}\n"),
            );
            assert_eq!(std::fs::symlink_metadata(&special).unwrap().file_type(), before.file_type());
        }
        let nowhere = "failed to save image: invalid output path: stat /nowhere: no such file or directory\n";
        fails("-o /nowhere/a busybox", nowhere);
        fails("", "requires at least 1 argument");
        assert!(!Path::new(&path).exists(), "no file of an image that was not saved");
        let (said, code) = at.pty("save busybox").wait().unwrap();
        assert_eq!(code, 1);
        assert!(said.contains("cowardly refusing to save to a terminal. Use the -o flag or redirect"), "{said}");
        let get = |path: &str| {
            let answer = at.daemon.get(path).unwrap();
            (answer.status, answer.message())
        };
        let platform = |text: &str| format!("/v1.48/images/busybox/get?platform={text}");
        let invalid = "failed to parse platform: invalid character 'l' looking for beginning of value";
        assert_eq!(get(&platform("linux")), (400, invalid.to_owned()));
        assert_eq!(get(&platform("%7B%7D")), (400, "both OS and Architecture must be provided".to_owned()));
        assert_eq!(get(&platform("a&platform=b")), (400, "multiple platform parameters not supported".to_owned()));
        assert_eq!(get("/v1.48/images/get?names="), (500, "invalid reference format".to_owned()));
        assert_eq!(at.daemon.get("/v1.47/images/busybox/get?platform=linux").unwrap().status, 200);
        assert_eq!(at.daemon.get("/v1.48/images/get").unwrap().status, 200);
    });
}

/// The same image gives the same bytes, from another daemon, too: nothing of time or chance is in an archive.
#[test]
fn privileged_the_same_image_is_the_same_archive() {
    ours(|daemon| {
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let (name, other) = (at.image("same"), at.image("other"));
            make(&at, &name);
            let dir = tempfile::tempdir().unwrap();
            let [first, second, third] = ["1", "2", "3"].map(|name| dir.path().join(name));
            let save = |path: &Path| at.ok(&format!("save -o {} {name} busybox", path.display()));
            save(&first);
            at.ok(&format!("tag {name} {other}"));
            save(&second);
            at.ok(&format!("rmi {other} {name}"));
            at.ok(&format!("load -i {}", second.display()));
            save(&third);
            let read = |path: &Path| std::fs::read(path).unwrap();
            assert!(read(&first) == read(&second) && read(&second) == read(&third));
        }
    });
}

#[test]
fn privileged_an_archive_is_loaded_however_it_is_compressed() {
    on_both(|at| {
        let name = at.image("packed");
        let id = make(at, &name);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        at.ok(&format!("save -o {} {name}", path.display()));
        for program in ["gzip", "bzip2", "xz", "zstd"] {
            if program == "xz" && at.daemon.is_foreign() {
                // dockerd runs xz(1), which need not be where it is.
                continue;
            }
            let output = Command::new(program).args(["-1", "-c"]).arg(&path).output().unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
            let packed = dir.path().join(program);
            std::fs::write(&packed, &output.stdout).unwrap();
            at.ok(&format!("rmi {name}"));
            assert_eq!(at.ok(&format!("load -i {}", packed.display())), format!("Loaded image: {name}:latest"));
            assert_eq!(at.inspect(&name, "{{.Id}}"), id, "{program}");
        }
        at.ok(&format!("rmi {name}"));
    });
}

#[test]
fn privileged_images_of_other_platforms_are_left_in_the_archive() {
    on_both(|at| {
        let name = at.image("platform");
        let id = make(at, &name);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar").display().to_string();
        at.ok(&format!("save --platform {} -o {path} {name}", at.inspect(&name, "{{.Os}}/{{.Architecture}}")));
        at.ok(&format!("rmi {name}"));
        assert_eq!(at.ok(&format!("load --platform linux/s390x -i {path}")), "");
        assert_eq!(at.ok(&format!("images -q {name}")), "");
        at.fails(&format!("load --platform a/b/c/d -i {path}"), 1, "invalid platform: ");
        let here = at.inspect("busybox", "{{.Os}}/{{.Architecture}}");
        assert_eq!(at.ok(&format!("load --platform {here} -i {path}")), format!("Loaded image: {name}:latest"));
        assert_eq!(at.inspect(&name, "{{.Id}}"), id);
        at.ok(&format!("rmi {name}"));
    });
}
