//! What a shard does of its own accord: beats, ends that have come due, and deadlines of writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Ended, Shard, jitter};
use crate::frame::Bye;
use crate::hub::queue::Beat;
use crate::hub::stream::{Sink, Then};
use crate::hub::wheel::TICK;

/// How long a look may keep silence: streams that have nothing to say of where they are beat all the same.
const SILENCE: Duration = Duration::from_secs(2);

/// How often it is told, at most, that streams were too slow.
const TELL_EVERY: Duration = Duration::from_secs(1);

impl Shard {
    /// Beats, ends and deadlines that have come due.
    pub(super) fn turn(&mut self, now: Instant) {
        self.tell(now);
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain(|ended| match ended {
            Ended::Outbox(outbox) => outbox.oldest().is_some(),
            Ended::Direct(key) => {
                let direct = self.direct(*key);
                direct.is_some_and(|direct| direct.queue.oldest().is_some())
            }
        });
        self.leaving = leaving;
        let beat = match &self.beat {
            Ok(beat) => Some(beat.clone()),
            Err(since) if now.saturating_duration_since(*since) > SILENCE => Some(Beat::new(None)),
            // Within a look there is no whole position to beat at; soon there will be.
            Err(_) => None,
        };
        for (stream, generation) in self.wheel.advance(now) {
            let Some(record) = self.streams.get(stream as usize) else {
                continue;
            };
            if record.generation == generation && record.due <= now {
                self.come_due(stream, now, beat.as_ref());
            }
        }
    }

    fn come_due(&mut self, stream: u32, now: Instant, beat: Option<&Arc<Beat>>) {
        let record = &mut self.streams[stream as usize];
        if record.sink.is_closed() {
            return self.remove(stream);
        }
        let patience = self.timing.write_timeout;
        let is_late =
            |sink: &Sink| (sink.stalled_for(now)).is_some_and(|stalled| stalled >= patience);
        if is_late(&record.sink) {
            // It may have been this process that was stopped.
            self.try_once_more(stream);
            match self.streams.get(stream as usize) {
                None => return,
                Some(record) if is_late(&record.sink) => return self.cut(stream),
                Some(_) => {}
            }
        }
        let record = &mut self.streams[stream as usize];
        if let Some((at, reason)) = record.ends
            && at <= now
        {
            return match record.sink.is_ending() {
                true => self.cut(stream),
                false => self.end(stream, reason),
            };
        }
        if record.next_beat <= now {
            let Some(beat) = beat else {
                record.next_beat = now + TICK;
                return self.schedule(stream);
            };
            record.next_beat = now + jitter(self.timing.heartbeat);
            match (record.sink.beat(beat), &mut record.sink) {
                (Then::Write, Sink::Direct(direct)) => {
                    self.sockets.ready_first(stream, direct, None);
                }
                (Then::Wake(writer), _) => self.wakes.add(true, vec![writer]),
                _ => {}
            }
        }
        self.schedule(stream);
    }

    /// Enters the stream into the wheel for whatever comes first.
    pub(super) fn schedule(&mut self, stream: u32) {
        let record = &mut self.streams[stream as usize];
        let mut due = record.next_beat;
        if let Some((at, _)) = record.ends {
            due = due.min(at);
        }
        let now = Instant::now();
        if let Some(stalled) = record.sink.stalled_for(now) {
            due = due.min(now + self.timing.write_timeout.saturating_sub(stalled));
        }
        record.due = due;
        self.wheel.enter(due, stream, record.generation);
    }

    /// While draining, gives the stream a random moment of what is left of the time.
    pub(super) fn end_by_drain(&mut self, stream: u32) {
        let Some(by) = self.drain_by else { return };
        let left = by.saturating_duration_since(Instant::now());
        let at = Instant::now() + left.mul_f64(fastrand::f64());
        let record = &mut self.streams[stream as usize];
        if record.sink.is_ending() {
            return;
        }
        if record.ends.is_none_or(|(ends, _)| at < ends) {
            record.ends = Some((at, Bye::Drain));
        }
        self.schedule(stream);
    }

    /// Tells of the streams that were too slow, once a second: in a storm there are thousands, and each
    /// line of a log costs more than ending a stream.
    fn tell(&mut self, now: Instant) {
        if now < self.tell_at {
            return;
        }
        if self.cut > 0 {
            self.tell_at = now + TELL_EVERY;
            let streams = std::mem::take(&mut self.cut);
            tracing::warn!(streams, "streams cut: their clients took nothing");
        }
        if let Some((streams, one)) = self.slow.take() {
            self.tell_at = now + TELL_EVERY;
            tracing::warn!(streams, %one, "streams ended: their clients read more slowly than events arrive");
        }
    }
}
