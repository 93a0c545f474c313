//! The queue of one stream, whatever writes it: a body of hyper's takes blocks from its head, a direct stream
//! writes it as it stands.
//!
//! It promises: what leaves is in the order of appending, each item once; a stream that has ended says
//! why in its last block, with the position that its client holds; frames are bounded for the stream, and stay
//! charged to the budget of all until the last of their bytes is handed out.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::attempt::Hold;
use super::queued::Queued;
use crate::frame::{self, Bye, Chunk, Position};

/// The most that a body is handed for one write, in bytes: enough to make the cost of a write small
/// beside its content, little enough to count for nothing beside a stream's own memory. A backlog
/// of small frames is joined up to it, and a large frame is handed out in copies of it: a slice of the
/// frame itself would keep all of it for as long as a client takes nothing.
pub(crate) const WRITE_BYTES: usize = 16 * 1024;

/// What a good-bye takes at most without its position, in bytes.
const BYE_BYTES: usize = 256;

/// Room for so many items is kept by a stream that has none.
const ROOM: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// What the cursor had missed is still being sent; live frames wait.
    Replaying,
    /// What waits is sent, from the head of the queue.
    Live,
    /// Nothing is appended any more; the queue ends with a bye.
    Ending,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It waits.
    All,
    /// The queue would have exceeded its limit; what did not fit was not appended.
    Full,
    /// The stream is replaying and the frame is not for it, or is ending.
    None,
}

/// The queue.
pub(crate) struct Queue {
    phase: Phase,
    named: bool,
    limit_bytes: u32,
    /// How much of the item at the head has been handed out; 0 between two blocks.
    sent: u32,
    /// The bytes of the frames in the queue, but for one of which a part has been handed out.
    bytes: usize,
    items: VecDeque<Item>,
    /// The position that the client holds once it has read what was handed out.
    held: Option<Position>,
    /// Held until the writer has tried to write: whoever waits for the attempt learns by its drop.
    pub(crate) attempt: Option<Hold>,
}

/// What waits; small, since a stalled stream has thousands of them.
enum Item {
    Frame(Arc<Queued>),
    Beat(Arc<Beat>),
    Bye(Bye),
    /// A good-bye of which a socket may have taken a part.
    Last(Box<Last>),
}

/// A heartbeat with the position that it carries; all streams that beat there share it.
#[derive(Debug)]
pub(crate) struct Beat {
    chunk: Chunk,
    position: Option<Position>,
}

impl Beat {
    pub(crate) fn new(position: Option<Position>) -> Arc<Self> {
        Arc::new(Self {
            chunk: Chunk::new(&frame::beat(position.as_deref())),
            position,
        })
    }
}

/// A good-bye as a socket takes it.
struct Last {
    reason: Bye,
    chunk: Chunk,
}

impl Item {
    /// Its bytes, but for what a sink adds, and the position of a good-bye.
    fn size(&self) -> usize {
        match self {
            Self::Frame(queued) => queued.frame.size(),
            Self::Beat(beat) => beat.chunk.bytes().len(),
            Self::Bye(_) | Self::Last(_) => BYE_BYTES,
        }
    }

    fn position(&self) -> Option<&Position> {
        match self {
            Self::Frame(queued) => queued.frame.position(),
            Self::Beat(beat) => beat.position.as_ref(),
            Self::Bye(_) | Self::Last(_) => None,
        }
    }

    /// As a socket takes it.
    fn chunks(&self, named: bool) -> &[u8] {
        match self {
            Self::Frame(queued) => queued.frame.chunks(named),
            Self::Beat(beat) => beat.chunk.bytes(),
            Self::Bye(_) => unreachable!("a good-bye is encoded before it is written"),
            Self::Last(last) => last.chunk.bytes(),
        }
    }
}

