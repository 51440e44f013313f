//! What messages have in common.

/// A message without fields.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// A point in time (google/protobuf/timestamp.proto).
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// And nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// So many nanoseconds since 1970.
    pub fn of_nanos(nanos: i64) -> Timestamp {
        const SECOND: i64 = 1_000_000_000;
        Timestamp { seconds: nanos.div_euclid(SECOND), nanos: nanos.rem_euclid(SECOND) as i32 }
    }
}

/// Something of a named type (google/protobuf/any.proto).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// The type.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Its bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// A failure (google/rpc/status.proto).
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// Its number.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// Its sentence.
    #[prost(string, tag = "2")]
    pub message: String,
    /// What programs read of it.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// What something runs on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Platform {
    /// `amd64`
    #[prost(string, tag = "1")]
    pub architecture: String,
    /// `linux`
    #[prost(string, tag = "2")]
    pub os: String,
    /// `v8`
    #[prost(string, tag = "3")]
    pub variant: String,
}
