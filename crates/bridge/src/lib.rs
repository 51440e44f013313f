//! The one crossing from asynchronous code down to blocking code.
//!
//! Stores, drivers and the kernel's slow calls are written once, blocking; services are written once, asynchronous. A
//! service that needs a store calls [`blocking`], and nothing else in the workspace hands work to other threads: so a
//! search for this name finds every place where the two colours meet.
//!
//! A crossing costs about 50 us (a wake-up of another thread and one back). What is a handful of system calls on local
//! files is cheaper done in place; what can take long for a reason outside of our control (a disk, a walk over
//! somebody's files) is not.

/// Runs `work` on a thread that may block, and answers what it answers.
///
/// The work runs to its end even if the caller stops waiting. A panic in it is carried over to the caller. Must be
/// called within a tokio runtime.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(err) => match err.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: whoever waits here is about to be dropped at this very point.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn work_runs_elsewhere_and_its_value_comes_back() {
        let here = std::thread::current().id();
        let there = super::blocking(|| std::thread::current().id()).await;
        assert_ne!(here, there);
    }

    #[tokio::test]
    #[should_panic(expected = "carried over")]
    async fn a_panic_is_carried_over() {
        super::blocking(|| panic!("carried over")).await;
    }
}
