//! What a shard keeps of a stream, whichever sink it has.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::attempt::Attempt;
use super::direct::Direct;
use super::outbox::Outbox;
use super::queue::{Beat, Taken};
use super::queued::Queued;
use super::topics::Place;
use crate::frame::Bye;

/// A stream, as its shard knows it.
pub(crate) struct Record {
    pub(crate) sink: Sink,
    pub(crate) places: Box<[Place]>,
    pub(crate) generation: u32,
    pub(crate) next_beat: Instant,
    pub(crate) ends: Option<(Instant, Bye)>,
    /// When its entry in the wheel is due; other entries of it are stale.
    pub(crate) due: Instant,
    pub(crate) label: Arc<str>,
}

/// Who writes what waits for a stream.
pub(crate) enum Sink {
    /// A body of hyper's, which is woken.
    Outbox(Outbox),
    /// The shard.
    Direct(Direct),
}

/// What is to be done so that something is written.
pub(crate) enum Then {
    Nothing,
    Wake(Waker),
    /// The socket takes something.
    Write,
}

impl Sink {
    /// Appends frames, in order, up to the first that does not fit.
    pub(crate) fn append(&mut self, frames: &[Arc<Queued>], attempt: &Attempt) -> (Taken, Then) {
        match self {
            Self::Outbox(outbox) => Then::after(outbox.append(frames, attempt)),
            Self::Direct(direct) => {
                let taken = direct.append(frames, attempt);
                direct.then(taken)
            }
        }
    }

    /// Appends a signal, which a stream gets only while it is live.
    pub(crate) fn append_signal(&mut self, frame: &Arc<Queued>) -> (Taken, Then) {
        match self {
            Self::Outbox(outbox) => Then::after(outbox.append_signal(frame)),
            Self::Direct(direct) => {
                let taken = direct.queue.append_signal(frame);
                direct.then(taken)
            }
        }
    }

    /// Appends a heartbeat to a live stream whose queue is empty.
    pub(crate) fn beat(&mut self, beat: &Arc<Beat>) -> Then {
        match self {
            Self::Outbox(outbox) => outbox.beat(beat).map_or(Then::Nothing, Then::Wake),
            Self::Direct(direct) => {
                let due = direct.queue.beat(beat);
                direct.then(if due { Taken::All } else { Taken::None }).1
            }
        }
    }

    /// Ends the stream with a good-bye; returns whether it had not been ending already.
    pub(crate) fn end(&mut self, reason: Bye) -> bool {
        match self {
            Self::Outbox(outbox) => outbox.end(reason),
            Self::Direct(direct) => direct.queue.end(reason),
        }
    }

    /// Where the oldest frame that is not wholly written stands among all, if there is one.
    pub(crate) fn oldest(&self) -> Option<u64> {
        match self {
            Self::Outbox(outbox) => outbox.oldest(),
            Self::Direct(direct) => direct.queue.oldest(),
        }
    }

    /// Whether there is nobody left who would write.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Outbox(outbox) => outbox.is_closed(),
            // A direct stream is removed when it ends.
            Self::Direct(_) => false,
        }
    }

    /// The direct stream whose good-bye is still being written.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self, Self::Direct(direct) if direct.is_ending())
    }

    /// For how long the socket of a direct stream has taken nothing although something waits.
    pub(crate) fn stalled_for(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Outbox(_) => None,
            Self::Direct(direct) => direct.stalled_for(now),
        }
    }
}

impl Then {
    fn after((taken, writer): (Taken, Option<Waker>)) -> (Taken, Self) {
        (taken, writer.map_or(Self::Nothing, Self::Wake))
    }
}

impl Direct {
    fn then(&self, taken: Taken) -> (Taken, Then) {
        let write = taken == Taken::All && !self.is_blocked();
        (taken, if write { Then::Write } else { Then::Nothing })
    }
}
