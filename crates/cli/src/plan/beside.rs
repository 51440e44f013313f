//! What `build` says and writes of an image beside it: `--provenance`, `--sbom`, `--attest`, `--annotation`, as buildx reads
//! them (util/buildflags, attests.go and export.go; build/opt.go). The daemon says it, and brings the outputs that have it.

use std::collections::BTreeMap;

use client::build::BuildOutput;

use super::mount::fields;
use super::outputs::{Kind, Output};
use super::values::boolean;
use crate::args::Parsed;

/// The variable by which nothing is said of what is pushed unless that is asked for.
const NO_DEFAULT: &str = "BUILDX_NO_DEFAULT_ATTESTATIONS";

/// What is said of what is pushed where nothing is asked for, as with buildx.
const DEFAULT: &str = "mode=min,inline-only=true";

/// What is said and written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// By kind, and how it is said.
    pub attest: BTreeMap<String, String>,
    /// Whether somebody has asked for one of these.
    pub is_asked: bool,
    /// By attributes of outputs: `annotation-manifest[linux/amd64].NAME`.
    pub annotations: BTreeMap<String, String>,
}

/// An output of the daemon's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    /// What it is told.
    pub output: BuildOutput,
    /// Where we bring what it sends, if it does.
    pub to: Option<(Kind, String)>,
}

/// Why it cannot be. The sentences are buildx's where it has one; quotes are in them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BesideError {
    /// A field has no value, or none that it can have.
    #[error("invalid value {0}")]
    Field(String),
    /// It is no truth value.
    #[error("invalid value {field}: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    Disabled {
        /// All of it.
        field: String,
        /// What is none.
        value: String,
    },
    /// It is of no kind.
    #[error("attestation type not specified")]
    NoType,
    /// It is asked for twice.
    #[error("duplicate attestation field {0}")]
    Twice(String),
    /// The variable is no truth value.
    #[error("invalid {NO_DEFAULT}: strconv.ParseBool: parsing {0:?}: invalid syntax")]
    Variable(String),
    /// It has no value.
    #[error("invalid annotation {0:?}, expected key=value")]
    Annotation(String),
    /// It is of no form.
    #[error("invalid annotation type {0:?}, expected type and optional platform in square brackets")]
    AnnotationForm(String),
    /// Nothing is annotated so.
    #[error("unknown annotation type {0:?}")]
    AnnotationType(String),
    /// A platform is none.
    #[error("invalid platform {text:?}: {why}")]
    Platform {
        /// As it was given.
        text: String,
        /// Why.
        why: String,
    },
    /// An archive of Docker's has no place for it.
    #[error("docker exporter does not support exporting manifest lists, use the oci exporter instead")]
    DockerArchive,
    /// Nor has what is loaded.
    #[error("docker exporter does not currently support exporting manifest lists")]
    Load,
    /// Nothing that is wanted keeps it.
    #[error("no output keeps {0}: the daemon's store has images alone. Add {1}")]
    Unkept(&'static str, &'static str),
}

/// Reads the flags; `variable` reads the environment.
pub fn beside(parsed: &Parsed, variable: &dyn Fn(&str) -> Option<String>) -> Result<Beside, BesideError> {
    let (mut beside, mut all) = (Beside::default(), BTreeMap::new());
    let short = ["provenance", "sbom"].map(|kind| canonical(kind, parsed.text(kind)));
    for text in parsed.list("attest").iter().chain(short.iter().filter(|text| !text.is_empty())) {
        let (kind, how) = attest(text)?;
        if all.insert(kind.clone(), how).is_some() {
            return Err(BesideError::Twice(kind));
        }
    }
    let is_silent = match variable(NO_DEFAULT) {
        Some(value) => boolean(&value).map_err(|_| BesideError::Variable(value))?,
        None => false,
    };
    beside.is_asked = all.values().any(Option::is_some);
    if !is_silent && !all.contains_key("provenance") {
        all.insert("provenance".to_owned(), Some(DEFAULT.to_owned()));
    }
    beside.attest = all.into_iter().filter_map(|(kind, how)| Some((kind, how?))).collect();
    for text in parsed.list("annotation").iter().filter(|text| !text.is_empty()) {
        annotate(&mut beside.annotations, text)?;
    }
    Ok(beside)
}

