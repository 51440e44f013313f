//! `-e`, `--env-file`, `--label`, `--label-file`.

use std::collections::BTreeMap;
use std::io;

use super::Surroundings;

/// Why a file of variables or labels cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("open {path}: {}", crate::report::go_error(source))]
    Open {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A name with a blank in it.
    #[error("invalid env file ({path}): variable '{name}' contains whitespaces")]
    Blank {
        /// The file.
        path: String,
        /// The name.
        name: String,
    },
    /// A value without a name.
    #[error("invalid env file ({path}): no variable name on line '{line}'")]
    Nameless {
        /// The file.
        path: String,
        /// The line.
        line: String,
    },
}

/// The variables of files, then those of the command line; a bare name takes its value from the caller, or is left out.
pub fn variables(
    files: &[String],
    given: &[String],
    surroundings: &Surroundings<'_>,
) -> Result<Vec<String>, FileError> {
    let mut variables = Vec::new();
    for path in files {
        for line in lines(path, surroundings)? {
            variables.extend(with_value(&line, surroundings));
        }
    }
    for text in given {
        match with_value(text, surroundings) {
            Some(variable) => variables.push(variable),
            // A bare name that the caller does not have asks the daemon to remove the image's variable.
            None => variables.push(text.clone()),
        }
    }
    Ok(variables)
}

fn with_value(text: &str, surroundings: &Surroundings<'_>) -> Option<String> {
    if text.contains('=') {
        return Some(text.to_owned());
    }
    (surroundings.variable)(text).map(|value| format!("{text}={value}"))
}

/// The labels of files, then those of the command line.
pub fn labels(
    files: &[String],
    given: &[String],
    surroundings: &Surroundings<'_>,
) -> Result<BTreeMap<String, String>, FileError> {
    let mut all = Vec::new();
    for path in files {
        all.extend(lines(path, surroundings)?);
    }
    all.extend_from_slice(given);
    Ok(all.iter().map(|text| pair(text)).collect())
}

/// `name=value`; without `=` the value is empty.
pub fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

fn lines(path: &str, surroundings: &Surroundings<'_>) -> Result<Vec<String>, FileError> {
    let text = (surroundings.read)(path).map_err(|source| FileError::Open { path: path.to_owned(), source })?;
    let mut lines = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or("").trim_start();
        if name.is_empty() {
            return Err(FileError::Nameless { path: path.to_owned(), line: line.to_owned() });
        }
        if name.contains(char::is_whitespace) {
            return Err(FileError::Blank { path: path.to_owned(), name: name.to_owned() });
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}
