//! Datagrams: each client has a socket of its own to the container, by which answers find back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, send, socket_with};
use sys::datagram::{self, Local};

/// How long a client may be silent whose socket is kept, as with Docker's proxy.
const SILENCE: Duration = Duration::from_secs(90);
/// How many datagrams of one socket go before others have their turn.
const TURNS: usize = 64;
/// No datagram is longer.
pub(crate) const DATAGRAM_MAX: usize = 64 << 10;

/// Who asks, and at which of this machine's addresses: who has asked at two of them knows each answer by the one that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    pub(crate) client: SocketAddr,
    at: Option<Local>,
}

/// What one client sends to one port.
#[derive(Debug)]
pub(crate) struct Flow {
    /// The number of the port's listener.
    pub(crate) listener: u64,
    asker: Asker,
    container: OwnedFd,
    heard: Instant,
}

/// All flows, by number.
#[derive(Debug)]
pub(crate) struct Flows {
    /// So many at most.
    max: usize,
    all: HashMap<u64, Flow>,
    by_client: HashMap<(u64, Asker), u64>,
}

impl Flows {
    pub(crate) fn of_at_most(max: usize) -> Flows {
        Flows { max, all: HashMap::new(), by_client: HashMap::new() }
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Flow> {
        self.all.get(&number)
    }

    /// One more flow to the container; the number is new.
    pub(crate) fn open(
        &mut self,
        number: u64,
        listener: u64,
        asker: Asker,
        target: SocketAddr,
    ) -> Result<BorrowedFd<'_>, Errno> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let container = socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
        rustix::net::connect(&container, &target)?;
        self.by_client.insert((listener, asker), number);
        let flow = Flow { listener, asker, container, heard: Instant::now() };
        Ok(self.all.entry(number).insert_entry(flow).into_mut().container.as_fd())
    }

    pub(crate) fn of(&self, listener: u64, asker: Asker) -> Option<u64> {
        self.by_client.get(&(listener, asker)).copied()
    }

    /// Sends what a client has sent. What the container does not take is lost, as datagrams are.
    pub(crate) fn forward(&mut self, number: u64, bytes: &[u8]) {
        if let Some(flow) = self.all.get_mut(&number) {
            flow.heard = Instant::now();
            _ = send(&flow.container, bytes, SendFlags::empty());
        }
    }

    /// Sends answers of a container back through the socket that the client has asked, from the address that it has asked.
    pub(crate) fn answer(&mut self, number: u64, listener: BorrowedFd<'_>, buffer: &mut [u8]) {
        let Some(flow) = self.all.get_mut(&number) else { return };
        for _ in 0..TURNS {
            match recv(&flow.container, &mut *buffer, RecvFlags::empty()) {
                Ok((_, length)) => {
                    flow.heard = Instant::now();
                    let answer = &buffer[..length.min(buffer.len())];
                    // An address that this machine has no more answers nobody.
                    _ = datagram::send(listener, answer, flow.asker.client, flow.asker.at);
                }
                // Nobody listens there, which the client learns by silence. The error is gone by having been read.
                Err(Errno::CONNREFUSED | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    pub(crate) fn close(&mut self, number: u64) {
        if let Some(flow) = self.all.remove(&number) {
            self.by_client.remove(&(flow.listener, flow.asker));
        }
    }

    pub(crate) fn close_of(&mut self, listener: u64) {
        self.all.retain(|_, flow| flow.listener != listener);
        self.by_client.retain(|(of, _), _| *of != listener);
    }

    /// Closes those that have been silent for long; answers when to look again.
    pub(crate) fn sweep(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let silent: Vec<u64> =
            self.all.iter().filter(|(_, flow)| flow.heard + SILENCE <= now).map(|(number, _)| *number).collect();
        silent.into_iter().for_each(|number| self.close(number));
        self.all.values().map(|flow| flow.heard + SILENCE).min()
    }

    /// Which one is to end for one more, where there are as many as there may be: of the port with the most of them the one that has
    /// been silent for longest. Whoever sends to one port in the name of many ends that port's flows, and no other's.
    pub(crate) fn surplus(&self) -> Option<u64> {
        if self.all.len() < self.max {
            return None;
        }
        let mut counts: HashMap<u64, usize> = HashMap::new();
        self.all.values().for_each(|flow| *counts.entry(flow.listener).or_default() += 1);
        let (greediest, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let its = self.all.iter().filter(|(_, flow)| flow.listener == greediest);
        its.min_by_key(|(_, flow)| flow.heard).map(|(number, _)| *number)
    }
}

/// What clients have sent to a port, for as long as it is its turn.
pub(crate) fn receive(listener: BorrowedFd<'_>, buffer: &mut [u8], mut each: impl FnMut(Asker, &[u8])) {
    for _ in 0..TURNS {
        match datagram::receive(listener, buffer) {
            Ok(arrived) => each(Asker { client: arrived.from, at: arrived.at }, &buffer[..arrived.bytes]),
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_at_one_port_ends_no_flow_of_another() {
        let mut flows = Flows::of_at_most(8);
        let target: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let mut number = 0;
        let mut open = |flows: &mut Flows, listener: u64| {
            let surplus = flows.surplus();
            surplus.into_iter().for_each(|oldest| flows.close(oldest));
            number += 1;
            let asker = Asker { client: SocketAddr::new(target.ip(), number as u16), at: None };
            flows.open(number, listener, asker, target).unwrap();
            (number, surplus)
        };
        let modest = [open(&mut flows, 1).0, open(&mut flows, 1).0];
        let first = open(&mut flows, 2).0;
        let ended: Vec<_> = (0..100).filter_map(|_| open(&mut flows, 2).1).collect();
        assert_eq!((ended.len(), ended[0]), (95, first), "the oldest one of its own");
        assert!(modest.iter().all(|one| flows.get(*one).is_some()));
        // Nor do its own keep another port from having some.
        let more = [(); 4].map(|()| open(&mut flows, 1).0);
        assert!(more.iter().filter(|one| flows.get(**one).is_some()).count() >= 2);
        assert_eq!(flows.all.len(), 8);
    }
}
