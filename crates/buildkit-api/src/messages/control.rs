//! `moby.buildkit.v1.Control`.

use std::collections::BTreeMap;

use super::common::{Empty, Platform, Timestamp};

/// What is built, and where it goes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SolveRequest {
    /// The name of the build, the client's choice.
    #[prost(string, tag = "1")]
    pub reference: String,
    /// A graph of operations; we only look whether there is one.
    #[prost(message, optional, tag = "2")]
    pub definition: Option<Empty>,
    /// Where the outcome goes, as older clients say it.
    #[prost(string, tag = "3")]
    pub exporter: String,
    /// How, likewise.
    #[prost(btree_map = "string, string", tag = "4")]
    pub exporter_attributes: BTreeMap<String, String>,
    /// The session of the client's files.
    #[prost(string, tag = "5")]
    pub session: String,
    /// Who reads the definition; empty where the client asks the gateway.
    #[prost(string, tag = "6")]
    pub frontend: String,
    /// What that is told.
    #[prost(btree_map = "string, string", tag = "7")]
    pub frontend_attributes: BTreeMap<String, String>,
    /// Where steps are known, and where it is left what they came to.
    #[prost(message, optional, tag = "8")]
    pub cache: Option<CacheOptions>,
    /// What the client allows: `network.host`.
    #[prost(string, repeated, tag = "9")]
    pub entitlements: Vec<String>,
    /// Whether nobody wants to remember it.
    #[prost(bool, tag = "11")]
    pub internal: bool,
    /// Where the outcome goes.
    #[prost(message, repeated, tag = "13")]
    pub exporters: Vec<Exporter>,
}

/// Caches beside the daemon's own.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CacheOptions {
    /// Where it is left what steps came to.
    #[prost(message, repeated, tag = "4")]
    pub exports: Vec<CacheEntry>,
    /// Where steps are known.
    #[prost(message, repeated, tag = "5")]
    pub imports: Vec<CacheEntry>,
}

/// A cache.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CacheEntry {
    /// `registry`, `local`, `inline`, ...
    #[prost(string, tag = "1")]
    pub kind: String,
    /// `ref`, `mode`, ...
    #[prost(btree_map = "string, string", tag = "2")]
    pub attributes: BTreeMap<String, String>,
}

/// Where an outcome goes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exporter {
    /// `moby`, `local`, `oci`, ...
    #[prost(string, tag = "1")]
    pub kind: String,
    /// How.
    #[prost(btree_map = "string, string", tag = "2")]
    pub attributes: BTreeMap<String, String>,
}

/// What came of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SolveResponse {
    /// What the exporter says.
    #[prost(btree_map = "string, string", tag = "1")]
    pub exporter: BTreeMap<String, String>,
}

/// Of which build.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub reference: String,
}

/// What has happened since the last one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    /// Parts that began, ended, or are there.
    #[prost(message, repeated, tag = "1")]
    pub vertexes: Vec<Vertex>,
    /// What is going on in parts.
    #[prost(message, repeated, tag = "2")]
    pub statuses: Vec<VertexStatus>,
    /// What parts print.
    #[prost(message, repeated, tag = "3")]
    pub logs: Vec<VertexLog>,
    /// What people should know.
    #[prost(message, repeated, tag = "4")]
    pub warnings: Vec<VertexWarning>,
}

/// A part of a build.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Vertex {
    /// What it is known by.
    #[prost(string, tag = "1")]
    pub digest: String,
    /// What it needs.
    #[prost(string, repeated, tag = "2")]
    pub inputs: Vec<String>,
    /// What people read.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Whether it was done before.
    #[prost(bool, tag = "4")]
    pub cached: bool,
    /// When it began.
    #[prost(message, optional, tag = "5")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[prost(message, optional, tag = "6")]
    pub completed: Option<Timestamp>,
    /// Why it failed; empty where it did not.
    #[prost(string, tag = "7")]
    pub error: String,
}

/// Something that goes on in a part.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VertexStatus {
    /// What it is known by within its part, and what people read.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The part.
    #[prost(string, tag = "2")]
    pub vertex: String,
    /// What else it is called.
    #[prost(string, tag = "3")]
    pub name: String,
    /// How many bytes there are already.
    #[prost(int64, tag = "4")]
    pub current: i64,
    /// How many there will be; 0 where nobody knows.
    #[prost(int64, tag = "5")]
    pub total: i64,
    /// When it was so.
    #[prost(message, optional, tag = "6")]
    pub timestamp: Option<Timestamp>,
    /// When it began.
    #[prost(message, optional, tag = "7")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[prost(message, optional, tag = "8")]
    pub completed: Option<Timestamp>,
}

