//! A shard: one loop that owns a part of the streams and is the only one to append to them.
//!
//! Looks, joins and ends arrive through one ordered, bounded inbox, and that order is the lock: a
//! stream joins its topics between two looks, never within one. A frame is appended to every one
//! of its streams before the next of another topic is taken, because its position claims every earlier
//! event of its look; only *waking* the writers is sliced, and those of a frame with few streams
//! come before those of a frame with many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::mpsc;

use super::attempt::Attempt;
use super::outbox::{Appended, Budget, Outbox, Queued};
use super::topics::{Place, Topics};
use super::wheel::{TICK, Wheel};
use crate::frame::{self, Bye, Frame, Position};
use crate::metrics::Metrics;
use crate::topic::Topic;

/// Commands that may wait in a shard's inbox: joins of a reconnect storm arrive in bursts.
const INBOX: usize = 1024;

/// A frame for at most this many streams is narrow, and its writers are woken first.
const NARROW: usize = 16;

/// How many writers of each kind are woken before the inbox is looked at again.
const WAKE_NARROW: usize = 256;
const WAKE_WIDE: usize = 64;

/// How long a look may keep silence: streams that have nothing to say of where they are beat all the same.
const SILENCE: Duration = Duration::from_secs(2);

/// How often it is told, at most, that streams were too slow.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// When the shard speaks or ends of its own accord, and how much may wait.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The mean time between two beats of a stream; each is jittered by a fifth.
    pub heartbeat: Duration,
    /// The age at which streams are asked to reconnect, so that they spread after scaling out.
    pub stream_age: Option<Duration>,
    /// The bytes of all waiting frames beyond which the streams furthest behind are ended.
    pub queue_bytes: usize,
}

/// A stream that wants to be fed from here on.
pub struct Join {
    /// Where its frames go.
    pub outbox: Outbox,
    /// Its topics, each once.
    pub topics: Vec<Topic>,
    /// When its token expires.
    pub expires: Option<Instant>,
    /// Who it is, for the log line of a stream that is too slow.
    pub label: Arc<str>,
}

/// What a shard is told, in order.
pub enum Command {
    /// A stream joins after everything that was sent before.
    Join(Join),
    /// The next frames of a look, each with the topic whose streams get it.
    Frames(Arc<[(Topic, Frame)]>, Attempt),
    /// Messages that are not part of the log: only live streams get them.
    Signal(Topic, Frame),
    /// A look is through; this is the position of everyone who has read all that was sent.
    Through(Option<Position>),
    /// The streams furthest behind end until no more than so many bytes wait.
    Shed(usize),
    /// Every stream ends now.
    EndAll(Bye),
    /// Every stream ends within this time, spread evenly, and so does whoever joins later.
    Drain(Duration),
}

/// The way to tell a shard.
pub type ShardHandle = mpsc::Sender<Command>;

struct Record {
    outbox: Outbox,
    places: Box<[Place]>,
    generation: u32,
    next_beat: Instant,
    ends: Option<(Instant, Bye)>,
    /// When its entry in the wheel is due; other entries of it are stale.
    due: Instant,
    label: Arc<str>,
}

/// The loop and what it owns.
pub struct Shard {
    inbox: mpsc::Receiver<Command>,
    streams: Slab<Record>,
    topics: Topics,
    wheel: Wheel,
    timing: Timing,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    /// The beat at the position of the last whole look, or since when one is under way.
    beat: Result<(bytes::Bytes, Option<Position>), Instant>,
    narrow: VecDeque<Waker>,
    wide: VecDeque<Waker>,
    /// Counts frames; see [`Queued::number`].
    frames: u64,
    generations: u32,
    drain_by: Option<Instant>,
    /// Streams that have ended, and are charged with what they still send.
    leaving: VecDeque<Outbox>,
    /// How many streams were too slow since that was last told, and the label of one of them.
    slow: Option<(usize, Arc<str>)>,
    tell_slow_at: Instant,
}

