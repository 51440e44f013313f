//! `--security-opt`.

use std::io;

use super::Surroundings;

/// Why a security option cannot be taken. The texts are docker's.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// Not `name=value`.
    #[error("Invalid --security-opt: {0:?}")]
    Format(String),
    /// The profile cannot be read.
    #[error("opening seccomp profile ({path}) failed: open {path}: {}", crate::report::go_error(source))]
    Open {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The profile is no JSON.
    #[error("compacting json for seccomp profile ({path}) failed: {}", crate::report::plain(source))]
    Json {
        /// The file.
        path: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
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
    let text = (surroundings.read)(path).map_err(|source| SecurityError::Open { path: path.to_owned(), source })?;
    let json = serde_json::from_str::<serde_json::Value>(&text);
    let json = json.map_err(|source| SecurityError::Json { path: path.to_owned(), source })?;
    Ok(json.to_string())
}