impl Queue {
    pub(crate) fn new(limit_bytes: usize, named: bool) -> Self {
        Self {
            phase: Phase::Replaying,
            named,
            limit_bytes: u32::try_from(limit_bytes).unwrap_or(u32::MAX),
            sent: 0,
            bytes: 0,
            items: VecDeque::new(),
            held: None,
            attempt: None,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether a part of the item at the head has been handed out.
    pub(crate) fn is_begun(&self) -> bool {
        self.sent > 0
    }

    /// Whether all has been handed out, the good-bye too.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Ending && self.items.is_empty()
    }

    /// The replay is over, and the client holds `position`.
    pub(crate) fn go_live(&mut self, position: Option<Position>) {
        self.held = position;
        if self.phase == Phase::Replaying {
            self.phase = Phase::Live;
        }
    }

    /// Appends frames, in order, up to the first that does not fit.
    pub(crate) fn append(&mut self, frames: &[Arc<Queued>]) -> Taken {
        if self.phase == Phase::Ending {
            return Taken::None;
        }
        for frame in frames {
            let size = frame.frame.size();
            if self.waiting() > 0 && self.bytes + size > self.limit_bytes as usize {
                return Taken::Full;
            }
            self.bytes += size;
            self.items.push_back(Item::Frame(frame.clone()));
        }
        Taken::All
    }

    /// Appends a signal, which a stream gets only while it is live.
    pub(crate) fn append_signal(&mut self, frame: &Arc<Queued>) -> Taken {
        match self.phase {
            Phase::Live => self.append(std::slice::from_ref(frame)),
            Phase::Replaying | Phase::Ending => Taken::None,
        }
    }

    /// Appends a heartbeat to a live stream whose queue is empty; frames on their way make it
    /// superfluous. Returns whether it did.
    pub(crate) fn beat(&mut self, beat: &Arc<Beat>) -> bool {
        let due = self.phase == Phase::Live && self.items.is_empty();
        if due {
            self.items.push_back(Item::Beat(beat.clone()));
        }
        due
    }

    /// Ends the stream once what waits has been sent, or after the event that is being sent when it is
    /// too slow for that. Returns whether it had not been ending already.
    pub(crate) fn end(&mut self, reason: Bye) -> bool {
        if self.phase == Phase::Ending {
            return false;
        }
        if reason == Bye::Slow {
            let begun = usize::from(self.sent > 0);
            self.items.truncate(begun);
            self.bytes = 0;
        }
        self.phase = Phase::Ending;
        self.items.push_back(Item::Bye(reason));
        self.attempt = None;
        true
    }

    /// Ends the stream within the event that is being sent, if one is, and returns whether it did; no good-bye can
    /// follow that. Of a stream that is ending between two events, only the good-bye is left.
    pub(crate) fn break_off(&mut self) -> bool {
        if self.sent > 0 {
            self.phase = Phase::Ending;
            self.clear();
            return true;
        }
        if self.phase == Phase::Ending
            && let Some(bye) = self.items.pop_back()
        {
            self.clear();
            // It is encoded anew: what stood before it will not have been read.
            self.items.push_back(match bye {
                Item::Last(last) => Item::Bye(last.reason),
                bye => bye,
            });
        }
        false
    }

    /// Where the oldest frame that is not wholly handed out stands among all, if there is one.
    pub(crate) fn oldest(&self) -> Option<u64> {
        // A beat may stand before it.
        self.items.iter().find_map(|item| match item {
            Item::Frame(frame) => Some(frame.issued),
            Item::Beat(_) | Item::Bye(_) | Item::Last(_) => None,
        })
    }

    /// Forgets what waits.
    pub(crate) fn clear(&mut self) {
        self.items = VecDeque::new();
        self.sent = 0;
        self.bytes = 0;
    }

    /// How many items wait behind what is being sent.
    fn waiting(&self) -> usize {
        self.items.len() - usize::from(self.sent > 0)
    }

    /// The client holds this position from here on, or its last where there is none.
    fn hold(&mut self, position: Option<Position>) {
        if position.is_some() {
            self.held = position;
        }
    }
}

/// As a body takes it.
impl Queue {
    /// What is written next: a part of a large frame, or as many whole blocks as go into one write.
    pub(crate) fn next_write(&mut self) -> Option<Bytes> {
        let size = self.items.front()?.size();
        if size > WRITE_BYTES {
            return Some(self.take_part());
        }
        let [first, rest] = self.take()?;
        let fits = |queue: &Self, room: usize| {
            let next = queue.items.front();
            next.is_some_and(|item| item.size() <= room)
        };
        if first.is_empty() && !fits(self, WRITE_BYTES - size) {
            return Some(rest);
        }
        let mut joined = BytesMut::with_capacity(WRITE_BYTES.min(size + self.bytes + BYE_BYTES));
        joined.extend_from_slice(&first);
        joined.extend_from_slice(&rest);
        while fits(self, WRITE_BYTES.saturating_sub(joined.len())) {
            for part in self.take().expect("it was just seen") {
                joined.extend_from_slice(&part);
            }
        }
        Some(joined.freeze())
    }

    /// A copy of the next part of the frame at the head, which stays there until its last.
    fn take_part(&mut self) -> Bytes {
        let Some(Item::Frame(queued)) = self.items.front() else {
            unreachable!("only frames are large");
        };
        let parts = queued.frame.parts(self.named);
        if self.sent == 0 {
            self.bytes -= queued.frame.size();
        }
        let mut before = self.sent as usize;
        let mut copy = BytesMut::with_capacity(WRITE_BYTES);
        for part in &parts {
            let rest = &part[before.min(part.len())..];
            before = before.saturating_sub(part.len());
            copy.extend_from_slice(&rest[..rest.len().min(WRITE_BYTES - copy.len())]);
        }
        self.sent += copy.len() as u32;
        if self.sent as usize == parts[0].len() + parts[1].len() {
            self.hold(queued.frame.position().cloned());
            self.items.pop_front();
            self.sent = 0;
        }
        copy.freeze()
    }

