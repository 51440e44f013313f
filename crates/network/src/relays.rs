//! The relay, as the daemon sees it: which of our ports it serves. What it is itself, crate `relay` says.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relay::{AskError, Client, Rule, Source};
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::duties::{Duty, Span};
use crate::ports::{Protocol, Published};

/// Starts a relay with its directory and what is to be its descriptor 3.
pub type Starter = Box<dyn Fn(&Path, OwnedFd) -> io::Result<()> + Send + Sync>;

/// The relay of this instance, which runs as long as it serves a port.
pub(crate) struct Relays {
    /// 0700; made with the first relay.
    dir: PathBuf,
    /// Nobody is started without it: such ports are refused then.
    starter: Option<Starter>,
    client: Option<Client>,
    /// Readable when whoever was asked last has ended.
    end: OwnedFd,
    /// What it serves, as far as it has told.
    served: BTreeSet<Span>,
    /// Likewise by their ids what no daemon of ours would have it serve.
    strange: Vec<String>,
    /// Whether it can serve ranges by one socket, once it was asked.
    steers: Option<bool>,
    /// What it is to serve, whatever it tells. Whoever only wants to know that does not wait for the relay.
    expected: Expected,
    /// Whether it may serve something else: it has not answered. A relay that was stopped goes on with what it had.
    unsettled: bool,
}

/// The ports that the relay is to serve, each by itself, whether or not it is one of a range.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected(Arc<Mutex<HashSet<Port>>>);

type Port = (Protocol, IpAddr, u16);

fn port(published: &Published) -> Port {
    (published.protocol, published.host_address, published.host_port)
}

fn ports(span: &Span) -> impl Iterator<Item = Port> + use<> {
    span.ports().map(|one| (one.protocol, one.host, one.first))
}

impl Expected {
    /// Whether a port is the relay's.
    pub(crate) fn has(&self, published: &Published) -> bool {
        self.ports().contains(&port(published))
    }

    fn ports(&self) -> MutexGuard<'_, HashSet<Port>> {
        // It is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relays").field("dir", &self.dir).field("served", &self.served).finish_non_exhaustive()
    }
}

