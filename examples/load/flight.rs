//! Flights: what is published at one time by one lane, until all who should have it have it.
//!
//! A lane sends its flight here before it publishes, so that whatever arrives has been announced. Nothing is
//! locked and the reader is not woken: it takes in what has been announced when it meets a time that it
//! does not know.

use std::collections::VecDeque;
use std::sync::mpsc::Receiver;

use tokio::sync::oneshot;

/// Deliveries that are expected of one lane at one time.
pub(crate) struct Flight {
    pub(crate) lane: usize,
    /// The intended time, which grows from flight to flight of a lane.
    pub(crate) t_us: u64,
    pub(crate) left: u64,
    /// Told when the last has arrived; dropped when no stream is left to which any could come.
    pub(crate) arrived: oneshot::Sender<()>,
}

/// All flights that have not arrived.
pub(crate) struct Flights {
    announced: Option<Receiver<Flight>>,
    lanes: Vec<VecDeque<Flight>>,
    expected: u64,
}

impl Flights {
    pub(crate) fn new(announced: Receiver<Flight>, lanes: usize) -> Self {
        Self {
            announced: Some(announced),
            lanes: (0..lanes).map(|_| VecDeque::new()).collect(),
            expected: 0,
        }
    }

    /// Notes that one of the deliveries of a flight has come.
    pub(crate) fn note(&mut self, lane: usize, t_us: u64) {
        let newest = self.lanes[lane].back().map_or(0, |flight| flight.t_us);
        if newest < t_us {
            self.take_in();
        }
        let flights = &mut self.lanes[lane];
        if let Ok(at) = flights.binary_search_by_key(&t_us, |flight| flight.t_us) {
            flights[at].left -= 1;
            if flights[at].left == 0 {
                let flight = flights.remove(at).expect("it was found there");
                // Who has stopped waiting need not be told.
                let _ = flight.arrived.send(());
            }
        }
    }

    /// How many deliveries have been announced since the beginning.
    pub(crate) fn expected(&mut self) -> u64 {
        self.take_in();
        self.expected
    }

    /// Nothing will come any more, and nothing more is to be announced.
    pub(crate) fn give_up(&mut self) {
        self.take_in();
        self.announced = None;
        self.lanes.iter_mut().for_each(VecDeque::clear);
    }

    fn take_in(&mut self) {
        for flight in self.announced.iter().flat_map(Receiver::try_iter) {
            self.expected += flight.left;
            self.lanes[flight.lane].push_back(flight);
        }
    }
}
