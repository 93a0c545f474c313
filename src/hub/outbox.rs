//! The queue of one stream, between the shard that fills it and the sink that writes it.
//!
//! The shard appends pointers to shared frames and never waits; the sink takes from the head, a
//! little at a time. It promises: what leaves is in the order of appending, each item once; a stream
//! that has ended says why in its last block, with the position that its client holds; frames are
//! bounded for the stream and charged, each frame once, to the budget of all, until the last of their
//! bytes is handed out. What the sink holds beside that is never more than `WRITE_BYTES`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::frame::{self, Bye, Frame, Position};
use crate::hub::attempt::{Attempt, Hold};

/// The most that is handed out for one write, in bytes: enough to make the cost of a write small
/// beside its content, little enough to count for nothing beside a stream's own memory. A backlog
/// of small frames is joined up to it, and a large frame is handed out in copies of it: a slice of the
/// frame itself would keep all of it for as long as a client takes nothing.
const WRITE_BYTES: usize = 16 * 1024;

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

/// What waits; small, since a stalled stream has thousands of them.
enum Item {
    Frame(Arc<Queued>),
    Beat(Box<Beat>),
    Bye(Bye),
}

/// A block of the gateway's own with the position that it carries.
struct Beat {
    block: Bytes,
    position: Option<Position>,
}

/// What a good-bye takes at most without its position, in bytes.
const BYE_BYTES: usize = 256;

impl Item {
    /// The bytes that it takes on the wire, at most.
    fn size(&self) -> usize {
        match self {
            Self::Frame(queued) => queued.frame.size(),
            Self::Beat(beat) => beat.block.len(),
            Self::Bye(_) => BYE_BYTES,
        }
    }
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
    /// How much of the frame at the head has been handed out; 0 between two blocks.
    sent: usize,
    /// The bytes of the frames in the queue, but for one of which a part has been handed out.
    bytes: usize,
    /// The position that the client holds once it has read what was handed out.
    held: Option<Position>,
    writer: Option<Waker>,
    /// Held until the writer has been polled: whoever waits for the attempt learns by its drop.
    attempt: Option<Hold>,
    /// When the writer took its last bytes, if it has not come back for more: it is writing them, or its
    /// client takes nothing.
    handed: Option<Instant>,
    /// The sink is gone.
    closed: bool,
}

/// What became of an append.
pub(crate) enum Appended {
    /// It waits; if the writer slept, here is how to wake it.
    Waits(Option<Waker>),
    /// The queue would have exceeded its limit; what did not fit was not appended.
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
            sent: 0,
            bytes: 0,
            held: None,
            writer: None,
            attempt: None,
            handed: None,
            closed: false,
        }),
        limit_bytes,
        named,
    });
    (Outbox(shared.clone()), Outlet(shared))
}

impl Outbox {
    /// Appends frames, in order, up to the first that does not fit. The attempt is held until the writer has
    /// been polled.
    pub(crate) fn append(&self, frames: &[Arc<Queued>], attempt: &Attempt) -> Appended {
        self.append_to(self.0.lock(), frames, Some(attempt))
    }

    /// Appends a signal, which a stream gets only while it is live.
    pub(crate) fn append_signal(&self, frame: &Arc<Queued>) -> Appended {
        let state = self.0.lock();
        if state.phase != Phase::Live {
            return Appended::Refused;
        }
        self.append_to(state, std::slice::from_ref(frame), None)
    }

    fn append_to(
        &self,
        mut state: MutexGuard<'_, State>,
        frames: &[Arc<Queued>],
        attempt: Option<&Attempt>,
    ) -> Appended {
        if state.closed || state.phase == Phase::Ending {
            return Appended::Refused;
        }
        for frame in frames {
            let size = frame.frame.size();
            if state.waiting() > 0 && state.bytes + size > self.0.limit_bytes {
                return Appended::Full;
            }
            state.bytes += size;
            state.queue.push_back(Item::Frame(frame.clone()));
        }
        // One that it has not tried yet stands for the later ones too.
        if state.phase == Phase::Live && state.attempt.is_none() {
            state.attempt = attempt.and_then(|attempt| attempt.hold(state.handed));
        }
        Appended::Waits(state.writer.take())
    }

