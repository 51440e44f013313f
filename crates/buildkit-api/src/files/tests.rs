use std::collections::BTreeSet;

use http::HeaderMap;
use tokio::task::JoinHandle;

use super::*;
use crate::session::{Announced, Sessions};

/// What a client has: entries, and what it answers when a file is asked for.
#[derive(Clone, Default)]
struct Client {
    entries: Vec<(Stat, Vec<u8>)>,
    /// A last packet before the end of the entries.
    odd: Option<Packet>,
}

impl Client {
    fn file(mut self, path: &str, bytes: &[u8]) -> Client {
        let stat = Stat { path: path.to_owned(), mode: 0o644, size: bytes.len() as i64, ..Stat::default() };
        self.entries.push((stat, bytes.to_vec()));
        self
    }

    fn other(mut self, path: &str, mode: u32, link: &str) -> Client {
        self.entries.push((Stat { path: path.to_owned(), mode, link: link.to_owned(), ..Stat::default() }, Vec::new()));
        self
    }

    /// Answers the one call of a session; what is answered are the headers of it.
    async fn serve(self, io: tokio::io::DuplexStream) -> HeaderMap {
        let mut connection = h2::server::Builder::new().data_frame_budget(usize::MAX).handshake(io).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let driving = tokio::spawn(async move { while let Some(Ok(_)) = connection.accept().await {} });
        let (parts, body) = request.into_parts();
        let mut incoming = Incoming::of_request(body);
        let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
        let mut packets: Vec<Packet> = Vec::new();
        for (stat, _) in &self.entries {
            packets.push(Packet { stat: Some(stat.clone()), ..Packet::default() });
        }
        packets.extend(self.odd.clone());
        packets.push(Packet::default());
        for packet in packets {
            if frame::send(&mut stream, frame::framed(&packet.encode_to_vec())).await.is_err() {
                return parts.headers;
            }
        }
        while let Ok(Some(packet)) = incoming.next::<Packet>().await {
            if packet.kind == PacketKind::End as i32 {
                let _ = frame::send(&mut stream, frame::framed(&packet.encode_to_vec())).await;
                break;
            }
            let bytes = &self.entries[packet.id as usize].1;
            let pieces = bytes.chunks(40_000).map(|piece| piece.to_vec()).chain([Vec::new()]);
            for piece in pieces {
                let data = Packet { kind: PacketKind::Data as i32, id: packet.id, data: piece.into(), stat: None };
                frame::send(&mut stream, frame::framed(&data.encode_to_vec())).await.unwrap();
            }
        }
        let _ = stream.send_trailers(crate::status::success());
        driving.await.unwrap();
        parts.headers
    }
}

use crate::frame;

/// What came of a client's files, as text.
#[derive(Default)]
struct Told(Vec<String>);

impl Sink for Told {
    async fn begin(&mut self, entries: &[Stat]) -> io::Result<Vec<bool>> {
        match entries.iter().any(|stat| stat.path == "broken") {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(entries.iter().map(|stat| !stat.path.ends_with("here")).collect()),
        }
    }

    async fn entry(&mut self, stat: &Stat) -> bool {
        self.0.push(format!("{} {}", stat.path, stat.size));
        true
    }

    async fn data(&mut self, bytes: Bytes) -> bool {
        let last = self.0.last_mut().unwrap();
        match last.strip_suffix(" bytes").and_then(|told| told.rsplit_once(' ')) {
            Some((told, count)) => *last = format!("{told} {} bytes", count.parse::<usize>().unwrap() + bytes.len()),
            None => last.push_str(&format!(" {} bytes", bytes.len())),
        }
        true
    }
}

/// Has the client's files sent; answers what came, or why nothing did, and the headers that the client saw.
async fn received(client: Client, wanted: Wanted) -> (Result<Vec<String>, String>, HeaderMap) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving: JoinHandle<HeaderMap> = tokio::spawn(client.serve(theirs));
    let headers = [("x-docker-expose-session-uuid", "s"), ("x-docker-expose-session-grpc-method", DIFF_COPY)];
    let headers: HeaderMap =
        headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).into_iter().collect();
    let sessions = std::sync::Arc::new(Sessions::default());
    let (own, announced) = (sessions.clone(), Announced::of_headers(&headers).unwrap());
    let session = tokio::spawn(async move { own.serve(announced, ours).await });
    let found = sessions.find("s").await.unwrap();
    let mut told = Told::default();
    let done = receive(&found, &wanted, &mut told, &AtomicU64::new(0)).await;
    drop(found);
    session.abort();
    (done.map(|_| told.0).map_err(|err| err.to_string()), serving.await.unwrap())
}

