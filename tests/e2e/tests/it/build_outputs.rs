//! `docker buildx build --output`: what comes to the client beside an image, or instead of it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, Piped};

use crate::build::{context, path};
use crate::buildx::{Plugged, left, plugged};
use crate::support::{At, ours};

/// An image with all kinds of files, which are made in the same way everywhere.
const KINDS: &str = "FROM busybox AS made\n\
    RUN mkdir -p /made/sub/deep && cd /made && echo one > file && chown 3:4 file && chmod 4751 file && ln file sub/other && \
    ln -s ../file sub/link && mkfifo fifo && mknod null c 1 3 && head -c 3000000 /dev/zero > sub/deep/large && \
    echo x > 'a name' && echo y > ä && chmod 1777 sub/deep && touch -d '2001-02-03 04:05:06' file 'a name' && : > empty\n\
    FROM scratch\nCOPY --from=made /made /\nCOPY own /own\n";

/// What is told of a file: kind and mode in octal digits, size, and what it leads to.
fn seen(root: &Path, file: &str) -> String {
    let path = root.join(file);
    let found = fs::symlink_metadata(&path).unwrap_or_else(|err| panic!("{file}: {err}"));
    let link = fs::read_link(&path).map(|to| to.display().to_string()).unwrap_or_default();
    let size = if found.is_file() { found.len() } else { 0 };
    format!("{:o} {size} {link}", found.mode())
}

/// All below a directory, from there, in order.
pub(crate) fn names(root: &Path) -> Vec<String> {
    let (mut names, mut todo) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            names.push(path.strip_prefix(root).unwrap().display().to_string());
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                todo.push(path);
            }
        }
    }
    names.sort();
    names
}

fn kinds() -> TempDir {
    context(&[("Dockerfile", KINDS), ("own", "mine\n")])
}

const NAMES: [&str; 13] = [
    "a name",
    "empty",
    "fifo",
    "file",
    "null",
    "own",
    "sub",
    "sub/deep",
    "sub/deep/large",
    "sub/link",
    "sub/other",
    "ä",
    "",
];

pub(crate) fn build(plugged: &Plugged<'_>, directory: &TempDir, flags: &str) -> String {
    let output = plugged.line(&format!("buildx build --progress plain {flags} {}", path(directory)));
    assert_eq!(output.code, 0, "{output:?}");
    output.stderr
}

#[test]
fn privileged_buildx_puts_files_into_a_directory() {
    plugged(|plugged| {
        let (directory, to) = (kinds(), tempfile::tempdir().unwrap());
        fs::write(to.path().join("before"), "kept").unwrap();
        fs::write(to.path().join("own"), "older").unwrap();
        let printed = build(plugged, &directory, &format!("--output type=local,dest={}", path(&to)));
        for wanted in ["exporting to client directory", "copying files "] {
            assert!(printed.contains(wanted), "{wanted:?} in {printed}");
        }
        assert_eq!(fs::read_to_string(to.path().join("before")).unwrap(), "kept");
        fs::remove_file(to.path().join("before")).unwrap();
        assert_eq!(names(to.path()), NAMES[..12]);
        for (file, wanted) in [
            ("a name", "100644 2 "),
            ("empty", "100644 0 "),
            ("fifo", "10644 0 "),
            ("file", "104751 4 "),
            ("null", "20644 0 "),
            ("own", "100644 5 "),
            ("sub", "40755 0 "),
            ("sub/deep", "41777 0 "),
            ("sub/deep/large", "100644 3000000 "),
            ("sub/link", "120777 0 ../file"),
            ("sub/other", "104751 4 "),
        ] {
            assert_eq!(seen(to.path(), file), wanted, "{file}");
        }
        let found = |file: &str| fs::symlink_metadata(to.path().join(file)).unwrap();
        // Copied from a stage they are two files, and stay one only where BuildKit copies them so.
        assert_eq!(found("file").mtime(), 981_173_106);
        assert_eq!((found("file").uid(), found("file").gid()), (0, 0));
        assert!(found("null").file_type().is_char_device() && found("null").rdev() == 0x103);
        assert_eq!(fs::read_to_string(to.path().join("own")).unwrap(), "mine\n");
        // Once more, above what is there; and below the platform's name.
        build(plugged, &directory, &format!("-o {}", path(&to)));
        assert_eq!(names(to.path()), NAMES[..12]);
        let split = to.path().join("split");
        build(plugged, &directory, &format!("-o type=local,platform-split=true,dest={}", split.display()));
        let [platform] = &names(&split).into_iter().filter(|name| !name.contains('/')).collect::<Vec<_>>()[..] else {
            panic!("{:?}", names(&split));
        };
        assert!(platform.starts_with("linux_"), "{platform}");
        assert_eq!(names(&split.join(platform)), NAMES[..12]);
    });
}

