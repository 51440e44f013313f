//! The history of builds (`moby.buildkit.v1.Control`), and the blobs that it names (containerd's services.content.v1).

use std::collections::BTreeMap;

use super::common::{RpcStatus, Timestamp};
use super::control::Exporter;

/// Which builds are told.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildHistoryRequest {
    /// Whether only those that go on.
    #[prost(bool, tag = "1")]
    pub active_only: bool,
    /// Only this one.
    #[prost(string, tag = "2")]
    pub reference: String,
    /// Whether nothing is told of what happens from now on.
    #[prost(bool, tag = "3")]
    pub early_exit: bool,
    /// What they must be: any of these.
    #[prost(string, repeated, tag = "4")]
    pub filters: Vec<String>,
    /// How many, of those that have ended; 0 for all.
    #[prost(int32, tag = "5")]
    pub limit: i32,
}

/// What happened to a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum BuildHistoryKind {
    /// It began.
    Started = 0,
    /// It has ended, or is said more of.
    Complete = 1,
    /// It was forgotten.
    Deleted = 2,
}

/// Something that happened to a build.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildHistoryEvent {
    /// [`BuildHistoryKind`].
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// The build.
    #[prost(message, optional, tag = "2")]
    pub record: Option<BuildHistoryRecord>,
}

/// A build.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildHistoryRecord {
    /// Its name.
    #[prost(string, tag = "1")]
    pub reference: String,
    /// Who read the definition.
    #[prost(string, tag = "2")]
    pub frontend: String,
    /// What that was told.
    #[prost(btree_map = "string, string", tag = "3")]
    pub frontend_attributes: BTreeMap<String, String>,
    /// Where the outcome went.
    #[prost(message, repeated, tag = "4")]
    pub exporters: Vec<Exporter>,
    /// Why it failed, without what programs read of it.
    #[prost(message, optional, tag = "5")]
    pub error: Option<RpcStatus>,
    /// When it began.
    #[prost(message, optional, tag = "6")]
    pub created_at: Option<Timestamp>,
    /// When it ended.
    #[prost(message, optional, tag = "7")]
    pub completed_at: Option<Timestamp>,
    /// What it told.
    #[prost(message, optional, tag = "8")]
    pub logs: Option<BlobDescriptor>,
    /// What was said of where the outcome went.
    #[prost(btree_map = "string, string", tag = "9")]
    pub exporter_response: BTreeMap<String, String>,
    /// What it came to, for one platform.
    #[prost(message, optional, tag = "10")]
    pub result: Option<BuildResult>,
    /// What it came to, by platforms.
    #[prost(btree_map = "string, message", tag = "11")]
    pub results: BTreeMap<String, BuildResult>,
    /// How often something of this was changed.
    #[prost(int32, tag = "12")]
    pub generation: i32,
    /// Whether it stays.
    #[prost(bool, tag = "14")]
    pub pinned: bool,
    /// How many parts were done before.
    #[prost(int32, tag = "15")]
    pub cached_steps: i32,
    /// How many parts it had.
    #[prost(int32, tag = "16")]
    pub total_steps: i32,
    /// How many of them have ended.
    #[prost(int32, tag = "17")]
    pub completed_steps: i32,
    /// Why it failed, all of it.
    #[prost(message, optional, tag = "18")]
    pub external_error: Option<BlobDescriptor>,
    /// What checks found.
    #[prost(int32, tag = "19")]
    pub warnings: i32,
}

/// A blob.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BlobDescriptor {
    /// What it is.
    #[prost(string, tag = "1")]
    pub media_type: String,
    /// Its digest.
    #[prost(string, tag = "2")]
    pub digest: String,
    /// Its length in bytes.
    #[prost(int64, tag = "3")]
    pub size: i64,
    /// What else is said of it.
    #[prost(btree_map = "string, string", tag = "5")]
    pub annotations: BTreeMap<String, String>,
}

/// What a build came to for a platform.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildResult {
    /// What is said of it.
    #[prost(message, repeated, tag = "2")]
    pub attestations: Vec<BlobDescriptor>,
    /// What it is, by the numbers of its outputs.
    #[prost(btree_map = "int64, message", tag = "3")]
    pub results: BTreeMap<i64, BlobDescriptor>,
}

/// What is to become of a build that has ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateBuildHistoryRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub reference: String,
    /// Whether it stays.
    #[prost(bool, tag = "2")]
    pub pinned: bool,
    /// Whether it is forgotten.
    #[prost(bool, tag = "3")]
    pub delete: bool,
    /// Whether nothing more comes to it; of ours nothing does.
    #[prost(bool, tag = "4")]
    pub finalize: bool,
}

/// Of which blob something is wanted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContentInfoRequest {
    /// Its digest.
    #[prost(string, tag = "1")]
    pub digest: String,
}

/// What is known of a blob.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContentInfoResponse {
    /// This.
    #[prost(message, optional, tag = "1")]
    pub info: Option<ContentInfo>,
}

/// What is known of a blob.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContentInfo {
    /// Its digest.
    #[prost(string, tag = "1")]
    pub digest: String,
    /// Its length in bytes.
    #[prost(int64, tag = "2")]
    pub size: i64,
}
