//! The same for many names, side by side.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Requests that wait for their answers, as many as Docker's client has.
const AT_ONCE: usize = 50;

/// One name's work.
enum Slot<F: Future> {
    Running(Pin<Box<F>>),
    Done(F::Output),
}

impl<F: Future> Slot<F> {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Slot::Running(work) = self
            && let Poll::Ready(output) = work.as_mut().poll(cx)
        {
            *self = Slot::Done(output);
        }
    }
}

/// Requests at once where each waits for a while without doing anything: below what a process may open, mostly.
pub(super) const MANY: usize = 500;

/// Does `work` for every name; `done` hears of the outcomes in the order of the names, each as soon as those before it are
/// known.
pub(super) async fn each<'a, F: Future>(
    names: &'a [String],
    work: impl Fn(&'a String) -> F,
    done: impl FnMut(&'a String, F::Output),
) {
    each_of(AT_ONCE, names, work, done).await;
}

/// Likewise, so many at once.
pub(super) async fn each_of<'a, F: Future>(
    at_once: usize,
    names: &'a [String],
    work: impl Fn(&'a String) -> F,
    mut done: impl FnMut(&'a String, F::Output),
) {
    let mut waiting = names.iter();
    let mut slots: VecDeque<(&String, Slot<F>)> = VecDeque::new();
    poll_fn(|cx| {
        loop {
            let free = at_once - slots.len();
            slots.extend(waiting.by_ref().take(free).map(|name| (name, Slot::Running(Box::pin(work(name))))));
            slots.iter_mut().for_each(|(_, slot)| slot.poll(cx));
            let mut freed = false;
            while matches!(slots.front(), Some((_, Slot::Done(_)))) {
                if let Some((name, Slot::Done(output))) = slots.pop_front() {
                    done(name, output);
                    freed = true;
                }
            }
            match () {
                () if slots.is_empty() && waiting.len() == 0 => return Poll::Ready(()),
                // Others have their turn, and must be polled before anybody wakes us for them.
                () if freed && waiting.len() > 0 => {}
                () => return Poll::Pending,
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn many_run_at_once_and_are_told_in_their_order() {
        let names: Vec<String> = (0..120).map(|number: u32| number.to_string()).collect();
        let (running, most) = (Cell::new(0), Cell::new(0));
        let (running, most) = (&running, &most);
        let mut told = Vec::new();
        let work = |name: &String| {
            // The first ones end last.
            let turns = 130 - name.parse::<u32>().unwrap();
            async move {
                running.set(running.get() + 1);
                most.set(most.get().max(running.get()));
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                running.set(running.get() - 1);
            }
        };
        each(&names, work, |name, ()| told.push(name.clone())).await;
        assert_eq!((told, most.get()), (names, AT_ONCE));
        each(&[], |_| async {}, |_, ()| panic!("there is none")).await;
    }
}
