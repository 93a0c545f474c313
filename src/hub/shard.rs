//! A shard: one loop, on a thread of its own, that owns a part of the streams and is the only one to append to
//! them.
//!
//! Looks, joins and ends arrive through one ordered, bounded inbox, and that order is the lock: a
//! stream joins its topics between two looks, never within one. A frame is appended to every one
//! of its streams before the next of another topic is taken, because its position claims every earlier
//! event of its look; only *writing* is sliced, and streams for which there is a frame of few streams
//! come before those for which there is one of many. Direct streams are written here; writers of the
//! others are woken ([`Wakes`]).

mod clock;
mod sockets;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use slab::Slab;

use self::sockets::Sockets;
use super::command::{Command, Join, Timing};
use super::direct::Direct;
use super::inbox::{Inbox, Next, ShardHandle, inbox};
use super::outbox::{Key, Outbox};
use super::queue::{Beat, Taken};
use super::queued::{Budget, Queued};
use super::stream::{Record, Sink, Then};
use super::topics::Topics;
use super::wakes::Wakes;
use super::wheel::{TICK, Wheel};
use crate::frame::Bye;
use crate::metrics::Metrics;
use crate::topic::Topic;

/// A frame for at most this many streams is narrow, and written first.
const NARROW: usize = 16;

/// How many commands are taken before something is written: those that wait together leave together.
const COMMANDS: usize = 64;

/// And how many pointers to frames are appended, which take a millisecond or so.
const APPENDS: u64 = 16_384;

/// How long it naps after streams have come, woken only by what is urgent.
const NAP: Duration = Duration::from_millis(2);

/// The token by which the inbox wakes the poller; streams have their numbers, which are less.
const INBOX: Token = Token(usize::MAX);

/// A stream that has ended, and is charged with what it still sends.
enum Ended {
    Outbox(Outbox),
    Direct(Key),
}

/// The loop and what it owns.
pub struct Shard {
    inbox: Inbox,
    streams: Slab<Record>,
    topics: Topics,
    wheel: Wheel,
    sockets: Sockets,
    wakes: Arc<Wakes>,
    timing: Timing,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    /// The beat at the position of the last whole look, or since when one is under way.
    beat: Result<Arc<Beat>, Instant>,
    generations: u32,
    /// Whether streams have come since it slept.
    newcomers: bool,
    /// Pointers to frames that were appended since something was written.
    appended: u64,
    drain_by: Option<Instant>,
    leaving: VecDeque<Ended>,
    /// How many streams were too slow since that was last told, and the label of one of them.
    slow: Option<(usize, Arc<str>)>,
    /// How many direct streams were cut since that was last told.
    cut: usize,
    tell_at: Instant,
}

impl Shard {
    /// A shard without streams, and the way to tell it. An error says that the system gives no poller.
    pub fn new(
        timing: Timing,
        budget: Arc<Budget>,
        wakes: Arc<Wakes>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, ShardHandle)> {
        let poll = Poll::new()?;
        let (handle, inbox) = inbox(&poll, INBOX)?;
        let shard = Self {
            inbox,
            streams: Slab::new(),
            topics: Topics::default(),
            wheel: Wheel::new(Instant::now()),
            sockets: Sockets::new(poll),
            wakes,
            timing,
            budget,
            metrics,
            beat: Err(Instant::now()),
            generations: 0,
            newcomers: false,
            appended: 0,
            drain_by: None,
            leaving: VecDeque::new(),
            slow: None,
            cut: 0,
            tell_at: Instant::now(),
        };
        Ok((shard, handle))
    }

