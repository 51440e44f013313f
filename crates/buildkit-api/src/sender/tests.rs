use std::io::Cursor;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::*;
use crate::files::{self, Sink, Wanted};
use crate::server::{Call, Reply, Service};
use crate::session::{Announced, Sessions};

/// A directory in memory, and what was told of its progress.
struct Memory {
    files: Vec<(Stat, Vec<u8>)>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Directory for Memory {
    fn entries(&mut self, follow: &[String]) -> io::Result<Vec<Stat>> {
        self.told.lock().unwrap().push(format!("follow {follow:?}"));
        Ok(self.files.iter().map(|(stat, _)| stat.clone()).collect())
    }

    fn open(&mut self, index: usize) -> io::Result<Box<dyn Read>> {
        let (stat, bytes) = &self.files[index];
        if stat.path == "gone" {
            return Err(io::Error::new(io::ErrorKind::NotFound, "open gone: no such file"));
        }
        Ok(Box::new(Cursor::new(bytes.clone())))
    }

    fn has_sent(&mut self, bytes: usize) {
        self.told.lock().unwrap().push(format!("sent {bytes}"));
    }

    fn is_done(&mut self) {
        self.told.lock().unwrap().push("done".to_owned());
    }
}

#[derive(Clone)]
struct Serving(Arc<Mutex<Option<Memory>>>);

impl Service for Serving {
    async fn call(&self, call: Call) -> Result<Reply, Status> {
        Err(Status::new(Code::Unimplemented, call.path))
    }

    fn streams(&self, _path: &str) -> bool {
        true
    }

    async fn stream(&self, call: Streaming) {
        let directory = self.0.lock().unwrap().take().unwrap();
        send(call, directory).await;
    }
}

#[derive(Default)]
struct Came {
    files: Vec<(String, Vec<u8>)>,
    /// The name of the list, before and now.
    known: Option<String>,
    called: Option<String>,
}

impl Sink for Came {
    fn known(&self) -> Option<String> {
        self.known.clone()
    }

    fn is_called(&mut self, name: &str) {
        self.called = Some(name.to_owned());
    }

    async fn begin(&mut self, entries: &[Stat]) -> io::Result<Vec<bool>> {
        Ok(entries.iter().map(|stat| stat.path != "known").collect())
    }

    async fn entry(&mut self, stat: &Stat) -> bool {
        self.files.push((stat.path.clone(), Vec::new()));
        true
    }

    async fn data(&mut self, bytes: Bytes) -> bool {
        self.files.last_mut().unwrap().1.extend_from_slice(&bytes);
        true
    }
}

fn file(path: &str, bytes: &[u8]) -> (Stat, Vec<u8>) {
    let stat = Stat { path: path.to_owned(), mode: 0o644, size: bytes.len() as i64, ..Stat::default() };
    (stat, bytes.to_vec())
}

/// Has a directory carried over as daemons do it.
async fn carried(
    files: Vec<(Stat, Vec<u8>)>,
    wanted: Wanted,
    known: Option<&str>,
) -> (Result<Came, String>, Vec<String>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let told = Arc::new(Mutex::new(Vec::new()));
    let serving = Serving(Arc::new(Mutex::new(Some(Memory { files, told: told.clone() }))));
    let client = tokio::spawn(crate::server::serve(theirs, serving));
    let calls = "/moby.filesync.v1.FileSync/DiffCopy";
    let headers = [("x-docker-expose-session-uuid", "s"), ("x-docker-expose-session-grpc-method", calls)];
    let headers: HeaderMap =
        headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).into_iter().collect();
    let sessions = Arc::new(Sessions::default());
    let (own, announced) = (sessions.clone(), Announced::of_headers(&headers).unwrap());
    let session = tokio::spawn(async move { own.serve(announced, ours).await });
    let mut came = Came { known: known.map(str::to_owned), ..Came::default() };
    let found = sessions.find("s").await.unwrap();
    let received = files::receive(&found, &wanted, &mut came, &AtomicU64::new(0)).await;
    drop(found);
    session.abort();
    client.abort();
    let told = std::mem::take(&mut *told.lock().unwrap());
    (received.map(|_| came).map_err(|err| err.to_string()), told)
}

