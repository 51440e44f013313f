//! Where a build has failed, as people read it: the lines of the Dockerfile, why, and what may help.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::Wanted;
use crate::report::Exit;

/// How many names are compared with one that is not there.
const NAMES_MAX: usize = 10_000;

/// Where it has failed, as our daemon tells it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct FailedAt {
    /// The lines, as they are shown.
    excerpt: String,
    /// What may help.
    hint: String,
    /// The file that is not in the context.
    missing: String,
}

/// The exit of a build that has failed, with all that is known of it.
pub(super) fn explain(exit: Exit, told: Option<Value>, wanted: &Wanted) -> Exit {
    let Some(why) = exit.message else { return exit };
    // One that is told in another way is one of which nothing is known.
    let told: FailedAt = told.and_then(|told| serde_json::from_value(told).ok()).unwrap_or_default();
    let hint = match &wanted.directory {
        // The daemon has none of the other files there.
        Some(directory) if !told.missing.is_empty() => missing(directory, &told.missing),
        _ if !told.hint.is_empty() => Some(told.hint),
        // What a command ends with is what we end with.
        _ if exit.status > 1 && !wanted.opens_shell && io::stdin().is_terminal() && io::stdout().is_terminal() => {
            Some("--on-error=shell opens a shell in what the command leaves".to_owned())
        }
        _ => None,
    };
    let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    Exit::new(exit.status, format!("{}{why}{hint}", told.excerpt))
}

/// What may be meant by a file that the daemon did not find in a directory.
fn missing(directory: &Path, path: &str) -> Option<String> {
    let mut found = String::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        let slash = if found.is_empty() { "" } else { "/" };
        let inside = format!("{found}{slash}{part}");
        if fs::symlink_metadata(directory.join(&inside)).is_ok() {
            found = inside;
            continue;
        }
        let names = fs::read_dir(directory.join(&found)).ok()?.take(NAMES_MAX).filter_map(Result::ok);
        let names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let name = dockerfile::name_like(part, names.iter().map(String::as_str))?;
        return Some(format!("did you mean {:?}?", format!("{found}{slash}{name}")));
    }
    match fs::metadata(directory.join(&found)) {
        Err(_) => Some(format!("{found:?} is a link that leads to nothing in the context")),
        Ok(_) => Some(format!("{found:?} is there, but .dockerignore leaves it out, or it is a link that leads out")),
    }
}
