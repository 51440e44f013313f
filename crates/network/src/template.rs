//! Networks that are nothing but a configuration for others (`--config-only`), and what others take from them
//! (`--config-from`). Pure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::driver::{Driver, DriverKind};
use crate::error::CreateError;
use crate::user::{AddressRange, RangeRequest, UserNetwork, UserNetworkRequest};

/// What stands in the place of a driver where there is none: nobody joins a configuration. Ranges, options and labels of it are
/// in the network's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Networks of it have addresses of IPv4.
    pub template_ipv4: bool,
    /// They have addresses of IPv6.
    pub template_ipv6: bool,
}

impl Template {
    pub(crate) fn of(request: &UserNetworkRequest) -> Template {
        Template { template_ipv4: !request.without_ipv4, template_ipv6: request.with_ipv6 }
    }
}

/// The request with what its configuration says, where it takes one from among `others`; else as it is.
pub(crate) fn configured(
    request: UserNetworkRequest,
    others: &[Arc<UserNetwork>],
) -> Result<UserNetworkRequest, CreateError> {
    let Some(name) = &request.config_from else { return Ok(request) };
    let found = others.iter().filter(|other| other.name == *name).find_map(|other| Some((other, other.template()?)));
    let (configuration, template) = found.ok_or_else(|| CreateError::NoConfiguration(name.clone()))?;
    let mut ranges = [Vec::new(), Vec::new()];
    for range in &configuration.idle {
        ranges[usize::from(range.subnet.address.is_ipv6())].push(wanted(range));
    }
    let [ipv4, ipv6] = ranges;
    // A bridge has one of each, a configuration as many as anybody.
    if request.driver == DriverKind::Bridge && (ipv4.len() > 1 || ipv6.len() > 1) {
        return Err(CreateError::ManySubnets);
    }
    let (mut ipv4, mut ipv6) = (ipv4.into_iter(), ipv6.into_iter());
    Ok(UserNetworkRequest {
        without_ipv4: !template.template_ipv4,
        ipv4: ipv4.next().unwrap_or_default(),
        with_ipv6: template.template_ipv6,
        ipv6: ipv6.next().unwrap_or_default(),
        more: ipv4.chain(ipv6).collect(),
        ipam_options: configuration.ipam_options.clone(),
        options: configuration.options.clone(),
        labels: configuration.labels.clone(),
        ..request
    })
}

/// What somebody asked for, of what was made of it.
fn wanted(range: &AddressRange) -> RangeRequest {
    RangeRequest {
        subnet: Some(range.subnet),
        gateway: range.gateway.filter(|_| range.gateway_wanted),
        range: range.range,
        auxiliary: range.auxiliary.clone(),
    }
}

impl UserNetwork {
    /// What it says of the networks that are made of it; none for one that is more than a configuration.
    pub fn template(&self) -> Option<Template> {
        match self.driver {
            Driver::Template(template) => Some(template),
            _ => None,
        }
    }

    /// Whether it has addresses of IPv4, or gives them to networks that are made of it.
    pub fn with_ipv4(&self) -> bool {
        self.template().map_or(self.ipv4.is_some(), |template| template.template_ipv4)
    }

    /// Likewise of IPv6.
    pub fn with_ipv6(&self) -> bool {
        self.template().map_or(self.ipv6.is_some(), |template| template.template_ipv6)
    }
}
