//! Archives of images.

use super::{Arity, Command, Flag, Kind, Verb, command};

/// `load`
pub(super) const LOAD: Command =
    command(&["load", "image load"], "[OPTIONS]", "Load images from an archive", Verb::Load).flags(&[&[
        Flag::value("input", Kind::Text, "string", "Read this file instead of standard input").short('i'),
        Flag::value("platform", Kind::Text, "string", "Load only images of this platform"),
        Flag::bool("quiet", "Do not show progress").short('q'),
    ]]);

/// `save`
pub(super) const SAVE: Command =
    command(&["save", "image save"], "[OPTIONS] IMAGE [IMAGE...]", "Write images as a tar archive", Verb::Save)
        .flags(&[&[
            Flag::value("output", Kind::Text, "string", "Write to this file").short('o'),
            Flag::value("platform", Kind::Text, "string", "Only images of this platform"),
        ]])
        .arity(Arity::Min(1));
