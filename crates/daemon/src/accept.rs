//! The life of the daemon: it accepts connections until a signal comes, or until it is no longer needed.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use api_server::Server;
use engine::Engine;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::idle::{Idle, Leave};
use crate::listen::{Listener, SocketFile};
use crate::reload::Reload;
use crate::rest::rest;
use crate::tls;

/// How long accepting pauses when the system has no descriptors left: the next try is of use only when some are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything that runs.
pub(crate) struct Daemon {
    engine: Engine,
    server: Server,
    listeners: Vec<Accepting>,
    /// Decides about the end; absent for a daemon that was not started on demand.
    idle: Option<Idle>,
    signals: Signals,
    /// What TCP clients must speak; absent for none.
    tls: Option<TlsAcceptor>,
}

/// A socket that listens, in the runtime's hands.
pub(crate) enum Accepting {
    Unix(UnixListener, Option<SocketFile>),
    Tcp(TcpListener),
    Metrics(TcpListener),
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
    Metrics(TcpStream),
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

enum Wake {
    Accepted(io::Result<Accepted>),
    End(&'static str),
    Reload,
    Idle,
}

impl Daemon {
    /// Brings together what runs. Must be called within the runtime.
    pub(crate) fn new(
        engine: Engine,
        listeners: Vec<Listener>,
        tls: Option<TlsAcceptor>,
        config: &Config,
    ) -> io::Result<Daemon> {
        let listeners: Vec<Accepting> = listeners.into_iter().map(Accepting::new).collect::<io::Result<_>>()?;
        listeners.iter().try_for_each(Accepting::tell)?;
        let server = Server::new(engine.clone());
        let idle = config.idle_timeout.map(|timeout| Idle::new(&engine, &server, timeout, config.exec_root.clone()));
        Ok(Daemon { engine, server, listeners, idle, signals: Signals::new()?, tls })
    }

    /// Prepares in the background what the first client would wait for, and gives back afterwards what nobody needs.
    pub(crate) fn warm_up(&self) {
        self.engine.warm_up();
        tokio::spawn(rest(self.server.watch_activity()));
    }

    /// Serves until it is time to end.
    pub(crate) async fn run(&mut self, reload: &mut Reload) {
        loop {
            match self.wake().await {
                Wake::Accepted(Ok(client)) => self.serve(client),
                Wake::Accepted(Err(err)) => {
                    warn!("accept: {err}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                Wake::End(signal) => return info!(signal, "ending; containers keep running"),
                Wake::Reload => {
                    reload.run(&self.engine);
                    self.tls = reload.certificates().or(self.tls.take());
                }
                Wake::Idle => {
                    if self.leave() {
                        return info!("ending, for there is nothing to do");
                    }
                }
            }
        }
    }

    /// Ends: no new connections, no streams, and `grace` for requests that are being worked on.
    pub(crate) async fn end(&mut self, grace: Duration) {
        for listener in self.listeners.drain(..) {
            let Accepting::Unix(listener, file) = listener else { continue };
            // The file first: a client that still finds it would be refused.
            let removed = file.map_or(Ok(()), |file| file.remove());
            drop(listener);
            if let Err(err) = removed {
                warn!("remove the socket: {err}");
            }
        }
        tokio::select! {
            () = self.server.close(grace) => {}
            // Whoever asks twice is in a hurry.
            _ = self.signals.terminate.recv() => {}
            _ = self.signals.interrupt.recv() => {}
        }
        self.engine.shutdown().await;
    }

    async fn wake(&mut self) -> Wake {
        let Daemon { listeners, idle, signals, .. } = self;
        let timed_out = async {
            match idle {
                Some(idle) => idle.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accept_any(listeners) => Wake::Accepted(accepted),
            _ = signals.terminate.recv() => Wake::End("SIGTERM"),
            _ = signals.interrupt.recv() => Wake::End("SIGINT"),
            _ = signals.hangup.recv() => Wake::Reload,
            () = timed_out => Wake::Idle,
        }
    }

    fn serve(&self, client: Accepted) {
        match client {
            Accepted::Unix(client) => self.server.accept(client),
            Accepted::Tcp(client) => match self.tls.clone() {
                None => self.server.accept(client),
                Some(acceptor) => self.serve_secured(acceptor, client),
            },
            Accepted::Metrics(client) => drop(tokio::spawn(api_server::metrics::serve(self.engine.clone(), client))),
        }
    }

    /// Serves a client once it has shaken hands; the others do not wait for that.
    fn serve_secured(&self, acceptor: TlsAcceptor, client: TcpStream) {
        let server = self.server.clone();
        tokio::spawn(async move {
            if let Some(client) = tls::shake_hands(&acceptor, client).await {
                server.accept(client);
            }
        });
    }

    /// Whether the daemon may end now: nobody has connected while its sockets were put away.
    fn leave(&mut self) -> bool {
        let Some(idle) = &mut self.idle else { return false };
        match idle.leave(&self.listeners) {
            Ok(Leave::End) => true,
            Ok(Leave::Stay(client)) => {
                client.into_iter().for_each(|client| self.server.accept(client));
                false
            }
            Err(err) => {
                error!("end an idle daemon: {err}");
                false
            }
        }
    }
}

impl Accepting {
    /// Says where this is, with the port that the kernel has chosen. The words are dockerd's.
    fn tell(&self) -> io::Result<()> {
        match self {
            Accepting::Unix(listener, file) => {
                let address = listener.local_addr()?;
                let path = file.as_ref().map(SocketFile::path).or(address.as_pathname());
                info!("API listen on {}", path.unwrap_or(Path::new("a socket without a name")).display());
            }
            Accepting::Tcp(listener) => info!("API listen on {}", listener.local_addr()?),
            Accepting::Metrics(listener) => info!("metrics API listening on {}", listener.local_addr()?),
        }
        Ok(())
    }

    fn new(listener: Listener) -> io::Result<Accepting> {
        Ok(match listener {
            Listener::Unix(socket) => Accepting::Unix(UnixListener::from_std(socket.listener)?, socket.file),
            Listener::Tcp(listener) => Accepting::Tcp(TcpListener::from_std(listener)?),
            Listener::Metrics(listener) => Accepting::Metrics(TcpListener::from_std(listener)?),
        })
    }
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// The next connection to any of the sockets.
async fn accept_any(listeners: &[Accepting]) -> io::Result<Accepted> {
    let accepted = std::future::poll_fn(|cx| {
        for listener in listeners {
            let polled = match listener {
                Accepting::Unix(listener, _) => listener.poll_accept(cx).map_ok(|(client, _)| Accepted::Unix(client)),
                Accepting::Tcp(listener) => listener.poll_accept(cx).map_ok(|(client, _)| Accepted::Tcp(client)),
                Accepting::Metrics(listener) => {
                    listener.poll_accept(cx).map_ok(|(client, _)| Accepted::Metrics(client))
                }
            };
            if polled.is_ready() {
                return polled;
            }
        }
        Poll::Pending
    });
    let accepted = pin!(accepted).await;
    // Small answers must not wait for more to come.
    if let Ok(Accepted::Tcp(client)) = &accepted {
        client.set_nodelay(true)?;
    }
    accepted
}