    /// Takes the block at the head and moves the client's position on.
    fn take(&mut self) -> Option<[Bytes; 2]> {
        let item = self.items.pop_front()?;
        let parts = match &item {
            Item::Frame(queued) => {
                self.bytes -= queued.frame.size();
                queued.frame.parts(self.named)
            }
            Item::Beat(beat) => [Bytes::new(), beat.chunk.block()],
            Item::Bye(reason) => [Bytes::new(), frame::bye(*reason, self.held.as_deref())],
            Item::Last(_) => unreachable!("only sockets take it"),
        };
        self.hold(item.position().cloned());
        Some(parts)
    }
}

/// As a socket takes it.
impl Queue {
    /// Lays out what waits, up to so many bytes and as far as there are slices; returns how many are used, and
    /// their bytes.
    pub(crate) fn lay_out<'a>(
        &'a mut self,
        slices: &mut [IoSlice<'a>],
        most: usize,
    ) -> (usize, usize) {
        self.encode_bye();
        let mut bytes = 0;
        let mut count = 0;
        for (slice, item) in slices.iter_mut().zip(&self.items) {
            let mut chunks = item.chunks(self.named);
            if count == 0 {
                chunks = &chunks[self.sent as usize..];
            }
            chunks = &chunks[..chunks.len().min(most - bytes)];
            if chunks.is_empty() {
                break;
            }
            *slice = IoSlice::new(chunks);
            bytes += chunks.len();
            count += 1;
        }
        (count, bytes)
    }

    /// A good-bye says what its client holds once it has read all that stands before it.
    fn encode_bye(&mut self) {
        let Some(Item::Bye(reason)) = self.items.back() else {
            return;
        };
        let reason = *reason;
        let before = self.items.iter().rev().find_map(Item::position);
        let position = before.or(self.held.as_ref());
        let chunk = Chunk::last(&frame::bye(reason, position.map(|text| &**text)));
        self.items.pop_back();
        let last = Last { reason, chunk };
        self.items.push_back(Item::Last(Box::new(last)));
    }

    /// So many bytes of what was laid out have been written.
    pub(crate) fn written(&mut self, mut bytes: usize) {
        let mut last = None;
        while bytes > 0 {
            let item = self.items.front().expect("no more than was laid out");
            let left = item.chunks(self.named).len() - self.sent as usize;
            // What is being sent does not count for the stream's own bound.
            if self.sent == 0
                && let Item::Frame(queued) = item
            {
                self.bytes -= queued.frame.size();
            }
            if bytes < left {
                self.sent += bytes as u32;
                break;
            }
            bytes -= left;
            self.sent = 0;
            let item = self.items.pop_front();
            last = item.filter(|item| item.position().is_some()).or(last);
        }
        self.hold(last.and_then(|item| item.position().cloned()));
        // A stream that once had a backlog does not keep room for it.
        if self.items.is_empty() && self.items.capacity() > ROOM {
            self.items.shrink_to(ROOM);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::frame::Frame;

    /// Writes to a socket that takes all that is laid out, and returns it.
    fn write(queue: &mut Queue, slices: usize) -> String {
        let mut all = [IoSlice::new(&[]); 64];
        let (count, bytes) = queue.lay_out(&mut all[..slices], usize::MAX);
        let text: Vec<u8> = all[..count]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        queue.written(bytes);
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn a_good_bye_never_claims_what_was_thrown_away_before_it() {
        let mut queue = Queue::new(1 << 20, false);
        queue.go_live(None);
        let budget: Arc<crate::hub::Budget> = Arc::default();
        for number in 1..=10 {
            let frame = Frame::numbered(&number.to_string(), "{}");
            let queued = Queued::new(frame, Instant::now(), &budget);
            assert_eq!(queue.append(&[queued]), Taken::All);
        }
        assert!(queue.end(Bye::Drain));
        let begun = write(&mut queue, 4);
        assert!(
            begun.contains("id: 4\n") && !begun.contains("id: 5\n"),
            "{begun}"
        );
        assert!(!queue.break_off());
        assert_eq!(budget.used(), 0);
        let bye = write(&mut queue, 4);
        assert!(
            bye.contains("id: 4\n") && bye.ends_with("\r\n0\r\n\r\n"),
            "{bye}"
        );
        assert!(queue.is_over());
    }

    #[test]
    fn what_is_laid_out_is_bounded_in_bytes_and_goes_on_where_it_ended() {
        let mut queue = Queue::new(1 << 20, true);
        queue.go_live(None);
        let frame = Frame::numbered("1", &format!("{:?}", "x".repeat(1000)));
        let expected = frame.chunks(true).repeat(3);
        let queued = Queued::new(frame, Instant::now(), &Arc::default());
        assert_eq!(
            queue.append(&[queued.clone(), queued.clone(), queued]),
            Taken::All
        );
        let mut written = Vec::new();
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); 8];
            let (count, bytes) = queue.lay_out(&mut slices, 700);
            assert!((1..=700).contains(&bytes));
            written.extend(slices[..count].iter().flat_map(|slice| slice.to_vec()));
            queue.written(bytes);
        }
        assert_eq!(written, expected);
    }
}
