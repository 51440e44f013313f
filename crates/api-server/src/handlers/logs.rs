//! What containers have printed.

use engine::ops::logs::{self, LogsQuery};
use tracing::debug;

use crate::hijack::stream_type;
use crate::request::Call;
use crate::response::Answer;
use crate::status::Failure;

/// `GET /containers/{}/logs`: frames, or the raw bytes of a terminal.
pub(crate) async fn stream(call: Call) -> Result<Answer, Failure> {
    let (query, flag) = (&call.query, |name| call.query.flag(name));
    let (stdout, stderr) = (flag("stdout"), flag("stderr"));
    if !stdout && !stderr {
        return Err(Failure::invalid("Bad parameters: you must choose at least one stream"));
    }
    let wanted = LogsQuery {
        follow: flag("follow"),
        stdout,
        stderr,
        since: query.text("since").to_owned(),
        until: query.text("until").to_owned(),
        timestamps: flag("timestamps"),
        tail: query.text("tail").to_owned(),
        details: flag("details"),
    };
    let mut log = logs::open(&call.engine, &call.name, wanted).await?;
    Ok(call.stream(stream_type(call.version, log.tty()), async move |sink| {
        loop {
            let sent = match log.next().await {
                Ok(Some(bytes)) => sink.send(bytes).await,
                Ok(None) => return,
                // The head is sent, so the end of the stream is all that can be told.
                Err(err) => return debug!("logs: {}", errdefs::chain(&err)),
            };
            if sent.is_err() {
                return;
            }
        }
    }))
}