#[test]
fn privileged_buildx_keeps_hard_links() {
    plugged(|plugged| {
        let (directory, to) = (
            context(&[("Dockerfile", "FROM busybox\nRUN mkdir /h && echo x > /h/a && ln /h/a /h/b && ln /h/a /c\n")]),
            tempfile::tempdir().unwrap(),
        );
        build(plugged, &directory, &format!("--output {}", path(&to)));
        let inode = |file: &str| fs::symlink_metadata(to.path().join(file)).unwrap().ino();
        assert_eq!((inode("c"), inode("h/b")), (inode("h/a"), inode("h/a")));
        // Of what is the base image's nothing is missing.
        assert!(names(&to.path().join("bin")).len() > 100);
    });
}

/// What GNU tar tells of an archive, in order of the alphabet.
pub(crate) fn listed(archive: &Path) -> Vec<String> {
    let output = testkit::process::run(
        std::process::Command::new("tar").args(["--numeric-owner", "--full-time", "--utc", "-tvf"]).arg(archive),
        b"",
    );
    let output = output.unwrap();
    assert_eq!(output.code, 0, "{output:?}");
    let mut lines: Vec<String> =
        output.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.sort();
    lines
}

#[test]
fn privileged_buildx_makes_an_archive_of_files() {
    plugged(|plugged| {
        let (directory, to) = (kinds(), tempfile::tempdir().unwrap());
        let file = to.path().join("files.tar");
        let printed = build(plugged, &directory, &format!("--output type=tar,dest={}", file.display()));
        for wanted in ["exporting to client tarball", "sending tarball"] {
            assert!(printed.contains(wanted), "{wanted:?} in {printed}");
        }
        let all = listed(&file);
        assert_eq!(all.len(), 12, "{all:?}");
        for wanted in [
            "-rw-r--r-- 0/0 2 2001-02-03 04:05:06 a name",
            "-rwsr-x--x 3/4 4 2001-02-03 04:05:06 file",
            "crw-r--r-- 0/0 1,3 ",
            "drwxrwxrwt 0/0 0 ",
            "lrwxrwxrwx 0/0 0 ",
            "prw-r--r-- 0/0 0 ",
        ] {
            assert!(all.iter().any(|line| line.starts_with(wanted)), "{wanted:?} in {all:?}");
        }
        assert!(all.iter().any(|line| line.ends_with(" sub/link -> ../file")), "{all:?}");
        let printed = plugged.line(&format!("buildx build -q -o - {}", path(&directory)));
        assert_eq!(printed.code, 0);
        // Whatever time it says, in seconds since 1970.
        let flags = format!("--build-arg SOURCE_DATE_EPOCH=1000000 -o type=tar,dest={}", file.display());
        build(plugged, &directory, &flags);
        assert!(listed(&file).iter().all(|line| line.contains(" 1970-01-12 13:46:40 ")), "{:?}", listed(&file));
        build(plugged, &directory, &format!("--build-arg SOURCE_DATE_EPOCH=1000000 -o {}", path(&to)));
        let times = ["own", "sub", "sub/deep/large"].map(|file| fs::metadata(to.path().join(file)).unwrap().mtime());
        assert_eq!(times, [1_000_000; 3]);
    });
}

