//! Images of registries.

use super::{Arity, Command, DISABLE_CONTENT_TRUST, Flag, Kind, Verb, command};

/// `pull`
pub(super) const PULL: Command =
    command(&["pull", "image pull"], "[OPTIONS] NAME[:TAG|@DIGEST]", "Pull an image from a registry", Verb::Pull)
        .flags(&[&[
            Flag::bool("all-tags", "Pull every tag of the repository").short('a'),
            DISABLE_CONTENT_TRUST,
            Flag::value("platform", Kind::Text, "string", "Platform of the image"),
            Flag::bool("quiet", "Do not show progress").short('q'),
        ]])
        .arity(Arity::Exactly(1));

/// `push`
pub(super) const PUSH: Command =
    command(&["push", "image push"], "[OPTIONS] NAME[:TAG]", "Push an image to a registry", Verb::Push)
        .flags(&[&[
            Flag::bool("all-tags", "Push every tag of the repository").short('a'),
            DISABLE_CONTENT_TRUST,
            Flag::value(
                "platform",
                Kind::Text,
                "string",
                "Only if the image is for this platform (os[/arch[/variant]])",
            ),
            Flag::bool("quiet", "Do not show progress").short('q'),
        ]])
        .arity(Arity::Exactly(1));

/// `login`
pub(super) const LOGIN: Command = command(&["login"], "[OPTIONS] [SERVER]", "Log in to a registry", Verb::Login)
    .flags(&[&[
        Flag::value("password", Kind::Text, "string", "Password, or a token in its place").short('p'),
        Flag::bool("password-stdin", "Take the password from standard input"),
        Flag::value("username", Kind::Text, "string", "Name").short('u'),
    ]])
    .arity(Arity::Max(1));

/// `logout`
pub(super) const LOGOUT: Command =
    command(&["logout"], "[SERVER]", "Log out of a registry", Verb::Logout).arity(Arity::Max(1));
