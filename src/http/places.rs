//! The places of a listener: how many connections there may be at once, and which of them can be spared
//! when there is no other place for a newcomer.
//!
//! A connection on which nothing is being answered can be: it has not sent a whole head yet, or is kept for a
//! next request. The one that has been so for longest goes first, as in nginx (`ngx_drain_connections`).
//! So whoever holds connections for nothing keeps out nobody who asks at once, and no open answer is ever
//! ended for a newcomer. Addresses are not counted: all clients of a proxy share one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// All places of one listener.
pub(super) struct Places {
    free: Arc<Semaphore>,
    spare: Mutex<Spare>,
    /// A connection has become one that can be spared.
    news: Notify,
    /// Connections that were closed for a newcomer.
    spared: Counter,
}

/// Those that can be spared, in the order in which they became so.
#[derive(Default)]
struct Spare {
    next: u64,
    cuts: BTreeMap<u64, CancellationToken>,
}

/// One connection's place; dropping it frees it.
pub(super) struct Place {
    places: Arc<Places>,
    /// Ends the connection.
    pub(super) cut: CancellationToken,
    state: Mutex<State>,
    _permit: OwnedSemaphorePermit,
}

struct State {
    /// Whether anything has ever been asked.
    begun: bool,
    /// Answers that are not over.
    open: usize,
    /// When the last of them was over, or the connection accepted.
    quiet_since: Instant,
    /// Where it stands among those that can be spared, while nothing is open.
    number: u64,
}

/// An answer that is not over; dropping it says that it is.
pub(super) struct Answering(Arc<Place>);

const HELD: &str = "no code panics while it holds this lock";

impl Places {
    pub(super) fn new(connections: usize, spared: Counter) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(connections)),
            spare: Mutex::default(),
            news: Notify::new(),
            spared,
        })
    }

    /// A place for a connection that has been accepted. When none is free, another is ended for it, or
    /// it waits until one can be.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Place> {
        let permit = loop {
            if let Ok(permit) = self.free.clone().try_acquire_owned() {
                break permit;
            }
            let freed = self.free.clone().acquire_owned();
            // What has been ended leaves at once; another need not be ended as well.
            let none_can_be = !self.end_oldest();
            tokio::select! {
                permit = freed => break permit.expect("nobody closes the semaphore"),
                () = self.news.notified(), if none_can_be => {}
            }
        };
        let cut = CancellationToken::new();
        let number = self.spare().push(cut.clone());
        Arc::new(Place {
            places: self.clone(),
            cut,
            state: Mutex::new(State {
                begun: false,
                open: 0,
                quiet_since: Instant::now(),
                number,
            }),
            _permit: permit,
        })
    }

    /// Ends the connection that can be spared best; returns whether there was one.
    pub(super) fn end_oldest(&self) -> bool {
        let oldest = self.spare().cuts.pop_first();
        if let Some((_, cut)) = &oldest {
            cut.cancel();
            self.spared.inc();
        }
        oldest.is_some()
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().expect(HELD)
    }
}

impl Spare {
    fn push(&mut self, cut: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        self.cuts.insert(number, cut);
        number
    }
}

impl Place {
    /// Says that an answer begins.
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        let mut state = self.state();
        if state.open == 0 {
            self.places.spare().cuts.remove(&state.number);
        }
        state.begun = true;
        state.open += 1;
        Answering(self.clone())
    }

    /// Whether anything has ever been asked.
    pub(super) fn has_begun(&self) -> bool {
        self.state().begun
    }

    /// Resolves when, from now on, no answer has been open for so long.
    pub(super) async fn idle(&self, patience: Duration) {
        let mut quiet = Instant::now();
        loop {
            tokio::time::sleep_until(quiet + patience).await;
            let state = self.state();
            // While an answer is open, it is as if it had just ended.
            let since = match state.open {
                0 => state.quiet_since,
                _ => Instant::now(),
            };
            if since <= quiet {
                return;
            }
            quiet = since;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(HELD)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        if state.open == 0 {
            state.quiet_since = Instant::now();
            state.number = self.0.places.spare().push(self.0.cut.clone());
            self.0.places.news.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = self.state().number;
        self.places.spare().cuts.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(count: usize) -> Arc<Places> {
        Places::new(count, Counter::default())
    }

    /// Ends as a connection does that is told to.
    fn ends_when_cut(place: Arc<Place>) {
        tokio::spawn(async move { place.cut.clone().cancelled().await });
    }

    #[tokio::test]
    async fn the_one_that_has_been_quiet_for_longest_is_ended_for_a_newcomer() {
        let places = places(3);
        let [first, second, third] = [
            places.take().await,
            places.take().await,
            places.take().await,
        ];
        drop(first.answering());
        let _open = third.answering();
        let cut = second.cut.clone();
        ends_when_cut(second);
        let _fourth = places.take().await;
        assert!(cut.is_cancelled());
        assert!(!first.cut.is_cancelled() && !third.cut.is_cancelled());
        assert_eq!(places.spared.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_answer_is_not_ended_and_the_newcomer_waits_for_its_end() {
        let places = places(1);
        let only = places.take().await;
        let (one, other) = (only.answering(), only.answering());
        let patience = Duration::from_secs(60);
        assert!(tokio::time::timeout(patience, places.take()).await.is_err());
        drop(one);
        assert!(tokio::time::timeout(patience, places.take()).await.is_err());
        assert!(!only.cut.is_cancelled());
        ends_when_cut(only);
        let (newcomer, ()) = tokio::join!(places.take(), async { drop(other) });
        assert!(!newcomer.cut.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_answered_is_idle_so_long_after_the_end_of_the_answer() {
        let place = places(1).take().await;
        let begun = Instant::now();
        let answering = place.answering();
        let second = Duration::from_secs(1);
        let end = async {
            tokio::time::sleep(5 * second).await;
            drop(answering);
        };
        tokio::join!(place.idle(2 * second), end);
        // An open answer is looked at again after as long as that.
        let took = begun.elapsed();
        assert!(took >= 7 * second && took <= 9 * second, "{took:?}");
        place.idle(2 * second).await;
        assert!(begun.elapsed() >= took + 2 * second);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_those_who_left() {
        let places = places(2);
        let place = places.take().await;
        drop(place.answering());
        drop(place);
        assert!(places.spare().cuts.is_empty());
        assert_eq!(places.free.available_permits(), 2);
    }
}
