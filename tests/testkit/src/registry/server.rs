//! A registry that answers as a test likes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed, in whatever thread")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `HEAD`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    /// What came of the body.
    pub body: Vec<u8>,
}

/// How much of a request's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// All.
    All,
    /// So many bytes; then the connection ends. The handler sees them, and its answer goes nowhere.
    Cut(usize),
    /// Nothing, and the connection stays.
    Nothing,
    /// Nothing, but an answer comes, and the connection stays.
    Early,
}

impl Request {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| &value[..])
    }

    /// From which byte on.
    pub fn from(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        range.map_or(0, |start| start.parse().unwrap())
    }
}

/// What goes back.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Besides the length.
    pub headers: Vec<(String, String)>,
    /// What is sent of a body.
    pub body: Vec<u8>,
    /// What the head says, if that is not the truth.
    pub length: Option<u64>,
    /// The connection ends behind so many bytes of the body.
    pub cut: Option<usize>,
    /// The body goes on for ever, in chunks.
    pub endless: bool,
    /// Nothing more comes behind the body, and the connection stays.
    pub hang: bool,
}

impl Answer {
    /// With this status and body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, body: body.into(), ..Answer::default() }
    }

    /// One more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

type Taking = dyn Fn(&Request) -> Take + Send + Sync;

/// Runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    address: SocketAddr,
    /// All requests so far.
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// On a port that the kernel chooses.
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        Server::start_taking(|_| Take::All, handler)
    }

    /// The same; `taking` is asked about every request before its body is read.
    pub fn start_taking(
        taking: impl Fn(&Request) -> Take + Send + Sync + 'static,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections, stopped) = (Arc::default(), Arc::default(), Arc::<AtomicBool>::default());
        let server = Server { address, seen, connections, stopped };
        let (seen, connections, stopped) = (server.seen.clone(), server.connections.clone(), server.stopped.clone());
        let (handler, taking): (Arc<Handler>, Arc<Taking>) = (Arc::new(handler), Arc::new(taking));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (seen, handler, taking) = (seen.clone(), handler.clone(), taking.clone());
                std::thread::spawn(move || serve(&stream, &seen, &*taking, &*handler));
            }
        });
        server
    }

    /// Its name in references.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The requests with this in their path.
    pub fn requests(&self, part: &str) -> Vec<Request> {
        self.seen.lock().unwrap().iter().filter(|request| request.path.contains(part)).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        for connection in self.connections.lock().unwrap().iter() {
            // It may be over already.
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: &TcpStream, seen: &Mutex<Vec<Request>>, taking: &Taking, handler: &Handler) {
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = read_head(&mut reader) {
        let take = taking(&request);
        let read = match take {
            Take::Nothing => {
                seen.lock().unwrap().push(request.clone());
                // Until the client gives up, which the kernel tells without a byte being read.
                return std::thread::park();
            }
            Take::Early => {
                seen.lock().unwrap().push(request.clone());
                write_answer(stream, &request, &handler(&request));
                return std::thread::park();
            }
            Take::All => read_body(&mut reader, &mut request, usize::MAX),
            Take::Cut(bytes) => read_body(&mut reader, &mut request, bytes),
        };
        if read.is_none() {
            break;
        }
        seen.lock().unwrap().push(request.clone());
        if matches!(take, Take::Cut(_)) {
            handler(&request);
            break;
        }
        if !write_answer(stream, &request, &handler(&request)) {
            break;
        }
    }
    // The client may have closed it.
    let _ = stream.shutdown(Shutdown::Both);
}

fn read_head(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    // A TLS greeting is none.
    let line = String::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    Some(Request { method, path, headers, body: Vec::new() })
}

/// At most `limit` bytes of the body, which has a length or comes in chunks.
fn read_body(reader: &mut BufReader<&TcpStream>, request: &mut Request, limit: usize) -> Option<()> {
    if request.header("transfer-encoding") != Some("chunked") {
        let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        request.body = vec![0; length.min(limit)];
        return reader.read_exact(&mut request.body).ok();
    }
    while request.body.len() < limit {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk).ok()?;
        if length == 0 {
            break;
        }
        request.body.extend_from_slice(&chunk[..length]);
    }
    request.body.truncate(limit);
    Some(())
}

/// Whether the connection can be used again.
fn write_answer(mut stream: &TcpStream, request: &Request, answer: &Answer) -> bool {
    let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if answer.endless {
        head += "Transfer-Encoding: chunked\r\n\r\n";
        let chunk = format!("{:x}\r\n{}\r\n", 65536, "x".repeat(65536));
        let mut sent = stream.write_all(head.as_bytes());
        while sent.is_ok() {
            sent = stream.write_all(chunk.as_bytes());
        }
        return false;
    }
    head += &format!("Content-Length: {}\r\n\r\n", answer.length.unwrap_or(answer.body.len() as u64));
    let body = if request.method == "HEAD" { &[][..] } else { &answer.body };
    let end = answer.cut.unwrap_or(body.len()).min(body.len());
    if stream.write_all(&[head.as_bytes(), &body[..end]].concat()).is_err() || answer.cut.is_some() {
        return false;
    }
    if answer.hang {
        // Until the client gives up.
        let _ = stream.read(&mut [0; 1]);
    }
    true
}
