//! The queue of one stream, between the shard that fills it and the sink that writes it.
//!
//! The shard appends pointers to shared frames and never waits; the sink takes from the head. It
//! promises: what leaves is in the order of appending, each item once; a stream that has ended
//! says why in its last block, with the position that its client holds; waiting frames are
//! bounded for the stream and charged, each frame once, to the budget of all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use crate::frame::{self, Bye, Frame, Position};
use crate::hub::shard::Attempt;

/// How much of a backlog is joined into one write, in bytes: enough to make the cost of a write
/// small beside its content, little enough not to double a stream's memory.
const JOIN_BYTES: usize = 16 * 1024;

/// The bytes of all frames that wait anywhere, each frame counted once.
#[derive(Debug, Default)]
pub struct Budget(AtomicUsize);

impl Budget {
    /// The bytes that wait now.
    pub fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A frame on its way to streams; charged to the budget until the last stream has sent it.
#[derive(Debug)]
pub(crate) struct Queued {
    frame: Frame,
    /// Its place in the order of all frames, by which the stream furthest behind is found.
    pub(crate) number: u64,
    budget: Arc<Budget>,
}

impl Queued {
    pub(crate) fn new(frame: Frame, number: u64, budget: Arc<Budget>) -> Arc<Self> {
        budget.0.fetch_add(frame.cost(), Ordering::Relaxed);
        Arc::new(Self {
            frame,
            number,
            budget,
        })
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.budget
            .0
            .fetch_sub(self.frame.cost(), Ordering::Relaxed);
    }
}

enum Item {
    Frame(Arc<Queued>),
    /// A block of the gateway's own with the position that it carries.
    Beat(Bytes, Option<Position>),
    Bye(Bye),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The sink is still sending what the cursor had missed; live frames wait.
    Replaying,
    /// The sink sends from the head of the queue.
    Live,
    /// Nothing is appended any more; the queue ends with a bye.
    Ending,
}

struct State {
    phase: Phase,
    queue: VecDeque<Item>,
    /// The bytes of the frames in the queue.
    bytes: usize,
    /// The position that the client holds once it has read what was handed out.
    held: Option<Position>,
    writer: Option<Waker>,
    /// Held until the writer has been polled: whoever waits for the attempt learns by its drop.
    attempt: Option<Attempt>,
    /// The writer was not polled between two slices, so nobody waits for its attempts.
    lagging: bool,
    /// The sink is gone.
    closed: bool,
}

/// What became of an append.
pub(crate) enum Appended {
    /// It waits; if the writer slept, here is how to wake it.
    Waits(Option<Waker>),
    /// The queue would have exceeded its limit; nothing was appended.
    Full,
    /// The stream is replaying and the frame is not for it, is ending, or has gone.
    Refused,
}

struct Shared {
    state: Mutex<State>,
    limit_bytes: usize,
    named: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds an outbox")
    }
}

/// The shard's end of a stream's queue.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

/// The sink's end of a stream's queue; dropping it closes the stream.
pub struct Outlet(Arc<Shared>);

/// Makes the two ends.
pub fn outbox(limit_bytes: usize, named: bool) -> (Outbox, Outlet) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            phase: Phase::Replaying,
            queue: VecDeque::new(),
            bytes: 0,
            held: None,
            writer: None,
            attempt: None,
            lagging: false,
            closed: false,
        }),
        limit_bytes,
        named,
    });
    (Outbox(shared.clone()), Outlet(shared))
}

impl Outbox {
    /// Appends a frame. The attempt is held until the writer has been polled.
    pub(crate) fn append(&self, frame: &Arc<Queued>, attempt: &Attempt) -> Appended {
        let mut state = self.0.lock();
        if state.closed || state.phase == Phase::Ending {
            return Appended::Refused;
        }
        let size = frame.frame.size();
        if !state.queue.is_empty() && state.bytes + size > self.0.limit_bytes {
            return Appended::Full;
        }
        state.bytes += size;
        state.queue.push_back(Item::Frame(frame.clone()));
        if state.phase == Phase::Live && !state.lagging {
            match &state.attempt {
                Some(earlier) if !earlier.same(attempt) => {
                    state.lagging = true;
                    state.attempt = None;
                }
                _ => state.attempt = Some(attempt.clone()),
            }
        }
        Appended::Waits(state.writer.take())
    }