impl Shard {
    /// A shard without streams, and the way to tell it.
    pub fn new(timing: Timing, budget: Arc<Budget>, metrics: Arc<Metrics>) -> (Self, ShardHandle) {
        let (handle, inbox) = mpsc::channel(INBOX);
        let shard = Self {
            inbox,
            streams: Slab::new(),
            topics: Topics::default(),
            wheel: Wheel::new(Instant::now()),
            timing,
            budget,
            metrics,
            beat: Err(Instant::now()),
            narrow: VecDeque::new(),
            wide: VecDeque::new(),
            frames: 0,
            generations: 0,
            drain_by: None,
            leaving: VecDeque::new(),
            slow: None,
            tell_slow_at: Instant::now(),
        };
        (shard, handle)
    }

    /// Runs until every handle is gone.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => self.turn(Instant::now()),
                command = self.inbox.recv() => match command {
                    Some(command) => self.take(command),
                    None => return,
                },
                () = std::future::ready(()), if self.wakes_wait() => {}
            }
            self.wake_some();
            if self.wakes_wait() {
                // Those who were woken write now, before more are woken.
                tokio::task::yield_now().await;
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Join(join) => self.join(join),
            Command::Frames(frames, attempt) => {
                if self.beat.is_ok() {
                    self.beat = Err(Instant::now());
                }
                // Those of one topic in a row go to each of its streams at once.
                for run in frames.chunk_by(|(one, _), (next, _)| one == next) {
                    self.append(run, |outbox, queued| outbox.append(queued, &attempt));
                }
                self.shed(self.timing.queue_bytes);
            }
            Command::Signal(topic, frame) => {
                self.append(&[(topic, frame)], |outbox, queued| {
                    outbox.append_signal(&queued[0])
                });
            }
            Command::Through(position) => {
                self.beat = Ok((frame::beat(position.as_deref()), position));
            }
            Command::Shed(most) => self.shed(most),
            Command::EndAll(reason) => {
                let all: Vec<u32> = self.streams.iter().map(|(key, _)| key as u32).collect();
                for stream in all {
                    self.end(stream, reason);
                }
            }
            Command::Drain(over) => {
                self.drain_by = Some(Instant::now() + over);
                let all: Vec<u32> = self.streams.iter().map(|(key, _)| key as u32).collect();
                for stream in all {
                    self.end_by_drain(stream);
                }
            }
        }
    }

    fn join(&mut self, join: Join) {
        if join.outbox.is_closed() {
            return;
        }
        let now = Instant::now();
        self.generations = self.generations.wrapping_add(1);
        let age = self
            .timing
            .stream_age
            .map(|age| (now + jitter(age), Bye::Drain));
        let expiry = join.expires.map(|at| (at, Bye::Expired));
        let ends = [age, expiry]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at);
        let stream = self.streams.vacant_key() as u32;
        self.streams.insert(Record {
            places: self.topics.join(stream, &join.topics),
            outbox: join.outbox,
            generation: self.generations,
            next_beat: now + jitter(self.timing.heartbeat),
            ends,
            due: now,
            label: join.label,
        });
        self.schedule(stream);
        self.end_by_drain(stream);
    }

    /// Appends frames of one topic to all of its streams, to each in turn.
    fn append(
        &mut self,
        frames: &[(Topic, Frame)],
        append: impl Fn(&Outbox, &[Arc<Queued>]) -> Appended,
    ) {
        let first = self.frames + 1;
        self.frames += frames.len() as u64;
        let members = self.topics.of(&frames[0].0);
        let count = members.len();
        if count == 0 {
            return;
        }
        let queue = |((_, frame), number): (&(Topic, Frame), u64)| {
            Queued::new(frame.clone(), number, self.budget.clone())
        };
        let queued: Vec<_> = frames.iter().zip(first..).map(queue).collect();
        let ready = if count <= NARROW {
            &mut self.narrow
        } else {
            &mut self.wide
        };
        let (mut sent, mut full, mut gone) = (0, Vec::new(), Vec::new());
        for stream in members {
            let record = &self.streams[stream as usize];
            match append(&record.outbox, &queued) {
                Appended::Waits(waker) => {
                    sent += frames.len() as u64;
                    ready.extend(waker);
                }
                Appended::Full => full.push(stream),
                Appended::Refused if record.outbox.is_closed() => gone.push(stream),
                Appended::Refused => {}
            }
        }
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
            && let Some(outbox) = self.leaving.pop_front()
        {
            outbox.break_off();
        }
        if self.budget.used() <= most {
            return;
        }
        let mut behind: Vec<(u64, u32)> = self
            .streams
            .iter()
            .filter_map(|(key, record)| Some((record.outbox.oldest()?, key as u32)))
            .collect();
        behind.sort_unstable();
        for (_, stream) in behind {
            if self.budget.used() <= most {
                return;
            }
            let outbox = self.streams[stream as usize].outbox.clone();
            self.end_slow(stream);
            // What it is in the middle of may be all that it held.
            if self.budget.used() > most {
                outbox.break_off();
            }
        }
    }

    /// Beats and ends that have come due.
    fn turn(&mut self, now: Instant) {
        self.tell_slow(now);
        self.leaving.retain(|outbox| outbox.oldest().is_some());
        let silent = frame::beat(None);
        for (stream, generation) in self.wheel.advance(now) {
            let Some(record) = self.streams.get_mut(stream as usize) else {
                continue;
            };
            if record.generation != generation || record.due > now {
                continue;
            }
            if record.outbox.is_closed() {
                self.remove(stream);
                continue;
            }
            if let Some((at, reason)) = record.ends
                && at <= now
            {
                self.end(stream, reason);
                continue;
            }
            let beat = match &self.beat {
                Ok((block, position)) => Some((block, position.as_ref())),
                Err(since) if now.saturating_duration_since(*since) > SILENCE => {
                    Some((&silent, None))
                }
                // Within a look there is no whole position to beat at; soon there will be.
                Err(_) => None,
            };
            if let Some((block, position)) = beat {
                record.next_beat = now + jitter(self.timing.heartbeat);
                self.narrow.extend(record.outbox.beat(block, position));
            } else {
                record.next_beat = now + TICK;
            }
            self.schedule(stream);
        }
    }

    fn schedule(&mut self, stream: u32) {
        let record = &mut self.streams[stream as usize];
        record.due = match record.ends {
            Some((at, _)) => at.min(record.next_beat),
            None => record.next_beat,
        };
        self.wheel.enter(record.due, stream, record.generation);
    }

    /// While draining, gives the stream a random moment of what is left of the time.
    fn end_by_drain(&mut self, stream: u32) {
        let Some(by) = self.drain_by else { return };
        let left = by.saturating_duration_since(Instant::now());
        let at = Instant::now() + left.mul_f64(fastrand::f64());
        let record = &mut self.streams[stream as usize];
        if record.ends.is_none_or(|(ends, _)| at < ends) {
            record.ends = Some((at, Bye::Drain));
        }
        self.schedule(stream);
    }

    fn end_slow(&mut self, stream: u32) {
        let label = self.streams[stream as usize].label.clone();
        let count = self.slow.take().map_or(0, |(count, _)| count);
        self.slow = Some((count + 1, label));
        self.end(stream, Bye::Slow);
    }

    /// Tells of the streams that were too slow, once a second: in a storm there are thousands, and each
    /// line of a log costs more than ending a stream.
    fn tell_slow(&mut self, now: Instant) {
        if now < self.tell_slow_at {
            return;
        }
        if let Some((streams, one)) = self.slow.take() {
            self.tell_slow_at = now + TELL_EVERY;
            tracing::warn!(streams, %one, "streams ended: their clients read more slowly than events arrive");
        }
    }

    fn end(&mut self, stream: u32, reason: Bye) {
        let outbox = &self.streams[stream as usize].outbox;
        if outbox.end(reason) {
            self.metrics.bye(reason);
            if outbox.oldest().is_some() {
                self.leaving.push_back(outbox.clone());
            }
        }
        self.remove(stream);
    }

    fn remove(&mut self, stream: u32) {
        let record = self.streams.remove(stream as usize);
        for (other, place, index) in self.topics.leave(&record.places) {
            if other == stream {
                continue;
            }
            self.streams[other as usize].places[place as usize].moved(index);
        }
    }

    fn wakes_wait(&self) -> bool {
        !self.narrow.is_empty() || !self.wide.is_empty()
    }

    fn wake_some(&mut self) {
        let narrow = self.narrow.len().min(WAKE_NARROW);
        let wide = self.wide.len().min(WAKE_WIDE);
        let narrow = self.narrow.drain(..narrow);
        for waker in narrow.chain(self.wide.drain(..wide)) {
            waker.wake();
        }
    }
}

/// The duration, give or take a fifth.
fn jitter(mean: Duration) -> Duration {
    mean.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests;
