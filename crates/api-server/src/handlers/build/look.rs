//! The Dockerfile of a context that is no directory of the client's, for who looks at it instead of building. Ours alone.

use engine::ops::build;
use errdefs::ErrorKind;
use http::StatusCode;
use serde::Serialize;

use super::{archive, session_of};
use crate::buildkit::remote;
use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// A Dockerfile.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Looked {
    text: String,
}

/// `POST /longshore/dockerfile`: of an address (`remote`), or of the archive that is the body. Nothing else of it stays.
pub(crate) async fn dockerfile(mut call: Call) -> Result<Answer, Failure> {
    let failed = |err: build::RemoteContextError| Failure::new(ErrorKind::Internal, errdefs::chain(&err));
    let fetched = match call.query.text("remote") {
        "" => {
            let first = call.body.chunk().await?;
            let archive = archive(&mut call, first);
            build::keep_context(&call.engine, archive).await.map_err(failed)?
        }
        url => {
            let session = call.query.text("session");
            let client = if session.is_empty() { None } else { Some(session_of(&call, session).await?) };
            build::fetch_context(&call.engine, url, false, &client).await.map_err(failed)?
        }
    };
    let name = match call.query.text("dockerfile") {
        "" => "Dockerfile",
        name => name,
    };
    let found = remote::dockerfile(fetched, name).await;
    let text = found.map_err(|why| Failure::new(ErrorKind::Internal, why))?;
    Ok(response::json(StatusCode::OK, &Looked { text: String::from_utf8_lossy(&text).into_owned() }))
}