#[tokio::test]
async fn files_come_in_the_order_in_which_they_were_told() {
    let mut client = Client::default().other("d", 1 << 31 | 0o755, "").file("d/empty", b"").file("d/small", b"abc");
    client = client.other("d/to", 1 << 27 | 0o777, "small").file("e", &vec![1; 3 << 20]);
    for index in 0..600 {
        client = client.file(&format!("f{index}"), &[0; 20_000]);
    }
    let (told, _) = received(client, Wanted::default()).await;
    let told = told.unwrap();
    assert_eq!(told[..5], ["d 0", "d/empty 0", "d/small 3 3 bytes", "d/to 0", "e 3145728 3145728 bytes"]);
    let rest: BTreeSet<&str> = told[5..].iter().filter_map(|line| line.split_once(' ')).map(|(_, rest)| rest).collect();
    assert_eq!((told.len(), rest), (605, BTreeSet::from(["20000 20000 bytes"])));
}

#[tokio::test]
async fn only_what_is_wanted_is_asked_for() {
    let large = vec![1; 3 << 20];
    let client = Client::default().file("a", b"abc").file("here", &large).file("is-here", b"x").file("z", b"yz");
    // It would fail if it were asked for.
    let mut client = client.file("gone-here", b"");
    client.entries[4].0.size = 2 << 20;
    let (told, _) = received(client, Wanted::default()).await;
    assert_eq!(told.unwrap(), ["a 3 3 bytes", "z 2 2 bytes"]);
    let (told, _) = received(Client::default().file("broken", b""), Wanted::default()).await;
    assert_eq!(told.unwrap_err(), "make a place for the client's files");
}

/// Each entry comes in a frame of its own, as fast as the client can: the library takes a flood of small ones for an attack.
#[tokio::test]
async fn directories_of_many_entries_come() {
    let mut client = Client::default();
    for index in 0..30_000 {
        client = client.other(&format!("{index}"), 1 << 31 | 0o755, "");
    }
    let (told, _) = received(client, Wanted::default()).await;
    assert_eq!(told.map(|told| told.len()), Ok(30_000));
}

#[tokio::test]
async fn a_file_that_changes_is_cut_or_refused() {
    let mut grown = Client::default().file("a", b"abcdef");
    grown.entries[0].0.size = 4;
    assert_eq!(received(grown, Wanted::default()).await.0.unwrap(), ["a 4 4 bytes"]);
    let mut shrunk = Client::default().file("a", b"abc");
    shrunk.entries[0].0.size = 4;
    assert_eq!(received(shrunk, Wanted::default()).await.0.unwrap(), ["a 3 3 bytes"]);
    let mut shrunk = Client::default().file("large", b"abc");
    shrunk.entries[0].0.size = 2 << 20;
    assert_eq!(received(shrunk, Wanted::default()).await.0.unwrap_err(), "large changed while it was sent");
}

#[tokio::test]
async fn paths_that_lead_elsewhere_are_refused() {
    for path in ["../a", "a/../../b", "/etc/passwd", "a//b", "", ".", "a\0b"] {
        let (told, _) = received(Client::default().file(path, b""), Wanted::default()).await;
        assert!(told.unwrap_err().starts_with("invalid path "), "{path}");
    }
}

#[tokio::test]
async fn a_client_that_fails_says_why() {
    let odd = |kind: PacketKind| {
        let packet = Packet { kind: kind as i32, data: Bytes::from_static(b"permission denied"), ..Packet::default() };
        Client { odd: Some(packet), ..Client::default() }
    };
    let (told, _) = received(odd(PacketKind::Failure), Wanted::default()).await;
    assert_eq!(told.unwrap_err(), "error from sender: permission denied");
    let (told, _) = received(odd(PacketKind::Data), Wanted::default()).await;
    assert_eq!(told.unwrap_err(), "the client's files break off");
}

#[tokio::test]
async fn what_is_wanted_stands_beside_the_call() {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let wanted = Wanted {
        directory: "context".to_owned(),
        exclude: texts(&["*.o", "!a b"]),
        follow: texts(&["plain", "gr\u{fc}n"]),
    };
    let (_, headers) = received(Client::default(), wanted).await;
    let all = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(all("dir-name"), ["context"]);
    assert_eq!((all("exclude-patterns"), all("exclude-patterns-encoded")), (vec!["*.o", "!a b"], vec![]));
    assert_eq!((all("followpaths"), all("followpaths-encoded")), (vec!["plain", "gr%C3%BCn"], vec!["1"]));
}
