//! Both command lines.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Daemon;
use crate::process::Output;
use crate::{paths, process, skip};

/// For machines on which the second command line is a waste of time: those without KVM.
pub const CLI_VARIABLE: &str = "LONGSHORE_TEST_CLI";

/// Which command line a test types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cli {
    /// Our `longshore`.
    Longshore,
    /// Docker's own `docker`.
    Docker,
}

impl Cli {
    /// Both.
    pub const ALL: [Cli; 2] = [Cli::Longshore, Cli::Docker];

    fn program(self, dist: &Path) -> Option<PathBuf> {
        match self {
            Cli::Longshore => Some(dist.join("longshore")).filter(|program| program.exists()),
            Cli::Docker => paths::program("docker"),
        }
    }
}

impl Daemon {
    /// The command lines that are on this machine; one that is missing is reported as skipped.
    ///
    /// With [`CLI_VARIABLE`] set to `longshore`, ours alone.
    pub fn clis(&self) -> Vec<Cli> {
        if std::env::var_os(CLI_VARIABLE).is_some_and(|name| name == "longshore") {
            return vec![Cli::Longshore];
        }
        let (present, missing): (Vec<Cli>, Vec<Cli>) =
            Cli::ALL.iter().partition(|cli| cli.program(self.dist()).is_some());
        for cli in missing {
            skip::report(&format!("the command line {cli:?} is not on this machine"));
        }
        present
    }

    /// The command line, ready to be given arguments: its host and directories are the instance's.
    pub fn command(&self, cli: Cli) -> Result<Command> {
        let program = cli.program(self.dist()).with_context(|| format!("no command line {cli:?}"))?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOCKER_") {
                command.env_remove(name);
            }
        }
        let home = self.scratch().home();
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command.env("DOCKER_CONFIG", home.join(".docker")).env("HOME", home);
        Ok(command)
    }

    /// Runs the command line with these arguments and no input.
    pub fn cli(&self, cli: Cli, arguments: &[&str]) -> Result<Output> {
        self.cli_with_input(cli, arguments, b"")
    }

    /// Runs the command line with these arguments and this standard input.
    pub fn cli_with_input(&self, cli: Cli, arguments: &[&str], input: &[u8]) -> Result<Output> {
        process::run(self.command(cli)?.args(arguments), input)
    }
}
