//! Where an outcome goes: the image store, and files and archives that are sent to the client.

mod directory;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use buildkit_api::messages::Exporter;
use buildkit_api::outputs;
use buildkit_api::session::Session;
use buildkit_api::status::Status;
use engine::Engine;
use engine::ops::build::outputs::with_files;
use engine::ops::build::{self, quoted};
use hyper::body::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::build::{Build, Outcome};
use super::failure::said;
use super::progress::Part;

/// How many pieces of an archive may wait for the client.
const DEPTH: usize = 2;

/// Where an outcome goes, and how. Attributes that are no output's are passed over, as dockerd does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The image store, under these names.
    Store { names: Vec<String> },
    /// The client's directory: each file.
    Directory { split: bool, time: Option<i64> },
    /// A file of the client's: all files in an archive.
    Archive { time: Option<i64> },
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
            Ok(Output::Store { names: names.collect() })
        }
        "local" => Ok(Output::Directory { split: truth("platform-split", text("platform-split"))?, time }),
        "tar" => {
            // There is one platform: it is looked at, and no more.
            truth("platform-split", text("platform-split"))?;
            Ok(Output::Archive { time })
        }
        other => Err(said(format!("exporter {} could not be found", quoted(other)))),
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

/// Whether an output is sent to the client.
pub(super) fn is_sent(output: &Output) -> bool {
    !matches!(output, Output::Store { .. })
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
            Output::Store { names } => self.store(part, names).await,
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

    async fn archive(&self, part: &Part, index: usize, time: Option<i64>) -> Result<(), Status> {
        self.stream(part, index, "sending tarball", move |engine, image, out| {
            Box::pin(with_files(engine, image, time, move |files| files.pack(out)))
        })
        .await
    }

    /// Sends the client what is written.
    async fn stream<'a, E: std::error::Error + 'a>(
        &'a self,
        part: &Part,
        index: usize,
        words: &str,
        write: impl FnOnce(
            &'a Engine,
            &'a str,
            Pieces,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'a>>,
    ) -> Result<(), Status> {
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
fn outcome(read: Result<(), String>, sent: Result<(), outputs::OutputError>) -> Result<(), Status> {
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
