//! The messages of which we read or write something: the fields that we know, by BuildKit's names (api/services/control,
//! frontend/gateway/pb, session, fsutil). What else a message has is skipped.

mod build;
mod common;
mod control;
mod definition;
mod gateway;
mod history;
mod sessions;

pub use build::{SourceError, VertexError};
pub use common::{Any, Empty, Platform, RpcStatus, Timestamp};
pub use control::{
    BuildkitVersion, CacheEntry, CacheOptions, DiskUsageResponse, Exporter, InfoResponse, ListWorkersResponse,
    Position, PruneRequest, Range, SolveRequest, SolveResponse, SourceInfo, StatusRequest, StatusResponse, UsageRecord,
    Vertex, VertexLog, VertexStatus, VertexWarning, WorkerRecord,
};
pub use definition::Definition;
pub use gateway::{
    ApiCap, BridgeResult, BridgeSolveRequest, BridgeSolveResponse, EvaluateRequest, PongResponse, Ref, ReturnRequest,
};
pub use history::{
    BlobDescriptor, BuildHistoryEvent, BuildHistoryKind, BuildHistoryRecord, BuildHistoryRequest, BuildResult,
    ContentInfo, ContentInfoRequest, ContentInfoResponse, UpdateBuildHistoryRequest,
};
pub use sessions::{
    AbortWriteRequest, AgentBytes, CheckAgentRequest, CredentialsRequest, CredentialsResponse, FileBytes,
    GetSecretRequest, GetSecretResponse, Packet, PacketKind, ReadContentRequest, ReadContentResponse, Stat,
    WriteAction, WriteContentRequest, WriteContentResponse,
};
