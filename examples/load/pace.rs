//! The pace of open loops: a thread that says when what is due.
//!
//! The timers of the runtime are a millisecond coarse, which would be much of what is measured. A sleeping thread
//! wakes within a tenth of that.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::Result;
use crate::clock::Clock;

/// Time for the lanes to be ready.
const BEFORE: Duration = Duration::from_millis(2);

/// A batch that is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shot {
    /// When it was to be published.
    pub(crate) t_us: u64,
    pub(crate) events: u64,
}

/// So many events, in batches, at a rate per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) events: u64,
    pub(crate) batch: u64,
    pub(crate) rate: f64,
}

impl Pace {
    /// Starts the thread, which gives the lanes their shots in turn. However late a lane is, its shots wait
    /// for it with the times that they were to have.
    pub(crate) fn start(
        self,
        clock: Clock,
        lanes: Vec<UnboundedSender<Shot>>,
    ) -> Result<JoinHandle<()>> {
        let start_us = clock.now_us() + BEFORE.as_micros() as u64;
        let thread = thread::Builder::new().name("pace".into());
        Ok(thread.spawn(move || self.keep(clock, start_us, &lanes))?)
    }

    fn keep(self, clock: Clock, start_us: u64, lanes: &[UnboundedSender<Shot>]) {
        for (shot, lane) in (0..self.events.div_ceil(self.batch)).zip(lanes.iter().cycle()) {
            let before = shot * self.batch;
            let t_us = start_us + (before as f64 / self.rate * 1e6) as u64;
            thread::sleep(Duration::from_micros(t_us.saturating_sub(clock.now_us())));
            let events = self.batch.min(self.events - before);
            // The lane has failed, and says so itself.
            if lane.send(Shot { t_us, events }).is_err() {
                return;
            }
        }
    }
}
