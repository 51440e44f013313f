//! A daemon, and Docker's command line with its plugins at it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::process::Output;
use testkit::{paths, process};

use super::compare::Way;
use super::image::{self, Image};

/// A daemon to build with.
#[derive(Debug)]
pub(super) struct Engine {
    host: String,
    /// The command line's configuration, where its plugins are.
    config: TempDir,
}

/// What a build came to.
#[derive(Clone, Debug)]
pub(super) struct Built {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// None of a build that failed.
    pub(super) image: Option<Image>,
}

impl Engine {
    /// At this host, `unix:///SOCKET`.
    pub(super) fn new(host: String) -> Result<Engine> {
        let config = tempfile::tempdir()?;
        let plugins = config.path().join("cli-plugins");
        fs::create_dir(&plugins)?;
        let plugin = "docker-buildx";
        symlink(paths::docker_plugin(plugin)?.join(plugin), plugins.join(plugin))?;
        Ok(Engine { host, config })
    }

    /// Runs `docker` with these words.
    pub(super) fn docker(&self, words: &[&str]) -> Result<Output> {
        process::run(self.command().args(words), b"")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", self.config.path()).env("DOCKER_HOST", &self.host).env_remove("DOCKER_CONTEXT");
        command
    }

    /// Builds a context, looks at the image and removes it.
    pub(super) fn build(&self, way: Way, name: &str, context: &Path, flags: &[String]) -> Result<Built> {
        let mut command = self.command();
        match way {
            Way::Classic => command.env("DOCKER_BUILDKIT", "0").arg("build"),
            Way::Buildx => command.args(["buildx", "build", "--progress", "plain"]),
        };
        command.args(["--no-cache", "-t", name]).args(flags).arg(context);
        let output = process::run(&mut command, b"").with_context(|| format!("build {name}"))?;
        let image = match output.code {
            0 => Some(self.image(name)?),
            _ => None,
        };
        Ok(Built { code: output.code, stdout: output.stdout, stderr: output.stderr, image })
    }

    fn image(&self, name: &str) -> Result<Image> {
        let shown = self.docker(&["image", "inspect", name])?;
        let shown: Value = serde_json::from_str(shown.success()?)?;
        if shown[0]["RootFS"]["Layers"].as_array().is_none_or(Vec::is_empty) {
            // Docker saves no image without layers.
            self.docker(&["rmi", "-f", name])?.success()?;
            return Ok(Image { config: json!({"config": shown[0]["Config"]}), ..Image::default() });
        }
        let archive = tempfile::NamedTempFile::new()?;
        let path = archive.path().display().to_string();
        let saved = self.docker(&["save", "-o", &path, name]).and_then(|output| output.success().map(drop));
        self.docker(&["rmi", "-f", name])?.success()?;
        saved?;
        image::read(archive.path()).with_context(|| format!("the archive of {name}"))
    }
}
