//! The engine itself.

use engine::ops;
use engine_api::versions;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderName, HeaderValue, PRAGMA};

use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// `GET` and `HEAD /_ping`: that we are here, and which API we speak.
pub(crate) async fn ping(_call: Call) -> Result<Answer, Failure> {
    // For HEAD, hyper leaves the body out but would announce its length; Docker's clients read neither.
    let mut answer = response::text(StatusCode::OK, "OK");
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    // Which builder clients prefer: BuildKit.
    headers.insert(HeaderName::from_static("builder-version"), HeaderValue::from_static("2"));
    headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static("inactive"));
    Ok(answer)
}

/// `GET /version`.
pub(crate) async fn version(call: Call) -> Result<Answer, Failure> {
    Ok(response::json(StatusCode::OK, &ops::system::version(&call.engine).await))
}

/// `GET /info`.
pub(crate) async fn info(call: Call) -> Result<Answer, Failure> {
    let info = versions::downgrade_info(call.version, ops::system::info(&call.engine).await);
    Ok(response::json(StatusCode::OK, &info))
}

/// `OPTIONS` of anything: browsers ask before they ask.
pub(crate) async fn options(_call: Call) -> Result<Answer, Failure> {
    let mut answer = response::empty(StatusCode::OK);
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(answer)
}
