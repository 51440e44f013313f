//! `EXPOSE`.

use engine_api::ports;

/// Why a port is none. The sentences are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// A protocol is none.
    #[error("invalid proto: {0}")]
    Protocol(String),
    /// A port is none.
    #[error("invalid containerPort: {0}")]
    Port(String),
    /// A range of ports is none.
    #[error("invalid range format for containerPort: {0}")]
    Range(String),
}

/// The ports of `80`, `80-82/udp`.
pub fn exposed(word: &str) -> Result<Vec<String>, PortError> {
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(PortError::Protocol(protocol));
    }
    // What would be the host's stands in front, and means nothing here.
    let range = range.rsplit(':').next().unwrap_or(range);
    let number = |text: &str| ports::number(text).map_err(|_| PortError::Port(range.to_owned()));
    let (first, last) = match range.split_once('-') {
        None => (number(range)?, number(range)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    if first > last {
        return Err(PortError::Range(range.to_owned()));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}
