//! The thread that keeps our bridges in the zone.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use dbus::BusError;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::client::{Client, News};
use super::plan::{Founding, Moves};
use super::{Desk, FirewalldState};

/// Of its stack: nothing is deep there, and no more than the touched pages counts.
pub(super) const STACK_BYTES: usize = 256 << 10;

/// When what failed is tried again: the first time, and twice as late each time up to the last.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(64);

/// What the bus answers for somebody who is there no more. A signal tells it, too.
const HAS_LEFT: [&str; 3] = ["NoReply", "ServiceUnknown", "NameHasNoOwner"];

/// Why a connection is given up.
enum Over {
    /// The daemon ends, or there is no bus.
    Ended,
    /// It broke.
    Lost(BusError),
}

/// Keeps the bridges in the zone until the daemon ends or the bus goes away.
pub(super) fn run(desk: &Desk, bell: &OwnedFd, socket: &Path) {
    let mut again = AGAIN;
    loop {
        let mut served = false;
        match serve(desk, bell, socket, &mut served) {
            Over::Ended => break,
            Over::Lost(err) => {
                tracing::warn!(err = errdefs::chain(&err), "the bus of firewalld does not answer as it should");
                fail(desk, &err);
            }
        }
        again = if served { AGAIN } else { (again * 2).min(AGAIN_MAX) };
        if wait(None, bell, Some(again)).is_err() || desk.lock().ends {
            break;
        }
    }
    leave(desk);
}

/// Nobody is here any more: whoever wants something looks for a bus again.
fn leave(desk: &Desk) {
    let mut slip = desk.lock();
    slip.bell = None;
    slip.settled = slip.asked;
    slip.state = FirewalldState::default();
    drop(slip);
    desk.settled.notify_all();
}

/// Whoever waits goes on.
fn fail(desk: &Desk, err: &BusError) {
    let mut slip = desk.lock();
    slip.mute = true;
    slip.state.fault = Some(errdefs::chain(err));
    drop(slip);
    desk.settled.notify_all();
}

fn serve(desk: &Desk, bell: &OwnedFd, socket: &Path, served: &mut bool) -> Over {
    let mut client = match Client::connect(socket) {
        Ok(client) => client,
        // Who left a socket behind is gone.
        Err(BusError::Connect(err)) => {
            tracing::debug!(%err, "there is no system bus");
            return Over::Ended;
        }
        Err(err) => return Over::Lost(err),
    };
    // Whether it was reloaded for what it had kept, since it is there.
    let mut reloaded = false;
    let mut news = News::Forgot;
    let mut first = true;
    let mut again = None;
    loop {
        let failed = match settle(&mut client, &mut reloaded, desk, news == News::Forgot && !first) {
            Ok(()) => None,
            // It has left or refuses: the connection is as good as ever.
            Err(err @ BusError::Refused { .. }) => {
                if !HAS_LEFT.iter().any(|error| err.is(error)) {
                    tracing::warn!(err = errdefs::chain(&err), "firewalld refuses us: containers may be cut off");
                }
                fail(desk, &err);
                Some(again.map_or(AGAIN, |last: Duration| (last * 2).min(AGAIN_MAX)))
            }
            Err(err) => return Over::Lost(err),
        };
        *served |= failed.is_none();
        (first, again) = (false, failed);
        news = client.news_kept();
        // Until something is to be done.
        while news == News::Nothing {
            match wait(Some(&client), bell, again) {
                Err(err) => return Over::Lost(BusError::Call(err.into())),
                Ok(Woken::Late | Woken::Rung) => break,
                Ok(Woken::Told) => match client.news() {
                    Ok(told) => news = told,
                    Err(err) => return Over::Lost(err),
                },
            }
        }
        reloaded &= news != News::Left;
        if desk.lock().ends {
            return Over::Ended;
        }
    }
}

enum Woken {
    Rung,
    Told,
    Late,
}

