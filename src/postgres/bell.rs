//! The doorbell: it says that something may have been committed, and nothing else.
//!
//! Rings that come while nobody listens are remembered as one, and losing one costs no more than
//! the wait for the look that happens every second anyway.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

/// The channel on which publishers ring.
pub(crate) const CHANNEL: &str = "tidings";

/// A bell between those who hear of commits and the one who looks.
#[derive(Debug, Default)]
pub struct Bell {
    notify: Notify,
    /// When the first ring came that no look has answered yet.
    first: Mutex<Option<Instant>>,
    rings: AtomicU64,
    /// The process of the server by which this gateway itself rings for others.
    own: AtomicI32,
}

impl Bell {
    /// Rings.
    pub fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Relaxed);
        let mut first = self.lock();
        first.get_or_insert_with(Instant::now);
        drop(first);
        self.notify.notify_one();
    }

    /// How often it has rung.
    pub fn rings(&self) -> u64 {
        self.rings.load(Ordering::Relaxed)
    }

    /// Rings by this process of the server are this gateway's own from now on, which tell it nothing.
    pub fn set_own(&self, process: i32) {
        self.own.store(process, Ordering::Relaxed);
    }

    /// Whether rings by this process of the server are this gateway's own.
    pub fn is_own(&self, process: i32) -> bool {
        self.own.load(Ordering::Relaxed) == process
    }

    /// Waits for a ring, also one that came before.
    pub async fn rung(&self) {
        self.notify.notified().await;
    }

    /// Takes note of all rings so far, as a look begins; returns when the first of them came.
    pub fn answer(&self) -> Option<Instant> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.first.lock().expect("nothing panics while it is held")
    }
}
