//! How late events come: from the moment at which a writer is about to send COMMIT to the moment at which
//! somebody hears of it. Writers and listeners share this process and its clock.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

/// Moments by the id of an event; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Moments(Arc<Mutex<HashMap<i64, Instant>>>);

impl Moments {
    /// Notes that it is now; fails on an event that was noted before.
    pub(crate) fn note(&self, id: i64) {
        self.note_at(id, Instant::now());
    }

    pub(crate) fn note_at(&self, id: i64, at: Instant) {
        let before = self.lock().insert(id, at);
        assert!(before.is_none(), "event {id} came twice");
    }

    /// The events, in the order of ids.
    pub(crate) fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = self.lock().keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(crate) fn has(&self, id: i64) -> bool {
        self.lock().contains_key(&id)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Those from one moment on and before another.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Moments {
        let all = self.lock();
        let within = all.iter().filter(|(_, at)| (from..to).contains(at));
        let within = within.map(|(id, at)| (*id, *at)).collect();
        Moments(Arc::new(Mutex::new(within)))
    }

    /// How long after each of these moments its event came, or how long it has been waited for so far.
    pub(crate) fn waits(&self, later: &Moments) -> Vec<Duration> {
        let (now, later) = (Instant::now(), later.lock());
        let sent = self.lock();
        let waits = sent.iter().map(|(id, sent)| {
            let at = later.get(id).unwrap_or(&now);
            at.saturating_duration_since(*sent)
        });
        waits.collect()
    }

    /// How long after these moments each of their events came, of those that did.
    pub(crate) fn after(&self, earlier: &Moments) -> HashMap<i64, Duration> {
        let (later, earlier) = (self.lock(), earlier.lock());
        let came = earlier.iter().filter_map(|(id, sent)| {
            let at = later.get(id)?;
            Some((*id, at.saturating_duration_since(*sent)))
        });
        came.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Instant>> {
        self.0.lock().expect("nobody panics while it is held")
    }
}

/// Durations in order.
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    pub(crate) fn of(durations: impl IntoIterator<Item = Duration>) -> Spread {
        let mut durations: Vec<Duration> = durations.into_iter().collect();
        durations.sort_unstable();
        assert!(!durations.is_empty(), "nothing was measured");
        Spread(durations)
    }

    /// The duration that so many of a thousand do not exceed.
    pub(crate) fn per_mille(&self, part: usize) -> Duration {
        let place = (self.0.len() * part).div_ceil(1000);
        self.0[place.max(1) - 1]
    }

    pub(crate) fn most(&self) -> Duration {
        self.per_mille(1000)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, nearly] = [500, 990, 999].map(|part| self.per_mille(part));
        let all = self.most();
        write!(
            f,
            "p50 {half:.1?}, p99 {most:.1?}, p99.9 {nearly:.1?}, at most {all:.1?}"
        )
    }
}

#[test]
fn a_part_of_a_thousand_is_counted_from_the_shortest() {
    let spread = Spread::of((1..=2_000).rev().map(Duration::from_millis));
    let parts = [1, 500, 999, 1000].map(|part| spread.per_mille(part).as_millis());
    assert_eq!(parts, [2, 1000, 1998, 2000]);
    assert_eq!(Spread::of([Duration::ZERO]).per_mille(1), Duration::ZERO);
}