/// Waits for the bell or a message, at most for this time.
fn wait(client: Option<&Client>, bell: &OwnedFd, within: Option<Duration>) -> rustix::io::Result<Woken> {
    let within = within.map(|within| Timespec { tv_sec: within.as_secs() as i64, tv_nsec: 0 });
    let mut polled = vec![PollFd::new(bell, PollFlags::IN)];
    polled.extend(client.map(|client| PollFd::new(client, PollFlags::IN)));
    loop {
        match rustix::event::poll(&mut polled, within.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err),
            Ok(0) => return Ok(Woken::Late),
            Ok(_) if polled[0].revents().is_empty() => return Ok(Woken::Told),
            Ok(_) => {
                // All rings count as one.
                let _ = rustix::io::read(bell, &mut [0; 8]);
                return Ok(Woken::Rung);
            }
        }
    }
}

/// Makes it so that what is wanted is there, and tells those who wait for it.
fn settle(client: &mut Client, reloaded: &mut bool, desk: &Desk, forgot: bool) -> Result<(), BusError> {
    let (wanted, ours, asked) = {
        let slip = desk.lock();
        (slip.wanted.clone(), slip.ours.clone(), slip.asked)
    };
    let mut state = FirewalldState { running: client.is_there()?, ..FirewalldState::default() };
    desk.lock().state.running = state.running;
    if state.running {
        let founded = if wanted.is_empty() { Ok(()) } else { found(client, reloaded)? };
        if !ours.is_empty() {
            state.elsewhere = move_bridges(client, &wanted, &ours)?;
        }
        founded?;
    }
    let mut slip = desk.lock();
    state.reloaded_at = Some(SystemTime::now()).filter(|_| forgot && state.running).or(slip.state.reloaded_at);
    if slip.asked == asked {
        slip.ours = wanted;
    }
    (slip.state, slip.settled, slip.mute) = (state, asked, false);
    drop(slip);
    desk.settled.notify_all();
    Ok(())
}

/// Has zone and policy in force. Answers whether the policy was refused: without it all passes but what is forwarded to containers
/// without a redirection.
fn found(client: &mut Client, reloaded: &mut bool) -> Result<Result<(), BusError>, BusError> {
    let planned = Founding::plan(client.zone()?, client.policy()?, *reloaded);
    if planned.add_zone {
        client.add_zone()?;
    }
    let policy = if planned.add_policy { client.add_policy() } else { Ok(()) };
    if planned.needs_reload(policy.is_ok()) {
        *reloaded = true;
        client.reload()?;
    }
    Ok(policy)
}

/// Puts bridges into the zone and takes them out; answers those that are in another one. One that is refused keeps no other one from it.
fn move_bridges(
    client: &mut Client,
    wanted: &BTreeSet<String>,
    ours: &BTreeSet<String>,
) -> Result<Vec<(String, String)>, BusError> {
    let present: BTreeSet<_> = client.interfaces()?.into_iter().collect();
    let mut zones = BTreeMap::new();
    for bridge in wanted.difference(&present) {
        zones.extend(client.zone_of(bridge)?.map(|zone| (bridge.clone(), zone)));
    }
    let moves = Moves::plan(wanted, ours, &present, &zones);
    let mut refused = None;
    for bridge in &moves.add {
        keep_refusal(&mut refused, client.add(bridge))?;
    }
    for bridge in &moves.remove {
        let mut left = None;
        keep_refusal(&mut left, client.remove(bridge))?;
        if let Some(err) = left {
            // The name of a link that is gone. One that was killed and started again has been seen to refuse the last one of a zone.
            tracing::warn!(err = errdefs::chain(&err), bridge, "firewalld keeps a bridge that is gone");
        }
    }
    refused.map_or(Ok(moves.elsewhere), Err)
}

/// The first refusal is kept; other errors are for at once.
fn keep_refusal(kept: &mut Option<BusError>, result: Result<(), BusError>) -> Result<(), BusError> {
    match result {
        Err(err @ BusError::Refused { .. }) => drop(kept.get_or_insert(err)),
        result => return result,
    }
    Ok(())
}
