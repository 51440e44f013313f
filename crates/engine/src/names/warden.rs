//! Names of containers with an egress policy: which are asked of others, and what becomes of the answers.
//!
//! A name that no policy allows is refused here, so that it tells nobody anything. One that is allowed opens what it leads to
//! before the client hears of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dns::Query;
use network::EgressGate;
use oci::ContainerId;
use tracing::warn;

use super::Names;
use super::server::Client;
use crate::sync::{read, write};

/// Who opens what names lead to, and hears of those that are refused.
pub trait Warden: Send + Sync {
    /// Opens the addresses, for as long as each says. Blocks shortly.
    fn open(
        &self,
        container: &ContainerId,
        name: &str,
        addresses: &[(IpAddr, Duration)],
    ) -> Result<(), network::EgressError>;

    /// A name was refused. Does not block.
    fn refused(&self, container: &ContainerId, name: &str);
}

impl fmt::Debug for dyn Warden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Warden")
    }
}

/// A name that may be asked of others, by a container with a policy.
pub(super) struct Allowed(String);

impl Names {
    /// Has somebody open what names lead to. Once; before that names of containers with a policy are refused.
    pub fn appoint(&self, warden: Arc<dyn Warden>) {
        // A second one would be one of the same daemon.
        let _ = self.0.warden.set(warden);
    }

    /// What a container's name server goes by from now on; nothing if no policy concerns it.
    pub fn guard(&self, container: &ContainerId, gate: Option<EgressGate>) {
        // Most have none, and had none.
        if gate.is_none() && !read(&self.0.gates).contains_key(container) {
            return;
        }
        let mut gates = write(&self.0.gates);
        match gate {
            Some(gate) => _ = gates.insert(container.clone(), Arc::new(gate)),
            None => _ = gates.remove(container),
        }
    }
}

/// Whether a name that is none of ours may be asked of others: an error if not; nothing to be watched without a policy.
pub(super) fn ask_leave(client: &Client, query: &Query<'_>) -> Result<Option<Allowed>, ()> {
    let Some(gate) = gate(client) else { return Ok(None) };
    match query.name() {
        Some(name) if gate.allows_name(name) => Ok(Some(Allowed(name.to_owned()))),
        name => {
            if let Some(warden) = client.shared.warden.get() {
                warden.refused(&client.container, name.unwrap_or("?"));
            }
            Err(())
        }
    }
}

/// Opens what an answer leads to; false if that cannot be done, so that the client shall not see it.
pub(super) async fn open(client: &Client, allowed: Option<Allowed>, reply: &[u8]) -> bool {
    let Some(Allowed(name)) = allowed else { return true };
    let leads = dns::leads(reply);
    if leads.is_empty() {
        return true;
    }
    let Some(warden) = client.shared.warden.get().cloned() else { return false };
    let addresses: Vec<(IpAddr, Duration)> =
        leads.iter().map(|lead| (lead.address, Duration::from_secs(lead.ttl_seconds.into()))).collect();
    let container = client.container.clone();
    let opened = bridge::blocking(move || warden.open(&container, &name, &addresses)).await;
    if let Err(err) = &opened {
        warn!(container = %client.container, err = errdefs::chain(err), "an answer is kept back");
    }
    opened.is_ok()
}

/// Whether a server of the container's own choice is asked from the host's network all the same: it is outside, where the
/// container itself may not be able to go. Behind an internal network nobody shall reach out through us.
pub(super) fn asks_for(client: &Client, server: SocketAddr) -> bool {
    gate(client).is_some_and(|gate| !gate.is_near(server.ip()))
        && read(&client.shared.zone).leads_out(client.container.as_str())
}

fn gate(client: &Client) -> Option<Arc<EgressGate>> {
    read(&client.shared.gates).get(&client.container).cloned()
}
