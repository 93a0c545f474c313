//! When to be awake: to look by oneself while the doorbell is silent.
//!
//! A commit that rings the doorbell takes a lock of the whole cluster, so that bells which come often cap
//! what a database can commit. A gateway that is rung often therefore takes the advisory lock which
//! silences the bell, and looks every few milliseconds instead. It gives the lock back when little comes, and
//! goes on looking until every transaction that may have found the bell silent has ended.
//!
//! Here are only the decisions and their clock; [`look`](super::look) carries them out.

use std::time::{Duration, Instant};

/// The time in which as many bells must come as make up the rate at which a gateway wakes.
const COUNT: Duration = Duration::from_millis(250);
/// The time after which it is asked whether being awake is still worth it.
const REVIEW: Duration = Duration::from_secs(1);
/// An event waits for half the time between two looks and for one look. That both together be as long as this
/// leaves a promise of 5 ms time for the rest of the way.
const WAY: Duration = Duration::from_micros(3_500);
/// Looking more often than this would cost the database more than it gains anybody.
const LEAST: Duration = Duration::from_millis(2);
/// And less often saves next to nothing.
const MOST: Duration = Duration::from_millis(5);

/// After the lock was given back, looks grow rarer by and by, but not rarer than this.
const SETTLING_MOST: Duration = Duration::from_millis(20);
/// For so long the server may go on serving a session that this end has lost, and the lock with it.
const GHOST: Duration = Duration::from_secs(2);
/// Whoever decided not to ring and has not committed after this long is left to the look that happens anyway.
const SETTLING: Duration = Duration::from_secs(5);

/// How often to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// A look happens at least this often, whatever becomes of the bells.
    pub every: Duration,
    /// Bells a second from which on to be awake; `None` is never.
    pub awake: Option<u32>,
    /// The most time to be awake at once, for tests of the hand-over.
    pub awake_for: Option<Duration>,
}

/// What is to be done after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for the lock.
    Wake,
    /// Give it back.
    Sleep,
    /// The session was lost, and perhaps the lock with it: ask for the lock, which tells whether anybody has it,
    /// or else for the transaction that those who find the bell silent come before.
    Settle,
    Stay,
}

#[derive(Debug)]
enum State {
    /// Bells call.
    Asleep,
    /// The lock is ours.
    Awake {
        since: Instant,
        /// Up to when the time was told.
        told: Instant,
        /// When what came was counted from, and in how many looks something did.
        review: Instant,
        looks: u32,
        found: u32,
    },
    /// It may have been, and its session is gone.
    Lost,
    /// It was, and transactions below the barrier may have found it taken; for some time others may as well.
    Settling {
        barrier: u64,
        since: Instant,
        least: Duration,
    },
}

/// The decisions of one gateway.
#[derive(Debug)]
pub(super) struct Awake {
    rhythm: Rhythm,
    state: State,
    /// When bells were counted from, and how many there had been.
    counted: (Instant, u64),
    /// How long it has been awake, as far as nobody has asked yet.
    spent: Duration,
    /// When to look next, if nothing calls before.
    next: Instant,
}

impl Awake {
    pub(super) fn new(rhythm: Rhythm, now: Instant) -> Self {
        Self {
            rhythm,
            state: State::Asleep,
            counted: (now, 0),
            spent: Duration::ZERO,
            next: now,
        }
    }

    /// Whether the lock is ours.
    pub(super) fn is_awake(&self) -> bool {
        matches!(self.state, State::Awake { .. })
    }

    /// Whether what a look finds may have been committed in silence, so that the other gateways are to be told: while
    /// the lock is ours, and until everybody who found it taken has ended.
    pub(super) fn rings(&self) -> bool {
        !matches!(self.state, State::Asleep)
    }

    /// How long it has been awake since this was asked.
    pub(super) fn time(&mut self, now: Instant) -> Duration {
        if let State::Awake { told, .. } = &mut self.state {
            self.spent += now - std::mem::replace(told, now);
        }
        std::mem::take(&mut self.spent)
    }

    /// Nothing calls for being awake any more: the gateway is about to end, and others are to be rung for.
    pub(super) fn retire(&mut self) {
        self.rhythm.awake = None;
    }

