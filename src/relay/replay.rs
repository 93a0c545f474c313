//! Replay: sending what a cursor has not seen, up to where its stream has attached.
//!
//! From the window when that recognises the cursor, without a query; otherwise from the database,
//! a page at a time, each page fetched only when the last one has been taken. Nothing is sent
//! before the log is known to be the one in which the cursor was made.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::attach::{Attached, Relay};
use super::feed::Out;
use super::loan::Loan;
use super::sync::GRACE;
use super::turn::Busy;
use crate::cursor::{Cursor, Leg, LegText, Standing};
use crate::frame::{Bye, Frame, Position, Reset};
use crate::hub::Missed;
use crate::hub::directory::Guest;
use crate::postgres::history::Extent;
use crate::postgres::{Page, Unserved, history};
use crate::topic::Topic;

/// A pause in which others have the window and the thread, while what came since is indexed.
const INDEX_PAUSE: Duration = Duration::from_millis(1);

/// How much of a replay is written at once, in bytes.
const CHUNK_BYTES: usize = 16 << 10;

/// The most bytes of payload on one page. Small beside what a page may have, because a stream holds
/// its page for as long as its client takes to read it.
pub(crate) const PAGE_BYTES: i64 = 256 << 10;

/// The pause between two tries while the database is away.
const AGAIN: Duration = Duration::from_millis(250);

/// Why a replay did not take place, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The cursor cannot be resumed.
    Reset(Reset),
    /// The stream ends; its cursor resumes it.
    Bye(Bye),
    /// The client has gone.
    Gone,
}

/// One stream's replay.
pub(crate) struct Replay<'a> {
    pub(crate) relay: &'a Relay,
    pub(crate) guest: &'a Guest,
    pub(crate) topics: &'a [Topic],
    pub(crate) named: bool,
    pub(crate) out: &'a Out,
    /// Until when the stream is held for the database, as long as nothing of the log has been sent.
    pub(crate) by: Instant,
}

