//! What a client sees of a build: its parts, what goes on in them, what they print.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use buildkit_api::messages::{
    Range, SourceInfo, StatusResponse, Timestamp, Vertex, VertexLog, VertexStatus, VertexWarning,
};
use buildkit_api::status::Status;
use engine::ops::build::{Findings, part_digest};
use prost::Message;
use tokio::sync::mpsc;

use super::failure::Place;

/// How many messages may wait for a client that reads slowly. As many are kept for one that does not read yet.
const DEPTH: usize = 1024;

/// How much of a Dockerfile is told with its warnings in all, in bytes: each of them has all of it.
const SOURCES_MAX: usize = 16 << 20;

/// A message on its way to the client.
pub(crate) type Told = Result<Vec<u8>, Status>;

/// What happens in a build.
#[derive(Debug)]
pub(crate) struct Progress {
    reference: String,
    sender: Mutex<Option<mpsc::Sender<Told>>>,
    receiver: Mutex<Option<mpsc::Receiver<Told>>>,
    is_read: AtomicBool,
    /// How many parts have begun.
    parts: AtomicUsize,
    /// Parts that have not ended, by what they are known by.
    going_on: Mutex<BTreeMap<String, Vertex>>,
    /// What was told, for who asks when the build has ended.
    log: Mutex<Log>,
}

/// What a build has told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// Each message behind its length in four bytes, the lowest first (solver/llbsolver, history.go, `ImportStatus`).
    pub(crate) bytes: Vec<u8>,
    /// Its parts: whether they were done before, and whether they have ended.
    parts: BTreeMap<String, (bool, bool)>,
    pub(crate) warnings: i32,
}