#[test]
fn privileged_buildx_brings_an_outcome_to_several_places() {
    plugged(|plugged| {
        let (directory, to) = (kinds(), tempfile::tempdir().unwrap());
        let image = plugged.at.image("several");
        let metadata = to.path().join("metadata.json");
        let flags = format!(
            "-o type=local,dest={0}/files -o type=tar,dest={0}/files.tar -o type=image,name={image} --metadata-file {1}",
            path(&to),
            metadata.display()
        );
        build(plugged, &directory, &flags);
        assert_eq!(names(&to.path().join("files")), NAMES[..12]);
        assert_eq!(listed(&to.path().join("files.tar")).len(), 12);
        let id = plugged.at.inspect(&image, "{{.Id}}");
        let metadata = fs::read_to_string(metadata).unwrap();
        for wanted in [
            format!("\"containerimage.config.digest\": \"{id}\""),
            format!("\"containerimage.digest\": \"{id}\""),
            format!("\"image.name\": \"docker.io/library/{image}\""),
            "\"buildx.build.ref\": \"default/default/".to_owned(),
        ] {
            assert!(metadata.contains(&wanted), "{wanted:?} in {metadata}");
        }
        plugged.at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_buildx_says_why_an_output_is_none() {
    plugged(|plugged| {
        let to = tempfile::tempdir().unwrap();
        let directory = context(&[("Dockerfile", "FROM scratch\nCOPY f /\n"), ("f", "f")]);
        for (flags, wanted) in [
            ("-o type=other", "failed to solve: exporter \"other\" could not be found"),
            (
                "-o type=local,platform-split=x,dest=NONE",
                "non-bool value for platform-split: x: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
            (
                "--build-arg SOURCE_DATE_EPOCH=x",
                "failed to solve: invalid SOURCE_DATE_EPOCH: x: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "-o type=local,dest=NONE,source-date-epoch=x",
                "invalid source-date-epoch: strconv.ParseInt: parsing \"x\": invalid syntax: strconv.ParseInt: parsing \
                 \"x\": invalid syntax",
            ),
            (
                "-o type=tar,dest=/dev/full",
                "failed to solve: ResourceExhausted: rpc error: code = ResourceExhausted desc = write /dev/full: no space left \
                 on device",
            ),
            (
                "-o type=local,dest=/proc/none",
                "failed to solve: rpc error: code = Unknown desc = failed to create synctarget dest dir /proc/none: mkdir \
                 /proc/none: no such file or directory",
            ),
        ] {
            let flags = flags.replace("NONE", &format!("{}/none", path(&to)));
            let output = plugged.line(&format!("buildx build --progress plain {flags} {}", path(&directory)));
            // buildx tells the failure's kind in its code.
            assert_ne!(output.code, 0, "{output:?}");
            let printed = output.stderr;
            assert!(printed.trim_end().ends_with(wanted), "{wanted:?} at the end of {printed}");
        }
    });
}

#[test]
fn privileged_a_client_that_dies_while_it_is_sent_files_leaves_nothing() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("this looks into the daemon's directories");
        }
        let text = "FROM busybox\nRUN head -c 300000000 /dev/zero > /large\n";
        let directory = context(&[("Dockerfile", text)]);
        let snapshots =
            || fs::read_dir(plugged.at.daemon.scratch().data_root().join("builds")).into_iter().flatten().count();
        for _ in 0..2 {
            // Nobody reads what it prints: it stands still in the middle.
            let mut command = plugged.command(&format!("buildx build -q -o - {}", path(&directory)));
            let mut client = Piped::spawn(&mut command).unwrap();
            client.read_until("ustar").unwrap();
            client.signal(Signal::KILL).unwrap();
            client.wait().unwrap();
            let gone = || (left(plugged.at.daemon) == 0 && snapshots() == 0).then_some(());
            until("nothing is left of the build", DEADLINE, gone).unwrap();
        }
    });
}

