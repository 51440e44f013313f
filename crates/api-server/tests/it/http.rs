//! An API of the test's own, and requests to it, byte by byte.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api_server::Server;
use engine::{Engine, EngineConfig};
use engine_api::host_config::LogConfig;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// How long an answer may take; many times what it takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A served engine, in a scratch directory.
pub(crate) struct Api {
    pub(crate) server: Server,
    dir: TempDir,
}

/// An answer, taken apart.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Api {
    /// Opens an engine without containers, and serves it.
    pub(crate) async fn start() -> Api {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::new(Engine::open(config(&dir)).await.unwrap());
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        let accepting = server.clone();
        tokio::spawn(async move {
            loop {
                accepting.accept(listener.accept().await.unwrap().0);
            }
        });
        Api { server, dir }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    /// What comes back for these bytes, until the connection ends.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let mut answer = Vec::new();
        let exchange = async {
            // A request that is refused before it is read whole breaks the pipe behind the answer.
            let (_, _) = tokio::join!(write.write_all(request), read.read_to_end(&mut answer));
        };
        tokio::time::timeout(DEADLINE, exchange).await.expect("an answer in time");
        String::from_utf8(answer).unwrap()
    }

    /// Asks 20 times with 8 MiB behind the head: a client that has written everything always finds this answer.
    pub(crate) async fn answers_before_it_reads(&self, head: &str, status: u16, sentence: &str) {
        let (socket, request) = (self.socket(), format!("{head}{}", "a".repeat(8 << 20)));
        let asked = move || (0..20).map(|_| write_then_read(&socket, request.as_bytes())).collect::<Vec<_>>();
        for answer in tokio::task::spawn_blocking(asked).await.unwrap() {
            let answer = answer.unwrap_or_else(|err| panic!("{head}: {err}"));
            let last = answer.rsplit_once("HTTP/1.1 ").expect(head).1;
            assert!(last.starts_with(&status.to_string()) && last.contains(sentence), "{head}: {last}");
        }
    }

    /// One request with a JSON body, or none if it is empty.
    pub(crate) async fn ask(&self, request: &str, body: &str) -> Answer {
        let content = match body {
            "" => String::new(),
            body => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
        };
        let request = format!("{request} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{content}\r\n{body}");
        let answer = self.raw(request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { body.trim_end_matches("0\r\n\r\n") } else { body };
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}

fn config(dir: &TempDir) -> EngineConfig {
    EngineConfig {
        cdi_spec_dirs: Vec::new(),
        data_root: dir.path().join("data"),
        exec_root: dir.path().join("exec"),
        // Never run here: no container is made.
        shim_path: "/bin/true".into(),
        init_path: "/bin/true".into(),
        instance_key: "0a0b0c0d".to_owned(),
        cgroup_parent: None,
        default_log: LogConfig { kind: "json-file".to_owned(), config: None },
        default_ulimits: Vec::new(),
        default_init: false,
        no_new_privileges: false,
        resolver: Default::default(),
        seccomp: None,
        experimental: false,
        api_warnings: vec![],
        changeable: Default::default(),
        runtimes: Default::default(),
        default_runtime: None,
        container_size_bytes: None,
        image_budget: None,
        build_cache: engine::BuildCacheConfig::default(),
        storage_driver: None,
        network: None,
    }
}

/// What comes back to a client that reads nothing before it has written everything, as many do.
fn write_then_read(socket: &Path, request: &[u8]) -> std::io::Result<String> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
