//! Clients that are held: the daemon sends them what was logged, or the head of its answer, and then lets them go.
//!
//! ```text
//!   daemon   Attach{hold}                        sends the log until M     Release
//!   shim     marks the log: M,                                             sends what it kept,
//!            keeps for the client what is behind M,                        and whatever comes
//!            answers Held{M} when the log has everything before M
//! ```

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use logging::{Log, Place};
use shim_api::{Answer, Attach, Message};

use super::Streams;
use crate::calls::CallError;
use crate::client::Client;
use crate::event_loop::Shim;
use crate::join::Asker;

/// Who waits until the log has everything before a place, in the order of the places.
#[derive(Default)]
pub(crate) struct Marks(VecDeque<(Asker, Place)>);

/// Connects a client that is held; the answer comes when the log can be read.
pub(crate) fn attach(
    shim: &mut Shim,
    wants: Attach,
    socket: OwnedFd,
    asker: Asker,
) -> Result<Option<Answer>, CallError> {
    let task = shim.task.as_mut().ok_or(CallError::NotCreated)?;
    match connect(&mut task.streams, socket, wants) {
        None => Ok(Some(Answer::Held { logged_until_nanos: None })),
        Some(place) => {
            shim.marks.0.push_back((asker, place));
            Ok(None)
        }
    }
}

/// Lets a client go that was held, be it the container's or an exec's.
pub(crate) fn release(shim: &mut Shim, number: u64, already_read: &[u8]) -> Result<Answer, CallError> {
    let of_task =
        shim.task.as_mut().into_iter().flat_map(|task| {
            std::iter::once(&mut task.streams).chain(task.execs.iter_mut().map(|exec| &mut exec.streams))
        });
    let mut all = of_task.chain(&mut shim.slow);
    match all.any(|streams| let_go(streams, number, already_read)) {
        true => Ok(Answer::Done),
        false => Err(CallError::NotHeld),
    }
}

/// Answers those whose place is reached.
pub(crate) fn answer_marks(shim: &mut Shim) {
    while let (Some((asker, place)), Some(task)) = (shim.marks.0.front().copied(), &mut shim.task) {
        // In the order of the places, as the log wants to be asked.
        if task.streams.log.as_mut().is_some_and(|log| !log.has_reached(place)) {
            return;
        }
        shim.marks.0.pop_front();
        let result = Ok(Answer::Held { logged_until_nanos: Some(place.nanos()) });
        // Who is not there any more has let go of the client, too.
        shim.connections.send_to(asker.connection, &Message::Reply { seq: asker.seq, result });
    }
}

/// The shim ends: what the daemon has not released by now it finds in the log.
pub(crate) fn drop_all(shim: &mut Shim) {
    for streams in &mut shim.slow {
        streams.clients.iter_mut().for_each(Client::drop_held);
        streams.clients.retain(|client| !client.is_gone());
    }
    shim.slow.retain(|streams| !streams.is_empty());
}

/// What comes from now on is for the client, and what the log will have behind this place; answers the place.
fn connect(streams: &mut Streams, socket: OwnedFd, wants: Attach) -> Option<Place> {
    let mut client = Client::new(socket, wants, streams.terminal);
    client.greet(&streams.spool_dir);
    let place = streams.log.as_mut().and_then(Log::mark);
    for (stream, bytes) in streams.log.iter().flat_map(Log::pending) {
        client.send(stream, bytes, !streams.terminal, &streams.spool_dir);
    }
    streams.clients.push(client);
    if streams.ended_at.is_some() && streams.outputs.is_empty() {
        streams.finish_clients();
    }
    place
}

fn let_go(streams: &mut Streams, number: u64, already_read: &[u8]) -> bool {
    let Some(at) = streams.clients.iter_mut().position(|client| client.release(number, already_read)) else {
        return false;
    };
    let received = streams.clients[at].take_already_read();
    streams.take_input(at, received);
    true
}