#[test]
fn privileged_images_are_of_the_time_that_is_said() {
    plugged(|plugged| {
        let directory = context(&[("Dockerfile", "FROM scratch\nCOPY f /\nLABEL x=y\nENV A=b\n"), ("f", "f")]);
        let image = plugged.at.image("timed");
        let flags = format!("--build-arg SOURCE_DATE_EPOCH=1000000 -t {image}");
        build(plugged, &directory, &flags);
        assert_eq!(plugged.at.inspect(&image, "{{.Created}}"), "1970-01-12T13:46:40Z");
        let history = plugged.at.ok(&format!("history --human=false --format {{{{.CreatedAt}}}} {image}"));
        assert!(history.lines().all(|line| line == "1970-01-12T13:46:40Z"), "{history}");
        let id = plugged.at.inspect(&image, "{{.Id}}");
        build(plugged, &directory, &flags);
        assert_eq!(plugged.at.inspect(&image, "{{.Id}}"), id);
        plugged.at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_cold_builds_of_one_source_are_one_image() {
    ours(|first| {
        let second = Daemon::with_busybox().unwrap();
        let text = "FROM busybox AS a\nRUN mkdir -p /d/e && echo a > /d/e/f && ln /d/e/f /d/g && uname -n > /d/name\n\
                    FROM busybox\nCOPY --from=a /d /d\nRUN echo x > /x && rm /bin/vi && ln -s /x /y\nWORKDIR /made/here\nENV A=b\n";
        let directory = context(&[("Dockerfile", text), ("f", "f")]);
        let id = |daemon: &Daemon, flags: &str, time: &str| {
            let at = At { daemon, cli: Cli::Longshore };
            let mut command = at.command(&format!("build -q --no-cache {flags} {}", path(&directory)));
            if !time.is_empty() {
                command.env("SOURCE_DATE_EPOCH", time);
            }
            testkit::process::run(&mut command, b"").unwrap().success().unwrap().to_owned()
        };
        assert_ne!(id(first, "", ""), id(&second, "", ""));
        for time in ["", "1700000000"] {
            assert_eq!(id(first, "--reproducible", time), id(&second, "--reproducible", time), "{time}");
        }
        let at = At { daemon: first, cli: Cli::Longshore };
        let image = id(first, "--reproducible", "1700000000");
        let times = at.ok(&format!("run --rm {image} stat -c %Y /x /y /made/here /d/e/f"));
        assert_eq!(times.lines().collect::<Vec<_>>(), ["1700000000"; 4]);
        at.fails("build --reproducible --output type=tar,dest=- --output - .", 1, "only one output");
    });
}

#[test]
fn privileged_our_own_build_gives_files_and_archives() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let (directory, to) = (kinds(), tempfile::tempdir().unwrap());
        let image = at.image("given");
        let line = format!(
            "build -t {image} -o {0}/files -o type=tar,dest={0}/files.tar -o type=oci,dest={0}/oci.tar \
             -o type=docker,dest={0}/docker.tar {1}",
            path(&to),
            path(&directory)
        );
        at.ok(&line);
        let files = to.path().join("files");
        assert_eq!(names(&files), NAMES[..12]);
        for (file, wanted) in [("file", "104751 4 "), ("sub/link", "120777 0 ../file"), ("sub/deep", "41777 0 ")] {
            assert_eq!(seen(&files, file), wanted, "{file}");
        }
        assert_eq!(listed(&to.path().join("files.tar")).len(), 12);
        let id = at.inspect(&image, "{{.Id}}");
        for archive in ["oci.tar", "docker.tar"] {
            at.ok(&format!("rmi -f {image}"));
            at.ok(&format!("load -i {}/{archive}", path(&to)));
            assert_eq!(at.inspect(&image, "{{.Id}}"), id);
        }
        // Nothing else is on standard output.
        let output = at.line(&format!("build -o - {}", path(&directory)));
        assert!(output.stderr.contains("Successfully built "), "{}", output.stderr);
        assert_eq!(at.ok("ps -aq"), "");
        at.fails(&format!("build -o type=local,dest=/proc/none {}", path(&directory)), 1, "mkdir /proc/none");
        at.fails(&format!("build -o type=x,dest=f {}", path(&directory)), 1, "exporter \"x\" could not be found");
    });
}

