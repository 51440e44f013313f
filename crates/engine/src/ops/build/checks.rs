//! What the checks of a Dockerfile find, with the images that are here or come.

use std::collections::BTreeMap;
use std::sync::Arc;

use dockerfile::Patterns;
use dockerfile_checks::{BaseImage, Checking, Images, Request, WantedImage};
use image::ImageRecord;

use super::input::Local;
use super::lines::Lines;
use super::lookup::Lookup;
use super::named::{Named, NamedContext};
use super::solve::platforms;
use super::{BuildError, BuildLine, BuildOptions, ContextError, PartEvent, Solved, full_name};
use crate::Engine;

/// Looks at a Dockerfile. Takes as long as its author likes, within bounds.
pub(super) fn begin(
    options: &BuildOptions,
    text: &[u8],
    ignore: &[u8],
    all_stages: bool,
) -> Result<Checking, BuildError> {
    let platforms = platforms(&options.platform)?;
    let given = options.arguments.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    Ok(Checking::begin(Request {
        text: String::from_utf8_lossy(text).into_owned(),
        arguments: given.collect::<BTreeMap<_, _>>(),
        check: options.check.clone(),
        target: options.target.clone(),
        build_platform: platforms.build,
        target_platform: platforms.target,
        ignore: Patterns::read(&String::from_utf8_lossy(ignore)).map_err(ContextError::from)?,
        all_stages,
    }))
}

/// Tells what checks find in a Dockerfile that is being built, of whose images some were looked up.
pub(super) async fn in_build(checking: Checking, lookup: &Lookup, lines: &Lines) -> Result<(), BuildError> {
    let mut images = Images::new();
    for wanted in checking.images() {
        if let Some(image) = lookup.noted(&wanted.name, &wanted.platform) {
            images.insert(wanted, Ok(base_image(&image)));
        }
    }
    let findings = bridge::blocking(move || checking.finish(&images)).await;
    let violation = findings.violation.clone();
    lines.tell(BuildLine::Findings(Box::new(findings))).await;
    violation.map_or(Ok(()), |violation| Err(BuildError::Checks(violation)))
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
    let checking = bridge::blocking(move || begin(&options, &local.text, &local.ignore, all_stages)).await?;
    let mut images = Images::new();
    for wanted in checking.images() {
        lines.begin(format!("[internal] load metadata for {}", full_name(&wanted.name)), None).await;
        let outcome = look_up(&lookup, &wanted, &platform).await;
        lines.part(PartEvent::Ended).await;
        images.insert(wanted, outcome);
    }
    let findings = bridge::blocking(move || checking.finish(&images)).await;
    lines.tell(BuildLine::Findings(Box::new(findings))).await;
    Ok(Solved { image: String::new(), held: None })
}

async fn look_up(lookup: &Lookup, wanted: &WantedImage, usual: &str) -> Result<BaseImage, String> {
    let platform = if wanted.platform.is_empty() { usual } else { &wanted.platform };
    if lookup.named.is_files(&wanted.name, platform) {
        // Nothing is said of them.
        return Ok(of_files(platform));
    }
    let image = lookup.image(&wanted.name, platform).await;
    let failed = |err| BuildError::Metadata { name: wanted.name.clone(), source: Box::new(err) };
    image.map(|image| base_image(&image)).map_err(|err| errdefs::chain(&failed(err)))
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
