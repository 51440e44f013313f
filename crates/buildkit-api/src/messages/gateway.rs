//! `moby.buildkit.v1.frontend.LLBBridge`: what clients ask that read definitions themselves.

use std::collections::BTreeMap;

use super::common::{Empty, RpcStatus};
use super::control::WorkerRecord;
use super::definition::Definition;

/// What we can do.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PongResponse {
    /// Of this service.
    #[prost(message, repeated, tag = "1")]
    pub frontend: Vec<ApiCap>,
    /// Of graphs of operations.
    #[prost(message, repeated, tag = "2")]
    pub graphs: Vec<ApiCap>,
    /// Who builds.
    #[prost(message, repeated, tag = "3")]
    pub workers: Vec<WorkerRecord>,
}

/// Something that can be done (util/apicaps/pb/caps.proto).
#[derive(Clone, PartialEq, prost::Message)]
pub struct ApiCap {
    /// What.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Whether it can.
    #[prost(bool, tag = "2")]
    pub enabled: bool,
}

/// What is to be solved.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BridgeSolveRequest {
    /// A graph of operations; we only look whether there is one.
    #[prost(message, optional, tag = "1")]
    pub definition: Option<Empty>,
    /// Who reads the definition.
    #[prost(string, tag = "2")]
    pub frontend: String,
    /// What that is told.
    #[prost(btree_map = "string, string", tag = "3")]
    pub options: BTreeMap<String, String>,
    /// What other builds came to, by the names that the options have for it.
    #[prost(btree_map = "string, message", tag = "13")]
    pub inputs: BTreeMap<String, Definition>,
}

/// What it came to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BridgeSolveResponse {
    /// The outcome.
    #[prost(message, optional, tag = "3")]
    pub result: Option<BridgeResult>,
}

/// An outcome.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BridgeResult {
    /// What it is called.
    #[prost(message, optional, tag = "3")]
    pub reference: Option<Ref>,
    /// What is said of it.
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// The name of an outcome.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ref {
    /// Ours; empty for nothing.
    #[prost(string, tag = "1")]
    pub id: String,
    /// By which another build can have it as an input.
    #[prost(message, optional, tag = "2")]
    pub definition: Option<Definition>,
}

/// What the client came to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReturnRequest {
    /// This.
    #[prost(message, optional, tag = "1")]
    pub result: Option<BridgeResult>,
    /// Or this.
    #[prost(message, optional, tag = "2")]
    pub error: Option<RpcStatus>,
}

/// What has to be there.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EvaluateRequest {
    /// The name of an outcome.
    #[prost(string, tag = "1")]
    pub reference: String,
}
