//! Waking the writers of streams that hyper writes: a few at a time, those of narrow frames before those of wide
//! ones, so that an event for one stream does not wait until one for all has been written.
//!
//! Shards name the writers; this wakes them on the runtime that they run on, and lets them write before it
//! wakes more.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::task::Waker;

use tokio::sync::Notify;

/// How many writers of each kind are woken before others have their turn.
const NARROW: usize = 256;
const WIDE: usize = 64;

/// Writers that are to be woken; at most one for each stream.
#[derive(Debug, Default)]
pub struct Wakes {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    narrow: VecDeque<Waker>,
    wide: VecDeque<Waker>,
}

impl Wakes {
    /// Adds writers of a frame for few streams, or for many.
    pub(crate) fn add(&self, narrow: bool, writers: Vec<Waker>) {
        if writers.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        let list = if narrow {
            &mut waiting.narrow
        } else {
            &mut waiting.wide
        };
        list.extend(writers);
        drop(waiting);
        self.news.notify_one();
    }

    /// Wakes them, for ever.
    pub async fn run(&self) {
        loop {
            if self.wake_some() {
                // Those who were woken write now, before more are woken.
                tokio::task::yield_now().await;
            } else {
                self.news.notified().await;
            }
        }
    }

    /// Wakes the next few; returns whether there were any.
    fn wake_some(&self) -> bool {
        let mut waiting = self.lock();
        let narrow = waiting.narrow.len().min(NARROW);
        let wide = waiting.wide.len().min(WIDE);
        let mut next: Vec<Waker> = waiting.narrow.drain(..narrow).collect();
        next.extend(waiting.wide.drain(..wide));
        drop(waiting);
        let some = !next.is_empty();
        next.into_iter().for_each(Waker::wake);
        some
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        let waiting = self.waiting.lock();
        waiting.expect("no code panics while it holds the lists")
    }
}
