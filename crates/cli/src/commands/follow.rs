//! Following a container to its end: `run`, `start -a`, `attach`.
//!
//! ```text
//! streams   client <--> shim             outlive the daemon: it has passed our connection on
//! wait      client <--> daemon           dies with it
//!
//! wait broken off  --somebody listens within 10 s--> asked again, while the streams go on
//!                  --nobody does-------------------> asked again after the last byte, now starting the default daemon
//! ```
//!
//! Asking early saves the exit status of a container with `--rm`: the next daemon removes it, and tells for a minute how it
//! ended.

use std::pin::pin;
use std::time::Duration;

use client::container::{self, Waiting};
use client::{Client, ClientError};
use engine_api::container::{Inspect, WaitError, WaitResponse};
use tokio::sync::watch;

use super::successor::{self, AWAY_MAX};
use crate::report::{Exit, client_error};
use crate::signals::Caught;
use crate::stream::{Ended, Session};

/// How long a later daemon may take to remove a container that ended: milliseconds, unless something is wrong with it.
const REMOVAL_MAX: Duration = Duration::from_secs(10);

/// What [`follow`] has to know of its surroundings.
#[derive(Clone, Copy)]
pub struct Flow<'a> {
    /// The daemon.
    pub client: &'a Client,
    /// The container.
    pub id: &'a str,
    /// Whether the container's output comes back to us.
    pub outputs: bool,
    /// Whether the container removes itself: its name is free when we return.
    pub removed: bool,
    /// Whether somebody passes signals on to the container. If not, they end us: with the terminal restored.
    pub proxied: bool,
}

/// Copies streams until the container ends or the user detaches.
pub async fn follow(session: Session, waiting: Waiting, flow: Flow<'_>) -> Result<Ended, Exit> {
    if flow.proxied || !session.is_raw() {
        return follow_to_end(session, waiting, flow).await;
    }
    let mut fatal = Caught::fatal();
    tokio::select! {
        outcome = follow_to_end(session, waiting, flow) => outcome,
        (number, _) = fatal.next() => Err(Exit::silent(128 + number as u8)),
    }
}

async fn follow_to_end(session: Session, waiting: Waiting, flow: Flow<'_>) -> Result<Ended, Exit> {
    let (away, mut is_away) = watch::channel(false);
    let (mut streams, mut status) = (pin!(session.run()), pin!(first_status(waiting, flow, &away)));
    let status = tokio::select! {
        biased;
        ended = &mut streams => match ended? {
            Ended::Detached => return Ok(Ended::Detached),
            // Nobody has to be waited for any more: what comes now starts a daemon where that is ours to do.
            Ended::Output => tokio::select! {
                biased;
                Ok(_) = is_away.wait_for(|away| *away) => last_status(flow).await,
                status = &mut status => match status {
                    Err(err) if successor::may_answer(flow.client, &err) => last_status(flow).await,
                    status => status,
                },
            },
        },
        status = &mut status => {
            // Its last words may still be on the way.
            let ended = if flow.outputs { streams.await? } else { Ended::Output };
            match status {
                Err(_) if ended == Ended::Detached => return Ok(Ended::Detached),
                Err(err) if successor::may_answer(flow.client, &err) => last_status(flow).await,
                status => status,
            }
        }
    };
    finish(status)
}

/// The daemon's answer, of the first daemon or of those that follow it soon.
async fn first_status(
    waiting: Waiting,
    flow: Flow<'_>,
    away: &watch::Sender<bool>,
) -> Result<WaitResponse, ClientError> {
    let (mut waiting, mut asked_again) = (waiting, false);
    loop {
        match waiting.status().await {
            Err(err) if err.is_broken_off() && successor::streams_outlive(flow.client) => {}
            Ok(status) if asked_again => {
                removal(flow).await;
                return Ok(status);
            }
            status => return status,
        }
        away.send_replace(true);
        waiting = loop {
            flow.client.listening(AWAY_MAX).await?;
            // Whatever it waited for before, the end may have been in between: `not-running` answers in any case.
            match container::wait(flow.client, flow.id, "").await {
                Err(err) if err.is_broken_off() => {}
                waiting => break waiting?,
            }
        };
        away.send_replace(false);
        asked_again = true;
    }
}

/// Waits until a later daemon has removed the container, if it does: that was not what it was asked for.
async fn removal(flow: Flow<'_>) {
    if !flow.removed {
        return;
    }
    // The exit status is known by now: whatever goes wrong here is no failure of the container.
    let _ = tokio::time::timeout(REMOVAL_MAX, async {
        container::wait(flow.client, flow.id, "removed").await?.status().await
    })
    .await;
}

/// The status of a container whose output has ended.
async fn last_status(flow: Flow<'_>) -> Result<WaitResponse, ClientError> {
    let status = successor::ask(flow.client, async || ask(flow).await).await?;
    removal(flow).await;
    Ok(status)
}

async fn ask(flow: Flow<'_>) -> Result<WaitResponse, ClientError> {
    match container::inspect(flow.client, flow.id).await {
        // Its next life may have no end, and the end of the one that we saw is overwritten.
        Ok(inspect) if lives_on(&inspect) => {
            let message = "its exit code is lost: it was restarted while the daemon was".to_owned();
            return Ok(WaitResponse { error: Some(WaitError { message }), status_code: 0 });
        }
        // The daemon remembers for a while how a container ended that removed itself.
        Err(err) if !err.is_not_found() => return Err(err),
        _ => {}
    }
    container::wait(flow.client, flow.id, "").await?.status().await
}

fn lives_on(inspect: &Inspect) -> bool {
    inspect.state.running && !matches!(inspect.host_config.restart_policy.name.as_str(), "" | "no")
}

fn finish(status: Result<WaitResponse, ClientError>) -> Result<Ended, Exit> {
    let failed = |reason: &str| Err(Exit::new(125, format!("Error waiting for container: {reason}")));
    match status {
        Err(err) if err.is_not_found() => {
            failed("its exit code is lost: it ended and was removed while the daemon was restarted")
        }
        Err(err) => failed(&client_error(&err)),
        Ok(WaitResponse { error: Some(error), .. }) => failed(&error.message),
        Ok(WaitResponse { status_code: 0, .. }) => Ok(Ended::Output),
        Ok(WaitResponse { status_code, .. }) => Err(Exit::silent(status_code as u8)),
    }
}
