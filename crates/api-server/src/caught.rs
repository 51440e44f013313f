//! A handler's panic is its request's failure, and nobody else's.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use errdefs::ErrorKind;

use crate::router::Promise;
use crate::status::Failure;

/// Fulfils the promise, or answers that we have made a mistake.
///
/// What a panic leaves behind is dropped here, except for what lies behind locks: those of the engine are held over map
/// and field access only, and are taken all the same after a panic. What happened is told by the panic hook.
pub(crate) async fn caught<T>(mut promise: Promise<T>) -> Result<T, Failure> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| promise.as_mut().poll(cx))) {
        Ok(polled) => polled,
        Err(_) => Poll::Ready(Err(Failure::new(ErrorKind::Internal, "the request made the daemon panic: see its log"))),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_failure_at_any_point() {
        for yields in 0..2 {
            let promise: Promise<()> = Box::pin(async move {
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
                panic!("on purpose")
            });
            let failure = caught(promise).await.unwrap_err();
            assert_eq!(failure.status, http::StatusCode::INTERNAL_SERVER_ERROR);
        }
        assert_eq!(caught(Box::pin(async { Ok(5) })).await, Ok(5));
    }
}
