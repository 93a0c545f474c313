//! The middle of some figures, and how far they lie apart.

/// A median with its quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let last = figures.len().checked_sub(1)?;
        let at = |part: f64| {
            let place = last as f64 * part;
            let (below, above) = (place.floor(), place.ceil());
            let (lower, upper) = (figures[below as usize], figures[above as usize]);
            lower + (upper - lower) * (place - below)
        };
        Some(Self {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_their_neighbours() {
        assert_eq!(Spread::of(Vec::new()), None);
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).expect("some");
        assert_eq!((spread.low, spread.median, spread.high), (1.75, 2.5, 3.25));
        let one = Spread::of(vec![7.0]).expect("some");
        assert_eq!((one.low, one.median, one.high), (7.0, 7.0, 7.0));
    }
}
