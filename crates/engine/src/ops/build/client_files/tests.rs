use std::fs::File;
use std::future::ready;
use std::io::Read;

use content::Blob;
use oci::Digest;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixSocket, UnixStream};

use super::super::asks::Answer;
use super::*;

/// An agent that says a byte to whoever connects, and waits until that has gone.
struct Agent;

impl Asks for Agent {
    fn secret(&self, _: String) -> Answer<Result<Option<Vec<u8>>, AskError>> {
        Box::pin(ready(Ok(None)))
    }

    fn has_agent(&self, _: String) -> Answer<Result<bool, AskError>> {
        Box::pin(ready(Ok(true)))
    }

    fn forward(&self, _: String, mut stream: UnixStream) -> Answer<()> {
        Box::pin(async move {
            stream.write_all(b"x").await.unwrap();
            let _ = stream.read_u8().await;
        })
    }

    fn document(&self, _: String, _: Digest, _: usize) -> Answer<Result<Vec<u8>, AskError>> {
        Box::pin(ready(Err(no_caches())))
    }

    fn blob(&self, _: &str, _: &Blob) -> Box<dyn Read + Send> {
        Box::new(io::empty())
    }

    fn has_blob(&self, _: String, _: Blob) -> Answer<Result<bool, AskError>> {
        Box::pin(ready(Err(no_caches())))
    }

    fn put_blob(&self, _: String, _: Box<dyn Read + Send>) -> Answer<Result<Blob, AskError>> {
        Box::pin(ready(Err(no_caches())))
    }
}

fn no_caches() -> AskError {
    AskError("an agent has no caches".to_owned())
}

/// A socket that leads to it.
struct Socket {
    _directory: tempfile::TempDir,
    path: PathBuf,
    carrying: JoinHandle<()>,
}

impl Socket {
    fn new() -> Socket {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let carrying = tokio::spawn(carry(listener, room, Arc::new(Agent), "default".to_owned()));
        Socket { _directory: directory, path, carrying }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// Has all others get on as far as they can.
async fn others() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_command_that_holds_connections_to_an_agent_takes_a_few_descriptors_alone() {
    let socket = Socket::new();
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS_MAX + 10 {
        streams.push(UnixStream::connect(&socket.path).await.unwrap());
    }
    others().await;
    let answered = |stream: &UnixStream| stream.try_read(&mut [0]).is_ok();
    assert_eq!(streams.iter().filter(|stream| answered(stream)).count(), CONNECTIONS_MAX);
    // Whoever waits is next.
    streams.remove(0);
    assert_eq!(streams[CONNECTIONS_MAX - 1].read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn an_agent_is_there_again_when_there_are_descriptors_again() {
    let socket = Socket::new();
    let client = UnixSocket::new_stream().unwrap();
    // This process is nobody else's.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();
    let mut all: Vec<File> = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        all.push(file);
    }
    let mut stream = client.connect(&socket.path).await.unwrap();
    others().await;
    assert!(!socket.carrying.is_finished());
    drop(all);
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
}
