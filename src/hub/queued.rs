//! Frames on their way, charged to a budget until the last stream has sent them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::frame::Frame;

/// The bytes of all frames that wait anywhere, each frame counted once.
#[derive(Debug, Default)]
pub struct Budget {
    bytes: AtomicUsize,
    /// The bytes of all frames that there ever were.
    issued: AtomicU64,
}

impl Budget {
    /// The bytes that wait now.
    pub fn used(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether a stream whose oldest frame was issued there is one of those for whose sake more than `most` bytes wait.
    /// If the frames of all streams that are not took up more, one of them would have to be older.
    pub(crate) fn is_behind(&self, issued: u64, most: usize) -> bool {
        issued.saturating_add(most as u64) < self.issued.load(Ordering::Relaxed)
    }
}

/// A frame on its way to streams, which all share it.
#[derive(Debug)]
pub struct Queued {
    pub(crate) frame: Frame,
    /// The bytes of all frames before it, by which the stream furthest behind is found.
    pub(crate) issued: u64,
    pub(crate) made: Instant,
    budget: Arc<Budget>,
}

impl Queued {
    /// Charges a frame to the budget until the last owner of what is returned has dropped it.
    pub fn new(frame: Frame, made: Instant, budget: &Arc<Budget>) -> Arc<Self> {
        let cost = frame.cost();
        budget.bytes.fetch_add(cost, Ordering::Relaxed);
        Arc::new(Self {
            frame,
            issued: budget.issued.fetch_add(cost as u64, Ordering::Relaxed),
            made,
            budget: budget.clone(),
        })
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let cost = self.frame.cost();
        self.budget.bytes.fetch_sub(cost, Ordering::Relaxed);
    }
}
