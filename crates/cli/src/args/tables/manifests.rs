//! Lists of images.

use super::{Arity, Command, Flag, Kind, Verb, command};
use crate::args::ManifestVerb;

const INSECURE: Flag = Flag::bool("insecure", "The registry needs no good certificate, nor TLS");

/// `manifest annotate`
pub(super) const ANNOTATE: Command = command(
    &["manifest annotate"],
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    "Say which platform an image of a list is for",
    Verb::Manifest(ManifestVerb::Annotate),
)
.flags(&[&[
    Flag::value("arch", Kind::Text, "string", "Processor, in Go's name"),
    Flag::value("os", Kind::Text, "string", "Operating system, in Go's name"),
    Flag::value("os-features", Kind::Strings, "strings", "What the operating system must have"),
    Flag::value("os-version", Kind::Text, "string", "Version of the operating system"),
    Flag::value("variant", Kind::Text, "string", "Variant of the processor"),
]])
.arity(Arity::Exactly(2));

/// `manifest create`
pub(super) const CREATE: Command = command(
    &["manifest create"],
    "MANIFEST_LIST MANIFEST [MANIFEST...]",
    "Begin a list of images",
    Verb::Manifest(ManifestVerb::Create),
)
.flags(&[&[Flag::bool("amend", "Add to a list that was begun").short('a'), INSECURE]])
.arity(Arity::Min(2));

/// `manifest inspect`
pub(super) const INSPECT: Command = command(
    &["manifest inspect"],
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    "Show a manifest or a list of them",
    Verb::Manifest(ManifestVerb::Inspect),
)
.flags(&[&[INSECURE, Flag::bool("verbose", "Show each image's name, platform and manifest").short('v')]])
.arity(Arity::Between(1, 2));

/// `manifest push`
pub(super) const PUSH: Command = command(
    &["manifest push"],
    "[OPTIONS] MANIFEST_LIST",
    "Push a list of images to a registry",
    Verb::Manifest(ManifestVerb::Push),
)
.flags(&[&[INSECURE, Flag::bool("purge", "Forget the list when it is pushed").short('p')]])
.arity(Arity::Exactly(1));

/// `manifest rm`
pub(super) const REMOVE: Command = command(
    &["manifest rm"],
    "MANIFEST_LIST [MANIFEST_LIST...]",
    "Forget lists of images",
    Verb::Manifest(ManifestVerb::Remove),
)
.arity(Arity::Min(1));
