//! Links on the default bridge: where it keeps neighbours apart, who links to one reaches the ports that that one exposes.
//!
//! What is open follows from the records of who is there at the moment, and is settled whenever somebody comes or goes. Where
//! bridged frames pass no packet filter, the bridge's ports are isolated from each other; this machine then stands between them,
//! answers for everybody, and its packet filter lets pass what a link opens.

use super::{DEFAULT, JoinRequest, Networks, lock};
use crate::bridge;
use crate::error::NetworkError;
use crate::firewall::LinkedPort;
use crate::record::SandboxRecord;

/// Replaces the links of a container that is on a network; nothing where it is on none. Nobody else may change the container's
/// networks meanwhile: its record is taken out, and put back.
pub fn set_links(networks: &Networks, container: &str, links: Vec<String>) -> Result<(), NetworkError> {
    if networks.config.icc {
        return Ok(());
    }
    let Some(mut entry) = networks.state().remove(container) else { return Ok(()) };
    entry.record.links = links;
    let written = networks.records.write_endpoint(&entry.record);
    networks.state().insert(container.to_owned(), entry);
    written.and(settle(networks))
}

/// Keeps what a container says of links, where they open anything.
pub(super) fn note(networks: &Networks, request: &JoinRequest, record: &mut SandboxRecord) {
    if !networks.config.icc {
        record.exposed.clone_from(&request.exposed);
        record.links.clone_from(&request.links);
    }
}

/// What is open between the containers that are there.
pub(super) fn open(networks: &Networks) -> Vec<LinkedPort> {
    if networks.config.icc {
        return Vec::new();
    }
    let state = networks.state();
    let address = |record: &SandboxRecord| record.on(DEFAULT)?.ipv4;
    let mut links = Vec::new();
    for record in state.records().filter(|record| !record.links.is_empty()) {
        let Some(from) = address(record) else { continue };
        for linked in record.links.iter().filter_map(|id| state.record(id)) {
            let Some(to) = address(linked) else { continue };
            links.extend(linked.exposed.iter().map(|(protocol, port)| LinkedPort {
                from,
                to,
                protocol: *protocol,
                port: *port,
            }));
        }
    }
    links
}

/// Opens what is to be open, and closes all else.
pub(super) fn settle(networks: &Networks) -> Result<(), NetworkError> {
    let Some(wired) = lock(&networks.wired).clone().filter(|_| !networks.config.icc) else { return Ok(()) };
    let mut firewall = lock(&networks.firewall);
    let links = open(networks);
    if let Err(err) = firewall.link(&links) {
        tracing::warn!(%err, "the packet filter is not what it was and is written anew");
        let redirections = networks.state().redirections();
        firewall.replace(&networks.rules(&wired.record), &redirections)?;
    }
    // A bridge of the user's may lead to others, for whom nobody may answer.
    if !links.is_empty() && !wired.filters_bridged && networks.config.bridge.is_none() {
        bridge::stand_between(&networks.config.bridge_name())?;
    }
    Ok(())
}

/// Likewise; for who has done already what it was to do.
pub(super) fn settle_or_warn(networks: &Networks) {
    if let Err(err) = settle(networks) {
        tracing::warn!(err = errdefs::chain(&err), "links are not as they should be");
    }
}
