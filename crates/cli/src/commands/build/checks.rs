//! What checks of a Dockerfile find, and what else can be asked of it. The words are buildx's (commands/build.go).

use std::fs;
use std::path::Path;

use client::build::{self, BuildOptions};
use client::{ClientError, image, system};
use dockerfile::Patterns;
use dockerfile_checks::{Answer, BaseImage, Checking, Findings, Images, Request, WantedImage, answer};
use engine_api::auth::AuthConfig;
use oci::Reference;
use serde::Deserialize;

use super::super::progress::{self, Target};
use super::super::{Context, load, pull};
use crate::args::Parsed;
use crate::context_tar::{self, Source};
use crate::report::{Exit, client_error, go_error};
use crate::{say, say_line, warn_line};

/// A Dockerfile that can be looked at here.
pub(super) struct Subject {
    /// What it is called where its lines are shown.
    name: String,
    /// What it is called where it is read, which programs are told.
    inside: String,
    text: String,
    ignore: Patterns,
    /// Which checks count, instead of what it says itself.
    check: Option<String>,
}

/// What is asked.
pub(super) struct Call {
    what: Option<dockerfile_checks::Question>,
    name: String,
    json: bool,
    ignores_status: bool,
}

impl Call {
    /// `--call` and `--check`; nothing for a build.
    pub(super) fn parse(parsed: &Parsed) -> Result<Option<Call>, Exit> {
        Call::of(if parsed.flag("check") { "check" } else { parsed.text("call") })
    }

    fn of(text: &str) -> Result<Option<Call>, Exit> {
        let mut call = Call { what: None, name: String::new(), json: false, ignores_status: false };
        for field in text.split(',').filter(|field| !field.is_empty()) {
            match field.split_once('=') {
                Some(("format", value)) => call.json = value == "json",
                Some(("ignorestatus", "true" | "1")) => call.ignores_status = true,
                Some(("ignorestatus", "false" | "0")) => call.ignores_status = false,
                Some(("ignorestatus", value)) => {
                    return Err(Exit::new(1, format!("invalid ignorestatus print value: {value}")));
                }
                Some(_) => return Err(Exit::new(1, format!("invalid print field: {field}"))),
                None if !call.name.is_empty() => return Err(Exit::new(1, format!("invalid print value: {text}"))),
                None => call.name = field.to_owned(),
            }
        }
        match call.name.as_str() {
            "" | "build" => return Ok(None),
            "check" => "lint".clone_into(&mut call.name),
            _ => {}
        }
        let what = dockerfile_checks::Question::parse(&format!("frontend.{}", call.name));
        call.what = Some(what.map_err(|err| Exit::error(&err))?);
        Ok(Some(call))
    }
}

impl Subject {
    /// What is built from, unless it is an archive that nobody has looked into.
    pub(super) fn of(source: &Source, shown: String, check: Option<String>) -> Result<Option<Subject>, Exit> {
        let (text, ignore) = match source {
            Source::Input(_) | Source::Remote(_) => return Ok(None),
            Source::Dockerfile { text, .. } => (text.clone(), Patterns::default()),
            Source::Directory { directory, name, text } => {
                let ignore = context_tar::ignored(directory, name, text.is_none()).map_err(|err| Exit::error(&err))?;
                let text = match text {
                    Some(text) => text.clone(),
                    None => {
                        let wrong = |err| Exit::new(1, format!("unable to open Dockerfile: {}", go_error(&err)));
                        fs::read(directory.join(name)).map_err(wrong)?
                    }
                };
                (text, ignore)
            }
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        let inside = Path::new(&shown).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(Subject { name: shown, inside, text, ignore, check }))
    }

