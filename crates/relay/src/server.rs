//! The process: rules, and what goes on by them.

mod orders;
mod ranges;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::ranges::{Origin, Ranges};
use crate::datagram::{DATAGRAM_MAX, Flows, receive};
use crate::stream::{Link, Side};
use crate::{LINKS_MAX, MESSAGE_MAX, QUESTION_MAX, RULES_MAX, Reply, Rule};

/// Events that are taken at a time.
const EVENTS: usize = 64;
/// Connections of a listener that are taken before others have their turn.
const ACCEPTS: usize = 16;
/// How long nothing is taken where the kernel has no room for one more.
const PAUSE: Duration = Duration::from_millis(100);
/// Descriptors that a connection takes, and those that stay for everything else but rules.
const DESCRIPTORS_OF_LINK: u64 = 6;
const DESCRIPTORS_OF_OTHERS: u64 = 128 + crate::FLOWS_MAX as u64;

/// What an event is about.
#[derive(Clone, Debug)]
enum Source {
    /// Where later daemons connect.
    Door,
    Daemon,
    /// A published port; its rule's id.
    Listener(String),
    /// One end of a connection; the connection's number.
    End(u64),
    Flow,
}

#[derive(Debug)]
struct Served {
    rule: Rule,
    socket: OwnedFd,
    /// The socket's number.
    number: u64,
    /// Connections that came by it.
    links: usize,
    /// Of a range: where the kernel finds its socket.
    place: Option<u32>,
}

#[derive(Debug)]
struct Relayed {
    link: Link,
    /// Where it leads.
    target: SocketAddr,
    /// The port that it came to.
    port: u16,
    /// The listener it came by.
    listener: u64,
    /// The numbers of both ends, and what is being waited for there.
    ends: [(u64, EventFlags); 2],
}

struct Relay {
    epoll: OwnedFd,
    dir: PathBuf,
    sources: HashMap<u64, Source>,
    count: u64,
    door: OwnedFd,
    door_number: u64,
    daemons: HashMap<u64, OwnedFd>,
    rules: BTreeMap<String, Served>,
    rules_max: usize,
    /// What leads connections to ranges, once one was served.
    ranges: Option<Ranges>,
    /// Since when it serves nothing, of one that has served something.
    idle_since: Option<Instant>,
    linger: Duration,
    links: HashMap<u64, Relayed>,
    links_max: usize,
    /// Whether listeners wait until a connection has ended.
    full: bool,
    /// When what waits for the kernel's room is taken again.
    resume_at: Option<Instant>,
    flows: Flows,
    sweep_at: Option<Instant>,
    buffer: Vec<u8>,
    ends: bool,
}

/// Serves until the last rule has gone `linger` ago, or with all daemons, or no daemon comes to name the first one. Blocks until
/// then: it is the whole process. An error is that it cannot begin, or that the kernel does not let it wait.
pub fn run(dir: &Path, first: Option<OwnedFd>, linger: Duration) -> io::Result<()> {
    let mut relay = match Relay::open(dir) {
        Ok(relay) => Relay { linger, ..relay },
        Err(err) => {
            // Nobody else hears of it: this process has no log.
            first.as_ref().into_iter().for_each(|first| refuse(first.as_fd(), &err));
            return Err(err);
        }
    };
    if let Some(first) = first {
        rustix::io::ioctl_fionbio(&first, true)?;
        relay.welcome(first)?;
    }
    let mut events = Vec::with_capacity(EVENTS);
    let is_over = |relay: &Relay| relay.idle_since.is_some_and(|since| since.elapsed() >= relay.linger);
    while !(relay.ends || relay.rules.is_empty() && (relay.daemons.is_empty() || is_over(&relay))) {
        relay.wait(&mut events)?;
        for event in events.drain(..) {
            if !relay.ends {
                relay.handle(event.data.u64());
            }
        }
    }
    match relay.ends {
        // It is gone already, and another relay's may be there.
        true => Ok(()),
        // A daemon that connects now is told that nobody listens, and starts another one.
        false => std::fs::remove_file(crate::socket_path(dir)),
    }
}

/// Answers whatever is asked with the reason why it cannot be done.
fn refuse(daemon: BorrowedFd<'_>, err: &io::Error) {
    let text = serde_json::to_vec(&Reply::Refused(format!("the relay cannot begin: {err}"))).unwrap_or_default();
    // A daemon that has gone needs no answer.
    _ = sys::socket::send(daemon, &text, &[]);
}