impl Relays {
    pub(crate) fn new(dir: PathBuf) -> io::Result<Relays> {
        let end = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Relays {
            dir,
            starter: None,
            client: None,
            end,
            served: BTreeSet::new(),
            strange: Vec::new(),
            steers: None,
            expected: Expected::default(),
            unsettled: false,
        })
    }

    pub(crate) fn start_by(&mut self, starter: Starter) {
        self.starter = Some(starter);
    }

    /// Whether anything is to be served.
    pub(crate) fn is_needed(&self) -> bool {
        !self.expected.ports().is_empty()
    }

    /// What is to be served, now and later.
    pub(crate) fn expected(&self) -> Expected {
        self.expected.clone()
    }

    /// Readable when the relay has ended, unless it was asked to: [`Relays::forget_ended`] is due.
    pub(crate) fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// Whether the relay has ended, which is forgotten then; what it is to serve is not.
    pub(crate) fn forget_ended(&mut self) -> io::Result<bool> {
        let mut events = Vec::with_capacity(1);
        epoll::wait(&self.end, rustix::buffer::spare_capacity(&mut events), Some(&rustix::event::Timespec::default()))?;
        if !events.is_empty() {
            self.lose_track();
        }
        Ok(!events.is_empty())
    }

    /// Says what is to be served at the daemon's start: an earlier one's relay may serve more, or less.
    pub(crate) fn expect<'a>(&mut self, published: impl IntoIterator<Item = &'a Published>) {
        *self.expected.ports() = published.into_iter().map(port).collect();
        self.unsettled = true;
    }

    /// Whether [`Relays::begin_to_settle`] is due, and what belongs to it.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// What is served, to which the caller adds what is missing. [`Relays::end_unexpected`] follows. Settled unless it fails.
    pub(crate) fn begin_to_settle(&mut self) -> Result<Vec<Rule>, AskError> {
        let served = self.list()?;
        self.unsettled = false;
        Ok(served)
    }

    /// Ends the serving of what nobody expects. Behind whatever is put: a relay ends with its last port. What is expected and not
    /// served is due again.
    pub(crate) fn end_unexpected(&mut self) -> Result<(), AskError> {
        let (mut unexpected, mut missing) = (Vec::new(), self.expected.ports().clone());
        for span in &self.served {
            let all = ports(span).filter(|port| missing.remove(port)).count();
            if all < ports(span).count() {
                unexpected.push(*span);
            }
        }
        let strange = std::mem::take(&mut self.strange);
        let ended = self.remove_served(&unexpected, strange);
        self.unsettled |= !missing.is_empty();
        ended
    }

    /// What an earlier daemon's relay serves, or the one that we have; without one nothing.
    fn list(&mut self) -> Result<Vec<Rule>, AskError> {
        let listed = self.ask_for_list();
        match &listed {
            Ok(rules) => {
                self.served = rules.iter().filter_map(Span::parse).collect();
                let strange = rules.iter().filter(|rule| Span::parse(rule).is_none());
                self.strange = strange.map(|rule| rule.id.clone()).collect();
            }
            Err(_) => self.lose_track(),
        }
        listed
    }

    fn ask_for_list(&mut self) -> Result<Vec<Rule>, AskError> {
        if self.client.is_none() {
            self.client = Client::find(&self.dir)?.map(|client| self.watched(client)).transpose()?;
        }
        self.client.as_mut().map_or(Ok(Vec::new()), Client::list)
    }

    /// Whether the relay, or a new one if there is none, serves ranges by one socket each.
    pub(crate) fn steers(&mut self) -> Result<bool, AskError> {
        if let (Some(steers), Some(_)) = (self.steers, &self.client) {
            return Ok(steers);
        }
        let mut client = self.take_client()?;
        match client.steers() {
            Ok(steers) => {
                (self.client, self.steers) = (Some(client), Some(steers));
                Ok(steers)
            }
            Err(err) => {
                self.lose_track();
                Err(err)
            }
        }
    }

    /// Has something served, by a new relay if there is none. One that serves it already keeps its socket unless one comes along.
    pub(crate) fn put(&mut self, duty: &Duty, socket: Option<BorrowedFd<'_>>) -> Result<(), AskError> {
        self.expected.ports().extend(ports(&duty.span));
        let mut client = self.take_client()?;
        let put = client.put(&duty.rule(), socket);
        match &put {
            Ok(()) => drop(self.served.insert(duty.span)),
            // What it served by this id it serves still, until somebody withdraws it.
            Err(AskError::Refused(_)) if self.served.contains(&duty.span) => {}
            Err(AskError::Refused(_)) => self.give_up(&duty.span),
            Err(AskError::Io(_)) => {
                self.lose_track();
                return put;
            }
        }
        self.client = Some(client);
        put
    }

    /// [`Relays::put`] of many, each with its socket. One that is refused is told for none of them: each is to be put by itself then.
    pub(crate) fn put_all(&mut self, duties: &[(Duty, BorrowedFd<'_>)]) -> Result<(), AskError> {
        self.expected.ports().extend(duties.iter().flat_map(|(duty, _)| ports(&duty.span)));
        let mut client = self.take_client()?;
        let rules: Vec<(Rule, BorrowedFd<'_>)> = duties.iter().map(|(duty, socket)| (duty.rule(), *socket)).collect();
        let put = client.put_all(&rules);
        if let Err(AskError::Io(_)) = &put {
            self.lose_track();
            return put;
        }
        // Of those of which one is refused it serves some.
        self.served.extend(duties.iter().map(|(duty, _)| duty.span));
        self.client = Some(client);
        put
    }

    /// Has other duties served instead of what it serves of some ports, of a relay that serves ranges. Connections go on that lead where
    /// they did. Those without a socket have that of one that goes, and begins with the same port.
    pub(crate) fn replace(&mut self, gone: &[Span], duties: &[(Duty, Source<'_>)]) -> Result<(), AskError> {
        self.expected.ports().extend(duties.iter().flat_map(|(duty, _)| ports(&duty.span)));
        let mut client = self.take_client()?;
        let ids: Vec<String> = gone.iter().map(Span::id).collect();
        let rules: Vec<_> = duties.iter().map(|(duty, source)| (duty.rule(), source.clone())).collect();
        if let Err(err) = client.replace(&ids, &rules) {
            // Also where it says no: some may be served, and some not.
            self.lose_track();
            return Err(err);
        }
        self.served.retain(|span| !gone.contains(span));
        self.served.extend(duties.iter().map(|(duty, _)| duty.span));
        self.client = Some(client);
        Ok(())
    }

    fn take_client(&mut self) -> Result<Client, AskError> {
        match self.client.take() {
            Some(client) => Ok(client),
            // What is asked for is to be served all the same.
            None => self.find_or_start().inspect_err(|_| self.unsettled = true),
        }
    }

    /// Takes it that something cannot be served: somebody else has it.
    pub(crate) fn give_up(&mut self, span: &Span) {
        let given_up: HashSet<Port> = ports(span).collect();
        self.expected.ports().retain(|port| !given_up.contains(port));
    }

    /// Says that ports are to be served no longer. An error where the relay does not answer: it ends with them as soon as it does.
    pub(crate) fn expect_no_longer(&mut self, published: &[Published]) -> Result<(), AskError> {
        let expected = {
            let mut expected = self.expected.ports();
            published.iter().filter(|one| !one.is_opened() && expected.remove(&port(one))).count()
        };
        match expected > 0 && self.unsettled {
            true => Err(io::Error::new(io::ErrorKind::TimedOut, "the relay does not answer").into()),
            false => Ok(()),
        }
    }

    /// Ends the serving of what is served. After an error it ends as soon as the relay answers.
    pub(crate) fn remove(&mut self, spans: &[Span]) -> Result<(), AskError> {
        self.remove_served(spans, Vec::new())
    }

    fn remove_served(&mut self, spans: &[Span], mut ids: Vec<String>) -> Result<(), AskError> {
        ids.extend(spans.iter().filter(|span| self.served.remove(span)).map(Span::id));
        let Some(client) = &mut self.client else { return Ok(()) };
        let removed = match ids.as_slice() {
            [] => return Ok(()),
            [id] => client.remove(id),
            ids => client.remove_all(ids),
        };
        match removed {
            Ok(false) => Ok(()),
            // The last one: the relay ends.
            Ok(true) => {
                self.lose();
                Ok(())
            }
            // It serves nothing any more, whyever: neither this one nor what else it had.
            Err(AskError::Io(err))
                if matches!(err.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                self.lose_track();
                Ok(())
            }
            // Its answer may come yet, and would be taken for the one to the next question.
            Err(err) => {
                self.lose_track();
                Err(err)
            }
        }
    }

    fn lose(&mut self) {
        (self.client, self.steers) = (None, None);
        self.served.clear();
    }

    fn lose_track(&mut self) {
        self.lose();
        self.unsettled = true;
    }

    fn find_or_start(&mut self) -> Result<Client, AskError> {
        // For what it serves already.
        self.list()?;
        if let Some(client) = self.client.take() {
            return Ok(client);
        }
        let starter = self.starter.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let (client, theirs) = Client::pair()?;
        starter(&self.dir, theirs)?;
        Ok(self.watched(client)?)
    }

    /// The end of a relay is told until its client is dropped.
    fn watched(&self, client: Client) -> io::Result<Client> {
        epoll::add(&self.end, &client, EventData::new_u64(0), EventFlags::RDHUP)?;
        Ok(client)
    }
}

/// What the relay serves of these ports.
pub(crate) fn serving<'a>(relays: &Relays, spans: impl IntoIterator<Item = &'a Span>) -> Vec<Span> {
    let mut serving = BTreeSet::new();
    for span in spans {
        // Those that begin among its ports, and the one that begins before.
        let (from, to) = (Span { last: 0, ..*span }, Span { first: span.last, last: u16::MAX, ..*span });
        let before = relays.served.range(..from).next_back().filter(|one| one.overlaps(span));
        serving.extend(before.into_iter().chain(relays.served.range(from..=to)).copied());
    }
    serving.into_iter().collect()
}

#[cfg(test)]
mod tests;
