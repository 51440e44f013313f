//! The command lines of tutorials, typed by a shell with the images of a registry that is made here.
//!
//! ```text
//! $ a line              `%word` stands for a name of this test's own, %registry for the registry, %home for a loopback
//! > on standard output  address, %dir for a directory that the daemon sees, too
//! ! on standard error
//! < typed on its terminal
//! = its exit status; 0 if none is given
//! ~ "not supported yet" is the answer; `~longshore`: of ours alone, the real one does not ask the daemon first
//! ```

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::images::plan::{Entry, Kind};
use testkit::images::write::{self, Compression};
use testkit::registry::{Debian, Served};
use testkit::{Cli, Output, Pty, images};

use crate::support::{At, on_both};

/// Serves until it is told to stop.
const SERVE: &str = "#!/bin/sh\ntrap 'exit 0' TERM\necho serving\nsleep 10000 & wait\n";
/// Whatever is typed on it is a shell's.
const SHELL: &str = "#!/bin/sh\nexec sh \"$@\"\n";
/// Says how it was called.
const ECHO: &str = "#!/bin/sh\necho \"${0##*/} $*\"\n";

/// A line with what is documented of it.
#[derive(Debug, Default)]
struct Step {
    line: String,
    typed: Option<String>,
    said: Vec<String>,
    complained: Vec<String>,
    code: i32,
    waits: Option<String>,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        let Some((mark, rest)) = line.split_at_checked(1) else { continue };
        let text = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
        if mark == "$" {
            steps.push(Step { line: text, ..Step::default() });
            continue;
        }
        let Some(step) = steps.last_mut() else { continue };
        match mark {
            "<" => step.typed = Some(text),
            ">" => step.said.push(text),
            "!" => step.complained.push(text),
            "=" => step.code = text.parse().unwrap(),
            "~" => step.waits = Some(text),
            _ => {}
        }
    }
    steps
}

/// Images of the library by what they run: a command, and the repositories with a tag each.
const LIBRARY: [(&str, &[&str]); 3] = [
    ("bash", &["ubuntu", "centos", "alpine", "python", "openjdk", "busybox"]),
    ("hello", &["hello-world"]),
    (
        "serve",
        &[
            "nginx",
            "httpd",
            "mysql",
            "postgres",
            "mongo",
            "redis",
            "node",
            "elasticsearch/elasticsearch",
            "kibana/kibana",
            "docker",
            "gitlab/gitlab-ce",
            "jenkins/jenkins",
            "prom/prometheus",
            "grafana/grafana",
            "wordpress",
            "drupal",
            "rabbitmq",
            "confluentinc/cp-kafka",
            "coreos/etcd",
            "registry",
            "dafa",
            "my-app-image",
            "my-image",
            "my-web-app",
            "flask-hello-world",
        ],
    ),
];
const TAGS: [&str; 10] = ["latest", "20.04", "18.04", "14.04", "5.7", "dind", "2", "1.0", "3.6", "3.9"];

/// A registry with those of the images that the text names.
fn registry(text: &str) -> Debian {
    let registry = Debian::start().unwrap();
    for (command, repositories) in LIBRARY {
        let mut image = images::busybox().unwrap();
        let program = |name: &str, text: &str| Entry::new(name, 0o755, Kind::File(text.into()));
        image.layers[0].extend([
            program("bin/bash", SHELL),
            program("bin/python", SHELL),
            program("bin/serve", SERVE),
            program("bin/hello", "#!/bin/sh\necho 'hello docker!'\n"),
            program("bin/pip", ECHO),
            program("bin/apt-get", ECHO),
            program("bin/yum", ECHO),
            program("usr/sbin/apache2ctl", SERVE),
            program("bin/java", ECHO),
            program("bin/mysql", ECHO),
            Entry::dir("app", 0o755),
            Entry::file("app/file.txt", "of the image\n"),
        ]);
        image.command = vec![command.to_owned()];
        let mut served = Served::of_layout(&write::oci_layout(&image, Compression::Gzip).unwrap()).unwrap();
        for repository in repositories.iter().filter(|name| text.contains(&format!("%registry/{name}"))) {
            let named = |tag: &&&str| **tag == "latest" || text.contains(&format!("{repository}:{tag}"));
            served.manifests.retain(|name, _| name.starts_with("sha256:"));
            for tag in TAGS.iter().filter(named) {
                served.manifests.insert((*tag).to_owned(), served.manifest.clone());
            }
            registry.push(&served, repository).unwrap();
        }
    }
    registry
}

/// One run through a text.
struct Tutorial<'a> {
    at: &'a At<'a>,
    registry: &'a str,
    shared: &'a Path,
    work: &'a Path,
}

