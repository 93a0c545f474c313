//! A timing wheel: when which stream is due, in ticks, for a great many streams at little cost.
//!
//! Each stream has an entry for its next beat, its end or the deadline of a write, whichever is earliest; older ones that
//! are no longer true come out too, and whoever entered them tells. An entry never
//! comes out early, and at most a tick late; those further away than one turn of the wheel stay
//! for another.

use std::time::{Duration, Instant};

/// The length of a tick: beats and expiries need no finer time.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Slots of one turn: 51 s, more than two beats.
const SLOTS: usize = 512;

#[derive(Clone, Copy, Debug)]
struct Entry {
    due: u64,
    stream: u32,
    generation: u32,
}

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    start: Instant,
    /// The tick that is handed out next.
    now: u64,
    slots: Vec<Vec<Entry>>,
}

impl Wheel {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            now: 0,
            slots: vec![Vec::new(); SLOTS],
        }
    }

    /// Enters a stream; `generation` tells its later tenant of the same number from it.
    pub(crate) fn enter(&mut self, at: Instant, stream: u32, generation: u32) {
        let due = (self.ticks(at).ceil() as u64).max(self.now);
        self.slots[due as usize % SLOTS].push(Entry {
            due,
            stream,
            generation,
        });
    }

    /// Moves on to `now` and returns who has come due: stream and generation.
    pub(crate) fn advance(&mut self, now: Instant) -> Vec<(u32, u32)> {
        let mut due = Vec::new();
        let end = self.ticks(now) as u64;
        while self.now <= end {
            let now = self.now;
            self.slots[now as usize % SLOTS].retain(|entry| {
                let stays = entry.due > now;
                if !stays {
                    due.push((entry.stream, entry.generation));
                }
                stays
            });
            self.now += 1;
        }
        due
    }

    fn ticks(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start)
            .div_duration_f64(TICK)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everyone_comes_due_once_and_not_early(
            dues in proptest::collection::vec(0u64..200_000, 1..50),
            step in 1u64..5_000,
        ) {
            let start = Instant::now();
            let mut wheel = Wheel::new(start);
            for (n, due) in dues.iter().enumerate() {
                wheel.enter(start + Duration::from_millis(*due), n as u32, 1);
            }
            let mut out = vec![0; dues.len()];
            let mut now = 0;
            while now < 210_000 {
                now += step;
                for (stream, _) in wheel.advance(start + Duration::from_millis(now)) {
                    let due = dues[stream as usize];
                    prop_assert!(due <= now, "early");
                    prop_assert!(now - due < step + 100, "late");
                    out[stream as usize] += 1;
                }
            }
            prop_assert!(out.iter().all(|&times| times == 1));
        }
    }
}
