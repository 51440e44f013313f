//! The one crossing from asynchronous code down to blocking code.
//!
//! Stores, drivers and the kernel's slow calls are written once, blocking; services are written once, asynchronous. A
//! service that needs a store calls [`blocking`], and nothing else in the workspace hands work to other threads: so a
//! search for this name finds every place where the two colours meet.
//!
//! Its threads are a bounded pool. Work that ends by itself takes its turn there; work that waits for other work, such as a
//! reader for bytes that somebody else writes, would hold a thread that the other needs, and as many of them as there are
//! threads would wait for ever. That is what [`waiting`] is for.
//!
//! A crossing costs about 50 us (a wake-up of another thread and one back). What is a handful of system calls on local
//! files is cheaper done in place; what can take long for a reason outside of our control (a disk, a walk over
//! somebody's files) is not.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Runs `work` on a thread that may block, and answers what it answers.
///
/// The work runs to its end even if the caller stops waiting. A panic in it is carried over to the caller. Must be
/// called within a tokio runtime.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(err) => match err.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is shutting down: whoever waits here is about to be dropped at this very point.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The same for work that may take as long as somebody else likes: it is told when nobody waits for it any more, and asks now
/// and then.
pub async fn abandonable<T: Send + 'static>(work: impl FnOnce(&Abandoned) -> T + Send + 'static) -> T {
    let waiting = Waiting(Abandoned::default());
    let abandoned = waiting.0.clone();
    blocking(move || work(&abandoned)).await
}

/// [`waiting`] and [`abandonable`] in one.
pub async fn waiting_abandonable<T: Send + 'static>(work: impl FnOnce(&Abandoned) -> T + Send + 'static) -> T {
    let held = Waiting(Abandoned::default());
    let abandoned = held.0.clone();
    waiting(move || work(&abandoned)).await
}

/// Whether nobody waits any more for what is being done.
#[derive(Clone, Debug, Default)]
pub struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// Whether it is so by now.
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Held by who waits.
struct Waiting(Abandoned);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// The same on a thread that is nobody else's, for work that waits for other work: however much of it there is, it keeps no
/// thread from what it waits for.
///
/// Where the system has no thread left it runs in the pool.
pub async fn waiting<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, outcome) = oneshot::channel();
    let runtime = Handle::current();
    let work = move || {
        let _within = runtime.enter();
        // Whoever does not wait any more does not want to know.
        let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
    };
    // A thread that does not start drops what it was given: both ways to run it hold it, and one takes it.
    let work = Arc::new(Mutex::new(Some(work)));
    let run = move || {
        let taken = work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = taken {
            work();
        }
    };
    if thread::Builder::new().name("waiting".to_owned()).spawn(run.clone()).is_err() {
        tokio::task::spawn_blocking(run);
    }
    match outcome.await {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        // As above.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    #[tokio::test]
    async fn work_runs_elsewhere_and_its_value_comes_back() {
        let here = std::thread::current().id();
        let there = super::blocking(|| std::thread::current().id()).await;
        assert_ne!(here, there);
    }

    #[tokio::test]
    async fn work_is_told_that_nobody_waits_any_more() {
        for waits in [false, true] {
            let (begun, has_begun) = mpsc::channel();
            let (sender, ended) = mpsc::channel();
            let work = move |abandoned: &super::Abandoned| {
                begun.send(()).unwrap();
                while !abandoned.is_so() {
                    std::thread::yield_now();
                }
                sender.send(()).unwrap();
            };
            let work = match waits {
                false => tokio::spawn(super::abandonable(work)),
                true => tokio::spawn(super::waiting_abandonable(work)),
            };
            super::blocking(move || has_begun.recv().unwrap()).await;
            work.abort();
            super::blocking(move || ended.recv().unwrap()).await;
        }
        assert!(super::abandonable(|abandoned| !abandoned.is_so()).await);
        assert!(super::waiting_abandonable(|abandoned| !abandoned.is_so()).await);
    }

    #[tokio::test]
    #[should_panic(expected = "carried over")]
    async fn a_panic_is_carried_over() {
        super::blocking(|| panic!("carried over")).await;
    }

    #[tokio::test]
    #[should_panic(expected = "carried over")]
    async fn a_panic_of_work_that_waits_is_carried_over() {
        super::waiting(|| panic!("carried over")).await;
    }

    #[test]
    fn work_that_waits_for_other_work_keeps_no_thread_from_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let values = runtime.block_on(async {
            let mut waiting = Vec::new();
            for number in 0..100 {
                let (sender, comes) = mpsc::channel();
                let work = move || comes.recv().map(|value: u32| value + number);
                waiting.push((sender, tokio::spawn(super::waiting(work))));
            }
            // All of them wait, and the one thread of the pool is free.
            let mut values = Vec::new();
            for (sender, waits) in waiting {
                super::blocking(move || sender.send(1).unwrap()).await;
                values.push(waits.await.unwrap().unwrap());
            }
            values
        });
        assert_eq!(values, (1..=100).collect::<Vec<u32>>());
    }
}