impl Tutorial<'_> {
    /// Puts the names of this run into a text.
    fn named(&self, text: &str) -> String {
        let mut parts = text.split('%');
        let mut named = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap_or(part.len());
            let (word, rest) = part.split_at(end);
            named += &match word {
                "registry" => self.registry.to_owned(),
                "home" => home(),
                "dir" => self.shared.display().to_string(),
                _ => self.at.image(word),
            };
            named += rest;
        }
        named
    }

    fn shell(&self, line: &str) -> Command {
        let typed = self.at.command("");
        let mut shell = Command::new("bash");
        let docker = typed.get_program().to_string_lossy().into_owned();
        shell.args(["-c", &format!("docker() {{ {docker} \"$@\"; }}\nsudo() {{ \"$@\"; }}\n{line}")]);
        for (name, value) in typed.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.current_dir(self.work);
        shell
    }

    fn output(&self, step: &Step, line: &str) -> Output {
        let mut shell = self.shell(line);
        if !line.contains("-it ") && !line.contains("-t -i ") {
            return testkit::process::run(&mut shell, b"").unwrap();
        }
        let mut pty = Pty::spawn(&shell, 40, 200).unwrap();
        if let Some(typed) = &step.typed {
            pty.send(format!("{typed}\n").as_bytes()).unwrap();
        }
        let (text, code) = pty.wait().unwrap();
        Output { stdout: text.clone(), stderr: text, code }
    }

    fn check(&self, step: &Step) {
        let line = self.named(&step.line);
        println!("{line}");
        if let Some(whose) = &step.waits {
            if !(self.at.daemon.is_foreign() || whose == "longshore" && self.at.cli == Cli::Docker) {
                let output = self.output(step, &line);
                assert!(output.code != 0 && output.stderr.contains("not supported yet"), "{line}: {output:?}");
            }
            return;
        }
        let output = self.output(step, &line);
        assert_eq!(output.code, step.code, "{line}: {output:?}");
        let program = if self.at.cli == Cli::Docker { "docker" } else { "longshore" };
        let said = |text: &str| self.named(text).replace(": docker ", &format!(": {program} "));
        for text in &step.said {
            let text = said(text).replace("  docker ", &format!("  {program} "));
            assert!(output.stdout.contains(&text), "{line}: {text:?} is not in {output:?}");
        }
        for text in &step.complained {
            assert!(output.stderr.contains(&said(text)), "{line}: {text:?} is not in {output:?}");
        }
    }

    /// Removes the containers of this registry's images, and the images.
    fn clean(&self) {
        let ours = |lines: String| -> Vec<String> {
            let ours = lines.lines().filter(|line| line.contains(self.registry)).map(str::to_owned);
            ours.collect()
        };
        for line in ours(self.at.ok("ps -a --no-trunc --format '{{.ID}} {{.Image}}'")) {
            self.at.remove(line.split(' ').next().unwrap_or_default());
        }
        for image in ours(self.at.ok("images --format '{{.Repository}}:{{.Tag}}'")) {
            self.at.ok(&format!("rmi -f {image}"));
        }
        let networks = ["my-bridge-network", "my-custom-network"].map(|name| self.at.name(name));
        self.at.ok(&format!("network rm -f {}", networks.join(" ")));
    }
}

/// A loopback address for this process: other tests use the same ports.
fn home() -> String {
    let id = std::process::id().to_be_bytes();
    format!("127.{}.{}.{}", 8 + id[1], id[2], id[3])
}

fn type_all(text: &str) {
    on_both(|at| {
        let registry = registry(text);
        let (shared, work) = (at.daemon.shared_dir().unwrap(), tempfile::tempdir().unwrap());
        if shared.is_none() && (text.contains("%dir:") || text.contains("%dir/")) {
            testkit::skip::report("the daemon sees no directory of ours");
            return;
        }
        let directory = shared.as_ref().map_or(work.path(), |shared| shared.path());
        fs::write(directory.join("my-config.conf"), "of the host\n").unwrap();
        fs::write(directory.join("Dockerfile"), "FROM busybox\n").unwrap();
        fs::write(work.path().join("Dockerfile"), "FROM busybox\n").unwrap();
        let run = Tutorial { at, registry: registry.host(), shared: directory, work: work.path() };
        for step in steps(text) {
            run.check(&step);
        }
        run.clean();
    });
}

#[test]
fn privileged_the_lines_about_images_do_what_is_documented() {
    type_all(include_str!("tutorials/images.txt"));
}

#[test]
fn privileged_the_lines_about_builds_do_what_is_documented() {
    type_all(include_str!("tutorials/builds.txt"));
}

#[test]
fn privileged_the_lines_about_containers_do_what_is_documented() {
    type_all(include_str!("tutorials/containers.txt"));
}

#[test]
fn privileged_the_lines_about_volumes_do_what_is_documented() {
    type_all(include_str!("tutorials/volumes.txt"));
}

#[test]
fn privileged_the_lines_about_networks_do_what_is_documented() {
    type_all(include_str!("tutorials/networks.txt"));
}

#[test]
fn privileged_the_lines_of_the_image_library_do_what_is_documented() {
    type_all(include_str!("tutorials/library.txt"));
}
