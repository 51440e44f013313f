//! What a build tells, told to its client.

use std::collections::{BTreeMap, BTreeSet};

use buildkit_api::status::Status;
use engine::ops::build::{BuildLine, Building, Findings, Held, PartEvent, Used};

use super::build::Build;
use super::clip::Printed;
use super::failure::{self, Place};
use super::progress::{GIVEN_UP, Part, Progress};

/// What a build came to.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// The image, if one was built.
    pub(super) image: Option<String>,
    /// What checks found.
    pub(super) findings: Findings,
    /// What it used.
    pub(super) used: Used,
    /// What keeps its steps here until the client has had them.
    pub(super) held: Option<Held>,
}

/// How a build is told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Telling<'a> {
    /// The part of which it is said what checks find, if it is said.
    pub(super) warned: Option<&'a str>,
    /// The platform that is in the names of parts, where there are several.
    pub(super) platform: Option<&'a str>,
}

/// Tells how a build gets on, to its end.
pub(super) async fn follow(
    build: &Build,
    mut building: Building,
    mut place: Place,
    telling: Telling<'_>,
) -> Result<Followed, Status> {
    let progress = &build.progress;
    let mut parts = Parts::default();
    let mut followed = Followed::default();
    while let Some(line) = building.next().await {
        match line {
            Ok(BuildLine::Failed { line, end, part }) => {
                (place.line, place.end) = (line, end);
                parts.failed = part;
            }
            Ok(BuildLine::Part { number, event: PartEvent::Begun { name, after } }) => {
                let name = telling.platform.map_or_else(|| name.clone(), |platform| with_platform(&name, platform));
                parts.tell(progress, number, PartEvent::Begun { name, after }).await;
            }
            Ok(BuildLine::Part { number, event }) => parts.tell(progress, number, event).await,
            Ok(BuildLine::Heard(unheard)) => drop(unheard),
            Ok(BuildLine::Used(used)) => followed.used = *used,
            Ok(BuildLine::CacheLeft { manifest, .. }) => build.left_cache(&manifest),
            Ok(BuildLine::Findings(findings)) => {
                if let Some(part) = telling.warned {
                    progress.warn(part, &place, &findings).await;
                }
                followed.findings = *findings;
            }
            // Those of a build that is told in lines.
            Ok(
                BuildLine::Text(_)
                | BuildLine::Image(_)
                | BuildLine::Pull(_)
                | BuildLine::Explained(_)
                | BuildLine::Kept(_),
            ) => {}
            Err(err) => {
                parts.end(progress, &failure::sentence_of_part(&err)).await;
                return Err(failure::of_build(&err, &place, parts.failed().map(Part::digest)));
            }
        }
    }
    followed.image = building.image.take();
    followed.held = building.held.take();
    Ok(followed)
}

/// `[build 1/2] RUN x` as `[linux/arm64 build 1/2] RUN x`; what is the same for all platforms stays as it is.
fn with_platform(name: &str, platform: &str) -> String {
    match name.strip_prefix('[') {
        Some(rest) if !rest.starts_with("internal]") && !rest.starts_with("context ") => format!("[{platform} {rest}"),
        _ => name.to_owned(),
    }
}

/// The parts of a build.
#[derive(Default)]
struct Parts {
    /// By their numbers.
    all: BTreeMap<usize, Part>,
    /// What those have printed that go on.
    printed: BTreeMap<usize, Printed>,
    going_on: BTreeSet<usize>,
    /// The one in which the build has failed.
    failed: Option<usize>,
}

impl Parts {
    async fn tell(&mut self, progress: &Progress, number: usize, event: PartEvent) {
        if let PartEvent::Begun { name, after } = event {
            let part = progress.begin(&name, after.and_then(|after| self.all.get(&after))).await;
            self.all.insert(number, part);
            self.printed.insert(number, Printed::new());
            self.going_on.insert(number);
            return;
        }
        let Some(part) = self.all.get_mut(&number) else { return };
        match event {
            PartEvent::Begun { .. } => {}
            PartEvent::Cached if self.going_on.insert(number) => progress.begin_cached(part).await,
            PartEvent::Cached => part.is_cached(),
            PartEvent::Output { is_error, bytes } => {
                let told = match self.printed.get_mut(&number) {
                    Some(printed) => printed.add(is_error, bytes),
                    None => bytes,
                };
                if !told.is_empty() {
                    progress.prints(part, is_error, told).await;
                }
            }
            PartEvent::Ended => {
                self.going_on.remove(&number);
                self.printed.remove(&number);
                progress.end(part, None).await;
            }
            PartEvent::Failed(sentence) => {
                self.going_on.remove(&number);
                progress.end(part, Some(&sentence)).await;
            }
        }
    }

    fn failed(&self) -> Option<&Part> {
        self.all.get(&self.failed?)
    }

    /// With the build all end that go on: one has failed, the others are given up.
    async fn end(&mut self, progress: &Progress, sentence: &str) {
        for (number, part) in self.all.iter().filter(|(number, _)| self.going_on.contains(number)) {
            for (is_error, end) in self.printed.get_mut(number).into_iter().flat_map(Printed::ends) {
                progress.prints(part, is_error, end).await;
            }
            let sentence = if self.failed == Some(*number) { sentence } else { GIVEN_UP };
            progress.end(part, Some(sentence)).await;
        }
    }
}