    /// Appends a heartbeat to a live stream whose queue is empty; frames on their way make it
    /// superfluous.
    pub(crate) fn beat(&self, block: &Bytes, position: Option<&Position>) -> Option<Waker> {
        let mut state = self.0.lock();
        if state.phase != Phase::Live || !state.queue.is_empty() {
            return None;
        }
        state.queue.push_back(Item::Beat(Box::new(Beat {
            block: block.clone(),
            position: position.cloned(),
        })));
        state.writer.take()
    }

    /// Ends the stream once what waits has been sent, or after the event that is being sent when it is
    /// too slow for that. Returns whether it had not been ending already.
    pub(crate) fn end(&self, reason: Bye) -> bool {
        let mut state = self.0.lock();
        if state.phase == Phase::Ending || state.closed {
            return false;
        }
        if reason == Bye::Slow {
            let begun = usize::from(state.sent > 0);
            state.queue.truncate(begun);
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

    /// Ends the stream within the event that is being sent, if one is, to be rid of it. No good-bye can
    /// follow that; the client forgets half an event, and its cursor brings the whole one. Of a stream that is
    /// ending between two events, only the good-bye is left.
    pub(crate) fn break_off(&self) {
        let mut state = self.0.lock();
        if state.sent > 0 {
            state.phase = Phase::Ending;
            state.clear();
        } else if state.phase == Phase::Ending {
            state.queue.retain(|item| matches!(item, Item::Bye(_)));
            state.bytes = 0;
        }
    }

    /// Whether the sink is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// The number of the oldest frame that is not wholly handed out, if any.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let state = self.0.lock();
        // A beat may stand before it.
        state.queue.iter().find_map(|item| match item {
            Item::Frame(frame) => Some(frame.number),
            Item::Beat(_) | Item::Bye(_) => None,
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
            // The end of the replay is on its way.
            state.handed = Some(Instant::now());
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
        state.attempt = None;
        if let Some(bytes) = state.next_write(self.0.named) {
            state.handed = Some(Instant::now());
            return Poll::Ready(Some(bytes));
        }
        if state.phase == Phase::Ending {
            return Poll::Ready(None);
        }
        state.handed = None;
        // A replaced waker is never lost: the sink is polled by one task.
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl State {
    /// How many items wait behind what is being sent.
    fn waiting(&self) -> usize {
        self.queue.len() - usize::from(self.sent > 0)
    }

    /// What is written next: a part of a large frame, or as many whole blocks as go into one write.
    fn next_write(&mut self, named: bool) -> Option<Bytes> {
        let size = self.queue.front()?.size();
        if size > WRITE_BYTES {
            return Some(self.take_part(named));
        }
        let first = self.take(named)?;
        let fits = |state: &Self, room: usize| {
            let next = state.queue.front();
            next.is_some_and(|item| item.size() <= room)
        };
        if !fits(self, WRITE_BYTES - size) {
            return Some(first);
        }
        let mut joined = BytesMut::with_capacity(WRITE_BYTES.min(size + self.bytes + BYE_BYTES));
        joined.extend_from_slice(&first);
        while fits(self, WRITE_BYTES.saturating_sub(joined.len())) {
            let block = self.take(named).expect("it was just seen");
            joined.extend_from_slice(&block);
        }
        Some(joined.freeze())
    }

    /// A copy of the next part of the frame at the head, which stays there until its last.
    fn take_part(&mut self, named: bool) -> Bytes {
        let Some(Item::Frame(queued)) = self.queue.front() else {
            unreachable!("only frames are large");
        };
        let block = queued.frame.block(named);
        if self.sent == 0 {
            self.bytes -= queued.frame.size();
        }
        let rest = &block[self.sent..];
        let part = Bytes::copy_from_slice(&rest[..rest.len().min(WRITE_BYTES)]);
        self.sent += part.len();
        if self.sent == block.len() {
            self.hold(queued.frame.position().cloned());
            self.queue.pop_front();
            self.sent = 0;
        }
        part
    }

    /// Takes the block at the head and moves the client's position on.
    fn take(&mut self, named: bool) -> Option<Bytes> {
        match self.queue.pop_front()? {
            Item::Frame(queued) => {
                self.bytes -= queued.frame.size();
                self.hold(queued.frame.position().cloned());
                Some(queued.frame.block(named))
            }
            Item::Beat(beat) => {
                self.hold(beat.position);
                Some(beat.block)
            }
            Item::Bye(reason) => Some(frame::bye(reason, self.held.as_deref())),
        }
    }

    /// The client holds this position from here on, or its last where there is none.
    fn hold(&mut self, position: Option<Position>) {
        if position.is_some() {
            self.held = position;
        }
    }

    fn clear(&mut self) {
        self.queue = VecDeque::new();
        self.sent = 0;
        self.bytes = 0;
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.clear();
        state.attempt = None;
        state.writer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(number: u64, budget: &Arc<Budget>) -> Arc<Queued> {
        let json = format!("{:?}", "x".repeat(100_000));
        Queued::new(
            Frame::numbered(&number.to_string(), &json),
            number,
            budget.clone(),
        )
    }

    /// Whatever can be read now.
    fn read(outlet: &mut Outlet) -> String {
        let mut text = String::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(bytes)) = outlet.poll_next(&mut cx) {
            assert!(bytes.len() <= WRITE_BYTES, "{}", bytes.len());
            text += std::str::from_utf8(&bytes).expect("text");
        }
        text
    }

    #[test]
    fn a_large_frame_is_charged_until_its_last_part_is_handed_out() {
        let (outbox, mut outlet) = outbox(150_000, false);
        outlet.go_live(None);
        let budget = Arc::new(Budget::default());
        let (attempt, _) = Attempt::new();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(
            outbox.append(&[large(1, &budget)], &attempt),
            Appended::Waits(_)
        ));
        assert!(outlet.poll_next(&mut cx).is_ready());
        assert_eq!(outbox.oldest(), Some(1));
        // What is being sent does not count for the stream's own bound, and one more fits behind it.
        assert!(matches!(
            outbox.append(&[large(2, &budget)], &attempt),
            Appended::Waits(_)
        ));
        assert!(matches!(
            outbox.append(&[large(3, &budget)], &attempt),
            Appended::Full
        ));
        assert!(budget.used() > 200_000);
        assert!(outbox.end(Bye::Slow));
        assert!((100_000..110_000).contains(&budget.used()));
        let rest = read(&mut outlet);
        assert_eq!(budget.used(), 0);
        // The event that was being sent comes whole, and the good-bye holds its position.
        assert!(rest.contains("\n\nid: 1\nretry: "), "{rest}");
    }

    #[test]
    fn a_stream_that_is_broken_off_says_nothing_more() {
        let (outbox, mut outlet) = outbox(1 << 20, false);
        outlet.go_live(None);
        let budget = Arc::new(Budget::default());
        let (attempt, _) = Attempt::new();
        outbox.append(&[large(1, &budget)], &attempt);
        // Between two events there is nothing to break off.
        outbox.break_off();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(outlet.poll_next(&mut cx).is_ready());
        assert!(outbox.end(Bye::Slow) && outbox.oldest().is_some());
        outbox.break_off();
        assert_eq!(budget.used(), 0);
        assert!(matches!(outlet.poll_next(&mut cx), Poll::Ready(None)));
    }

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
        outbox.append(&[frame], &attempt);
        assert_eq!(outbox.oldest(), Some(7));
    }
}
