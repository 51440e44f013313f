//! What a build tells, told to its client.

use std::collections::BTreeMap;

use buildkit_api::status::Status;
use engine::ops::build::{BuildLine, Building, Findings, PartEvent};

use super::build::Build;
use super::failure::{self, Place};
use super::progress::Part;

/// What a build came to.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// The image, if one was built.
    pub(super) image: Option<String>,
    /// What checks found.
    pub(super) findings: Findings,
}

/// Tells how a build gets on, to its end; and what checks find, where that is said of a part of the build.
pub(super) async fn follow(
    build: &Build,
    mut building: Building,
    mut place: Place,
    warned: Option<&str>,
) -> Result<Followed, Status> {
    let progress = &build.progress;
    let (mut parts, mut now): (BTreeMap<usize, Part>, Option<Part>) = (BTreeMap::new(), None);
    let mut followed = Followed::default();
    while let Some(line) = building.next().await {
        match line {
            Ok(BuildLine::At(line)) => place.line = line,
            Ok(BuildLine::Part(event)) => match event {
                PartEvent::Begun { number, name, after } => {
                    let part = progress.begin(&name, after.and_then(|after| parts.get(&after))).await;
                    parts.insert(number, part.clone());
                    now = Some(part);
                }
                PartEvent::Cached => now.iter_mut().for_each(Part::is_cached),
                PartEvent::Output { is_error, bytes } => {
                    if let Some(part) = &now {
                        progress.log(part, is_error, bytes).await;
                    }
                }
                PartEvent::Ended => {
                    if let Some(part) = now.take() {
                        progress.end(&part, None).await;
                    }
                }
            },
            Ok(BuildLine::Findings(findings)) => {
                if let Some(part) = warned {
                    progress.warn(part, &place, &findings).await;
                }
                followed.findings = *findings;
            }
            // Those of a build that is told in lines.
            Ok(BuildLine::Text(_) | BuildLine::Image(_) | BuildLine::Pull(_)) => {}
            Err(err) => {
                if let Some(part) = &now {
                    progress.end(part, Some(&failure::sentence_of_part(&err))).await;
                }
                return Err(failure::of_build(&err, &place, now.as_ref().map(Part::digest)));
            }
        }
    }
    followed.image = building.image.take();
    Ok(followed)
}
