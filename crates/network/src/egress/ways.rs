//! Where a container's names have led: what of it the packet filter knows, and for how long. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::table::{octets, service};

/// How long an address is good at least, whatever the answer says: programs look a name up first and connect later, some to
/// several addresses one after the other.
const TIME_MIN: Duration = Duration::from_secs(60);
/// At most: an answer may say years.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How much longer than that an address stays open, so that one that is asked for all the time is not told of all the time.
const GRACE: Duration = Duration::from_secs(30);

/// How many ways of one container are open at most: addresses, times the ports of their names, times the container's own addresses.
pub(crate) const WAYS_MAX: usize = 4096;

/// That packets of a source may go to a port of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// The protocol's number.
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// The open ways of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways {
    until: BTreeMap<Way, Instant>,
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Way {
    /// Its key in the packet filter's set.
    pub(crate) fn key(&self) -> Vec<u8> {
        [octets(self.from), octets(self.to), service(self.protocol, self.port)].concat()
    }

    /// The way that has a key; none if it has another form.
    pub(crate) fn of_key(key: &[u8]) -> Option<Way> {
        let width = (key.len().checked_sub(service(0, 0).len())?) / 2;
        let address = |octets: &[u8]| match octets.len() {
            4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        };
        let (from, rest) = key.split_at_checked(width)?;
        let (to, rest) = rest.split_at_checked(width)?;
        let [protocol, _, _, _, high, low, _, _] = <[u8; 8]>::try_from(rest).ok()?;
        Some(Way { from: address(from)?, to: address(to)?, protocol, port: u16::from_be_bytes([high, low]) })
    }
}

/// How long an address is good of which an answer says this.
pub(crate) fn time_of(ttl: Duration) -> Duration {
    ttl.clamp(TIME_MIN, TIME_MAX)
}

impl Ways {
    /// Those of these that the packet filter has to be told of, and for how long.
    pub(crate) fn due(
        &mut self,
        wanted: impl IntoIterator<Item = (Way, Duration)>,
        now: Instant,
    ) -> Result<Vec<(Way, Duration)>, Full> {
        self.until.retain(|_, until| *until > now);
        let is_due = |(way, time): &(Way, Duration)| self.until.get(way).is_none_or(|until| *until - now < *time);
        let due: Vec<_> = wanted.into_iter().filter(is_due).map(|(way, time)| (way, time + GRACE)).collect();
        let new = due.iter().filter(|(way, _)| !self.until.contains_key(way)).count();
        if self.until.len() + new > WAYS_MAX { Err(Full) } else { Ok(due) }
    }

    /// The packet filter has been told.
    pub(crate) fn note(&mut self, told: &[(Way, Duration)], now: Instant) {
        self.until.extend(told.iter().map(|(way, time)| (*way, now + *time)));
    }

    /// Those that are open, and for how long from now on.
    pub(crate) fn open(&self, now: Instant) -> Vec<(Way, Duration)> {
        let left = |(way, until): (&Way, &Instant)| Some((*way, until.checked_duration_since(now)?));
        self.until.iter().filter_map(left).filter(|(_, left)| !left.is_zero()).collect()
    }

    /// Takes out those from an address that the container has no more.
    pub(crate) fn retain_from(&mut self, own: impl Fn(IpAddr) -> bool) {
        self.until.retain(|way, _| own(way.from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(last: u8, port: u16) -> Way {
        Way { from: IpAddr::from([172, 18, 0, 2]), to: IpAddr::from([203, 0, 113, last]), protocol: 6, port }
    }

    #[test]
    fn an_answer_is_good_for_a_minute_at_least() {
        let seconds = |ttl| time_of(Duration::from_secs(ttl)).as_secs();
        assert_eq!([seconds(0), seconds(60), seconds(300), seconds(u64::from(u32::MAX))], [60, 60, 300, 86400]);
    }

    #[test]
    fn what_is_open_long_enough_is_not_told_again() {
        let (mut ways, now, minute) = (Ways::default(), Instant::now(), Duration::from_secs(60));
        let wanted = [(way(1, 0), minute), (way(1, 1), minute)];
        let due = ways.due(wanted, now).unwrap();
        assert_eq!(due, [(way(1, 0), minute + GRACE), (way(1, 1), minute + GRACE)]);
        assert_eq!(ways.due(wanted, now).unwrap(), due, "it was not told yet");
        ways.note(&due, now);
        assert_eq!(ways.due(wanted, now + GRACE).unwrap(), []);
        let later = now + GRACE + Duration::from_secs(1);
        assert_eq!(ways.due(wanted, later).unwrap(), due);
        assert_eq!(ways.open(later).len(), 2);
        assert_eq!(ways.open(now + minute + GRACE), []);
    }

    #[test]
    fn a_container_has_no_more_than_its_share() {
        let (mut ways, now, minute) = (Ways::default(), Instant::now(), Duration::from_secs(60));
        let all = |count: usize| (0..count as u16).map(|port| (way(1, port), Duration::from_secs(60)));
        let due = ways.due(all(WAYS_MAX), now).unwrap();
        ways.note(&due, now);
        assert_eq!(ways.due([(way(2, 0), minute)], now), Err(Full));
        assert_eq!(ways.due(all(3), now + minute).unwrap().len(), 3, "those that are there");
        assert_eq!(ways.due([(way(2, 0), minute)], now + minute + GRACE).unwrap().len(), 1);
        ways.note(&due, now);
        ways.retain_from(|from| from.is_ipv6());
        assert_eq!(ways.open(now), []);
    }

    #[test]
    fn keys_are_read_again() {
        let (from, to) = ("fd00::2".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let ipv6 = Way { from, to, protocol: 17, port: 443 };
        for way in [way(9, 3), ipv6] {
            assert_eq!(Way::of_key(&way.key()), Some(way));
        }
        for length in [0, 7, 8, 9, 15, 17, 24, 39, 41] {
            assert_eq!(Way::of_key(&vec![0; length]), None, "{length}");
        }
    }
}
