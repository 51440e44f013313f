//! Asking the next daemon what the one that died cannot answer any more.

use std::time::Duration;

use client::{Client, ClientError, Endpoint};

/// How long a daemon that died may take to listen again: an update or a restart by systemd takes a second or two.
pub(super) const AWAY_MAX: Duration = Duration::from_secs(10);

/// Asks whoever comes after a daemon that died, until one lives long enough to answer. A default daemon that nobody else
/// starts is started for it.
pub(super) async fn ask<T>(
    client: &Client,
    question: impl AsyncFn() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    loop {
        // A default daemon starts by the question itself: then a second failure to connect is one.
        if !client.starts_daemon() {
            client.listening(AWAY_MAX).await?;
        }
        match question().await {
            Err(err) if err.is_broken_off() || (is_lost(&err) && !client.starts_daemon()) => {}
            answer => return answer,
        }
    }
}

/// Whether there was no daemon to answer.
pub(super) fn is_lost(err: &ClientError) -> bool {
    err.is_broken_off() || matches!(err, ClientError::Connect { .. })
}

/// Whether the next daemon is to be asked what this failure kept the last one from answering.
pub(super) fn may_answer(client: &Client, err: &ClientError) -> bool {
    is_lost(err) && streams_outlive(client)
}

/// Only streams over a unix socket outlive the daemon, which has passed our connection on; over others the output is lost
/// with it, and that is the failure.
pub(super) fn streams_outlive(client: &Client) -> bool {
    matches!(client.endpoint(), Endpoint::Unix(_))
}
