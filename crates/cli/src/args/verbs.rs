//! Verbs of groups that have a module of their own.

/// What is done with checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointVerb {
    /// `checkpoint create`
    Create,
    /// `checkpoint ls`
    List,
    /// `checkpoint rm`
    Remove,
}

/// What is done with contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextVerb {
    /// `context create`
    Create,
    /// `context export`
    Export,
    /// `context import`
    Import,
    /// `context inspect`
    Inspect,
    /// `context ls`
    List,
    /// `context rm`
    Remove,
    /// `context show`
    Show,
    /// `context update`
    Update,
    /// `context use`
    Use,
}

/// What is done with lists of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestVerb {
    /// `manifest annotate`
    Annotate,
    /// `manifest create`
    Create,
    /// `manifest inspect`
    Inspect,
    /// `manifest push`
    Push,
    /// `manifest rm`
    Remove,
}

/// What is done with networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkVerb {
    /// `network ls`
    List,
    /// `network create`
    Create,
    /// `network connect`
    Connect,
    /// `network disconnect`
    Disconnect,
    /// `network rm`
    Remove,
}
