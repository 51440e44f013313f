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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections, stopped) = (Arc::default(), Arc::default(), Arc::<AtomicBool>::default());
        let server = Server { address, seen, connections, stopped };
        let (seen, connections, stopped) = (server.seen.clone(), server.connections.clone(), server.stopped.clone());
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (seen, handler) = (seen.clone(), handler.clone());
                std::thread::spawn(move || serve(&stream, &seen, &*handler));
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

fn serve(stream: &TcpStream, seen: &Mutex<Vec<Request>>, handler: &Handler) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        seen.lock().unwrap().push(request.clone());
        if !write_answer(stream, &request, &handler(&request)) {
            break;
        }
    }
    // The client may have closed it.
    let _ = stream.shutdown(Shutdown::Both);
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
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
    let request = Request { method, path, headers };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(request)
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
