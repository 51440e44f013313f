//! Requests.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use engine_api::versions::{self, ApiVersion};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::on_demand::{self, Instance};
use crate::tls::Tls;
use crate::transport::{self, Stream};
use crate::{ClientError, Endpoint};

/// The largest answer that is read into memory: far beyond any `ps` or `inspect`, far below what hurts.
const ANSWER_MAX_BYTES: usize = 256 << 20;

/// What is read at once of an answer that is wanted whole: only what is filled costs memory, and a list of hundreds of
/// containers comes as one piece.
const READ_BYTES: usize = 256 << 10;

/// The first pause between two tries to reach a daemon that is away; it doubles up to the last one. Watching the socket's
/// directory would save no try: bind(2) makes the file, listen(2) comes later and wakes nobody.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The last pause: what a returned daemon may go unnoticed.
const LAST_PAUSE: Duration = Duration::from_millis(200);

/// How a client behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Start the daemon of this instance when nothing listens.
    pub on_demand: Option<Instance>,
    /// Headers of every request (`HttpHeaders` of config.json).
    pub headers: Vec<(String, String)>,
    /// How TCP carries TLS; plain if absent.
    pub tls: Option<Tls>,
    /// DOCKER_API_VERSION: speak this version and no other.
    pub version: Option<ApiVersion>,
}

/// One daemon, as seen from here. Not shared between threads.
pub struct Client {
    endpoint: Endpoint,
    options: Options,
    version: Cell<ApiVersion>,
    idle: RefCell<Option<Sender>>,
}

type RequestBody = Either<Full<Bytes>, Upload>;
type Sender = SendRequest<RequestBody>;

/// What a request is, but its body.
#[derive(Clone, Copy)]
struct Head<'a> {
    method: &'a Method,
    path: &'a str,
    /// Headers of this request alone.
    headers: &'a [(&'a str, &'a str)],
}

/// A body that is sent while it is read.
#[derive(Debug)]
pub struct Upload {
    /// Where its pieces come from; an error aborts the request.
    pub pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.pieces.poll_recv(cx).map(|piece| piece.map(|result| result.map(Frame::data)))
    }
}

/// A request's body.
#[derive(Debug)]
pub enum Payload {
    /// None at all.
    Empty,
    /// A JSON document.
    Json(Vec<u8>),
    /// An archive.
    Archive(Upload),
}

impl Payload {
    /// A JSON document.
    pub fn json<T: Serialize>(value: &T) -> Payload {
        Payload::Json(serde_json::to_vec(value).expect("wire types have string keys and no failing serializers"))
    }
}

/// An answer that is read piece by piece.
pub struct Answer {
    path: String,
    method: Method,
    response: Response<Incoming>,
}

impl Answer {
    /// The content type.
    pub fn content_type(&self) -> &str {
        self.response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// A header, if it is there and a text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.response.body_mut().frame().await {
            let frame = frame.map_err(|source| http_error(&self.method, &self.path, source))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Everything that is left.
    pub async fn rest(&mut self) -> Result<Bytes, ClientError> {
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if bytes.len() + piece.len() > ANSWER_MAX_BYTES {
                let message = format!("the answer is larger than {ANSWER_MAX_BYTES} bytes");
                return Err(ClientError::Api { status: 500, message });
            }
            if bytes.is_empty() {
                // Most answers are one piece, which needs no copy.
                if self.response.body().is_end_stream() {
                    return Ok(piece);
                }
                let left = self.response.body().size_hint().lower().min(ANSWER_MAX_BYTES as u64);
                bytes.reserve(piece.len() + left as usize);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Everything that is left, as one JSON document.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let bytes = self.rest().await?;
        decode(&self.path, &bytes)
    }
}

impl Client {
    /// A client of `endpoint`; connects at the first request.
    pub fn new(endpoint: Endpoint, options: Options) -> Client {
        let version = Cell::new(options.version.unwrap_or(versions::MAX));
        Client { endpoint, options, version, idle: RefCell::default() }
    }

    /// Where the daemon listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The version of the API that is spoken, as far as known.
    pub fn version(&self) -> ApiVersion {
        self.version.get()
    }

    /// Asks for a JSON document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let bytes = self.call(Method::GET, path, Payload::Empty).await?;
        decode(path, &bytes)
    }

    /// Posts a JSON document and takes one in return.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let bytes = self.call(Method::POST, path, Payload::json(body)).await?;
        decode(path, &bytes)
    }

