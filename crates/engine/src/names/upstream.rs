//! Asking other name servers.
//!
//! The first is asked, and the next one as soon as that has failed or was silent for [`PATIENCE`]; the first good answer
//! counts. So a server that is down costs a fraction of a second, and one that is there gets every query alone.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dns::{Exchange, Judgement, Refusal, Transport};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::JoinSet;
use tracing::debug;

use super::server::{Client, receive, transmit};
use super::warden::{self, Allowed};

/// How long all of it may take: a second less than clients wait (resolv.conf(5), `timeout`).
const DEADLINE: Duration = Duration::from_secs(4);

/// How long a server may be silent before the next one is asked, too.
const PATIENCE: Duration = Duration::from_millis(400);

/// The longest answer over UDP. Some servers send more than the client said it takes: it is passed on as it is.
const DATAGRAM_BYTES: usize = 65535;

/// An answer of the client's servers, or the word that there is none.
pub(super) async fn ask(
    client: &Client,
    exchange: Exchange,
    transport: Transport,
    allowed: Option<Allowed>,
) -> Vec<u8> {
    let exchange = Arc::new(exchange);
    let asked = async {
        let _turn = client.turn().await;
        let reply = race(client, &exchange, transport).await?;
        warden::open(client, allowed, &reply).await.then_some(reply)
    };
    match tokio::time::timeout(DEADLINE, asked).await.ok().flatten() {
        Some(reply) => exchange.finish(reply),
        None => exchange.refuse(Refusal::ServerFailure),
    }
}

async fn race(client: &Client, exchange: &Arc<Exchange>, transport: Transport) -> Option<Vec<u8>> {
    let mut servers = client.servers().await.into_iter();
    let mut asked = JoinSet::new();
    loop {
        if let Some(server) = servers.next() {
            // A name server's network is found anew for each: the container may have gone.
            let (exchange, namespace) = (exchange.clone(), client.namespace(server).ok()?.map(Arc::new));
            let container = client.container.clone();
            asked.spawn(async move {
                let question = Question { exchange: &exchange, server, namespace };
                question.ask(transport).await.unwrap_or_else(|err| {
                    debug!(%container, %server, %err, "a name server cannot be asked");
                    None
                })
            });
        }
        let patience = async {
            match servers.len() {
                0 => std::future::pending().await,
                _ => tokio::time::sleep(PATIENCE).await,
            }
        };
        tokio::select! {
            answered = asked.join_next() => match answered {
                Some(Ok(Some(reply))) => return Some(reply),
                // Failed: the next one, or those that were asked already.
                Some(_) => {}
                None if servers.len() == 0 => return None,
                None => {}
            },
            () = patience => {}
        }
    }
}

/// A query to one server.
struct Question<'a> {
    exchange: &'a Exchange,
    server: SocketAddr,
    /// From where it is asked; from here if absent.
    namespace: Option<Arc<std::os::fd::OwnedFd>>,
}

impl Question<'_> {
    /// `None` if the server says that it has no answer.
    async fn ask(&self, transport: Transport) -> io::Result<Option<Vec<u8>>> {
        if transport == Transport::Tcp {
            return self.over_tcp().await;
        }
        let Some((reply, judgement)) = self.over_udp().await? else { return Ok(None) };
        if judgement == Judgement::Final {
            return Ok(Some(reply));
        }
        let whole = self.over_tcp().await.ok().flatten();
        // Else the client gets the beginning, and asks over TCP itself if it wants the rest.
        Ok(whole.filter(|whole| self.exchange.has_room_for(whole)).or(Some(reply)))
    }

    async fn over_udp(&self) -> io::Result<Option<(Vec<u8>, Judgement)>> {
        let any: SocketAddr = match self.server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        // The kernel chooses the port anew each time. Connected, nobody else's datagrams arrive.
        let open = move || {
            let socket = std::net::UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = UdpSocket::from_std(self.in_place(open).await?)?;
        socket.connect(self.server).await?;
        socket.send(self.exchange.bytes()).await?;
        loop {
            socket.readable().await?;
            let Some(reply) = try_receive(&socket)? else { continue };
            match self.exchange.judge(&reply) {
                Judgement::Unrelated => {}
                Judgement::Failed => return Ok(None),
                judgement => return Ok(Some((reply, judgement))),
            }
        }
    }

    async fn over_tcp(&self) -> io::Result<Option<Vec<u8>>> {
        let is_ipv4 = self.server.is_ipv4();
        let open = move || if is_ipv4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let mut stream = self.in_place(open).await?.connect(self.server).await?;
        transmit(&mut stream, self.exchange.bytes()).await?;
        let Some(reply) = receive(&mut stream).await? else { return Ok(None) };
        let taken = matches!(self.exchange.judge(&reply), Judgement::Final | Judgement::Cut);
        Ok(taken.then_some(reply))
    }

    /// A socket, opened where the server is asked from: what it does later happens there, too.
    async fn in_place<T: Send + 'static>(
        &self,
        open: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(namespace) = self.namespace.clone() else { return open() };
        bridge::blocking(move || sys::namespace::in_network_namespace(std::os::fd::AsFd::as_fd(&*namespace), open))
            .await?
    }
}

/// What has come, if anything has. Not in the task itself: it would have to carry the room for it.
fn try_receive(socket: &UdpSocket) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; DATAGRAM_BYTES];
    match socket.try_recv(&mut buffer) {
        Ok(count) => Ok(Some(buffer[..count].to_vec())),
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(err) => Err(err),
    }
}
