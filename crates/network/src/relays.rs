//! The relay, as the daemon sees it: which of our ports it serves. What it is itself, crate `relay` says.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relay::{AskError, Client, Rule};
use rustix::event::epoll::{self, EventData, EventFlags};

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
    served: BTreeSet<String>,
    /// What it is to serve, whatever it tells. Whoever only wants to know that does not wait for the relay.
    expected: Expected,
    /// Whether it may serve something else: it has not answered. A relay that was stopped goes on with what it had.
    unsettled: bool,
}

/// By their ids, the ports that the relay is to serve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected(Arc<Mutex<BTreeSet<String>>>);

impl Expected {
    /// Whether a port is the relay's.
    pub(crate) fn has(&self, published: &Published) -> bool {
        self.ids().contains(&id(published))
    }

    fn ids(&self) -> MutexGuard<'_, BTreeSet<String>> {
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
        let (served, expected) = (BTreeSet::new(), Expected::default());
        Ok(Relays { dir, starter: None, client: None, end, served, expected, unsettled: false })
    }

    pub(crate) fn start_by(&mut self, starter: Starter) {
        self.starter = Some(starter);
    }

    /// Whether anything is to be served.
    pub(crate) fn is_needed(&self) -> bool {
        !self.expected.ids().is_empty()
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
    pub(crate) fn expect(&mut self, ids: impl IntoIterator<Item = String>) {
        *self.expected.ids() = ids.into_iter().collect();
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
        let unexpected: Vec<String> = self.served.difference(&self.expected.ids()).cloned().collect();
        let ended = self.remove_ids(unexpected);
        self.unsettled |= !self.expected.ids().is_subset(&self.served);
        ended
    }

    /// What an earlier daemon's relay serves, or the one that we have; without one nothing.
    fn list(&mut self) -> Result<Vec<Rule>, AskError> {
        let listed = self.ask_for_list();
        match &listed {
            Ok(rules) => self.served = rules.iter().map(|rule| rule.id.clone()).collect(),
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

    /// Has a port served, by a new relay if there is none. One that serves it already keeps its socket unless one comes along.
    pub(crate) fn put(
        &mut self,
        published: &Published,
        target: SocketAddr,
        socket: Option<BorrowedFd<'_>>,
    ) -> Result<(), AskError> {
        let rule = rule(published, target);
        self.expected.ids().insert(rule.id.clone());
        let mut client = self.take_client()?;
        let put = client.put(&rule, socket);
        match &put {
            Ok(()) => drop(self.served.insert(rule.id)),
            // What it served by this id it serves still, until somebody withdraws it.
            Err(AskError::Refused(_)) if self.served.contains(&rule.id) => {}
            Err(AskError::Refused(_)) => drop(self.expected.ids().remove(&rule.id)),
            Err(AskError::Io(_)) => {
                self.lose_track();
                return put;
            }
        }
        self.client = Some(client);
        put
    }

    /// [`Relays::put`] of many, each with its socket. One that is refused is told for none of them: each is to be put by itself then.
    pub(crate) fn put_all(&mut self, ports: &[(Rule, BorrowedFd<'_>)]) -> Result<(), AskError> {
        let ids = || ports.iter().map(|(rule, _)| rule.id.clone());
        self.expected.ids().extend(ids());
        let mut client = self.take_client()?;
        let put = client.put_all(ports);
        if let Err(AskError::Io(_)) = &put {
            self.lose_track();
            return put;
        }
        // Of those of which one is refused it serves some.
        self.served.extend(ids());
        self.client = Some(client);
        put
    }

    fn take_client(&mut self) -> Result<Client, AskError> {
        match self.client.take() {
            Some(client) => Ok(client),
            // What is asked for is to be served all the same.
            None => self.find_or_start().inspect_err(|_| self.unsettled = true),
        }
    }

    /// Takes it that a port cannot be served: somebody else has it.
    pub(crate) fn give_up(&mut self, published: &Published) {
        self.expected.ids().remove(&id(published));
    }

    /// Ends the serving of ports, as far as they are served. After an error it ends as soon as the relay answers.
    pub(crate) fn remove(&mut self, ports: &[Published]) -> Result<(), AskError> {
        let ids: Vec<String> = ports.iter().filter(|one| !one.is_opened()).map(id).collect();
        let expected = {
            let mut expected = self.expected.ids();
            ids.iter().filter(|id| expected.remove(*id)).count()
        };
        if expected > 0 && self.unsettled {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the relay does not answer").into());
        }
        self.remove_ids(ids)
    }

    fn remove_ids(&mut self, mut ids: Vec<String>) -> Result<(), AskError> {
        ids.retain(|id| self.served.remove(id));
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
        self.client = None;
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

/// What the relay is told of a port.
pub(crate) fn rule(published: &Published, target: SocketAddr) -> Rule {
    Rule { id: id(published), udp: published.protocol == Protocol::Udp, target, range: None }
}

fn id(published: &Published) -> String {
    let host = SocketAddr::new(published.host_address, published.host_port);
    format!("{} {host}", published.protocol)
}

#[cfg(test)]
mod tests;
