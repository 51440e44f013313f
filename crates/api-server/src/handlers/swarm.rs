//! What can be said of clusters without having one.

use errdefs::ErrorKind;

use crate::request::Call;
use crate::response::Answer;
use crate::status::Failure;

/// `POST /swarm/leave`: nobody is in one.
pub(crate) async fn leave(_: Call) -> Result<Answer, Failure> {
    Err(Failure::new(ErrorKind::Unavailable, "This node is not part of a swarm".to_owned()))
}

/// What dockerd says to whoever wants something of a cluster: there is none to be a manager of.
pub(super) fn no_manager() -> Failure {
    let sentence = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                    node to swarm and try again.";
    Failure::new(ErrorKind::Unavailable, sentence.to_owned())
}
