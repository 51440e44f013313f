//! A container's name server: its two sockets.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use dns::{Exchange, Query, Refusal, Transport, Verdict};
use network::ResolverSockets;
use oci::ContainerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{FEW_FLIGHTS, FLIGHTS_PER_CONTAINER, Rules, Shared, WAITING_PER_CONTAINER, upstream, warden};
use crate::sync::read;

/// How long a query over UDP may be. One that is longer is cut by the kernel, and then no query: those of programs have one
/// question and some options.
const DATAGRAM_BYTES: usize = 4096;

/// How many datagrams are read in one turn: then the daemon's other tasks have theirs.
const BATCH: usize = 64;

/// How many connections one container has here at most; and how long one may say nothing, and how many queries it has, as
/// with dockerd.
const CONNECTIONS: usize = 32;
const CONNECTION_QUIET: Duration = Duration::from_secs(8);
const CONNECTION_QUERIES: usize = 128;

/// How long a listener rests that cannot accept: the daemon has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The name server of one container.
pub(super) struct Server {
    client: Arc<Client>,
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    /// Forwarded queries and connections: they end with the server.
    tasks: JoinSet<()>,
}

/// Whose queries they are.
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) container: ContainerId,
    pub(super) rules: Rules,
    /// In the container's network namespace, which is found through it. Gone with the server.
    socket: Weak<UdpSocket>,
    waiting: Arc<Semaphore>,
    flights: Semaphore,
    connections: Arc<Semaphore>,
}

impl Server {
    pub(super) fn open(
        shared: Arc<Shared>,
        container: &ContainerId,
        sockets: ResolverSockets,
        rules: Rules,
    ) -> io::Result<Server> {
        let udp = Arc::new(UdpSocket::from_std(sockets.udp.into())?);
        let client = Arc::new(Client {
            shared,
            container: container.clone(),
            rules,
            socket: Arc::downgrade(&udp),
            waiting: Arc::new(Semaphore::new(WAITING_PER_CONTAINER)),
            flights: Semaphore::new(FLIGHTS_PER_CONTAINER),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
        });
        Ok(Server { client, udp, tcp: TcpListener::from_std(sockets.tcp.into())?, tasks: JoinSet::new() })
    }

