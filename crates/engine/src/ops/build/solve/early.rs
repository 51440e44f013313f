//! What is refused when it is known what stages begin with, before any step is done.

use std::sync::Arc;

use builder::{Base, PlannedStage};
use oci::image::ExecConfig;

use super::super::BuildError;
use super::common::Common;

/// Refuses instructions that what their variables stand for makes wrong.
pub(super) async fn refuse(common: &Arc<Common>) -> Result<(), BuildError> {
    let task = common.clone();
    // What a Dockerfile makes of its variables takes as long as its author likes, within bounds.
    let refused = bridge::blocking(move || {
        let escape = task.context.dockerfile.escape;
        builder::early::refused_with(&task.plan, escape, &task.arguments, &|planned| base(&task, planned))
    });
    let Some((line, why)) = refused.await else { return Ok(()) };
    common.lines.at(line);
    common.lines.failed().await;
    Err(why.into())
}

/// What the image says that a stage begins with.
fn base(common: &Common, planned: &PlannedStage) -> Option<ExecConfig> {
    let Base::Image(name) = &planned.base else { return None };
    common.lookup.noted(name, &planned.platform).map(|image| image.config.config.clone())
}
