//! Flags that `build` has from buildx: what they come to, and what is refused.

use std::collections::BTreeMap;

use super::outputs::Output;
use crate::args::Parsed;

/// How it is shown what a build does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Lines; on a terminal parts of them are drawn again in place.
    #[default]
    Auto,
    /// Lines alone.
    Plain,
    /// As `Auto`, on a terminal alone.
    Tty,
    /// For programs, as BuildKit's clients write it.
    RawJson,
    /// Not at all.
    Quiet,
}

/// What is wanted of a build beside what the API calls so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// How it is shown.
    pub progress: Progress,
    /// Whether its names are pushed.
    pub push: bool,
    /// Whether commands that ask for the host's network get it.
    pub allows_host_network: bool,
}

/// Why a flag is refused. The sentences are buildx's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// It is shown in no such way.
    #[error("invalid progress mode {0}")]
    Progress(String),
    /// A builder that is not there.
    #[error("no builder {0:?} found: there is that of the daemon alone, \"default\"")]
    Builder(String),
    /// Something that nobody knows can be allowed.
    #[error("unknown entitlement {0}")]
    Entitlement(String),
    /// Something that no build is allowed.
    #[error("--allow {0} is not supported yet: no build gets it")]
    Refused(String),
    /// There is nothing to push.
    #[error("tag is needed when pushing to registry")]
    NothingToPush,
}

/// What flags come to; `variable` reads the environment.
pub fn wishes(
    parsed: &Parsed,
    outputs: &[Output],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Wishes, WishError> {
    if !matches!(parsed.text("builder"), "" | "default") {
        return Err(WishError::Builder(parsed.text("builder").to_owned()));
    }
    let push = parsed.flag("push") || outputs.iter().any(|output| output.push);
    if push && names(parsed.list("tag"), outputs).is_empty() {
        return Err(WishError::NothingToPush);
    }
    Ok(Wishes { progress: progress(parsed, variable)?, push, allows_host_network: allows_host_network(parsed)? })
}

/// The names of what is built: those of `--tag`, else those of outputs, as with buildx.
pub fn names(tags: &[String], outputs: &[Output]) -> Vec<String> {
    match tags {
        [] => {
            let names = outputs.iter().flat_map(|output| output.name.split(','));
            names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
        }
        tags => tags.to_vec(),
    }
}

/// What is written down of a build: as buildx does, but for where it comes from.
pub fn metadata(image: &str, pushed: Option<&str>, names: &[String]) -> String {
    let full =
        |name: &String| name.parse::<oci::Reference>().map_or(name.clone(), |name| name.with_default_tag().to_string());
    let mut fields = BTreeMap::from([
        ("containerimage.config.digest", image.to_owned()),
        ("containerimage.digest", pushed.unwrap_or(image).to_owned()),
    ]);
    if !names.is_empty() {
        fields.insert("image.name", names.iter().map(full).collect::<Vec<_>>().join(","));
    }
    serde_json::to_string_pretty(&fields).expect("texts are always JSON")
}

fn progress(parsed: &Parsed, variable: &dyn Fn(&str) -> Option<String>) -> Result<Progress, WishError> {
    let given = match parsed.text("progress") {
        "" | "auto" => variable("BUILDKIT_PROGRESS").unwrap_or_default(),
        given => given.to_owned(),
    };
    match given.as_str() {
        "" | "auto" => Ok(Progress::Auto),
        "plain" => Ok(Progress::Plain),
        "tty" => Ok(Progress::Tty),
        "quiet" => Ok(Progress::Quiet),
        "rawjson" => Ok(Progress::RawJson),
        other => Err(WishError::Progress(other.to_owned())),
    }
}

fn allows_host_network(parsed: &Parsed) -> Result<bool, WishError> {
    let mut allows = false;
    for name in parsed.list("allow") {
        // `device=...` is one of them, with a value.
        match name.split('=').next().unwrap_or_default() {
            "network.host" => allows = true,
            "security.insecure" | "device" => return Err(WishError::Refused(name.clone())),
            _ => return Err(WishError::Entitlement(name.clone())),
        }
    }
    Ok(allows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, tables};
    use crate::plan::outputs;

    fn of(words: &str) -> Result<Wishes, String> {
        let command = tables::find("build").unwrap();
        let flag = |long: &str| command.all_flags().find(|flag| flag.long == long);
        let letter = |letter: char| command.all_flags().find(|flag| flag.short == Some(letter));
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let parsed = args::parse(&flag, &letter, true, &words).unwrap();
        let outputs = outputs::parse(parsed.list("output")).unwrap();
        let variable = |_: &str| Some("plain".to_owned());
        wishes(&parsed, &outputs, &variable).map_err(|err| err.to_string())
    }

    #[test]
    fn flags_of_buildx_do_something_or_are_refused() {
        let plain = Wishes { progress: Progress::Plain, ..Wishes::default() };
        for words in [
            "--load .",
            "--builder default --sbom=false --provenance=false .",
            "--attest type=sbom,disabled=true --provenance mode=max,disabled=true .",
            "--progress=auto .",
        ] {
            assert_eq!(of(words), Ok(plain.clone()), "{words}");
        }
        assert_eq!(of("--progress quiet ."), Ok(Wishes { progress: Progress::Quiet, ..plain.clone() }));
        assert_eq!(of("--progress rawjson ."), Ok(Wishes { progress: Progress::RawJson, ..plain.clone() }));
        assert_eq!(of("--allow network.host ."), Ok(Wishes { allows_host_network: true, ..plain.clone() }));
        let pushed = Ok(Wishes { push: true, ..plain });
        for words in [
            "--push -t a .",
            "-t a -o type=registry .",
            "-o type=image,name=a,push=true .",
            "-o type=registry,name=a .",
        ] {
            assert_eq!(of(words), pushed, "{words}");
        }
        for (words, wanted) in [
            ("--push .", "tag is needed when pushing to registry"),
            ("--progress x .", "invalid progress mode x"),
            ("--builder x .", "no builder \"x\" found: there is that of the daemon alone, \"default\""),
            ("--allow x .", "unknown entitlement x"),
            ("--allow security.insecure .", "--allow security.insecure is not supported yet: no build gets it"),
        ] {
            assert_eq!(of(words), Err(wanted.to_owned()), "{words}");
        }
    }

    #[test]
    fn what_was_built_is_written_down() {
        let names = ["a".to_owned(), "b.c/d:e".to_owned()];
        let wanted = "{\n  \"containerimage.config.digest\": \"sha256:1\",\n  \"containerimage.digest\": \"sha256:2\",\n  \
                      \"image.name\": \"docker.io/library/a:latest,b.c/d:e\"\n}";
        assert_eq!(metadata("sha256:1", Some("sha256:2"), &names), wanted);
        assert!(metadata("sha256:1", None, &[]).ends_with("\"containerimage.digest\": \"sha256:1\"\n}"));
    }
}
