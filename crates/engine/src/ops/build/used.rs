//! What a build used, for who says where its image comes from (`builder::provenance`).

use builder::Plan;
use builder::provenance::{Material, Private, Used};
use dockerfile::{Escape, Kind, Mount, MountKind, RunNetwork};
use image::ImageRecord;
use oci::Reference;

use super::graph::{self, Needed};
use crate::platforms;

/// How many secrets or agents are told.
const PRIVATE_MAX: usize = 1000;

/// What an agent is called that has no name.
const AGENT: &str = "default";

/// What the commands of a plan use, beside what comes from elsewhere. Pure.
pub(super) fn of_plan(plan: &Plan, escape: Escape, network_mode: &str, materials: Vec<Material>) -> Used {
    let mut used = Used { materials, ..Used::default() };
    used.context = graph::needed(plan) != Needed::Nothing;
    for instruction in plan.stages.iter().flat_map(|stage| &stage.instructions) {
        let Kind::Run(run) = &instruction.kind else { continue };
        used.network |= match run.network {
            RunNetwork::None => false,
            RunNetwork::Default => network_mode != "none",
            RunNetwork::Host => true,
        };
        if !run.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Secret | MountKind::Ssh)) {
            continue;
        }
        // Values of mounts are read when variables are known; of these none matters here.
        let Ok(Kind::Run(run)) = instruction.expand(escape, &|_| None).map(|own| own.kind) else { continue };
        for mount in &run.mounts {
            let (all, id) = match mount.kind {
                MountKind::Secret => (&mut used.secrets, secret(mount)),
                MountKind::Ssh if mount.id.is_empty() => (&mut used.agents, AGENT),
                MountKind::Ssh => (&mut used.agents, mount.id.as_str()),
                _ => continue,
            };
            match all.iter().position(|private| private.id == id) {
                Some(known) => all[known].is_optional &= !mount.required,
                None if all.len() < PRIVATE_MAX => {
                    all.push(Private { id: id.to_owned(), is_optional: !mount.required });
                }
                None => {}
            }
        }
    }
    used
}

/// By which name a secret is asked for.
fn secret(mount: &Mount) -> &str {
    let last = mount.target.rsplit('/').next().unwrap_or_default();
    [mount.source.as_str(), &mount.id, last].into_iter().find(|name| !name.is_empty()).unwrap_or_default()
}

/// An image that was taken by a name.
pub(super) fn image(name: &str, image: &ImageRecord) -> Option<Material> {
    let name = name.parse::<Reference>().ok()?;
    let named_digest = name.digest().map(ToString::to_string).unwrap_or_default();
    let name = if named_digest.is_empty() { name.with_default_tag() } else { name };
    // As its registry has it; what came from none is known by its configuration.
    let known = image.index_of(&name).or(image.manifest.as_ref()).map_or(&image.id, |descriptor| &descriptor.digest);
    Some(Material::Image {
        name: name.familiar_name(),
        tag: name.tag().unwrap_or_default().to_owned(),
        named_digest,
        platform: platforms::shown(&image.config.platform),
        sum: known.hex().to_owned(),
        is_local: false,
    })
}
