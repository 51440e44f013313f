//! The history of builds: what becomes of a build when it has ended, and who asks for it (`docker buildx history`).
//!
//! What is kept is `engine`'s (`ops::build_history`); what goes on is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use builder::attest::{Provenance, Wanted};
use buildkit_api::messages::{
    BlobDescriptor, BuildHistoryEvent, BuildHistoryKind, BuildHistoryRecord, BuildHistoryRequest, BuildResult,
    ContentInfo, ContentInfoRequest, ContentInfoResponse, Empty, ReadContentRequest, ReadContentResponse, Timestamp,
    UpdateBuildHistoryRequest,
};
use buildkit_api::server::Reply;
use buildkit_api::status::{Code, Status};
use engine::Engine;
use engine::ops::build::shown_context;
use engine::ops::build_history::{self, Entry, FILE_MAX, Head, History};
use prost::Message;
use tokio::sync::{broadcast, mpsc};
use tracing::warn;

use super::attest::provenance_text;
use super::build::{Build, Outcome};
use super::failure::said;
use super::filter::Filters;
use super::progress::{GIVEN_UP, Log, now_nanos};

/// How many events may wait for who listens; who is slower misses some.
const EVENTS: usize = 64;

/// How much of a blob goes at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Types of what is kept.
const LOGS: &str = "application/vnd.buildkit.status.v0";
const FAILURE: &str = "application/vnd.googeapis.google.rpc.status+proto";
const STATEMENT: &str = "application/vnd.in-toto+json";

/// Builds that go on, and those that have ended.
#[derive(Debug)]
pub(crate) struct Histories {
    kept: Arc<History>,
    active: Mutex<BTreeMap<String, BuildHistoryRecord>>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

impl Default for Histories {
    fn default() -> Histories {
        Histories { kept: Arc::default(), active: Mutex::default(), events: broadcast::Sender::new(EVENTS) }
    }
}

impl Histories {
    fn tell(&self, kind: BuildHistoryKind, record: BuildHistoryRecord) {
        // Nobody needs to listen.
        let _ = self.events.send(event(kind, record));
    }

    fn active(&self) -> Vec<BuildHistoryRecord> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

fn event(kind: BuildHistoryKind, record: BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent { kind: kind as i32, record: Some(record) }
}

/// A build that goes on. Dropped before its end it was given up.
pub(super) struct Recording {
    histories: Arc<Histories>,
    engine: Engine,
    build: Arc<Build>,
    /// Nothing once it has ended, and of a build that nobody wants to remember.
    record: Option<BuildHistoryRecord>,
}

impl Recording {
    pub(super) fn begin(
        histories: Arc<Histories>,
        engine: Engine,
        build: Arc<Build>,
        (frontend, attributes): (&str, &BTreeMap<String, String>),
    ) -> Recording {
        let record = (!build.is_internal).then(|| BuildHistoryRecord {
            reference: build.reference.clone(),
            frontend: frontend.to_owned(),
            frontend_attributes: shown_attributes(attributes),
            exporters: build.exporters.clone(),
            created_at: Some(Timestamp::of_nanos(build.begun_nanos)),
            ..BuildHistoryRecord::default()
        });
        if let Some(record) = record.clone() {
            let mut active = histories.active.lock().unwrap_or_else(PoisonError::into_inner);
            active.insert(record.reference.clone(), record.clone());
            drop(active);
            histories.tell(BuildHistoryKind::Started, record);
        }
        Recording { histories, engine, build, record }
    }

