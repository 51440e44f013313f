//! Logging in to registries.

use engine::ops;
use engine_api::auth::AuthConfig;
use engine_api::json::{self, DecodeError};
use errdefs::ErrorKind;
use http::StatusCode;

use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// `POST /auth`.
pub(crate) async fn login(mut call: Call) -> Result<Answer, Failure> {
    let body = call.json_text().await?.unwrap_or_default();
    let config: AuthConfig = json::decode(&body).map_err(refused)?;
    Ok(response::json(StatusCode::OK, &ops::login::login(&call.engine, config).await?))
}

/// dockerd reads this body by another way than all the others, and says less.
fn refused(err: DecodeError) -> Failure {
    let words = match err {
        DecodeError::Empty => "EOF".to_owned(),
        DecodeError::Syntax(err) => err.to_string(),
        DecodeError::Type(err) => err.to_string(),
        err => err.to_string(),
    };
    Failure::new(ErrorKind::Internal, words)
}
