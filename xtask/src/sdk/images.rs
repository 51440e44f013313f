//! Stand-ins for the images that suites want: busybox with what the tests look for in the real ones.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use testkit::http;
use testkit::images::plan::{Entry, Image, Kind};
use testkit::images::{busybox, write};
use testkit::registry::{Debian, Served};

use super::suites::Suite;

/// What is in the engine: archive and further names.
struct Loaded {
    image: Image,
    names: &'static [&'static str],
}

/// A registry with images; it ends when it is dropped.
pub(super) struct Registry(Debian);

impl std::ops::Deref for Registry {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.host()
    }
}

/// Gives the engine behind `socket` the images that are used without being pulled, and starts a registry with the others.
pub(super) fn provide(_suite: &Suite, socket: &Path) -> Result<Registry> {
    for Loaded { image, names } in loaded()? {
        load(socket, &image)?;
        for name in names {
            let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
            let path = format!("/images/{}/tag?repo={repository}&tag={tag}", image.tag);
            let answer = http::request(socket, "POST", &path, None)?;
            ensure!(answer.status == 201, "tag {name}: {} {}", answer.status, answer.text());
        }
    }
    let registry = Debian::start()?;
    for (repository, tag, image) in served()? {
        let layout = write::oci_layout(&image, write::Compression::Gzip)?;
        registry.push(&Served::of_layout(&layout)?.tagged(tag), repository)?;
    }
    Ok(Registry(registry))
}

fn load(socket: &Path, image: &Image) -> Result<()> {
    let archive = write::docker_archive(image)?;
    let mut request = Vec::new();
    write!(
        request,
        "POST /images/load?quiet=1 HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: application/x-tar\r\n\
         Content-Length: {}\r\n\r\n",
        archive.len()
    )?;
    request.extend(archive);
    let answer = http::raw(socket, &request)?;
    let failed = answer.status != 200 || answer.text().contains("\"error\"");
    ensure!(!failed, "load {}: {} {}", image.tag, answer.status, answer.text());
    Ok(())
}

fn loaded() -> Result<[Loaded; 3]> {
    Ok([
        Loaded { image: alpine()?, names: &["alpine:latest"] },
        Loaded { image: busybox()?, names: &[] },
        Loaded { image: ubuntu()?, names: &[] },
    ])
}

fn served() -> Result<[(&'static str, &'static str, Image); 4]> {
    Ok([
        ("alpine", "latest", alpine()?),
        ("fussybeaver/uhttpd", "latest", uhttpd()?),
        ("hello-world", "linux", hello_world()?),
        ("hello-world", "latest", hello_world()?),
    ])
}

/// Tests look for this user and for this directory.
fn alpine() -> Result<Image> {
    let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n\
                  nobody:x:65534:65534:nobody:/:/bin/false\n";
    with("alpine:3.10", vec![Entry::file("etc/passwd", passwd), Entry::dir("var/opt", 0o755)])
}

fn ubuntu() -> Result<Image> {
    with("ubuntu:latest", vec![program("bin/bash", "exec sh \"$@\"")])
}

fn hello_world() -> Result<Image> {
    let program = program("hello", "echo\necho 'Hello from Docker!'");
    Ok(Image { command: vec!["/hello".to_owned()], ..with("hello-world:linux", vec![program])? })
}

fn uhttpd() -> Result<Image> {
    let entries = vec![
        Entry::dir("usr", 0o755),
        Entry::dir("usr/sbin", 0o755),
        program("usr/sbin/run_uhttpd", "exec httpd \"$@\""),
        Entry::dir("www", 0o755),
        Entry::dir("etc/config", 0o755),
        Entry::file("etc/config/uhttpd", "\nconfig uhttpd main\n"),
    ];
    with("uhttpd:latest", entries)
}

fn with(tag: &str, entries: Vec<Entry>) -> Result<Image> {
    let busybox = busybox()?;
    Ok(Image { tag: tag.to_owned(), layers: [busybox.layers, vec![entries]].concat(), ..busybox })
}

fn program(path: &str, script: &str) -> Entry {
    Entry::new(path, 0o755, Kind::File(format!("#!/bin/sh\n{script}\n").into_bytes()))
}