/// What a part prints.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VertexLog {
    /// The part.
    #[prost(string, tag = "1")]
    pub vertex: String,
    /// When.
    #[prost(message, optional, tag = "2")]
    pub timestamp: Option<Timestamp>,
    /// 1 for output, 2 for errors.
    #[prost(int64, tag = "3")]
    pub stream: i64,
    /// The bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub message: Vec<u8>,
}

/// What people should know of a part.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VertexWarning {
    /// The part.
    #[prost(string, tag = "1")]
    pub vertex: String,
    /// How much it matters; 1 for what everybody is shown.
    #[prost(int64, tag = "2")]
    pub level: i64,
    /// A line.
    #[prost(bytes = "vec", tag = "3")]
    pub short: Vec<u8>,
    /// More lines.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub detail: Vec<Vec<u8>>,
    /// Where more is said.
    #[prost(string, tag = "5")]
    pub url: String,
    /// The file that it is about.
    #[prost(message, optional, tag = "6")]
    pub info: Option<SourceInfo>,
    /// Where in it.
    #[prost(message, repeated, tag = "7")]
    pub ranges: Vec<Range>,
}

/// A file (solver/pb/ops.proto).
#[derive(Clone, PartialEq, prost::Message)]
pub struct SourceInfo {
    /// Its name.
    #[prost(string, tag = "1")]
    pub filename: String,
    /// What is in it.
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
    /// What it is written in.
    #[prost(string, tag = "4")]
    pub language: String,
}

/// A part of a file.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Range {
    /// Where it begins.
    #[prost(message, optional, tag = "1")]
    pub start: Option<Position>,
    /// Where it ends.
    #[prost(message, optional, tag = "2")]
    pub end: Option<Position>,
}

/// A place in a file.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Position {
    /// The line, from 1.
    #[prost(int32, tag = "1")]
    pub line: i32,
    /// The letter, from 0.
    #[prost(int32, tag = "2")]
    pub character: i32,
}

impl Range {
    /// Whole lines, from 1.
    pub fn of_lines((first, last): (usize, usize)) -> Range {
        let position = |line| Some(Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
        Range { start: position(first), end: position(last) }
    }
}

/// Who builds here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListWorkersResponse {
    /// All.
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<WorkerRecord>,
}

/// One who builds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WorkerRecord {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// What else is said of it.
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
    /// What it builds for.
    #[prost(message, repeated, tag = "3")]
    pub platforms: Vec<Platform>,
    /// What it is.
    #[prost(message, optional, tag = "5")]
    pub version: Option<BuildkitVersion>,
}

/// What somebody is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildkitVersion {
    /// The program.
    #[prost(string, tag = "1")]
    pub package: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Its commit.
    #[prost(string, tag = "3")]
    pub revision: String,
}

/// What we are.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InfoResponse {
    /// This.
    #[prost(message, optional, tag = "1")]
    pub version: Option<BuildkitVersion>,
}

/// What is forgotten.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PruneRequest {
    /// What it must be: `id==x`.
    #[prost(string, repeated, tag = "1")]
    pub filter: Vec<String>,
    /// Whether what could be had again without work goes, too.
    #[prost(bool, tag = "2")]
    pub all: bool,
    /// How old it must be, in nanoseconds.
    #[prost(int64, tag = "3")]
    pub keep_nanos: i64,
    /// So many bytes stay in any case.
    #[prost(int64, tag = "4")]
    pub reserved_space: i64,
    /// No more of them stay.
    #[prost(int64, tag = "5")]
    pub max_used_space: i64,
    /// So many shall be free on the disk.
    #[prost(int64, tag = "6")]
    pub min_free_space: i64,
}

/// What is remembered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DiskUsageResponse {
    /// All.
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<UsageRecord>,
}

/// Something that is remembered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UsageRecord {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Whether a build uses it.
    #[prost(bool, tag = "3")]
    pub in_use: bool,
    /// How many bytes it takes.
    #[prost(int64, tag = "4")]
    pub size: i64,
    /// Since when it is there.
    #[prost(message, optional, tag = "6")]
    pub created_at: Option<Timestamp>,
    /// How often it was used, as far as that is counted.
    #[prost(int64, tag = "8")]
    pub usage_count: i64,
    /// What it is.
    #[prost(string, tag = "9")]
    pub description: String,
    /// Of which kind it is: `regular`.
    #[prost(string, tag = "10")]
    pub kind: String,
    /// Whether an image has it, too.
    #[prost(bool, tag = "11")]
    pub shared: bool,
}
