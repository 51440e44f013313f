use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shim_api::{Fact, RunState};

use super::*;

fn id() -> ContainerId {
    "a".repeat(64).parse().unwrap()
}

fn connect() -> (Arc<Link>, StdStream, mpsc::UnboundedReceiver<Observation>) {
    let (ours, theirs) = StdStream::pair().unwrap();
    let (sender, observations) = mpsc::unbounded_channel();
    let (link, reader) = Link::open(ours, id(), sender).unwrap();
    let link = Arc::new(link);
    let task = link.clone();
    tokio::spawn(async move { reader.run(&task).await });
    (link, theirs, observations)
}

/// The shim's half: reads `count` requests, then `answer`s them.
fn shim(mut socket: StdStream, count: usize, answer: impl Fn(&Request) -> Outcome + Send + 'static) -> Vec<Request> {
    let mut decoder = Decoder::default();
    let mut requests: Vec<Request> = Vec::new();
    let (mut buffer, mut descriptors) = ([0; 1000], Vec::new());
    while requests.len() < count {
        let read = sys::socket::receive(socket.as_fd(), &mut buffer, &mut descriptors).unwrap();
        assert_ne!(read, 0);
        decoder.push(&buffer[..read]);
        while let Some(request) = decoder.next_message().unwrap() {
            requests.push(request);
        }
    }
    assert_eq!(requests.iter().map(|request| request.descriptors).sum::<u32>() as usize, descriptors.len());
    for request in &requests {
        socket.write_all(&encode(&Message::Reply { seq: request.seq, result: answer(request) })).unwrap();
    }
    requests
}

#[tokio::test]
async fn calls_in_one_write_are_answered_in_order_with_their_descriptors() {
    let (link, socket, _observations) = connect();
    let served = std::thread::spawn(|| shim(socket, 3, |_| Ok(Answer::Done)));
    let (_client, stream) = StdStream::pair().unwrap();
    let calls = vec![
        (Call::Hello { version: 1 }, vec![]),
        (Call::Attach(shim_api::Attach::default()), vec![stream.into()]),
        (Call::Start, vec![]),
    ];
    for answer in link.send(calls).await.unwrap() {
        assert_eq!(Link::answer(answer, ANSWER_TIMEOUT).await.unwrap(), Answer::Done);
    }
    let requests = served.join().unwrap();
    assert_eq!(requests.iter().map(|request| request.seq).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn a_start_is_told_to_the_supervisor_before_its_caller_and_before_the_end() {
    let (link, socket, mut observations) = connect();
    let run = RunState { pid: 7, pid_start_ticks: 1, shim_pid: 6, started: true, started_at_nanos: 5 };
    let answer = run.clone();
    let mut posting = socket.try_clone().unwrap();
    let served = std::thread::spawn(move || {
        shim(socket, 1, move |_| Ok(Answer::Started(answer.clone())));
        let fact = Fact::Oom { container: id() };
        posting.write_all(&encode(&Message::Fact(fact))).unwrap();
    });
    let call = tokio::spawn({
        let link = link.clone();
        async move { link.call(Call::Start, vec![]).await }
    });
    let Some(Observation::Answered { outcome, asker, .. }) = observations.recv().await else { panic!() };
    assert!(matches!(observations.recv().await, Some(Observation::Fact(Fact::Oom { .. }))));
    assert!(!call.is_finished());
    asker.send(outcome).unwrap();
    assert_eq!(call.await.unwrap().unwrap(), Answer::Started(run));
    served.join().unwrap();
}

#[tokio::test]
async fn who_waits_hears_that_the_shim_is_gone() {
    let (link, mut socket, _observations) = connect();
    let served = std::thread::spawn(move || {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
    });
    let err = link.call(Call::State, vec![]).await.unwrap_err();
    assert!(matches!(err, CallError::Closed), "{err:?}");
    served.join().unwrap();
    assert!(link.call(Call::State, vec![]).await.is_err());
}

#[tokio::test]
async fn rubbish_closes_the_connection() {
    let (link, mut socket, _observations) = connect();
    socket.write_all(b"\x01\0\0\0{").unwrap();
    let err = link.call(Call::State, vec![]).await.unwrap_err();
    assert!(matches!(err, CallError::Closed), "{err:?}");
}

/// The shim's half: answers each of `count` requests, loans with two descriptors.
fn lender(mut socket: StdStream, count: usize) {
    let (mut decoder, mut buffer) = (Decoder::default(), [0; 1000]);
    for _ in 0..count {
        let request: Request = loop {
            if let Some(request) = decoder.next_message().unwrap() {
                break request;
            }
            let read = socket.read(&mut buffer).unwrap();
            assert_ne!(read, 0, "the connection is closed");
            decoder.push(&buffer[..read]);
        };
        let (result, descriptors) = match request.call {
            Call::Lend => (Ok(Answer::Lent { descriptors: 2 }), vec![socket.as_fd(); 2]),
            _ => (Ok(Answer::Done), vec![]),
        };
        let frame = encode(&Message::Reply { seq: request.seq, result });
        assert_eq!(sys::socket::send(socket.as_fd(), &frame, &descriptors).unwrap(), frame.len());
    }
}

#[tokio::test]
async fn without_descriptors_left_a_loan_fails_and_the_connection_stays() {
    let (link, socket, _observations) = connect();
    let served = std::thread::spawn(|| lender(socket, 4));
    assert_eq!(link.lend().await.unwrap().len(), 2);
    let usual = getrlimit(Resource::Nofile);
    // What is open stays so; nothing more is opened.
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..usual }).unwrap();
    let refused = link.lend().await.map(|lent| lent.len());
    assert!(matches!(refused, Err(CallError::Cut)), "{refused:?}");
    assert_eq!(link.call(Call::State, vec![]).await.unwrap(), Answer::Done);
    setrlimit(Resource::Nofile, usual).unwrap();
    assert_eq!(link.lend().await.unwrap().len(), 2);
    served.join().unwrap();
}
