//! Files of containers.

use std::time::Duration;

use engine::filters::Filters;
use engine::metrics::Action;
use engine::ops::archive::{self, PutOptions};
use engine::ops::{changes, export, prune};
use engine_api::path_stat::{HEADER, PathStat};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use crate::download;
use crate::request::{Call, RequestBody};
use crate::response::{self, Answer};
use crate::status::Failure;
use crate::upload::{self, feed_within};

/// What archives are.
const TAR: &str = "application/x-tar";

/// How long a client may send nothing: nobody can start or remove the container meanwhile. Whoever pipes an archive from
/// elsewhere needs some patience.
const SEND_TIMEOUT: Duration = Duration::from_secs(300);

/// `HEAD /containers/{}/archive`.
pub(crate) async fn head(call: Call) -> Result<Answer, Failure> {
    let stat = archive::stat(&call.engine, &call.name, path(&call)?).await?;
    Ok(with_stat(response::empty(StatusCode::OK), &stat))
}

/// `GET /containers/{}/archive`.
pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    let (download, chunks) = download::channel();
    let stat = archive::get(&call.engine, &call.name, path(&call)?, download).await?;
    Ok(with_stat(response::archive(TAR, chunks), &stat))
}

/// `PUT /containers/{}/archive`.
pub(crate) async fn put(mut call: Call) -> Result<Answer, Failure> {
    let options = PutOptions {
        path: path(&call)?.to_owned(),
        keep_kinds: call.query.flag("noOverwriteDirNonDir"),
        to_user: call.query.flag("copyUIDGID"),
    };
    let first = call.body.chunk().await?;
    let (upload, tar) = upload::channel();
    let body = std::mem::replace(&mut call.body, RequestBody::Whole(Default::default()));
    let fed = feed_within(SEND_TIMEOUT, first, body, upload);
    let (done, ()) = tokio::join!(archive::put(&call.engine, &call.name, options, tar), fed);
    done?;
    Ok(response::empty(StatusCode::OK))
}

fn path(call: &Call) -> Result<&str, Failure> {
    // The container's name is looked at first.
    if call.name.is_empty() {
        return Err(Failure::invalid("bad parameter: namecannot be empty"));
    }
    call.query.given("path").ok_or_else(|| Failure::invalid("bad parameter: pathcannot be empty"))
}

fn with_stat(mut answer: Answer, stat: &PathStat) -> Answer {
    if let Ok(value) = HeaderValue::from_str(&stat.to_header()) {
        answer.headers_mut().insert(HeaderName::from_static(HEADER), value);
    }
    answer
}

/// `GET /containers/{}/export`.
pub(crate) async fn export(call: Call) -> Result<Answer, Failure> {
    let (download, chunks) = download::channel();
    export::export(&call.engine, &call.name, download).await?;
    Ok(response::archive("application/octet-stream", chunks))
}

/// `GET /containers/{}/changes`.
pub(crate) async fn changes(call: Call) -> Result<Answer, Failure> {
    let found = call.engine.metrics.time(Action::Changes, changes::changes(&call.engine, &call.name)).await?;
    // Go's list of nothing is null.
    Ok(response::json(StatusCode::OK, &Some(found).filter(|found| !found.is_empty())))
}

/// `POST /containers/prune`.
pub(crate) async fn prune(call: Call) -> Result<Answer, Failure> {
    let filters = Filters(call.query.filters()?);
    Ok(response::json(StatusCode::OK, &prune::prune(&call.engine, filters).await?))
}
