//! Where an outcome goes: the image store, and files and archives that are sent to the client.

mod directory;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use buildkit_api::messages::Exporter;
use buildkit_api::outputs;
use buildkit_api::session::Session;
use buildkit_api::status::{Status, base64_padded};
use engine::Engine;
use engine::ops::build::outputs::{
    Annotations, Built, LaidOut, LayerForm, ManifestOf, OutputError, Packed, lay_out, pack_all, with_files,
};
use engine::ops::build::{self, quoted};
use engine::ops::push::{self, PushError, PushQuery, PushStep, outcome};
use engine_api::auth::AuthConfig;
use hyper::body::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::build::{Build, Outcome};
use super::failure::{not_yet, said};
use super::inputs::login;
use super::progress::Part;

/// How many pieces of an archive may wait for the client.
const DEPTH: usize = 2;

/// Where an outcome goes, and how. Attributes that are no output's are passed over, as dockerd does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The image store, under these names; from there to their registries, if that is wanted.
    Store { laid: LaidOut, push: bool },
    /// The client's directory: each file. `split` is whether below platforms' names; where there are several, if nothing is said.
    Directory { split: Option<bool>, time: Option<i64> },
    /// A file of the client's: all files in an archive.
    Archive { split: Option<bool>, time: Option<i64> },
    /// A file of the client's: the image as a layout.
    Layout(LaidOut),
}

/// Reads what a client wants. Sentences are BuildKit's.
pub(super) fn parse(exporters: &[Exporter]) -> Result<Vec<Output>, Status> {
    exporters.iter().map(one).collect()
}

fn one(exporter: &Exporter) -> Result<Output, Status> {
    let text = |name: &str| exporter.attributes.get(name).map(String::as_str).unwrap_or_default();
    let time = match text("source-date-epoch") {
        "" => None,
        value => Some(seconds(value).ok_or_else(|| {
            // Twice, as BuildKit has it.
            let why = not_a_number(value);
            said(format!("invalid source-date-epoch: {why}: {why}"))
        })?),
    };
    let split = || match text("platform-split") {
        "" => Ok(None),
        value => truth("platform-split", value).map(Some),
    };
    match exporter.kind.as_str() {
        // dockerd's own name for it, and the one that means it there.
        "moby" | "image" => {
            truth("rewrite-timestamp", text("rewrite-timestamp"))?;
            Ok(Output::Store { laid: layout(exporter)?, push: truth("push", text("push"))? })
        }
        "local" => Ok(Output::Directory { split: split()?, time }),
        "tar" => Ok(Output::Archive { split: split()?, time }),
        "oci" | "docker" => {
            if !text("tar").is_empty() && !truth("tar", text("tar"))? {
                return Err(not_yet("an output of tar=false"));
            }
            layout(exporter).map(Output::Layout)
        }
        other => Err(said(format!("exporter {} could not be found", quoted(other)))),
    }
}

/// Images that are given away (buildkit exporter/oci, exporter/containerimage/opts.go, util/compression/attrs.go).
fn layout(exporter: &Exporter) -> Result<LaidOut, Status> {
    let text = |name: &str| exporter.attributes.get(name).map(String::as_str).unwrap_or_default();
    let form = match text("compression") {
        "" | "gzip" => LayerForm::Gzip,
        "uncompressed" => LayerForm::Plain,
        "zstd" => LayerForm::Zstd,
        "estargz" => return Err(not_yet("the compression \"estargz\" of an output")),
        other => return Err(said(format!("unsupported compression type {other}"))),
    };
    let force = match exporter.attributes.get("force-compression").map(String::as_str) {
        Some("") => true,
        value => {
            let value = value.unwrap_or_default();
            truth("", value).map_err(|_| {
                said(format!("non-bool value {value} specified for force-compression: {}", not_a_truth(value)))
            })?
        }
    };
    let level = match text("compression-level") {
        "" => None,
        value => Some(level(value, form)?),
    };
    let names = text("name").split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let annotations = annotations(exporter)?;
    Ok(LaidOut { names, docker: exporter.kind == "docker", form, force, level, indexed: false, annotations })
}

/// How much is done for a form, within what there is.
fn level(text: &str, form: LayerForm) -> Result<i32, Status> {
    let number: i64 = text.parse().map_err(|_| {
        said(format!("non-integer value {text} specified for compression-level: {}", not_a_number(text)))
    })?;
    let most = if form == LayerForm::Zstd { ZSTD_LEVEL_MAX } else { GZIP_LEVEL_MAX };
    Ok(i32::try_from(number.clamp(0, most)).unwrap_or_default())
}

