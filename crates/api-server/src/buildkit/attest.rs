//! What is said beside what was built: where it comes from, and what is in it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use builder::attest::{Predicate, Provenance, SPDX, Sbom, Wanted};
use builder::provenance::{self, Facts};
use buildkit_api::status::{Status, base64_padded};
use engine::ops::build::outputs::Built;
use engine::ops::build::{self, BuildOptions, Input, Local, LocalFiles, NamedContext, NamedSource, SentFiles, sbom};
use engine_api::host_config::HostConfig;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::build::{Build, Outcome};
use super::failure::{self, said};
use super::follow::{Telling, follow};
use super::inputs::login;
use super::progress::now_nanos;
use super::service::BuildService;

/// What the list of an image's packages is called (buildkit frontend/attestations/sbom, `CoreSBOMName`).
const SBOM: &str = "sbom.spdx.json";

/// The longest parameter of a generator, in bytes.
const PARAMETER_MAX: usize = 4096;

impl BuildService {
    /// Says what is wanted of each image of an outcome.
    pub(super) async fn attest(
        &self,
        build: &Arc<Build>,
        outcome: &mut Outcome,
        wanted: &Wanted,
    ) -> Result<(), Status> {
        for place in 0..outcome.built.len() {
            let Built { image, platform, .. } = outcome.built[place].clone();
            let mut predicates = Vec::new();
            if let Some(wanted) = &wanted.sbom {
                predicates.extend(self.sbom(build, (&image, &platform), wanted, outcome.time).await?);
            }
            if let Some(wanted) = &wanted.provenance {
                predicates.extend(provenance(build, outcome, place, wanted));
            }
            outcome.built[place].predicates = predicates;
        }
        Ok(())
    }

    async fn sbom(
        &self,
        build: &Arc<Build>,
        (image, platform): (&str, &str),
        wanted: &Sbom,
        time: Option<i64>,
    ) -> Result<Vec<Predicate>, Status> {
        if let Some(generator) = &wanted.generator {
            return self.generated(build, (image, platform), generator, &wanted.parameters).await;
        }
        let part = build.progress.begin(&format!("[{platform}] generating sbom"), None).await;
        let scanned = sbom::scan(&self.engine, image, time).await.map_err(|err| said(errdefs::chain(&err)));
        build.progress.end(&part, scanned.as_ref().err().map(|err| err.message.as_str())).await;
        Ok(Predicate::new(SPDX, SBOM, false, &scanned?).into_iter().collect())
    }

    /// Has an image look, as BuildKit does (docs/attestations/sbom-protocol.md): as a command of a build, with the image that
    /// is looked at mounted.
    async fn generated(
        &self,
        build: &Arc<Build>,
        (image, platform): (&str, &str),
        generator: &str,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Vec<Predicate>, Status> {
        let from = self.side_build(build, format!("FROM {generator}\n"), Vec::new(), platform).await?;
        let failed = |err| said(errdefs::chain(&err));
        let (words, directory) = sbom::command(&self.engine, &from).map_err(failed)?;
        if words.is_empty() {
            return Err(said(format!("scanner {generator} does not have cmd")));
        }
        let text = run_text(&words, &directory, parameters)?;
        let named = |name: &str, image: &str| NamedContext {
            name: name.to_owned(),
            source: NamedSource::Outcome(image.to_owned()),
        };
        let contexts = vec![named("scanner", &from), named("scanned", image)];
        let ended = self.side_build(build, text, contexts, platform).await?;
        let written = sbom::written(&self.engine, &ended, of_bundle).await.map_err(failed)?;
        written.into_iter().collect()
    }

    /// Builds something of our own beside a client's build; answers the image.
    async fn side_build(
        &self,
        build: &Arc<Build>,
        text: String,
        named: Vec<NamedContext>,
        platform: &str,
    ) -> Result<String, Status> {
        let session = self.session(build, None).await?;
        let options = BuildOptions {
            platform: platform.to_owned(),
            remove: true,
            force_remove: true,
            host: HostConfig::of_build("default"),
            ..BuildOptions::default()
        };
        let local = Local {
            name: "sbom".to_owned(),
            text: text.into_bytes(),
            ignore: Box::new(|| Box::pin(async { Ok(Vec::new()) })),
            context: LocalFiles::Sent(SentFiles { name: None, source: Box::new(|_, _| Box::new(io::empty())) }),
            login: Arc::new(move |domain| Box::pin(login(session.clone(), domain))),
        };
        let started = build::start(&self.engine, options, Input::Local(local), named, None);
        let place = failure::Place::default();
        let started = started.map_err(|err| failure::of_build(&err, &place, None))?;
        let followed = follow(build, started, place, Telling::default()).await?;
        followed.image.ok_or_else(|| said("no image was built"))
    }
}

/// The Dockerfile by which a generator is run.
fn run_text(words: &[String], directory: &str, parameters: &BTreeMap<String, String>) -> Result<String, Status> {
    let mut text = "FROM scanner\nUSER 0\nWORKDIR /run/out\n".to_owned();
    let own = [("DESTINATION", "/run/out/"), ("SOURCE", "/run/src/core/sbom")];
    let given = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.into_iter().chain(given) {
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || name.len().max(value.len()) > PARAMETER_MAX || value.contains(char::is_control) {
            return Err(said(format!("invalid parameter {} of an sbom generator", build::quoted(name))));
        }
        text.push_str(&format!("ENV BUILDKIT_SCAN_{name}=\"{}\"\n", escaped(value)));
    }
    let words = serde_json::to_string(words).expect("texts are always JSON");
    // The generator's image says it: a line that ends with it, or goes on with the next one, would be others' instructions.
    if directory.contains(char::is_control) || directory.trim_end().ends_with('\\') {
        return Err(said(format!("invalid working directory {} of an sbom generator", build::quoted(directory))));
    }
    let directory = escaped(directory);
    text.push_str(&format!(
        "WORKDIR {directory}\nRUN --mount=type=bind,from=scanned,target=/run/src/core/sbom --mount=type=tmpfs,target=/tmp {words}\n"
    ));
    Ok(text)
}

/// A word in which nothing is replaced.
fn escaped(word: &str) -> String {
    word.chars()
        .flat_map(|letter| matches!(letter, '"' | '\\' | '$').then_some('\\').into_iter().chain([letter]))
        .collect()
}

/// A document that a generator wrote: a statement of in-toto's, or what it would say.
fn of_bundle(name: &str, bytes: &[u8]) -> Result<Predicate, Status> {
    #[derive(Deserialize)]
    struct Statement<'a> {
        #[serde(rename = "_type")]
        kind: String,
        #[serde(rename = "predicateType")]
        predicate_type: String,
        #[serde(borrow)]
        predicate: &'a RawValue,
    }
    if let Ok(statement) = serde_json::from_slice::<Statement<'_>>(bytes) {
        if !statement.kind.starts_with("https://in-toto.io/Statement/") || statement.predicate_type != SPDX {
            return Err(said(format!(
                "{name} of the sbom generator says {}",
                build::quoted(&statement.predicate_type)
            )));
        }
        return of_json(name, statement.predicate.get().as_bytes());
    }
    of_json(name, bytes)
}