impl Beside {
    /// The outputs that the daemon brings; none where what it says or writes goes nowhere, and nobody has asked for it. `tags`
    /// are those of the flag.
    pub fn brought(
        &self,
        outputs: &[Output],
        tags: &[String],
        (pushes, loads): (bool, bool),
    ) -> Result<Vec<Brought>, BesideError> {
        let mut outputs = outputs.to_vec();
        if pushes && !outputs.iter().any(Output::is_named_image) {
            outputs.push(Output::pushed());
        }
        outputs.iter_mut().filter(|output| pushes && output.is_named_image()).for_each(|output| output.push = true);
        let has = |is: fn(&Output) -> bool| outputs.iter().any(is);
        let (is_pushed, has_layout) = (has(|output| output.push), has(|output| output.kind == Kind::Oci));
        if self.is_asked {
            if has(|output| output.kind == Kind::Docker) {
                return Err(BesideError::DockerArchive);
            }
            if loads || has(|output| output.loads) {
                return Err(BesideError::Load);
            }
            if !is_pushed && !has_layout && !has(|output| matches!(output.kind, Kind::Directory | Kind::Files)) {
                let outputs = "--push, or an output of type oci, local or tar";
                return Err(BesideError::Unkept("attestations", outputs));
            }
        }
        let is_annotated = !self.annotations.is_empty();
        if is_annotated && !is_pushed && !has_layout && !has(|output| output.kind == Kind::Docker) {
            return Err(BesideError::Unkept("annotations", "--push, or an output of type oci or docker"));
        }
        match self.is_asked || is_annotated || (is_pushed && !self.attest.is_empty()) {
            true => Ok(outputs.iter().map(|output| self.told(output, tags)).collect()),
            false => Ok(Vec::new()),
        }
    }

    fn told(&self, output: &Output, tags: &[String]) -> Brought {
        let (kind, to) = match output.kind {
            Kind::Image => ("image", None),
            // Its files come in an archive, too: we unpack it.
            Kind::Directory | Kind::Files => ("tar", Some(output.destination.clone())),
            Kind::Oci => ("oci", Some(output.destination.clone())),
            Kind::Docker => ("docker", Some(output.destination.clone())),
        };
        let mut attrs = self.annotations.clone();
        let names = if tags.is_empty() { output.name.clone() } else { tags.join(",") };
        if kind != "tar" && !names.is_empty() {
            attrs.insert("name".to_owned(), names);
        }
        if output.push {
            attrs.insert("push".to_owned(), "true".to_owned());
        }
        let output_kind = output.kind;
        Brought { output: BuildOutput { kind: kind.to_owned(), attrs }, to: to.map(|to| (output_kind, to)) }
    }
}

/// What a flag of one kind says, as `--attest` would.
fn canonical(kind: &str, text: &str) -> String {
    match (text, boolean(text)) {
        ("", _) => String::new(),
        (_, Ok(is_wanted)) => format!("type={kind},disabled={}", !is_wanted),
        (text, Err(_)) => format!("type={kind},{text}"),
    }
}

/// What is asked for, and how; `None` where it is asked not to be said.
fn attest(text: &str) -> Result<(String, Option<String>), BesideError> {
    let (mut kind, mut is_disabled, mut more) = (String::new(), false, BTreeMap::new());
    for field in fields(text) {
        let (name, value) = field.split_once('=').ok_or_else(|| BesideError::Field(field.clone()))?;
        match name.to_lowercase().trim() {
            "type" => value.clone_into(&mut kind),
            "disabled" => {
                let wrong = |_| BesideError::Disabled { field: field.clone(), value: value.to_owned() };
                is_disabled = boolean(value).map_err(wrong)?;
            }
            _ => drop(more.insert(name.to_owned(), value.to_owned())),
        }
    }
    if kind.is_empty() {
        return Err(BesideError::NoType);
    }
    let quoted = |(name, value): (&String, &String)| match name.contains(',') || value.contains(',') {
        true => format!(",\"{name}={value}\""),
        false => format!(",{name}={value}"),
    };
    let how = format!("type={kind}{}", more.iter().map(quoted).collect::<String>());
    Ok((kind, (!is_disabled).then_some(how)))
}

