//! The doorbell: it says that something may have been committed, and nothing else.
//!
//! Rings that come while nobody listens are remembered as one, and losing one costs no more than
//! the wait for the look that happens every second anyway.

use std::sync::Mutex;
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
}

impl Bell {
    /// Rings.
    pub fn ring(&self) {
        let mut first = self.lock();
        first.get_or_insert_with(Instant::now);
        drop(first);
        self.notify.notify_one();
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
