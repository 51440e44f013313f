use std::time::Duration;

use tokio::sync::watch;

use super::*;
use crate::channel::Channel;
use crate::messages::{Platform, StatusRequest};

/// Answers by name; tells when a call that does not end was dropped.
#[derive(Clone)]
struct Echo {
    waiting: watch::Sender<usize>,
}

/// A call that goes on.
struct Waiting(watch::Sender<usize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Service for Echo {
    async fn call(&self, call: Call) -> Result<Reply, Status> {
        let request: StatusRequest = call.message()?;
        match call.path.as_str() {
            "/echo" => Ok(Reply::message(&Platform { os: request.reference, ..Platform::default() })),
            "/many" => {
                let (sender, receiver) = mpsc::channel(1);
                tokio::spawn(async move {
                    for count in 0..3 {
                        let message = StatusRequest { reference: format!("{count}") }.encode_to_vec();
                        sender.send(Ok(message)).await.unwrap();
                    }
                    sender.send(Err(Status::new(Code::NotFound, "no more"))).await.unwrap();
                });
                Ok(Reply::Stream(receiver))
            }
            "/wait" => {
                self.waiting.send_modify(|count| *count += 1);
                let _waiting = Waiting(self.waiting.clone());
                std::future::pending().await
            }
            path => Err(Status::new(Code::Unimplemented, format!("no {path}"))),
        }
    }
}

/// A server, and a channel to it.
async fn served() -> (Channel, watch::Receiver<usize>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let waiting = watch::Sender::new(0);
    let receiver = waiting.subscribe();
    tokio::spawn(serve(theirs, Echo { waiting }));
    let (channel, connection) = Channel::open(ours).await.unwrap();
    tokio::spawn(connection);
    (channel, receiver)
}

#[tokio::test]
async fn calls_are_answered() {
    let (channel, _) = served().await;
    // Longer than any window.
    for length in [0, 1, 3 << 20] {
        let reference = "x".repeat(length);
        let answer: Platform = channel.call("/echo", &StatusRequest { reference: reference.clone() }).await.unwrap();
        assert_eq!(answer.os.len(), length);
    }
    let refused = channel.call::<Platform>("/none", &StatusRequest::default()).await.unwrap_err();
    assert_eq!((refused.code, refused.message.as_str()), (12, "no /none"));
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let (channel, _) = served().await;
    let request = StatusRequest { reference: "x".repeat(frame::MESSAGE_MAX + 1) };
    let refused = channel.call::<Platform>("/echo", &request).await.unwrap_err();
    assert!(matches!(refused.code, 1 | 8 | 14), "{refused:?}");
}

#[tokio::test]
async fn a_stream_ends_with_its_status() {
    let (channel, _) = served().await;
    let (mut outgoing, mut incoming) = channel.stream("/many", &[]).await.unwrap();
    outgoing.send(&StatusRequest::default()).await.unwrap();
    outgoing.end().unwrap();
    for count in 0..3 {
        let message: StatusRequest = incoming.next().await.unwrap().unwrap();
        assert_eq!(message.reference, format!("{count}"));
    }
    assert_eq!(incoming.next::<StatusRequest>().await.unwrap_err().message, "no more");
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_dropped() {
    let (channel, mut waiting) = served().await;
    for _ in 0..2 {
        let own = channel.clone();
        let call = tokio::spawn(async move { own.call::<Platform>("/wait", &StatusRequest::default()).await });
        let begun = tokio::time::timeout(Duration::from_secs(30), waiting.wait_for(|count| *count == 1));
        drop(begun.await.unwrap().unwrap());
        call.abort();
        let dropped = tokio::time::timeout(Duration::from_secs(30), waiting.wait_for(|count| *count == 0));
        drop(dropped.await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn calls_of_a_connection_that_ends_are_dropped() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let sender = watch::Sender::new(0);
    let mut waiting = sender.subscribe();
    let serving = tokio::spawn(serve(theirs, Echo { waiting: sender }));
    let (channel, connection) = Channel::open(ours).await.unwrap();
    let connection = tokio::spawn(connection);
    let call = tokio::spawn(async move { channel.call::<Platform>("/wait", &StatusRequest::default()).await });
    drop(waiting.wait_for(|count| *count == 1).await.unwrap());
    connection.abort();
    // Whatever it says of that: it has ended, and its calls with it.
    let _ = tokio::time::timeout(Duration::from_secs(30), serving).await.unwrap().unwrap();
    assert_eq!(*waiting.borrow_and_update(), 0);
    call.abort();
}