/// The most that gzip does; more needs a form of its own.
const GZIP_LEVEL_MAX: i64 = 9;

/// The most that zstd does without a window that not everybody reads.
const ZSTD_LEVEL_MAX: i64 = 19;

/// What is annotated (exptypes, annotations.go): `annotation-manifest[linux/amd64].NAME`.
fn annotations(exporter: &Exporter) -> Result<Annotations, Status> {
    let mut all = Annotations::default();
    for (name, value) in &exporter.attributes {
        let Some((kind, platform, key)) = annotation(name) else { continue };
        let (key, value) = (key.to_owned(), value.clone());
        let platform = match platform {
            "" => String::new(),
            platform => build::platform_name(platform),
        };
        match kind {
            "" | "manifest" => all.manifest.push([platform, key, value]),
            "manifest-descriptor" => all.manifest_descriptor.push([platform, key, value]),
            "index" => drop(all.index.insert(key, value)),
            "index-descriptor" => drop(all.index_descriptor.insert(key, value)),
            other => return Err(said(format!("unrecognized annotation type {other}"))),
        }
    }
    Ok(all)
}

/// What an attribute annotates, for which platform, and by which name.
fn annotation(attribute: &str) -> Option<(&str, &str, &str)> {
    let rest = attribute.strip_prefix("annotation")?;
    let end = rest.find(['[', '.'])?;
    let (kind, rest) = rest.split_at(end);
    let kind = if kind.is_empty() { kind } else { kind.strip_prefix('-')? };
    match rest.strip_prefix('[') {
        Some(rest) => {
            let (platform, key) = rest.split_once("].")?;
            Some((kind, platform, key))
        }
        None => Some((kind, "", &rest[1..])),
    }
}

/// A truth value as Go reads it (strconv.ParseBool); nothing is false.
pub(super) fn truth(name: &str, text: &str) -> Result<bool, Status> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(said(format!("non-bool value for {name}: {other}: {}", not_a_truth(other)))),
    }
}

/// What Go says of a truth value that is none.
fn not_a_truth(text: &str) -> String {
    format!("strconv.ParseBool: parsing {}: invalid syntax", quoted(text))
}

/// Seconds since 1970.
pub(super) fn seconds(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// What Go says of a number that is none.
pub(super) fn not_a_number(text: &str) -> String {
    format!("strconv.ParseInt: parsing {}: invalid syntax", quoted(text))
}

/// An outcome on its way.
pub(super) struct Exporting<'a> {
    pub(super) engine: &'a Engine,
    pub(super) build: &'a Build,
    /// The client's session, where something is sent to it.
    pub(super) session: Option<Arc<Session>>,
    pub(super) outcome: &'a Outcome,
}

/// Whether a client wants the files of an image to be no later than the time that it says.
pub(super) fn rewrites(exporters: &[Exporter]) -> bool {
    let wants = |exporter: &Exporter| {
        let value = exporter.attributes.get("rewrite-timestamp").map(String::as_str).unwrap_or_default();
        truth("rewrite-timestamp", value) == Ok(true)
    };
    exporters.iter().any(wants)
}

/// Whether the client is needed for an output: it is sent there, or the client has the login.
pub(super) fn is_sent(output: &Output) -> bool {
    !matches!(output, Output::Store { push: false, .. })
}

