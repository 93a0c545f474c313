//! How fast frames go out to the shards: as fast as their writers try to write them.
//!
//! A large look goes out in slices, and the next slice waits until the last has been tried, so
//! that a bulk commit fills no queue of a client that reads. It waits for no stream for long: one that
//! does not try within a moment is left out of the count until it tries again. Such moments, in which
//! everybody waits for a client that takes nothing, are bounded together: a thousand deaf streams must not
//! cost a thousand of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::frame::Frame;
use crate::hub::Command;
use crate::hub::attempt::{Attempt, Tried};
use crate::hub::{Budget, Queued, ShardHandle};
use crate::topic::Topic;

/// A slice holds at most this many frames.
const SLICE_FRAMES: usize = 256;
/// And bytes, unless one frame alone has more; no more than as many may be out untried.
const SLICE_BYTES: usize = 128 << 10;

/// The most time for clients that are being written to, of which none takes anything.
const MOST: Duration = Duration::from_millis(20);
/// The least time for a client that is being written to: room for those that read, while others do not.
const LEAST: Duration = Duration::from_millis(1);
/// Of what has been waited in vain, this part of the time since comes back: too little to be seen among the
/// slowest hundredth of all deliveries.
const REGAINED: u32 = 200;

/// What may be waited for clients that are being written to, and may not be reading.
#[derive(Debug)]
struct Credit {
    left: Duration,
    at: Instant,
}

impl Credit {
    fn new(now: Instant) -> Self {
        Self {
            left: MOST,
            at: now,
        }
    }

    /// How long to wait now.
    fn patience(&mut self, now: Instant) -> Duration {
        let regained = now.saturating_duration_since(self.at) / REGAINED;
        self.at = now;
        self.left = (self.left + regained).min(MOST);
        self.left.max(LEAST)
    }

    /// So long was waited in vain.
    fn spend(&mut self, patience: Duration) {
        self.left = self.left.saturating_sub(patience);
    }
}

/// Hands frames to the shards.
pub struct Pace {
    shards: Vec<ShardHandle>,
    budget: Arc<Budget>,
    slice_bytes: usize,
    credit: Credit,
    outstanding: VecDeque<(usize, Tried)>,
    bytes: usize,
}

/// The shards have gone, which happens only when the gateway ends.
#[derive(Debug)]
pub(crate) struct Gone;

impl Pace {
    /// What waits is charged to the budget. `queue_bytes` may wait for a stream; slices are a quarter of that at
    /// most, or no reader could take the second.
    pub fn new(shards: Vec<ShardHandle>, budget: Arc<Budget>, queue_bytes: usize) -> Self {
        Self {
            shards,
            budget,
            slice_bytes: SLICE_BYTES.min(queue_bytes / 4),
            credit: Credit::new(Instant::now()),
            outstanding: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Sends frames to every shard, slice by slice.
    pub(crate) async fn frames(&mut self, frames: Vec<(Topic, Frame)>) -> Result<(), Gone> {
        let made = Instant::now();
        let mut slice = Vec::new();
        let mut bytes = 0;
        for (topic, frame) in frames {
            let full = slice.len() == SLICE_FRAMES || bytes + frame.size() > self.slice_bytes;
            if full && !slice.is_empty() {
                self.slice(std::mem::take(&mut slice), bytes).await?;
                bytes = 0;
            }
            bytes += frame.size();
            slice.push((topic, Queued::new(frame, made, &self.budget)));
        }
        if slice.is_empty() {
            return Ok(());
        }
        self.slice(slice, bytes).await
    }

    async fn slice(&mut self, slice: Vec<(Topic, Arc<Queued>)>, bytes: usize) -> Result<(), Gone> {
        while let Some((size, tried)) = self.outstanding.front_mut() {
            let fits = self.bytes + bytes <= self.slice_bytes;
            if fits && !tried.is_over() {
                break;
            }
            if !fits {
                let patience = self.credit.patience(Instant::now());
                if tried.over(patience).await {
                    self.credit.spend(patience);
                }
            }
            self.bytes -= *size;
            self.outstanding.pop_front();
        }
        let slice: Arc<[_]> = slice.into();
        let (attempt, tried) = Attempt::new();
        for shard in &self.shards {
            let command = Command::Frames(slice.clone(), attempt.clone());
            shard.send(command).await.map_err(|_| Gone)?;
        }
        self.outstanding.push_back((bytes, tried));
        self.bytes += bytes;
        Ok(())
    }

    /// Sends every shard a command of its own.
    pub(crate) async fn all(&self, command: impl Fn() -> Command) -> Result<(), Gone> {
        for shard in &self.shards {
            shard.send(command()).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// The shard of the n-th stream.
    pub(crate) fn shard(&self, number: usize) -> &ShardHandle {
        &self.shards[number % self.shards.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_in_vain_is_bounded_and_comes_back_slowly() {
        let start = Instant::now();
        let mut credit = Credit::new(start);
        assert_eq!(credit.patience(start), MOST);
        credit.spend(MOST);
        assert_eq!(credit.patience(start), LEAST);
        credit.spend(LEAST);
        let later = start + Duration::from_secs(2);
        assert_eq!(credit.patience(later), Duration::from_millis(10));
        // What was not waited in vain costs nothing, and credit does not add up.
        let much_later = later + Duration::from_secs(3600);
        assert_eq!(credit.patience(much_later), MOST);
        credit.spend(Duration::from_millis(5));
        assert_eq!(credit.patience(much_later), Duration::from_millis(15));
    }
}
