//! Attempts: how whoever hands slices out learns that their writers have tried to write them.
//!
//! A writer that sleeps when a slice comes needs nothing but its time on the processor, and is waited for
//! as long as others get theirs. One that is still writing what came before needs its client to read,
//! and how long that is worth waiting for is up to who waits.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How long a slice is waited for while no writer that slept tries to write it. Whoever has taken nothing
/// for so long when a slice is made is not waited for at all.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);

/// Held by all who still have to try to write a slice.
#[derive(Clone, Debug)]
pub struct Attempt {
    woken: Hold,
    writing: Hold,
    made: Instant,
}

/// What one writer holds of an attempt; dropped when it has tried.
#[derive(Clone, Debug)]
pub(crate) struct Hold(Arc<oneshot::Sender<()>>);

impl Hold {
    fn new() -> (Self, Held) {
        let (sender, over) = oneshot::channel();
        let hold = Self(Arc::new(sender));
        let by = Arc::downgrade(&hold.0);
        (hold, Held { over, by })
    }
}

/// The other end of a hold.
#[derive(Debug)]
struct Held {
    /// Its end is an error by design: the last holder has let go.
    over: oneshot::Receiver<()>,
    by: Weak<oneshot::Sender<()>>,
}

impl Held {
    fn is_over(&mut self) -> bool {
        self.over.try_recv() != Err(oneshot::error::TryRecvError::Empty)
    }

    /// Waits until nobody holds it, or until nobody has let go for as long as `patience`; returns whether
    /// nobody does.
    async fn over(&mut self, patience: Duration) -> bool {
        let mut left = self.by.strong_count();
        while tokio::time::timeout(patience, &mut self.over)
            .await
            .is_err()
        {
            let now = self.by.strong_count();
            // More than before means that it is still being handed out.
            if now == left {
                return false;
            }
            left = now;
        }
        true
    }
}

/// The other end of an attempt.
#[derive(Debug)]
pub struct Tried {
    woken: Held,
    writing: Held,
}

impl Tried {
    /// Whether everyone has tried.
    pub(crate) fn is_over(&mut self) -> bool {
        self.woken.is_over() && self.writing.is_over()
    }

    /// Waits until everyone who slept has tried, and then until everyone who was writing has, or until none
    /// of those has for as long as `patience`; returns whether clients let it wait in vain.
    pub(crate) async fn over(&mut self, patience: Duration) -> bool {
        let woken = self.woken.is_over() || self.woken.over(PATIENCE).await;
        woken && !self.writing.is_over() && !self.writing.over(patience).await
    }
}

impl Attempt {
    /// A new attempt and the way to await its end.
    pub fn new() -> (Self, Tried) {
        Self::made_at(Instant::now())
    }

    pub(crate) fn made_at(made: Instant) -> (Self, Tried) {
        let ((woken, by_woken), (writing, by_writing)) = (Hold::new(), Hold::new());
        let attempt = Self {
            woken,
            writing,
            made,
        };
        let tried = Tried {
            woken: by_woken,
            writing: by_writing,
        };
        (attempt, tried)
    }

    /// What a writer holds until it tries; none if it took its last bytes long ago, and has not come back.
    pub(crate) fn hold(&self, handed: Option<Instant>) -> Option<Hold> {
        match handed {
            None => Some(self.woken.clone()),
            Some(at) if self.made.saturating_duration_since(at) > PATIENCE => None,
            Some(_) => Some(self.writing.clone()),
        }
    }
}