impl Log {
    fn add(&mut self, message: &StatusResponse, bytes: &[u8]) {
        for vertex in &message.vertexes {
            let part = self.parts.entry(vertex.digest.clone()).or_default();
            *part = (part.0 || vertex.cached, part.1 || vertex.completed.is_some());
        }
        self.warnings += i32::try_from(message.warnings.len()).unwrap_or_default();
        // Commands may print for ever; that parts begin and end is told within the second bound.
        let most = if message.logs.is_empty() { LOG_MAX } else { OUTPUT_MAX };
        if let Ok(length) = u32::try_from(bytes.len())
            && self.bytes.len() + bytes.len() <= most
        {
            self.bytes.extend_from_slice(&length.to_le_bytes());
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// How many parts there are, were done before, and have ended.
    pub(crate) fn steps(&self) -> [i32; 3] {
        let count = |is: fn(&(bool, bool)) -> bool| self.parts.values().filter(|part| is(part)).count();
        [count(|_| true), count(|part| part.0), count(|part| part.1)]
            .map(|count| i32::try_from(count).unwrap_or(i32::MAX))
    }

    /// The messages of a log, in order; what is cut ends it.
    pub(crate) fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk() {
            let Some((message, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
            messages.push(message.to_vec());
            bytes = rest;
        }
        messages
    }
}

/// What clients read of a part that was given up. They show it as CANCELED (BuildKit's util/progress/progressui).
pub(super) const GIVEN_UP: &str = "context canceled";

/// How much of what commands print is remembered, in bytes: BuildKit tells 2 MiB of each.
const OUTPUT_MAX: usize = 8 << 20;

/// How much of a log is remembered at all.
const LOG_MAX: usize = 12 << 20;

/// A part of a build that goes on.
#[derive(Clone, Debug)]
pub(crate) struct Part(Vertex);

impl Part {
    /// It was done before; told when it ends.
    pub(crate) fn is_cached(&mut self) {
        self.0.cached = true;
    }

    /// What it is known by.
    pub(crate) fn digest(&self) -> &str {
        &self.0.digest
    }
}

impl Progress {
    /// That of a build of a name.
    pub(crate) fn new(reference: &str) -> Progress {
        let (sender, receiver) = mpsc::channel(DEPTH);
        Progress {
            reference: reference.to_owned(),
            sender: Mutex::new(Some(sender)),
            receiver: Mutex::new(Some(receiver)),
            is_read: AtomicBool::new(false),
            parts: AtomicUsize::new(0),
            going_on: Mutex::default(),
            log: Mutex::default(),
        }
    }

    /// All of it, for the first who asks.
    pub(crate) fn read(&self) -> Option<mpsc::Receiver<Told>> {
        self.is_read.store(true, Ordering::Relaxed);
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether somebody reads it.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// Nothing more happens: what has not ended was given up.
    pub(crate) fn close(&self) {
        self.give_up();
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// What has not ended was given up.
    pub(crate) fn give_up(&self) {
        let given_up = std::mem::take(&mut *self.going_on.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = |vertex| Vertex { completed: Some(now()), error: GIVEN_UP.to_owned(), ..vertex };
        let vertexes: Vec<Vertex> = given_up.into_values().map(ended).collect();
        if vertexes.is_empty() {
            return;
        }
        let message = StatusResponse { vertexes, ..StatusResponse::default() };
        let bytes = message.encode_to_vec();
        self.log.lock().unwrap_or_else(PoisonError::into_inner).add(&message, &bytes);
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Who has left so much unread does not hear of it.
        sender.map(|sender| sender.try_send(Ok(bytes)));
    }

    /// All that was told until now.
    pub(crate) fn log(&self) -> Log {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn tell(&self, message: StatusResponse) {
        let bytes = message.encode_to_vec();
        self.log.lock().unwrap_or_else(PoisonError::into_inner).add(&message, &bytes);
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sender) = sender else { return };
        let told = Ok(bytes);
        // Who does not read at all misses what there is no place for; who has stopped reading needs nothing.
        match self.is_read() {
            true => drop(sender.send(told).await),
            false => drop(sender.try_send(told)),
        }
    }

    async fn vertex(&self, vertex: Vertex) {
        self.tell(StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() }).await;
    }

    /// A part begins, behind another one.
    pub(crate) async fn begin(&self, name: &str, after: Option<&Part>) -> Part {
        let number = self.parts.fetch_add(1, Ordering::Relaxed);
        let vertex = Vertex {
            digest: part_digest(&self.reference, number),
            inputs: after.map(|part| part.0.digest.clone()).into_iter().collect(),
            name: name.to_owned(),
            started: Some(now()),
            ..Vertex::default()
        };
        self.begins(vertex.clone()).await;
        Part(vertex)
    }

    /// A part that has ended is needed, and was done before.
    pub(crate) async fn begin_cached(&self, part: &mut Part) {
        part.is_cached();
        part.0.started = Some(now());
        self.begins(part.0.clone()).await;
    }

    async fn begins(&self, vertex: Vertex) {
        let all = || self.going_on.lock().unwrap_or_else(PoisonError::into_inner);
        all().insert(vertex.digest.clone(), vertex.clone());
        self.vertex(vertex).await;
    }

    /// A part has ended.
    pub(crate) async fn end(&self, part: &Part, error: Option<&str>) {
        let error = error.unwrap_or_default().to_owned();
        self.going_on.lock().unwrap_or_else(PoisonError::into_inner).remove(part.digest());
        self.vertex(Vertex { completed: Some(now()), error, ..part.0.clone() }).await;
    }

    /// A part prints something.
    pub(crate) async fn prints(&self, part: &Part, is_error: bool, bytes: Vec<u8>) {
        let vertex = part.0.digest.clone();
        let log = VertexLog { vertex, timestamp: Some(now()), stream: 1 + i64::from(is_error), message: bytes };
        self.tell(StatusResponse { logs: vec![log], ..StatusResponse::default() }).await;
    }

    /// Checks find something in the Dockerfile that a part of the build has loaded.
    pub(crate) async fn warn(&self, vertex: &str, place: &Place, findings: &Findings) {
        let mut bytes = 0;
        for warning in &findings.warnings {
            bytes += place.text.len();
            let info = (bytes <= SOURCES_MAX).then(|| SourceInfo {
                filename: place.name.clone(),
                data: place.text.clone(),
                language: "Dockerfile".to_owned(),
            });
            let told = VertexWarning {
                vertex: vertex.to_owned(),
                level: 1,
                short: warning.short().into_bytes(),
                detail: vec![warning.rule.description.as_bytes().to_vec()],
                url: warning.rule.url.to_owned(),
                info,
                ranges: warning.ranges().into_iter().map(Range::of_lines).collect(),
            };
            self.tell(StatusResponse { warnings: vec![told], ..StatusResponse::default() }).await;
        }
    }

    /// Something begins in a part; what is answered ends it.
    pub(crate) async fn goes_on(&self, part: &Part, id: &str) -> VertexStatus {
        let (vertex, now) = (part.0.digest.clone(), Some(now()));
        let status =
            VertexStatus { id: id.to_owned(), vertex, timestamp: now, started: now, ..VertexStatus::default() };
        self.status(status.clone()).await;
        status
    }

    /// Something in a part has come to so many bytes.
    pub(crate) async fn is_at(&self, status: &VertexStatus, bytes: u64) {
        let current = bytes.cast_signed();
        self.status(VertexStatus { current, timestamp: Some(now()), ..status.clone() }).await;
    }

    /// Something in a part has ended, after so many bytes.
    pub(crate) async fn has_ended(&self, status: VertexStatus, bytes: u64) {
        let now = Some(now());
        let current = bytes.cast_signed();
        self.status(VertexStatus { current, timestamp: now, completed: now, ..status }).await;
    }

    async fn status(&self, status: VertexStatus) {
        self.tell(StatusResponse { statuses: vec![status], ..StatusResponse::default() }).await;
    }
}

fn now() -> Timestamp {
    Timestamp::of_nanos(now_nanos())
}

/// Now, in nanoseconds since 1970.
pub(super) fn now_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