impl Relay {
    fn open(dir: &Path) -> io::Result<Relay> {
        let limit = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
        let limit = limit.unwrap_or(u64::MAX);
        let rules_max = RULES_MAX.min(usize::try_from(limit / 4).unwrap_or(RULES_MAX));
        let spare = limit.saturating_sub(DESCRIPTORS_OF_OTHERS + rules_max as u64) / DESCRIPTORS_OF_LINK;
        let mut relay = Relay {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            dir: dir.to_owned(),
            sources: HashMap::new(),
            count: 0,
            door: open_door(dir)?,
            door_number: 0,
            daemons: HashMap::new(),
            rules: BTreeMap::new(),
            rules_max,
            ranges: None,
            idle_since: None,
            linger: Duration::ZERO,
            links: HashMap::new(),
            links_max: LINKS_MAX.min(usize::try_from(spare).unwrap_or(LINKS_MAX)).max(1),
            full: false,
            resume_at: None,
            flows: Flows::of_at_most(crate::FLOWS_MAX),
            sweep_at: None,
            buffer: vec![0; DATAGRAM_MAX],
            ends: false,
        };
        relay.door_number = relay.number(Source::Door);
        watch(&relay.epoll, relay.door.as_fd(), relay.door_number, EventFlags::IN)?;
        Ok(relay)
    }

    fn number(&mut self, source: Source) -> u64 {
        self.count += 1;
        self.sources.insert(self.count, source);
        self.count
    }

