//! Builds: of several stages, of a context of many files, and of stages that do not need each other; ours with our own command
//! line, docker's with buildx, podman's and buildah's as they are. All begin with `busybox`, which is there, and have no network.
//!
//! A cold build finds neither steps nor a context that was sent before; before a cached one the same was built.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit};
use tempfile::TempDir;
use testkit::paths;

use super::engine::{Engine, Sample};
use super::rows::Tree;
use super::runner::{Runner, Series};

/// What is built.
const IMAGE: &str = "longshore-bench-build";

/// Three stages and ten instructions; one of them copies 5,000 files.
const STAGES: &str = "FROM busybox AS base\nENV A=1\nRUN mkdir -p /app && echo x > /app/x\nCOPY tree /app/tree\n\
     RUN find /app/tree -type f | wc -l > /app/count\nFROM base AS build\nWORKDIR /app\nRUN sha256sum tree/d0/* > sums\n\
     FROM busybox\nCOPY --from=build /app /app\nRUN ls /app | wc -l\nLABEL a=b\nCMD [\"cat\", \"/app/count\"]\n";

/// All of 20,000 files.
const FILES: &str = "FROM busybox\nCOPY . /ctx\n";

/// Two stages that both have something to do.
const BESIDE: &str = "FROM busybox AS one\nRUN for i in $(seq 30); do sha256sum /bin/busybox; done > /a\nRUN cp /a /b\n\
     FROM busybox AS two\nRUN for i in $(seq 30); do sha256sum /bin/busybox; done > /c\nRUN cp /c /d\n\
     FROM busybox\nCOPY --from=one /b /b\nCOPY --from=two /d /d\n";

/// Samples builds of a context, which is made in `directory`, where every engine sees it under the same name.
pub(super) fn samples(
    runner: &mut Runner,
    engines: &[Engine],
    directory: &Path,
    (tree, cached): (Tree, bool),
) -> Result<Vec<Series>> {
    let context = make(directory, tree)?;
    let plugins = plugins()?;
    let engines: Vec<Engine> = engines.iter().map(|engine| with_buildx(engine, plugins.path())).collect();
    let sampled = runner.interleaved(&engines, runner.runs, |_, engine| sample(engine, context.path(), cached));
    let cleared: Vec<Result<()>> = engines.iter().map(clear).collect();
    let series = sampled?;
    cleared.into_iter().collect::<Result<()>>()?;
    Ok(series)
}

/// Builds everything once, cold and cached; so that whoever asks then hears how much memory that took.
pub(super) fn everything(engine: &Engine, directory: &Path) -> Result<()> {
    for tree in [Tree::Stages, Tree::Files, Tree::Beside] {
        let context = make(directory, tree)?;
        let built = [false, true].iter().try_for_each(|cached| sample(engine, context.path(), *cached).map(drop));
        let cleared = clear(engine);
        built.and(cleared)?;
    }
    Ok(())
}

fn sample(engine: &Engine, context: &Path, cached: bool) -> Result<Sample> {
    if !cached {
        forget(engine)?;
        rustix::fs::sync();
    }
    engine.sample(&line(engine, context, cached)?)
}

fn line(engine: &Engine, context: &Path, cached: bool) -> Result<Vec<String>> {
    let mut line: Vec<String> = ["build", "-q", "--network", "none", "-t", IMAGE].map(str::to_owned).into();
    if is_of_containers(engine) {
        line.extend(["--layers", "--pull=never"].map(str::to_owned));
        // What they would ask for is more than a machine may have to give.
        for (name, resource) in [("nofile", Resource::Nofile), ("nproc", Resource::Nproc)] {
            if let Some(most) = getrlimit(resource).maximum {
                line.extend(["--ulimit".to_owned(), format!("{name}={most}:{most}")]);
            }
        }
    }
    line.extend((!cached).then(|| "--no-cache".to_owned()));
    line.push(context.to_str().context("a directory that is not named in UTF-8")?.to_owned());
    Ok(line)
}

/// Whether it is podman or buildah, which build in the client.
fn is_of_containers(engine: &Engine) -> bool {
    matches!(engine.name.as_str(), "podman" | "buildah")
}

/// Has an engine forget what it has built.
fn forget(engine: &Engine) -> Result<()> {
    match is_of_containers(engine) {
        // `--no-cache` is enough for who is sent nothing.
        true => Ok(()),
        false => engine.run(&["builder", "prune", "-af"].map(str::to_owned)),
    }
}

fn clear(engine: &Engine) -> Result<()> {
    let removed = engine.run(&["rmi", "-f", IMAGE].map(str::to_owned));
    let rest: &[&str] = match engine.name.as_str() {
        "podman" => &["image", "prune", "-f"],
        "buildah" => &["rmi", "--prune"],
        _ => &["builder", "prune", "-af"],
    };
    let rest = engine.run(&rest.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    removed.and(rest)
}

/// A configuration of Docker's client with its plugin.
fn plugins() -> Result<TempDir> {
    const BUILDX: &str = "docker-buildx";
    let config = tempfile::tempdir()?;
    let plugins = config.path().join("cli-plugins");
    fs::create_dir(&plugins)?;
    symlink(paths::docker_plugin(BUILDX)?.join(BUILDX), plugins.join(BUILDX))?;
    Ok(config)
}

fn with_buildx(engine: &Engine, config: &Path) -> Engine {
    let mut engine = engine.clone();
    if engine.name == "docker" {
        engine.environment.push(("DOCKER_CONFIG".into(), config.to_owned()));
        engine.environment.push(("DOCKER_BUILDKIT".into(), "1".into()));
    }
    engine
}

fn make(directory: &Path, tree: Tree) -> Result<TempDir> {
    let context = tempfile::Builder::new().prefix("bench-build-").tempdir_in(directory)?;
    let root = context.path();
    let dockerfile = match tree {
        Tree::Stages => {
            files(&root.join("tree"), 50, |number| number * 37 % 8192)?;
            STAGES
        }
        Tree::Files => {
            files(root, 200, |_| 20)?;
            FILES
        }
        Tree::Beside => BESIDE,
    };
    fs::write(root.join("Dockerfile"), dockerfile)?;
    Ok(context)
}

/// So many directories of a hundred files; `bytes` says how long each is.
fn files(root: &Path, directories: usize, bytes: impl Fn(usize) -> usize) -> Result<()> {
    for number in 0..directories * 100 {
        let directory: PathBuf = root.join(format!("d{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory)?;
        }
        let text = format!("file {number} ").repeat(bytes(number) / 8 + 1);
        fs::write(directory.join(format!("f{}", number % 100)), &text[..bytes(number).min(text.len())])?;
    }
    Ok(())
}
