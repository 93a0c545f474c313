//! Streams of HTTP/2 whose peer takes nothing.
//!
//! On a connection of its own, a peer that stops reading is noticed by a write that makes no
//! progress. A stream of HTTP/2 shares its connection with others, which may be well: here it is noticed
//! that a block was handed out, and that the peer has since granted no room for the next. hyper does not
//! poll the body of such a response again, so that its whole task is dropped, which resets this
//! stream and no other.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

tokio::task_local! {
    /// That of the response which the current task writes.
    static CURRENT: Arc<Progress>;
}

/// How the writing of one response goes.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// When the last block was handed out; `None` once the peer has had room for more.
    handed_out: Mutex<Option<Instant>>,
    handing_out: Notify,
}

impl Progress {
    /// That of the current task, where there is one that watches.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Notes that a block was handed out.
    pub(crate) fn handed_out(&self) {
        if self.lock().replace(Instant::now()).is_none() {
            self.handing_out.notify_one();
        }
    }

    /// Notes that there is room for more than there is to write.
    pub(crate) fn waits(&self) {
        *self.lock() = None;
    }

    /// Resolves once nothing has been taken for so long.
    async fn stalled(&self, timeout: Duration) {
        loop {
            let handed_out = *self.lock();
            match handed_out {
                None => self.handing_out.notified().await,
                Some(at) if at.elapsed() >= timeout => return,
                Some(at) => tokio::time::sleep_until(at + timeout).await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        let guard = self.handed_out.lock();
        guard.expect("nothing panics while it is held")
    }
}

/// Runs the task of a response to its end, or until its peer has taken nothing for so long.
pub(crate) async fn watch(task: impl Future, timeout: Duration) {
    let progress = Arc::new(Progress::default());
    tokio::select! {
        _ = CURRENT.scope(progress.clone(), task) => {}
        () = progress.stalled(timeout) => tracing::debug!("a stream took nothing in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn only_a_block_that_nobody_takes_ends_the_task() {
        let begun = Instant::now();
        let task = async {
            let progress = Progress::current().expect("a watched task");
            // Waiting for something to write may take for ever.
            tokio::time::sleep(TIMEOUT * 10).await;
            for _ in 0..10 {
                progress.handed_out();
                tokio::time::sleep(TIMEOUT / 2).await;
            }
            progress.waits();
            tokio::time::sleep(TIMEOUT * 10).await;
            progress.handed_out();
            std::future::pending::<()>().await;
        };
        watch(task, TIMEOUT).await;
        assert_eq!(begun.elapsed(), TIMEOUT * 26);
        assert!(Progress::current().is_none());
        watch(async {}, TIMEOUT).await;
    }
}