impl Replay<'_> {
    /// Sends what `cursor` has missed up to where the stream attached; returns how many events.
    pub(crate) async fn run(&self, cursor: &Cursor, attached: &Attached) -> Result<usize, Refused> {
        let target = &attached.position;
        let legs = cursor.legs(target);
        let most = self.relay.bounds.replay_events;
        let window = &self.relay.window;
        while window.index_some() {
            tokio::time::sleep(INDEX_PAUSE).await;
        }
        match window.missed(cursor, target, &legs, self.topics, most) {
            Missed::TooFar => Err(Refused::Reset(Reset::TooFar)),
            Missed::Events(events) => {
                let source = if events.is_empty() { "none" } else { "window" };
                self.relay.metrics.replay(source);
                let mut writer = Writer::new(self, &legs);
                let count = events.len();
                // Each is let go of once it is written, since the window may have forgotten it by then.
                for (leg, entry) in events {
                    writer.write(leg, entry.id, &entry.frame).await?;
                }
                writer.flush().await?;
                Ok(count)
            }
            Missed::Unknown => {
                self.relay.metrics.replay("database");
                self.read_log(cursor, target, &legs).await
            }
        }
    }

    async fn read_log(
        &self,
        cursor: &Cursor,
        target: &Cursor,
        legs: &[Leg],
    ) -> Result<usize, Refused> {
        let most = self.relay.bounds.replay_events;
        let mut writer = Writer::new(self, legs);
        let mut sent = 0;
        for (n, leg) in legs.iter().enumerate() {
            let mut after = leg.after;
            loop {
                // Held until the page is written, so that clients who do not read hold few of them.
                let wait = self.left(self.deadline(sent > 0));
                let place = self.relay.turns.page(wait).await;
                let _place = place.map_err(|Busy| Refused::Bye(Bye::Overload))?;
                let page = self.page(leg, after, cursor, target, sent > 0).await?;
                let first = n == 0 && after == leg.after;
                if first && (page.more || legs.len() > 1 || page.events.len() > most) {
                    self.refuse_too_far(legs).await?;
                }
                for event in &page.events {
                    let frame = Frame::event(event, None);
                    writer.write(n, event.id, &frame).await?;
                    sent += 1;
                    after = event.id;
                }
                if !page.more {
                    break;
                }
            }
        }
        writer.flush().await?;
        Ok(sent)
    }

    /// One page, once the log is known to be the cursor's and the target's.
    async fn page(
        &self,
        leg: &Leg,
        after: i64,
        cursor: &Cursor,
        target: &Cursor,
        begun: bool,
    ) -> Result<Page, Refused> {
        let deadline = self.deadline(begun);
        let page = loop {
            match self.ask_page(leg, after, cursor, target, deadline).await {
                Ok(page) => break page,
                Err(unserved) => pass_or_wait(unserved, deadline).await?,
            }
        };
        match cursor.standing(&page.head.floor, page.head.anchor) {
            Standing::Served => {}
            // What was sent so far is held by the client; its next cursor meets the reset.
            Standing::Trimmed if begun => return Err(Refused::Bye(Bye::Slow)),
            Standing::Diverged if begun => return Err(Refused::Bye(Bye::Diverged)),
            Standing::Trimmed => return Err(Refused::Reset(Reset::Trimmed)),
            Standing::Diverged => return Err(Refused::Reset(Reset::Diverged)),
        }
        if target.standing(&page.head.floor, page.head.newest.1) == Standing::Diverged {
            // The pool has reached another server than the tail has.
            return Err(Refused::Bye(Bye::Unavailable));
        }
        Ok(page)
    }

    async fn ask_page(
        &self,
        leg: &Leg,
        after: i64,
        cursor: &Cursor,
        target: &Cursor,
        deadline: Instant,
    ) -> Result<Page, Unserved> {
        let extent = Extent {
            rows: self.relay.bounds.replay_events as i64,
            bytes: PAGE_BYTES,
        };
        let loan = self.loan(deadline).await?;
        let ends = (cursor, target);
        let page = history::page(&*loan, self.topics, leg, after, extent, ends);
        let page = self.in_time(page).await?;
        loan.release();
        Ok(page?)
    }

    async fn refuse_too_far(&self, legs: &[Leg]) -> Result<(), Refused> {
        let most = self.relay.bounds.replay_events as i64;
        let missed = loop {
            match self.ask_missed(legs, most).await {
                Ok(missed) => break missed,
                Err(unserved) => pass_or_wait(unserved, self.by).await?,
            }
        };
        if missed > most {
            return Err(Refused::Reset(Reset::TooFar));
        }
        Ok(())
    }

    async fn ask_missed(&self, legs: &[Leg], most: i64) -> Result<i64, Unserved> {
        let loan = self.loan(self.by).await?;
        let missed = self
            .in_time(history::missed(&*loan, self.topics, legs, most))
            .await?;
        loan.release();
        Ok(missed?)
    }

    /// Bounds a statement on this side too: a peer that swallows it would hold the turn for ever. The
    /// session of one that did not answer is not used again.
    async fn in_time<T>(&self, statement: impl Future<Output = T>) -> Result<T, Unserved> {
        let limit = self.relay.bounds.statement_timeout + GRACE;
        let answer = tokio::time::timeout(limit, statement).await;
        answer.map_err(|_| Unserved::Away("the session does not answer".into()))
    }

    /// Waits for its turn as long as for a database that is away. A gateway that has just been started has an
    /// empty window, and thousands may come to it at once: whoever were sent away would miss what
    /// happens for minutes, where a turn takes milliseconds.
    async fn loan(&self, deadline: Instant) -> Result<Loan, Unserved> {
        let Relay { turns, pool, .. } = self.relay;
        Loan::take(turns, pool, self.guest, self.left(deadline)).await
    }

    /// How long may still be waited for others who are served, which is some time in any case.
    fn left(&self, deadline: Instant) -> Duration {
        let left = deadline.saturating_duration_since(Instant::now());
        left.max(self.relay.turns.wait())
    }

    /// Until when the database is asked again. Whoever gets page after page is held for each anew.
    fn deadline(&self, begun: bool) -> Instant {
        match begun {
            true => Instant::now() + self.relay.bounds.hold,
            false => self.by,
        }
    }
}

/// Waits before the database is asked again, or says how the stream ends. Nothing of an answer that
/// failed has been handed on, so asking again is safe.
async fn pass_or_wait(unserved: Unserved, deadline: Instant) -> Result<(), Refused> {
    if matches!(unserved, Unserved::Away(_)) && Instant::now() + AGAIN <= deadline {
        tokio::time::sleep(AGAIN).await;
        return Ok(());
    }
    unserved.log("replay");
    Err(Refused::Bye(match unserved {
        Unserved::Busy => Bye::Overload,
        Unserved::Away(_) | Unserved::Refused(_) => Bye::Unavailable,
    }))
}

/// Writes replayed frames, each with the cursor of its place on the way, in chunks.
struct Writer<'a> {
    replay: &'a Replay<'a>,
    ways: Vec<LegText>,
    chunk: BytesMut,
    /// The position of the last event in the chunk.
    reached: Option<Position>,
}

impl<'a> Writer<'a> {
    fn new(replay: &'a Replay<'a>, legs: &[Leg]) -> Self {
        Self {
            replay,
            ways: legs.iter().map(LegText::new).collect(),
            chunk: BytesMut::new(),
            reached: None,
        }
    }

    async fn write(&mut self, leg: usize, id: i64, frame: &Frame) -> Result<(), Refused> {
        let position = self.ways[leg].at(id);
        if position.is_none() {
            self.replay.relay.metrics.positions_too_long.inc();
        }
        let block = frame.replayed(self.replay.named, position.as_deref());
        self.chunk.extend_from_slice(&block);
        if let Some(position) = position {
            self.reached = Some(position.into());
        }
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Refused> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk: Bytes = std::mem::take(&mut self.chunk).freeze();
        self.replay.out.send(chunk, self.reached.take()).await
    }
}
