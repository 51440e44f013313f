//! What the relay is to serve, and by how many sockets: a long range of ports takes one. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use relay::Rule;

use crate::ports::{Protocol, Published};
use crate::record::SandboxRecord;

/// From how many ports on a range is served by one socket, and those that hold its ports are bound behind the answer. Below it the
/// sockets take less than a millisecond.
pub(crate) const RANGE_MIN: usize = 64;

/// Ports of the host, one behind the other, which the relay serves by one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) protocol: Protocol,
    pub(crate) host: IpAddr,
    pub(crate) first: u16,
    /// The first one, where there is one alone.
    pub(crate) last: u16,
}

impl Span {
    pub(crate) fn of(published: &Published) -> Span {
        let Published { protocol, host_address, host_port, .. } = *published;
        Span { protocol, host: host_address, first: host_port, last: host_port }
    }

    /// What a relay's rule serves; none where no daemon would have made it.
    pub(crate) fn parse(rule: &Rule) -> Option<Span> {
        let (protocol, address) = rule.id.split_once(' ')?;
        let protocol = match (protocol, rule.udp) {
            ("tcp", false) => Protocol::Tcp,
            ("udp", true) => Protocol::Udp,
            _ => return None,
        };
        let first: SocketAddr = match rule.range {
            Some((_, last)) => address.strip_suffix(&format!("-{last}"))?.parse().ok()?,
            None => address.parse().ok()?,
        };
        let last = rule.range.map_or(first.port(), |(_, last)| last);
        let agrees = rule.range.is_none_or(|(port, last)| port == first.port() && port < last);
        agrees.then(|| Span { protocol, host: first.ip(), first: first.port(), last })
    }

    /// The relay's name for it.
    pub(crate) fn id(&self) -> String {
        let first = SocketAddr::new(self.host, self.first);
        match self.is_range() {
            true => format!("{} {first}-{}", self.protocol, self.last),
            false => format!("{} {first}", self.protocol),
        }
    }

    pub(crate) fn is_range(&self) -> bool {
        self.first < self.last
    }

    /// Where it begins, which is what its socket listens to.
    pub(crate) fn start(&self) -> (Protocol, IpAddr, u16) {
        (self.protocol, self.host, self.first)
    }

    /// Each of its ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = Span> + use<> {
        let span = *self;
        (span.first..=span.last).map(move |port| Span { first: port, last: port, ..span })
    }

    pub(crate) fn overlaps(&self, other: &Span) -> bool {
        (self.protocol, self.host) == (other.protocol, other.host)
            && self.first <= other.last
            && other.first <= self.last
    }
}

/// Something that the relay is to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Duty {
    pub(crate) span: Span,
    /// The container's address, and its port to which the first one leads.
    pub(crate) target: SocketAddr,
}

impl Duty {
    /// The serving of one port.
    pub(crate) fn of(published: &Published, target: IpAddr) -> Duty {
        Duty { span: Span::of(published), target: SocketAddr::new(target, published.container_port) }
    }

    /// What the relay is told.
    pub(crate) fn rule(&self) -> Rule {
        let Span { protocol, first, last, .. } = self.span;
        let range = self.span.is_range().then_some((first, last));
        Rule { id: self.span.id(), udp: protocol == Protocol::Udp, target: self.target, range }
    }

    /// The first port, as it is published.
    pub(crate) fn published(&self) -> Published {
        let Span { protocol, host, first, .. } = self.span;
        Published { protocol, container_port: self.target.port(), host_address: host, host_port: first }
    }

    /// Each of its ports, as it is published.
    pub(crate) fn each(&self) -> impl Iterator<Item = Published> + use<> {
        let first = self.published();
        (0..=self.span.last - self.span.first).map(move |behind| Published {
            host_port: first.host_port + behind,
            container_port: first.container_port.saturating_add(behind),
            ..first
        })
    }
}

/// What the relay is to serve of these ports of a container: each by itself, but for ranges where it can lead many to one socket. What
/// makes a range depends on nothing but the ports: whoever finds a relay that another daemon has told of them comes to the same.
pub(crate) fn duties(record: &SandboxRecord, ports: &[Published], steers: bool) -> Vec<Duty> {
    let duty = |one: &Published| Some(Duty::of(one, record.relayed_target(one)?));
    let (mut steered, mut single): (Vec<Duty>, Vec<Duty>) =
        ports.iter().filter_map(duty).partition(|duty| steers && may_be_steered(&duty.span));
    steered.sort_unstable_by_key(|duty| duty.span);
    for run in steered.chunk_by(|one, next| follows((one.span.first, one.target), (next.span.first, next.target))) {
        match run {
            [first, .., last] if run.len() >= RANGE_MIN => {
                single.push(Duty { span: Span { last: last.span.last, ..first.span }, ..*first });
            }
            run => single.extend(run),
        }
    }
    single
}

/// Whether any of these could be a range.
pub(crate) fn may_have_ranges(ports: &[Published]) -> bool {
    ports.len() >= RANGE_MIN && ports.iter().filter(|one| may_be_steered(&Span::of(one))).count() >= RANGE_MIN
}

/// The kernel is asked where connections of TCP go that come to any address of IPv6.
fn may_be_steered(span: &Span) -> bool {
    span.protocol == Protocol::Tcp && span.host == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// Whether a port of the host and where it leads are the next ones.
fn follows((port, target): (u16, SocketAddr), next: (u16, SocketAddr)) -> bool {
    let one_more = |port: u16| port.checked_add(1);
    one_more(port) == Some(next.0) && target.ip() == next.1.ip() && one_more(target.port()) == Some(next.1.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_tells_what_it_serves() {
        let host = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        for (last, id) in [(80, "tcp [::]:80"), (90, "tcp [::]:80-90")] {
            let span = Span { protocol: Protocol::Tcp, host, first: 80, last };
            let rule = Duty { span, target: "10.0.0.2:8080".parse().unwrap() }.rule();
            assert_eq!((rule.id.as_str(), Span::parse(&rule)), (id, Some(span)));
        }
        let rule =
            |id: &str, range| Rule { id: id.to_owned(), udp: false, target: "10.0.0.2:1".parse().unwrap(), range };
        for strange in [
            rule("a", None),
            rule("udp [::]:80", None),
            rule("tcp [::]:80-90", None),
            rule("tcp [::]:80", Some((80, 90))),
            rule("tcp [::]:81-90", Some((80, 90))),
            rule("tcp [::]:80-80", Some((80, 80))),
        ] {
            assert_eq!(Span::parse(&strange), None, "{strange:?}");
        }
    }
}