impl Exporting<'_> {
    /// Brings an outcome to all outputs, one after the other; answers what is said of them. Where two say the same, the last
    /// one does.
    pub(super) async fn all(&self, wanted: &[Output]) -> Result<BTreeMap<String, String>, Status> {
        let mut told = BTreeMap::new();
        for (index, output) in wanted.iter().enumerate() {
            let name = match output {
                Output::Store { .. } => "exporting to image",
                Output::Directory { .. } => "exporting to client directory",
                Output::Archive { .. } => "exporting to client tarball",
                Output::Layout(LaidOut { docker: true, .. }) => "exporting to docker image format",
                Output::Layout(_) => "exporting to oci image format",
            };
            let part = self.build.progress.begin(name, None).await;
            let exported = self.one(&part, index, output).await;
            self.build.progress.end(&part, exported.as_ref().err().map(|err| err.message.as_str())).await;
            told.append(&mut exported?);
        }
        Ok(told)
    }

    async fn one(&self, part: &Part, index: usize, output: &Output) -> Result<BTreeMap<String, String>, Status> {
        match output {
            Output::Store { laid, push } => {
                let mut told = self.store(part, &laid.names).await?;
                if *push {
                    self.push(part, laid, &mut told).await?;
                }
                Ok(told)
            }
            Output::Layout(wanted) => self.layout(part, index, wanted).await,
            Output::Directory { split, time } => {
                let split = split.unwrap_or(self.outcome.several);
                self.directory(part, index, split, time.or(self.outcome.time)).await.map(|()| BTreeMap::new())
            }
            Output::Archive { split, time } => {
                // Of one platform there is nothing to split.
                let split = split.unwrap_or(true) && self.outcome.several;
                self.archive(part, index, split, time.or(self.outcome.time)).await.map(|()| BTreeMap::new())
            }
        }
    }

    /// The images with what is said beside them, but for what is only said inside of registries and stores.
    fn outside(&self) -> Vec<Built> {
        let mut all = self.outcome.built.clone();
        all.iter_mut().for_each(|built| built.predicates.retain(|predicate| !predicate.inline_only));
        all
    }

    /// Gives the images their names.
    async fn store(&self, part: &Part, names: &[String]) -> Result<BTreeMap<String, String>, Status> {
        let (progress, built) = (&self.build.progress, &self.outcome.built);
        let writing = built.iter().map(|built| format!("writing image {}", built.image));
        for what in ["exporting layers".to_owned()].into_iter().chain(writing) {
            let status = progress.goes_on(part, &what).await;
            progress.has_ended(status, 0).await;
        }
        built.iter().for_each(|built| build::show(self.engine, &built.image));
        let mut full = Vec::new();
        for name in names {
            let status = progress.goes_on(part, &format!("naming to {}", build::with_registry(name))).await;
            full.push(build::with_registry(name));
            let ids: Vec<&str> = built.iter().map(|built| built.image.as_str()).collect();
            let named = match ids[..] {
                [image] => build::name(self.engine, image, name).await,
                _ => build::name_all(self.engine, &ids, name).await,
            };
            named.map_err(|err| said(errdefs::chain(&err)))?;
            progress.has_ended(status, 0).await;
        }
        let image = built.first().map(|built| built.image.clone()).unwrap_or_default();
        let mut told = BTreeMap::from([("containerimage.digest".to_owned(), image.clone())]);
        if built.len() == 1 {
            told.insert("containerimage.config.digest".to_owned(), image);
        }
        if !full.is_empty() {
            told.insert("image.name".to_owned(), full.join(","));
        }
        Ok(told)
    }

    fn session(&self) -> Result<&Session, Status> {
        self.session.as_deref().ok_or_else(|| said(format!("no active session for {}", self.build.session)))
    }

    async fn directory(&self, part: &Part, index: usize, split: bool, time: Option<i64>) -> Result<(), Status> {
        for built in self.outside() {
            let (platform, image) = (built.platform, built.image);
            let words = match self.outcome.several || split {
                true => format!("copying files {platform}"),
                false => "copying files".to_owned(),
            };
            let session = self.session()?;
            let status = self.build.progress.goes_on(part, &words).await;
            let (packets, receiver) = mpsc::channel(directory::DEPTH);
            let (asked, requests) = mpsc::unbounded_channel();
            let by_platform = (self.outcome.several && !split).then(|| platform.clone());
            let top = split.then(|| platform.replace('/', "_"));
            let predicates = built.predicates;
            let reading = with_files(self.engine, &image, time, move |files| {
                let own = files.said(&predicates, by_platform.as_deref());
                directory::Sending::new(packets, top, time).run(files, own, requests)
            });
            let bytes = AtomicU64::new(0);
            let sending = outputs::send_directory(session, index, receiver, asked, &bytes);
            let (read, sent) = tokio::join!(reading, sending);
            self.build.progress.has_ended(status, bytes.into_inner()).await;
            both(read, sent)?;
        }
        Ok(())
    }

    /// Sends the images themselves.
    async fn layout(&self, part: &Part, index: usize, wanted: &LaidOut) -> Result<BTreeMap<String, String>, Status> {
        let names: Vec<String> = wanted.names.iter().map(|name| build::with_registry(name)).collect();
        let wanted = LaidOut { indexed: self.outcome.several, ..wanted.clone() };
        let mut images = self.outside();
        if self.outcome.several || images.iter().any(|built| !built.predicates.is_empty()) {
            // There is an index, which has room for everything.
            images = self.outcome.built.clone();
        }
        let is_index = wanted.is_index(&images).map_err(|err| said(errdefs::chain(&err)))?;
        let status = self.build.progress.goes_on(part, "exporting layers").await;
        self.build.progress.has_ended(status, 0).await;
        let engine = self.engine.clone();
        let made = self.stream(part, index, "sending tarball", move |out| {
            Box::pin(async move { lay_out(&engine, &images, &wanted, out).await })
        });
        let made = made.await?;
        let mut told = of_manifest(&made);
        if !is_index {
            told.extend(self.outcome.built.first().map(|built| (CONFIG_DIGEST.to_owned(), built.image.clone())));
        }
        if !names.is_empty() {
            told.insert("image.name".to_owned(), names.join(","));
        }
        Ok(told)
    }

    /// Pushes the names that the images have got, with the client's logins.
    async fn push(&self, part: &Part, laid: &LaidOut, told: &mut BTreeMap<String, String>) -> Result<(), Status> {
        if laid.names.is_empty() {
            return Err(said("tag is needed when pushing image"));
        }
        let wanted = LaidOut { indexed: self.outcome.several, ..laid.clone() };
        let images = &self.outcome.built;
        let failed =
            |err: &dyn std::error::Error, full: &str| said(format!("failed to push {full}: {}", errdefs::chain(err)));
        for name in &laid.names {
            let full = build::with_registry(name);
            let domain = full.split('/').next().unwrap_or_default().to_owned();
            let login = match &self.session {
                Some(session) => login(session.clone(), domain).await,
                None => None,
            };
            let status = self.build.progress.goes_on(part, &format!("pushing {full}")).await;
            let is_index = wanted.is_index(images).map_err(|err| failed(&err, &full))?;
            if is_index || wanted != (LaidOut { names: laid.names.clone(), ..LaidOut::default() }) {
                let pushed = outcome::push(self.engine, name, login, images, &wanted).await;
                told.extend(of_manifest(&pushed.map_err(|err| failed(&err, &full))?));
                if is_index {
                    told.remove(CONFIG_DIGEST);
                }
            } else {
                self.push_image(name, login, told).await.map_err(|err| failed(&err, &full))?;
            }
            self.build.progress.has_ended(status, 0).await;
        }
        Ok(())
    }

    /// Pushes an image as every other one is pushed.
    async fn push_image(
        &self,
        name: &str,
        login: Option<AuthConfig>,
        told: &mut BTreeMap<String, String>,
    ) -> Result<(), PushError> {
        let authorization = login.map(|login| login.to_header()).unwrap_or_default();
        let query = PushQuery { name: name.to_owned(), authorization, ..PushQuery::default() };
        let mut pushing = push::start(self.engine, push::plan(self.engine, &query)?);
        while let Some(step) = pushing.next().await {
            if let PushStep::Pushed { digest, .. } = step? {
                told.insert("containerimage.digest".to_owned(), digest.to_string());
            }
        }
        Ok(())
    }

    async fn archive(&self, part: &Part, index: usize, split: bool, time: Option<i64>) -> Result<(), Status> {
        let by_platform = self.outcome.several && !split;
        let packed = |built: Built| {
            let top = if split { built.platform.replace('/', "_") } else { String::new() };
            Packed { built, top, by_platform }
        };
        let images: Vec<Packed> = self.outside().into_iter().map(packed).collect();
        let engine = self.engine.clone();
        self.stream(part, index, "sending tarball", move |out| {
            Box::pin(async move { pack_all(&engine, images, time, out).await })
        })
        .await
    }

    /// Sends the client what is written.
    async fn stream<T>(
        &self,
        part: &Part,
        index: usize,
        words: &str,
        write: impl FnOnce(Pieces) -> Pin<Box<dyn Future<Output = Result<T, OutputError>> + Send>>,
    ) -> Result<T, Status> {
        let session = self.session()?;
        let status = self.build.progress.goes_on(part, words).await;
        let (pieces, receiver) = mpsc::channel(DEPTH);
        let (ended, whole) = oneshot::channel();
        let writing = write(Pieces(pieces));
        let writing = async {
            let written = writing.await;
            // Who sends may have failed already.
            let _ = ended.send(written.is_ok());
            written
        };
        let bytes = AtomicU64::new(0);
        let whole = async { whole.await.unwrap_or(false) };
        let sending = outputs::send_stream(session, index, receiver, whole, &bytes);
        let (written, sent) = tokio::join!(writing, sending);
        self.build.progress.has_ended(status, bytes.load(Ordering::Relaxed)).await;
        both(written, sent)
    }
}