    /// It has ended: with an outcome and what is said of where that went, or with a failure.
    pub(super) async fn end(mut self, outcome: Option<&Outcome>, ended: Result<&BTreeMap<String, String>, &Status>) {
        let Some(record) = self.record.take() else { return };
        let (record, blobs) = ended_record(record, &self.build, outcome, ended);
        let (histories, engine) = (self.histories.clone(), self.engine.clone());
        // A client that goes now must not leave it among those that go on.
        let keeping = tokio::spawn(async move { keep(&histories, &engine, record, blobs).await });
        if let Err(err) = keeping.await {
            warn!(%err, "a build is not remembered");
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        let canceled = Status::new(Code::Cancelled, GIVEN_UP);
        self.build.progress.give_up();
        let (record, blobs) = ended_record(record, &self.build, None, Err(&canceled));
        let (histories, engine) = (self.histories.clone(), self.engine.clone());
        // Without a runtime the daemon is ending, and nobody waits for it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { keep(&histories, &engine, record, blobs).await });
        }
    }
}

/// What a client asked for, as people may read it who ask for builds: addresses have no passwords.
fn shown_attributes(attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let key = attributes.get("contextkey").map_or("", String::as_str);
    let shown = |(name, value): (&String, &String)| {
        let is_place = name == "context" || name == key || name.starts_with("context:") || name == "vcs:source";
        (name.clone(), if is_place { shown_context(value) } else { value.clone() })
    };
    attributes.iter().map(shown).collect()
}

/// A record that has ended, and the blobs that it names. Pure, but for the time.
fn ended_record(
    mut record: BuildHistoryRecord,
    build: &Build,
    outcome: Option<&Outcome>,
    ended: Result<&BTreeMap<String, String>, &Status>,
) -> (BuildHistoryRecord, Vec<Vec<u8>>) {
    let mut blobs = Vec::new();
    let log = build.progress.log();
    [record.total_steps, record.cached_steps, record.completed_steps] = log.steps();
    record.warnings = log.warnings;
    record.logs = Some(blob(&mut blobs, LOGS, log.bytes));
    record.completed_at = Some(Timestamp::of_nanos(now_nanos()));
    match ended {
        Ok(told) => record.exporter_response = told.clone(),
        Err(status) => {
            let mut message = status.to_message();
            let whole = message.encode_to_vec();
            if whole.len() <= FILE_MAX {
                record.external_error = Some(blob(&mut blobs, FAILURE, whole));
            }
            message.details.clear();
            record.error = Some(message);
        }
    }
    if let Some(outcome) = outcome {
        // All is said, whatever is said beside the image.
        let asked = Wanted::parse(&record.frontend_attributes).ok().and_then(|wanted| wanted.provenance);
        let wanted = Provenance {
            is_whole: true,
            builder_id: asked.map(|asked| asked.builder_id).unwrap_or_default(),
            ..Provenance::default()
        };
        for (place, built) in outcome.built.iter().enumerate() {
            let text = provenance_text(build, outcome, place, &wanted);
            let mut said = blob(&mut blobs, STATEMENT, text.into_bytes());
            let kind = wanted.predicate_type().to_owned();
            said.annotations.insert("in-toto.io/predicate-type".to_owned(), kind);
            let result = BuildResult { attestations: vec![said], ..BuildResult::default() };
            match outcome.several {
                true => drop(record.results.insert(built.platform.clone(), result)),
                false => record.result = Some(result),
            }
        }
    }
    (record, blobs)
}

fn blob(blobs: &mut Vec<Vec<u8>>, media_type: &str, bytes: Vec<u8>) -> BlobDescriptor {
    let digest = format!("sha256:{}", build_history::sum(&bytes));
    let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    blobs.push(bytes);
    BlobDescriptor { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new() }
}

async fn keep(histories: &Histories, engine: &Engine, record: BuildHistoryRecord, blobs: Vec<Vec<u8>>) {
    let completed = record.completed_at.unwrap_or_default();
    let sums: BTreeSet<String> = blobs.iter().map(|bytes| build_history::sum(bytes)).collect();
    let head = Head {
        reference: record.reference.clone(),
        completed_nanos: completed.seconds.saturating_mul(1_000_000_000).saturating_add(completed.nanos.into()),
        pinned: false,
        blobs: sums,
    };
    let entry = Entry { head, record: record.encode_to_vec() };
    // A build is as good without: that nobody remembers it is no reason to fail.
    if let Err(err) = histories.kept.keep(engine, entry, blobs).await {
        warn!(build = record.reference, %err, "a build is not remembered");
    }
    histories.active.lock().unwrap_or_else(PoisonError::into_inner).remove(&record.reference);
    histories.tell(BuildHistoryKind::Complete, record);
}

/// Tells which builds there are; and what happens to them, where that is wanted.
pub(super) async fn listen(
    engine: &Engine,
    histories: &Histories,
    request: BuildHistoryRequest,
) -> Result<Reply, Status> {
    let filters = Filters::parse(&request.filters, now_nanos())?;
    let limit = usize::try_from(request.limit).map_err(|_| said(format!("invalid limit {}", request.limit)))?;
    // From here on nothing is missed.
    let mut events = histories.events.subscribe();
    let is_wanted =
        move |record: &BuildHistoryRecord| request.reference.is_empty() || record.reference == request.reference;
    let mut kept = Vec::new();
    if !request.active_only {
        let entries = build_history::list(engine).await;
        kept.extend(entries.iter().filter_map(|entry| BuildHistoryRecord::decode(&entry.record[..]).ok()));
    }
    let active = histories.active().into_iter().filter(&is_wanted);
    let told = told_first(active, kept.into_iter().filter(&is_wanted), &filters, limit);
    let (sender, receiver) = mpsc::channel(EVENTS);
    tokio::spawn(async move {
        for event in told {
            if sender.send(Ok(event.encode_to_vec())).await.is_err() {
                return;
            }
        }
        if request.early_exit {
            return;
        }
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = sender.closed() => return,
            };
            let event = match event {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            // Of one that is gone only the name is left.
            let passes =
                |record: &BuildHistoryRecord| event.kind == BuildHistoryKind::Deleted as i32 || filters.pass(record);
            let is_wanted = event.record.as_ref().is_some_and(|record| is_wanted(record) && passes(record));
            if is_wanted && sender.send(Ok(event.encode_to_vec())).await.is_err() {
                return;
            }
        }
    });
    Ok(Reply::Stream(receiver))
}

/// What is told of builds that go on and of those that have ended, the newest first: no more than `limit`, which 0 is not. Pure.
fn told_first(
    active: impl Iterator<Item = BuildHistoryRecord>,
    kept: impl Iterator<Item = BuildHistoryRecord>,
    filters: &Filters,
    limit: usize,
) -> Vec<BuildHistoryEvent> {
    let active = active.map(|record| (BuildHistoryKind::Started, record));
    let kept = kept.map(|record| (BuildHistoryKind::Complete, record));
    let passing = active.chain(kept).filter(|(_, record)| filters.pass(record));
    let most = if limit == 0 { usize::MAX } else { limit };
    passing.take(most).map(|(kind, record)| event(kind, record)).collect()
}

/// Forgets a build, or has it stay.
pub(super) async fn update(
    engine: &Engine,
    histories: &Histories,
    request: UpdateBuildHistoryRequest,
) -> Result<Reply, Status> {
    let UpdateBuildHistoryRequest { reference, pinned, delete, finalize } = request;
    let failed = |err: std::io::Error| said(err.to_string());
    let kept = &histories.kept;
    if delete {
        if !kept.forget(engine, &reference).await.map_err(failed)? {
            return Err(Status::new(Code::NotFound, format!("lease \"ref_{reference}\": not found")));
        }
        let record = BuildHistoryRecord { reference, ..BuildHistoryRecord::default() };
        histories.tell(BuildHistoryKind::Deleted, record);
        return Ok(Reply::message(&Empty {}));
    }
    if finalize {
        return Ok(Reply::message(&Empty {}));
    }
    let change = move |entry: &mut Entry| {
        if let Ok(mut record) = BuildHistoryRecord::decode(&entry.record[..]) {
            (record.pinned, entry.head.pinned) = (pinned, pinned);
            record.generation += 1;
            entry.record = record.encode_to_vec();
        }
    };
    if !kept.change(engine, &reference, change).await.map_err(failed)? {
        return Err(said(format!("failed to retrieve ref {reference}: file does not exist")));
    }
    if let Some(entry) = build_history::find(engine, &reference).await
        && let Ok(record) = BuildHistoryRecord::decode(&entry.record[..])
    {
        histories.tell(BuildHistoryKind::Complete, record);
    }
    Ok(Reply::message(&Empty {}))
}

/// What a build that has ended told; `None` where there is no such build.
pub(super) async fn told(engine: &Engine, reference: &str) -> Option<Reply> {
    let entry = build_history::find(engine, reference).await?;
    let record = BuildHistoryRecord::decode(&entry.record[..]).ok()?;
    let sum = record.logs.as_ref().map(|logs| logs.digest.trim_start_matches("sha256:")).unwrap_or_default();
    let bytes = build_history::blob(engine, sum).await.unwrap_or_default();
    Some(stream(Log::messages(&bytes)))
}

/// What is known of a blob that a build names.
pub(super) async fn content_info(engine: &Engine, request: ContentInfoRequest) -> Result<Reply, Status> {
    let bytes = content(engine, &request.digest).await?;
    let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    let info = Some(ContentInfo { digest: request.digest, size });
    Ok(Reply::message(&ContentInfoResponse { info }))
}

/// The bytes of a blob that a build names.
pub(super) async fn content_read(engine: &Engine, request: ReadContentRequest) -> Result<Reply, Status> {
    let bytes = content(engine, &request.digest).await?;
    let out = || Status::new(Code::OutOfRange, format!("read past object length {} bytes: out of range", bytes.len()));
    let from = usize::try_from(request.offset).ok().filter(|from| *from <= bytes.len()).ok_or_else(out)?;
    let size = usize::try_from(request.size).map_err(|_| out())?;
    let end = if size == 0 {
        bytes.len()
    } else {
        from.checked_add(size).filter(|end| *end <= bytes.len()).ok_or_else(out)?
    };
    let pieces = bytes[from..end].chunks(PIECE_BYTES).enumerate().map(|(number, piece)| {
        let offset = i64::try_from(from + number * PIECE_BYTES).unwrap_or(i64::MAX);
        ReadContentResponse { offset, data: piece.to_vec().into() }.encode_to_vec()
    });
    Ok(stream(pieces.collect()))
}

async fn content(engine: &Engine, digest: &str) -> Result<Vec<u8>, Status> {
    let found = match digest.strip_prefix("sha256:") {
        Some(sum) => build_history::blob(engine, sum).await,
        None => None,
    };
    found.ok_or_else(|| Status::new(Code::NotFound, format!("content {digest}: not found")))
}

/// Messages, one after the other.
fn stream(messages: Vec<Vec<u8>>) -> Reply {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for message in messages {
            if sender.send(Ok(message)).await.is_err() {
                return;
            }
        }
    });
    Reply::Stream(receiver)
}