    fn welcome(&mut self, daemon: OwnedFd) -> io::Result<()> {
        let number = self.number(Source::Daemon);
        watch(&self.epoll, daemon.as_fd(), number, EventFlags::IN)?;
        self.daemons.insert(number, daemon);
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let now = Instant::now();
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep_at = self.flows.sweep();
            self.forget_flows();
        }
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume();
        }
        let over_at = self.idle_since.map(|since| since + self.linger);
        let next = self.sweep_at.into_iter().chain(self.resume_at).chain(over_at).min();
        let left = next.map(|at| at.saturating_duration_since(now));
        let timeout = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn handle(&mut self, number: u64) {
        // What an event before this one has closed is not there any more.
        let Some(source) = self.sources.get(&number).cloned() else { return };
        match source {
            Source::Door => self.open_to_daemon(),
            Source::Daemon => self.hear(number),
            Source::Listener(id) => self.serve(&id),
            Source::End(link) => self.pump(link),
            Source::Flow => self.answer(number),
        }
    }

    fn open_to_daemon(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let daemon = match accept_with(&self.door, flags) {
            Ok(daemon) => daemon,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
            Err(_) => return self.pause(),
        };
        // Root alone, or whoever this process belongs to.
        let own = rustix::process::geteuid().as_raw();
        if sys::socket::peer(daemon.as_fd()).is_ok_and(|peer| peer.uid == 0 || peer.uid == own) {
            // One that cannot be heard is closed, and comes again.
            _ = self.welcome(daemon);
        }
    }

    /// One message of a daemon.
    fn hear(&mut self, number: u64) {
        let Some(daemon) = self.daemons.get(&number) else { return };
        let (bytes, mut fds) = (&mut self.buffer[..QUESTION_MAX], Vec::new());
        let length = match sys::socket::receive(daemon.as_fd(), bytes, &mut fds) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) | Ok(0) => return self.part(number),
            Ok(length) => length,
        };
        let reply = match serde_json::from_slice(&bytes[..length]) {
            Ok(ask) => orders::obey(self, ask, fds),
            Err(err) => Reply::Refused(err.to_string()),
        };
        let text = serde_json::to_vec(&reply).unwrap_or_default();
        self.ends |= reply == Reply::Ends;
        let sent = self.daemons.get(&number).map(|daemon| sys::socket::send(daemon.as_fd(), &text, &[]));
        if text.len() > MESSAGE_MAX || !matches!(sent, Some(Ok(_))) {
            self.part(number);
        }
    }

    fn part(&mut self, daemon: u64) {
        self.sources.remove(&daemon);
        self.daemons.remove(&daemon);
    }

    /// Serves a port from now on. On an error what was served by its id is served as before.
    fn put(&mut self, rule: Rule, socket: Option<OwnedFd>) -> io::Result<()> {
        if rule.range.is_some() || self.rules.get(&rule.id).is_some_and(|known| known.place.is_some()) {
            let origin = socket.map_or_else(|| Origin::Heir(rule.id.clone()), Origin::Socket);
            return ranges::replace(self, std::slice::from_ref(&rule.id.clone()), vec![(rule, origin)]);
        }
        let known = self.rules.get(&rule.id);
        if known.is_none() && self.rules.len() >= self.rules_max {
            return Err(io::Error::other(format!("the relay serves {} ports and no more", self.rules_max)));
        }
        let socket = match (socket, known) {
            (Some(socket), _) => socket,
            (None, Some(known)) => known.socket.try_clone()?,
            (None, None) => return Err(io::Error::other("no socket came with a new port")),
        };
        if let Some(known) = self.begin(rule, socket, None)? {
            self.retire(&known);
            self.forget_flows();
        }
        Ok(())
    }

    /// Waits at a rule's socket from now on; answers what had its id, which is to be retired.
    fn begin(&mut self, rule: Rule, socket: OwnedFd, place: Option<u32>) -> io::Result<Option<Served>> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        if rule.udp {
            sys::datagram::tell_addresses(socket.as_fd())?;
        }
        let number = self.number(Source::Listener(rule.id.clone()));
        let served = Served { rule, socket, number, links: 0, place };
        if let Err(errno) = watch(&self.epoll, served.socket.as_fd(), number, self.awaited(&served)) {
            self.sources.remove(&number);
            return Err(errno.into());
        }
        self.idle_since = None;
        Ok(self.rules.insert(served.rule.id.clone(), served))
    }

    /// What is waited for at a listener. Of one that has all connections that it may have nothing: the kernel would tell of those that
    /// wait there again and again.
    fn awaited(&self, served: &Served) -> EventFlags {
        let share = if self.rules.len() > 1 { self.links_max.div_ceil(2) } else { self.links_max };
        let waits = !served.rule.udp && (self.full || served.links >= share);
        if waits { EventFlags::empty() } else { EventFlags::IN }
    }

    fn await_again(&self, served: &Served) {
        watch_for(&self.epoll, &served.socket, served.number, self.awaited(served));
    }

    /// Ends what a rule did, whose flows are then to be forgotten.
    fn retire(&mut self, served: &Served) {
        self.sources.remove(&served.number);
        // The daemon has the socket, too: closing ours would not end its events.
        _ = epoll::delete(&self.epoll, &served.socket);
        self.close_of(served.number);
    }

    /// Closes what came by a listener.
    fn close_of(&mut self, listener: u64) {
        let of = |(number, relayed): (&u64, &Relayed)| (relayed.listener == listener).then_some(*number);
        let closing: Vec<u64> = self.links.iter().filter_map(of).collect();
        closing.into_iter().for_each(|link| self.close(link));
        self.flows.close_of(listener);
    }

    fn forget_flows(&mut self) {
        let flows = &self.flows;
        self.sources.retain(|number, source| !matches!(source, Source::Flow) || flows.get(*number).is_some());
    }

    /// Something has come to a published port.
    fn serve(&mut self, id: &str) {
        let Some(served) = self.rules.get(id) else { return };
        if served.rule.udp {
            return self.forward(id);
        }
        for _ in 0..ACCEPTS {
            let Some(served) = self.rules.get(id) else { return };
            if self.links.len() >= self.links_max {
                return self.set_full(true);
            }
            if self.awaited(served).is_empty() {
                return self.await_again(served);
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&served.socket, flags) {
                Ok(client) => {
                    // Of a range it may be another one's by now, or nobody's.
                    let Some((listener, target, port)) = ranges::led_to(self, served, &client) else { continue };
                    // Who cannot be relayed is hung up on: the container does not listen, or there is no room.
                    if let Ok(link) = Link::begin(client, target) {
                        self.relay(link, (listener, target, port));
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return self.pause(),
                // Nobody listens there any more.
                Err(Errno::INVAL) => {
                    _ = epoll::delete(&self.epoll, &served.socket);
                    return;
                }
                // accept(2): a connection that has failed is told as an error, and is gone by that.
                Err(_) => {}
            }
        }
    }

    /// Takes nothing for a while: the kernel has no room, also where no end of a connection of ours would make some.
    fn pause(&mut self) {
        self.resume_at = Some(Instant::now() + PAUSE);
        watch_for(&self.epoll, &self.door, self.door_number, EventFlags::empty());
        self.set_full(true);
    }

    fn resume(&mut self) {
        self.resume_at = None;
        watch_for(&self.epoll, &self.door, self.door_number, EventFlags::IN);
        self.set_full(false);
    }

    fn relay(&mut self, link: Link, (listener, target, port): (u64, SocketAddr, u16)) {
        self.count += 1;
        let number = self.count;
        let ends = [(); 2].map(|()| (self.number(Source::End(number)), EventFlags::empty()));
        self.links.insert(number, Relayed { link, target, port, listener, ends });
        self.count_link(listener, 1);
        self.pump(number);
    }

    fn pump(&mut self, number: u64) {
        let Some(relayed) = self.links.get_mut(&number) else { return };
        let pumped = relayed.link.pump();
        if pumped.is_err() || relayed.link.is_over() || expect(&self.epoll, relayed).is_err() {
            self.close(number);
        }
    }

    fn close(&mut self, link: u64) {
        if let Some(relayed) = self.links.remove(&link) {
            relayed.ends.iter().for_each(|(number, _)| drop(self.sources.remove(number)));
            let listener = relayed.listener;
            drop(relayed);
            self.count_link(listener, -1);
            self.set_full(false);
        }
    }

    /// One connection more or less of a listener, if it is there still.
    fn count_link(&mut self, listener: u64, change: isize) {
        let Some(Source::Listener(id)) = self.sources.get(&listener) else { return };
        let Some(served) = self.rules.get_mut(id) else { return };
        served.links = served.links.saturating_add_signed(change);
        if change < 0 && !self.full {
            let served = &self.rules[id];
            self.await_again(served);
        }
    }

    /// Stops taking connections, or goes on: those that come meanwhile wait at their listeners.
    fn set_full(&mut self, full: bool) {
        if self.full == full {
            return;
        }
        self.full = full;
        self.rules.values().filter(|served| !served.rule.udp).for_each(|served| self.await_again(served));
    }

    fn forward(&mut self, id: &str) {
        let Some(served) = self.rules.get(id) else { return };
        let (listener, target) = (served.number, served.rule.target);
        let (flows, sources, count) = (&mut self.flows, &mut self.sources, &mut self.count);
        let epoll = &self.epoll;
        receive(served.socket.as_fd(), &mut self.buffer, |asker, bytes| {
            let number = flows.of(listener, asker).or_else(|| {
                if let Some(oldest) = flows.surplus() {
                    flows.close(oldest);
                    sources.remove(&oldest);
                }
                *count += 1;
                let opened = flows.open(*count, listener, asker, target);
                let watched = opened.and_then(|socket| watch(epoll, socket, *count, EventFlags::IN));
                if watched.is_err() {
                    // The datagram is lost, as datagrams are.
                    flows.close(*count);
                    return None;
                }
                sources.insert(*count, Source::Flow);
                Some(*count)
            });
            number.into_iter().for_each(|number| flows.forward(number, bytes));
        });
        self.sweep_at = self.sweep_at.or_else(|| self.flows.sweep());
    }

    fn answer(&mut self, number: u64) {
        let Some(listener) = self.flows.get(number).map(|flow| flow.listener) else { return };
        let Some(Source::Listener(id)) = self.sources.get(&listener) else { return };
        if let Some(served) = self.rules.get(id) {
            self.flows.answer(number, served.socket.as_fd(), &mut self.buffer);
        }
    }
}

/// Waits at both ends for what the connection needs next. An end of which nothing is wanted is not watched: the kernel would tell
/// of its hanging up again and again.
fn expect(epoll: &OwnedFd, relayed: &mut Relayed) -> Result<(), Errno> {
    for (side, (number, had)) in [Side::Client, Side::Container].into_iter().zip(&mut relayed.ends) {
        let (wanted, end) = (relayed.link.interest(side), relayed.link.end(side));
        match (had.is_empty(), wanted.is_empty()) {
            _ if *had == wanted => {}
            (true, _) => watch(epoll, end, *number, wanted)?,
            (_, true) => epoll::delete(epoll, end)?,
            (false, false) => epoll::modify(epoll, end, EventData::new_u64(*number), wanted)?,
        }
        *had = wanted;
    }
    Ok(())
}

fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>, number: u64, flags: EventFlags) -> Result<(), Errno> {
    epoll::add(epoll, fd, EventData::new_u64(number), flags)
}

/// Waits for something else at what is watched.
fn watch_for(epoll: &OwnedFd, fd: &OwnedFd, number: u64, flags: EventFlags) {
    // It takes no memory, and what is not watched any more tells nothing.
    _ = epoll::modify(epoll, fd, EventData::new_u64(number), flags);
}

/// Listens for daemons. A socket that an earlier relay left is replaced.
fn open_door(dir: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(crate::socket_path(dir)) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let door = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let opened = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // The directory may be deeper than a socket's path may be long. It is 0700: nobody else gets here.
    let path = crate::socket_path(Path::new(&format!("/proc/self/fd/{}", opened.as_raw_fd())));
    rustix::net::bind(&door, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&door, 16)?;
    Ok(door)
}

#[cfg(test)]
mod tests;
