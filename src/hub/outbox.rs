//! The queue of a stream that hyper writes, between the shard that fills it and the body that is pulled.
//!
//! The shard appends pointers to shared frames and never waits; the body takes from the head, a
//! little at a time. What it holds beside the queue is never more than 16 KiB.
//! A stream that opens has one of these as well, until it is live and its socket can be taken from hyper.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::attempt::Attempt;
use super::queue::{Beat, Phase, Queue, Taken};
use super::queued::Queued;
use crate::frame::{Bye, Position};

struct State {
    queue: Queue,
    writer: Option<Waker>,
    /// When the writer took its last bytes, if it has not come back for more: it is writing them, or its
    /// client takes nothing.
    handed: Option<Instant>,
    /// What the shard knows the stream by, once it has joined.
    key: Option<Key>,
    /// The sink is gone.
    closed: bool,
}

/// By what a shard knows a stream: its place, and which of the place's tenants it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) stream: u32,
    pub(crate) generation: u32,
}

struct Shared(Mutex<State>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.0.lock();
        state.expect("no code panics while it holds an outbox")
    }
}

/// The shard's end of a stream's queue.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

/// The sink's end of a stream's queue; dropping it closes the stream.
pub struct Outlet(Arc<Shared>);

/// Makes the two ends.
pub fn outbox(limit_bytes: usize, named: bool) -> (Outbox, Outlet) {
    let shared = Arc::new(Shared(Mutex::new(State {
        queue: Queue::new(limit_bytes, named),
        writer: None,
        handed: None,
        key: None,
        closed: false,
    })));
    (Outbox(shared.clone()), Outlet(shared))
}

impl Outbox {
    /// Appends frames, in order, up to the first that does not fit; returns the writer if it sleeps. The attempt is
    /// held until that has been polled.
    pub(crate) fn append(
        &self,
        frames: &[Arc<Queued>],
        attempt: &Attempt,
    ) -> (Taken, Option<Waker>) {
        let mut state = self.0.lock();
        if state.closed {
            return (Taken::None, None);
        }
        let taken = state.queue.append(frames);
        if taken != Taken::All {
            return (taken, None);
        }
        // One that it has not tried yet stands for the later ones too.
        if state.queue.phase() == Phase::Live && state.queue.attempt.is_none() {
            state.queue.attempt = attempt.hold(state.handed);
        }
        (taken, state.writer.take())
    }

    /// Appends a signal, which a stream gets only while it is live.
    pub(crate) fn append_signal(&self, frame: &Arc<Queued>) -> (Taken, Option<Waker>) {
        let mut state = self.0.lock();
        match state.queue.append_signal(frame) {
            Taken::All => (Taken::All, state.writer.take()),
            taken => (taken, None),
        }
    }

    /// Appends a heartbeat to a live stream whose queue is empty.
    pub(crate) fn beat(&self, beat: &Arc<Beat>) -> Option<Waker> {
        let mut state = self.0.lock();
        let due = state.queue.beat(beat);
        state.writer.take_if(|_| due)
    }

    /// Ends the stream once what waits has been sent, or after the event that is being sent when it is
    /// too slow for that. Returns whether it had not been ending already.
    pub(crate) fn end(&self, reason: Bye) -> bool {
        let mut state = self.0.lock();
        let ended = !state.closed && state.queue.end(reason);
        if ended && let Some(writer) = state.writer.take() {
            writer.wake();
        }
        ended
    }

    /// Ends the stream within the event that is being sent, if one is, to be rid of it. No good-bye can
    /// follow that; the client forgets half an event, and its cursor brings the whole one. Of a stream that is
    /// ending between two events, only the good-bye is left.
    pub(crate) fn break_off(&self) {
        self.0.lock().queue.break_off();
    }

    /// The shard will know the stream by this.
    pub(crate) fn joined(&self, key: Key) {
        self.0.lock().key = Some(key);
    }

    /// Whether something is to be written.
    pub(crate) fn is_waiting(&self) -> bool {
        let state = self.0.lock();
        !state.queue.is_empty()
    }

    /// Whether the sink is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// Where the oldest frame that is not wholly handed out stands among all, if there is one.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.0.lock().queue.oldest()
    }
}

impl Outlet {
    /// Starts sending what waits: the replay is over and the client holds `position`.
    pub fn go_live(&self, position: Option<Position>) {
        let mut state = self.0.lock();
        state.queue.go_live(position);
        // The end of the replay is on its way.
        state.handed = Some(Instant::now());
    }

    /// Whether the stream ends once what waits has been read.
    #[cfg(test)]
    pub(crate) fn is_ending(&self) -> bool {
        self.0.lock().queue.phase() == Phase::Ending
    }

    /// The next bytes to write, several waiting blocks in one; `None` after the bye.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.0.lock();
        state.queue.attempt = None;
        if let Some(bytes) = state.queue.next_write() {
            state.handed = Some(Instant::now());
            return Poll::Ready(Some(bytes));
        }
        if state.queue.phase() == Phase::Ending {
            return Poll::Ready(None);
        }
        state.handed = None;
        // A replaced waker is never lost: the sink is polled by one task.
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The other end.
    pub(crate) fn outbox(&self) -> Outbox {
        Outbox(self.0.clone())
    }

    /// Leaves the queue to whoever writes it without hyper, and says by what the shard knows the stream.
    pub(crate) fn leave(self) -> (Queue, Option<Key>) {
        let mut state = self.0.lock();
        debug_assert!(!state.queue.is_begun(), "no body has taken a part of it");
        let queue = std::mem::replace(&mut state.queue, Queue::new(0, false));
        (queue, state.key)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.queue.clear();
        state.queue.attempt = None;
        state.writer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::hub::queue::WRITE_BYTES;
    use crate::hub::queued::Budget;

    fn large(number: u64, budget: &Arc<Budget>) -> Arc<Queued> {
        let json = format!("{:?}", "x".repeat(100_000));
        let frame = Frame::numbered(&number.to_string(), &json);
        Queued::new(frame, Instant::now(), budget)
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
        let append = |number| outbox.append(&[large(number, &budget)], &attempt).0;
        assert_eq!(append(1), Taken::All);
        assert!(outlet.poll_next(&mut cx).is_ready());
        assert_eq!(outbox.oldest(), Some(0));
        // What is being sent does not count for the stream's own bound, and one more fits behind it.
        assert_eq!(append(2), Taken::All);
        assert_eq!(append(3), Taken::Full);
        assert!(budget.used() > 200_000);
        assert!(outbox.end(Bye::Slow));
        assert!((100_000..110_000).contains(&budget.used()));
        let rest = read(&mut outlet);
        assert_eq!(budget.used(), 0);
        // The event that was being sent comes whole, and the good-bye holds its position.
        assert!(rest.ends_with("\nid: 1\n\n"), "{rest}");
        assert!(rest.contains("\n\nevent: tidings.bye\n"), "{rest}");
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
        assert!(outbox.beat(&Beat::new(None)).is_some());
        assert_eq!(outbox.oldest(), None);
        let frame = large(1, &Arc::default());
        let (attempt, _) = Attempt::new();
        outbox.append(&[frame], &attempt);
        assert_eq!(outbox.oldest(), Some(0));
    }
}
