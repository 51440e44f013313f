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
use engine::ops::build::outputs::{LaidOut, OutputError, lay_out, with_files};
use engine::ops::build::{self, quoted};
use engine::ops::push::{self, PushQuery, PushStep};
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
    Store { names: Vec<String>, push: bool },
    /// The client's directory: each file.
    Directory { split: bool, time: Option<i64> },
    /// A file of the client's: all files in an archive.
    Archive { time: Option<i64> },
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
    match exporter.kind.as_str() {
        // dockerd's own name for it, and the one that means it there.
        "moby" | "image" => {
            truth("rewrite-timestamp", text("rewrite-timestamp"))?;
            let names = text("name").split(',').filter(|name| !name.is_empty()).map(str::to_owned);
            Ok(Output::Store { names: names.collect(), push: truth("push", text("push"))? })
        }
        "local" => Ok(Output::Directory { split: truth("platform-split", text("platform-split"))?, time }),
        "tar" => {
            // There is one platform: it is looked at, and no more.
            truth("platform-split", text("platform-split"))?;
            Ok(Output::Archive { time })
        }
        "oci" | "docker" => layout(exporter).map(Output::Layout),
        other => Err(said(format!("exporter {} could not be found", quoted(other)))),
    }
}

/// An image that is given away (buildkit exporter/oci, exporter/containerimage/opts.go).
fn layout(exporter: &Exporter) -> Result<LaidOut, Status> {
    let text = |name: &str| exporter.attributes.get(name).map(String::as_str).unwrap_or_default();
    let docker = exporter.kind == "docker";
    if !text("tar").is_empty() && !truth("tar", text("tar"))? {
        return Err(not_yet("an output of tar=false"));
    }
    let uncompressed = match text("compression") {
        "" | "gzip" => false,
        "uncompressed" => true,
        other => return Err(not_yet(&format!("the compression {} of an output", quoted(other)))),
    };
    let (mut annotations, mut entry_annotations) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in &exporter.attributes {
        let Some((kind, key)) = annotation(name) else { continue };
        let all = match kind {
            "" | "manifest" => &mut annotations,
            "manifest-descriptor" => &mut entry_annotations,
            // There is one image.
            _ => return Err(said("index annotations not supported for single platform export")),
        };
        all.insert(key.to_owned(), value.clone());
    }
    let names = text("name").split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(LaidOut { names, docker, uncompressed, annotations, entry_annotations })
}

/// What an attribute annotates, and by which name: `annotation-manifest[linux/amd64].NAME` (exptypes, annotations.go).
fn annotation(attribute: &str) -> Option<(&str, &str)> {
    let (what, key) = attribute.strip_prefix("annotation")?.split_once('.')?;
    let what = what.split_once('[').map_or(what, |(what, _)| what);
    match what {
        "" => Some(("", key)),
        what => Some((what.strip_prefix('-')?, key)),
    }
}