#[tokio::test]
async fn a_directory_comes_as_it_was_told_but_for_what_is_known() {
    let large = vec![7; 3 * PIECE_BYTES + 5];
    let mut link = file("link", b"");
    (link.0.mode, link.0.link) = (modes::SYMLINK | 0o777, "a".to_owned());
    let files = vec![file("a", b"abc"), file("empty", b""), file("known", b"x"), file("large", &large), link];
    let wanted = Wanted { directory: "context".into(), exclude: Vec::new(), follow: vec!["a/\u{e4} b".to_owned()] };
    let (came, told) = carried(files, wanted, None).await;
    let Came { files: came, called, .. } = came.unwrap();
    assert_eq!(called, None);
    let names: Vec<(&str, usize)> = came.iter().map(|(path, bytes)| (path.as_str(), bytes.len())).collect();
    assert_eq!(names, [("a", 3), ("empty", 0), ("large", large.len()), ("link", 0)]);
    assert_eq!((&came[0].1[..], &came[2].1), (&b"abc"[..], &large));
    assert_eq!(told[0], "follow [\"a/\u{e4} b\"]");
    assert_eq!(told.last().unwrap(), "done");
    let sent = told.iter().filter_map(|line| line.strip_prefix("sent ")).map(|count| count.parse::<usize>().unwrap());
    assert_eq!(sent.sum::<usize>(), 3 + large.len());
}

#[tokio::test]
async fn a_list_that_is_known_is_told_by_its_name() {
    let files = || vec![file("a", b"abc"), file("b", b"")];
    let come = async |files, known: &str| carried(files, Wanted::default(), Some(known)).await.0.unwrap();
    let first = come(files(), "").await;
    let name = first.called.unwrap();
    assert_eq!((first.files.len(), name.len()), (2, 64));
    let again = come(files(), &name).await;
    assert_eq!((again.files.len(), again.called.as_ref()), (0, Some(&name)));
    let mut changed = files();
    changed[1].0.modified_nanos = 1;
    let changed = come(changed, &name).await;
    assert_eq!(changed.files.len(), 2);
    assert_ne!(changed.called.unwrap(), name);
    let empty = come(Vec::new(), "").await;
    assert_eq!((empty.files.len(), empty.called.map(|name| name.len())), (0, Some(64)));
}

#[tokio::test]
async fn what_cannot_be_read_is_told() {
    let (came, told) = carried(vec![file("a", b"abc"), file("gone", b"xyz")], Wanted::default(), None).await;
    assert_eq!(came.err().unwrap(), "error from sender: open gone: no such file");
    assert!(!told.contains(&"done".to_owned()));
}

#[test]
fn only_what_is_followed_is_told() {
    let entry =
        |path: &str, mode: u32, link: &str| Stat { path: path.into(), mode, link: link.into(), ..Stat::default() };
    let entries = [
        entry("a", modes::DIRECTORY, ""),
        entry("a/b", 0, ""),
        entry("ab", 0, ""),
        entry("d", modes::DIRECTORY, ""),
        entry("d/e", modes::DIRECTORY, ""),
        entry("d/e/link", modes::SYMLINK, "../../ab"),
        entry("other", modes::SYMLINK, "a"),
        entry("z", 0, "ab"),
    ];
    let check = |follow: &[&str], wanted: &[&str]| {
        let follow: Vec<String> = follow.iter().map(|path| (*path).to_owned()).collect();
        let kept = followed(&entries, &follow);
        let kept = entries.iter().zip(kept).filter(|(_, kept)| *kept).map(|(stat, _)| stat.path.as_str());
        assert_eq!(kept.collect::<Vec<_>>(), wanted, "{follow:?}");
    };
    let all: Vec<&str> = entries.iter().map(|stat| stat.path.as_str()).collect();
    check(&["a"], &["a", "a/b"]);
    check(&["/a/", "./ab"], &["a", "a/b", "ab"]);
    check(&["d/e"], &["d", "d/e", "d/e/link"]);
    check(&["d/../ab"], &["ab"]);
    check(&["none"], &[]);
    check(&[], &all);
    // What a link leads to is needed, too, and nobody looks for it.
    check(&["other"], &all);
    check(&["other/b"], &all);
    check(&["d/e/link"], &all);
    check(&["z"], &all);
    check(&["a*"], &all);
    check(&["."], &all);
}
