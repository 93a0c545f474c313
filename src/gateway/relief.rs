//! Shedding before dying: what a gateway does when its memory is nearly used up.
//!
//! Queues, window and streams have their bounds, and yet there may be less than they were promised:
//! another process in the container, a bound that was set too small, an allocator that keeps what it was
//! given back. The kernel's answer is to kill the process, and everybody with it. Here it is to take nobody
//! in and to forget the window first, whose readers then come to the database; and then to end those furthest
//! behind, in steps, whose cursors resume what was cut off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::hub::Command;
use crate::hub::{Budget, Directory, ShardHandle, Window};
use crate::memory::Memory;
use crate::metrics::Metrics;

/// How often memory is looked at: more often than it can be filled by what the bounds let through.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What can come in meanwhile, in bytes: with more room than that it is looked at less often, up to a tenth as
/// often, since each look costs tens of microseconds.
const LOOK_BYTES: usize = 16 << 20;
const LOOKS_APART: usize = 10;

/// How often a step is taken: what is let go of is free for others only after the allocator's while.
const SHED_EVERY: Duration = Duration::from_millis(50);

/// From which part of memory on nobody is taken in, in hundredths, and below which again.
const CLOSE_ABOVE: usize = 60;
const OPEN_BELOW: usize = 55;

/// From which part of memory on streams are ended, in hundredths.
const SHED_ABOVE: usize = 70;

/// What waits for streams that read is less than this part of the bound, and is left to them: memory that others
/// have taken is not to be had from it.
const NEXT_TO_NOTHING: usize = 64;

/// How long a client must have taken nothing to be one that does not read.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is told that streams were shed, at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What can be done.
pub(super) struct Relief {
    pub(super) memory: Memory,
    pub(super) directory: Arc<Directory>,
    pub(super) window: Arc<Window>,
    pub(super) shards: Vec<ShardHandle>,
    pub(super) budget: Arc<Budget>,
    pub(super) metrics: Arc<Metrics>,
}

impl Relief {
    /// Watches over memory until cancelled.
    pub(super) async fn run(self, cancel: CancellationToken) {
        let bound = self.memory.bytes();
        self.metrics.memory_bound_bytes.set(bound as i64);
        let mut told = Instant::now() - TELL_EVERY;
        let mut shed = Instant::now() - SHED_EVERY;
        let mut looks = 1;
        let pause = |looks| cancel.run_until_cancelled(tokio::time::sleep(LOOK_EVERY * looks));
        while pause(looks).await.is_some() {
            // What cannot be read now can be read the next time.
            let Some(taken) = self.memory.taken() else {
                continue;
            };
            self.metrics.memory_bytes.set(taken as i64);
            let hundredths = taken / (bound / 100).max(1);
            let room = (bound / 100 * CLOSE_ABOVE).saturating_sub(taken);
            looks = (room / LOOK_BYTES).clamp(1, LOOKS_APART) as u32;
            self.door(hundredths);
            if hundredths >= SHED_ABOVE && shed.elapsed() >= SHED_EVERY {
                shed = Instant::now();
                self.shed().await;
                self.metrics.sheds.inc();
                if told.elapsed() >= TELL_EVERY {
                    tracing::warn!(
                        taken,
                        bound,
                        "memory is nearly used up: streams furthest behind end"
                    );
                    told = Instant::now();
                }
            }
        }
    }

    /// Closes the door to newcomers, or opens it.
    fn door(&self, hundredths: usize) {
        let closed = self.directory.is_closed();
        if hundredths >= CLOSE_ABOVE {
            if !closed {
                self.directory.close(true);
                tracing::warn!("memory is short: nobody is taken in, and the window is forgotten");
            }
            self.window.forget();
            self.metrics.window_bytes.set(0);
        } else if closed && hundredths < OPEN_BELOW {
            self.directory.close(false);
            tracing::info!("there is memory again");
        }
    }

    /// One step: half of what waits, unless that is next to nothing, and half of those who do not read.
    async fn shed(&self) {
        let most = (self.budget.used() / 2).max(self.memory.bytes() / NEXT_TO_NOTHING);
        for shard in &self.shards {
            // It has gone only when the gateway ends.
            let _ = shard.send(Command::Shed(most, PATIENCE)).await;
        }
        let cut = self.directory.cut_longest(PATIENCE);
        self.metrics.streams_cut.inc_by(cut as u64);
    }
}