    /// What the daemon finds in an archive, or at an address. Nothing is left out of what comes so, as with BuildKit.
    pub(super) async fn fetched(
        context: &Context,
        source: Source,
        options: &BuildOptions,
        (name, check): (String, Option<String>),
    ) -> Result<Subject, Exit> {
        let archive = source.open().map_err(|err| Exit::error(&err))?;
        let looked = build::dockerfile(&context.client, load::upload(archive), options).await;
        let looked = looked.map_err(|err| match err {
            ClientError::NotOurs => {
                Exit::new(1, "the daemon cannot be asked for a Dockerfile: docker buildx build can")
            }
            err => Exit::from(err),
        })?;
        let inside = if options.dockerfile.is_empty() { "Dockerfile".to_owned() } else { options.dockerfile.clone() };
        Ok(Subject { name, inside, text: looked.text, ignore: Patterns::default(), check })
    }

    /// Looks at what the text shows.
    pub(super) async fn begin(
        &self,
        context: &Context,
        options: &BuildOptions,
        all_stages: bool,
    ) -> Result<Checking, Exit> {
        let version = system::version(&context.client).await?;
        let build_platform = [version.os, version.arch, String::new()];
        let target_platform = match options.platform.split('/').collect::<Vec<_>>()[..] {
            [os, architecture] => [os, architecture, ""].map(str::to_owned),
            [os, architecture, variant] => [os, architecture, variant].map(str::to_owned),
            _ => build_platform.clone(),
        };
        let given = options.arguments.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        Ok(Checking::begin(Request {
            text: self.text.clone(),
            arguments: given.collect(),
            check: self.check.clone(),
            target: options.target.clone(),
            build_platform,
            target_platform,
            ignore: self.ignore.clone(),
            all_stages,
        }))
    }
}

/// Looks at the rest, with what the images say that are here; `pulls` is whether the others come.
pub(super) async fn finish(context: &Context, options: &BuildOptions, checking: Checking, pulls: bool) -> Findings {
    let mut images = Images::new();
    for wanted in checking.images() {
        let found = match inspect(context, &wanted.name).await {
            Err(_) if pulls => bring(context, options, &wanted).await,
            found => found,
        };
        // Of one that is not here nothing is known; why it is not the build says.
        if pulls || found.is_ok() {
            images.insert(wanted, found);
        }
    }
    checking.finish(&images)
}

/// How it is shown what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Not at all.
    Not,
    /// In lines, and with all that is known of each.
    Lines {
        /// Whether all of it is.
        debug: bool,
    },
    /// For programs.
    Raw,
}

/// Prints what was found at the end of a build.
pub(super) fn warn(context: &Context, subject: &Subject, findings: &Findings, shown: Shown) {
    let count = findings.warnings.len();
    let debug = match shown {
        Shown::Lines { debug } if count > 0 => debug,
        Shown::Raw => {
            warn_line!("{}", progress::raw::warnings((&subject.inside, &subject.text), findings).trim_end());
            return;
        }
        _ => return,
    };
    let plural = if count == 1 { "warning" } else { "warnings" };
    let hint = if debug { String::new() } else { format!(" (use {} --debug to expand)", context.program) };
    warn_line!("\n {count} {plural} found{hint}:");
    for warning in &findings.warnings {
        warn_line!(" - {}", warning.short());
        if debug {
            warn_line!("{}", warning.rule.description);
            if !warning.rule.url.is_empty() {
                warn_line!("More info: {}", warning.rule.url);
            }
            warn_line!("{}", dockerfile_checks::source(&subject.name, &subject.text, warning.lines));
        }
    }
}

/// Answers what is asked.
pub(super) async fn answer(
    context: &Context,
    options: &BuildOptions,
    subject: &Subject,
    call: &Call,
) -> Result<(), Exit> {
    use dockerfile_checks::Question as What;
    let Some(what) = call.what else { return Ok(()) };
    let answer = match what {
        What::Describe => answer::describe(),
        What::Targets => {
            let dockerfile = dockerfile::parse(&subject.text).map_err(|err| Exit::error(&err))?;
            answer::targets(&subject.text, &dockerfile.stages)
        }
        What::Lint | What::Outline => {
            let all_stages = what == What::Lint && options.target.is_empty();
            let checking = subject.begin(context, options, all_stages).await?;
            let findings = finish(context, options, checking, true).await;
            if what == What::Lint {
                return lint(subject, &findings, call);
            }
            let why = findings.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
            answer::outline(&findings).ok_or_else(|| Exit::new(1, why))?
        }
    };
    print(&answer, call);
    Ok(())
}

