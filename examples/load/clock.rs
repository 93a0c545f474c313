//! The clock of a run: microseconds that never go back, of which no two runs have the same.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic, and begun at the time of day, so that an event of another run is known by its age.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    start_us: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_1970 = since_1970.unwrap_or(Duration::ZERO).as_micros();
        Self {
            start: Instant::now(),
            start_us: u64::try_from(since_1970).unwrap_or(0),
        }
    }

    pub(crate) fn start_us(&self) -> u64 {
        self.start_us
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.start_us + self.start.elapsed().as_micros() as u64
    }
}
