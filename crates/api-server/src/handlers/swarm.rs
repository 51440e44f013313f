//! What can be said of clusters without having one.

use errdefs::ErrorKind;

use crate::request::Call;
use crate::response::Answer;
use crate::status::Failure;

/// `POST /swarm/leave`: nobody is in one.
pub(crate) async fn leave(_: Call) -> Result<Answer, Failure> {
    Err(Failure::new(ErrorKind::Unavailable, "This node is not part of a swarm".to_owned()))
}