/// A document in an archive.
pub(crate) fn document(archive: &Path, name: &str) -> serde_json::Value {
    let mut tar = std::process::Command::new("tar");
    let output = testkit::process::run(tar.arg("-xOf").arg(archive).arg(name), b"").unwrap();
    assert_eq!(output.code, 0, "{output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

/// Where a descriptor's blob is in an archive.
pub(crate) fn blob(descriptor: &serde_json::Value) -> String {
    format!("blobs/sha256/{}", descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:"))
}

#[test]
fn privileged_buildx_gives_images_away_as_layouts_with_annotations() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("buildx asks dockerd for no layouts without containerd's store");
        }
        let (directory, to) = (kinds(), tempfile::tempdir().unwrap());
        let image = plugged.at.image("laid-out");
        let (oci, docker) = (to.path().join("oci.tar"), to.path().join("docker.tar"));
        let metadata = to.path().join("metadata.json");
        let flags = format!(
            "-t {image} --annotation a=b --annotation manifest-descriptor:c=d --metadata-file {} -o type=image -o \
             type=docker,dest={} -o type=oci,dest={}",
            metadata.display(),
            docker.display(),
            oci.display()
        );
        let printed = build(plugged, &directory, &flags);
        for wanted in ["exporting to oci image format", "exporting to docker image format", "sending tarball"] {
            assert!(printed.contains(wanted), "{wanted:?} in {printed}");
        }
        let id = plugged.at.inspect(&image, "{{.Id}}");
        let index = document(&oci, "index.json");
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], format!("docker.io/library/{image}:latest"));
        assert_eq!((&entry["annotations"]["c"], &index["manifests"][1]), (&"d".into(), &serde_json::Value::Null));
        let manifest = document(&oci, &blob(entry));
        assert_eq!(manifest["annotations"], serde_json::json!({"a": "b"}));
        assert_eq!(manifest["config"]["digest"], id);
        assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        assert_eq!(document(&docker, "manifest.json")[0]["RepoTags"][0], format!("{image}:latest"));
        let metadata = fs::read_to_string(metadata).unwrap();
        let wanted = format!("\"containerimage.digest\": {}", entry["digest"]);
        assert!(metadata.contains(&wanted), "{wanted} in {metadata}");
        // The same again: layers are compressed to the same bytes.
        let before = fs::read(&oci).unwrap();
        let flags = format!(
            "-t {image} --annotation a=b --annotation manifest-descriptor:c=d -o type=oci,dest={}",
            oci.display()
        );
        build(plugged, &directory, &flags);
        assert!(fs::read(&oci).unwrap() == before);
        for archive in [&oci, &docker] {
            plugged.at.ok(&format!("rmi -f {image}"));
            plugged.at.ok(&format!("load -i {}", archive.display()));
            assert_eq!(plugged.at.inspect(&image, "{{.Id}}"), id);
        }
        let first_layer = |form: &str| {
            build(plugged, &directory, &format!("-o type=oci,{form},dest={}", oci.display()));
            let manifest = document(&oci, &blob(&document(&oci, "index.json")["manifests"][0]));
            manifest["layers"][0]["mediaType"].as_str().unwrap().to_owned()
        };
        // What was loaded has a form already, which it keeps unless it has to have another one.
        for (form, kind) in [
            ("compression=uncompressed", "tar+gzip"),
            ("compression=uncompressed,force-compression=true", "tar"),
            ("compression=zstd,force-compression=true", "tar+zstd"),
            ("compression=gzip,force-compression=true,compression-level=9", "tar+gzip"),
        ] {
            assert_eq!(first_layer(form), format!("application/vnd.oci.image.layer.v1.{kind}"), "{form}");
            plugged.at.ok(&format!("load -i {}", oci.display()));
        }
        for (flags, wanted) in [
            ("-o type=oci,compression=x,dest=NONE", "unsupported compression type x"),
            (
                "--annotation index:a=b -o type=oci,dest=NONE",
                "index annotations not supported for single platform export",
            ),
        ] {
            let flags = flags.replace("NONE", &format!("{}/none", path(&to)));
            let output = plugged.line(&format!("buildx build --progress plain {flags} {}", path(&directory)));
            assert!(output.code != 0 && output.stderr.contains(wanted), "{wanted:?} in {output:?}");
        }
        plugged.at.ok(&format!("rmi {image}"));
    });
}
