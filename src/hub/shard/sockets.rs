//! The sockets of a shard's direct streams: when they can be written to, and in which order they are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token};

use super::{Ended, INBOX, Shard};
use crate::frame::Bye;
use crate::hub::direct::{Direct, Leaving, Ready, Wrote};
use crate::hub::outbox::Key;
use crate::hub::queue::Phase;
use crate::hub::stream::{Record, Sink};
use crate::hub::wheel::TICK;

/// How many streams of each kind are written to before the inbox is looked at again.
const WRITE_NARROW: usize = 256;
const WRITE_WIDE: usize = 64;

/// And how many bytes to streams of wide frames, which take a millisecond or so.
const WRITE_BYTES: usize = 1 << 20;

/// What clients send is read into so many bytes, and forgotten.
const SCRATCH_BYTES: usize = 4096;

/// The poller, and the streams that something can be written to.
pub(super) struct Sockets {
    poll: Poll,
    /// Each with the moment at which the frame was made for whose sake it stands here.
    narrow: VecDeque<(u32, Option<Instant>)>,
    wide: VecDeque<u32>,
    scratch: Box<[u8]>,
    /// Nobody is taken over any more.
    closed: bool,
}

impl Sockets {
    pub(super) fn new(poll: Poll) -> Self {
        Self {
            poll,
            narrow: VecDeque::new(),
            wide: VecDeque::new(),
            scratch: vec![0; SCRATCH_BYTES].into(),
            closed: false,
        }
    }

    /// Whether something can be written.
    pub(super) fn is_ready(&self) -> bool {
        !self.narrow.is_empty() || !self.wide.is_empty()
    }

    /// Notes that something wide waits for a stream whose socket takes it.
    pub(super) fn ready(&mut self, stream: u32, direct: &mut Direct) {
        if direct.ready < Ready::Wide {
            direct.ready = Ready::Wide;
            self.wide.push_back(stream);
        }
    }

    /// Notes that something narrow does, which was made then.
    pub(super) fn ready_first(&mut self, stream: u32, direct: &mut Direct, made: Option<Instant>) {
        if direct.ready < Ready::Narrow {
            // If it stands in the other list too, it is passed over there.
            direct.ready = Ready::Narrow;
            self.narrow.push_back((stream, made));
        }
    }
}

impl Shard {
    /// Takes a stream over from hyper, with whatever has come for it meanwhile.
    pub(super) fn take_over(&mut self, leaving: Leaving) {
        let Leaving {
            outlet,
            socket,
            keep,
        } = leaving;
        self.newcomers = true;
        let (queue, key) = outlet.leave();
        if self.sockets.closed || queue.is_over() {
            return;
        }
        let known = key.filter(|key| {
            let record = self.streams.get(key.stream as usize);
            record.is_some_and(|record| record.generation == key.generation)
        });
        let ending = queue.phase() == Phase::Ending;
        let charged = queue.oldest().is_some();
        let mut direct = Direct::new(queue, socket, keep);
        // One that has ended meanwhile is no longer known, and only its rest is written.
        let key = known.unwrap_or_else(|| self.next_key());
        let token = Token(key.stream as usize);
        if let Err(error) = direct.register(self.sockets.poll.registry(), token) {
            tracing::warn!(%error, "a stream cannot be polled and is closed");
            if known.is_some() {
                self.remove(key.stream);
            }
            return;
        }
        if ending || !direct.queue.is_empty() {
            self.sockets.ready_first(key.stream, &mut direct, None);
        }
        if known.is_some() {
            self.streams[key.stream as usize].sink = Sink::Direct(direct);
            return;
        }
        debug_assert!(ending, "a stream that lives is known");
        if charged {
            self.leaving.push_back(Ended::Direct(key));
        }
        let now = Instant::now();
        self.streams.insert(Record {
            sink: Sink::Direct(direct),
            places: Box::default(),
            generation: key.generation,
            next_beat: now + self.timing.write_timeout,
            // As whoever ends later.
            ends: Some((now + 3 * self.timing.write_timeout, Bye::Slow)),
            due: now,
            label: "".into(),
        });
        self.schedule(key.stream);
    }

    /// Waits for sockets and for the inbox, for so long at most.
    pub(super) fn await_events(&mut self, events: &mut Events, patience: Duration) {
        if let Err(error) = self.sockets.poll.poll(events, Some(patience)) {
            // A signal that came in between is no fault.
            if error.kind() != std::io::ErrorKind::Interrupted {
                tracing::error!(%error, "the poller of sockets fails");
                std::thread::sleep(TICK);
            }
            return;
        }
        for event in &*events {
            if event.token() != INBOX {
                self.hear(event.token().0 as u32, event);
            }
        }
    }

