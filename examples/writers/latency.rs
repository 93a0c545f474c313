//! How long events took from their INSERT to their stream.

/// The parts of all events within which latencies are told, and their names.
pub(crate) const PARTS: [(f64, &str); 5] = [
    (0.5, "latency_ms_p50"),
    (0.9, "latency_ms_p90"),
    (0.99, "latency_ms_p99"),
    (0.999, "latency_ms_p99_9"),
    (1.0, "latency_ms_max"),
];

/// Latencies in microseconds, sorted.
pub(crate) struct Latencies(Vec<u64>);

impl Latencies {
    pub(crate) fn of(latencies_us: impl Iterator<Item = u64>) -> Self {
        let mut latencies_us: Vec<u64> = latencies_us.collect();
        latencies_us.sort_unstable();
        Self(latencies_us)
    }

    /// The least latency within which this part of the events arrived; `None` without any.
    pub(crate) fn within_ms(&self, part: f64) -> Option<f64> {
        let rank = (self.0.len() as f64 * part).ceil() as usize;
        let us = *self.0.get(rank.max(1) - 1)?;
        Some(us as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_by_rank() {
        let latencies = Latencies::of((1..=1_000).rev().map(|ms| ms * 1_000));
        let told = PARTS.map(|(part, _)| latencies.within_ms(part));
        assert_eq!(told, [500.0, 900.0, 990.0, 999.0, 1_000.0].map(Some));
        assert_eq!(Latencies::of([7].into_iter()).within_ms(0.5), Some(0.007));
        assert_eq!(Latencies::of(std::iter::empty()).within_ms(0.5), None);
    }
}
