//! `# check=skip=A,B;error=true;experimental=C`: which checks count, and what follows (linter.go, ParseLintOptions).

use std::collections::BTreeSet;

use crate::rules::Rule;

/// Some checks by name, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    All,
    These(BTreeSet<String>),
}

impl Default for Names {
    fn default() -> Names {
        Names::These(BTreeSet::new())
    }
}

impl Names {
    fn parse(text: &str) -> Names {
        match text.trim() {
            "all" => Names::All,
            names => Names::These(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    fn have(&self, rule: &Rule) -> bool {
        match self {
            Names::All => true,
            Names::These(names) => names.contains(rule.name),
        }
    }
}

/// Which checks count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    skip: Names,
    experimental: Names,
    /// Whether a build fails that has a warning.
    pub is_error: bool,
}

/// Why a text is none. The sentences are BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// It is unknown, or has no value.
    #[error("invalid check option {0:?}")]
    Unknown(String),
    /// It is neither on nor off.
    #[error("failed to parse check option {part:?}: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    Switch {
        /// All of it.
        part: String,
        /// What is behind the `=`.
        value: String,
    },
}

impl CheckOptions {
    /// Reads the value of the directive, or of `BUILDKIT_DOCKERFILE_CHECK`.
    pub fn parse(text: &str) -> Result<CheckOptions, OptionError> {
        let (mut options, text) = (CheckOptions::default(), text.trim());
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            let (name, value) = part.split_once('=').ok_or_else(|| OptionError::Unknown(part.to_owned()))?;
            match name.trim() {
                "skip" => options.skip = Names::parse(value),
                "experimental" => options.experimental = Names::parse(value),
                "error" => options.is_error = switch(part, value.trim())?,
                other => return Err(OptionError::Unknown(other.to_owned())),
            }
        }
        Ok(options)
    }

    /// Whether a check counts.
    pub(crate) fn takes(&self, rule: &Rule) -> bool {
        match rule.is_experimental {
            true => self.experimental.have(rule),
            false => !self.skip.have(rule),
        }
    }
}

/// Go's `strconv.ParseBool`.
fn switch(part: &str, value: &str) -> Result<bool, OptionError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(OptionError::Switch { part: part.to_owned(), value: value.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{COPY_IGNORED_FILE, STAGE_NAME_CASING, UNDEFINED_VAR};

    #[test]
    fn options_say_which_checks_count() {
        for (text, taken, is_error) in [
            ("", [true, true, false], false),
            (" skip = StageNameCasing , Other ", [false, true, false], false),
            ("skip=all", [false, false, false], false),
            ("error=true;experimental=CopyIgnoredFile", [true, true, true], true),
            ("experimental=all;skip=UndefinedVar;error=0", [true, false, true], false),
            // A name of both kinds is what it is.
            ("skip=CopyIgnoredFile", [true, true, false], false),
        ] {
            let options = CheckOptions::parse(text).unwrap();
            let found = [&STAGE_NAME_CASING, &UNDEFINED_VAR, &COPY_IGNORED_FILE].map(|rule| options.takes(rule));
            assert_eq!((found, options.is_error), (taken, is_error), "{text}");
        }
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for (text, why) in [
            ("skip", "invalid check option \"skip\""),
            ("skip=a; other =b", "invalid check option \"other\""),
            ("skip=a;", "invalid check option \"\""),
            (
                "error=maybe",
                "failed to parse check option \"error=maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(CheckOptions::parse(text).unwrap_err().to_string(), why, "{text}");
        }
    }
}
