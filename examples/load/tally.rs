//! The tally of sequences: what has come once, what came again, what came late.
//!
//! Each sequence keeps the number that it expects next; numbers that were passed over are kept as ranges
//! until they come, so that the tally is exact and yet small while nothing goes wrong.

use std::collections::HashMap;
use std::ops::Range;

/// What an arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Nothing has come after it before.
    InOrder,
    /// One of its sequence that follows it came before it.
    Late,
    /// It had come already.
    Again,
}

/// What has arrived of each sequence. Numbers begin at 0.
pub(crate) struct Tally {
    next: Vec<u64>,
    missing: HashMap<usize, Vec<Range<u64>>>,
}

impl Tally {
    /// A tally of so many sequences.
    pub(crate) fn new(sequences: usize) -> Self {
        Self {
            next: vec![0; sequences],
            missing: HashMap::new(),
        }
    }

    /// Notes that this number of a sequence has arrived.
    pub(crate) fn note(&mut self, sequence: usize, number: u64) -> Arrival {
        let next = &mut self.next[sequence];
        if number < *next {
            return self.note_late(sequence, number);
        }
        if number > *next {
            let missing = self.missing.entry(sequence).or_default();
            missing.push(*next..number);
        }
        *next = number + 1;
        Arrival::InOrder
    }

    fn note_late(&mut self, sequence: usize, number: u64) -> Arrival {
        let Some(missing) = self.missing.get_mut(&sequence) else {
            return Arrival::Again;
        };
        let Some(at) = missing.iter().position(|range| range.contains(&number)) else {
            return Arrival::Again;
        };
        let range = missing.swap_remove(at);
        let around = [range.start..number, number + 1..range.end];
        missing.extend(around.into_iter().filter(|range| !range.is_empty()));
        Arrival::Late
    }
}

#[cfg(test)]
mod tests {
    use super::Arrival::*;
    use super::*;

    fn noted(numbers: &[u64]) -> Vec<Arrival> {
        let mut tally = Tally::new(2);
        numbers
            .iter()
            .map(|number| tally.note(1, *number))
            .collect()
    }

    #[test]
    fn what_is_passed_over_may_come_late_and_once() {
        assert_eq!(noted(&[0, 1, 2]), [InOrder; 3]);
        assert_eq!(noted(&[0, 0, 1, 0]), [InOrder, Again, InOrder, Again]);
        assert_eq!(noted(&[1, 0, 0]), [InOrder, Late, Again]);
        assert_eq!(
            noted(&[5, 3, 0, 4, 3, 1, 2, 2, 6]),
            [InOrder, Late, Late, Late, Again, Late, Late, Again, InOrder]
        );
    }

    #[test]
    fn sequences_do_not_touch_each_other() {
        let mut tally = Tally::new(2);
        assert_eq!(tally.note(0, 1), InOrder);
        assert_eq!(tally.note(1, 0), InOrder);
        assert_eq!(tally.note(1, 0), Again);
        assert_eq!(tally.note(0, 0), Late);
    }
}
