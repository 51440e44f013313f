//! How a command ends, and how errors read to people.

use std::io::{self, IsTerminal};

use client::ClientError;

use crate::warn_line;

/// How a command ended early: what to say on standard error, and the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// What to say; nothing if everything has been said.
    pub message: Option<String>,
    /// The status.
    pub status: u8,
}

impl Exit {
    /// With a message.
    pub fn new(status: u8, message: impl Into<String>) -> Exit {
        Exit { message: Some(message.into()), status }
    }

    /// Without a message.
    pub fn silent(status: u8) -> Exit {
        Exit { message: None, status }
    }

    /// An error that is shown with its sources; status 1.
    pub fn error(err: &dyn std::error::Error) -> Exit {
        Exit::new(1, chain(err))
    }
}

impl From<ClientError> for Exit {
    fn from(err: ClientError) -> Exit {
        Exit::new(1, client_error(&err))
    }
}

/// A line of the log that Docker's client keeps on standard error.
pub fn warn(message: &str) {
    if io::stderr().is_terminal() {
        return warn_line!("WARN[0000] {message} ");
    }
    let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    // Go writes UTC so.
    let now = now.strip_suffix("+00:00").map_or(now.clone(), |utc| format!("{utc}Z"));
    warn_line!("time=\"{now}\" level=warning msg=\"{message}\"");
}

/// The sentence for a failed call.
pub fn client_error(err: &ClientError) -> String {
    match err {
        // The sentence says it all; "no such file" behind it would point at the wrong cure.
        ClientError::Connect { .. } | ClientError::Denied { .. } => err.to_string(),
        _ => chain(err),
    }
}

/// An error with its sources as Docker's client prints it: system errors in Go's words, and nothing twice.
pub fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        // Sentences that equal Docker's already end with the reason (see `go_error`).
        let reason = err.downcast_ref::<io::Error>().map_or_else(|| err.to_string(), go_error);
        if !text.ends_with(&reason) {
            text = format!("{text}: {reason}");
        }
        source = err.source();
    }
    text
}

/// A system error as Go prints it: `no such file or directory`.
pub fn go_error(err: &io::Error) -> String {
    let text = err.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
