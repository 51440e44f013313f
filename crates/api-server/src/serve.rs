//! Connections: each is a task that reads requests, calls handlers and writes answers.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use engine::Engine;
use engine::connection::{Connection, Gate, write_head};
use errdefs::ErrorKind;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tracing::{debug, error};

use crate::buildkit::BuildKit;
use crate::caught::caught;
use crate::front::{self, HEAD_DEADLINE, HEAD_LIMIT, HEADERS_LIMIT, Hijack, Opening, wants_upgrade};
use crate::hijack::{Outcome, RAW_STREAM, Takeover, Upgrade};
use crate::refusal;
use crate::request::{Call, RequestBody, has_body};
use crate::response::{self, Answer};
use crate::rewound::{Note, Rewound};
use crate::router::{self, Handler, Target};
use crate::status::Failure;
use crate::websocket::Accepted;

/// The front of an engine; cheap to clone.
#[derive(Clone)]
pub struct Server {
    engine: Engine,
    connections: Arc<watch::Sender<usize>>,
    activity: Arc<watch::Sender<()>>,
    closing: Arc<watch::Sender<bool>>,
    buildkit: Arc<BuildKit>,
}

/// Tells that the daemon ends.
#[derive(Clone, Debug)]
pub(crate) struct Closing(watch::Receiver<bool>);

/// A client's connection: something that can be read, written, and given away as a descriptor.
pub trait Client: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The descriptor, no longer watched by the runtime. It stays non-blocking.
    fn into_fd(self) -> io::Result<OwnedFd>;

    /// Another descriptor of the same connection, where the connection is no more than one.
    fn duplicate(&self) -> Option<OwnedFd> {
        None
    }

    /// Writes the head of an answer behind which the connection stops being HTTP, see [`engine::connection::write_head`].
    fn poll_write_head(&mut self, cx: &mut Context<'_>, head: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, head)
    }
}

impl Client for UnixStream {
    fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(self.into_std()?.into())
    }

    fn duplicate(&self) -> Option<OwnedFd> {
        self.as_fd().try_clone_to_owned().ok()
    }

    fn poll_write_head(&mut self, cx: &mut Context<'_>, head: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_io(Interest::WRITABLE, || write_head(self.as_fd(), head)) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl Client for TcpStream {
    fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(self.into_std()?.into())
    }

    fn duplicate(&self) -> Option<OwnedFd> {
        self.as_fd().try_clone_to_owned().ok()
    }
}

impl Server {
    /// A front without connections.
    pub fn new(engine: Engine) -> Server {
        let (connections, closing) = (Arc::new(watch::Sender::new(0)), Arc::new(watch::Sender::new(false)));
        let (activity, buildkit) = (Arc::new(watch::Sender::new(())), Arc::default());
        Server { engine, connections, activity, closing, buildkit }
    }

    /// Serves a connection in a task of its own.
    pub fn accept(&self, client: impl Client) {
        let (server, open, busy) = (self.clone(), Open::new(&self.connections), Busy::new(&self.activity));
        tokio::spawn(async move {
            server.connection(client).await;
            drop((open, busy));
        });
    }

    /// How many connections are open. Those that were taken over by containers do not count.
    pub fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// Follows [`connections`](Self::connections).
    pub fn watch_connections(&self) -> watch::Receiver<usize> {
        self.connections.subscribe()
    }

    /// Changes whenever a connection or a request begins or ends. A request ends with the last byte of its answer; one that
    /// goes on changes nothing meanwhile.
    pub fn watch_activity(&self) -> watch::Receiver<()> {
        self.activity.subscribe()
    }

    /// Ends streams at once, lets requests end that are being worked on, and answers when all connections are closed,
    /// or after `grace`.
    pub async fn close(&self, grace: Duration) {
        self.closing.send_replace(true);
        let mut connections = self.connections.subscribe();
        let closed = connections.wait_for(|&count| count == 0);
        if tokio::time::timeout(grace, closed).await.is_err() {
            debug!(open = self.connections(), "connections are cut");
        }
    }