    /// When to look next, if nothing calls before.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// A look has ended, which took so long and found so many events. `bells` have been heard since the gateway began, and
    /// `unfinished` is the first transaction that had not ended when the look began.
    pub(super) fn looked(
        &mut self,
        now: Instant,
        took: Duration,
        rows: usize,
        bells: u64,
        unfinished: u64,
    ) -> Step {
        let step = self.step(now, rows, bells, unfinished);
        self.next = now + self.gap(now, took);
        step
    }

    fn step(&mut self, now: Instant, rows: usize, bells: u64, unfinished: u64) -> Step {
        match &mut self.state {
            State::Lost => return Step::Settle,
            State::Awake {
                since,
                review,
                looks,
                found,
                ..
            } => {
                self.counted = (now, bells);
                *looks += 1;
                *found += u32::from(rows > 0);
                let over = (self.rhythm.awake_for).is_some_and(|most| now - *since >= most);
                let Some(rate) = self.rhythm.awake.filter(|_| !over) else {
                    return Step::Sleep;
                };
                let time = now - *review;
                if time >= REVIEW {
                    // Half of what it takes to wake, so that nobody wakes and sleeps in turn. Each look tells of many
                    // commits as of one, so that where most find something, more may come than can be counted.
                    let enough = time.as_secs_f64() * f64::from(rate) / 2.0;
                    if f64::from(*found) < enough.min(f64::from(*looks) / 2.0) {
                        return Step::Sleep;
                    }
                    (*review, *looks, *found) = (now, 0, 0);
                }
                return Step::Stay;
            }
            State::Settling {
                barrier,
                since,
                least,
            } => {
                let time = now - *since;
                if unfinished >= *barrier && time >= *least || time >= SETTLING {
                    self.state = State::Asleep;
                }
            }
            State::Asleep => {}
        }
        if self.is_called_for(now, bells) {
            Step::Wake
        } else {
            Step::Stay
        }
    }

    /// Whether bells come as often as makes it worth to be awake.
    fn is_called_for(&mut self, now: Instant, bells: u64) -> bool {
        let Some(rate) = self.rhythm.awake else {
            return false;
        };
        let (since, before) = self.counted;
        let enough = (u64::from(rate) * COUNT.as_millis() as u64).div_ceil(1000);
        let called = bells - before >= enough;
        if called || now - since >= COUNT {
            self.counted = (now, bells);
        }
        called
    }

    /// The lock was to be had.
    pub(super) fn woken(&mut self, now: Instant) {
        self.state = State::Awake {
            since: now,
            told: now,
            review: now,
            looks: 0,
            found: 0,
        };
        // Whoever found the bell silent a moment ago may have committed already.
        self.next = now;
    }

    /// The lock was given back before the transaction `barrier` began. Where it was lost, the server may only
    /// be about to notice.
    pub(super) fn settle(&mut self, now: Instant, barrier: u64) {
        self.spent = self.time(now);
        let least = match self.state {
            State::Lost => GHOST,
            _ => Duration::ZERO,
        };
        self.state = State::Settling {
            barrier,
            since: now,
            least,
        };
        self.next = now + LEAST;
    }

    /// The session is lost, and what it held or was just asking for.
    pub(super) fn lose(&mut self, now: Instant) {
        self.spent = self.time(now);
        if self.rhythm.awake.is_some() {
            self.state = State::Lost;
        }
    }

