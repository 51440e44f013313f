//! What the checks of a Dockerfile find, with the images that are here or come.

use std::collections::BTreeMap;
use std::sync::Arc;

use dockerfile::Patterns;
use dockerfile_checks::{BaseImage, Checking, Images, Request, WantedImage};
use image::ImageRecord;

use super::input::{AskIgnore, Local};
use super::lines::Lines;
use super::lookup::Lookup;
use super::named::{Named, NamedContext};
use super::solve::platforms;
use super::{BuildError, BuildLine, BuildOptions, ContextError, PartEvent, Solved, Violation, full_name};
use crate::Engine;

/// Looks at a Dockerfile.
pub(super) async fn begin(options: &BuildOptions, text: &[u8], all_stages: bool) -> Result<Checking, BuildError> {
    let platforms = platforms(&options.platform)?;
    let given = options.arguments.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    let request = Request {
        text: String::from_utf8_lossy(text).into_owned(),
        arguments: given.collect::<BTreeMap<_, _>>(),
        check: options.check.clone(),
        target: options.target.clone(),
        build_platform: platforms.build,
        target_platform: platforms.target,
        ignore: Patterns::default(),
        all_stages,
    };
    // It takes as long as its author likes, within bounds.
    Ok(bridge::blocking(move || Checking::begin(request)).await)
}

/// Has what leaves files out come.
pub(super) async fn ignore(ask: AskIgnore, lines: &Lines) -> Result<Patterns, BuildError> {
    // Whoever has it tells so.
    lines.heard().await;
    let text = ask().await.map_err(BuildError::Ignore)?;
    Ok(Patterns::read(&String::from_utf8_lossy(&text)).map_err(ContextError::from)?)
}

/// Tells what checks have found in a Dockerfile of which nothing comes.
pub(super) async fn broken_off(checking: Option<Checking>, lines: &Lines) {
    if let Some(checking) = checking {
        lines.tell(BuildLine::Findings(Box::new(checking.broken_off()))).await;
    }
}

/// Tells what checks find in a Dockerfile that is being built, of whose images some were looked up; answers whether that
/// fails the build.
pub(super) async fn in_build(checking: Checking, lookup: &Lookup, lines: &Lines) -> Option<Violation> {
    let mut images = Images::new();
    for wanted in checking.images() {
        if let Some(image) = lookup.noted(&wanted.name, &wanted.platform) {
            images.insert(wanted, Ok(base_image(&image)));
        }
    }
    let findings = bridge::blocking(move || checking.finish(&images)).await;
    let violation = findings.violation.clone();
    lines.tell(BuildLine::Findings(Box::new(findings))).await;
    violation
}

/// Looks at a Dockerfile that is not built, and tells what was found.
pub(super) async fn ask(
    engine: Engine,
    options: BuildOptions,
    local: Local,
    named: Vec<NamedContext>,
    all_stages: bool,
    lines: Arc<Lines>,
) -> Result<Solved, BuildError> {
    let lookup = Lookup::new(&engine, &options, Some(local.login), Named::new(named), lines.clone());
    let platform = options.platform.clone();
    let mut checking = begin(&options, &local.text, all_stages).await?;
    let (mut images, mut has_all) = (Images::new(), !checking.is_none());
    for wanted in checking.images() {
        lines.begin(format!("[internal] load metadata for {}", full_name(&wanted.name)), None).await;
        let outcome = look_up(&lookup, &wanted, &platform).await;
        let ended = match &outcome {
            Ok(_) => PartEvent::Ended,
            Err(why) => PartEvent::Failed(errdefs::chain(why)),
        };
        lines.part(ended).await;
        has_all &= outcome.is_ok();
        let failed = |err| BuildError::Metadata { name: wanted.name.clone(), source: Box::new(err) };
        let outcome = outcome.map_err(|err| errdefs::chain(&failed(err)));
        images.insert(wanted, outcome);
    }
    if has_all {
        checking = checking.ignoring(ignore(local.ignore, &lines).await?);
    }
    let findings = bridge::blocking(move || checking.finish(&images)).await;
    lines.tell(BuildLine::Findings(Box::new(findings))).await;
    Ok(Solved { image: String::new(), held: None })
}

async fn look_up(lookup: &Lookup, wanted: &WantedImage, usual: &str) -> Result<BaseImage, BuildError> {
    let platform = if wanted.platform.is_empty() { usual } else { &wanted.platform };
    if lookup.named.is_files(&wanted.name, platform) {
        // Nothing is said of them.
        return Ok(of_files(platform));
    }
    lookup.image(&wanted.name, platform).await.map(|image| base_image(&image))
}

/// What files say that are no image.
fn of_files(platform: &str) -> BaseImage {
    let target = platforms(platform).map(|platforms| platforms.target).unwrap_or_default();
    BaseImage { env: Vec::new(), has_shell: false, on_build: Vec::new(), platform: target }
}

/// What an image says.
fn base_image(image: &ImageRecord) -> BaseImage {
    let (platform, config) = (&image.config.platform, &image.config.config);
    BaseImage {
        env: config.env.clone().unwrap_or_default(),
        has_shell: config.shell.as_ref().is_some_and(|shell| !shell.is_empty()),
        on_build: config.on_build.clone().unwrap_or_default(),
        platform: [platform.os.clone(), platform.architecture.clone(), platform.variant.clone()],
    }
}
