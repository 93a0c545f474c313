//! Frames on their way, charged to a budget until the last stream has sent them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::frame::Frame;

/// The bytes of all frames that wait anywhere, each frame counted once.
#[derive(Debug, Default)]
pub struct Budget {
    bytes: AtomicUsize,
    frames: AtomicU64,
}

impl Budget {
    /// The bytes that wait now.
    pub fn used(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A frame on its way to streams, which all share it.
#[derive(Debug)]
pub struct Queued {
    pub(crate) frame: Frame,
    /// Its place in the order of all frames, by which the stream furthest behind is found.
    pub(crate) number: u64,
    pub(crate) made: Instant,
    budget: Arc<Budget>,
}

impl Queued {
    /// Charges a frame to the budget until the last owner of what is returned has dropped it.
    pub fn new(frame: Frame, made: Instant, budget: &Arc<Budget>) -> Arc<Self> {
        budget.bytes.fetch_add(frame.cost(), Ordering::Relaxed);
        Arc::new(Self {
            frame,
            number: budget.frames.fetch_add(1, Ordering::Relaxed),
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
