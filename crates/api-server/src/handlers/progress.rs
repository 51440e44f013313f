//! The lines in which long work is told (moby `pkg/jsonmessage`).

use engine_api::progress::{Progress, UNKNOWN_WIDTH};
use serde::Serialize;

/// One line of the stream.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Line {
    /// A part of the work, which has a line of a terminal for itself.
    Part {
        status: String,
        #[serde(rename = "progressDetail")]
        detail: Progress,
        #[serde(rename = "progress", skip_serializing_if = "String::is_empty")]
        text: String,
        id: String,
    },
    /// A sentence.
    Status {
        status: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// What is printed as it is.
    Text { stream: String },
    /// The end of what failed.
    Failed {
        #[serde(rename = "errorDetail")]
        detail: Detail,
        error: String,
    },
}

/// Why it failed.
#[derive(Serialize)]
pub(crate) struct Detail {
    message: String,
}

impl Line {
    /// A part, and how far it is.
    pub(crate) fn part(id: String, status: impl Into<String>, current: u64, total: u64) -> Line {
        let detail = Progress { current: current.cast_signed(), total: total.cast_signed() };
        Line::Part { status: status.into(), detail, text: detail.text(UNKNOWN_WIDTH), id }
    }

    /// A failure: the head is sent, and Docker's clients read it from the stream.
    pub(crate) fn failed(message: String) -> Line {
        Line::Failed { detail: Detail { message: message.clone() }, error: message }
    }
}
