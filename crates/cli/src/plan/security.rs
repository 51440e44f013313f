//! `--security-opt`.

use std::io;

use engine_api::json::{self, CompactError};

use super::Surroundings;

/// Why a security option cannot be taken. The texts are docker's.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// Not `name=value`.
    #[error("Invalid --security-opt: {0:?}")]
    Format(String),
    /// The profile cannot be opened.
    #[error("opening seccomp profile ({path}) failed: open {path}: {}", crate::report::go_error(source))]
    Open {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The profile was opened and cannot be read: a directory.
    #[error("opening seccomp profile ({path}) failed: read {path}: {}", crate::report::go_error(source))]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The profile is no JSON.
    #[error("compacting json for seccomp profile ({path}) failed: {source}")]
    Json {
        /// The file.
        path: String,
        /// What is wrong.
        #[source]
        source: CompactError,
    },
}

/// What the daemon gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// Its options; a seccomp profile is its text.
    pub options: Vec<String>,
    /// `systempaths=unconfined` was given: nothing is masked, nothing is read-only.
    pub paths_unconfined: bool,
}

/// Reads the options and the profile they name.
pub fn parse(given: &[String], surroundings: &Surroundings<'_>) -> Result<Security, SecurityError> {
    let mut security = Security::default();
    for option in given {
        if option == "systempaths=unconfined" {
            security.paths_unconfined = true;
            continue;
        }
        let pair = option.split_once('=').or_else(|| option.split_once(':'));
        match pair {
            _ if option == "no-new-privileges" => security.options.push(option.clone()),
            Some(("no-new-privileges", _)) => security.options.push(option.clone()),
            None | Some((_, "")) => return Err(SecurityError::Format(option.clone())),
            Some(("seccomp", path)) if path != "unconfined" && path != "builtin" => {
                security.options.push(format!("seccomp={}", profile(path, surroundings)?));
            }
            Some(_) => security.options.push(option.clone()),
        }
    }
    Ok(security)
}

fn profile(path: &str, surroundings: &Surroundings<'_>) -> Result<String, SecurityError> {
    let text = (surroundings.read)(path).map_err(|source| match source.kind() {
        io::ErrorKind::IsADirectory => SecurityError::Read { path: path.to_owned(), source },
        _ => SecurityError::Open { path: path.to_owned(), source },
    })?;
    let json = json::compact(&text).map_err(|source| SecurityError::Json { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&json).into_owned())
}
