//! What is refused when it is known what stages begin with, before any step is done.

use std::sync::Arc;

use builder::{Base, PlannedStage, StepError};
use oci::image::ExecConfig;

use super::common::Common;

/// The first instruction that what its variables stand for makes wrong: its line, and why.
pub(super) async fn refused(common: &Arc<Common>) -> Option<(usize, StepError)> {
    let task = common.clone();
    // What a Dockerfile makes of its variables takes as long as its author likes, within bounds.
    let refused = move || {
        let escape = task.context.dockerfile.escape;
        builder::early::refused_with(&task.plan, escape, &task.arguments, &|planned| base(&task, planned))
    };
    bridge::blocking(refused).await
}

/// What the image says that a stage begins with.
fn base(common: &Common, planned: &PlannedStage) -> Option<ExecConfig> {
    let Base::Image(name) = &planned.base else { return None };
    common.lookup.noted(name, &planned.platform).map(|image| image.config.config.clone())
}
