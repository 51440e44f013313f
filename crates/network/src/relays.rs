//! The relay, as the daemon sees it: which of our ports it serves. What it is itself, crate `relay` says.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use relay::{Client, Rule};

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
    served: BTreeSet<String>,
}

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relays").field("dir", &self.dir).field("served", &self.served).finish_non_exhaustive()
    }
}

impl Relays {
    pub(crate) fn new(dir: PathBuf) -> Relays {
        Relays { dir, starter: None, client: None, served: BTreeSet::new() }
    }

    pub(crate) fn start_by(&mut self, starter: Starter) {
        self.starter = Some(starter);
    }

    /// Whether there can be a relay.
    pub(crate) fn is_possible(&self) -> bool {
        self.starter.is_some()
    }

    pub(crate) fn serves(&self, published: &Published) -> bool {
        self.served.contains(&id(published))
    }

    /// What an earlier daemon's relay serves, or the one that we have; without one nothing.
    pub(crate) fn list(&mut self) -> io::Result<Vec<Rule>> {
        if self.client.is_none() {
            self.client = Client::find(&self.dir)?;
        }
        let listed = self.client.as_mut().map_or(Ok(Vec::new()), Client::list);
        match &listed {
            Ok(rules) => self.served = rules.iter().map(|rule| rule.id.clone()).collect(),
            Err(_) => self.lose(),
        }
        listed
    }

    /// Has a port served, by a new relay if there is none. One that serves it already keeps its socket unless one comes along.
    pub(crate) fn put(
        &mut self,
        published: &Published,
        target: SocketAddr,
        socket: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let rule = rule(published, target);
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.find_or_start()?,
        };
        let put = client.put(&rule, socket);
        match &put {
            Ok(()) => drop(self.served.insert(rule.id)),
            Err(err) if is_refusal(err) => {}
            Err(_) => {
                self.lose();
                return put;
            }
        }
        self.client = Some(client);
        put
    }

    /// Ends the serving of a port, if it is served.
    pub(crate) fn remove(&mut self, published: &Published) -> io::Result<()> {
        self.remove_id(&id(published))
    }

    pub(crate) fn remove_id(&mut self, id: &str) -> io::Result<()> {
        let (true, Some(client)) = (self.served.remove(id), &mut self.client) else { return Ok(()) };
        match client.remove(id) {
            Ok(false) => Ok(()),
            // The last one: the relay ends.
            Ok(true) => {
                self.lose();
                Ok(())
            }
            // It serves nothing any more, whyever.
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe || err.kind() == io::ErrorKind::ConnectionReset => {
                self.lose();
                Ok(())
            }
            Err(err) => Err(err),
        }
    }

    fn lose(&mut self) {
        self.client = None;
        self.served.clear();
    }

    fn find_or_start(&mut self) -> io::Result<Client> {
        // For what it serves already.
        self.list()?;
        if let Some(client) = self.client.take() {
            return Ok(client);
        }
        let starter = self.starter.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let (client, theirs) = Client::pair()?;
        starter(&self.dir, theirs)?;
        Ok(client)
    }
}

/// Whether the relay has answered that it will not, and goes on.
pub(crate) fn is_refusal(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::Other
}

/// What the relay is told of a port.
pub(crate) fn rule(published: &Published, target: SocketAddr) -> Rule {
    Rule { id: id(published), udp: published.protocol == Protocol::Udp, target }
}

fn id(published: &Published) -> String {
    let host = SocketAddr::new(published.host_address, published.host_port);
    format!("{} {host}", published.protocol)
}
