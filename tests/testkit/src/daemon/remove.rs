//! Removing what a test left in a daemon.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http;

/// Removes every container.
pub(super) fn all_containers(socket: &Path) -> Result<()> {
    containers(socket, |_| true)
}

/// Removes the containers whose names end with `mark`.
pub(super) fn marked_containers(socket: &Path, mark: &str) -> Result<()> {
    containers(socket, |container| {
        let names = container["Names"].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).any(|name| name.ends_with(mark))
    })
}

fn containers(socket: &Path, chosen: impl Fn(&Value) -> bool) -> Result<()> {
    let listed = http::request(socket, "GET", "/containers/json?all=1", None)?.json()?;
    for container in listed.as_array().context("a list of containers")?.iter().filter(|one| chosen(one)) {
        let id = container["Id"].as_str().context("a container with an id")?;
        let answer = http::request(socket, "DELETE", &format!("/containers/{id}?force=1&v=1"), None)?;
        // 404 and 409: it was already on its way out (--rm).
        ensure!(matches!(answer.status, 204 | 404 | 409), "remove {id}: {}", answer.message());
    }
    Ok(())
}