    /// Something has become of a socket.
    fn hear(&mut self, stream: u32, event: &Event) {
        // What was polled may be of a stream that has been removed since; then nothing comes of it.
        let Some(record) = self.streams.get_mut(stream as usize) else {
            return;
        };
        let Sink::Direct(direct) = &mut record.sink else {
            return;
        };
        let gone = event.is_error()
            || event.is_read_closed()
            || event.is_write_closed()
            || (event.is_readable() && !direct.discard(&mut self.sockets.scratch));
        if gone {
            return self.remove(stream);
        }
        if event.is_writable() && direct.unblock() {
            self.sockets.ready(stream, direct);
        }
    }

    /// Writes to some of those streams for which something waits.
    pub(super) fn write_some(&mut self) {
        for _ in 0..WRITE_NARROW {
            let Some((stream, made)) = self.sockets.narrow.pop_front() else {
                break;
            };
            let written = self.write(stream, Ready::Narrow);
            if let Some(made) = made.filter(|_| written > 0) {
                let waited = made.elapsed().as_secs_f64();
                self.metrics.frame_wait.observe(waited);
            }
        }
        let mut bytes = 0;
        for _ in 0..WRITE_WIDE {
            if bytes >= WRITE_BYTES {
                break;
            }
            let Some(stream) = self.sockets.wide.pop_front() else {
                break;
            };
            bytes += self.write(stream, Ready::Wide);
        }
    }

    /// Writes to a stream, unless it has been written to since it was found ready; returns how many bytes.
    fn write(&mut self, stream: u32, ready: Ready) -> usize {
        let Some(record) = self.streams.get_mut(stream as usize) else {
            return 0;
        };
        let Sink::Direct(direct) = &mut record.sink else {
            return 0;
        };
        if direct.ready != ready {
            return 0;
        }
        direct.ready = Ready::No;
        if direct.is_blocked() {
            return 0;
        }
        let now = Instant::now();
        let (wrote, bytes) = direct.write(now);
        match wrote {
            Wrote::All => {}
            Wrote::Part => self.sockets.ready(stream, direct),
            Wrote::Blocked => {
                if record.due > now + self.timing.write_timeout {
                    self.schedule(stream);
                }
                return bytes;
            }
            Wrote::End => {
                let record = self.streams.remove(stream as usize);
                if let Sink::Direct(direct) = record.sink {
                    direct.close(&mut self.sockets.scratch);
                }
                return bytes;
            }
            Wrote::Gone => {
                self.remove(stream);
                return bytes;
            }
        }
        bytes
    }

    /// Writes to a stream whose socket took nothing when it was last asked.
    pub(super) fn try_once_more(&mut self, stream: u32) {
        if let Some(record) = self.streams.get_mut(stream as usize)
            && let Sink::Direct(direct) = &mut record.sink
        {
            direct.unblock();
            direct.ready = Ready::Narrow;
            self.write(stream, Ready::Narrow);
        }
    }

    /// Ends a direct stream that has ended already within the event that is being sent, or leaves its good-bye.
    pub(super) fn break_off(&mut self, key: Key) {
        if let Some(direct) = self.direct(key)
            && direct.queue.oldest().is_some()
            && direct.queue.break_off()
        {
            // Half a chunk cannot be followed by anything.
            self.remove(key.stream);
        }
    }

    /// Cuts the half of those direct streams that have taken nothing for the longest time, among those that have
    /// taken nothing for so long.
    pub(super) fn cut_longest(&mut self, patience: Duration) {
        let now = Instant::now();
        let mut stalled: Vec<(Duration, u32)> = self
            .streams
            .iter()
            .filter_map(|(key, record)| Some((record.sink.stalled_for(now)?, key as u32)))
            .filter(|(stalled, _)| *stalled >= patience)
            .collect();
        stalled.sort_unstable();
        let count = stalled.len().div_ceil(2);
        for (_, stream) in stalled.into_iter().rev().take(count) {
            self.cut(stream);
        }
    }

    /// Closes all sockets of direct streams.
    pub(super) fn close(&mut self) {
        self.sockets.closed = true;
        for stream in self.all() {
            if matches!(self.streams[stream as usize].sink, Sink::Direct(_)) {
                self.remove(stream);
            }
        }
    }
}
