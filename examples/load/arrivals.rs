//! Arrivals: what the reader makes of each payload: a delivery with its latency, or one too many.

use hdrhistogram::Histogram;

use crate::clock::Clock;
use crate::flight::Flights;
use crate::payload::{Kind, Payload};
use crate::tally::{Arrival, Tally};

/// Latencies are kept to three digits, up to ten minutes.
const LATENCY_MAX_US: u64 = 600_000_000;

/// What has arrived.
pub(crate) struct Arrivals {
    clock: Clock,
    /// Publishers of each kind. Each has numbers of its own in the shared topic, since nothing orders the
    /// commits of several.
    lanes: usize,
    flights: Flights,
    all: Tally,
    own: Tally,
    /// Deliveries since the beginning, each once.
    distinct: u64,
    doubled: u64,
    reordered: u64,
    foreign: u64,
    ended: u64,
    counted: Counted,
}

/// What has been counted since counting began.
#[derive(Clone)]
struct Counted {
    from_us: u64,
    until_us: u64,
    deliveries: u64,
    all: Histogram<u64>,
    own: Histogram<u64>,
}

/// Everything that arrivals tell.
pub(crate) struct Counts {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    /// Events of other runs, which are not counted anywhere else.
    pub(crate) foreign: u64,
    /// Streams that the server has ended.
    pub(crate) ended: u64,
    pub(crate) deliveries: u64,
    /// From the beginning of counting to the last delivery.
    pub(crate) seconds: f64,
    pub(crate) all: Histogram<u64>,
    pub(crate) own: Histogram<u64>,
}

impl Arrivals {
    pub(crate) fn new(clock: Clock, flights: Flights, lanes: usize, streams: usize) -> Self {
        Self {
            clock,
            lanes,
            flights,
            all: Tally::new(streams * lanes),
            own: Tally::new(streams),
            distinct: 0,
            doubled: 0,
            reordered: 0,
            foreign: 0,
            ended: 0,
            counted: Counted::from(clock.start_us()),
        }
    }

    /// Counting begins: what is published from now on makes the figures.
    pub(crate) fn begin(&mut self) {
        self.counted = Counted::from(self.clock.now_us());
    }

    /// Notes what has come to a stream.
    pub(crate) fn note(&mut self, stream: usize, payload: Payload, now_us: u64) {
        if payload.t_us < self.clock.start_us() {
            self.foreign += 1;
            return;
        }
        let (lane, arrival) = match payload.kind {
            Kind::All => {
                let lanes = self.lanes as u64;
                let (number, lane) = ((payload.n - 1) / lanes, (payload.n - 1) % lanes);
                let lane = lane as usize;
                (lane, self.all.note(stream * self.lanes + lane, number))
            }
            Kind::Own => {
                let lane = self.lanes + stream % self.lanes;
                (lane, self.own.note(stream, payload.n - 1))
            }
        };
        match arrival {
            Arrival::InOrder => {}
            Arrival::Late => self.reordered += 1,
            Arrival::Again => {
                self.doubled += 1;
                return;
            }
        }
        self.distinct += 1;
        self.counted.note(payload, now_us);
        self.flights.note(lane, payload.t_us);
    }

    /// Notes that the server has ended a stream, and returns how many that makes.
    pub(crate) fn note_end(&mut self) -> u64 {
        self.ended += 1;
        self.ended
    }

    /// No stream is left.
    pub(crate) fn give_up(&mut self) {
        self.flights.give_up();
    }

    pub(crate) fn counts(&mut self) -> Counts {
        let counted = self.counted.clone();
        let took_us = counted.until_us.saturating_sub(counted.from_us);
        Counts {
            lost: self.flights.expected().saturating_sub(self.distinct),
            doubled: self.doubled,
            reordered: self.reordered,
            foreign: self.foreign,
            ended: self.ended,
            deliveries: counted.deliveries,
            seconds: took_us as f64 / 1e6,
            all: counted.all,
            own: counted.own,
        }
    }
}

impl Counted {
    fn from(from_us: u64) -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("usual bounds");
        Self {
            from_us,
            until_us: from_us,
            deliveries: 0,
            all: latencies.clone(),
            own: latencies,
        }
    }

    fn note(&mut self, payload: Payload, now_us: u64) {
        if payload.t_us < self.from_us {
            return;
        }
        self.deliveries += 1;
        self.until_us = now_us;
        let latency = now_us.saturating_sub(payload.t_us);
        match payload.kind {
            Kind::All => self.all.saturating_record(latency),
            Kind::Own => self.own.saturating_record(latency),
        }
    }
}
