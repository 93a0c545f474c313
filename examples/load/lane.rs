//! A lane: a publisher with streams and numbers of its own, and the waiting for what it has published.
//!
//! What one lane publishes is in order, since it waits for each commit before the next; of several, nothing
//! could say which comes first. So the shared topic is numbered by each lane in steps of the number of
//! lanes, and the streams that unicasts go to are divided among them.

use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::Result;
use crate::clock::Clock;
use crate::flight::Flight;
use crate::pace::Shot;
use crate::payload::{Kind, Payload};
use crate::publisher::{Draft, Publisher};
use crate::request::topic;
use crate::telling::Tickets;

/// What all lanes of a kind have in common.
#[derive(Clone)]
pub(crate) struct Course {
    pub(crate) kind: Kind,
    /// Lanes of this kind.
    pub(crate) lanes: usize,
    pub(crate) streams: usize,
    pub(crate) batch: u64,
    /// Whether unicasts go to random streams; otherwise to one after the other.
    pub(crate) at_random: bool,
    pub(crate) pad_bytes: usize,
    pub(crate) patience: Duration,
    pub(crate) clock: Clock,
    pub(crate) flights: Sender<Flight>,
}

/// One of them.
pub(crate) struct Lane {
    course: Course,
    number: usize,
    publisher: Publisher,
    /// Events published: of the shared topic, or of each of this lane's own.
    published: Vec<u64>,
    /// Whose turn it is, when unicasts go to one after the other.
    turn: usize,
    last_us: u64,
}

impl Lane {
    pub(crate) fn new(course: Course, number: usize, publisher: Publisher) -> Self {
        let topics = match course.kind {
            Kind::All => 1,
            Kind::Own => (course.streams - number).div_ceil(course.lanes),
        };
        Self {
            course,
            number,
            publisher,
            published: vec![0; topics],
            turn: 0,
            last_us: 0,
        }
    }

    /// Publishes its next when its last has arrived, while there are tickets. One that does not arrive ends
    /// it: what would be measured from there on is waiting.
    pub(crate) async fn close_loop(&mut self, tickets: &Tickets) -> Result<()> {
        while let Some(events) = tickets.take(self.course.batch) {
            let t_us = self.course.clock.now_us();
            let Some(arrived) = self.shoot(Shot { t_us, events }).await? else {
                break;
            };
            let deadline = Instant::now() + self.course.patience;
            if !matches!(timeout_at(deadline, arrived).await, Ok(Ok(()))) {
                tickets.withdraw();
            }
        }
        Ok(())
    }

    /// Publishes what is due, until nothing more will be, and waits until all has arrived.
    pub(crate) async fn open_loop(&mut self, mut due: mpsc::UnboundedReceiver<Shot>) -> Result<()> {
        let mut flying = Vec::new();
        while let Some(shot) = due.recv().await {
            let Some(arrived) = self.shoot(shot).await? else {
                break;
            };
            flying.push(arrived);
        }
        let deadline = Instant::now() + self.course.patience;
        for arrived in flying {
            // What does not arrive is told by the figures.
            let _ = timeout_at(deadline, arrived).await;
        }
        Ok(())
    }

    /// How many events it has published.
    pub(crate) fn published(&self) -> u64 {
        self.published.iter().sum()
    }

    /// Publishes one batch, and returns what tells of its arrival; `None` when no stream is left to which it
    /// could go.
    async fn shoot(&mut self, shot: Shot) -> Result<Option<oneshot::Receiver<()>>> {
        // The times of a lane tell its flights from each other.
        self.last_us = shot.t_us.max(self.last_us + 1);
        let (each, offset) = match self.course.kind {
            Kind::All => (self.course.streams as u64, 0),
            Kind::Own => (1, self.course.lanes),
        };
        let (arrived, arriving) = oneshot::channel();
        let flight = Flight {
            lane: offset + self.number,
            t_us: self.last_us,
            left: each * shot.events,
            arrived,
        };
        if self.course.flights.send(flight).is_err() {
            return Ok(None);
        }
        let drafts = (0..shot.events).map(|_| self.draft()).collect();
        self.publisher.publish(drafts).await?;
        Ok(Some(arriving))
    }

    fn draft(&mut self) -> Draft {
        let lanes = self.course.lanes;
        let (place, n) = match self.course.kind {
            Kind::All => (
                0,
                1 + (self.number + lanes * self.published[0] as usize) as u64,
            ),
            Kind::Own => {
                let place = self.next_place();
                (place, 1 + self.published[place])
            }
        };
        self.published[place] += 1;
        let payload = Payload {
            n,
            t_us: self.last_us,
            kind: self.course.kind,
        };
        Draft {
            topic: topic(self.course.kind, self.number + lanes * place),
            payload: payload.write(self.course.pad_bytes),
        }
    }

    /// The next of its own streams to be told something.
    fn next_place(&mut self) -> usize {
        if self.course.at_random {
            return fastrand::usize(..self.published.len());
        }
        self.turn = (self.turn + 1) % self.published.len();
        self.turn
    }
}