/// `index,manifest[linux/amd64]:NAME=VALUE`; without a kind it is the manifest's.
fn annotate(all: &mut BTreeMap<String, String>, text: &str) -> Result<(), BesideError> {
    let (key, value) = text.split_once('=').ok_or_else(|| BesideError::Annotation(text.to_owned()))?;
    let Some((kinds, key)) = key.split_once(':') else {
        all.insert(format!("annotation.{key}"), value.to_owned());
        return Ok(());
    };
    for part in kinds.split(',') {
        let form = || BesideError::AnnotationForm(part.to_owned());
        let (kind, platform) = match part.split_once('[') {
            Some((kind, rest)) => (kind, rest.strip_suffix(']').filter(|rest| !rest.is_empty()).ok_or_else(form)?),
            None => (part, ""),
        };
        let is_kind = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
        let is_platform = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'-');
        if kind.is_empty() || !kind.bytes().all(is_kind) || !platform.bytes().all(is_platform) {
            return Err(form());
        }
        if !matches!(kind, "index" | "index-descriptor" | "manifest" | "manifest-descriptor") {
            return Err(BesideError::AnnotationType(kind.to_owned()));
        }
        let platform = match platform {
            "" => String::new(),
            text => {
                let wrong = |why: String| BesideError::Platform { text: text.to_owned(), why };
                format!("[{}]", engine_api::platform::parse(text).map_err(|err| wrong(err.to_string()))?)
            }
        };
        all.insert(format!("annotation-{kind}{platform}.{key}"), value.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, tables};
    use crate::plan::outputs;

    type Told = Vec<(String, Vec<String>)>;

    /// What is said, and what outputs are told.
    fn of(words: &str) -> Result<(Vec<String>, Told), String> {
        let command = tables::find("build").unwrap();
        let flag = |long: &str| command.all_flags().find(|flag| flag.long == long);
        let letter = |letter: char| command.all_flags().find(|flag| flag.short == Some(letter));
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let parsed = args::parse(&flag, &letter, true, &words).unwrap();
        let wanted = beside(&parsed, &|_| None).map_err(|err| err.to_string())?;
        let outputs = outputs::parse(parsed.list("output")).unwrap();
        let flags = (parsed.flag("push"), parsed.flag("load"));
        let brought = wanted.brought(&outputs, parsed.list("tag"), flags).map_err(|err| err.to_string())?;
        let pairs =
            |all: &BTreeMap<String, String>| all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let told = brought.iter().map(|one| (one.output.kind.clone(), pairs(&one.output.attrs))).collect();
        Ok((pairs(&wanted.attest), told))
    }

    fn told(said: &[&str], outputs: &[(&str, &[&str])]) -> Result<(Vec<String>, Told), String> {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Ok((texts(said), outputs.iter().map(|(kind, attrs)| ((*kind).to_owned(), texts(attrs))).collect()))
    }

    #[test]
    fn what_is_said_goes_to_outputs_that_keep_it() {
        const LITTLE: &str = "provenance=mode=min,inline-only=true";
        for (words, said, outputs) in [
            (".", &[LITTLE][..], &[][..]),
            ("-t a -o type=oci,dest=f .", &[LITTLE], &[]),
            ("-t a -t b --push .", &[LITTLE], &[("image", &["name=a,b", "push=true"][..])]),
            ("-t a --push --provenance=false .", &[], &[]),
            (
                "--sbom=generator=g,A=b --provenance=0 -o type=oci,dest=f -o d .",
                &["sbom=type=sbom,A=b,generator=g"],
                &[("oci", &[]), ("tar", &[])],
            ),
            (
                "--attest type=provenance,\"x=a,b\",mode=max -o type=tar,dest=f .",
                &["provenance=type=provenance,mode=max,\"x=a,b\""],
                &[("tar", &[])],
            ),
            (
                "--annotation a=b=c --annotation index,manifest[linux/arm64]:d.e=f --provenance=false -o type=docker,dest=f .",
                &[],
                &[(
                    "docker",
                    &["annotation-index.d.e=f", "annotation-manifest[linux/arm64].d.e=f", "annotation.a=b=c"],
                )],
            ),
        ] {
            assert_eq!(of(words), told(said, outputs), "{words}");
        }
        let keeps = "no output keeps attestations: the daemon's store has images alone. Add --push, or an output of type \
                     oci, local or tar";
        for (words, why) in [
            ("--sbom=true .", keeps),
            ("--sbom=true -o type=image,name=a .", keeps),
            ("--sbom=true --load .", "docker exporter does not currently support exporting manifest lists"),
            ("--sbom=true -o type=docker .", "docker exporter does not currently support exporting manifest lists"),
            ("--attest type=sbom --sbom=false .", "duplicate attestation field sbom"),
            ("--attest mode=max .", "attestation type not specified"),
            ("--attest type=sbom,x .", "invalid value x"),
            (
                "--attest type=sbom,disabled=x .",
                "invalid value disabled=x: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
            ("--annotation a .", "invalid annotation \"a\", expected key=value"),
            ("--annotation other:a=b .", "unknown annotation type \"other\""),
            (
                "--annotation manifest[linux!]:a=b .",
                "invalid annotation type \"manifest[linux!]\", expected type and optional platform in square brackets",
            ),
        ] {
            assert_eq!(of(words), Err(why.to_owned()), "{words}");
        }
    }
}