    /// Runs until every handle is gone; takes the thread for itself.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut tick = Instant::now();
        loop {
            let mut commands = 0;
            self.appended = 0;
            let more = loop {
                if commands == COMMANDS || self.appended > APPENDS {
                    break true;
                }
                match self.inbox.next() {
                    Next::Command(command) => self.take(command),
                    Next::Nothing => break false,
                    Next::Over => return,
                }
                commands += 1;
            };
            let now = Instant::now();
            if now >= tick {
                tick = now + TICK;
                self.turn(now);
            }
            self.write_some();
            // Sleeps only when nothing can be done, and lightly while streams keep coming.
            let nap = std::mem::take(&mut self.newcomers);
            let idle = !more && !self.sockets.is_ready() && self.inbox.doze(nap);
            let patience = match idle {
                true if nap => NAP,
                true => tick.saturating_duration_since(Instant::now()),
                false => Duration::ZERO,
            };
            self.await_events(&mut events, patience);
            self.inbox.rouse();
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Join(join) => self.join(join),
            Command::Direct(leaving) => self.take_over(leaving),
            Command::Frames(frames, attempt) => {
                if self.beat.is_ok() {
                    self.beat = Err(Instant::now());
                }
                // Those of one topic in a row go to each of its streams at once.
                for run in frames.chunk_by(|(one, _), (next, _)| one == next) {
                    let append = |sink: &mut Sink, queued: &[_]| sink.append(queued, &attempt);
                    match run {
                        [(topic, queued)] => {
                            self.append(topic, std::slice::from_ref(queued), append);
                        }
                        run => {
                            let queued: Vec<_> =
                                run.iter().map(|(_, frame)| frame.clone()).collect();
                            self.append(&run[0].0, &queued, append);
                        }
                    }
                }
                drop(frames);
                self.shed(self.timing.queue_bytes);
            }
            Command::Signal(topic, queued) => {
                self.append(&topic, &[queued], |sink, queued| {
                    sink.append_signal(&queued[0])
                });
            }
            Command::Through(position) => self.beat = Ok(Beat::new(position)),
            Command::Shed(most, patience) => {
                self.shed(most);
                self.cut_longest(patience);
            }
            Command::EndAll(reason) => {
                for stream in self.all() {
                    self.end(stream, reason);
                }
            }
            Command::Drain(over) => {
                self.drain_by = Some(Instant::now() + over);
                for stream in self.all() {
                    self.end_by_drain(stream);
                }
            }
            Command::Close => self.close(),
        }
    }

    fn all(&self) -> Vec<u32> {
        self.streams.iter().map(|(key, _)| key as u32).collect()
    }

    fn join(&mut self, join: Join) {
        self.newcomers = true;
        if join.outbox.is_closed() {
            return;
        }
        let now = Instant::now();
        let age = self
            .timing
            .stream_age
            .map(|age| (now + jitter(age), Bye::Drain));
        let expiry = join.expires.map(|at| (at, Bye::Expired));
        let ends = [age, expiry]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at);
        let key = self.next_key();
        join.outbox.joined(key);
        self.streams.insert(Record {
            places: self.topics.join(key.stream, &join.topics),
            sink: Sink::Outbox(join.outbox),
            generation: key.generation,
            next_beat: now + jitter(self.timing.heartbeat),
            ends,
            due: now,
            label: join.label,
        });
        self.schedule(key.stream);
        self.end_by_drain(key.stream);
    }

    /// By what the next stream will be known.
    fn next_key(&mut self) -> Key {
        self.generations = self.generations.wrapping_add(1);
        Key {
            stream: self.streams.vacant_key() as u32,
            generation: self.generations,
        }
    }

    /// Appends frames of one topic to all of its streams, to each in turn.
    fn append(
        &mut self,
        topic: &Topic,
        frames: &[Arc<Queued>],
        append: impl Fn(&mut Sink, &[Arc<Queued>]) -> (Taken, Then),
    ) {
        let members = self.topics.of(topic);
        let count = members.len();
        let narrow = count <= NARROW;
        let (mut sent, mut full, mut gone, mut writers) = (0, Vec::new(), Vec::new(), Vec::new());
        for stream in members {
            let record = &mut self.streams[stream as usize];
            let (taken, then) = append(&mut record.sink, frames);
            match taken {
                Taken::All => sent += frames.len() as u64,
                Taken::Full => full.push(stream),
                Taken::None if record.sink.is_closed() => gone.push(stream),
                Taken::None => {}
            }
            match (then, &mut record.sink) {
                (Then::Write, Sink::Direct(direct)) if narrow => {
                    let made = Some(frames[0].made);
                    self.sockets.ready_first(stream, direct, made);
                }
                (Then::Write, Sink::Direct(direct)) => self.sockets.ready(stream, direct),
                (Then::Wake(writer), _) => writers.push(writer),
                _ => {}
            }
        }
        self.wakes.add(narrow, writers);
        self.appended += sent;
        self.metrics.frames_out.inc_by(sent);
        for stream in full {
            self.end_slow(stream);
        }
        for stream in gone {
            self.remove(stream);
        }
    }

    /// Ends the streams furthest behind until no more than this waits.
    fn shed(&mut self, most: usize) {
        // Those that have ended come first: their good-byes say what they have not been sent.
        while self.budget.used() > most
            && let Some(ended) = self.leaving.pop_front()
        {
            match ended {
                Ended::Outbox(outbox) => outbox.break_off(),
                Ended::Direct(key) => self.break_off(key),
            }
        }
        if self.budget.used() <= most {
            return;
        }
        // Whether there are such streams here or with another shard: those who are not far enough behind stay.
        let mut behind: Vec<(u64, u32)> = self
            .streams
            .iter()
            .filter_map(|(key, record)| Some((record.sink.oldest()?, key as u32)))
            .filter(|(issued, _)| self.budget.is_behind(*issued, most))
            .collect();
        behind.sort_unstable();
        for (_, stream) in behind {
            if self.budget.used() <= most {
                return;
            }
            self.end_slow(stream);
            // What it is in the middle of may be all that it held, and it is the last to have ended.
            if self.budget.used() > most
                && let Some(ended) = self.leaving.pop_back()
            {
                match ended {
                    Ended::Outbox(outbox) => outbox.break_off(),
                    Ended::Direct(key) => self.break_off(key),
                }
            }
        }
    }

    fn end_slow(&mut self, stream: u32) {
        let label = self.streams[stream as usize].label.clone();
        let count = self.slow.take().map_or(0, |(count, _)| count);
        self.slow = Some((count + 1, label));
        self.end(stream, Bye::Slow);
    }

    /// Ends a stream with a good-bye. Nothing more is appended to it; a direct one stays until it is written.
    fn end(&mut self, stream: u32, reason: Bye) {
        let record = &mut self.streams[stream as usize];
        let ended = record.sink.end(reason);
        if ended {
            self.metrics.bye(reason);
        }
        let charged = ended && record.sink.oldest().is_some();
        match &mut record.sink {
            Sink::Outbox(outbox) => {
                if charged {
                    self.leaving.push_back(Ended::Outbox(outbox.clone()));
                }
                self.remove(stream);
            }
            Sink::Direct(direct) => {
                if charged {
                    self.leaving.push_back(Ended::Direct(Key {
                        stream,
                        generation: record.generation,
                    }));
                }
                if !direct.is_blocked() {
                    self.sockets.ready(stream, direct);
                }
                if ended {
                    // Whoever takes longer for its rest is cut.
                    let at = Instant::now() + 3 * self.timing.write_timeout;
                    record.ends = Some((at, reason));
                    self.leave_topics(stream);
                    self.schedule(stream);
                }
            }
        }
    }

    /// Ends a direct stream whose client takes nothing, without a word that it would not take either.
    fn cut(&mut self, stream: u32) {
        self.metrics.streams_cut.inc();
        self.cut += 1;
        self.remove(stream);
    }

    fn remove(&mut self, stream: u32) {
        self.leave_topics(stream);
        self.streams.remove(stream as usize);
    }

    fn leave_topics(&mut self, stream: u32) {
        let places = std::mem::take(&mut self.streams[stream as usize].places);
        for (other, place, index) in self.topics.leave(&places) {
            if other == stream {
                continue;
            }
            self.streams[other as usize].places[place as usize].moved(index);
        }
    }

    /// The direct stream that is still known by this key.
    fn direct(&mut self, key: Key) -> Option<&mut Direct> {
        let record = self.streams.get_mut(key.stream as usize)?;
        match &mut record.sink {
            Sink::Direct(direct) if record.generation == key.generation => Some(direct),
            _ => None,
        }
    }
}

/// The duration, give or take a fifth.
fn jitter(mean: Duration) -> Duration {
    mean.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests;