    /// Makes a request and reads the whole answer, over the kept-alive connection.
    pub async fn call(&self, method: Method, path: &str, payload: Payload) -> Result<Bytes, ClientError> {
        let idle = self.idle.borrow_mut().take().filter(|sender| !sender.is_closed());
        let mut sender = match idle {
            Some(sender) => sender,
            None => self.open(http1::Builder::new().read_buf_exact_size(Some(READ_BYTES))).await?,
        };
        let head = Head { method: &method, path, headers: &[] };
        let mut answer = self.negotiate(&mut sender, head, payload).await?;
        let bytes = answer.rest().await?;
        *self.idle.borrow_mut() = Some(sender);
        Ok(bytes)
    }

    /// Makes a request over a connection of its own; the answer is read piece by piece.
    pub async fn stream(&self, method: Method, path: &str, payload: Payload) -> Result<Answer, ClientError> {
        self.stream_with(method, path, &[], payload).await
    }

    /// The same, with headers of its own.
    pub async fn stream_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        payload: Payload,
    ) -> Result<Answer, ClientError> {
        let mut sender = self.open(&http1::Builder::new()).await?;
        self.negotiate(&mut sender, Head { method: &method, path, headers }, payload).await
    }

    /// Returns as soon as somebody listens, or with why nobody does after `within`. Starts no daemon.
    pub async fn listening(&self, within: Duration) -> Result<(), ClientError> {
        let end = Instant::now() + within;
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(err) = transport::connect(&self.endpoint, self.options.tls.as_ref()).await else { return Ok(()) };
            if !nothing_listens(&err) || Instant::now() >= end {
                return Err(self.connect_error(err));
            }
            tokio::time::sleep_until(end.min(Instant::now() + pause)).await;
            pause = LAST_PAUSE.min(pause * 2);
        }
    }

    /// Whether this client starts the daemon when nothing listens.
    pub fn starts_daemon(&self) -> bool {
        self.options.on_demand.is_some()
    }

    /// The address of a path, for sentences about it.
    pub fn url(&self, path: &str) -> String {
        let url = format!("{}{}", self.endpoint.url(), self.versioned(path));
        if self.options.tls.is_some() { url.replacen("http:", "https:", 1) } else { url }
    }

    /// A connection of its own, for whoever speaks over it himself.
    pub async fn dial(&self) -> Result<Box<dyn Stream>, ClientError> {
        self.connect().await
    }

    /// The path as it goes over the wire.
    pub(crate) fn versioned(&self, path: &str) -> String {
        format!("/v{}{path}", self.version.get())
    }

    /// Headers of every request.
    pub(crate) fn headers(&self) -> &[(String, String)] {
        &self.options.headers
    }

    /// Connects, starting the daemon first if that is our part.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let err = match transport::connect(&self.endpoint, self.options.tls.as_ref()).await {
            Ok(stream) => return Ok(stream),
            Err(err) => err,
        };
        match &self.options.on_demand {
            Some(instance) if nothing_listens(&err) => self.connect_on_demand(instance).await,
            _ => Err(self.connect_error(err)),
        }
    }

    async fn connect_on_demand(&self, instance: &Instance) -> Result<Box<dyn Stream>, ClientError> {
        // Blocking is right here: this is a command line that can do nothing else before its daemon runs.
        let turn = on_demand::take_turn(instance).map_err(|source| ClientError::Start { source })?;
        if let Ok(stream) = transport::connect(&self.endpoint, self.options.tls.as_ref()).await {
            return Ok(stream);
        }
        on_demand::start(&turn, instance).map_err(|source| ClientError::Start { source })?;
        transport::connect(&self.endpoint, self.options.tls.as_ref()).await.map_err(|err| self.connect_error(err))
    }

    fn connect_error(&self, source: io::Error) -> ClientError {
        let endpoint = self.endpoint.clone();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Denied { endpoint, source },
            // What TLS complains of, and what ssh does.
            io::ErrorKind::InvalidData | io::ErrorKind::Other => ClientError::Refused { endpoint, source },
            io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut => ClientError::Connect { endpoint, source },
            // A name that nobody knows, a host without a way to it: whether a daemon runs there is not the question.
            _ if matches!(endpoint, Endpoint::Tcp(_)) => ClientError::Refused { endpoint, source },
            _ => ClientError::Connect { endpoint, source },
        }
    }

    async fn open(&self, builder: &http1::Builder) -> Result<Sender, ClientError> {
        let stream = TokioIo::new(self.connect().await?);
        let failed = |source| http_error(&Method::GET, "/", source);
        let (sender, connection) = builder.handshake(stream).await.map_err(failed)?;
        // Its errors reach us through the request that they break.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Sends; and again with the daemon's newest version, should ours be too new for it.
    async fn negotiate(&self, sender: &mut Sender, head: Head<'_>, payload: Payload) -> Result<Answer, ClientError> {
        let repeat = match &payload {
            Payload::Empty => Some(Payload::Empty),
            Payload::Json(bytes) => Some(Payload::Json(bytes.clone())),
            Payload::Archive(_) => None,
        };
        match self.send(sender, head, payload).await {
            Err(ClientError::Api { status: 400, message }) => match (self.adopt(&message), repeat) {
                (true, Some(payload)) => self.send(sender, head, payload).await,
                _ => Err(ClientError::Api { status: 400, message }),
            },
            other => other,
        }
    }

    async fn send(&self, sender: &mut Sender, head: Head<'_>, payload: Payload) -> Result<Answer, ClientError> {
        let request = self.request(head, payload)?;
        let Head { method, path, .. } = head;
        let failed = |source| http_error(method, path, source);
        sender.ready().await.map_err(failed)?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let mut answer = Answer { path: path.to_owned(), method: method.clone(), response };
        match status {
            // 304: it is already as asked (start, stop); to the caller that is success.
            200..300 | 304 => Ok(answer),
            _ => Err(api_error(status, &answer.rest().await?)),
        }
    }

    fn request(&self, head: Head<'_>, payload: Payload) -> Result<Request<RequestBody>, ClientError> {
        let Head { method, path, headers } = head;
        let mut builder =
            Request::builder().method(method).uri(self.versioned(path)).header("Host", "api.moby.localhost");
        let own = headers.iter().copied();
        for (name, value) in self.options.headers.iter().map(|(name, value)| (&**name, &**value)).chain(own) {
            builder = builder.header(name, value);
        }
        let body = match payload {
            Payload::Empty => Either::Left(Full::default()),
            Payload::Json(bytes) => {
                builder = builder.header("Content-Type", "application/json");
                Either::Left(Full::new(bytes.into()))
            }
            Payload::Archive(upload) => {
                builder = builder.header("Content-Type", "application/x-tar");
                Either::Right(upload)
            }
        };
        builder.body(body).map_err(|source| ClientError::Request { path: path.to_owned(), source })
    }

    /// Takes over the version that the daemon calls its newest; false if the sentence says something else, or the
    /// user has chosen the version.
    pub(crate) fn adopt(&self, message: &str) -> bool {
        let newest = message
            .strip_prefix("client version ")
            .and_then(|rest| rest.split_once(" is too new. Maximum supported API version is "))
            .and_then(|(_, version)| version.trim().parse::<ApiVersion>().ok());
        match newest {
            Some(version) if self.options.version.is_none() && version < self.version.get() => {
                self.version.set(version);
                true
            }
            _ => false,
        }
    }
}

/// The socket file is missing, or nobody serves it.
fn nothing_listens(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn http_error(method: &Method, path: &str, source: hyper::Error) -> ClientError {
    ClientError::Http { method: method.clone(), path: path.to_owned(), source }
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(path: &str, bytes: &'a [u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|source| ClientError::Decode { path: path.to_owned(), source })
}

/// The daemon's sentence, wherever it stands in the body.
pub(crate) fn api_error(status: u16, body: &[u8]) -> ClientError {
    let message = match serde_json::from_slice::<engine_api::ErrorBody>(body) {
        Ok(error) => error.message.trim().to_owned(),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    ClientError::Api { status, message }
}
