//! `update`.

use client::{ClientError, live};
use engine_api::published_ports::{PortsUpdate, SentPorts};
use engine_api::update::{SentUpdate, UpdateResponse};

use super::{Context, Outcomes};
use crate::args::Parsed;
use crate::plan::create::restart_policy;
use crate::plan::{ports, values};
use crate::report::Exit;
use crate::say_line;

/// `update`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let update = request(parsed)?;
    let bindings = |flag: &str| ports::parse(parsed.list(flag), &[]).map(|ports| ports.bindings);
    let ports = PortsUpdate {
        add: bindings("publish-add").map_err(|err| Exit::error(&err))?,
        remove: bindings("publish-rm").map_err(|err| Exit::error(&err))?,
    };
    let mut outcomes = Outcomes::default();
    let mut warnings = Vec::new();
    for name in &parsed.positionals {
        let outcome = change(context, name, &update, &ports).await;
        outcomes.note(outcome.map(|response| {
            warnings.extend(response.warnings.unwrap_or_default());
            name.clone()
        }));
    }
    if !warnings.is_empty() {
        say_line!("{}", warnings.join("\n"));
    }
    outcomes.finish()
}

/// Changes one container. Limits are asked of any daemon, ports of ours.
async fn change(
    context: &Context,
    name: &str,
    update: &SentUpdate,
    ports: &PortsUpdate,
) -> Result<UpdateResponse, ClientError> {
    if *ports == PortsUpdate::default() {
        return live::update(&context.client, name, update).await;
    }
    let limits = Some(update).filter(|update| **update != SentUpdate::default());
    live::update_ports(&context.client, name, &SentPorts { ports, limits }).await
}

/// What flags ask for.
fn request(parsed: &Parsed) -> Result<SentUpdate, Exit> {
    if !parsed.has_flags() {
        return Err(Exit::new(1, "you must provide one or more flags when using this command"));
    }
    let int = |name: &str| parsed.int(name).unwrap_or(0);
    // Checked when read: what does not parse cannot come here.
    let bytes = |name: &str| values::bytes(parsed.text(name)).unwrap_or(0);
    let restart_policy = match parsed.text("restart") {
        "" => Default::default(),
        text => restart_policy(text).map_err(|err| Exit::error(&err))?,
    };
    Ok(SentUpdate {
        cpu_shares: int("cpu-shares"),
        memory: bytes("memory"),
        nano_cpus: values::nano_cpus(parsed.text("cpus")).unwrap_or(0),
        blkio_weight: parsed.text("blkio-weight").parse().unwrap_or(0),
        cpu_period: int("cpu-period"),
        cpu_quota: int("cpu-quota"),
        cpu_realtime_period: int("cpu-rt-period"),
        cpu_realtime_runtime: int("cpu-rt-runtime"),
        cpuset_cpus: parsed.text("cpuset-cpus").to_owned(),
        cpuset_mems: parsed.text("cpuset-mems").to_owned(),
        memory_reservation: bytes("memory-reservation"),
        memory_swap: if parsed.text("memory-swap") == "-1" { -1 } else { bytes("memory-swap") },
        pids_limit: Some(int("pids-limit")).filter(|limit| *limit != 0),
        restart_policy,
    })
}