#[cfg(test)]
mod tests {
    use buildkit_api::messages::RpcStatus;

    use super::*;

    #[test]
    fn builds_that_go_on_are_filtered_and_counted_too() {
        let record = |name: &str| BuildHistoryRecord { reference: name.to_owned(), ..BuildHistoryRecord::default() };
        let ended = |name: &str, error: Option<&str>| BuildHistoryRecord {
            completed_at: Some(Timestamp { seconds: 1, nanos: 0 }),
            error: error.map(|message| RpcStatus { message: message.to_owned(), ..RpcStatus::default() }),
            ..record(name)
        };
        let told = |filters: &[&str], limit| {
            let given: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            let filters = Filters::parse(&given, 0).unwrap();
            let kept = [ended("failed", Some("x")), ended("good", None)];
            let told = told_first([record("active")].into_iter(), kept.into_iter(), &filters, limit);
            told.into_iter().map(|event| event.record.unwrap().reference).collect::<Vec<_>>().join(" ")
        };
        for (filters, limit, wanted) in [
            (&[][..], 0, "active failed good"),
            (&[], 2, "active failed"),
            (&["status==error"], 0, "failed"),
            (&["status==running"], 0, "active"),
            (&["status!=error"], 1, "active"),
            (&["status==running", "status==completed"], 0, "active good"),
        ] {
            assert_eq!(told(filters, limit), wanted, "{filters:?} {limit}");
        }
    }

    #[test]
    fn attributes_are_shown_without_passwords() {
        let given = [
            ("context", "http://me:secret@h/x.git"),
            ("contextkey", "own"),
            ("own", "https://me:secret@h/file"),
            ("context:web", "https://me:secret@h/file"),
            ("context:base", "docker-image://alpine@sha256:00"),
            ("vcs:source", "https://token@h/x.git"),
            ("build-arg:A", "http://me:mine@h"),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let shown = shown_attributes(&given.into());
        let text = format!("{shown:?}");
        assert!(!text.contains("secret") && !text.contains("token"), "{text}");
        assert_eq!(shown["context:base"], "docker-image://alpine@sha256:00");
        assert_eq!(shown["build-arg:A"], "http://me:mine@h");
    }
}