/// What a registry knows an image by that is alone.
const CONFIG_DIGEST: &str = "containerimage.config.digest";

/// What is told of a manifest.
fn of_manifest(made: &ManifestOf) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("containerimage.descriptor".to_owned(), base64_padded(made.descriptor.as_bytes())),
        ("containerimage.digest".to_owned(), made.digest.clone()),
    ])
}

/// What became of something that was read and sent: who reads fails, too, where the client takes no more.
fn both<T>(read: Result<T, OutputError>, sent: Result<(), outputs::OutputError>) -> Result<T, Status> {
    match (read, sent) {
        (Err(err), Err(outputs::OutputError::Source)) => Err(said(errdefs::chain(&err))),
        (_, Err(err)) => Err(err.status()),
        (read, Ok(())) => read.map_err(|err| said(errdefs::chain(&err))),
    }
}

/// Bytes on their way to the client. However long it reads nothing, nobody else waits for it.
pub(super) struct Pieces(mpsc::Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, attributes: &[(&str, &str)]) -> Result<Output, String> {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        one(&Exporter { kind: kind.to_owned(), attributes }).map_err(|err| err.message)
    }

    #[test]
    fn outputs_are_what_clients_say() {
        let names = vec!["a".to_owned(), "b:c".to_owned()];
        let laid = LaidOut { names, ..LaidOut::default() };
        assert_eq!(of("moby", &[("name", "a,b:c"), ("x", "y")]), Ok(Output::Store { laid: laid.clone(), push: false }));
        assert_eq!(of("image", &[("name", "a,b:c"), ("push", "true")]), Ok(Output::Store { laid, push: true }));
        assert_eq!(of("local", &[("platform-split", "1")]), Ok(Output::Directory { split: Some(true), time: None }));
        assert_eq!(of("tar", &[("source-date-epoch", "5")]), Ok(Output::Archive { split: None, time: Some(5) }));
        let annotated = [
            ("annotation.a", "1"),
            ("annotation-manifest[linux/amd64].b.c", "2"),
            ("annotation-manifest-descriptor.d", "3"),
            ("annotation-index.e", "5"),
            ("annotations", "4"),
        ];
        let triple = |platform: &str, name: &str, value: &str| [platform, name, value].map(str::to_owned);
        let wanted = Annotations {
            manifest: vec![triple("linux/amd64", "b.c", "2"), triple("", "a", "1")],
            manifest_descriptor: vec![triple("", "d", "3")],
            index: BTreeMap::from([("e".to_owned(), "5".to_owned())]),
            ..Annotations::default()
        };
        let wanted = LaidOut { annotations: wanted, ..LaidOut::default() };
        assert_eq!(of("oci", &annotated), Ok(Output::Layout(wanted)));
        let plain = LaidOut { docker: true, form: LayerForm::Plain, ..LaidOut::default() };
        assert_eq!(of("docker", &[("compression", "uncompressed")]), Ok(Output::Layout(plain)));
        let zstd = LaidOut { form: LayerForm::Zstd, force: true, level: Some(19), ..LaidOut::default() };
        let asked = [("compression", "zstd"), ("force-compression", ""), ("compression-level", "99")];
        assert_eq!(of("oci", &asked), Ok(Output::Layout(zstd)));
        for (kind, attribute, wanted) in [
            ("other", ("", ""), "exporter \"other\" could not be found"),
            ("oci", ("tar", "false"), "an output of tar=false is not supported yet"),
            ("oci", ("compression", "estargz"), "the compression \"estargz\" of an output is not supported yet"),
            ("oci", ("compression", "x"), "unsupported compression type x"),
            ("oci", ("annotation-other.a", "b"), "unrecognized annotation type other"),
            (
                "tar",
                ("source-date-epoch", "x"),
                "invalid source-date-epoch: strconv.ParseInt: parsing \"x\": invalid syntax: strconv.ParseInt: parsing \
                 \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(of(kind, &[attribute]), Err(wanted.to_owned()));
        }
    }
}