fn print(answer: &Answer, call: &Call) {
    match call.json {
        true => say_line!("{}", answer.json),
        false => say!("{}", answer.text),
    }
}

fn lint(subject: &Subject, findings: &Findings, call: &Call) -> Result<(), Exit> {
    let name = if call.json { &subject.inside } else { &subject.name };
    let answer = answer::lint(name, &subject.text, findings);
    let count = findings.warnings.len();
    match (call.json, count) {
        (true, _) | (false, 0) => {}
        (false, 1) => say_line!("Check complete, 1 warning has been found!"),
        (false, _) => say_line!("Check complete, {count} warnings have been found!"),
    }
    print(&answer, call);
    if let Some(failure) = &findings.failure {
        if !call.json && count > 0 {
            say_line!("");
        }
        let why = dockerfile_checks::print_errors(&subject.name, &subject.text, failure);
        return Err(Exit::new(1, why.trim_end()));
    }
    if !call.json && count == 0 {
        say_line!("Check complete, no warnings found.");
    }
    match answer.code {
        Some(code) if code != 0 && !call.ignores_status => Err(Exit::silent(code)),
        _ => Ok(()),
    }
}

/// What of an image counts (moby api/types/image, `InspectResponse`).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Inspected {
    architecture: String,
    os: String,
    variant: String,
    config: Option<Config>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    env: Option<Vec<String>>,
    shell: Option<Vec<String>>,
    on_build: Option<Vec<String>>,
}

/// What an image says that is here.
async fn inspect(context: &Context, name: &str) -> Result<BaseImage, String> {
    let document = image::inspect_raw(&context.client, name, "").await.map_err(|err| client_error(&err))?;
    let inspected: Inspected = serde_json::from_slice(&document).map_err(|err| err.to_string())?;
    let config = inspected.config.unwrap_or_default();
    Ok(BaseImage {
        env: config.env.unwrap_or_default(),
        has_shell: config.shell.is_some_and(|shell| !shell.is_empty()),
        on_build: config.on_build.unwrap_or_default(),
        platform: [inspected.os, inspected.architecture, inspected.variant],
    })
}

/// Has an image come, as a build would.
async fn bring(context: &Context, options: &BuildOptions, wanted: &WantedImage) -> Result<BaseImage, String> {
    let whole = |why: &str| {
        let full =
            wanted.name.parse::<Reference>().map_or(wanted.name.clone(), |name| name.with_default_tag().to_string());
        format!("{}: failed to resolve source metadata for {full}: {why}", wanted.name)
    };
    let reference: Reference = wanted.name.parse().map_err(|err: oci::ReferenceError| whole(&err.to_string()))?;
    let auth = pull::login(context, &reference).unwrap_or_else(|_| AuthConfig::default());
    let platform = if wanted.platform.is_empty() { &options.platform } else { &wanted.platform };
    let request = pull::request(&reference.clone().with_default_tag(), platform.clone(), auth);
    let answer = image::pull(&context.client, &request).await.map_err(|err| whole(&client_error(&err)))?;
    let pulled = progress::show(answer, Target::Stderr, true).await;
    pulled.map_err(|exit| whole(&exit.message.unwrap_or_default()))?;
    inspect(context, &wanted.name).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_said_by_flags() {
        let of = |value: &str| Call::of(value).map(|call| call.map(|call| (call.name, call.json, call.ignores_status)));
        let lint = |json, ignores| Ok(Some(("lint".to_owned(), json, ignores)));
        for (value, wanted) in [
            ("build", Ok(None)),
            ("check", lint(false, false)),
            ("lint,format=json", lint(true, false)),
            ("check,ignorestatus=true", lint(false, true)),
            ("other", Err(Exit::new(1, "unsupported request frontend.other"))),
            ("check,x=y", Err(Exit::new(1, "invalid print field: x=y"))),
            ("check,outline", Err(Exit::new(1, "invalid print value: check,outline"))),
        ] {
            assert_eq!(of(value), wanted, "{value}");
        }
    }
}