/// A truth value as Go reads it (strconv.ParseBool); nothing is false.
fn truth(name: &str, text: &str) -> Result<bool, Status> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(said(format!(
            "non-bool value for {name}: {other}: strconv.ParseBool: parsing {}: invalid syntax",
            quoted(other)
        ))),
    }
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
            Output::Store { names, push } => {
                let mut told = self.store(part, names).await?;
                if *push {
                    self.push(part, names, &mut told).await?;
                }
                Ok(told)
            }
            Output::Layout(wanted) => self.layout(part, index, wanted).await,
            Output::Directory { split, time } => {
                self.directory(part, index, *split, time.or(self.outcome.time)).await.map(|()| BTreeMap::new())
            }
            Output::Archive { time } => {
                self.archive(part, index, time.or(self.outcome.time)).await.map(|()| BTreeMap::new())
            }
        }
    }

    /// Gives the image its names.
    async fn store(&self, part: &Part, names: &[String]) -> Result<BTreeMap<String, String>, Status> {
        let (progress, image) = (&self.build.progress, &self.outcome.image);
        for what in ["exporting layers".to_owned(), format!("writing image {image}")] {
            let status = progress.goes_on(part, &what).await;
            progress.has_ended(status, 0).await;
        }
        let mut full = Vec::new();
        for name in names {
            let status = progress.goes_on(part, &format!("naming to {}", build::with_registry(name))).await;
            full.push(build::with_registry(name));
            build::name(self.engine, image, name).await.map_err(|err| said(errdefs::chain(&err)))?;
            progress.has_ended(status, 0).await;
        }
        let mut told = BTreeMap::from([
            ("containerimage.config.digest".to_owned(), image.clone()),
            ("containerimage.digest".to_owned(), image.clone()),
        ]);
        if !full.is_empty() {
            told.insert("image.name".to_owned(), full.join(","));
        }
        Ok(told)
    }

    fn session(&self) -> Result<&Session, Status> {
        self.session.as_deref().ok_or_else(|| said(format!("no active session for {}", self.build.session)))
    }

    async fn directory(&self, part: &Part, index: usize, split: bool, time: Option<i64>) -> Result<(), Status> {
        let platform = split.then(|| self.outcome.platform.clone());
        let words = match &platform {
            Some(platform) => format!("copying files {platform}"),
            None => "copying files".to_owned(),
        };
        let session = self.session()?;
        let status = self.build.progress.goes_on(part, &words).await;
        let (packets, receiver) = mpsc::channel(directory::DEPTH);
        let (asked, requests) = mpsc::unbounded_channel();
        let top = platform.map(|platform| platform.replace('/', "_"));
        let reading = with_files(self.engine, &self.outcome.image, time, move |files| {
            directory::Sending::new(packets, top, time).run(files, requests)
        });
        let bytes = AtomicU64::new(0);
        let sending = outputs::send_directory(session, index, receiver, asked, &bytes);
        let (read, sent) = tokio::join!(reading, sending);
        self.build.progress.has_ended(status, bytes.into_inner()).await;
        outcome(read.map_err(|err| errdefs::chain(&err)), sent)
    }

    /// Sends the image itself.
    async fn layout(&self, part: &Part, index: usize, wanted: &LaidOut) -> Result<BTreeMap<String, String>, Status> {
        let names: Vec<String> = wanted.names.iter().map(|name| build::with_registry(name)).collect();
        let wanted = wanted.clone();
        let status = self.build.progress.goes_on(part, "exporting layers").await;
        self.build.progress.has_ended(status, 0).await;
        let made = self.stream(part, index, "sending tarball", move |engine, image, out| {
            Box::pin(lay_out(engine, image, wanted, out))
        });
        let made = made.await?;
        let mut told = BTreeMap::from([
            ("containerimage.config.digest".to_owned(), self.outcome.image.clone()),
            ("containerimage.descriptor".to_owned(), base64_padded(made.descriptor.as_bytes())),
            ("containerimage.digest".to_owned(), made.digest),
        ]);
        if !names.is_empty() {
            told.insert("image.name".to_owned(), names.join(","));
        }
        Ok(told)
    }

    /// Pushes the names that the image has got, with the client's logins.
    async fn push(&self, part: &Part, names: &[String], told: &mut BTreeMap<String, String>) -> Result<(), Status> {
        if names.is_empty() {
            return Err(said("tag is needed when pushing image"));
        }
        for name in names {
            let full = build::with_registry(name);
            let domain = full.split('/').next().unwrap_or_default().to_owned();
            let login = match &self.session {
                Some(session) => login(session.clone(), domain).await,
                None => None,
            };
            let authorization = login.map(|login| login.to_header()).unwrap_or_default();
            let status = self.build.progress.goes_on(part, &format!("pushing {full}")).await;
            let query = PushQuery { name: name.clone(), authorization, ..PushQuery::default() };
            let plan = push::plan(self.engine, &query).map_err(|err| said(errdefs::chain(&err)))?;
            let mut pushing = push::start(self.engine, plan);
            while let Some(step) = pushing.next().await {
                if let PushStep::Pushed { digest, .. } = step.map_err(|err| said(errdefs::chain(&err)))? {
                    told.insert("containerimage.digest".to_owned(), digest.to_string());
                }
            }
            self.build.progress.has_ended(status, 0).await;
        }
        Ok(())
    }

    async fn archive(&self, part: &Part, index: usize, time: Option<i64>) -> Result<(), Status> {
        self.stream(part, index, "sending tarball", move |engine, image, out| {
            Box::pin(with_files(engine, image, time, move |files| files.pack(out)))
        })
        .await
    }

    /// Sends the client what is written.
    async fn stream<'a, T>(
        &'a self,
        part: &Part,
        index: usize,
        words: &str,
        write: impl FnOnce(&'a Engine, &'a str, Pieces) -> Pin<Box<dyn Future<Output = Result<T, OutputError>> + Send + 'a>>,
    ) -> Result<T, Status> {
        let session = self.session()?;
        let status = self.build.progress.goes_on(part, words).await;
        let (pieces, receiver) = mpsc::channel(DEPTH);
        let (ended, whole) = oneshot::channel();
        let writing = write(self.engine, &self.outcome.image, Pieces(pieces));
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
        outcome(written.map_err(|err| errdefs::chain(&err)), sent)
    }
}

/// What became of something that was read and sent: who reads fails, too, where the client takes no more.
fn outcome<T>(read: Result<T, String>, sent: Result<(), outputs::OutputError>) -> Result<T, Status> {
    match (read, sent) {
        (Err(sentence), Err(outputs::OutputError::Source)) => Err(said(sentence)),
        (_, Err(err)) => Err(err.status()),
        (read, Ok(())) => read.map_err(said),
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
        assert_eq!(
            of("moby", &[("name", "a,b:c"), ("x", "y")]),
            Ok(Output::Store { names: names.clone(), push: false })
        );
        assert_eq!(of("image", &[("name", "a,b:c"), ("push", "true")]), Ok(Output::Store { names, push: true }));
        assert_eq!(of("local", &[("platform-split", "1")]), Ok(Output::Directory { split: true, time: None }));
        assert_eq!(of("tar", &[("source-date-epoch", "5")]), Ok(Output::Archive { time: Some(5) }));
        let annotated = [
            ("annotation.a", "1"),
            ("annotation-manifest[linux/amd64].b.c", "2"),
            ("annotation-manifest-descriptor.d", "3"),
            ("annotations", "4"),
        ];
        let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let wanted = LaidOut {
            annotations: pairs(&[("a", "1"), ("b.c", "2")]),
            entry_annotations: pairs(&[("d", "3")]),
            ..LaidOut::default()
        };
        assert_eq!(of("oci", &annotated), Ok(Output::Layout(wanted)));
        let plain = LaidOut { docker: true, uncompressed: true, ..LaidOut::default() };
        assert_eq!(of("docker", &[("compression", "uncompressed")]), Ok(Output::Layout(plain)));
        for (kind, attribute, wanted) in [
            ("other", ("", ""), "exporter \"other\" could not be found"),
            ("oci", ("tar", "false"), "an output of tar=false is not supported yet"),
            ("oci", ("compression", "zstd"), "the compression \"zstd\" of an output is not supported yet"),
            ("oci", ("annotation-index.a", "b"), "index annotations not supported for single platform export"),
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