    async fn connection<S: Client>(&self, client: S) {
        let opening = tokio::select! {
            opening = front::open(client) => opening,
            () = self.closing().wait() => return,
        };
        match opening {
            Opening::Nothing => {}
            Opening::Http(rewound) => self.http(rewound).await,
            Opening::Hijack(hijack) => self.hijack(*hijack).await,
        }
    }

    /// Serves requests until the client has no more, or the daemon ends.
    async fn http<S: Client>(&self, stream: Rewound<S>) {
        let (unread, last_head) = stream.notes();
        let wire = Wire { unread, last_head, spare: stream.get_ref().duplicate() };
        let service = service_fn(async |request| {
            let busy = Busy::new(&self.activity);
            let answer = self.answer::<S>(request, &wire).await;
            Ok::<_, Infallible>(answer.map(|body| response::Until { body, _end: busy }))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .max_buf_size(HEAD_LIMIT)
            .max_headers(HEADERS_LIMIT)
            .title_case_headers(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.closing().wait() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        // A client that goes away in the middle of something is no event.
        if let Err(err) = ended {
            debug!("connection: {}", errdefs::chain(&err));
        }
    }

    async fn answer<S: Client>(&self, request: Request<Incoming>, wire: &Wire) -> Answer {
        // Whoever reads the body to its end takes this back.
        wire.unread.set(has_body(request.headers()));
        if let Some(refusal) = refusal::of_head(request.version(), request.headers()) {
            return refusal.answer();
        }
        match router::resolve(request.method(), request.uri()) {
            Ok(target) => {
                let mut answer = self.dispatch::<S>(target, request, wire).await;
                answer.headers_mut().extend(self.common_headers());
                wire.last_head.set(answer.status() == StatusCode::SWITCHING_PROTOCOLS);
                answer
            }
            Err(no_way) => no_way.answer(),
        }
    }

    async fn dispatch<S: Client>(&self, target: Target, mut request: Request<Incoming>, wire: &Wire) -> Answer {
        let (handler, upgrade) = (target.handler, hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let upgrades = wants_upgrade(&parts.headers);
        let call = self.call(target, parts.headers, RequestBody::Stream(body, wire.unread.clone()));
        let done = match handler {
            Handler::Plain(handler) => caught(handler(call)).await,
            Handler::Later(what) => Err(crate::handlers::later::failure(what)),
            Handler::Hijack(handler) => match caught(handler(call)).await {
                Ok(Outcome::Answer(answer)) => Ok(answer),
                Ok(Outcome::Upgrade(becomes)) => Ok(self.spoken::<S>(becomes, upgrade)),
                Ok(Outcome::Takeover(takeover)) if upgrades => {
                    if let Some(accepted) = takeover.websocket.clone() {
                        return websocket::<S>(*takeover, accepted, upgrade).await.unwrap_or_else(failed);
                    }
                    let spare = wire.spare.as_ref().and_then(|spare| spare.try_clone().ok());
                    Ok(upgraded::<S>(*takeover, upgrade, spare).await)
                }
                Ok(Outcome::Takeover(takeover)) => self.relayed(*takeover).await,
                Err(failure) => Err(failure),
            },
        };
        done.unwrap_or_else(failed)
    }

    /// Answers a hijacking request that was the first of its connection.
    async fn hijack<S: Client>(&self, hijack: Hijack<S>) {
        let Hijack { mut stream, target, headers, body, read_ahead } = hijack;
        let Handler::Hijack(handler) = target.handler else { return };
        let upgrades = wants_upgrade(&headers);
        let outcome = caught(handler(self.call(target, headers, body))).await;
        let written = match outcome {
            Ok(Outcome::Takeover(takeover)) if takeover.websocket.is_some() => {
                serve_websocket(stream, *takeover, read_ahead).await
            }
            Ok(Outcome::Takeover(takeover)) => {
                let head = takeover.head(upgrades, &self.common_headers());
                take_over(stream, *takeover, head, read_ahead).await
            }
            Ok(Outcome::Upgrade(becomes)) => self.speak(stream, becomes, read_ahead).await,
            Ok(Outcome::Answer(answer)) => answer_and_close(&mut stream, answer).await,
            Err(failure) => answer_and_close(&mut stream, failed(failure)).await,
        };
        // A client that has gone needs no answer.
        if let Err(err) = written {
            debug!("hijacked connection: {err}");
        }
    }

    /// Answers a request by which a connection becomes another protocol, and speaks it.
    async fn speak<S: Client>(&self, mut stream: S, becomes: Upgrade, read_ahead: Vec<u8>) -> io::Result<()> {
        stream.write_all(&becomes.head()).await?;
        tokio::select! {
            () = becomes.run(Rewound::new(read_ahead, stream)) => {}
            () = self.closing().wait() => {}
        }
        Ok(())
    }

    /// The same by a later request of a connection, which hyper answers.
    fn spoken<S: Client>(&self, becomes: Upgrade, upgrade: OnUpgrade) -> Answer {
        let (answer, closing) = (switching(b"Switching Protocols", "", becomes.protocol), self.closing());
        tokio::spawn(async move {
            let Some((client, already_read)) = taken_back::<S>(upgrade).await else { return };
            tokio::select! {
                () = becomes.run(Rewound::new(already_read, client)) => {}
                () = closing.wait() => {}
            }
        });
        answer
    }

    /// A hijack without an upgrade, by a later request of a connection, which hyper keeps: what the container prints is
    /// carried over, and its input ends at once.
    async fn relayed(&self, takeover: Takeover) -> Result<Answer, Failure> {
        let pair = UnixStream::pair().and_then(|(ours, theirs)| Ok((ours, theirs.into_fd()?)));
        // Before the head, so that a client which has read it misses nothing.
        let at_once = takeover.is_quick();
        let (mut ours, theirs) = pair.map_err(|err| Failure::from_error(ErrorKind::Internal, &err))?;
        let run = takeover.run(Connection { stream: theirs, head: vec![], already_read: vec![], gate: None });
        if at_once {
            run.await;
        } else {
            tokio::spawn(run);
        }
        Ok(response::stream(RAW_STREAM, self.closing(), "", async move |sink| {
            let mut buffer = vec![0; 16 << 10];
            if ours.shutdown().await.is_err() {
                return;
            }
            while let Ok(length @ 1..) = ours.read(&mut buffer).await {
                if sink.send(buffer[..length].to_vec()).await.is_err() {
                    return;
                }
            }
        }))
    }

    fn call(&self, target: Target, headers: HeaderMap, body: RequestBody) -> Call {
        let Target { version, name, query, .. } = target;
        let (engine, buildkit) = (self.engine.clone(), self.buildkit.clone());
        Call { engine, version, name, query, headers, body, closing: self.closing(), buildkit }
    }

    /// What every answer says of us.
    fn common_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        response::set_common_headers(&mut headers);
        if self.engine.config.experimental {
            headers.insert("docker-experimental", HeaderValue::from_static("true"));
        }
        headers
    }

    fn closing(&self) -> Closing {
        Closing(self.closing.subscribe())
    }
}

impl Closing {
    /// Answers when the daemon ends.
    pub(crate) async fn wait(mut self) {
        // The sender lives as long as the server; without one there is nobody left to serve.
        let _ = self.0.wait_for(|&closing| closing).await;
    }
}

/// What handlers may need of the connection that hyper has.
struct Wire {
    unread: Note,
    /// Whether the connection stops being HTTP behind the head that comes.
    last_head: Note,
    /// Another descriptor of it, where it is no more than one.
    spare: Option<OwnedFd>,
}

/// One open connection, counted while it lives.
struct Open(Arc<watch::Sender<usize>>);

impl Open {
    fn new(connections: &Arc<watch::Sender<usize>>) -> Open {
        connections.send_modify(|count| *count += 1);
        Open(connections.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// A connection or a request, whose begin and end are told.
struct Busy(Arc<watch::Sender<()>>);

impl Busy {
    fn new(activity: &Arc<watch::Sender<()>>) -> Busy {
        activity.send_replace(());
        Busy(activity.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_replace(());
    }
}

fn failed(failure: Failure) -> Answer {
    if failure.status == StatusCode::INTERNAL_SERVER_ERROR {
        error!("request failed: {}", failure.message);
    }
    response::failure(failure)
}

async fn answer_and_close<S: Client>(stream: &mut S, mut answer: Answer) -> io::Result<()> {
    response::set_common_headers(answer.headers_mut());
    front::write_answer(stream, &answer).await
}

async fn take_over<S: Client>(stream: S, takeover: Takeover, head: Vec<u8>, already_read: Vec<u8>) -> io::Result<()> {
    takeover.run(Connection { stream: stream.into_fd()?, head, already_read, gate: None }).await;
    Ok(())
}

async fn serve_websocket<S: Client>(stream: S, mut takeover: Takeover, already_read: Vec<u8>) -> io::Result<()> {
    let Some(accepted) = takeover.websocket.take() else { return Ok(()) };
    let (ours, run) = to_relay(takeover)?;
    run.await;
    accepted.serve(stream, already_read, ours).await
}

/// Our end of what a container gets instead of the connection, and the handing over, which ends before anything is read
/// from it unless much was logged.
fn to_relay(takeover: Takeover) -> io::Result<(UnixStream, impl Future<Output = ()>)> {
    let (ours, theirs) = UnixStream::pair()?;
    let connection = Connection { stream: theirs.into_fd()?, head: vec![], already_read: vec![], gate: None };
    let quick = takeover.is_quick();
    let run = takeover.run(connection);
    Ok((ours, async move {
        if quick {
            run.await;
        } else {
            tokio::spawn(run);
        }
    }))
}

/// The answer to an upgrade that hyper performs: once it is written, the connection is ours.
///
/// With another descriptor of the connection it is a shim's before, which holds back what the container prints.
async fn upgraded<S: Client>(takeover: Takeover, upgrade: OnUpgrade, spare: Option<OwnedFd>) -> Answer {
    let answer = switching(b"UPGRADED", takeover.content_type(), "tcp");
    let Some(stream) = spare else {
        tokio::spawn(async move {
            let Some((client, already_read)) = taken_back::<S>(upgrade).await else { return };
            match client.into_fd() {
                Ok(stream) => takeover.run(Connection { stream, head: vec![], already_read, gate: None }).await,
                Err(err) => debug!("upgrade: {err}"),
            }
        });
        return answer;
    };
    let (gate, mut keeper) = Gate::shut();
    tokio::spawn(takeover.run(Connection { stream, head: vec![], already_read: vec![], gate: Some(gate) }));
    keeper.wait().await;
    tokio::spawn(async move {
        if let Some((_, already_read)) = taken_back::<S>(upgrade).await {
            keeper.open(already_read);
        }
    });
    answer
}

/// As [`upgraded`], to a web socket.
async fn websocket<S: Client>(takeover: Takeover, accepted: Accepted, upgrade: OnUpgrade) -> Result<Answer, Failure> {
    let (ours, run) = to_relay(takeover).map_err(|err| Failure::from_error(ErrorKind::Internal, &err))?;
    run.await;
    let mut answer = switching(b"Switching Protocols", "", "websocket");
    accepted.headers(answer.headers_mut());
    tokio::spawn(async move {
        let Some((client, already_read)) = taken_back::<S>(upgrade).await else { return };
        if let Err(err) = accepted.relay(client, already_read, ours).await {
            debug!("web socket: {err}");
        }
    });
    Ok(answer)
}

fn switching(reason: &'static [u8], content_type: &'static str, protocol: &'static str) -> Answer {
    let mut answer = Response::new(response::AnswerBody::Whole(None));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.extensions_mut().insert(ReasonPhrase::from_static(reason));
    let headers = answer.headers_mut();
    if !content_type.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    answer
}

/// The connection after hyper's upgrade, and what the client sent behind its request.
async fn taken_back<S: Client>(upgrade: OnUpgrade) -> Option<(S, Vec<u8>)> {
    let upgraded = upgrade.await.map_err(|err| debug!("upgrade: {}", errdefs::chain(&err))).ok()?;
    // The stream is the one that was given to hyper in `Server::http`, of the same type.
    let parts = upgraded.downcast::<TokioIo<Rewound<S>>>().map_err(|_| error!("upgraded a foreign stream")).ok()?;
    Some((parts.io.into_inner().into_stream(), parts.read_buf.to_vec()))
}
