//! Contexts that are shown whole, or go elsewhere.

use super::{Arity, Command, FORMAT, Verb, command};
use crate::args::ContextVerb;

/// `context export`
pub(super) const EXPORT: Command = command(
    &["context export"],
    "[OPTIONS] CONTEXT [FILE|-]",
    "Export a context to a tar archive FILE or a tar stream on STDOUT.",
    Verb::Context(ContextVerb::Export),
)
.arity(Arity::Between(1, 2));

/// `context import`
pub(super) const IMPORT: Command = command(
    &["context import"],
    "CONTEXT FILE|-",
    "Import a context from a tar archive",
    Verb::Context(ContextVerb::Import),
)
.arity(Arity::Exactly(2));

/// `context inspect`
pub(super) const INSPECT: Command = command(
    &["context inspect"],
    "[OPTIONS] [CONTEXT] [CONTEXT...]",
    "Show all about contexts",
    Verb::Context(ContextVerb::Inspect),
)
.flags(&[&[FORMAT.short('f')]])
.arity(Arity::Min(0));
