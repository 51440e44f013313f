//! Images of archives.

use std::time::{Duration, Instant};

use engine::ops::import::{self, Fetched, ImportOptions, ImportPlan, WebAddress};

use crate::handlers::progress::Line;
use crate::request::{Call, RequestBody};
use crate::response::{Answer, Sink};
use crate::status::Failure;
use crate::upload::{self, Upload, feed};

/// How often a download's progress is told at most, as by dockerd.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// `POST /images/create` with `fromSrc`.
pub(crate) async fn import(call: Call) -> Result<Answer, Failure> {
    let query = &call.query;
    let plan = import::plan(&ImportOptions {
        source: query.text("fromSrc").to_owned(),
        repository: query.text("repo").to_owned(),
        tag: query.text("tag").to_owned(),
        message: query.text("message").to_owned(),
        changes: query.all("changes"),
        platform: query.text("platform").to_owned(),
    })?;
    match plan.address.clone() {
        None => of_body(call, plan).await,
        Some(address) => of_web(call, plan, address).await,
    }
}

async fn of_body(mut call: Call, plan: ImportPlan) -> Result<Answer, Failure> {
    let first = call.body.chunk().await?;
    let (upload, tar) = upload::channel();
    let body = std::mem::replace(&mut call.body, RequestBody::Whole(Default::default()));
    let engine = call.engine.clone();
    Ok(call.progress(async move |sink| {
        let (imported, ()) = tokio::join!(import::import(&engine, plan, tar), feed(first, body, upload));
        let line = match imported {
            Ok(id) => Line::Status { status: id, id: None },
            Err(err) => Line::failed(errdefs::chain(&err)),
        };
        // A client that has gone needs no answer.
        let _ = sink.line(&line).await;
    }))
}

async fn of_web(call: Call, plan: ImportPlan, address: WebAddress) -> Result<Answer, Failure> {
    // What fails before there is anything to tell has a status of its own.
    let fetched = import::fetch(&call.engine, &address).await?;
    let (upload, tar) = upload::channel();
    let engine = call.engine.clone();
    Ok(call.progress(async move |sink| {
        let begun = Line::Status { status: format!("Downloading from {address}"), id: None };
        // Dropped with us when the client has gone, the download ends, and with it the import.
        if sink.line(&begun).await.is_err() {
            return;
        }
        let outcome = tokio::join!(import::import(&engine, plan, tar), carry(fetched, upload, &sink));
        let line = match outcome {
            (Ok(id), _) => Line::Status { status: id, id: None },
            // Why the tar is broken says more than that it is.
            (Err(_), Err(message)) => Line::failed(message),
            (Err(err), Ok(())) => Line::failed(errdefs::chain(&err)),
        };
        // A client that has gone needs no answer.
        let _ = sink.line(&line).await;
    }))
}

/// Carries what is fetched to the thread that unpacks it, and tells how far it is.
async fn carry(mut fetched: Fetched, upload: Upload, sink: &Sink) -> Result<(), String> {
    let total = fetched.length().map_or(-1, |length| i64::try_from(length).unwrap_or(-1));
    let (mut current, mut told) = (0, None::<Instant>);
    loop {
        let chunk = fetched.chunk().await.map_err(|err| errdefs::chain(&err));
        let over = !matches!(chunk, Ok(Some(_)));
        if let Ok(Some(bytes)) = &chunk {
            current = i64::try_from(bytes.len()).map_or(i64::MAX, |length| length.saturating_add(current));
        }
        let due = told.is_none_or(|told| told.elapsed() >= REPORT_EVERY);
        if over || due && current != total {
            told = Some(Instant::now());
            // That the client has gone is noticed where this is run.
            let _ = sink.line(&Line::whole("Importing", current, total)).await;
        }
        match chunk {
            Ok(Some(bytes)) => {
                // What is behind the end of the archive does not matter.
                if !upload.send(bytes).await {
                    return Ok(());
                }
            }
            Ok(None) => {
                upload.end().await;
                return Ok(());
            }
            Err(message) => {
                upload.fail(message.clone()).await;
                return Err(message);
            }
        }
    }
}
