//! Turns at the pool: one sync or database replay per guest at a time, and together at most half
//! of the sessions, so that one guest cannot starve the rest and publishing always finds one.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::replay::PAGE_BYTES;
use crate::hub::directory::Guest;

/// Room for an answer, held until that has gone out.
pub type Room = OwnedSemaphorePermit;

/// Hands out turns.
#[derive(Debug)]
pub struct Turns {
    guests: DashMap<Guest, Arc<Semaphore>>,
    all: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    answers_kib: usize,
    wait: Duration,
}

/// Somebody's turn; dropping it ends the turn.
#[derive(Debug)]
pub struct Turn {
    _own: Own,
    _one_of_all: OwnedSemaphorePermit,
}

/// A guest's place in the map, while it waits and while it is served.
#[derive(Debug)]
struct Own {
    turns: Arc<Turns>,
    guest: Guest,
    permit: Option<OwnedSemaphorePermit>,
}

/// No turn was to be had in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl Turns {
    /// So many turns at once; `wait` is how long who can be told to ask again waits. Pages of
    /// replays and answers of syncs may hold so many bytes until their clients have taken them.
    pub fn new(at_once: usize, wait: Duration, pages: usize, answers: usize) -> Arc<Self> {
        Arc::new(Self {
            guests: DashMap::new(),
            all: Arc::new(Semaphore::new(at_once)),
            pages: Arc::new(Semaphore::new((pages / PAGE_BYTES as usize).max(1))),
            answers: Arc::new(Semaphore::new(answers >> 10)),
            answers_kib: answers >> 10,
            wait,
        })
    }

    /// Waits for a place in which to hold a page until its reader has it.
    pub(crate) async fn page(&self, wait: Duration) -> Result<OwnedSemaphorePermit, Busy> {
        granted(tokio::time::timeout(wait, self.pages.clone().acquire_owned()).await)
    }

    /// Room for an answer of so many bytes, if there is. One that is larger than all the room there is goes out
    /// alone.
    pub(crate) fn room(&self, bytes: usize) -> Result<Room, Busy> {
        let kib = bytes.div_ceil(1 << 10).min(self.answers_kib);
        let kib = u32::try_from(kib).map_err(|_| Busy)?;
        let room = self.answers.clone().try_acquire_many_owned(kib);
        room.map_err(|_| Busy)
    }

    /// How long to wait for a turn, unless there is a reason to wait longer.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Waits for a turn; each kind of waiting, for the guest's own and for one of all, ends after `wait`.
    pub async fn take(self: &Arc<Self>, guest: &Guest, wait: Duration) -> Result<Turn, Busy> {
        let one = self
            .guests
            .entry(guest.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(1)))
            .clone();
        let mut own = Own {
            turns: self.clone(),
            guest: guest.clone(),
            permit: None,
        };
        own.permit = Some(granted(
            tokio::time::timeout(wait, one.acquire_owned()).await,
        )?);
        let one_of_all = tokio::time::timeout(wait, self.all.clone().acquire_owned()).await;
        Ok(Turn {
            _own: own,
            _one_of_all: granted(one_of_all)?,
        })
    }
}

fn granted<E, F>(
    permit: Result<Result<OwnedSemaphorePermit, E>, F>,
) -> Result<OwnedSemaphorePermit, Busy> {
    permit.map_err(|_| Busy)?.map_err(|_| Busy)
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.permit.take());
        // The map holds one reference; any other belongs to someone who waits or is served.
        let guests = &self.turns.guests;
        guests.remove_if(&self.guest, |_, one| Arc::strong_count(one) == 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_guest_has_one_turn_and_all_have_half_the_pool() {
        let turns = Turns::new(2, Duration::from_secs(1), 0, 0);
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| Guest::User(name.into()));
        let take = |guest| turns.take(guest, turns.wait());
        let first = take(&alice).await.expect("a turn");
        assert_eq!(take(&alice).await.err(), Some(Busy));
        let _second = take(&bob).await.expect("a turn");
        assert_eq!(take(&carol).await.err(), Some(Busy));
        drop(first);
        drop(take(&alice).await.expect("a turn again"));
        assert_eq!(
            turns.guests.len(),
            1,
            "nothing is kept but of who is served"
        );
    }
}
