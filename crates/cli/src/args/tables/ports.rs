//! `port`, and what Docker's does not have.

use super::{Arity, Command, FORMAT, Flag, Verb, command};

/// `port`.
pub(super) const PORT: Command = command(
    &["port", "container port"],
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "Show the ports that a container has on the host",
    Verb::Port,
)
.flags(&[&[Flag::bool("exposure", "Show who reaches which port, of all running containers if none is named"), FORMAT]])
.arity(Arity::Between(1, 2))
.arity_with("exposure", Arity::Max(1));
