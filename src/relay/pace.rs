//! How fast frames go out to the shards: as fast as their writers try to write them.
//!
//! A large look goes out in slices, and the next slice waits until the last has been tried, so
//! that a bulk commit fills no queue of a client that reads. It never waits for a stream: one that
//! does not try within a moment is left out of the count until it tries again, and so is one that has
//! taken nothing for that long already, or each of many deaf streams would cost that moment anew.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::frame::Frame;
use crate::hub::shard::{Attempt, Command, PATIENCE, ShardHandle, Tried};
use crate::topic::Topic;

/// A slice holds at most this many frames, and bytes unless one frame alone has more.
const SLICE_FRAMES: usize = 256;
const SLICE_BYTES: usize = 128 << 10;

/// Bytes that may be out untried: a quarter of a stream's queue by default.
const OUTSTANDING_BYTES: usize = 128 << 10;

/// Hands frames to the shards.
pub(crate) struct Pace {
    shards: Vec<ShardHandle>,
    outstanding: VecDeque<(usize, Tried)>,
    bytes: usize,
}

/// The shards have gone, which happens only when the gateway ends.
#[derive(Debug)]
pub(crate) struct Gone;

impl Pace {
    pub(crate) fn new(shards: Vec<ShardHandle>) -> Self {
        Self {
            shards,
            outstanding: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Sends frames to every shard, slice by slice.
    pub(crate) async fn frames(&mut self, frames: Vec<(Topic, Frame)>) -> Result<(), Gone> {
        let mut slice = Vec::new();
        let mut bytes = 0;
        for (topic, frame) in frames {
            let full = slice.len() == SLICE_FRAMES || bytes + frame.size() > SLICE_BYTES;
            if full && !slice.is_empty() {
                self.slice(std::mem::take(&mut slice), bytes).await?;
                bytes = 0;
            }
            bytes += frame.size();
            slice.push((topic, frame));
        }
        if slice.is_empty() {
            return Ok(());
        }
        self.slice(slice, bytes).await
    }

    async fn slice(&mut self, slice: Vec<(Topic, Frame)>, bytes: usize) -> Result<(), Gone> {
        while let Some((size, tried)) = self.outstanding.front_mut() {
            let fits = self.bytes + bytes <= OUTSTANDING_BYTES;
            if fits && !tried.is_over() {
                break;
            }
            if !fits {
                tried.over(PATIENCE).await;
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