    /// Appends a signal, which a stream gets only while it is live.
    pub(crate) fn append_signal(&self, frame: &Arc<Queued>, attempt: &Attempt) -> Appended {
        if self.0.lock().phase != Phase::Live {
            return Appended::Refused;
        }
        self.append(frame, attempt)
    }

    /// Appends a heartbeat to a live stream whose queue is empty; frames on their way make it
    /// superfluous.
    pub(crate) fn beat(&self, block: &Bytes, position: Option<&Position>) -> Option<Waker> {
        let mut state = self.0.lock();
        if state.phase != Phase::Live || !state.queue.is_empty() {
            return None;
        }
        state
            .queue
            .push_back(Item::Beat(block.clone(), position.cloned()));
        state.writer.take()
    }

    /// Ends the stream once what waits has been sent, or at once when it is too slow for that.
    /// Returns whether it had not been ending already.
    pub(crate) fn end(&self, reason: Bye) -> bool {
        let mut state = self.0.lock();
        if state.phase == Phase::Ending || state.closed {
            return false;
        }
        if reason == Bye::Slow {
            state.queue.clear();
            state.bytes = 0;
        }
        state.phase = Phase::Ending;
        state.queue.push_back(Item::Bye(reason));
        state.attempt = None;
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
        true
    }

    /// Whether the sink is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// The number of the oldest frame that waits, if any.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let state = self.0.lock();
        // A beat may stand before it.
        state.queue.iter().find_map(|item| match item {
            Item::Frame(frame) => Some(frame.number),
            Item::Beat(..) | Item::Bye(_) => None,
        })
    }
}

impl Outlet {
    /// Starts sending what waits: the replay is over and the client holds `position`.
    pub fn go_live(&self, position: Option<Position>) {
        let mut state = self.0.lock();
        state.held = position;
        if state.phase == Phase::Replaying {
            state.phase = Phase::Live;
        }
    }

    /// Whether the stream ends once what waits has been read.
    #[cfg(test)]
    pub(crate) fn is_ending(&self) -> bool {
        self.0.lock().phase == Phase::Ending
    }

    /// The next bytes to write, several waiting blocks in one; `None` after the bye.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.0.lock();
        state.lagging = false;
        state.attempt = None;
        let Some(first) = state.take(self.0.named) else {
            if state.phase == Phase::Ending {
                return Poll::Ready(None);
            }
            // A replaced waker is never lost: the sink is polled by one task.
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if state.queue.is_empty() || first.len() >= JOIN_BYTES {
            return Poll::Ready(Some(first));
        }
        let mut joined = BytesMut::with_capacity(JOIN_BYTES.min(first.len() + state.bytes + 256));
        joined.extend_from_slice(&first);
        while joined.len() < JOIN_BYTES {
            match state.take(self.0.named) {
                Some(block) => joined.extend_from_slice(&block),
                None => break,
            }
        }
        Poll::Ready(Some(joined.freeze()))
    }
}

impl State {
    /// Takes the block at the head and moves the client's position on.
    fn take(&mut self, named: bool) -> Option<Bytes> {
        match self.queue.pop_front()? {
            Item::Frame(queued) => {
                self.bytes -= queued.frame.size();
                if let Some(position) = queued.frame.position() {
                    self.held = Some(position.clone());
                }
                Some(queued.frame.block(named))
            }
            Item::Beat(block, position) => {
                if position.is_some() {
                    self.held = position;
                }
                Some(block)
            }
            Item::Bye(reason) => Some(frame::bye(reason, self.held.as_deref())),
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.queue = VecDeque::new();
        state.bytes = 0;
        state.attempt = None;
        state.writer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_behind_a_beat_is_found_by_who_sheds() {
        let (outbox, mut outlet) = outbox(1 << 20, false);
        outlet.go_live(None);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(outlet.poll_next(&mut cx).is_pending());
        outbox.beat(&Bytes::from_static(b"beat"), None);
        assert_eq!(outbox.oldest(), None);
        let frame = Queued::new(Frame::numbered("1", "{}"), 7, Arc::default());
        let (attempt, _) = Attempt::new();
        outbox.append(&frame, &attempt);
        assert_eq!(outbox.oldest(), Some(7));
    }
}
