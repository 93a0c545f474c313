//! Arrivals: the reader writes down what came to which stream and when, and hands it over when it is asked. What
//! to make of it is found later, when nobody is being measured.

use crate::payload::Payload;

/// One delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) stream: usize,
    pub(crate) payload: Payload,
    pub(crate) received_us: u64,
}

/// What has arrived and was not handed over, in the order in which it came.
#[derive(Default)]
pub(crate) struct Arrivals {
    arrived: Vec<Arrival>,
    ended: u64,
}

/// What is handed over.
pub(crate) struct Counts {
    /// What has arrived since it was last asked.
    pub(crate) arrived: Vec<Arrival>,
    /// Streams that the server has ended since the beginning.
    pub(crate) ended: u64,
}

impl Arrivals {
    /// What has arrived so far is not counted.
    pub(crate) fn begin(&mut self) {
        self.arrived.clear();
    }

    /// Notes what has come to a stream.
    pub(crate) fn note(&mut self, stream: usize, payload: Payload, received_us: u64) {
        self.arrived.push(Arrival {
            stream,
            payload,
            received_us,
        });
    }

    /// Notes that the server has ended a stream, and returns how many that makes.
    pub(crate) fn note_end(&mut self) -> u64 {
        self.ended += 1;
        self.ended
    }

    /// No stream is left. Whoever asks is told by the number of those that have ended.
    pub(crate) fn give_up(&mut self) {}

    pub(crate) fn counts(&mut self) -> Counts {
        Counts {
            arrived: std::mem::take(&mut self.arrived),
            ended: self.ended,
        }
    }
}
