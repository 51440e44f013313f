use std::sync::Arc;

use http::HeaderMap;

use super::*;
use crate::frame;
use crate::messages::Stat;
use crate::session::{Announced, Sessions};

/// What a client does with the one call of its session.
#[derive(Clone, Copy)]
enum Client {
    /// Takes all, and asks for these files.
    Asks(&'static [u32]),
    /// Says that it fails, behind the entries.
    Fails,
    /// Ends the call well before it has all.
    Leaves,
    /// Ends the call with this number and sentence.
    Refuses(Code, &'static str),
}

async fn send(stream: &mut h2::SendStream<Bytes>, packet: &Packet) {
    // One that gives up reads no more.
    let _ = frame::send(stream, frame::framed(&packet.encode_to_vec())).await;
}

fn of_kind(kind: PacketKind) -> Packet {
    Packet { kind: kind as i32, ..Packet::default() }
}

impl Client {
    /// Answers the call; what is answered is what it saw of files, and whether it heard the end.
    async fn serve(self, io: tokio::io::DuplexStream) -> (Vec<u8>, bool) {
        let mut connection = h2::server::handshake(io).await.unwrap();
        let Some(Ok((request, mut respond))) = connection.accept().await else { return (Vec::new(), false) };
        let driving = tokio::spawn(async move { while let Some(Ok(_)) = connection.accept().await {} });
        let mut incoming = Incoming::of_request(request.into_body());
        let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
        let (mut seen, mut whole) = (Vec::new(), false);
        let mut trailers = crate::status::success();
        match self {
            Client::Refuses(code, sentence) => trailers = Status::new(code, sentence).trailers(),
            Client::Leaves => {}
            Client::Fails | Client::Asks(_) => {
                while let Ok(Some(packet)) = incoming.next::<Packet>().await {
                    match packet.kind {
                        0 if packet.stat.is_some() => {}
                        0 => match self {
                            Client::Asks(ids) => {
                                for id in ids {
                                    send(&mut stream, &Packet { id: *id, ..of_kind(PacketKind::Request) }).await;
                                }
                                send(&mut stream, &of_kind(PacketKind::End)).await;
                            }
                            _ => {
                                let data = Bytes::from_static(b"no space");
                                send(&mut stream, &Packet { data, ..of_kind(PacketKind::Failure) }).await;
                            }
                        },
                        2 => seen.extend_from_slice(&packet.data),
                        _ => {
                            whole = true;
                            break;
                        }
                    }
                }
            }
        }
        let _ = stream.send_trailers(trailers);
        driving.await.unwrap();
        (seen, whole)
    }
}

/// Sends two files, which are `a` and `b`, to a client.
async fn sent(client: Client) -> (Result<(), String>, (Vec<u8>, bool)) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(client.serve(theirs));
    let headers = [("x-docker-expose-session-uuid", "s"), ("x-docker-expose-session-grpc-method", DIFF_COPY)];
    let headers: HeaderMap =
        headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).into_iter().collect();
    let sessions = Arc::new(Sessions::default());
    let (own, announced) = (sessions.clone(), Announced::of_headers(&headers).unwrap());
    let session = tokio::spawn(async move { own.serve(announced, ours).await });
    let found = sessions.find("s").await.unwrap();
    let (packets, receiver) = mpsc::channel(1);
    let (asked, mut requests) = mpsc::unbounded_channel();
    let source = tokio::spawn(async move {
        for path in ["a", "b"] {
            let stat = Stat { path: path.to_owned(), mode: 0o644, size: 1, ..Stat::default() };
            let _ = packets.send(Packet { stat: Some(stat), ..Packet::default() }).await;
        }
        let _ = packets.send(Packet::default()).await;
        while let Some(id) = requests.recv().await {
            let data = Bytes::from(vec![b'a' + u8::try_from(id).unwrap()]);
            let _ = packets.send(Packet { id, data, ..of_kind(PacketKind::Data) }).await;
            let _ = packets.send(Packet { id, ..of_kind(PacketKind::Data) }).await;
        }
        let _ = packets.send(of_kind(PacketKind::End)).await;
    });
    let bytes = AtomicU64::new(0);
    let done = send_directory(&found, 0, receiver, asked, &bytes).await;
    drop(found);
    session.abort();
    source.await.unwrap();
    (done.map_err(|err| err.to_string()), serving.await.unwrap())
}

#[tokio::test]
async fn files_are_sent_that_the_client_asks_for() {
    assert_eq!(sent(Client::Asks(&[1, 0])).await, (Ok(()), (b"ba".to_vec(), true)));
    assert_eq!(sent(Client::Asks(&[])).await, (Ok(()), (Vec::new(), true)));
}

#[tokio::test]
async fn clients_that_do_otherwise_end_it() {
    let failed = |sentence: &str| Err(sentence.to_owned());
    assert_eq!(sent(Client::Asks(&[0, 1, 1])).await.0, failed("the client breaks the transfer off"));
    assert_eq!(sent(Client::Fails).await.0, failed("error from receiver: no space"));
    assert_eq!(sent(Client::Leaves).await.0, failed("the client breaks the transfer off"));
    let refused = sent(Client::Refuses(Code::ResourceExhausted, "write f: no space")).await.0;
    assert_eq!(refused, failed("rpc error: code = ResourceExhausted desc = write f: no space"));
}
