//! Why a mount could not be made: which of its fields, what about it, and what the kernel says.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, read};

use crate::channel::{Failure, Reason};
use crate::error::CreateError;
use crate::mounts::MountPlan;

/// One failure, on either side of the clone.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The field's full name: `mounts[3].source`.
    pub(crate) field: String,
    /// The value, and what was tried with it.
    pub(crate) what: String,
    /// The kernel's answer.
    pub(crate) source: io::Error,
}

/// What of a mount's fields is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// None alone.
    Whole,
    Destination,
    Type,
    Source,
    Options,
    /// The ids that are mapped.
    Ids,
}

impl Part {
    /// The field's full name.
    pub(crate) fn of(self, plan: &MountPlan) -> String {
        let mapped = plan.id_map.as_ref().is_some_and(|map| map.ids.is_some());
        let part = match self {
            Part::Whole => return plan.field.clone(),
            Part::Destination => "destination",
            Part::Type => "type",
            Part::Source if plan.field == "root" => "path",
            Part::Source => "source",
            Part::Ids if mapped => "uidMappings",
            Part::Options | Part::Ids => "options",
        };
        format!("{}.{part}", plan.field)
    }

    /// Makes the kernel's answer a fault.
    pub(crate) fn fault<E: Into<io::Error>>(
        self,
        plan: &MountPlan,
        what: impl Into<String>,
    ) -> impl FnOnce(E) -> Fault {
        move |err| Fault { field: self.of(plan), what: what.into(), source: err.into() }
    }
}

impl From<Fault> for CreateError {
    fn from(Fault { field, what, source }: Fault) -> CreateError {
        CreateError::Refused { field, what, source }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        let errno = fault.source.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
        Failure { reason: Reason::Refused, errno, subject: format!("{}: {}", fault.field, fault.what) }
    }
}

/// What the kernel has written about a file system that is being made (fsopen(2), "Message Retrieval Interface"), in
/// brackets; empty if it is silent.
pub(crate) fn kernel_words(context: BorrowedFd<'_>) -> String {
    let mut words = Vec::new();
    let mut message = [0; 512];
    while let Ok(length @ 1..) = read(context, &mut message) {
        // `e tmpfs: Unknown parameter 'x'`: the letter is the message's weight.
        let text = String::from_utf8_lossy(&message[..length]);
        words.push(text.trim().split_once(' ').map_or("", |(_, text)| text).to_owned());
    }
    if words.is_empty() { String::new() } else { format!(" ({})", words.join("; ")) }
}
