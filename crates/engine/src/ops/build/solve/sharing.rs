//! A step that several want at once, of one build or of several: one does it, and the others take what it comes to.

use std::sync::Arc;

use oci::Digest;
use tokio::sync::SemaphorePermit;

use super::common::Common;
use super::stage::StageSolver;
use crate::ops::build::cache::{self, Keyed};
use crate::ops::build::flights::{FlightKey, Following, Landed, Leading, News, Role};
use crate::ops::build::{BuildError, PartEvent};

/// How a step is shared.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    /// What it may fail for beside what it is known by: who has it otherwise does it himself.
    pub(super) conditions: String,
    /// Whether others do not hear what it prints, nor fail with it: it is given what is its client's.
    pub(super) is_private: bool,
    /// What it is to read, where it is a command.
    pub(super) command: String,
}

/// A step that is ours to do.
pub(super) struct Ours<'a> {
    pub(super) leading: Leading,
    /// The turn of our build's that it takes.
    pub(super) slot: SemaphorePermit<'a>,
}

/// Has a step that is not known done by whoever does it already, and goes on from that; answers it if it is to be done
/// here. Who waits gives back his turn.
pub(super) async fn shared<'a>(
    solver: &mut StageSolver,
    step: &Keyed,
    terms: &Terms,
    common: &'a Common,
    mut slot: SemaphorePermit<'a>,
) -> Result<Option<Ours<'a>>, BuildError> {
    let build = solver.renews.then_some(common.number_of_build);
    loop {
        let key = FlightKey { step: step.key.clone(), build, terms: terms.conditions.clone() };
        let leading = match common.engine.flights.join(key) {
            Role::Lead(leading) => leading,
            Role::Follow(following) => {
                drop(slot);
                let news = follow(solver, following).await;
                match news {
                    News::Landed(Landed::Image(image)) if common.lookup.hold(&image).await => {
                        solver.came_to(step.key.clone(), image);
                        return Ok(None);
                    }
                    News::Landed(Landed::Failed(code)) if !common.options.keep_failed => {
                        return Err(BuildError::NonZero { command: terms.command.clone(), code });
                    }
                    _ => {}
                }
                slot = common.begin_step().await;
                match news {
                    News::Lead(leading) => leading,
                    // A prune was faster, or the client wants the container of a command that has failed.
                    _ => continue,
                }
            }
        };
        // Somebody may have done it since it was looked up.
        if let Some(image) = done_since(solver, step).await {
            goes_on_from(solver, step, image).await;
            return Ok(None);
        }
        solver.lines.leads(leading.flight(), terms.is_private);
        return Ok(Some(Ours { leading, slot }));
    }
}

/// Goes on from what is known already.
pub(super) async fn goes_on_from(solver: &mut StageSolver, step: &Keyed, image: Digest) {
    solver.lines.text(" ---> Using cache\n").await;
    if solver.in_part {
        solver.lines.part(PartEvent::Cached).await;
    }
    solver.came_to(step.key.clone(), image);
}

/// Tells what somebody else's step prints until there is something to do.
async fn follow(solver: &StageSolver, mut following: Following) -> News {
    solver.lines.text(" ---> Waiting for the same step, which is being done already\n").await;
    loop {
        match following.next().await {
            News::Printed { is_error, bytes } => solver.lines.print(is_error, &bytes).await,
            News::LeftOut(bytes) => {
                solver.lines.print(true, format!("[output left out: {bytes} bytes]\n").as_bytes()).await;
            }
            news => return news,
        }
    }
}

async fn done_since(solver: &StageSolver, step: &Keyed) -> Option<Digest> {
    let found = match solver.renews {
        true => solver.common.renewed_step(&step.key),
        false => {
            let (engine, key, parent) = (solver.common.engine.clone(), step.key.clone(), solver.image.clone());
            bridge::blocking(move || cache::look_up(&engine, &key, parent.as_ref())).await
        }
    };
    match found {
        Some(image) if solver.common.lookup.hold(&image).await => Some(image),
        _ => None,
    }
}

/// What our own step came to is what those who wait for it go on from; it is noted on a thread that may block.
pub(super) fn landing(solver: &StageSolver, step: &Keyed, leading: Leading) -> impl FnOnce(&Digest) + Send + use<> {
    let renewed: Option<(Arc<Common>, _)> = solver.renews.then(|| (solver.common.clone(), step.key.clone()));
    move |image| {
        if let Some((common, key)) = renewed {
            common.renew_step(key, image.clone());
        }
        leading.land(Landed::Image(image.clone()));
    }
}
