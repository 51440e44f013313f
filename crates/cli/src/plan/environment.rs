//! `-e`, `--env-file`, `--label`, `--label-file`.

use std::collections::BTreeMap;
use std::io;

use super::Surroundings;

/// Why a file of variables or labels cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("open {path}: {}", crate::report::go_error(source))]
    Open {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It was opened and cannot be read: a directory.
    #[error("invalid env file ({path}): read {path}: {}", crate::report::go_error(source))]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A line is no text.
    #[error("invalid env file ({path}): invalid utf8 bytes at line {number}: [{}]", numbers(bytes))]
    Encoding {
        /// The file.
        path: String,
        /// From 1.
        number: usize,
        /// The line.
        bytes: Vec<u8>,
    },
    /// A line is longer than Docker reads.
    #[error("invalid env file ({path}): bufio.Scanner: token too long")]
    LongLine {
        /// The file.
        path: String,
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

/// The length from which on a line is refused: Go's `bufio.MaxScanTokenSize`, the end of the line included.
const LINE_LIMIT: usize = 64 << 10;

/// Bytes as Go prints them.
fn numbers(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
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

/// The labels of files, then those of the command line; a bare name in a file is no label.
pub fn labels(
    files: &[String],
    given: &[String],
    surroundings: &Surroundings<'_>,
) -> Result<BTreeMap<String, String>, FileError> {
    let mut all = Vec::new();
    for path in files {
        all.extend(lines(path, surroundings)?.into_iter().filter(|line| line.contains('=')));
    }
    all.extend_from_slice(given);
    Ok(all.iter().map(|text| pair(text)).collect())
}

/// The label and the network's option that an egress policy goes by.
pub const EGRESS: &str = "longshore.egress";

/// The values of `--egress` as one policy; nothing where none is given.
pub fn egress(given: &[String]) -> Option<(String, String)> {
    (!given.is_empty()).then(|| (EGRESS.to_owned(), given.join(",")))
}

/// `name=value`; without `=` the value is empty.
pub fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

fn lines(path: &str, surroundings: &Surroundings<'_>) -> Result<Vec<String>, FileError> {
    let bytes = (surroundings.read)(path).map_err(|source| match source.kind() {
        io::ErrorKind::IsADirectory => FileError::Read { path: path.to_owned(), source },
        _ => FileError::Open { path: path.to_owned(), source },
    })?;
    let mut lines = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.len() >= LINE_LIMIT {
            return Err(FileError::LongLine { path: path.to_owned() });
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let encoding = |_| FileError::Encoding { path: path.to_owned(), number: index + 1, bytes: line.to_owned() };
        let line = str::from_utf8(line).map_err(encoding)?;
        let line = if index == 0 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or("");
        if name.is_empty() {
            return Err(FileError::Nameless { path: path.to_owned(), line: line.to_owned() });
        }
        if name.contains([' ', '\t']) {
            return Err(FileError::Blank { path: path.to_owned(), name: name.to_owned() });
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}
