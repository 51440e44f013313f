//! The flags of `image bootstrap`, which Docker does not have.

use super::{Arity, Command, Flag, Kind, Verb, command};

/// The command.
pub(super) const BOOTSTRAP: Command = command(
    &["image bootstrap"],
    "[OPTIONS] debian:SUITE|ubuntu:SUITE",
    "Make a base image from a distribution's packages, without a registry",
    Verb::Bootstrap,
)
.flags(&[&[
    Flag::value("include", Kind::Strings, "package", "Packages beside those of the variant"),
    Flag::value("mirror", Kind::List, "url", "Take packages from here alone: a URL, or a line for sources.list"),
    Flag::bool("quiet", "Show no progress").short('q'),
    Flag::value("tag", Kind::List, "name", "Name of the image; that of the distribution and suite if not said")
        .short('t'),
    Flag::value(
        "variant",
        Kind::Text,
        "string",
        "Which packages: apt, buildd, essential, important, minbase, slim or standard",
    )
    .default(crate::plan::bootstrap::VARIANT),
]])
.arity(Arity::Exactly(1));