    fn gap(&self, now: Instant, took: Duration) -> Duration {
        let gap = match self.state {
            State::Awake { .. } => (2 * WAY.saturating_sub(took)).clamp(LEAST, MOST),
            State::Settling { since, .. } => ((now - since) / 8).clamp(LEAST, SETTLING_MOST),
            State::Asleep | State::Lost => self.rhythm.every,
        };
        gap.min(self.rhythm.every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn awake(rate: Option<u32>) -> (Awake, Instant) {
        let now = Instant::now();
        let rhythm = Rhythm {
            every: Duration::from_secs(1),
            awake: rate,
            awake_for: None,
        };
        (Awake::new(rhythm, now), now)
    }

    #[test]
    fn bells_that_come_often_wake_and_fewer_do_not() {
        let (mut often, mut now) = awake(Some(100));
        let (mut seldom, _) = awake(Some(100));
        let (mut never, _) = awake(None);
        let mut woken = 0;
        for bells in 1..=100 {
            now += 8 * MILLISECOND;
            woken += u32::from(often.looked(now, MILLISECOND, 1, bells, 9) == Step::Wake);
            assert_eq!(never.looked(now, MILLISECOND, 1, bells, 9), Step::Stay);
        }
        assert_eq!(woken, 4, "each time that 25 have come in 250 ms");
        for bells in 1..=100 {
            now += 12 * MILLISECOND;
            assert_eq!(seldom.looked(now, MILLISECOND, 1, bells, 9), Step::Stay);
        }
    }

    #[test]
    fn who_always_finds_something_stays_awake_however_long_looks_take() {
        for (rate, took) in [(100, 30), (100, 900), (10_000, 1)] {
            let (mut awake, mut now) = awake(Some(rate));
            awake.woken(now);
            for _ in 0..1_000 {
                now += took * MILLISECOND;
                let step = awake.looked(now, took * MILLISECOND, 1, 0, 9);
                assert_eq!(step, Step::Stay, "{rate} a second, {took} ms");
            }
        }
    }

    #[test]
    fn who_is_about_to_end_sleeps_and_does_not_wake_again() {
        let (mut awake, now) = awake(Some(100));
        awake.woken(now);
        awake.retire();
        let later = now + MILLISECOND;
        assert_eq!(awake.looked(later, MILLISECOND, 1, 0, 9), Step::Sleep);
        awake.settle(later, 20);
        assert!(awake.rings());
        assert_eq!(awake.looked(later, MILLISECOND, 1, 500, 9), Step::Stay);
        assert_eq!(awake.time(later), MILLISECOND);
    }

    #[test]
    fn who_is_awake_sleeps_when_little_comes_and_looks_until_the_barrier_is_reached() {
        let (mut awake, mut now) = awake(Some(100));
        awake.woken(now);
        assert_eq!(awake.next(), now);
        let mut steps = Vec::new();
        for look in 0..400 {
            now += 5 * MILLISECOND;
            // Every second look finds something in the first second, every tenth in the next.
            let rows = usize::from(look % if look < 200 { 2 } else { 10 } == 0);
            steps.push(awake.looked(now, MILLISECOND, rows, 0, 9));
            assert!(awake.next() <= now + MOST, "{look}");
        }
        assert_eq!(steps.iter().filter(|step| **step == Step::Sleep).count(), 1);
        assert_eq!(steps.last(), Some(&Step::Sleep));
        awake.settle(now, 20);
        for unfinished in [9, 19] {
            assert!(awake.rings() && !awake.is_awake());
            now += 100 * MILLISECOND;
            awake.looked(now, MILLISECOND, 0, 0, unfinished);
            assert!(awake.next() <= now + SETTLING_MOST);
        }
        awake.looked(now, MILLISECOND, 0, 0, 20);
        assert!(!awake.rings());
        assert_eq!(awake.next(), now + Duration::from_secs(1));
    }

    #[test]
    fn settling_ends_after_a_while_behind_a_transaction_that_stays_open() {
        let (mut awake, now) = awake(Some(100));
        awake.woken(now);
        awake.settle(now, 20);
        let later = now + SETTLING;
        awake.looked(later, MILLISECOND, 0, 0, 9);
        assert_eq!(awake.next(), later + Duration::from_secs(1));
    }

    #[test]
    fn a_lock_that_was_lost_with_its_session_is_settled_for_as_long_as_the_server_may_keep_it() {
        let (mut awake, now) = awake(Some(100));
        awake.woken(now);
        awake.lose(now);
        assert!(awake.rings() && !awake.is_awake());
        assert_eq!(awake.looked(now, MILLISECOND, 0, 0, 9), Step::Settle);
        awake.settle(now, 20);
        for (later, rings) in [(GHOST - MILLISECOND, true), (GHOST, false)] {
            awake.looked(now + later, MILLISECOND, 0, 0, 20);
            assert_eq!(awake.rings(), rings);
        }
    }

    #[test]
    fn who_never_wakes_has_nothing_to_settle() {
        let (mut awake, now) = awake(None);
        awake.lose(now);
        assert_eq!(awake.looked(now, MILLISECOND, 0, 0, 9), Step::Stay);
    }

    #[test]
    fn the_longer_a_look_takes_the_sooner_the_next_begins() {
        let (mut awake, now) = awake(Some(100));
        awake.woken(now);
        for (took, gap) in [
            (0, 5000),
            (1000, 5000),
            (2000, 3000),
            (3000, 2000),
            (9000, 2000),
        ] {
            awake.looked(now, Duration::from_micros(took), 1, 0, 9);
            assert_eq!(awake.next() - now, Duration::from_micros(gap));
        }
    }
}
