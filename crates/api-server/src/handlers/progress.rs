//! The lines in which long work is told (moby `pkg/jsonmessage`).

use std::collections::BTreeMap;

use engine::ops::build::{Descriptor, Explanation};
use engine_api::image::PushedInstead;
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
        #[serde(skip_serializing_if = "String::is_empty")]
        id: String,
    },
    /// A sentence.
    Status {
        status: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// What a push tells programs about a tag.
    Pushed {
        #[serde(rename = "progressDetail")]
        detail: Progress,
        aux: PushedTag,
    },
    /// That a push gave one image, for programs.
    Instead { aux: Box<PushedInstead> },
    /// What is printed as it is.
    Text { stream: String },
    /// What was made, for programs.
    Made { aux: Made },
    /// What became of a step of a build, and why, for programs.
    Explained { aux: Explained },
    /// The container of a command that failed, for the client.
    Kept { aux: Kept },
    /// A cache that is left in a directory of the client's, for the client.
    CacheLeft { aux: Box<CacheLeft> },
    /// What is said of what a build has brought to outputs, for the client.
    Exported { aux: Exported },
    /// Where a build has failed, for the client.
    FailedAt { aux: Box<FailedAt> },
    /// The end of what failed.
    Failed {
        #[serde(rename = "errorDetail")]
        detail: Detail,
        error: String,
    },
}

/// A tag that is there.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PushedTag {
    tag: String,
    digest: String,
    size: u64,
}

/// What a build has made.
#[derive(Serialize)]
pub(crate) struct Made {
    #[serde(rename = "ID")]
    id: String,
}

/// What became of a step.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Explained {
    explained: Box<Explanation>,
}

/// A container that the client keeps.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Kept {
    failed_container: String,
}

/// A cache that the client has.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CacheLeft {
    cache_left: String,
    manifest: Descriptor,
}

/// What is said of outputs: `containerimage.digest`, ...
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Exported {
    exported: BTreeMap<String, String>,
}

/// Where a build has failed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct FailedAt {
    pub(crate) failed_at: Fault,
}

/// What is to blame.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Fault {
    /// The first line, from 1; 0 for none.
    pub(crate) line: usize,
    /// The last one.
    pub(crate) end: usize,
    /// The lines with some around them, to be shown as they are.
    pub(crate) excerpt: String,
    /// What may help; empty for nothing.
    pub(crate) hint: String,
    /// The file that is not in the context; empty if it is something else.
    pub(crate) missing: String,
}

/// Why it failed.
#[derive(Serialize)]
pub(crate) struct Detail {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    message: String,
}

impl Line {
    /// A part, and how far it is.
    pub(crate) fn part(id: String, status: impl Into<String>, current: u64, total: u64) -> Line {
        let detail = Progress { current: current.cast_signed(), total: total.cast_signed() };
        Line::Part { status: status.into(), detail, text: detail.text(UNKNOWN_WIDTH), id }
    }

    /// What has no parts, and how far it is; `total` is -1 where nobody knows.
    pub(crate) fn whole(status: &str, current: i64, total: i64) -> Line {
        let detail = Progress { current, total };
        Line::Part { status: status.to_owned(), detail, text: detail.text(UNKNOWN_WIDTH), id: String::new() }
    }

    /// A part that was cut and waits.
    pub(crate) fn retrying(id: String, seconds: u64) -> Line {
        let plural = if seconds == 1 { "" } else { "s" };
        Line::part(id, format!("Retrying in {seconds} second{plural}"), 0, 0)
    }

    /// The container of a command that failed.
    pub(crate) fn kept(failed_container: String) -> Line {
        Line::Kept { aux: Kept { failed_container } }
    }

    /// A cache that is left in a directory of the client's.
    pub(crate) fn cache_left(directory: String, manifest: Descriptor) -> Line {
        Line::CacheLeft { aux: Box::new(CacheLeft { cache_left: directory, manifest }) }
    }

    /// What is said of outputs.
    pub(crate) fn exported(exported: BTreeMap<String, String>) -> Line {
        Line::Exported { aux: Exported { exported } }
    }

    /// What became of a step of a build.
    pub(crate) fn explained(explained: Box<Explanation>) -> Line {
        Line::Explained { aux: Explained { explained } }
    }

    /// A tag that is there.
    pub(crate) fn pushed(tag: String, digest: String, size: u64) -> Line {
        Line::Pushed { detail: Progress { current: 0, total: 0 }, aux: PushedTag { tag, digest, size } }
    }

    /// A failure: the head is sent, and Docker's clients read it from the stream.
    pub(crate) fn failed(message: String) -> Line {
        Line::failed_with(None, message)
    }

    /// The same, of a program that ended with a code.
    pub(crate) fn failed_with(code: Option<i64>, message: String) -> Line {
        Line::Failed { detail: Detail { code, message: message.clone() }, error: message }
    }

    /// An image.
    pub(crate) fn made(id: String) -> Line {
        Line::Made { aux: Made { id } }
    }
}
