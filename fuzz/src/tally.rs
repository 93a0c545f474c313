//! The count of inputs that came through. An engine that only ever meets refusals tests nothing, so
//! whoever runs one looks for this word in what it says.

use std::sync::atomic::{AtomicU64, Ordering};

static THROUGH: AtomicU64 = AtomicU64::new(0);

/// Counts an input, and says how many came through at every power of two.
pub fn count(came_through: bool) {
    if came_through {
        let through = THROUGH.fetch_add(1, Ordering::Relaxed) + 1;
        if through.is_power_of_two() {
            eprintln!("came through: {through}");
        }
    }
}
