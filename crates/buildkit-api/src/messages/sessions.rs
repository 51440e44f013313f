//! What clients are asked on their sessions.

use std::collections::BTreeMap;

/// A step of carrying a directory over (fsutil/types/wire.proto).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Packet {
    /// What it is, a [`PacketKind`].
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// Of [`PacketKind::Stat`]; without one all have been told.
    #[prost(message, optional, tag = "2")]
    pub stat: Option<Stat>,
    /// The place of an entry among those that were told, from 0.
    #[prost(uint32, tag = "3")]
    pub id: u32,
    /// Bytes of a file, none at its end; of a failure its sentence.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: bytes::Bytes,
}

/// What a [`Packet`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum PacketKind {
    /// An entry.
    Stat = 0,
    /// A file is wanted.
    Request = 1,
    /// Part of a file.
    Data = 2,
    /// All is there.
    End = 3,
    /// Something failed.
    Failure = 4,
}

/// An entry of a directory (fsutil/types/stat.proto).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stat {
    /// From the top, with slashes.
    #[prost(string, tag = "1")]
    pub path: String,
    /// As Go writes it: its own bits for kinds, set-user-id and sticky above the permissions.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// The owner.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// The group.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// In bytes.
    #[prost(int64, tag = "5")]
    pub size: i64,
    /// In nanoseconds since 1970.
    #[prost(int64, tag = "6")]
    pub modified_nanos: i64,
    /// Where a symbolic link leads, or of what else a file is another name.
    #[prost(string, tag = "7")]
    pub link: String,
    /// Of a device.
    #[prost(int64, tag = "8")]
    pub major: i64,
    /// Of a device.
    #[prost(int64, tag = "9")]
    pub minor: i64,
    /// Extended attributes.
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Whose login is wanted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CredentialsRequest {
    /// The registry.
    #[prost(string, tag = "1")]
    pub host: String,
}

/// A login; of none both are empty.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CredentialsResponse {
    /// The name; empty where the secret is a token that identifies.
    #[prost(string, tag = "1")]
    pub username: String,
    /// The password.
    #[prost(string, tag = "2")]
    pub secret: String,
}

/// Which secret is wanted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetSecretRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// A secret.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetSecretResponse {
    /// Its bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

/// Which blob of a store is wanted (containerd's services.content.v1).
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadContentRequest {
    /// Its digest.
    #[prost(string, tag = "1")]
    pub digest: String,
    /// From which byte.
    #[prost(int64, tag = "2")]
    pub offset: i64,
    /// How many bytes; 0 for all.
    #[prost(int64, tag = "3")]
    pub size: i64,
}

/// Bytes of a blob.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadContentResponse {
    /// How many there were before.
    #[prost(int64, tag = "1")]
    pub offset: i64,
    /// These.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: bytes::Bytes,
}

/// What becomes of a blob that is being written, a step of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum WriteAction {
    /// It is asked how far it is.
    Stat = 0,
    /// There is more of it.
    Write = 1,
    /// It is whole, and there from now on.
    Commit = 2,
}

/// A step of writing a blob.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteContentRequest {
    /// What becomes of it, a [`WriteAction`].
    #[prost(int32, tag = "1")]
    pub action: i32,
    /// What it is called until it is whole.
    #[prost(string, tag = "2")]
    pub name: String,
    /// How long it is, in bytes; 0 where that is not known.
    #[prost(int64, tag = "3")]
    pub total: i64,
    /// Its digest; empty where that is not known.
    #[prost(string, tag = "4")]
    pub expected: String,
    /// How many bytes there were before.
    #[prost(int64, tag = "5")]
    pub offset: i64,
    /// These.
    #[prost(bytes = "bytes", tag = "6")]
    pub data: bytes::Bytes,
}

/// How far a blob is that is being written.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteContentResponse {
    /// The step that was done, a [`WriteAction`].
    #[prost(int32, tag = "1")]
    pub action: i32,
    /// How many bytes there are.
    #[prost(int64, tag = "4")]
    pub offset: i64,
    /// How many there will be.
    #[prost(int64, tag = "5")]
    pub total: i64,
    /// The digest of those that are there.
    #[prost(string, tag = "6")]
    pub digest: String,
}

/// Which blob is not written any more.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AbortWriteRequest {
    /// What it is called until it is whole.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Which agent is asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckAgentRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// What is said to an agent, or by one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AgentBytes {
    /// As it is.
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

/// Part of a file that is sent to the client (session/filesync).
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileBytes {
    /// As it is.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: bytes::Bytes,
}
