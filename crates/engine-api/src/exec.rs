//! Processes added to a running container.

use serde::{Deserialize, Serialize};

/// Body of `POST /containers/{id}/exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecCreate {
    /// `user[:group]`; empty for the container's.
    pub user: String,
    /// Whether it has all capabilities.
    pub privileged: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// The terminal's first size: height, width. Numbers above 65535 are no error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u64; 2]>,
    /// Whether its standard input is open.
    pub attach_stdin: bool,
    /// Whether its standard error is wanted.
    pub attach_stderr: bool,
    /// Whether its standard output is wanted.
    pub attach_stdout: bool,
    /// Whether the client means to let it run alone.
    pub detach: bool,
    /// The keys that detach, such as `ctrl-p,ctrl-q`.
    pub detach_keys: String,
    /// `NAME=VALUE`, on top of the container's.
    pub env: Option<Vec<String>>,
    /// Where it starts; empty for the container's.
    pub working_dir: String,
    /// The command.
    pub cmd: Option<Vec<String>>,
}

/// Body of `POST /exec/{id}/start`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecStart {
    /// Answer at once, without streams.
    pub detach: bool,
    /// Must equal what the exec was created with.
    pub tty: bool,
    /// The terminal's first size: height, width. Numbers above 65535 are no error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u64; 2]>,
}

/// Body of `GET /exec/{id}/json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecInspect {
    /// 64 hex digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// Whether it runs.
    #[serde(rename = "Running")]
    pub running: bool,
    /// Its exit code, once it has ended.
    #[serde(rename = "ExitCode")]
    pub exit_code: Option<i32>,
    /// What it runs.
    #[serde(rename = "ProcessConfig")]
    pub process_config: ExecProcessConfig,
    /// Whether its standard input is open.
    #[serde(rename = "OpenStdin")]
    pub open_stdin: bool,
    /// Whether its standard error is wanted.
    #[serde(rename = "OpenStderr")]
    pub open_stderr: bool,
    /// Whether its standard output is wanted.
    #[serde(rename = "OpenStdout")]
    pub open_stdout: bool,
    /// Whether the daemon may forget it.
    #[serde(rename = "CanRemove")]
    pub can_remove: bool,
    /// The container it runs in.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// The detach keys, base64 of the bytes.
    #[serde(rename = "DetachKeys")]
    pub detach_keys: String,
    /// Its process id on the host; 0 before the start.
    #[serde(rename = "Pid")]
    pub pid: i32,
}

/// What an exec runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecProcessConfig {
    /// Whether it has a terminal.
    pub tty: bool,
    /// The program.
    pub entrypoint: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether it has all capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    /// Who it runs as, if not the container's user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}