    /// Serves until it is dropped.
    pub(super) async fn run(mut self) {
        let mut rests_until = None;
        loop {
            tokio::select! {
                ready = self.udp.readable() => match ready {
                    Ok(()) => {
                        self.read_batch();
                        tokio::task::yield_now().await;
                    }
                    Err(err) => return warn!(container = %self.client.container, %err, "the name server ends"),
                },
                accepted = accept(&self.tcp, rests_until) => match accepted {
                    Ok(stream) => {
                        rests_until = None;
                        self.converse(stream);
                    }
                    Err(err) => {
                        debug!(container = %self.client.container, %err, "accept a query's connection");
                        rests_until = Some(Instant::now() + ACCEPT_PAUSE);
                    }
                },
                // Whatever came of them they have told.
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    fn read_batch(&mut self) {
        let mut buffer = [0; DATAGRAM_BYTES];
        for _ in 0..BATCH {
            match self.udp.try_recv_from(&mut buffer) {
                Ok((count, from)) => self.datagram(&buffer[..count], from),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return,
                // What an earlier answer came to, whose asker is gone.
                Err(err) => debug!(container = %self.client.container, %err, "read a query"),
            }
        }
    }

    fn datagram(&mut self, bytes: &[u8], from: SocketAddr) {
        match self.client.answer(bytes, Transport::Udp) {
            Verdict::Reply(reply) => send(&self.udp, &reply, from),
            Verdict::Ignore => {}
            Verdict::Forward(query) => match warden::ask_leave(&self.client, &query).ok().zip(self.client.queue()) {
                None => send(&self.udp, &query.refuse(Refusal::Refused), from),
                Some((allowed, place)) => {
                    let (exchange, client) = (exchange(&query), self.client.clone());
                    self.tasks.spawn(async move {
                        let reply = upstream::ask(&client, exchange, Transport::Udp, allowed).await;
                        drop(place);
                        client.socket.upgrade().iter().for_each(|socket| send(socket, &reply, from));
                    });
                }
            },
        }
    }

    fn converse(&mut self, stream: TcpStream) {
        // One too many finds its connection closed, and tries again.
        let Ok(place) = self.client.connections.clone().try_acquire_owned() else { return };
        let client = self.client.clone();
        self.tasks.spawn(async move {
            if let Err(err) = client.converse(stream).await {
                debug!(container = %client.container, %err, "a query's connection broke");
            }
            drop(place);
        });
    }
}

impl Client {
    fn answer<'a>(&self, bytes: &'a [u8], transport: Transport) -> Verdict<'a> {
        // Fresh keys each time: what comes out is random enough for an order of addresses, without a system call.
        let chance = RandomState::new().hash_one(());
        let zone = read(&self.shared.zone);
        zone.answer(self.container.as_str(), bytes, transport, chance, self.rules.keeps_words)
    }

    /// A forwarded query's right to wait for an answer.
    fn queue(&self) -> Option<OwnedSemaphorePermit> {
        self.waiting.clone().try_acquire_owned().ok()
    }

    /// A forwarded query's turn to be sent; ends with what is answered.
    pub(super) async fn turn(&self) -> [Option<SemaphorePermit<'_>>; 2] {
        // An error would say that a semaphore was closed, which nobody does. A container's own comes first: who waits for
        // that does not keep others from theirs.
        let own = self.flights.acquire().await.ok();
        let sent = FLIGHTS_PER_CONTAINER - self.flights.available_permits();
        let spare = async {
            match sent <= FEW_FLIGHTS {
                true => self.shared.spare_flights.acquire().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            turn = self.shared.flights.acquire() => [own, turn.ok()],
            turn = spare => [own, turn.ok()],
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        for _ in 0..CONNECTION_QUERIES {
            // Whoever is gone is not served any more; its network may be another's soon.
            if self.socket.strong_count() == 0 {
                return Ok(());
            }
            let Ok(query) = tokio::time::timeout(CONNECTION_QUIET, receive(&mut stream)).await else { return Ok(()) };
            let Some(query) = query? else { return Ok(()) };
            let reply = match self.answer(&query, Transport::Tcp) {
                Verdict::Reply(reply) => reply,
                Verdict::Ignore => return Ok(()),
                Verdict::Forward(query) => match warden::ask_leave(self, &query).ok().zip(self.queue()) {
                    None => query.refuse(Refusal::Refused),
                    Some((allowed, _place)) => upstream::ask(self, exchange(&query), Transport::Tcp, allowed).await,
                },
            };
            let Ok(sent) = tokio::time::timeout(CONNECTION_QUIET, transmit(&mut stream, &reply)).await else { break };
            sent?;
        }
        Ok(())
    }

    /// The servers to ask, in order, at most [`dns::SERVERS_MAX`]; each with a socket of the container's network if it is to
    /// be asked from there.
    pub(super) async fn servers(&self) -> Vec<SocketAddr> {
        if let Some(own) = &self.rules.servers {
            let others = own.iter().filter(|address| **address != network::RESOLVER).take(dns::SERVERS_MAX);
            return others.map(|address| SocketAddr::new(*address, self.shared.port)).collect();
        }
        // Behind an internal network nobody shall reach out through us.
        if !read(&self.shared.zone).leads_out(self.container.as_str()) {
            return Vec::new();
        }
        self.shared.host.servers().await.to_vec()
    }

    /// The container's network namespace, if a server is asked from there.
    pub(super) fn namespace(&self, server: SocketAddr) -> io::Result<Option<OwnedFd>> {
        if self.rules.servers.is_none() || warden::asks_for(self, server) {
            return Ok(None);
        }
        let socket = self.socket.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        sys::network::namespace_of(std::os::fd::AsFd::as_fd(&*socket)).map(Some)
    }
}

/// The next connection, after a rest if there is to be one: so that nobody else has to rest.
async fn accept(listener: &TcpListener, rests_until: Option<Instant>) -> io::Result<TcpStream> {
    if let Some(until) = rests_until {
        tokio::time::sleep_until(until).await;
    }
    Ok(listener.accept().await?.0)
}

fn exchange(query: &Query<'_>) -> Exchange {
    let mut id = [0; 2];
    // Two bytes come whole, or nothing where the kernel has no such call: then the port alone is hard to guess.
    let _ = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
    Exchange::new(query, u16::from_ne_bytes(id))
}

fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    // A full buffer loses it, as any network may: the client asks again.
    if let Err(err) = socket.try_send_to(reply, to) {
        debug!(%err, "send an answer");
    }
}

/// One message of a connection: its length, then itself. `None` at the end.
pub(super) async fn receive(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(err) => return Err(err),
    };
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

pub(super) async fn transmit(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    // In one piece: some servers take the length alone for a whole message.
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(message);
    stream.write_all(&bytes).await
}
