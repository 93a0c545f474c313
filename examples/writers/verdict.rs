//! The verdict: what was committed, held against what has arrived.

use std::collections::HashMap;

use crate::arrivals::Arrival;
use crate::{Result, failure};

/// A row of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) id: u64,
    pub(crate) topic: u64,
}

/// What went wrong, in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Committed, and never arrived.
    pub(crate) lost: usize,
    /// Arrived again.
    pub(crate) doubled: usize,
    /// Arrived behind a later one of their topic. Each topic has one writer, which waits for its commits, so that
    /// ids grow with them.
    pub(crate) reordered: usize,
    /// Arrived at a stream that had not asked for them, under another topic, or though nobody committed them.
    pub(crate) foreign: usize,
}

impl Verdict {
    /// Of what has arrived at so many streams, which share the topics.
    pub(crate) fn of(committed: &[Committed], arrived: &[Arrival], streams: usize) -> Self {
        let mut verdict = Self::default();
        let mut waited: HashMap<u64, (u64, bool)> = committed
            .iter()
            .map(|row| (row.id, (row.topic, false)))
            .collect();
        let mut newest: HashMap<u64, u64> = HashMap::new();
        for Arrival {
            stream, payload, ..
        } in arrived
        {
            let is_own = payload.topic % streams as u64 == *stream as u64;
            let Some((_, has_arrived)) = waited
                .get_mut(&payload.id)
                .filter(|(topic, _)| is_own && *topic == payload.topic)
            else {
                verdict.foreign += 1;
                continue;
            };
            if std::mem::replace(has_arrived, true) {
                verdict.doubled += 1;
                continue;
            }
            let newest = newest.entry(payload.topic).or_default();
            if payload.id < *newest {
                verdict.reordered += 1;
            }
            *newest = payload.id.max(*newest);
        }
        let lost = waited.values().filter(|(_, has_arrived)| !has_arrived);
        verdict.lost = lost.count();
        verdict
    }

    /// Anything that went wrong is a failure.
    pub(crate) fn check(self) -> Result<()> {
        if self == Self::default() {
            return Ok(());
        }
        let Self {
            lost,
            doubled,
            reordered,
            foreign,
        } = self;
        Err(failure(format!(
            "{lost} events lost, {doubled} doubled, {reordered} out of order, {foreign} foreign"
        )))
    }
}