fn of_json(name: &str, json: &[u8]) -> Result<Predicate, Status> {
    Predicate::new(SPDX, name, false, json).ok_or_else(|| said(format!("{name} of the sbom generator is no JSON")))
}

/// Where an image of an outcome comes from.
pub(super) fn provenance(build: &Build, outcome: &Outcome, place: usize, wanted: &Provenance) -> Option<Predicate> {
    let text = provenance_text(build, outcome, place, wanted);
    Predicate::new(wanted.predicate_type(), &wanted.filename, wanted.inline_only, text.as_bytes())
}

/// The same as text.
pub(super) fn provenance_text(build: &Build, outcome: &Outcome, place: usize, wanted: &Provenance) -> String {
    let [os, architecture, variant] = build::host_platform();
    let variant = if variant.is_empty() { variant } else { format!("/{variant}") };
    let facts = Facts {
        frontend: outcome.frontend.clone(),
        attributes: outcome.attributes.clone(),
        used: outcome.used.get(place).cloned().unwrap_or_default(),
        platform: format!("{os}/{architecture}{variant}"),
        id: build.reference.clone(),
        started: build::shown_time(build.begun_nanos),
        finished: build::shown_time(now_nanos()),
        definition: outcome.definition.clone(),
    };
    provenance::predicate(&facts, wanted, base64_padded, build::shown_context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_is_run_with_what_it_is_told() {
        let parameters = BTreeMap::from([("X".to_owned(), "a \"b\" $c".to_owned())]);
        let text = run_text(&["/scan".to_owned(), "-x".to_owned()], "/w", &parameters).unwrap();
        let wanted = "FROM scanner\nUSER 0\nWORKDIR /run/out\nENV BUILDKIT_SCAN_DESTINATION=\"/run/out/\"\n\
            ENV BUILDKIT_SCAN_SOURCE=\"/run/src/core/sbom\"\nENV BUILDKIT_SCAN_X=\"a \\\"b\\\" \\$c\"\nWORKDIR /w\n\
            RUN --mount=type=bind,from=scanned,target=/run/src/core/sbom --mount=type=tmpfs,target=/tmp [\"/scan\",\"-x\"]\n";
        assert_eq!(text, wanted);
        let bad = BTreeMap::from([("X Y".to_owned(), String::new())]);
        assert!(run_text(&[], "/", &bad).is_err());
    }

    #[test]
    fn a_generator_adds_no_instructions() {
        let lines = |directory: &str| {
            run_text(&["/scan".to_owned()], directory, &BTreeMap::new()).map(|text| {
                let lines: Vec<String> = text.lines().map(str::to_owned).collect();
                (lines.len(), lines[lines.len() - 2].clone())
            })
        };
        let usual = lines("/w").unwrap().0;
        for directory in ["/w\nADD http://127.0.0.1/ /", "/w\rCOPY --from=own / /", "/w\\", "/w\\ \t", "/w\0"] {
            let Err(err) = lines(directory) else { panic!("{directory:?} is taken") };
            assert!(err.message.starts_with("invalid working directory "), "{err:?}");
        }
        assert_eq!(lines("/a b$c\"d\\e'f").unwrap(), (usual, "WORKDIR /a b\\$c\\\"d\\\\e'f".to_owned()));
    }

    #[test]
    fn generators_write_statements_or_what_they_say() {
        let statement = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"{SPDX}","subject":[],"predicate":{{"a":1}}}}"#
        );
        assert_eq!(of_bundle("x.json", statement.as_bytes()).unwrap().said, r#"{"a":1}"#);
        assert_eq!(of_bundle("x.json", b"{\"b\":2}").unwrap().said, r#"{"b":2}"#);
        assert!(of_bundle("x.json", statement.replace("spdx", "other").as_bytes()).is_err());
        assert!(of_bundle("x.json", b"{").is_err());
    }
}
